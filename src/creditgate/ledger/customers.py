"""What the record holds of a customer: the words, and the statements that ask for them.

A customer who was deleted and made again under the same id has another uid. The latest uid is that of the item with
the greatest stream id; what belonged to an earlier one stays in the record and is never mixed with it.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Row, Select, and_, bindparam, case, func, select, tuple_

from creditgate.core.holds import HOLD
from creditgate.core.journal import BATCH, GONE, StreamId
from creditgate.ledger.rows import join_amount, join_amount_if_any
from creditgate.ledger.tables import journal_items

_items = journal_items.c
_OLDEST_FIRST = (_items.stream_ms, _items.stream_counter, _items.item)
_NEWEST_FIRST = (_items.stream_ms.desc(), _items.stream_counter.desc(), _items.item.desc())

# SQLite by itself would read a whole partition by the primary key, to save sorting one customer's items.
_OF_CUSTOMER = "INDEXED BY journal_items_of_customer"
_DOCUMENTS = "INDEXED BY journal_documents"


class Document(msgspec.Struct, frozen=True):
    """The latest version of one document, as it was put; `sequence` is that of the entry that put it."""

    type: str
    id: str
    text: str
    sequence: int
    stream_id: StreamId


class RowState(msgspec.Struct, frozen=True):
    """The last item of one row: `kind` tells what it did, `after_nanos` what the row held then."""

    row_id: str
    kind: str
    after_nanos: int
    sequence: int


class CustomerState(msgspec.Struct, frozen=True):
    """One customer, the latest uid only, as of its last item.

    Rows that were closed are listed too, with their last amount; the documents tell which are still there.
    """

    customer_id: str
    uid: str | None
    sequence: int
    stream_id: StreamId
    pinned_at: int | None
    documents: tuple[Document, ...]
    rows: tuple[RowState, ...]


class ProofItem(msgspec.Struct, frozen=True):
    """One item of a customer, without its call; of documents, only the receipts of holds. Without a row, no amounts.

    `is_end`: it says that the customer was deleted. `is_opening`: it lies before the beginning of the history.
    """

    customer_id: str
    uid: str | None
    sequence: int
    stream_id: StreamId
    item: int
    kind: str
    row_id: str | None
    delta_nanos: int | None
    after_nanos: int | None
    hold_id: str | None
    receipt: str | None
    is_end: bool
    is_opening: bool


class KeyUse(msgspec.Struct, frozen=True):
    """One use of an idempotency key: whose, the digests, and the item on which its call begins."""

    customer_id: str | None
    uid: str | None
    key: str
    fingerprint: str
    stream_id: StreamId
    item: int


def select_latest_uid(partition: str, customer_id: str) -> Select[Any]:
    """Return the statement for a customer's latest uid: that of the last document, since each life begins with one."""
    return (
        select(_items.uid)
        .with_hint(journal_items, _DOCUMENTS, "sqlite")
        .where(
            _items.partition == partition,
            _items.customer_id == customer_id,
            _items.document_type == "customer",
            _items.document_id == "-",
        )
        .order_by(*_NEWEST_FIRST)
        .limit(1)
    )


def select_latest_documents(partition: str, customer_ids: Collection[str] | None) -> Select[Any]:
    """Return the statement for the latest document of each (type, id) of the customers, of every uid; None: of none.

    One that was put as null last is gone.
    Batches of usage are left out: every one is there for good, and only those that are open matter.
    """
    age = func.row_number().over(
        partition_by=(_items.customer_id, _items.uid, _items.document_type, _items.document_id),
        order_by=_NEWEST_FIRST,
    )
    whose = _items.customer_id.is_(None) if customer_ids is None else _items.customer_id.in_(customer_ids)
    aged = (
        select(
            _items.customer_id,
            _items.uid,
            _items.document_type,
            _items.document_id,
            _items.document,
            _items.sequence,
            _items.stream_ms,
            _items.stream_counter,
            age.label("age"),
        )
        .with_hint(journal_items, _DOCUMENTS, "sqlite")
        .where(
            _items.partition == partition,
            whose,
            _items.document_type.is_not(None),
            _items.document_type != BATCH,
        )
        .subquery()
    )
    latest = select(aged).where(aged.c.age == 1, aged.c.document != GONE)
    return latest.order_by(aged.c.document_type, aged.c.document_id)


