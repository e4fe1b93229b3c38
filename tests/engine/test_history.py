"""The past while it moves from the stream to SQL: nothing is missing, and nothing is there twice."""

import asyncio
from typing import Any

import pytest

from creditgate import openings
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Mode
from creditgate.engine.customers import Profile
from creditgate.engine.usage import Usage

TRACKS = 5


@pytest.mark.parametrize("is_first", [True, False], ids=["before SQL is asked", "after SQL was asked"])
async def test_a_flush_while_history_is_read_hides_nothing(
    cases: openings.UseCases, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    """What leaves the stream while it is read is in SQL by then, or was in the stream before: each use is told once."""
    await cases.customers.get_or_create("ann", Profile())
    for _ in range(TRACKS):
        await cases.meter.track(Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP))
    ask, loop = cases.history._ledger.events, asyncio.get_running_loop()

    def flush() -> None:
        asyncio.run_coroutine_threadsafe(cases.flusher.flush_once(), loop).result()

    def ask_around_a_flush(*args: Any, **kwargs: Any) -> Any:
        if is_first:
            flush()
        found = ask(*args, **kwargs)
        if not is_first:
            flush()
        return found

    monkeypatch.setattr(cases.history._ledger, "events", ask_around_a_flush)
    page = await cases.history.events(customer_id="ann", limit=100)
    assert len({event.id for event in page.events}) == len(page.events) == TRACKS
