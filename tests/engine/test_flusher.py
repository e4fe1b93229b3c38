"""The way of an entry to SQL: exactly once, whatever happens on the way."""

import asyncio
import sqlite3
from contextlib import closing

import msgspec
import pytest
from redis.asyncio import Redis

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

    def refuse(*_: object) -> int:
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


async def _proof(settings: Settings) -> Proof:
    async with operations.open_verifier(settings) as verifier:
        return await verifier.verify()


def _uses(settings: Settings) -> int:
    connection = sqlite3.connect(settings.data_dir / "ledger.db")
    count: int = connection.execute("SELECT count(*) FROM journal_items WHERE kind = 'use'").fetchone()[0]
    connection.close()
    return count
