"""The append: what pieces of streams hold goes into the record, all of it or nothing, in one transaction.

With the entries go what follows from them: the positions, the seals, the alerts in the outbox, and the list of
customers. A message that is no entry is set aside, since the position moves past it for good.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select

from creditgate.core.journal import Entry, StreamId
from creditgate.core.listing import changes_in
from creditgate.ledger import listing, positions, seals
from creditgate.ledger.database import Database, WriteConflict
from creditgate.ledger.inserting import insert_items
from creditgate.ledger.outbox import insert_alerts
from creditgate.ledger.positions import Move, Position
from creditgate.ledger.rows import Values, item_rows
from creditgate.ledger.sealing import SealKeys
from creditgate.ledger.tables import poison_entries

# How often a batch is tried that other transactions get in the way of, and how long it waits in between at most.
CONFLICT_TRIES = 5
CONFLICT_WAIT_MAX_SECONDS = 0.1

_INSERT_POISON = insert(poison_entries)
_COUNT_POISON = select(func.count()).select_from(poison_entries)


class Poison(msgspec.Struct, frozen=True):
    """A stream message that is no entry of ours, to be set aside with the reason why it could not be read."""

    stream_id: StreamId
    fields: Mapping[str, str]
    reason: str


class Batch(msgspec.Struct, frozen=True):
    """What one stream holds after `after`, up to and including `upto`: every message is an entry or a poison."""

    partition: str
    epoch: str
    after: StreamId
    upto: StreamId
    entries: Sequence[Entry] = ()
    poison: Sequence[Poison] = ()


def append(
    database: Database,
    seal_keys: SealKeys | None,
    batches: Sequence[Batch],
    *,
    is_news: bool,
    pause: Callable[[], None] | None,
) -> int:
    """Store all batches and move their positions; return the number of rows of items. See `Ledger.append`."""
    for batch in batches:
        _check(batch)
    for tries_left in reversed(range(CONFLICT_TRIES)):
        try:
            return _append(database, seal_keys, batches, is_news=is_news, pause=pause)
        except WriteConflict:
            if not tries_left:
                raise
            time.sleep(random.uniform(0, CONFLICT_WAIT_MAX_SECONDS))  # noqa: S311 - so that two do not meet again
    raise AssertionError("unreachable")


def count_poison(connection: Connection) -> int:
    """Return the number of messages that were set aside and not resolved."""
    return connection.execute(_COUNT_POISON).scalar_one()


def _check(batch: Batch) -> None:
    """Refuse a batch that would store rows outside its own span: the next batch would bring them again."""
    stream_ids = [entry.stream_id for entry in batch.entries] + [found.stream_id for found in batch.poison]
    for stream_id in stream_ids:
        if not batch.after < stream_id <= batch.upto:
            raise ValueError(f"{stream_id} is not in ({batch.after}, {batch.upto}] of {batch.partition}")
    for entry in batch.entries:
        if entry.partition != batch.partition:
            raise ValueError(f"an entry of partition {entry.partition} is in a batch of {batch.partition}")


def _append(
    database: Database,
    seal_keys: SealKeys | None,
    batches: Sequence[Batch],
    *,
    is_news: bool,
    pause: Callable[[], None] | None,
) -> int:
    of_batch = []
    for batch in batches:
        of_batch.append(list(chain.from_iterable(map(item_rows, batch.entries))))
        if pause:
            pause()
    rows = list(chain.from_iterable(of_batch))
    changes = changes_in(entry for batch in batches for entry in batch.entries)
    poison = [_poison_row(batch.partition, found) for batch in batches for found in batch.poison]
    with database.writing() as connection:
        # First the positions: a batch that comes too late is refused by its position, and not by a row that is
        # already there.
        positions.move(connection, list(map(_move_of, batches)))
        _seal(connection, seal_keys, batches, of_batch)
        if rows:
            insert_items(connection, rows, pause)
            if is_news:
                insert_alerts(connection, (entry for batch in batches for entry in batch.entries))
        listing.write(connection, changes)
        if poison:
            connection.execute(_INSERT_POISON, poison)
    return len(rows)


def _move_of(batch: Batch) -> Move:
    begins = Position(batch.partition, batch.epoch, batch.after)
    return begins, Position(batch.partition, batch.epoch, batch.upto)


def _seal(
    connection: Connection,
    seal_keys: SealKeys | None,
    batches: Sequence[Batch],
    rows: Sequence[Sequence[Values]],
) -> None:
    if seal_keys is None:
        seals.check_unsealed(connection)
        return
    appended = [
        seals.Appended(batch.partition, batch.after, batch.upto, of_batch)
        for batch, of_batch in zip(batches, rows, strict=True)
    ]
    seals.seal_appended(connection, seal_keys, appended)


def _poison_row(partition: str, found: Poison) -> dict[str, Any]:
    """Return the row that sets a message aside; escaped to ASCII, since the fields may hold what no database takes."""
    return {
        "partition": partition,
        "stream_ms": found.stream_id.ms,
        "stream_counter": found.stream_id.counter,
        "fields": json.dumps(dict(found.fields), ensure_ascii=True),
        "reason": found.reason,
    }
