"""How long the books take: rebuild Redis from made-up history, verify, back up, restore, move; time and peak memory.

    python -m bench.books --customers 100000 --entries 1000000

The history is appended through the ledger as the flusher would (each customer is granted 1000 credits, then uses some),
so the figures are those of the commands alone. Then some of the customers use more through the scripts, Redis is
emptied and filled again, and every record must be bit for bit what it was.

Prints one line of JSON for each step; the memory is that of this process, without the servers. `move` waits 2.5 s to
be sure that no sidecar works, copies, fills Redis, and verifies both sides.
"""

import argparse
import asyncio
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from creditgate import openings, operations
from creditgate.balances.keys import Keys
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import Interval, Recurrence
from creditgate.core.customers import Customer, Row, Terms
from creditgate.core.decisions import Mode
from creditgate.core.journal import Call, Entry, Item, Kind, StreamId
from creditgate.engine import demo
from creditgate.engine.drain import flushing
from creditgate.engine.usage import Usage
from creditgate.engine.verify import Proof
from creditgate.ledger.appending import Batch
from creditgate.ledger.positions import Position
from creditgate.ledger.store import Ledger
from creditgate.settings import Environment, Settings, sqlite_url

T = TypeVar("T")

PARTITIONS = 8
BATCH_ENTRIES = 2_000
SCAN_COUNT = 1_000
TRACKED_MAX = 10_000
PRICE_NANOS = NANOS // 100
START_MS = 1_790_000_000_000
HIGHEST = Path("/proc/self/clear_refs")


