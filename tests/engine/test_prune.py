"""Retention: what is old is gone from SQL, and every balance is what it was, proven, and filled from what is left."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy
from msgspec.structs import replace
from redis.asyncio import Redis

from creditgate import background, openings, operations
from creditgate.core.amounts import NANOS
from creditgate.core.customers import Record
from creditgate.core.decisions import Mode
from creditgate.engine import demo, drain, prune, retention
from creditgate.engine.customers import Profile
from creditgate.engine.usage import Usage
from creditgate.engine.verify import Proof
from creditgate.errors import StartupError
from creditgate.ledger import pruning, seals
from creditgate.ledger.database import Database
from creditgate.ledger.pruning import NotProven
from creditgate.ledger.seals import SealBroken
from creditgate.settings import Environment, Settings
from tests.sidecar_process import wait_until

CUSTOMERS = [f"customer {number}" for number in range(6)]
TRACKS = 5
ITEMS_PER_STEP = 7

# A prune that stops for good in its third step, when that has removed what it removes and has not committed.
STOPS_HALF_WAY = f"""
import time
from creditgate.engine import prune
from creditgate.ledger import pruning
prune.RETAINED_MS, pruning.ITEMS_PER_STEP = 0, {ITEMS_PER_STEP}
steps, remove = [], pruning._remove
def stopping(*arguments):
    removed = remove(*arguments)
    steps.append(removed)
    if len(steps) == 3:
        print(sum(steps[:2]), flush=True)
        time.sleep(60)
    return removed
pruning._remove = stopping
from creditgate.cli import main
main()
"""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done a moment ago may go, a few items at a time."""
    monkeypatch.setattr(prune, "RETAINED_MS", 0)
    monkeypatch.setattr(pruning, "ITEMS_PER_STEP", ITEMS_PER_STEP)
    monkeypatch.setattr(drain, "QUIET_S", 0.1)


