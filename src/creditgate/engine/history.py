"""The past: the stream's tail first, then SQL, united by the identity of items.

The other order would lose what is flushed in between.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import msgspec
from redis.exceptions import RedisError

from creditgate.balances.keys import Keys
from creditgate.balances.stream import JournalStream
from creditgate.core.customers import Row, Terms
from creditgate.core.journal import Entry, StreamId
from creditgate.engine.cursors import not_ours, packed, unpacked, whole
from creditgate.engine.entry_reader import EntryReader
from creditgate.errors import Unavailable
from creditgate.ledger import events as ledger_events
from creditgate.ledger.events import EventCursor, EventFilter
from creditgate.ledger.store import Ledger

PAGE_MAX = 1_000


class Event(NamedTuple):
    """One use of a feature. Deductions are pairs of the row (as it was then) and nanos, positive where taken."""

    id: str
    timestamp: int
    feature_id: str
    customer_id: str
    value_nanos: int
    properties: str
    deductions: tuple[tuple[Row, int], ...]


class EventPage(NamedTuple):
    """A page of events, newest first; `next_cursor` is None on the last. `begins_at`: see `History.begins_at`."""

    events: tuple[Event, ...]
    next_cursor: str | None
    begins_at: int


class Term(NamedTuple):
    """A row as it was from this entry on."""

    since: StreamId
    row: Row


class History:
    """What happened, for all customers of one environment."""

    def __init__(self, keys: Keys, stream: JournalStream, ledger: Ledger) -> None:
        self._keys = keys
        self._stream = stream
        self._ledger = ledger
        self._entries = EntryReader(ledger)

    async def entry(self, partition: str, stream_id: StreamId) -> Entry | None:
        """Return one entry, wherever it is by now. Needs no task. Raises Unavailable."""
        try:
            found = await self._stream.entry(partition, stream_id)
        except (RedisError, OSError) as error:
            raise Unavailable(f"Redis did not answer: {error}") from error
        return found or await self._entries.at((partition, stream_id))

    async def ops(self, partition: str, prefix: str, *, since_ms: int) -> set[str]:
        """Return every op id that begins so, of calls that took effect at this time of Redis's clock or later."""
        found = await self._stream.find_ops(partition, prefix, since_ms=since_ms)
        return found | await asyncio.to_thread(self._ledger.find_ops, partition, prefix, since_ms=since_ms)

    async def events(
        self,
        *,
        customer_id: str | None,
        entity_id: str | None = None,
        feature_ids: tuple[str, ...] = (),
        properties: tuple[tuple[str, str], ...] = (),
        start: int | None = None,
        end: int | None = None,
        limit: int,
        cursor: str = "",
    ) -> EventPage:
        """Return one page of usage events; `start` is included, `end` is not. An event just tracked is there.

        Of a customer who was deleted and made again, only those of the new life. Raises InvalidInputs for a cursor
        that we did not give, TookTooLong where too little is found among too much.
        """
        limit = min(limit, PAGE_MAX)
        before = _decode_cursor(cursor)
        tail = await self.tail_of(customer_id)
        customer = self.place_of(customer_id)
        wanted = EventFilter(
            customer=customer,
            uid=await self._uid_of(customer, tail) if customer else None,
            feature_ids=feature_ids,
            entity_id=entity_id,
            properties=properties,
            start_at=start,
            end_at=end,
        )
        stored = await asyncio.to_thread(self._ledger.events, wanted, before=before, limit=limit + 1)
        found = {event.cursor: event for event in stored}
        for event in events_in(tail):
            if wanted.matches(event) and (before is None or event.cursor < before):
                found[event.cursor] = event
        newest = sorted(found.values(), key=lambda event: event.cursor, reverse=True)[: limit + 1]
        page = newest[:limit]
        customers = {event.customer_id for event in page if event.customer_id and event.deductions}
        rows = await self.rows_of(customers, tail)
        events = tuple(_event(event, rows) for event in page)
        next_cursor = _encode_cursor(page[-1].cursor) if len(newest) > limit else None
        return EventPage(events, next_cursor, await self.begins_at())

    async def begins_at(self) -> int:
        """Return from when on no usage was removed by a prune, in Unix ms of when it was recorded; 0: none ever was.

        To be asked after what was read, so that it is not too early.
        """
        return await asyncio.to_thread(self._ledger.begins_at)

    def place_of(self, customer_id: str | None) -> tuple[str, str] | None:
        """Return the partition and the id of a customer, as the ledger is asked; None is everybody."""
        return None if customer_id is None else (self._keys.partition_of(customer_id), customer_id)

    async def tail_of(self, customer_id: str | None) -> list[Entry]:
        """Return what the streams hold that a customer's entries, or everybody's, may be among."""
        partitions = self._keys.partitions if customer_id is None else [self._keys.partition_of(customer_id)]
        return [entry for partition in partitions for entry in await self._tail(partition)]

    async def _uid_of(self, customer: tuple[str, str], tail: Iterable[Entry]) -> str | None:
        uids = [entry.uid for entry in tail if entry.customer_id == customer[1]]
        return uids[-1] if uids else await asyncio.to_thread(self._ledger.latest_uid, *customer)

    async def rows_of(self, customer_ids: Collection[str], tail: Iterable[Entry]) -> dict[str, list[Term]]:
        """Return the terms that the rows of these customers ever had, by row, in order of time."""
        terms: dict[StreamId, Terms] = {}
        for customer_id in customer_ids:
            partition = self._keys.partition_of(customer_id)
            for stream_id, text in await asyncio.to_thread(
                self._ledger.document_versions, partition, customer_id, "terms"
            ):
                terms[stream_id] = msgspec.json.decode(text, type=Terms)
        for entry in tail:
            if entry.customer_id in customer_ids:
                for item in entry.items:
                    if item.document_type == "terms" and item.document is not None:
                        terms[entry.stream_id] = msgspec.json.decode(item.document, type=Terms)
        rows: dict[str, list[Term]] = {}
        for stream_id, version in sorted(terms.items(), key=lambda pair: pair[0]):
            for row in version.rows:
                rows.setdefault(row.id, []).append(Term(stream_id, row))
        return rows

    async def _tail(self, partition: str) -> list[Entry]:
        return [entry async for entry in self._stream.tail(partition, StreamId(0, 0))]


