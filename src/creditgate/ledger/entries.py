"""The statements that find entries of a partition: by their place in its stream, or by the op ids of their calls.

A place leads into the primary key. For op ids there is no index, which every append would have to keep: they are
looked for among all items of a span of time.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, or_, select, tuple_

from creditgate.core.journal import StreamId
from creditgate.ledger.tables import journal_items

_items = journal_items.c
_PLACE = (_items.stream_ms, _items.stream_counter)
_LAST_CHARACTER = "\U0010ffff"
_PLACES = (1, 8, 64)  # of one statement
PLACES_MAX = _PLACES[-1]

EntryPlace = tuple[str, StreamId]
"""Where an entry stands: its partition, and its stream id there."""


def select_at(places: Sequence[EntryPlace]) -> tuple[Select[Any], dict[str, str | int]]:
    """Return the statement for the items of the entries at these places, in their order, and its parameters.

    There are few such statements, each made once: putting one together takes longer than running it. One with more
    places than are wanted repeats the last.
    """
    count = next(count for count in _PLACES if count >= len(places))
    parameters: dict[str, str | int] = {}
    for number in range(count):
        partition, (ms, counter) = places[min(number, len(places) - 1)]
        parameters |= {f"partition{number}": partition, f"ms{number}": ms, f"counter{number}": counter}
    return _select_at(count), parameters


@cache
def _select_at(count: int) -> Select[Any]:
    """Joined by OR, each place leads into the primary key; SQLite would walk through the table for `(...) IN (...)`."""
    places = [
        and_(
            _items.partition == bindparam(f"partition{number}"),
            _items.stream_ms == bindparam(f"ms{number}"),
            _items.stream_counter == bindparam(f"counter{number}"),
        )
        for number in range(count)
    ]
    return select(journal_items).where(or_(*places)).order_by(_items.partition, *_PLACE, _items.item)


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
