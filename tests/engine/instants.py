"""Instants that are soon: far enough ahead that what a test does before them is done, also on a busy machine."""

import asyncio

from creditgate.openings import UseCases

SOON_MS = 1_500


async def passed(cases: UseCases, instant: int) -> None:
    """Return when an instant has passed on Redis's clock."""
    await asyncio.sleep(max(0, instant + 5 - cases.clock.now_ms()) / 1000)
