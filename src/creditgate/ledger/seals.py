"""The seals in the database: put with each batch, checked page by page, cut where a prune ends; see `sealing`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hmac import compare_digest
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    CursorResult,
    Select,
    bindparam,
    delete,
    exists,
    insert,
    select,
    tuple_,
)

from creditgate.core.journal import ORIGIN, StreamId, page_size
from creditgate.errors import CreditgateError
from creditgate.ledger.rows import Values
from creditgate.ledger.sealing import Chain, SealKeys, first_state, signature
from creditgate.ledger.tables import history_begins, journal_items, journal_seals, stream_positions

FETCH_ROWS = 1_000
SEALS_PAGE = (
    500  # that are checked in one transaction: a long one would keep SQLite's WAL from being folded in
)
SEALED_ANEW = 1_000  # items to a seal, where a whole history is sealed at once


class JournalSealed(CreditgateError):
    """The journal has seals, and this process has no key to go on with them; nothing was written."""

    code = "journal_sealed"

    def __init__(self) -> None:
        super().__init__("the journal is sealed: name the file with its key, --seal-key-file")


class SealBroken(CreditgateError):
    """The rows of a range are not those that were sealed; nothing was written."""

    code = "seal_broken"


class Seal(NamedTuple):
    """What is stored after all rows up to `stream_id`; `begins` on the first of a partition only. MACs are in hex."""

    stream_id: StreamId
    key_id: str
    mac: str
    begins: str | None

    @property
    def state(self) -> bytes:
        """What the chain goes on from; what is no MAC fits no rows."""
        try:
            return bytes.fromhex(self.mac)
        except ValueError:
            return b""


class Appended(NamedTuple):
    """Rows of a partition, in order: all in (`after`, `upto`]."""

    partition: str
    after: StreamId
    upto: StreamId
    rows: Sequence[Values]


class Checked(NamedTuple):
    """What one page of seals says. `last` is where the next page begins, None at the end; `begins` of the chain."""

    differences: tuple[str, ...]
    items: int
    begins: StreamId
    last: Seal | None


_seals = journal_seals.c
_items = journal_items.c
_seal_place = tuple_(_seals.stream_ms, _seals.stream_counter)
_SELECT = select(_seals.stream_ms, _seals.stream_counter, _seals.key_id, _seals.mac, _seals.begins).where(
    _seals.partition == bindparam("of")
)
_SELECT_ANY = select(_seals.partition).limit(1)
_UPWARDS = _SELECT.order_by(_seals.stream_ms, _seals.stream_counter)
_SELECT_FIRST = _UPWARDS.limit(1)
_SELECT_LAST = _SELECT.order_by(_seals.stream_ms.desc(), _seals.stream_counter.desc()).limit(1)
_SELECT_AT = select(journal_seals).where(
    tuple_(_seals.partition, _seals.stream_ms, _seals.stream_counter).in_(bindparam("places", expanding=True))
)
_SELECT_PAGE = _UPWARDS.where(_seal_place > tuple_(bindparam("after_ms"), bindparam("after_counter")))
_INSERT = insert(journal_seals)
_DELETE_UPTO = delete(journal_seals).where(
    _seals.partition == bindparam("of"),
    _seal_place <= tuple_(bindparam("upto_ms"), bindparam("upto_counter")),
)
_DELETE_ALL = delete(journal_seals).where(_seals.partition == bindparam("of"))
_SELECT_UNSEALED = (
    select(stream_positions)
    .where(~exists().where(_seals.partition == stream_positions.c.partition))
    .order_by(stream_positions.c.partition)
)
_SELECT_POSITION = select(stream_positions.c.stream_ms, stream_positions.c.stream_counter).where(
    stream_positions.c.partition == bindparam("of")
)
_SELECT_BEGIN = select(history_begins.c.stream_ms).where(history_begins.c.partition == bindparam("of"))
_item_place = tuple_(_items.stream_ms, _items.stream_counter)
_SELECT_ROWS = (
    select(journal_items)
    .where(
        _items.partition == bindparam("of"),
        _item_place > tuple_(bindparam("after_ms"), bindparam("after_counter")),
        _item_place <= tuple_(bindparam("upto_ms"), bindparam("upto_counter")),
    )
    .order_by(_items.stream_ms, _items.stream_counter, _items.item)
)
_SELECT_ROW_AFTER = (
    select(_items.item)
    .where(
        _items.partition == bindparam("of"),
        _item_place > tuple_(bindparam("after_ms"), bindparam("after_counter")),
    )
    .limit(1)
)


def check_unsealed(connection: Connection) -> None:
    """Raise JournalSealed if there are seals: rows that are appended without one would look like added ones."""
    if connection.execute(_SELECT_ANY).first():
        raise JournalSealed


def begin_missing(connection: Connection, keys: SealKeys) -> dict[str, StreamId]:
    """Begin the chain of every partition that has none, at its position; return where each begins."""
    if not connection.execute(_SELECT_UNSEALED.limit(1)).first():
        return {}
    # Locked, so that nobody moves a position on before its first seal is there.
    rows = connection.execute(_SELECT_UNSEALED.with_for_update(of=stream_positions)).all()
    begun = {row.partition: StreamId(row.stream_ms, row.stream_counter) for row in rows}
    for partition, at in begun.items():
        _begin(connection, keys, partition, at, first_state(keys.current, partition, at))
    return begun


def seal_appended(connection: Connection, keys: SealKeys, batches: Sequence[Appended]) -> None:
    """Seal rows that were appended, each batch with the position after it.

    A partition without a seal gets none here, but where its flusher starts: whose seals were taken away is to be told.
    """
    places = [(batch.partition, *batch.after) for batch in batches]
    last = {row.partition: row for row in connection.execute(_SELECT_AT, {"places": places})}
    new = []
    for partition, after, upto, rows in batches:
        if upto == after:
            continue  # it moves nothing, and its position is sealed
        # Not where the batch begins only if somebody has moved the position.
        before = last.get(partition) or connection.execute(_SELECT_LAST, {"of": partition}).first()
        if before is not None:
            chain = Chain(partition, _seal_of(before).state, iter(rows))
            new.append(_row(keys, partition, upto, chain.seal(keys.current, upto)))
    if new:
        connection.execute(_INSERT, new)


def check_page(connection: Connection, keys: SealKeys, partition: str, after: Seal | None) -> Checked:
    """Check the next seals of a partition; at the end also that nothing comes after the last of them.

    What a prune has removed meanwhile is passed over.
    """
    found = connection.execute(_SELECT_FIRST, {"of": partition}).first()
    if found is None:
        return Checked((f"partition {partition}: it has no seal",), 0, ORIGIN, None)
    first = _seal_of(found)
    differences = []
    if after is None or after.stream_id < first.stream_id:
        after = first
        if not _is_beginning(keys, partition, first):
            differences.append(f"partition {partition}: the seals before {first.stream_id} are missing")
    span = {"of": partition, "after_ms": after.stream_id.ms, "after_counter": after.stream_id.counter}
    seals = [_seal_of(row) for row in connection.execute(_SELECT_PAGE.limit(SEALS_PAGE), span)]
    if not seals:
        differences += _check_end(connection, partition, after, span)
        return Checked(tuple(differences), 0, first.stream_id, None)
    with _chain(connection, partition, after, seals[-1].stream_id) as chain:
        for before, seal in zip([after, *seals], seals, strict=False):
            if text := _check(chain, keys, before, seal):
                differences.append(f"partition {partition}: {text}")
        return Checked(tuple(differences), chain.items, first.stream_id, seals[-1])


def cut(connection: Connection, keys: SealKeys, partition: str, end_ms: int) -> None:
    """Let the chain begin after the rows that were recorded before an instant, which are to be removed.

    Raises SealBroken if they are not what was sealed.
    """
    found = connection.execute(_SELECT_FIRST, {"of": partition}).first()
    if found is None:
        return
    first = _seal_of(found)
    if not _is_beginning(keys, partition, first):
        raise SealBroken(f"partition {partition}: the seals before {first.stream_id} are missing")
    end = StreamId(end_ms, -1)
    span = {"of": partition, "after_ms": first.stream_id.ms, "after_counter": first.stream_id.counter}
    at = first.stream_id
    with (
        _chain(connection, partition, first, end) as chain,
        _streamed(connection, _SELECT_PAGE, span) as rows,
    ):
        before = first
        for seal in map(_seal_of, rows):
            if seal.stream_id > end:
                chain.through_rows(_key_of(keys, seal), end)
                break
            if text := _check(chain, keys, before, seal):
                raise SealBroken(f"partition {partition}: {text}; see creditgate verify")
            before, at = seal, seal.stream_id
        if not chain.is_at_end:
            raise SealBroken(f"partition {partition}: nothing was sealed after {at}; see creditgate verify")
    at = max(at, chain.at or at)
    if at > first.stream_id:
        connection.execute(_DELETE_UPTO, {"of": partition, "upto_ms": at.ms, "upto_counter": at.counter})
        _begin(connection, keys, partition, at, chain.state)


def forget(connection: Connection, partitions: Iterable[str]) -> None:
    """Take away the seals of partitions that are no more."""
    connection.execute(_DELETE_ALL, [{"of": partition} for partition in partitions])


def seal_anew(connection: Connection, keys: SealKeys, partition: str, upto: StreamId) -> None:
    """Seal all rows of a partition that has no seals, as they are now, and its position after them."""
    first = Seal(ORIGIN, keys.current_id, first_state(keys.current, partition, ORIGIN).hex(), None)
    _begin(connection, keys, partition, ORIGIN, first.state)
    with _chain(connection, partition, first, upto) as chain:
        while (at := chain.through_items(keys.current, SEALED_ANEW)) is not None:
            _put(connection, keys, partition, at, chain.seal(keys.current, at))
        _put(connection, keys, partition, upto, chain.seal(keys.current, upto))


def _check(chain: Chain, keys: SealKeys, before: Seal, seal: Seal) -> str:
    """Return what is wrong with the rows between two seals, or with the second of these, or ''."""
    key = keys.get(seal.key_id)
    chain.go_on_from(before.state)
    found = chain.seal(key or b"", seal.stream_id)
    span = f"({before.stream_id}, {seal.stream_id}]"
    if key is None:
        return f"{span} was sealed with the key {seal.key_id}, which is not in the key file"
    if not compare_digest(found, seal.state):
        return f"the rows in {span} are not those that were sealed"
    return ""


def _check_end(
    connection: Connection, partition: str, last: Seal, span: Mapping[str, object]
) -> Iterator[str]:
    found = connection.execute(_SELECT_POSITION, {"of": partition}).first()
    position = StreamId(*found) if found else None
    if position != last.stream_id:
        yield f"partition {partition}: the last seal is {last.stream_id}, the position {position}"
    elif connection.execute(_SELECT_ROW_AFTER, span).first():
        yield f"partition {partition}: there are rows after the last seal, {last.stream_id}"


def _is_beginning(keys: SealKeys, partition: str, seal: Seal) -> bool:
    key = keys.get(seal.key_id)
    return key is not None and seal.begins == signature(key, partition, seal.stream_id, seal.state)


def _key_of(keys: SealKeys, seal: Seal) -> bytes:
    key = keys.get(seal.key_id)
    if key is None:
        raise SealBroken(f"the key {seal.key_id} of the seal {seal.stream_id} is not in the key file")
    return key


@contextmanager
def _chain(connection: Connection, partition: str, after: Seal, upto: StreamId) -> Iterator[Chain]:
    """Yield the chain from a seal on, over the rows up to a stream id."""
    span = {
        "of": partition,
        "after_ms": after.stream_id.ms,
        "after_counter": after.stream_id.counter,
        "upto_ms": upto.ms,
        "upto_counter": upto.counter,
    }
    begins_ms = connection.execute(_SELECT_BEGIN, {"of": partition}).scalar() or 0
    with _streamed(connection, _SELECT_ROWS, span) as rows:
        yield Chain(partition, after.state, map(tuple, rows), begins_ms=begins_ms)


def _streamed(
    connection: Connection, statement: Select[Any], span: Mapping[str, object]
) -> CursorResult[Any]:
    """Return the rows as they are read; an item of the system may be large."""
    options = {"yield_per": page_size(str(span["of"]), FETCH_ROWS)}
    return connection.execute(statement, span, execution_options=options)


def _begin(connection: Connection, keys: SealKeys, partition: str, at: StreamId, state: bytes) -> None:
    _put(connection, keys, partition, at, state, signature(keys.current, partition, at, state))


def _put(
    connection: Connection,
    keys: SealKeys,
    partition: str,
    at: StreamId,
    state: bytes,
    begins: str | None = None,
) -> None:
    connection.execute(_INSERT, _row(keys, partition, at, state, begins))


def _row(
    keys: SealKeys, partition: str, at: StreamId, state: bytes, begins: str | None = None
) -> dict[str, Any]:
    return {
        "partition": partition,
        "stream_ms": at.ms,
        "stream_counter": at.counter,
        "key_id": keys.current_id,
        "mac": state.hex(),
        "begins": begins,
    }


def _seal_of(row: Any) -> Seal:
    return Seal(StreamId(row.stream_ms, row.stream_counter), row.key_id, row.mac, row.begins)
