"""The proof: every balance in Redis is the sum of its history, entry by entry, with nothing missing and nothing twice.

For each customer the record is read with its sequence number, then the stream's tail, then SQL; the items of both are
united by identity and replayed up to that number. So a running sidecar is verified while it works.

A history falls into *lives*: who was deleted and came again under the same id has another uid. Every life but that of
the record was ended by a deletion that left nothing. `at_start` is where the history of the partition stood when the
proof began: a record that was read since then is no older, and a life that began since then need not have an end yet.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import groupby
from typing import NamedTuple

from redis.asyncio import Redis

from creditgate.balances.keys import Keys, decoded
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.amounts import format_amount
from creditgate.core.customers import Record
from creditgate.core.holds import HOLD, decode_hold
from creditgate.core.journal import BATCH, GONE, ORIGIN, SYSTEM_PARTITION, Entry, StreamId
from creditgate.engine.batches import OVERDUE_MS, opens_a_batch
from creditgate.engine.verify_seals import verify_seals
from creditgate.ledger.customers import ProofItem
from creditgate.ledger.store import Ledger

CUSTOMERS_PAGE = 500
READS_AT_ONCE = 32
SCAN_COUNT = 1_000
DIFFERENCES_MAX = 20  # put into words; all are counted

Progress = Callable[[int], None]


class Move(NamedTuple):
    """One item on a row, on a hold, or on neither, as both sides know it.

    What `is_opening` is what a prune has left: what was before has been added up, and is gone.
    """

    sequence: int
    stream_id: StreamId
    item: int
    row_id: str | None
    delta_nanos: int
    after_nanos: int
    is_end: bool
    hold_id: str | None = None
    receipt: str | None = None
    is_opening: bool = False


Lives = dict[str, dict[tuple[StreamId, int], Move]]
"""The moves of one customer by their identity, by uid."""


class Proof(NamedTuple):
    """What was looked at, and what did not agree, in words. `open_batches` of usage are still to be worked off.

    `sealed_items` were as they had been sealed; all partitions are sealed since `sealed_since`, Unix ms (0: the start).
    Without a key, they are None.
    """

    customers: int
    entries: int
    open_batches: int
    differences_count: int
    differences: tuple[str, ...]
    sealed_items: int | None = None
    sealed_since: int | None = None

    @property
    def holds(self) -> bool:
        return self.differences_count == 0


def _silent(_customers: int) -> None:
    """Nobody watches."""


class Verifier:
    """Verifies all partitions of one environment."""

    def __init__(
        self, redis: "Redis", keys: Keys, store: BalanceStore, stream: JournalStream, ledger: Ledger
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._store = store
        self._stream = stream
        self._ledger = ledger

    async def verify(self, progress: Progress = _silent) -> Proof:
        """Check every customer that Redis or SQL knows, and every document of the system.

        Memory is bounded, whatever their number; `progress` is told how many customers were checked.
        """
        customers = entries = count = 0
        differences: list[str] = []
        at_start = await self._ends()
        async for partition, page in self._pages():
            found, seen = await self._verify_page(partition, page, at_start[partition])
            customers, entries, count = customers + len(page), entries + seen, count + len(found)
            differences += found[: DIFFERENCES_MAX - len(differences)]
            progress(customers)
        open_batches, of_batches = await self._verify_batches()
        found = of_batches + await self._verify_documents()
        seals = await verify_seals(self._ledger, (SYSTEM_PARTITION, *self._keys.partitions))
        found += seals.differences
        poison = await asyncio.to_thread(self._ledger.poison_count)
        if poison:
            found.append(f"{poison} messages of the journal could not be read and were set aside")
        count += len(found)
        shown = tuple(differences + found)[:DIFFERENCES_MAX]
        return Proof(customers, entries, open_batches, count, shown, seals.items, seals.begin_ms)

    async def _ends(self) -> dict[str, StreamId]:
        """Return how far the history of each partition goes: Redis may have lost what SQL has."""
        positions = await asyncio.to_thread(self._ledger.positions)
        stored = {name: position.stream_id for name, position in positions.items()}
        return {
            name: max(await self._stream.last_id(name), stored.get(name, ORIGIN))
            for name in self._keys.partitions
        }

    async def _verify_page(
        self, partition: str, customer_ids: list[str], at_start: StreamId
    ) -> tuple[list[str], int]:
        records = dict(zip(customer_ids, await self._read(customer_ids), strict=True))
        tail: dict[str, Lives] = {customer_id: {} for customer_id in customer_ids}
        async for entry in self._stream.tail(partition, ORIGIN):
            if entry.customer_id in tail:
                moves = tail[entry.customer_id].setdefault(entry.uid or "", {})
                moves.update(((entry.stream_id, move.item), move) for move in _moves(entry))
        results = await asyncio.to_thread(self._replay, partition, records, tail, at_start)
        differences = [f"customer {customer_id}: {text}" for customer_id, text, _ in results if text]
        return differences, sum(seen for _, _, seen in results)

    async def _read(self, customer_ids: list[str]) -> list[Record | None]:
        """Read the records, each at an instant of its own, READS_AT_ONCE at a time."""
        records: list[Record | None] = []
        for start in range(0, len(customer_ids), READS_AT_ONCE):
            some = customer_ids[start : start + READS_AT_ONCE]
            records += await asyncio.gather(*(self._store.read(customer_id=name) for name in some))
        return records

    def _replay(
        self,
        partition: str,
        records: dict[str, Record | None],
        tail: dict[str, Lives],
        at_start: StreamId,
    ) -> list[tuple[str, str, int]]:
        results = []
        proof = self._ledger.proof(partition, list(records))
        for customer_id, items in groupby(proof, key=lambda item: item.customer_id):
            lives = tail.pop(customer_id)
            for item in items:
                lives.setdefault(item.uid or "", {})[item.stream_id, item.item] = _stored_move(item)
            results.append((customer_id, *_replay_customer(records[customer_id], lives, at_start)))
        for customer_id, lives in tail.items():  # those whom SQL does not know yet
            results.append((customer_id, *_replay_customer(records[customer_id], lives, at_start)))
        return results

    async def _verify_documents(self) -> list[str]:
        """Compare the system's documents with the last that was put of each, in the tail or in SQL."""
        types = ("catalog", "key", "settings", "webhook")
        current = {(t, i): text for t in types for i, text in (await self._store.documents(t))[1].items()}
        put: dict[tuple[str, str], tuple[StreamId, bytes]] = {}
        async for entry in self._stream.tail(SYSTEM_PARTITION, ORIGIN):
            for item in entry.items:
                if item.document_type == BATCH:
                    continue
                name = (item.document_type or "", item.document_id or "")
                put[name] = max(
                    put.get(name, (ORIGIN, b"")), (entry.stream_id, (item.document or "").encode())
                )
        for document in await asyncio.to_thread(self._ledger.documents, SYSTEM_PARTITION, None):
            name = (document.type, document.id)
            put[name] = max(put.get(name, (ORIGIN, b"")), (document.stream_id, document.text.encode()))
        return [
            f"document {kind} {name}: Redis and the journal differ"
            for kind, name in current.keys() | put.keys()
            if current.get((kind, name)) != put.get((kind, name), (ORIGIN, None))[1]
        ]

    async def _verify_batches(self) -> tuple[int, list[str]]:
        """Compare the open batches with those that the journal opened and did not close: none may be forgotten.

        A batch that is opened or closed while we look seems to differ; what differs twice in the same way does.
        """
        count, found = await self._look_at_batches()
        if found:
            count, again = await self._look_at_batches()
            found &= again
        return count, sorted(found)

    async def _look_at_batches(self) -> tuple[int, set[str]]:
        current = await self._store.batches()
        opened: dict[str, StreamId] = {}
        closed: set[str] = set()
        async for entry in self._stream.tail(SYSTEM_PARTITION, ORIGIN):
            for item in entry.items:
                if item.document_type == BATCH and item.document_id is not None:
                    if opens_a_batch(item.document or ""):
                        opened[item.document_id] = entry.stream_id
                    else:
                        closed.add(item.document_id)
        opened |= await asyncio.to_thread(self._ledger.open_batches)
        expected = {batch_id: stream_id for batch_id, stream_id in opened.items() if batch_id not in closed}
        now_ms = await self._stream.now_ms(SYSTEM_PARTITION)
        found = {
            f"batch {batch_id}: Redis and the journal differ"
            for batch_id in current.keys() | expected.keys()
            if current.get(batch_id) != expected.get(batch_id)
        }
        found |= {
            f"batch {batch_id} is not worked off, though it was sent long ago: is a sidecar running?"
            for batch_id, stream_id in current.items()
            if stream_id.ms + OVERDUE_MS < now_ms
        }
        return len(current), found

    async def _pages(self) -> AsyncIterator[tuple[str, list[str]]]:
        """Yield pages of the customers of one partition: all that SQL knows, then those that only Redis does."""
        for partition in self._keys.partitions:
            after = None
            while page := await asyncio.to_thread(
                self._ledger.customers, partition, after=after, limit=CUSTOMERS_PAGE
            ):
                yield partition, page
                after = page[-1]
        async for partition, page in self._pages_of_redis():
            known = await asyncio.to_thread(self._ledger.known, partition, page)
            if unknown := [name for name in page if name not in known]:
                yield partition, unknown

    async def _pages_of_redis(self) -> AsyncIterator[tuple[str, list[str]]]:
        pages: dict[str, list[str]] = {partition: [] for partition in self._keys.partitions}
        async for key in self._redis.scan_iter(match=self._keys.records_pattern(), count=SCAN_COUNT):
            customer_id = decoded(key.decode().rsplit(":", 1)[1])
            page = pages[self._keys.partition_of(customer_id)]
            page.append(customer_id)
            if len(page) == CUSTOMERS_PAGE:
                yield self._keys.partition_of(customer_id), list(page)
                page.clear()
        for partition, page in pages.items():
            yield partition, page


