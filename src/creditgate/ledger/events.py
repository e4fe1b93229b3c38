"""Usage events: what counts as one, how it is put together from an entry, and the page of them that SQL is asked for.

An event is an item of kind use, refund, hold or unhold on which a call of usage begins. What the call took are its
*deductions*: that item and those after it up to the next call. `events_of` reads events out of an entry wherever the
entry came from, so the stream's tail and SQL give the same ones, in the same order and with the same cursor.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ARRAY, JSON, ColumnElement, Select, Text, and_, case, cast, func, null, select, tuple_

from creditgate.core.journal import USAGE, Call, Entry, Item, StreamId
from creditgate.ledger.tables import journal_items

_items = journal_items.c
_ORDER = (_items.event_at, _items.partition, _items.stream_ms, _items.stream_counter, _items.item)
# A customer lies in one partition. With it left out, the order is that of the index, and a page is a piece of it.
_ORDER_OF_CUSTOMER = (_items.event_at, _items.stream_ms, _items.stream_counter, _items.item)


class EventCursor(NamedTuple):
    """Where an event stands among all: its time in Unix ms, then its identity. Compares as SQL orders."""

    event_at: int
    partition: str
    stream_id: StreamId
    item: int


class Event(msgspec.Struct, frozen=True):
    """One usage event. `deductions` are the items that name a row, signed as in the journal: use takes, below 0."""

    cursor: EventCursor
    customer_id: str | None
    uid: str | None
    call: Call
    deductions: tuple[Item, ...]


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are asked for. What is left out filters nothing; the span is start_at <= time < end_at, Unix ms.

    `uid`: of the customer, where there were several under the same id.
    `properties` are pairs of a path (`model`, `request.region`) and the text that must stand there.
    """

    customer: tuple[str, str] | None = None
    uid: str | None = None
    entity_id: str | None = None
    feature_ids: Sequence[str] = ()
    start_at: int | None = None
    end_at: int | None = None
    properties: Sequence[tuple[str, str]] = ()

    def matches(self, event: Event) -> bool:
        """Say of an event from the stream what SQL says of one from the table."""
        at = event.cursor.event_at
        return (
            (self.customer is None or (event.cursor.partition, event.customer_id) == self.customer)
            and (self.uid is None or event.uid == self.uid)
            and (self.entity_id is None or event.call.entity_id == self.entity_id)
            and (not self.feature_ids or event.call.feature_id in self.feature_ids)
            and (self.start_at is None or at >= self.start_at)
            and (self.end_at is None or at < self.end_at)
            and all(property_text(event.call.properties, path) == text for path, text in self.properties)
        )


def event_at(entry: Entry, item: Item) -> int | None:
    """Return when the usage of an item happened, Unix ms; None if the item is no usage event.

    That is the time the caller gave, else the customer's pinned clock, else when the entry was appended.
    """
    call = item.call
    if call is None or call.value_nanos is None or item.kind not in USAGE:
        return None
    if call.occurred_at is not None:
        return call.occurred_at
    return entry.pinned_at if entry.pinned_at is not None else entry.stream_id.ms


def events_of(entry: Entry) -> list[Event]:
    """Return the usage events of an entry in the order of its items; other calls give none."""
    events = []
    for item in entry.items:
        at = event_at(entry, item)
        if at is not None and item.call is not None:
            cursor = EventCursor(at, entry.partition, entry.stream_id, item.number)
            events.append(Event(cursor, entry.customer_id, entry.uid, item.call, _deductions(entry, item)))
    return events


def select_page(wanted: EventFilter, *, before: EventCursor | None, limit: int, dialect: str) -> Select[Any]:
    """Return the statement for the cursors of one page, newest first, that lie before the cursor given."""
    order = _ORDER if wanted.customer is None else _ORDER_OF_CUSTOMER
    conditions = conditions_of(wanted, dialect)
    if before is not None:
        at, partition, (ms, counter), item = before
        place = (at, partition, ms, counter, item) if wanted.customer is None else (at, ms, counter, item)
        conditions.append(tuple_(*order) < place)
    return select(*_ORDER).where(*conditions).order_by(*(column.desc() for column in order)).limit(limit)


def select_entries(page: Select[Any]) -> Select[Any]:
    """Return the statement for the whole entries that the events of a page begin in."""
    of_page = page.subquery()
    entries = select(of_page.c.partition, of_page.c.stream_ms, of_page.c.stream_counter).distinct().subquery()
    in_entry = and_(
        _items.partition == entries.c.partition,
        _items.stream_ms == entries.c.stream_ms,
        _items.stream_counter == entries.c.stream_counter,
    )
    return (
        select(journal_items)
        .select_from(entries.join(journal_items, in_entry))
        .order_by(_items.partition, _items.stream_ms, _items.stream_counter, _items.item)
    )


def cursor_of(row: Any) -> EventCursor:
    """Return the cursor in a row of `select_page`."""
    return EventCursor(row.event_at, row.partition, StreamId(row.stream_ms, row.stream_counter), row.item)


def conditions_of(wanted: EventFilter, dialect: str) -> list[ColumnElement[bool]]:
    """Return what the rows of the events that are wanted have in common."""
    conditions: list[ColumnElement[bool]] = [_items.event_at.is_not(None)]
    if wanted.customer is not None:
        partition, customer_id = wanted.customer
        conditions += [_items.partition == partition, _items.customer_id == customer_id]
    if wanted.uid is not None:
        conditions.append(_items.uid == wanted.uid)
    if wanted.entity_id is not None:
        conditions.append(_items.entity_id == wanted.entity_id)
    if wanted.feature_ids:
        conditions.append(_items.feature_id.in_(wanted.feature_ids))
    if wanted.start_at is not None:
        conditions.append(_items.event_at >= wanted.start_at)
    if wanted.end_at is not None:
        conditions.append(_items.event_at < wanted.end_at)
    conditions += [property_column(path, dialect) == text for path, text in wanted.properties]
    return conditions


def property_text(properties: str, path: str) -> str | None:
    """Return the text at a path of an event's properties: a number or `true` as JSON has it, null and nothing None."""
    found = msgspec.json.decode(properties)
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found if found is None or isinstance(found, str) else msgspec.json.encode(found).decode()


def property_column(path: str, dialect: str) -> ColumnElement[Any]:
    """Return the expression that gives the same in SQL. The path has letters, digits, `_`, `-` and `.` only."""
    names = path.split(".")
    if dialect == "sqlite":
        at = "$" + "".join(f'."{name}"' for name in names)
        kind = func.json_type(_items.properties, at)
        text = cast(func.json_extract(_items.properties, at), Text)
        return case((kind == "null", null()), (kind.in_(("true", "false")), kind), else_=text)
    # What holds a NUL is no text to PostgreSQL, and such properties cannot be looked into.
    found = cast(_items.properties, JSON).op("#>>", return_type=Text())(cast(names, ARRAY(Text)))
    return case((func.strpos(_items.properties, "\\u0000") > 0, null()), else_=found)


def _deductions(entry: Entry, first: Item) -> tuple[Item, ...]:
    taken = [first] if first.row_id is not None else []
    for item in entry.items[first.number + 1 :]:
        if item.call is not None:
            break
        if item.row_id is not None:
            taken.append(item)
    return tuple(taken)