@pytest.fixture(params=["sqlite", "postgresql, sealed"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, valkey_socket: str, redis: "Redis") -> Settings:
    """Settings of a sidecar on the empty Valkey, and on each database; on one of them the journal is sealed."""
    redis_url = f"unix://{valkey_socket}"
    if request.param == "sqlite":
        return Settings(data_dir=tmp_path, redis=redis_url)
    key_file = tmp_path / "seal_key"
    key_file.touch(0o600)
    key_file.write_text("k" * 64)
    url = request.getfixturevalue("postgresql").empty()
    return Settings(data_dir=tmp_path, redis=redis_url, database=url, seal_key_file=key_file)


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[openings.Stores]:
    """Redis and SQL."""
    assert settings.redis is not None
    async with openings.open_stores(settings, settings.redis, make=(Environment.TEST, 8)) as opened:
        yield opened


@pytest.fixture
async def used(settings: Settings, stores: openings.Stores) -> AsyncIterator[openings.UseCases]:
    """Customers with tracks and an open hold, one of them deleted and made again; all of it in SQL."""
    assert settings.redis is not None
    async with openings.open_use_cases(settings, settings.redis, stores) as cases:
        await demo.load(cases.catalogs, cases.clock.now_ms())
        for customer_id in CUSTOMERS:
            await cases.customers.get_or_create(customer_id, Profile())
            await _track(cases, customer_id)
        held = Usage("hold", "customer 1", "basic_messages", None, 3 * NANOS, Mode.REJECT)
        await cases.holds.hold(held, hold_id="held", expires_at=None)
        await cases.customers.delete("customer 0")
        await cases.customers.get_or_create("customer 0", Profile())
        await _track(cases, "customer 0")
        await cases.flusher.flush_once()
        yield cases


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """What is really in the tables."""
    database = Database(settings.database_url)
    yield database
    database.close()


async def test_a_pruned_history_still_proves_and_rebuilds(
    used: openings.UseCases, stores: openings.Stores, settings: Settings, database: Database
) -> None:
    """Pruned twice, with usage in between and a hold open throughout: verify finds nothing, and Redis made anew from
    what is left has every balance to the last nano."""
    begins_at = 0
    for _ in range(2):
        entries = (await _proof(settings)).entries
        count = _usage_count(database)
        counts: list[int] = []
        done = await prune.prune(stores.redis, stores.keys, stores.ledger, _now(used), counts.append)
        assert 0 < done.items < count
        assert _usage_count(database) == count - done.items
        assert counts[-1] == done.items
        assert done.begins_at > begins_at
        begins_at = done.begins_at
        proof = await _proof(settings)
        assert proof.holds, proof.differences
        assert proof.entries == entries
        for customer_id in CUSTOMERS:
            await _track(used, customer_id)
        await used.flusher.flush_once()
    before = [await used.customers.get(customer_id) for customer_id in CUSTOMERS]
    page = await used.history.events(customer_id=None, limit=100)
    assert page.begins_at == begins_at
    # What was used after the last prune, and just before it by our estimate of Redis's clock.
    left = len(page.events) - TRACKS * len(CUSTOMERS)
    assert 0 <= left <= TRACKS * len(CUSTOMERS)
    await stores.redis.flushall()
    assert settings.redis is not None
    async with (
        openings.open_stores(settings, settings.redis, make=None) as again,
        openings.open_use_cases(settings, settings.redis, again) as filled,
    ):
        after = [await filled.customers.get(customer_id) for customer_id in CUSTOMERS]
        assert [_kept(record) for record in after] == [_kept(record) for record in before]
        statement = await filled.statements.of("customer 1")
        assert not statement.is_whole
        last = statement.lines[-TRACKS:]
        assert [line.change_nanos for line in last] == [-NANOS // 100] * TRACKS
        assert last[0].remaining_nanos - last[-1].remaining_nanos == (TRACKS - 1) * NANOS // 100
        await filled.holds.finalize("held", NANOS)
        await filled.flusher.flush_once()
    assert (await _proof(settings)).holds


async def test_a_pruned_history_can_be_moved_and_repartitioned(
    used: openings.UseCases, stores: openings.Stores, settings: Settings, tmp_path: Path
) -> None:
    """`move` and `rebuild --partitions` after a prune: every balance and hold to the last nano, and books that hold."""
    await prune.prune(stores.redis, stores.keys, stores.ledger, _now(used), lambda _: None)
    for customer_id in CUSTOMERS:
        await _track(used, customer_id)
    before = [_kept(await used.customers.get(customer_id)) for customer_id in CUSTOMERS]
    to = replace(settings, prefix="there", database=f"sqlite:///{tmp_path / 'there.db'}")
    assert (await operations.move(settings, to, _uncounted)).holds
    for moved in (to, settings):
        for partitions in (None, 3):
            await operations.rebuild(moved, lambda _: None, partitions=partitions)
            proof = await _proof(moved)
            assert proof.holds, proof.differences
            assert proof.customers == len(CUSTOMERS)
            assert await _records(moved) == before
            assert await _records(moved, prune_first=True) == before


async def test_a_killed_prune_leaves_books_that_hold(
    used: openings.UseCases, settings: Settings, database: Database
) -> None:
    """SIGKILL in the middle of a step: what was committed is gone, nothing else is, and the same prune goes on."""
    count, before = _usage_count(database), [_kept(await used.customers.get(name)) for name in CUSTOMERS]
    assert settings.redis is not None
    words = ["prune", f"--before={datetime.fromtimestamp(_now(used) / 1000, UTC).isoformat()}"]
    words += [f"--redis={settings.redis}", f"--database={settings.database_url}"]
    words += [f"--data-dir={settings.data_dir}"]
    words += [f"--seal-key-file={settings.seal_key_file}"] if settings.seal_key_file else []
    command = [sys.executable, "-c", STOPS_HALF_WAY, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        removed = int(await asyncio.to_thread(killed.stdout.readline))
        killed.send_signal(signal.SIGKILL)
    assert removed > 0
    assert _usage_count(database) == count - removed
    proof = await _proof(settings)
    assert proof.holds, proof.differences
    done = await operations.prune(settings, _now(used), lambda _: None)
    assert done.items > 0
    assert _usage_count(database) == count - removed - done.items
    proof = await _proof(settings)
    assert proof.holds, proof.differences
    assert await _records(settings) == before


async def test_a_prune_beside_a_flusher_that_works_loses_nothing(
    used: openings.UseCases, stores: openings.Stores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While calls are flushed, pruned and verified at the same time, each is counted once, and no alarm is false."""
    monkeypatch.setattr(seals, "SEALS_PAGE", 2)
    entries = (await _proof(settings)).entries
    flushing = asyncio.create_task(used.flusher.run())
    rounds = pruned = 0
    while pruned < 10 * ITEMS_PER_STEP or rounds < 5:
        tracking = asyncio.gather(*(_track(used, customer_id) for customer_id in CUSTOMERS))
        proving = asyncio.gather(_proof(settings), _proof(settings))
        done = await prune.prune(stores.redis, stores.keys, stores.ledger, _now(used), lambda _: None)
        await tracking
        assert [proof.differences for proof in await proving] == [()] * 2
        rounds, pruned = rounds + 1, pruned + done.items
    used.flusher.stop()
    await flushing
    proof = await _proof(settings)
    assert proof.holds, proof.differences
    assert proof.entries == entries + rounds * len(CUSTOMERS) * TRACKS


async def test_what_is_too_old_is_pruned_on_a_timer(
    used: openings.UseCases,
    stores: openings.Stores,
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With an age set, the background prunes without being asked; without one it never does."""
    monkeypatch.setattr(retention, "FIRST_AFTER_S", 0.0)
    monkeypatch.setattr(retention, "EVERY_S", 0.2)  # a round that met another writer is followed by one
    monkeypatch.setattr(retention, "PAUSE_S", 0.0)
    monkeypatch.setattr(retention, "RETAINED_MS", 0)
    monkeypatch.setattr(retention, "DAY_MS", 1)
    count = _usage_count(database)
    async with background.retaining(settings, stores):
        await asyncio.sleep(0.1)
    assert _usage_count(database) == count
    async with background.retaining(replace(settings, keep_history_days=1), stores):
        await asyncio.to_thread(
            wait_until, lambda: _usage_count(database) <= count - 2 * ITEMS_PER_STEP, what="pruned"
        )
    proof = await _proof(settings)
    assert proof.holds, proof.differences


async def test_what_does_not_add_up_stays(
    used: openings.UseCases, stores: openings.Stores, database: Database
) -> None:
    """An edited row is evidence: the prune ends with its customer's name, and the row is still there."""
    await asyncio.sleep(0.005)  # what has the millisecond of the last entry is not pruned yet
    await _track(used, "customer 3")
    await used.flusher.flush_once()
    count = _usage_count(database)
    with database.writing() as connection:
        connection.execute(
            sqlalchemy.text(
                "UPDATE journal_items SET delta_whole = -3"
                " WHERE customer_id = 'customer 3' AND kind = 'use' AND sequence = 4"
            )
        )
    with pytest.raises((NotProven, SealBroken), match=r"customer 3|not those that were sealed"):
        await prune.prune(stores.redis, stores.keys, stores.ledger, _now(used), lambda _: None)
    with database.reading() as connection:
        edited = "SELECT count(*) FROM journal_items WHERE customer_id = 'customer 3' AND delta_whole = -3"
        assert connection.execute(sqlalchemy.text(edited)).scalar() == 1
    assert _usage_count(database) <= count


async def test_the_last_two_days_stay(
    used: openings.UseCases, stores: openings.Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idempotency records and attempts are looked up for a day; a prune that would take them is refused."""
    monkeypatch.undo()
    with pytest.raises(StartupError, match="two days"):
        await prune.prune(stores.redis, stores.keys, stores.ledger, _now(used), lambda _: None)


async def _track(cases: openings.UseCases, customer_id: str) -> None:
    for _ in range(TRACKS):
        await cases.meter.track(Usage("track", customer_id, "basic_messages", None, NANOS, Mode.CAP))


async def _records(settings: Settings, *, prune_first: bool = False) -> list[tuple[object, ...]]:
    """What every customer has, where the data is; with all usage pruned once more, if that is asked for."""
    assert settings.redis is not None
    async with (
        openings.open_stores(settings, settings.redis, make=None) as stores,
        openings.open_use_cases(settings, settings.redis, stores) as cases,
    ):
        if prune_first:
            await prune.prune(stores.redis, stores.keys, stores.ledger, _now(cases), lambda _: None)
        return [_kept(await cases.customers.get(customer_id)) for customer_id in CUSTOMERS]


@contextmanager
def _uncounted(_what: str) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


async def _proof(settings: Settings) -> Proof:
    async with operations.open_verifier(settings) as verifier:
        return await verifier.verify()


def _now(cases: openings.UseCases) -> int:
    return cases.clock.now_ms()


def _kept(record: Record) -> tuple[object, ...]:
    return record.uid, record.sequence, record.terms, record.balances, record.holds, record.customer


def _usage_count(database: Database) -> int:
    with database.reading() as connection:
        statement = sqlalchemy.text("SELECT count(*) FROM journal_items WHERE document_type IS NULL")
        count: int = connection.execute(statement).scalar_one()
    return count