def _moves(entry: Entry) -> Iterator[Move]:
    for item in entry.items:
        is_hold = item.document_type == HOLD
        yield Move(
            entry.sequence,
            entry.stream_id,
            item.number,
            item.row_id,
            item.delta_nanos or 0,
            item.after_nanos or 0,
            item.is_end,
            item.document_id if is_hold else None,
            item.document if is_hold else None,
        )


def _stored_move(item: ProofItem) -> Move:
    return Move(
        item.sequence,
        item.stream_id,
        item.item,
        item.row_id,
        item.delta_nanos or 0,
        item.after_nanos or 0,
        item.is_end,
        item.hold_id,
        item.receipt,
        item.is_opening,
    )


def _replay_customer(record: Record | None, lives: Lives, at_start: StreamId) -> tuple[str, int]:
    """Return what does not agree (or ''), and how many entries were replayed."""
    seen = 0
    histories = {uid: sorted(moves.values(), key=_identity) for uid, moves in lives.items()}
    for uid in sorted(histories, key=lambda uid: _identity(histories[uid][0])):
        if record is not None and uid == record.uid:
            text, count = _replay_record(record, histories[uid], at_start)
            return text, seen + count  # what comes after it began after the record was read
        if histories[uid][0].stream_id <= at_start:
            text, count = _replay_ended(histories[uid])
            seen += count
            if text:
                return text, seen
    return (f"Redis is at entry {record.sequence}, the journal at 0" if record else ""), seen