def main() -> None:
    """Run the steps in a directory of their own, which is removed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--entries", type=int, default=100_000)
    sizes = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="cgb"))
    try:
        asyncio.run(_steps(Settings(data_dir=directory / "d"), sizes.customers, sizes.entries))
    finally:
        shutil.rmtree(directory)


async def _steps(settings: Settings, customers: int, entries: int) -> None:
    await _said("init", _init(settings))
    ledger = Ledger(settings.database_url)
    await _said("append", asyncio.to_thread(_fill, ledger, customers, entries))
    ledger.close()
    restored = await _said("rebuild", operations.rebuild(settings, lambda _: None))
    assert restored == customers, restored
    proof = await _said("verify", _verify(settings))
    assert proof.holds, proof.differences
    assert proof.customers == customers
    await _said("track", _track(settings, customers))
    before = await _said("digest", _digest(settings))
    assert before.records == customers, before
    restored = await _said(
        "empty and rebuild", operations.rebuild(settings, lambda _: None, partitions=PARTITIONS)
    )
    assert restored == customers, restored
    after = await _said("digest again", _digest(settings))
    assert after == before, (before, after)
    print(json.dumps({"records": after.records, "identical": True, "sha256_sum": f"{after.total:064x}"}))
    proof = await _said("verify again", _verify(settings))
    assert proof.holds, proof.differences
    copy = settings.data_dir.parent / "backup"
    await _said("backup", operations.backup(settings, copy))
    await _said("restore", operations.restore(copy, copy.parent / "restored"))
    async with openings.embedded_redis(Settings(data_dir=copy.parent / "t")) as redis_url:
        to = Settings(redis=redis_url, database=sqlite_url(copy.parent / "moved.db"))
        moved = await _said("move", operations.move(settings, to, _nobody_watches))
    assert moved == proof


@contextmanager
def _nobody_watches(_: str) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


async def _init(settings: Settings) -> None:
    async with (
        openings.embedded_redis(settings) as redis_url,
        openings.open_stores(settings, redis_url, make=(Environment.TEST, PARTITIONS)) as stores,
        openings.open_use_cases(settings, redis_url, stores) as cases,
    ):
        await demo.load(cases.catalogs, cases.clock.now_ms())
        await cases.flusher.flush_once()


async def _verify(settings: Settings) -> Proof:
    async with operations.open_verifier(settings) as verifier:
        return await verifier.verify()


async def _track(settings: Settings, customers: int) -> None:
    async with (
        openings.open_data(settings) as (redis_url, stores),
        openings.open_use_cases(settings, redis_url, stores) as cases,
        flushing(cases.flusher),
    ):
        for number in range(0, customers, max(1, customers // TRACKED_MAX)):
            usage = Usage("track", f"customer_{number}", "basic_messages", None, NANOS, Mode.CAP)
            await cases.meter.track(usage)


class Digest(NamedTuple):
    """How many records there are, and the sum of their digests: the same in whatever order they are met."""

    records: int
    total: int


async def _digest(settings: Settings) -> Digest:
    """Digest every field of every record but `shape`, which only has to differ from what was read before."""
    records = total = 0
    async with openings.open_data(settings) as (_, stores):
        pattern = stores.keys.records_pattern()
        async for batch in _in_batches(stores.redis.scan_iter(match=pattern, count=SCAN_COUNT)):
            async with stores.redis.pipeline(transaction=False) as together:
                for key in batch:
                    together.hgetall(key)
                found = await together.execute()
            for key, fields in zip(batch, found, strict=True):
                fields.pop(b"shape")
                text = repr((key, sorted(fields.items()))).encode()
                total = (total + int.from_bytes(hashlib.sha256(text).digest())) % 2**256
            records += len(batch)
    return Digest(records, total)


async def _in_batches(keys: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    batch = []
    async for key in keys:
        batch.append(key)
        if len(batch) == SCAN_COUNT:
            yield batch
            batch = []
    yield batch


async def _said(step: str, work: Awaitable[T]) -> T:
    await asyncio.to_thread(HIGHEST.write_text, "5")  # the peak starts again from what is used now
    started, cpu = time.perf_counter(), time.process_time()
    result = await work
    peak_mb = next(int(line.split()[1]) // 1024 for line in _status() if line.startswith("VmHWM"))
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    figures = {"step": step, "wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1), "peak_mb": peak_mb}
    print(json.dumps(figures), flush=True)
    return result


def _status() -> list[str]:
    return Path("/proc/self/status").read_text().splitlines()


def _fill(ledger: Ledger, customers: int, entries: int) -> None:
    keys = Keys(PARTITIONS)
    positions = ledger.positions()
    pending: dict[str, list[Entry]] = {partition: [] for partition in keys.partitions}
    for entry in _history(keys, customers, entries):
        batch = pending[entry.partition]
        batch.append(entry)
        if len(batch) == BATCH_ENTRIES:
            positions[entry.partition] = _append(ledger, positions[entry.partition], batch)
            batch.clear()
    for partition, batch in pending.items():
        if batch:
            _append(ledger, positions[partition], batch)


def _append(ledger: Ledger, position: Position, entries: list[Entry]) -> Position:
    upto = entries[-1].stream_id
    ledger.append([Batch(position.partition, position.epoch, position.stream_id, upto, list(entries))])
    return msgspec.structs.replace(position, stream_id=upto)


def _history(keys: Keys, customers: int, entries: int) -> Iterator[Entry]:
    for number in range(entries):
        name, turn = f"customer_{number % customers}", number // customers
        stream_id, row_id = StreamId(START_MS + number, 0), f"bal_{number % customers:022d}"
        items = _opening(name, row_id) if turn == 0 else _use(row_id, turn)
        yield Entry(keys.partition_of(name), stream_id, name, f"uid_{name}", turn + 1, None, items)


def _opening(name: str, row_id: str) -> tuple[Item, ...]:
    row = Row(row_id, "usd_credits", START_MS, 1000 * NANOS, reset=Recurrence(Interval.ONE_OFF))
    terms = msgspec.json.encode(Terms((row,))).decode()
    customer = msgspec.json.encode(Customer(name, START_MS)).decode()
    call = Call("create", "op", 1)
    return (
        Item(0, Kind.GRANT, call, row_id, 1000 * NANOS, 1000 * NANOS),
        Item(1, Kind.PUT, document_type="terms", document_id="-", document=terms),
        Item(2, Kind.PUT, document_type="customer", document_id="-", document=customer),
    )


def _use(row_id: str, turn: int) -> tuple[Item, ...]:
    call = Call("track", "op", 1, feature_id="basic_messages", value_nanos=NANOS)
    return (Item(0, Kind.USE, call, row_id, -PRICE_NANOS, 1000 * NANOS - turn * PRICE_NANOS),)


if __name__ == "__main__":
    main()
