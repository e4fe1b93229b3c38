"""The catalog between two sidecars: what one made, the other answers with."""

import asyncio
from contextlib import suppress

import pytest

from creditgate import openings
from creditgate.balances.clock import RedisClock
from creditgate.balances.connection import CALL_WINDOW_MS
from creditgate.balances.stream import JournalStream
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import CreditCost, Feature, FeatureType
from creditgate.core.controls import SpendLimit
from creditgate.core.customers import CustomerChanges
from creditgate.engine import workers
from creditgate.engine.customers import Profile
from creditgate.engine.keys import CallerKey
from creditgate.errors import Conflict, NotFound
from creditgate.settings import Settings
from tests.engine.fault_proxy import FaultProxy


async def test_a_feature_made_on_one_is_usable_on_the_other(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings
) -> None:
    """A worker that does not know a feature reads the catalog again before it says so."""
    assert settings.redis is not None
    async with openings.open_use_cases(settings, settings.redis, stores) as other:
        await cases.catalogs.create_feature(Feature("images", "Images", FeatureType.METERED, True))
        assert (await other.catalogs.find_feature("images")).name == "Images"
        with pytest.raises(NotFound):
            await other.catalogs.find_feature("videos")


async def test_a_limit_on_a_feature_that_was_made_on_the_other(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings
) -> None:
    """A customer's limits may name a feature that is a moment old, and then it is never erased."""
    assert settings.redis is not None
    await cases.customers.get_or_create("ann", Profile())
    async with openings.open_use_cases(settings, settings.redis, stores) as other:
        await cases.catalogs.create_feature(Feature("images", "Images", FeatureType.METERED, True))
        await other.customers.update("ann", _limiting("images"))
        with pytest.raises(Conflict) as refused:
            await cases.catalogs.delete_feature("images")
        assert refused.value.code == "feature_in_use"
        with pytest.raises(NotFound):
            await other.customers.update("ann", _limiting("videos"))
    customer = (await cases.customers.get("ann")).customer
    assert customer.controls.feature_ids == {"images"}


async def test_a_redis_that_is_slow_for_a_moment_keeps_no_worker_from_starting(
    settings: Settings, stores: openings.Stores, proxy: FaultProxy
) -> None:
    """A worker announces itself before it answers; that reply came after the window of a call, once."""
    async with openings.open_use_cases(settings, proxy.url, stores) as cases:
        proxy.hold_back(b":workers", CALL_WINDOW_MS / 1000 + 0.1)
        async with cases.catalogs.following():
            assert await stores.redis.hlen(stores.keys.workers()) == 1
    assert proxy.faults == 1


async def test_two_writers_lose_nothing(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings
) -> None:
    """Features made through two sidecars at once are all there afterwards."""
    assert settings.redis is not None
    async with openings.open_use_cases(settings, settings.redis, stores) as other:
        features = [Feature(f"f{n}", f"F{n}", FeatureType.METERED, True) for n in range(6)]
        await asyncio.gather(
            *((cases, other)[n % 2].catalogs.create_feature(feature) for n, feature in enumerate(features))
        )
        catalog = await other.catalogs.refresh()
        assert {feature.id for feature in features} <= catalog.features.keys()


async def test_a_repeated_key_makes_one_feature(cases: openings.UseCases) -> None:
    """A create that is repeated with its key is answered as before; without it, the id is taken."""
    feature = Feature(
        "points",
        "Points",
        FeatureType.CREDIT_SYSTEM,
        True,
        credit_schema=(CreditCost("basic_messages", NANOS),),
    )
    key = CallerKey("features.create:header", "k", "aa")
    assert not await cases.catalogs.create_feature(feature, key)
    assert await cases.catalogs.create_feature(feature, key)
    with pytest.raises(Conflict):
        await cases.catalogs.create_feature(feature)


def _limiting(feature_id: str) -> CustomerChanges:
    return CustomerChanges(controls={"spend_limits": (SpendLimit(feature_id, NANOS),)})


async def test_a_sidecar_stops_though_a_cancellation_is_lost(
    cases: openings.UseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM ends the sidecar even if redis-py swallows the cancellation, as it may before Python 3.12."""
    waiting, lost = asyncio.Event(), asyncio.Event()

    async def lose_a_cancellation(*_: object, **__: object) -> None:
        waiting.set()
        try:
            await asyncio.sleep(0 if lost.is_set() else 60)
        except asyncio.CancelledError:
            lost.set()

    monkeypatch.setattr(JournalStream, "wait", lose_a_cancellation)
    async with asyncio.timeout(10) as deadline, cases.catalogs.following():
        await waiting.wait()
    assert lost.is_set()
    assert not deadline.expired()


async def test_a_silent_worker_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over when it is over, also where what asks Redis swallows the cancellation that says so."""
    monkeypatch.setattr(workers, "SEEN_TIMEOUT_S", 0.1)

    class Swallowing:
        async def workers(self) -> dict[str, tuple[int, int]]:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.5)
            return {"silent": (1, 2**60)}

        async def forget_workers(self, gone: object) -> None:
            raise AssertionError(gone)

    waiting = workers.Workers(Swallowing(), RedisClock()).wait_for(2)  # type: ignore[arg-type]
    await asyncio.wait_for(waiting, 20)
