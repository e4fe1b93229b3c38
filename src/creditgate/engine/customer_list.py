"""All customers, page by page: the stream's tail first, then SQL, united by id; and each as Redis has it now.

Who was made, changed or deleted a moment ago is in the tail, and what SQL says of them does not count. What was found
only names a customer: the record decides whether it is still there and still one of those asked for.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import NamedTuple

from creditgate.balances.keys import Keys
from creditgate.balances.stream import JournalStream
from creditgate.core.customers import Record
from creditgate.core.ids import check_caller_id
from creditgate.core.journal import ORIGIN
from creditgate.core.listing import CustomerFilter, Listed, Place, changes_in, listed, matches
from creditgate.engine.cursors import not_ours, packed, unpacked, whole
from creditgate.engine.writer import CustomerWriter
from creditgate.ledger.store import Ledger

READS_AT_ONCE = 32  # records read from Redis at a time
CANDIDATES_MIN = 50  # asked of SQL at a time, however few are still wanted


class CustomerPage(NamedTuple):
    """A page of customers; `next_cursor` is None on the last."""

    records: tuple[Record, ...]
    next_cursor: str | None


class Wanted(NamedTuple):
    """Which customers, after which place, in which order."""

    filter: CustomerFilter
    after: Place | None
    newest_first: bool

    def comes_after(self, place: Place) -> bool:
        """Say whether a place lies behind where the page before ended."""
        if self.after is None:
            return True
        return place < self.after if self.newest_first else place > self.after


class CustomerList:
    """The list of all customers of one environment."""

    def __init__(self, keys: Keys, stream: JournalStream, ledger: Ledger, writer: CustomerWriter) -> None:
        self._keys = keys
        self._stream = stream
        self._ledger = ledger
        self._writer = writer

    async def page(
        self, wanted: CustomerFilter, *, limit: int, cursor: str, newest_first: bool = True
    ) -> CustomerPage:
        """Return one page, in the order in which customers were made. One who was just made is there.

        Following the pages meets each once. Raises InvalidInputs for a cursor that we did not give.
        """
        asked = Wanted(wanted, _decode_cursor(cursor), newest_first)
        found: list[Record] = []
        async with aclosing(self._matching(asked, limit + 1)) as matching:
            async for record in matching:
                found.append(record)
                if len(found) > limit:
                    return CustomerPage(tuple(found[:limit]), _encode_cursor(found[limit - 1]))
        return CustomerPage(tuple(found), None)

    async def _matching(self, asked: Wanted, limit: int) -> AsyncGenerator[Record, None]:
        """Yield the customers asked for in order; so many of them are wanted, so no more are read than need be."""
        reads = min(limit, READS_AT_ONCE)
        async for places in self._candidates(asked, size=max(limit, CANDIDATES_MIN)):
            for start in range(0, len(places), reads):
                for record in await self._records(places[start : start + reads], asked.filter):
                    yield record

    async def _candidates(self, asked: Wanted, size: int) -> AsyncIterator[list[Place]]:
        """Yield the places of customers who may be among those asked for, in order."""
        tail = await self._tail()
        is_over = False
        while not is_over:
            stored = await asyncio.to_thread(
                self._ledger.listed,
                asked.filter,
                after=asked.after,
                limit=size,
                newest_first=asked.newest_first,
            )
            is_over = len(stored) < size
            rest = asked if is_over else asked._replace(after=stored[-1])
            new = [
                found.place
                for found in tail.values()
                if found is not None
                and matches(found, asked.filter)
                and asked.comes_after(found.place)
                and (is_over or not rest.comes_after(found.place))
            ]
            kept = [place for place in stored if place.customer_id not in tail]
            yield sorted((*kept, *new), reverse=asked.newest_first)
            asked = rest

    async def _tail(self) -> Mapping[str, Listed | None]:
        """Return what SQL may not know yet, by customer: None for one who was deleted."""
        changes: dict[str, Listed | None] = {}
        for found in await asyncio.gather(*map(self._tail_of, self._keys.partitions)):
            changes |= found
        return changes

    async def _tail_of(self, partition: str) -> dict[str, Listed | None]:
        changes: dict[str, Listed | None] = {}
        async for entry in self._stream.tail(partition, ORIGIN):
            changes |= changes_in((entry,))
        return changes

    async def _records(self, places: list[Place], wanted: CustomerFilter) -> list[Record]:
        records = await asyncio.gather(*(self._writer.read(place.customer_id) for place in places))
        return [
            record
            for place, record in zip(places, records, strict=True)
            if record is not None and _is_still(place, listed(record.customer), wanted)
        ]


def _is_still(place: Place, found: Listed, wanted: CustomerFilter) -> bool:
    """A customer who was deleted and made again meanwhile stands at another place."""
    return found.place == place and matches(found, wanted)


def _encode_cursor(record: Record) -> str:
    return packed(record.customer.created_at, record.customer.id)


def _decode_cursor(text: str) -> Place | None:
    if not text:
        return None
    try:
        created_at, customer_id = unpacked(text, 2)
        return Place(whole(created_at), check_caller_id(customer_id, field="start_cursor"))
    except ValueError as error:
        raise not_ours() from error
