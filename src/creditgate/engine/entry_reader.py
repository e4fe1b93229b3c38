"""Entries out of SQL for callers who repeat their calls, many at the same time after an outage.

Those that are asked for in one turn of the event loop, or while a read is under way, are read together: one hop to a
thread, one transaction and one statement for all. What is asked for is never answered by a read that had begun before.
A read that takes too long fails all who wait by then, so that nobody waits longer.

Nothing is remembered: a call is seldom repeated more than once, and a read among others costs little.
"""

import asyncio
from copy import copy
from typing import NamedTuple

from creditgate.core.journal import Entry
from creditgate.engine.attempts import DEADLINE_S
from creditgate.ledger.database import LedgerUnavailable
from creditgate.ledger.entries import PLACES_MAX, EntryPlace
from creditgate.ledger.store import Ledger


class _Asked(NamedTuple):
    place: EntryPlace
    answer: "asyncio.Future[Entry | None]"


class EntryReader:
    """Reads for all calls of one process, at most PLACES_MAX entries at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._asked: list[_Asked] = []
        self._reading: asyncio.Task[None] | None = None

    async def at(self, place: EntryPlace) -> Entry | None:
        """Return the entry at a place, None if SQL has none there. Needs no task. Raises LedgerUnavailable."""
        loop = asyncio.get_running_loop()
        asked = _Asked(place, loop.create_future())
        self._asked.append(asked)
        if self._reading is None:
            self._reading = loop.create_task(self._read())
        return await asked.answer

    async def _read(self) -> None:
        try:
            while self._asked:
                together, self._asked = self._asked[:PLACES_MAX], self._asked[PLACES_MAX:]
                await self._answer(together)
        finally:
            self._reading = None

    async def _answer(self, together: list[_Asked]) -> None:
        places = list({asked.place for asked in together})
        try:
            async with asyncio.timeout(DEADLINE_S):
                found = await asyncio.to_thread(self._ledger.entries_at, places)
        except TimeoutError:
            behind, self._asked = self._asked, []  # they have waited as well
            _fail([*together, *behind], LedgerUnavailable("SQL did not answer in time"))
        except Exception as error:
            _fail(together, error)
        else:
            for asked in together:
                if not asked.answer.done():
                    asked.answer.set_result(found.get(asked.place))


def _fail(together: list[_Asked], error: Exception) -> None:
    for asked in together:
        if not asked.answer.done():
            asked.answer.set_exception(copy(error))  # each its own: a traceback grows where it is raised
