"""Retention: what is old is gone from SQL, and every balance is what it was, proven, and filled from what is left."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from redis.asyncio import Redis

from creditgate import openings, operations
from creditgate.core.amounts import NANOS
from creditgate.core.customers import Record
from creditgate.core.decisions import Mode
from creditgate.engine import demo, prune
from creditgate.engine.customers import Profile
from creditgate.engine.meter import Usage
from creditgate.engine.verify import Proof
from creditgate.errors import StartupError
from creditgate.ledger import pruning
from creditgate.ledger.database import Database
from creditgate.ledger.pruning import NotProven
from creditgate.settings import Environment, Settings

CUSTOMERS = [f"customer {number}" for number in range(6)]
TRACKS = 5


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done a moment ago may go, a few items at a time."""
    monkeypatch.setattr(prune, "RETAINED_MS", 0)
    monkeypatch.setattr(pruning, "ITEMS_PER_STEP", 7)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, valkey_socket: str, redis: "Redis") -> Settings:
    """Settings of a sidecar on the empty Valkey, and on each database."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgresql").empty()
    return Settings(data_dir=tmp_path, redis=f"unix://{valkey_socket}", database=url)


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
        await asyncio.sleep(0.1)  # what was used in the millisecond of the prune would stay
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
    # What was used after the last prune, and in its millisecond.
    left = len(page.events) - TRACKS * len(CUSTOMERS)
    assert 0 <= left <= 2 * len(CUSTOMERS)
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


async def test_what_does_not_add_up_stays(
    used: openings.UseCases, stores: openings.Stores, database: Database
) -> None:
    """An edited row is evidence: the prune ends with its customer's name, and the row is still there."""
    count = _usage_count(database)
    with database.writing() as connection:
        connection.execute(
            sqlalchemy.text(
                "UPDATE journal_items SET delta_whole = -3"
                " WHERE customer_id = 'customer 3' AND kind = 'use' AND sequence = 4"
            )
        )
    with pytest.raises(NotProven, match="customer 3"):
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
