"""The way of an entry to SQL: exactly once, whatever happens on the way."""

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError
from sqlalchemy import event

from creditgate import openings, operations
from creditgate.balances.clock import RedisClock
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Mode
from creditgate.core.journal import SYSTEM_PAGE_MAX, Call
from creditgate.engine import flusher
from creditgate.engine.customers import Profile
from creditgate.engine.flusher import FLUSH_LEASE_MS, Flusher
from creditgate.engine.lease import Lease
from creditgate.engine.usage import Usage
from creditgate.engine.verify import Proof
from creditgate.ledger.database import LedgerUnavailable
from creditgate.ledger.positions import PositionMoved
from creditgate.ledger.sealing import SealKeys
from creditgate.ledger.store import Ledger
from creditgate.settings import Settings
from tests.sidecar_process import wait_until

TRACKS = 7


@pytest.fixture
async def used(cases: openings.UseCases) -> openings.UseCases:
    """A customer with some tracks, nothing of it in SQL yet but the catalog."""
    await cases.customers.get_or_create("ann", Profile())
    for _ in range(TRACKS):
        await cases.meter.track(Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP))
    return cases


async def test_a_crash_between_commit_and_trim_counts_nothing_twice(
    used: openings.UseCases, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the commit and before the trim, the next flusher goes on after what SQL has."""
    stream = used.flusher._stream

    async def crash(*_: object) -> int:
        raise ConnectionError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(stream, "trim", crash)
        with pytest.raises(ConnectionError):
            await used.flusher.flush_once()
    assert _uses(settings) == TRACKS
    await used.meter.track(Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP))
    await used.flusher.flush_once()
    assert _uses(settings) == TRACKS + 1
    assert (await _proof(settings)).holds


async def test_entries_stay_in_redis_while_sql_is_down(
    used: openings.UseCases, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trimmed that SQL did not take; once it is back, everything is there."""

    def refuse(*_: object, **__: object) -> int:
        raise LedgerUnavailable("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(used.flusher._ledger, "append", refuse)
        with pytest.raises(LedgerUnavailable):
            await used.flusher.flush_once()
    assert _uses(settings) == 0
    await used.flusher.flush_once()
    assert _uses(settings) == TRACKS


async def test_what_does_not_fit_one_page_is_flushed_at_the_stop(
    used: openings.UseCases, stores: openings.Stores
) -> None:
    """The system's journal is read in small pages, since a batch may be large; a stop waits for all of them."""
    usage = Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP)
    for _ in range(2 * SYSTEM_PAGE_MAX + 1):
        await used.batches.open((usage,))
    used.flusher.stop()
    await used.flusher.run()
    assert len(stores.ledger.open_batches()) == 2 * SYSTEM_PAGE_MAX + 1


async def test_two_flushers_at_once_count_nothing_twice(
    used: openings.UseCases, stores: openings.Stores, settings: Settings
) -> None:
    """A flusher that lost its lease without noticing commits nothing."""
    lease = Lease(used.flusher._lease._store, "other", ttl_ms=1000)
    zombie = Flusher(stores.keys, used.flusher._stream, stores.ledger, lease)
    results = await asyncio.gather(used.flusher.flush_once(), zombie.flush_once(), return_exceptions=True)
    assert _uses(settings) == TRACKS
    assert any(isinstance(result, PositionMoved) for result in results) or 0 in results
    assert (await _proof(settings)).holds


async def test_one_lease_one_flusher(used: openings.UseCases) -> None:
    """While one process flushes, another stands by; it may when the first one gives up."""
    store = used.flusher._lease._store
    first, second = Lease(store, "flush", ttl_ms=60_000), Lease(store, "flush", ttl_ms=60_000)
    assert await first.hold()
    assert not await second.hold()
    assert await first.hold()
    await first.release()
    assert await second.hold()


async def test_without_the_key_of_a_sealed_journal_the_lease_goes_to_who_has_it(
    used: openings.UseCases, stores: openings.Stores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was started without the key does not hold up the history of all: the next one flushes."""
    monkeypatch.setattr(flusher, "RETRY_WAIT_S", 0.05)
    with closing(Ledger(settings.database_url, SealKeys([b"k" * 32]))) as sealed:
        sealed.begin_seals()
        keyless = asyncio.create_task(used.flusher.run())
        store = BalanceStore(stores.redis, stores.keys, RedisClock())
        wait_s = 5.0
        await asyncio.to_thread(
            wait_until, lambda: used.metrics.flush_failures, what="it failed", seconds=wait_s
        )
        assert _uses(settings) == 0
        lease = Lease(store, "flush", ttl_ms=FLUSH_LEASE_MS)
        keyed = Flusher(stores.keys, JournalStream(stores.redis, stores.keys), sealed, lease)
        flushing = asyncio.create_task(keyed.run())
        await asyncio.to_thread(
            wait_until, lambda: _uses(settings) == TRACKS, what="the other flushes", seconds=wait_s
        )
        for running in (keyed, used.flusher):
            running.stop()
        await asyncio.gather(flushing, keyless)


async def test_poison_is_set_aside_and_counts_as_drift(
    used: openings.UseCases, stores: openings.Stores, settings: Settings, redis: "Redis"
) -> None:
    """A message that is no entry stops nobody else's history, and `verify` does not forget it."""
    stream = stores.keys.journal(stores.keys.partition_of("ann"))
    await redis.xadd(stream, {"0": "nonsense with four words", b"\xff": "x", "n": "1"})
    await used.meter.track(Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP))
    await used.flusher.flush_once()
    assert _uses(settings) == TRACKS + 1
    assert stores.ledger.poison_count() == 1
    proof = await _proof(settings)
    assert proof.differences_count == 1
    assert "set aside" in proof.differences[0]


async def test_an_entry_that_sql_refuses_is_set_aside(
    used: openings.UseCases, stores: openings.Stores, settings: Settings, redis: "Redis"
) -> None:
    """An entry that reads well but that no database can store is set aside alone; what is around it is kept."""
    stream = stores.keys.journal(stores.keys.partition_of("ann"))
    call = msgspec.json.encode(Call(verb="track", op_id="x", catalog_version=2**70))
    await redis.xadd(stream, {"c": "eve", "u": "u", "n": "1", "k0": call, "0": "use"})
    await used.meter.track(Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP))
    await used.flusher.flush_once()
    assert _uses(settings) == TRACKS + 1
    assert stores.ledger.poison_count() == 1


