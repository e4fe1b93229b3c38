"""Between the journal's words and rows of SQL: an entry to its rows, and rows back to the equal entry."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Row

from creditgate.core.amounts import NANOS
from creditgate.core.journal import Call, Entry, Item, StreamId
from creditgate.ledger.events import event_at

Values = Sequence[Any]
"""The columns of a row of `journal_items`, in the order of the table."""

_NO_CALL = (None,) * 13


def split_amount(nanos: int | None) -> tuple[int | None, int | None]:
    """Return (whole, nano) of an amount, both with its sign; (None, None) of none."""
    if nanos is None:
        return None, None
    if nanos >= 0:
        return divmod(nanos, NANOS)
    whole, nano = divmod(-nanos, NANOS)
    return -whole, -nano


def join_amount(whole: int, nano: int) -> int:
    """Return the amount in nanos of the two halves that `split_amount` made."""
    return whole * NANOS + nano


def join_amount_if_any(whole: int | None, nano: int | None) -> int | None:
    """Return the amount of two halves that may both be absent."""
    return None if whole is None or nano is None else join_amount(whole, nano)


def item_rows(entry: Entry) -> list[Values]:
    """Return one row of `journal_items` per item."""
    return [_item_row(entry, item) for item in entry.items]


def entry_of(rows: Sequence[Row[Any]]) -> Entry:
    """Return the entry whose items, in order, are these rows of `journal_items` (at least one)."""
    first = rows[0]
    return Entry(
        partition=first.partition,
        stream_id=StreamId(first.stream_ms, first.stream_counter),
        customer_id=first.customer_id,
        uid=first.uid,
        sequence=first.sequence,
        pinned_at=first.pinned_at,
        items=tuple(_item_of(row) for row in rows),
    )


def entries_of(rows: Iterable[Row[Any]]) -> Iterator[Entry]:
    """Yield the entries of rows that are in the order of their identity."""
    for _, items in groupby(rows, key=lambda row: (row.partition, row.stream_ms, row.stream_counter)):
        yield entry_of(list(items))


def _item_row(entry: Entry, item: Item) -> Values:
    ms, counter = entry.stream_id
    delta_whole, delta_nano = split_amount(item.delta_nanos)
    after_whole, after_nano = split_amount(item.after_nanos)
    changed = (
        entry.partition,
        ms,
        counter,
        item.number,
        entry.customer_id,
        entry.uid,
        entry.sequence,
        entry.pinned_at,
        str(item.kind),
        item.row_id,
        delta_whole,
        delta_nano,
        after_whole,
        after_nano,
        item.document_type,
        item.document_id,
        item.document,
    )
    return changed + (_NO_CALL if item.call is None else _call_values(entry, item, item.call))


def _call_values(entry: Entry, item: Item, call: Call) -> tuple[Any, ...]:
    value_whole, value_nano = split_amount(call.value_nanos)
    return (
        call.verb,
        call.op_id,
        call.catalog_version,
        call.key,
        call.fingerprint,
        call.feature_id,
        value_whole,
        value_nano,
        call.occurred_at,
        call.event_name,
        call.entity_id,
        call.properties,
        event_at(entry, item),
    )


def _item_of(row: Row[Any]) -> Item:
    return Item(
        number=row.item,
        kind=row.kind,
        call=_call_of(row) if row.verb is not None else None,
        row_id=row.row_id,
        delta_nanos=join_amount_if_any(row.delta_whole, row.delta_nano),
        after_nanos=join_amount_if_any(row.after_whole, row.after_nano),
        document_type=row.document_type,
        document_id=row.document_id,
        document=row.document,
    )


def _call_of(row: Row[Any]) -> Call:
    return Call(
        verb=row.verb,
        op_id=row.op_id,
        catalog_version=row.catalog_version,
        key=row.key,
        fingerprint=row.fingerprint,
        feature_id=row.feature_id,
        value_nanos=join_amount_if_any(row.value_whole, row.value_nano),
        occurred_at=row.occurred_at,
        event_name=row.event_name,
        entity_id=row.entity_id,
        properties=row.properties,
    )