def select_document_versions(partition: str, customer_id: str | None, document_type: str) -> Select[Any]:
    """Return the statement for every document of a type that a customer, or no customer, ever had, oldest first."""
    return (
        select(_items.stream_ms, _items.stream_counter, _items.document)
        .with_hint(journal_items, _DOCUMENTS, "sqlite")
        .where(
            _items.partition == partition,
            _items.customer_id == customer_id,
            _items.document_type == document_type,
        )
        .order_by(*_OLDEST_FIRST)
    )


def select_document_at(
    partition: str, customer_id: str, document_type: str, stream_id: StreamId
) -> Select[Any]:
    """Return the statement for the last document that a customer had been given up to an entry, of a type that has
    one document only."""
    return (
        select(_items.document)
        .with_hint(journal_items, _DOCUMENTS, "sqlite")
        .where(
            _items.partition == partition,
            _items.customer_id == customer_id,
            _items.document_type == document_type,
            _items.document_id == "-",
            tuple_(_items.stream_ms, _items.stream_counter) <= tuple_(stream_id.ms, stream_id.counter),
        )
        .order_by(*_NEWEST_FIRST)
        .limit(1)
    )


def select_latest_items(partition: str, customer_ids: Collection[str]) -> Select[Any]:
    """Return the statement for the latest item of each row of the customers, and of no row; of every uid."""
    age = func.row_number().over(
        partition_by=(_items.customer_id, _items.uid, _items.row_id), order_by=_NEWEST_FIRST
    )
    aged = (
        select(
            _items.customer_id,
            _items.uid,
            _items.sequence,
            _items.pinned_at,
            _items.stream_ms,
            _items.stream_counter,
            _items.item,
            _items.row_id,
            _items.kind,
            _items.after_whole,
            _items.after_nano,
            age.label("age"),
        )
        .with_hint(journal_items, _OF_CUSTOMER, "sqlite")
        .where(_items.partition == partition, _items.customer_id.in_(customer_ids))
        .subquery()
    )
    return select(aged).where(aged.c.age == 1).order_by(aged.c.row_id)


def select_customers(partition: str, *, after: str | None, limit: int) -> Select[Any]:
    """Return the statement for one page of the ids of a partition's customers, in the order of their bytes."""
    return (
        select(_items.customer_id)
        .distinct()
        .where(_items.partition == partition, _items.customer_id > (after or ""))
        .order_by(_items.customer_id)
        .limit(limit)
    )


def select_known(partition: str, customer_ids: Collection[str]) -> Select[Any]:
    """Return the statement for those of the ids that have items."""
    return (
        select(_items.customer_id)
        .distinct()
        .with_hint(journal_items, _OF_CUSTOMER, "sqlite")
        .where(_items.partition == partition, _items.customer_id.in_(customer_ids))
    )


def select_customers_after(partition: str, stream_id: StreamId) -> Select[Any]:
    """Return the statement for the customers of the items after a stream id, as often as they have items there."""
    return (
        select(_items.customer_id)
        .where(
            _items.partition == partition,
            tuple_(_items.stream_ms, _items.stream_counter) > tuple(stream_id),
            _items.customer_id.is_not(None),
        )
        .order_by(*_OLDEST_FIRST)
    )


# All items of one customer, oldest first. Made once: making it costs as much as running it, and verify asks for all.
SELECT_PROOF = (
    select(
        _items.customer_id,
        _items.uid,
        _items.sequence,
        _items.stream_ms,
        _items.stream_counter,
        _items.item,
        _items.kind,
        _items.row_id,
        _items.delta_whole,
        _items.delta_nano,
        _items.after_whole,
        _items.after_nano,
        case((_items.document_type == HOLD, _items.document_id)).label("hold_id"),
        case((_items.document_type == HOLD, _items.document)).label("receipt"),
        and_(_items.document_type == "customer", _items.document == GONE).label("is_end"),
    )
    .with_hint(journal_items, _OF_CUSTOMER, "sqlite")
    .where(_items.partition == bindparam("of"), _items.customer_id == bindparam("customer"))
    .order_by(*_OLDEST_FIRST)
)