def _replay_record(record: Record, moves: list[Move], at_start: StreamId) -> tuple[str, int]:
    known = [move for move in moves if move.sequence <= record.sequence or move.stream_id <= at_start]
    text, count, balances, receipts = _replayed(known)
    if not text and count != record.sequence:
        text = f"Redis is at entry {record.sequence}, the journal at {count}"
    return text or _compared(record, balances) or _compared_holds(record, receipts), count


def _replay_ended(moves: list[Move]) -> tuple[str, int]:
    text, count, balances, receipts = _replayed(moves)
    if not text and not moves[-1].is_end:
        text = "the journal knows it, Redis does not"
    left = next((row_id for row_id, nanos in balances.items() if nanos), None)
    if not text and left is not None:
        text = f"was deleted with {format_amount(balances[left])} in row {left}"
    held = next((hold_id for hold_id, receipt in receipts.items() if receipt != GONE), None)
    if not text and held is not None:
        text = f"was deleted with hold {decoded(held)} open"
    return text, count


def _replayed(moves: list[Move]) -> tuple[str, int, dict[str, int], dict[str, str]]:
    """Return what is wrong in itself (or ''), how many entries there are, and the last balances and holds."""
    balances: dict[str, int] = {}
    receipts: dict[str, str] = {}
    count, last = 0, None
    carried = max((move.sequence for move in moves if move.is_opening), default=0)
    for move in moves:
        if not move.is_opening and move.sequence <= carried:
            continue  # the stream still has what was removed from SQL
        if move.is_opening:
            count, last = move.sequence, move.stream_id
        elif move.stream_id != last:
            count, last = count + 1, move.stream_id
            if move.sequence != count:
                return f"entry {count} is missing from the journal", count, balances, receipts
        if move.hold_id is not None and move.receipt is not None:
            receipts[move.hold_id] = move.receipt
        if move.row_id is None:
            continue
        before = balances.get(move.row_id, 0)
        if not move.is_opening and before + move.delta_nanos != move.after_nanos:
            sum_text = f"{format_amount(before)} and {format_amount(move.delta_nanos)}"
            text = f"row {move.row_id}: {sum_text} is not {format_amount(move.after_nanos)}"
            return f"{text} (entry {move.sequence})", count, balances, receipts
        balances[move.row_id] = move.after_nanos
    return "", count, balances, receipts


def _compared_holds(record: Record, receipts: dict[str, str]) -> str:
    replayed = {decoded(name): decode_hold(text) for name, text in receipts.items() if text != GONE}
    for hold_id in sorted(record.holds.keys() | replayed.keys()):
        if hold_id not in replayed:
            return f"hold {hold_id} is open in Redis, but not in the journal"
        if hold_id not in record.holds:
            return f"hold {hold_id} is open in the journal, but not in Redis"
        if record.holds[hold_id] != replayed[hold_id]:
            return f"hold {hold_id}: Redis has another receipt than the journal"
    return ""


def _identity(move: Move) -> tuple[StreamId, int]:
    return move.stream_id, move.item


def _compared(record: Record, replayed: dict[str, int]) -> str:
    for row_id in sorted(record.balances.keys() | replayed.keys()):
        if row_id not in replayed:
            return f"row {row_id} has no history"
        if record.balances.get(row_id, 0) != replayed[row_id]:
            was, now = format_amount(replayed[row_id]), format_amount(record.balances.get(row_id, 0))
            return f"row {row_id}: the journal says {was}, Redis has {now}"
    if record.terms.held_ids != record.balances.keys():
        return "the terms name other rows than those that have a balance"
    return ""
