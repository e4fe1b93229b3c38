"""Another number of partitions: every answer is as before, and the books go on."""

import msgspec
import pytest
from redis.asyncio import Redis

from creditgate import openings, operations
from creditgate.core.amounts import NANOS
from creditgate.core.customers import Record
from creditgate.core.decisions import Mode
from creditgate.engine.customers import Profile
from creditgate.engine.drain import flushing
from creditgate.engine.usage import Usage
from creditgate.errors import StartupError, Unavailable
from creditgate.settings import Settings

CUSTOMERS = [f"customer {number}" for number in range(40)]


@pytest.mark.usefixtures("soon_alone")
@pytest.mark.parametrize("partitions", [1, 3, 64])
async def test_partitions_change_and_nothing_else(
    cases: openings.UseCases, settings: Settings, redis: "Redis", partitions: int
) -> None:
    """From 8 partitions to fewer or more: same balances, same history in the same order, verified, and usable."""
    for number, customer_id in enumerate(CUSTOMERS):
        await cases.customers.get_or_create(customer_id, Profile(name=customer_id))
        await _track(cases, customer_id, number)
        await _hold(cases, customer_id)
    before = [await cases.customers.get(customer_id) for customer_id in CUSTOMERS]
    events_before = await _events(cases)

    assert await operations.rebuild(settings, lambda _: None, partitions=partitions) == len(CUSTOMERS)

    assert settings.redis is not None
    async with (
        openings.open_stores(settings, settings.redis, make=None) as stores,
        openings.open_use_cases(settings, settings.redis, stores) as again,
    ):
        assert stores.instance.partitions == partitions
        after = [await again.customers.get(customer_id) for customer_id in CUSTOMERS]
        assert [_kept(record) for record in after] == [_kept(record) for record in before]
        assert await _events(again) == events_before
        await _track(again, CUSTOMERS[7], 5)
        for customer_id in CUSTOMERS:
            await again.holds.finalize(f"lock of {customer_id}", NANOS)
        await again.flusher.flush_once()
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences
    assert proof.customers == len(CUSTOMERS)


@pytest.mark.usefixtures("soon_alone")
async def test_an_interrupted_change_starts_nothing_and_can_go_on(
    cases: openings.UseCases, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after SQL was moved and before Redis was emptied: no sidecar starts, the same command completes it."""
    await cases.customers.get_or_create("ann", Profile())
    await _track(cases, "ann", 2)

    async def crash(*_: object) -> None:
        raise ConnectionError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("creditgate.engine.rebuild._empty", crash)
        with pytest.raises(Unavailable):
            await operations.rebuild(settings, lambda _: None, partitions=3)
    assert settings.redis is not None
    async with openings.open_stores(settings, settings.redis, make=None) as stores:
        with pytest.raises(StartupError, match="two different histories"):
            async with openings.open_use_cases(settings, settings.redis, stores):
                pass
    assert await operations.rebuild(settings, lambda _: None, partitions=3) == 1
    async with operations.open_verifier(settings) as verifier:
        assert (await verifier.verify()).holds


async def test_a_working_sidecar_forbids_it(cases: openings.UseCases, settings: Settings) -> None:
    """While somebody flushes, the partitions stay as they are."""
    async with flushing(cases.flusher):
        with pytest.raises(StartupError, match="stop it first"):
            await operations.rebuild(settings, lambda _: None, partitions=3)


@pytest.mark.usefixtures("soon_alone")
async def test_one_that_was_killed_a_moment_ago_does_not(
    cases: openings.UseCases, settings: Settings
) -> None:
    """An operator who kills a sidecar need not know that its lease lasts some seconds more."""
    assert await cases.flusher._lease.hold()
    await cases.customers.get_or_create("ann", Profile())
    assert await operations.rebuild(settings, lambda _: None, partitions=3) == 1


def _kept(record: Record) -> bytes:
    kept = (record.customer, record.terms, record.balances, record.holds, record.sequence, record.uid)
    return msgspec.json.encode(kept)


async def _events(cases: openings.UseCases) -> list[tuple[object, ...]]:
    page = await cases.history.events(
        customer_id=None, feature_ids=(), start=None, end=None, limit=100, cursor=""
    )
    return sorted((event.timestamp, event.customer_id, event.value_nanos) for event in page.events)


async def _track(cases: openings.UseCases, customer_id: str, units: int) -> None:
    usage = Usage("track", customer_id, "basic_messages", None, units * NANOS, Mode.CAP)
    await cases.meter.track(usage)


async def _hold(cases: openings.UseCases, customer_id: str) -> None:
    usage = Usage("hold", customer_id, "basic_messages", None, 3 * NANOS, Mode.REJECT)
    await cases.holds.hold(usage, hold_id=f"lock of {customer_id}", expires_at=None)