def select_history(partition: str, customer_id: str) -> Select[Any]:
    """Return the statement for all of a customer's items, whole, oldest first."""
    return (
        select(journal_items)
        .with_hint(journal_items, _OF_CUSTOMER, "sqlite")
        .where(_items.partition == partition, _items.customer_id == customer_id)
        .order_by(*_OLDEST_FIRST)
    )


def select_keys(partition: str, since_ms: int, *, after: KeyUse | None, limit: int) -> Select[Any]:
    """Return the statement for one page of the uses of idempotency keys since an instant, oldest first."""
    last = (*after.stream_id, after.item) if after else (since_ms, -1, -1)
    return (
        select(
            _items.customer_id,
            _items.uid,
            _items.key,
            _items.fingerprint,
            _items.stream_ms,
            _items.stream_counter,
            _items.item,
        )
        .where(_items.partition == partition, tuple_(*_OLDEST_FIRST) > last, _items.key != "")
        .order_by(*_OLDEST_FIRST)
        .limit(limit)
    )


def states_of(items: Iterable[Row[Any]], documents: Iterable[Row[Any]]) -> dict[str, CustomerState]:
    """Return the customers in rows of `select_latest_items` and `select_latest_documents`, by id."""
    by_customer: dict[str, list[Row[Any]]] = {}
    for item in items:
        by_customer.setdefault(item.customer_id, []).append(item)
    documents_of: dict[tuple[str, str | None], list[Document]] = {}
    for document in documents:
        documents_of.setdefault((document.customer_id, document.uid), []).append(document_of(document))
    return {customer_id: _state_of(found, documents_of) for customer_id, found in by_customer.items()}


def _state_of(
    items: list[Row[Any]], documents_of: dict[tuple[str, str | None], list[Document]]
) -> CustomerState:
    last = max(items, key=lambda item: (item.stream_ms, item.stream_counter, item.item))
    rows = (item for item in items if item.uid == last.uid and item.row_id is not None)
    return CustomerState(
        customer_id=last.customer_id,
        uid=last.uid,
        sequence=last.sequence,
        stream_id=StreamId(last.stream_ms, last.stream_counter),
        pinned_at=last.pinned_at,
        rows=tuple(row_state_of(row) for row in rows),
        documents=tuple(documents_of.get((last.customer_id, last.uid), ())),
    )


def document_of(row: Row[Any]) -> Document:
    """Return the document in a row of `select_latest_documents`."""
    stream_id = StreamId(row.stream_ms, row.stream_counter)
    return Document(row.document_type, row.document_id, row.document, row.sequence, stream_id)


def row_state_of(row: Row[Any]) -> RowState:
    """Return the row's state in a row of `select_latest_items`."""
    return RowState(row.row_id, row.kind, join_amount(row.after_whole, row.after_nano), row.sequence)


def proof_item_of(row: Row[Any], carried: Mapping[tuple[str, str], int]) -> ProofItem:
    """Return the item in a row of `SELECT_PROOF`; `carried` says up to which entry each life was removed."""
    return ProofItem(
        customer_id=row.customer_id,
        uid=row.uid,
        sequence=row.sequence,
        stream_id=StreamId(row.stream_ms, row.stream_counter),
        item=row.item,
        kind=row.kind,
        row_id=row.row_id,
        delta_nanos=join_amount_if_any(row.delta_whole, row.delta_nano),
        after_nanos=join_amount_if_any(row.after_whole, row.after_nano),
        hold_id=row.hold_id,
        receipt=row.receipt,
        is_end=bool(row.is_end),
        is_opening=row.sequence <= carried.get((row.customer_id, row.uid or ""), 0),
    )


def key_use_of(row: Row[Any]) -> KeyUse:
    """Return the use of a key in a row of `select_keys`."""
    return KeyUse(
        customer_id=row.customer_id,
        uid=row.uid,
        key=row.key,
        fingerprint=row.fingerprint,
        stream_id=StreamId(row.stream_ms, row.stream_counter),
        item=row.item,
    )
