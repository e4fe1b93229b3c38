"""The proof: every balance in Redis is the sum of its history, entry by entry, with nothing missing and nothing twice.

For each customer the record is read with its sequence number, then the stream's tail, then SQL; the items of both are
united by identity and replayed up to that number. So a running sidecar is verified while it works.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from redis.asyncio import Redis

from creditgate.balances.keys import Keys, decoded
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.amounts import format_amount
from creditgate.core.customers import Record
from creditgate.core.holds import HOLD, decode_hold
from creditgate.core.journal import GONE, ORIGIN, SYSTEM_PARTITION, Entry, StreamId
from creditgate.ledger.store import Ledger

CUSTOMERS_PAGE = 500
READS_AT_ONCE = 32
SCAN_COUNT = 1_000
DIFFERENCES_MAX = 20  # put into words; all are counted

Progress = Callable[[int], None]


class Move(NamedTuple):
    """One item on a row, on a hold, or on neither, as both sides know it."""

    sequence: int
    stream_id: StreamId
    item: int
    row_id: str | None
    delta_nanos: int
    after_nanos: int
    hold_id: str | None
    receipt: str | None


class Proof(NamedTuple):
    """What was looked at, and what did not agree, in words."""

    customers: int
    entries: int
    differences_count: int
    differences: tuple[str, ...]

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
        async for partition, page in self._pages():
            found, seen = await self._verify_page(partition, page)
            customers, entries, count = customers + len(page), entries + seen, count + len(found)
            differences += found[: DIFFERENCES_MAX - len(differences)]
            progress(customers)
        found = await self._verify_documents()
        poison = await asyncio.to_thread(self._ledger.poison_count)
        if poison:
            found.append(f"{poison} messages of the journal could not be read and were set aside")
        count += len(found)
        return Proof(customers, entries, count, tuple(differences + found)[:DIFFERENCES_MAX])

    async def _verify_page(self, partition: str, customer_ids: list[str]) -> tuple[list[str], int]:
        records = dict(zip(customer_ids, await self._read(customer_ids), strict=True))
        wanted = set(customer_ids)
        tail = [entry async for entry in self._stream.tail(partition, ORIGIN) if entry.customer_id in wanted]
        proofs = await asyncio.to_thread(self._replay, partition, records, tail)
        differences = [f"customer {customer_id}: {text}" for customer_id, text, _ in proofs if text]
        return differences, sum(seen for _, _, seen in proofs)

    async def _read(self, customer_ids: list[str]) -> list[Record | None]:
        """Read the records, each at an instant of its own, READS_AT_ONCE at a time."""
        records: list[Record | None] = []
        for start in range(0, len(customer_ids), READS_AT_ONCE):
            some = customer_ids[start : start + READS_AT_ONCE]
            records += await asyncio.gather(*(self._store.read(customer_id=name) for name in some))
        return records

    def _replay(
        self, partition: str, records: dict[str, Record | None], tail: list[Entry]
    ) -> list[tuple[str, str, int]]:
        in_tail: dict[tuple[str, str], list[Move]] = {}
        for entry in tail:
            in_tail.setdefault((entry.customer_id or "", entry.uid or ""), []).extend(_moves(entry))
        results, replayed = [], set()
        proof = self._ledger.proof(partition, list(records))
        for customer_id, items in groupby(proof, key=lambda item: item.customer_id):
            record = records[customer_id]
            uid = record.uid if record else ""
            stored = (
                Move(
                    i.sequence,
                    i.stream_id,
                    i.item,
                    i.row_id,
                    i.delta_nanos or 0,
                    i.after_nanos or 0,
                    i.hold_id,
                    i.receipt,
                )
                for i in items
                if i.uid == uid
            )
            moves = _united(stored, in_tail.get((customer_id, uid), []))
            results.append(_replay_customer(customer_id, record, moves))
            replayed.add(customer_id)
        for customer_id in records.keys() - replayed:
            record = records[customer_id]
            moves = _united((), in_tail.get((customer_id, record.uid if record else ""), []))
            results.append(_replay_customer(customer_id, record, moves))
        return results

    async def _verify_documents(self) -> list[str]:
        """Compare the system's documents with the last that was put of each, in the tail or in SQL."""
        types = ("catalog", "key", "settings")
        current = {(t, i): text for t in types for i, text in (await self._store.documents(t))[1].items()}
        put: dict[tuple[str, str], tuple[StreamId, bytes]] = {}
        async for entry in self._stream.tail(SYSTEM_PARTITION, ORIGIN):
            for item in entry.items:
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
            item.document_id if is_hold else None,
            item.document if is_hold else None,
        )


def _united(stored: Iterable[Move], tail: Iterable[Move]) -> list[Move]:
    return sorted({(move.stream_id, move.item): move for move in (*tail, *stored)}.values())


def _replay_customer(customer_id: str, record: Record | None, moves: list[Move]) -> tuple[str, str, int]:
    """Return the customer, what does not agree (or ''), and how many entries were replayed."""
    if record is None:
        return customer_id, "the journal knows it, Redis does not", 0
    balances: dict[str, int] = {}
    receipts: dict[str, str] = {}
    expected, last = 0, None
    for move in moves:
        if move.sequence > record.sequence:
            break
        if move.stream_id != last:
            expected, last = expected + 1, move.stream_id
            if move.sequence != expected:
                return customer_id, f"entry {expected} is missing from the journal", expected
        if move.hold_id is not None and move.receipt is not None:
            receipts[move.hold_id] = move.receipt
        if move.row_id is None:
            continue
        before = balances.get(move.row_id, 0)
        if before + move.delta_nanos != move.after_nanos:
            sum_text = f"{format_amount(before)} and {format_amount(move.delta_nanos)}"
            text = f"row {move.row_id}: {sum_text} is not {format_amount(move.after_nanos)}"
            return customer_id, f"{text} (entry {move.sequence})", expected
        balances[move.row_id] = move.after_nanos
    if expected != record.sequence:
        return customer_id, f"Redis is at entry {record.sequence}, the journal at {expected}", expected
    return customer_id, _compared(record, balances) or _compared_holds(record, receipts), expected


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