def events_in(entries: Iterable[Entry]) -> Iterator[ledger_events.Event]:
    """Yield the usage events of entries."""
    for entry in entries:
        yield from ledger_events.events_of(entry)


def _event(event: ledger_events.Event, rows: dict[str, list[Term]]) -> Event:
    deductions = []
    for item in event.deductions:
        row = _row_at(rows.get(item.row_id or "", []), event.cursor.stream_id)
        if row is not None and item.delta_nanos is not None:
            deductions.append((row, -item.delta_nanos))
    return Event(
        id=_event_id(event.cursor),
        timestamp=event.cursor.event_at,
        feature_id=event.call.feature_id,
        customer_id=event.customer_id or "",
        value_nanos=event.call.value_nanos or 0,
        properties=event.call.properties,
        deductions=tuple(deductions),
    )


def _row_at(terms: list[Term], stream_id: StreamId) -> Row | None:
    return next((term.row for term in reversed(terms) if term.since <= stream_id), None)


def _event_id(cursor: EventCursor) -> str:
    return "evt_" + packed(cursor.partition, cursor.stream_id, cursor.item)


def _encode_cursor(cursor: EventCursor) -> str:
    return packed(cursor.event_at, cursor.partition, cursor.stream_id, cursor.item)


def _decode_cursor(text: str) -> EventCursor | None:
    if not text:
        return None
    try:
        event_at, partition, stream_id, item = unpacked(text, 4)
        ms, _, counter = stream_id.partition("-")
        if not partition.isalnum():
            raise ValueError("no partition")
        return EventCursor(whole(event_at), partition, StreamId(whole(ms), whole(counter)), whole(item))
    except ValueError as error:
        raise not_ours() from error
