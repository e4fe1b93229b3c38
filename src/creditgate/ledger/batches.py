"""Batches of usage in the record. A batch has two documents: its items, then a report, with which it is closed.

The items of a batch may be large, so they are read one batch at a time only; all else is answered by the index.
"""

from collections.abc import Collection
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, func, select, tuple_

from creditgate.core.journal import BATCH, SYSTEM_PARTITION, StreamId
from creditgate.ledger.tables import journal_items

_items = journal_items.c
_HINT = "INDEXED BY journal_documents"
_IS_BATCH = (
    _items.partition == SYSTEM_PARTITION,
    _items.customer_id.is_(None),
    _items.document_type == BATCH,
)


class StoredBatch(msgspec.Struct, frozen=True):
    """Where a batch was opened, and where it was closed with which report, if it was."""

    batch_id: str
    opened: StreamId
    closed: StreamId | None = None
    report: str | None = None


def open_batches(connection: Connection) -> dict[str, StreamId]:
    """Return the batches that were not closed, each with the entry that opened it."""
    statement = (
        select(
            _items.document_id,
            func.min(_items.stream_ms).label("stream_ms"),
            func.min(_items.stream_counter).label("stream_counter"),
        )
        .with_hint(journal_items, _HINT, "sqlite")
        .where(*_IS_BATCH)
        .group_by(_items.document_id)
        .having(func.count() == 1)
    )
    rows = connection.execute(statement)
    return {row.document_id: StreamId(row.stream_ms, row.stream_counter) for row in rows}


def newest_batches(
    connection: Connection, *, before: str | None, batch_id: str | None, limit: int
) -> list[StoredBatch]:
    """Return one page of batches, the newest first: ids rise with time. Or the one with this id."""
    statement = (
        select(_items.document_id, _items.stream_ms, _items.stream_counter)
        .with_hint(journal_items, _HINT, "sqlite")
        .where(*_IS_BATCH)
        .order_by(_items.document_id.desc(), _items.stream_ms.desc(), _items.stream_counter.desc())
        .limit(2 * limit)
    )
    if before is not None:
        statement = statement.where(_items.document_id < before)
    if batch_id is not None:
        statement = statement.where(_items.document_id == batch_id)
    places = [
        (name, [StreamId(row.stream_ms, row.stream_counter) for row in rows])
        for name, rows in groupby(connection.execute(statement), key=lambda row: row.document_id)
    ][:limit]
    reports = _documents(connection, [found[0] for _, found in places if len(found) > 1])
    return [
        StoredBatch(name, found[-1], found[0], reports[found[0]])
        if len(found) > 1
        else StoredBatch(name, found[0])
        for name, found in places
    ]


def _documents(connection: Connection, places: Collection[StreamId]) -> dict[StreamId, str]:
    statement: Select[Any] = select(_items.stream_ms, _items.stream_counter, _items.document).where(
        _items.partition == SYSTEM_PARTITION,
        tuple_(_items.stream_ms, _items.stream_counter).in_(list(map(tuple, places))),
        _items.document_type == BATCH,
    )
    rows = connection.execute(statement) if places else ()
    return {StreamId(row.stream_ms, row.stream_counter): row.document for row in rows}
