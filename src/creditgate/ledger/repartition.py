"""Putting the whole history into another number of partitions, in one transaction.

Each entry keeps its time and its place in the customer's order. Its stream counter changes, since two streams become
one: `counter * old count + number of the old partition` never meets another, and keeps the order of each old stream. So
the identities of entries change, and with them the ids of events that were given out.
"""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, text

from creditgate.core.journal import Entry, StreamId
from creditgate.ledger import pruning, seals
from creditgate.ledger.inserting import insert_items
from creditgate.ledger.rows import item_rows
from creditgate.ledger.sealing import SealKeys
from creditgate.ledger.tables import stream_positions

CUSTOMERS_PAGE = 10_000

# While entries move, the new names are marked: an entry must not land on the key of one that has not moved yet.
_MARK = "~"

_MAKE_PLACES = text(
    "CREATE TEMPORARY TABLE places (old TEXT NOT NULL, customer_id TEXT NOT NULL, new TEXT NOT NULL,"
    " PRIMARY KEY (old, customer_id))"
)
_DROP_PLACES = text("DROP TABLE places")
_CUSTOMERS = text(
    "SELECT DISTINCT customer_id FROM journal_items WHERE partition = :partition AND customer_id IS NOT NULL"
)
_INSERT_PLACE = text("INSERT INTO places (old, customer_id, new) VALUES (:old, :customer_id, :new)")
_MOVE = text(
    "UPDATE journal_items SET partition = places.new,"
    " stream_counter = journal_items.stream_counter * :old_count + :old_number"
    " FROM places WHERE journal_items.partition = :old AND places.old = :old"
    " AND journal_items.customer_id = places.customer_id"
)
_MOVE_OPENINGS = text(
    "UPDATE openings SET partition = places.new, stream_counter = openings.stream_counter * :old_count + :old_number"
    " FROM places WHERE openings.partition = :old AND places.old = :old"
    " AND openings.customer_id = places.customer_id"
)
_UNMARK_OPENINGS = text("UPDATE openings SET partition = :new WHERE partition = :marked")
_UNMARK = text("UPDATE journal_items SET partition = :new WHERE partition = :marked")
_FORGET_POSITIONS = text("DELETE FROM stream_positions WHERE partition <> :system")
_LAST_MS = text("SELECT coalesce(max(stream_ms), 0) FROM journal_items")
_SELECT_POSITION = select(stream_positions.c.stream_ms, stream_positions.c.stream_counter).where(
    stream_positions.c.partition == bindparam("of")
)
_MOVE_SYSTEM = (
    stream_positions.update()
    .where(stream_positions.c.partition == bindparam("of"))
    .values(stream_ms=bindparam("ms"), stream_counter=bindparam("counter"))
)


def repartition(
    connection: Connection,
    *,
    old: tuple[str, ...],
    new: tuple[str, ...],
    place: Callable[[str], str],
    epochs: dict[str, str],
    settings: Callable[[int], Entry],
    seal_keys: SealKeys | None = None,
) -> None:
    """Move every entry of the old partitions to the new one that `place` names for its customer.

    Every new partition gets its epoch, and a position after all that there is. `settings` makes the entry that says so
    on the system stream, given a time in Unix ms after all others. Raises StartupError amid a prune,
    JournalSealed if there are seals and no key. With it, all is sealed as it is now: the caller has checked the seals.
    """
    if seal_keys is None:
        seals.check_unsealed(connection)
    connection.execute(_MAKE_PLACES)
    for number, partition in enumerate(old):
        customers = connection.execute(_CUSTOMERS, {"partition": partition}).partitions(CUSTOMERS_PAGE)
        for page in list(customers):
            connection.execute(_INSERT_PLACE, _places(partition, page, place))
        for move in (_MOVE, _MOVE_OPENINGS):
            connection.execute(move, {"old": partition, "old_count": len(old), "old_number": number})
    connection.execute(_DROP_PLACES)
    for partition in new:
        for unmark in (_UNMARK, _UNMARK_OPENINGS):
            connection.execute(unmark, {"new": partition, "marked": _MARK + partition})
    pruning.merge_beginnings(connection, new)
    after_ms: int = connection.execute(_LAST_MS).scalar_one() + 1
    entry = settings(after_ms)
    rows = item_rows(entry)
    insert_items(connection, rows)
    stood_at = StreamId(*connection.execute(_SELECT_POSITION, {"of": entry.partition}).one())
    connection.execute(_MOVE_SYSTEM, {"of": entry.partition, "ms": after_ms, "counter": 0})
    connection.execute(_FORGET_POSITIONS, {"system": entry.partition})
    positions = [
        {"partition": partition, "epoch": epochs[partition], "stream_ms": after_ms, "stream_counter": 0}
        for partition in new
    ]
    connection.execute(stream_positions.insert(), positions)
    if seal_keys is not None:
        upto = StreamId(after_ms, 0)
        seals.seal_appended(connection, seal_keys, [seals.Appended(entry.partition, stood_at, upto, rows)])
        seals.forget(connection, old)
        for partition in new:
            seals.seal_anew(connection, seal_keys, partition, upto)


def _places(
    partition: str, customers: Iterable[Row[Any]], place: Callable[[str], str]
) -> list[dict[str, str]]:
    return [
        {"old": partition, "customer_id": row.customer_id, "new": _MARK + place(row.customer_id)}
        for row in customers
    ]