async def test_a_flush_costs_as_many_trips_and_statements_for_many_partitions_as_for_one(
    used: openings.UseCases, stores: openings.Stores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a flush of little costs is its trips and statements: they do not grow with the partitions."""
    trips: list[list[str]] = []
    sent = Pipeline.execute

    async def told(pipeline: Any, raise_on_error: bool = True) -> Any:
        trips.append([args[0] for args, _ in pipeline.command_stack])
        return await sent(pipeline, raise_on_error)

    monkeypatch.setattr(Pipeline, "execute", told)
    engine = stores.ledger._database._engine
    of_flush = []
    for partitions in (1, 8):
        await used.flusher.flush_once()
        for customer_id in _one_in_each(stores)[:partitions]:
            await _track(used, customer_id)
        statements: list[str] = []

        def seen(_connection: Any, _cursor: Any, text: str, *_: Any, of: list[str] = statements) -> None:
            of.append(text)

        before = (await stores.redis.info("commandstats"))["cmdstat_xrange"]["calls"]
        trips.clear()
        event.listen(engine, "before_cursor_execute", seen)
        assert await used.flusher.flush_once() >= partitions
        event.remove(engine, "before_cursor_execute", seen)
        after = (await stores.redis.info("commandstats"))["cmdstat_xrange"]["calls"]
        assert after - before == 1 + len(stores.keys.partitions), "nothing is read outside of the one trip"
        assert [trip[0] for trip in trips] == ["XRANGE", "XTRIM"]
        assert len(trips[1]) == partitions
        of_flush.append([text for text in statements if "listed" not in text and "document" not in text])
    assert of_flush[0] == of_flush[1]
    assert sum(text.startswith("UPDATE stream_positions") for text in of_flush[1]) == 1
    assert (await _proof(settings)).holds


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_what_goes_to_sql_goes_behind_calls_unless_there_is_much(
    used: openings.UseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that gives way for good would fall behind for good on a busy machine, with all of it in Redis."""
    pauses: list[int] = []
    seen: list[int] = []
    append, pause = used.flusher._append, flusher._pause

    def noted_pause() -> None:
        pauses.append(os.nice(0))
        pause()

    def noted(batches: Any) -> None:
        seen.append(os.nice(0))
        append(batches)

    monkeypatch.setattr(flusher, "_pause", noted_pause)
    monkeypatch.setattr(used.flusher, "_append", noted)
    await used.flusher.flush_once()
    behind = min(os.nice(0) + flusher.NICENESS, 19)
    assert seen == [behind]
    assert set(pauses) == {behind}
    del pauses[:]
    monkeypatch.setattr(flusher, "BATCH_ENTRIES", 1)
    for _ in range(2):
        await used.meter.track(Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP))
    await used.flusher.flush_once()
    assert seen == [behind, os.nice(0)]
    assert pauses == []


