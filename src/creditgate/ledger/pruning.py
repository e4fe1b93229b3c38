"""Removing usage that is older than a date, so that the books still prove and Redis can still be filled.

Of each partition, the history *begins* at an instant. Before it lie the documents, all of them, and of each row the
last item, and of each customer the last of all: the *openings*, which say what every balance is carried forward from.
They are no usage events any more. What is removed has been added up just before: history that does not prove is
evidence, and stays.

Each step takes the next items in the order of their time, bounded in number, and commits with the new beginning; so
a prune that is killed goes on where it was, and nobody waits for it for long.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, TextClause, bindparam, delete, func, insert, select, text, update

from creditgate.core.amounts import format_amount
from creditgate.core.journal import StreamId
from creditgate.errors import CreditgateError, StartupError
from creditgate.ledger import seals
from creditgate.ledger.rows import join_amount, split_amount
from creditgate.ledger.sealing import SealKeys
from creditgate.ledger.tables import history_begins, journal_items, openings, stream_positions

ITEMS_PER_STEP = 5_000  # read, and for the most part removed, in one transaction: some tenths of a second

_OF_LIFE = ""  # instead of the id of a row: the last item of the customer


class NotProven(CreditgateError):
    """What was to be removed does not add up; it is still there."""

    code = "not_proven"


class Pruned(NamedTuple):
    """What one step did: how many items are gone, and where the history begins now, in Unix ms."""

    items: int
    begins_at: int


class Opening(NamedTuple):
    """What one row, or a customer, is carried forward from; the identity is that of the item which stays."""

    sequence: int
    stream_id: StreamId
    item: int
    after_nanos: int


Name = tuple[str, str, str]
"""A customer's id, the uid, and a row's id or _OF_LIFE."""
Place = tuple[StreamId, int]
Items = Sequence[Row[*tuple[Any, ...]]]

_items = journal_items.c
_openings = openings.c
_BEGIN = text(
    "INSERT INTO history_begins (partition, stream_ms) VALUES (:of, 0) ON CONFLICT (partition) DO NOTHING"
)
_SELECT_BEGIN = select(history_begins.c.stream_ms).where(history_begins.c.partition == bindparam("of"))
_MOVE_BEGIN = (
    update(history_begins)
    .where(history_begins.c.partition == bindparam("of"))
    .values(stream_ms=bindparam("to_ms"))
)
_SELECT_POSITION = select(stream_positions.c.stream_ms).where(stream_positions.c.partition == bindparam("of"))
_SELECT_ITEMS = (
    select(
        _items.stream_ms,
        _items.stream_counter,
        _items.item,
        _items.customer_id,
        _items.uid,
        _items.sequence,
        _items.row_id,
        _items.document_type,
        _items.delta_whole,
        _items.delta_nano,
        _items.after_whole,
        _items.after_nano,
    )
    .where(
        _items.partition == bindparam("of"),
        _items.stream_ms >= bindparam("from_ms"),
        _items.stream_ms < bindparam("to_ms"),
    )
    .order_by(_items.stream_ms, _items.stream_counter, _items.item)
)
_SELECT_OPENINGS = select(openings).where(
    _openings.partition == bindparam("of"),
    _openings.customer_id.in_(bindparam("customers", expanding=True)),
)
_SELECT_CARRIED = select(_openings.customer_id, _openings.uid, _openings.sequence).where(
    _openings.partition == bindparam("of"),
    _openings.customer_id.in_(bindparam("customers", expanding=True)),
    _openings.row_id == _OF_LIFE,
)
# ruff: noqa: S608 - what is put together here are names of columns, all of them ours
_COLUMNS = ", ".join(_openings.keys())
_ON_CONFLICT = (
    " ON CONFLICT (partition, customer_id, uid, row_id) DO UPDATE SET sequence = excluded.sequence,"
    " stream_ms = excluded.stream_ms, stream_counter = excluded.stream_counter, item = excluded.item,"
    " after_whole = excluded.after_whole, after_nano = excluded.after_nano"
)
_IS_ITEM = (
    "partition = :partition AND stream_ms = :stream_ms AND stream_counter = :stream_counter AND item = :item"
)
# One statement per row is quick in SQLite only; PostgreSQL gets all rows in one, as an array for each column.
_PUT_OPENING = text(
    f"INSERT INTO openings ({_COLUMNS}) VALUES (:{_COLUMNS.replace(', ', ', :')}){_ON_CONFLICT}"
)
_DELETE_ITEM = text(f"DELETE FROM journal_items WHERE {_IS_ITEM} AND document_type IS NULL")
_NO_EVENT = text(f"UPDATE journal_items SET event_at = NULL WHERE {_IS_ITEM}")
_ARRAYS = (
    "unnest(CAST(:partition AS text[]), CAST(:stream_ms AS bigint[]), CAST(:stream_counter AS bigint[]),"
    " CAST(:item AS integer[])) AS named (partition, stream_ms, stream_counter, item)"
    " WHERE journal_items.partition = named.partition AND journal_items.stream_ms = named.stream_ms"
    " AND journal_items.stream_counter = named.stream_counter AND journal_items.item = named.item"
)
_AT_ONCE = {
    _PUT_OPENING: text(
        f"INSERT INTO openings ({_COLUMNS}) SELECT * FROM unnest(CAST(:partition AS text[]),"
        " CAST(:customer_id AS text[]), CAST(:uid AS text[]), CAST(:row_id AS text[]),"
        " CAST(:sequence AS bigint[]), CAST(:stream_ms AS bigint[]), CAST(:stream_counter AS bigint[]),"
        f" CAST(:item AS integer[]), CAST(:after_whole AS bigint[]), CAST(:after_nano AS bigint[])){_ON_CONFLICT}"
    ),
    _DELETE_ITEM: text(f"DELETE FROM journal_items USING {_ARRAYS} AND document_type IS NULL"),
    _NO_EVENT: text(f"UPDATE journal_items SET event_at = NULL FROM {_ARRAYS}"),
}
# A partition whose position is earlier has nothing that could be removed.
_COUNT_UNFINISHED = text(
    "SELECT count(*) FROM stream_positions LEFT JOIN history_begins USING (partition)"
    " WHERE partition <> 'sys' AND coalesce(history_begins.stream_ms, 0) < :latest"
    " AND coalesce(history_begins.stream_ms, 0) < stream_positions.stream_ms"
)


def begins_at(connection: Connection, partition: str | None = None) -> int:
    """Return from when on nothing is missing from the history of a partition, or of all, in Unix ms; 0: nothing is."""
    if partition is None:
        return connection.execute(select(func.max(history_begins.c.stream_ms))).scalar() or 0
    return connection.execute(_SELECT_BEGIN, {"of": partition}).scalar() or 0


def merge_beginnings(connection: Connection, new: Sequence[str]) -> None:
    """Let the history of new partitions begin where that of the old ones does, their openings are there already.

    Raises StartupError if a prune was interrupted: then some begin earlier.
    """
    latest = begins_at(connection)
    if connection.execute(_COUNT_UNFINISHED, {"latest": latest}).scalar_one():
        raise StartupError("A prune was interrupted; run the same creditgate prune again first.")
    connection.execute(delete(history_begins))
    if latest:
        connection.execute(insert(history_begins), [{"partition": one, "stream_ms": latest} for one in new])


def prune_step(
    connection: Connection, partition: str, before_ms: int, seal_keys: SealKeys | None = None
) -> Pruned:
    """Remove the next items that were appended before an instant, and before the position. None, if it is reached.

    Raises NotProven, SealBroken.
    """
    connection.execute(_BEGIN, {"of": partition})
    # One prune at a time: another one waits here, and goes on from where this one came.
    start = connection.execute(_SELECT_BEGIN.with_for_update(), {"of": partition}).scalar_one()
    position = connection.execute(_SELECT_POSITION, {"of": partition}).scalar()
    end = min(before_ms, position or 0)
    if end <= start:
        return Pruned(0, start)
    found, end = _next_items(connection, partition, start, end)
    if seal_keys is not None:
        seals.cut(connection, seal_keys, partition, end)
    removed = _remove(connection, partition, found)
    connection.execute(_MOVE_BEGIN, {"of": partition, "to_ms": end})
    return Pruned(removed, end)


def read_openings(connection: Connection, partition: str) -> list[dict[str, Any]]:
    """Return the openings of a partition, as rows."""
    rows = connection.execute(select(openings).where(_openings.partition == partition)).mappings()
    return [dict(row) for row in rows]


def write_openings(
    connection: Connection, partition: str, begins_ms: int, rows: Sequence[dict[str, Any]]
) -> None:
    """Make a history that was copied begin where it did, with these openings."""
    connection.execute(_BEGIN, {"of": partition})
    connection.execute(_MOVE_BEGIN, {"of": partition, "to_ms": begins_ms})
    connection.execute(delete(openings).where(_openings.partition == partition))
    if rows:
        connection.execute(insert(openings), rows)
        places = [(StreamId(row["stream_ms"], row["stream_counter"]), row["item"]) for row in rows]
        _for_each(connection, _NO_EVENT, [_at(partition, place) for place in places])


def carried_sequences(
    connection: Connection, partition: str, customer_ids: Sequence[str]
) -> dict[tuple[str, str], int]:
    """Return up to which entry the history of customers was removed, by customer and uid."""
    found = connection.execute(_SELECT_CARRIED, {"of": partition, "customers": customer_ids})
    return {(row.customer_id, row.uid): row.sequence for row in found}


def _next_items(connection: Connection, partition: str, start: int, end: int) -> tuple[Items, int]:
    """Return the items of the next whole milliseconds from `start`, and where they end: a bounded number, or one ms."""
    span = {"of": partition, "from_ms": start, "to_ms": end}
    found = connection.execute(_SELECT_ITEMS.limit(ITEMS_PER_STEP), span).all()
    if len(found) < ITEMS_PER_STEP:
        return found, end
    first, last = found[0].stream_ms, found[-1].stream_ms
    if first == last:
        return connection.execute(_SELECT_ITEMS, span | {"to_ms": last + 1}).all(), last + 1
    return [row for row in found if row.stream_ms < last], last


def _remove(connection: Connection, partition: str, found: Items) -> int:
    customer_ids = sorted({row.customer_id for row in found})
    before = _read_openings(connection, partition, customer_ids)
    after = _carried_forward(before, found)
    kept = {(opening.stream_id, opening.item) for opening in after.values()}
    usage = {_place(row) for row in found if row.document_type is None}
    gone = (usage | {(opening.stream_id, opening.item) for opening in before.values()}) - kept
    changed = [name for name, opening in after.items() if before.get(name) != opening]
    if changed:
        _for_each(connection, _PUT_OPENING, [_opening_row(partition, name, after[name]) for name in changed])
    if stay := sorted(usage & kept):
        _for_each(connection, _NO_EVENT, [_at(partition, place) for place in stay])
    if not gone:
        return 0
    return _for_each(connection, _DELETE_ITEM, [_at(partition, place) for place in sorted(gone)])


def _read_openings(
    connection: Connection, partition: str, customer_ids: Sequence[str]
) -> dict[Name, Opening]:
    found = connection.execute(_SELECT_OPENINGS, {"of": partition, "customers": customer_ids})
    return {
        (row.customer_id, row.uid, row.row_id): Opening(
            row.sequence, StreamId(row.stream_ms, row.stream_counter), row.item, _after(row)
        )
        for row in found
    }


def _carried_forward(before: dict[Name, Opening], found: Iterable[Any]) -> dict[Name, Opening]:
    """Return the openings after these items, which are in order; raises NotProven."""
    openings = dict(before)
    for (ms, counter), items in groupby(found, key=lambda row: (row.stream_ms, row.stream_counter)):
        for name, opening in _of_entry(openings, list(items), StreamId(ms, counter)):
            openings[name] = opening
    return openings


def _of_entry(
    before: dict[Name, Opening], items: Items, stream_id: StreamId
) -> Iterator[tuple[Name, Opening]]:
    first = items[0]
    whose = (first.customer_id, first.uid or "")
    life = before.get((*whose, _OF_LIFE))
    if first.sequence != (life.sequence if life else 0) + 1:
        raise NotProven(f"customer {whose[0]}: entry {first.sequence} does not follow; see creditgate verify")
    balances: dict[str, int] = {}
    for row in items:
        if row.row_id is not None:
            known = before.get((*whose, row.row_id))
            was = balances.get(row.row_id, known.after_nanos if known else 0)
            if was + join_amount(row.delta_whole, row.delta_nano) != _after(row):
                text = f"row {row.row_id} is not {format_amount(_after(row))} after entry {row.sequence}"
                raise NotProven(f"customer {whose[0]}: {text}; see creditgate verify")
            balances[row.row_id] = _after(row)
            yield (*whose, row.row_id), Opening(row.sequence, stream_id, row.item, _after(row))
    yield (*whose, _OF_LIFE), Opening(first.sequence, stream_id, items[-1].item, 0)


def _after(row: Row[Any]) -> int:
    return join_amount(row.after_whole, row.after_nano)


def _place(row: Row[Any]) -> Place:
    return StreamId(row.stream_ms, row.stream_counter), row.item


def _at(partition: str, place: Place) -> dict[str, Any]:
    (ms, counter), item = place
    return {"partition": partition, "stream_ms": ms, "stream_counter": counter, "item": item}


def _for_each(connection: Connection, statement: TextClause, rows: Sequence[dict[str, Any]]) -> int:
    """Run a statement for each of the rows, at least one; return how many rows of SQL it met."""
    if connection.dialect.name == "postgresql":
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return connection.execute(_AT_ONCE[statement], columns).rowcount
    return connection.execute(statement, rows).rowcount


def _opening_row(partition: str, name: Name, opening: Opening) -> dict[str, Any]:
    customer_id, uid, row_id = name
    whole, nano = split_amount(opening.after_nanos)
    return {
        "partition": partition,
        "customer_id": customer_id,
        "uid": uid,
        "row_id": row_id,
        "sequence": opening.sequence,
        "stream_ms": opening.stream_id.ms,
        "stream_counter": opening.stream_id.counter,
        "item": opening.item,
        "after_whole": whole,
        "after_nano": nano,
    }
