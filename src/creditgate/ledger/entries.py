"""The statements that find entries of a partition: by their place in its stream, or by the op ids of their calls.

A place leads into the primary key. For op ids there is no index, which every append would have to keep: they are
looked for among all items of a span of time.
"""

from typing import Any

from sqlalchemy import Select, select, tuple_

from creditgate.core.journal import StreamId
from creditgate.ledger.tables import journal_items

_items = journal_items.c
_PLACE = (_items.stream_ms, _items.stream_counter)
_LAST_CHARACTER = "\U0010ffff"


def select_at(partition: str, stream_id: StreamId) -> Select[Any]:
    """Return the statement for the items of one entry, in their order."""
    return (
        select(journal_items)
        .where(
            _items.partition == partition,
            _items.stream_ms == stream_id.ms,
            _items.stream_counter == stream_id.counter,
        )
        .order_by(_items.item)
    )


def select_after(partition: str, stream_id: StreamId) -> Select[Any]:
    """Return the statement for the items of every entry after a stream id, oldest first."""
    return (
        select(journal_items)
        .where(_items.partition == partition, tuple_(*_PLACE) > tuple(stream_id))
        .order_by(*_PLACE, _items.item)
    )


def select_op(partition: str, op_id: str, *, since_ms: int, until_ms: int) -> Select[Any]:
    """Return the statement for the stream id of the first call of this op id in the span, both ends included."""
    return (
        select(*_PLACE)
        .where(
            _items.partition == partition,
            _items.stream_ms >= since_ms,
            _items.stream_ms <= until_ms,
            _items.op_id == op_id,
        )
        .order_by(*_PLACE)
        .limit(1)
    )


def select_ops(partition: str, prefix: str, *, since_ms: int) -> Select[Any]:
    """Return the statement for the op ids that begin so, since a time."""
    return select(_items.op_id).where(
        _items.partition == partition,
        _items.stream_ms >= since_ms,
        _items.op_id >= prefix,
        _items.op_id <= prefix + _LAST_CHARACTER,
    )