async def test_a_partition_that_cannot_be_read_keeps_no_other_from_sql(
    used: openings.UseCases, stores: openings.Stores, settings: Settings
) -> None:
    """What Redis refuses of one partition is told, and tried again from the same place; the others go on."""
    customers = _one_in_each(stores)
    await used.flusher.flush_once()
    for customer_id in customers:
        await _track(used, customer_id)
    journal = stores.keys.journal(stores.keys.partition_of(customers[3]))
    await stores.redis.rename(journal, journal + "-away")
    await stores.redis.set(journal, "no stream")
    for _ in range(2):
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await used.flusher.flush_once()
        assert _uses(settings) == TRACKS + len(customers) - 1
    await stores.redis.rename(journal + "-away", journal)
    assert await used.flusher.flush_once() == 2, "the customer, who was made meanwhile, and the track"
    assert _uses(settings) == TRACKS + len(customers)
    assert (await _proof(settings)).holds


async def test_poison_in_one_of_many_partitions_costs_no_other_an_entry(
    used: openings.UseCases, stores: openings.Stores, settings: Settings
) -> None:
    """What is no entry, and what SQL refuses, in a flush of all partitions is set aside alone, once."""
    customers = _one_in_each(stores)
    call = msgspec.json.encode(Call(verb="track", op_id="x", catalog_version=2**70))
    for customer_id in customers:
        await _track(used, customer_id)
    for customer_id, fields in (
        (customers[0], {"0": "nonsense"}),
        (customers[5], {"c": "eve", "u": "u", "n": "1", "k0": call, "0": "use"}),
    ):
        await stores.redis.xadd(stores.keys.journal(stores.keys.partition_of(customer_id)), fields)  # type: ignore[arg-type]
    for customer_id in customers:
        await _track(used, customer_id)
    await used.flusher.flush_once()
    assert await used.flusher.flush_once() == 0
    assert _uses(settings) == TRACKS + 2 * len(customers)
    assert stores.ledger.poison_count() == 2
    assert (await stores.redis.xlen(stores.keys.journal(stores.keys.partition_of(customers[5])))) == 0


def _one_in_each(stores: openings.Stores) -> list[str]:
    """A customer of each partition."""
    found: dict[str, str] = {}
    number = 0
    while len(found) < len(stores.keys.partitions):
        found.setdefault(stores.keys.partition_of(f"c{number}"), f"c{number}")
        number += 1
    return list(found.values())


async def _track(cases: openings.UseCases, customer_id: str) -> None:
    await cases.customers.get_or_create(customer_id, Profile())
    await cases.meter.track(Usage("track", customer_id, "basic_messages", None, NANOS, Mode.CAP))


async def _proof(settings: Settings) -> Proof:
    async with operations.open_verifier(settings) as verifier:
        return await verifier.verify()


def _uses(settings: Settings) -> int:
    connection = sqlite3.connect(settings.data_dir / "ledger.db")
    count: int = connection.execute("SELECT count(*) FROM journal_items WHERE kind = 'use'").fetchone()[0]
    connection.close()
    return count
