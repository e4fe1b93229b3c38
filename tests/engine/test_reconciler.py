"""Redis comes back older than SQL, and is brought up to it before anybody is answered."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from creditgate import openings, operations
from creditgate.balances.clock import RedisClock
from creditgate.balances.connection import server_id_of
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import Plan
from creditgate.core.decisions import Mode
from creditgate.core.journal import StreamId
from creditgate.engine import reconciler
from creditgate.engine.access import digest_of
from creditgate.engine.customers import Profile
from creditgate.engine.keys import CallerKey
from creditgate.engine.usage import Usage
from creditgate.errors import StartupError
from creditgate.ledger.appending import Batch
from creditgate.settings import Settings

KEY = CallerKey("track:header", "k", "abcd")


async def test_an_empty_redis_is_filled_from_sql(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings, redis: "Redis"
) -> None:
    """After FLUSHALL every answer is as before: balances, catalog, keys of callers, API keys, settings."""
    secret = await cases.access.first_key("test", 1)
    assert secret is not None
    await cases.customers.get_or_create("ann", Profile(name="Ann"))
    await _track(cases, "ann", KEY)
    before = await cases.customers.get("ann")
    await cases.flusher.flush_once()
    await redis.flushall()

    async with _again(settings) as (stores_again, cases_again):
        after = await cases_again.customers.get("ann")
        assert (after.customer, after.terms, after.balances) == (
            before.customer,
            before.terms,
            before.balances,
        )
        assert after.sequence == before.sequence
        assert stores_again.instance == stores.instance
        assert cases_again.catalogs.current.version == cases.catalogs.current.version
        assert await cases_again.access.find(digest_of(secret)) == "admin"
        replay = await cases_again.meter.track(_usage("ann", KEY))
        assert replay.is_replay
        await _track(cases_again, "ann", None)
        assert await cases_again.flusher.flush_once() == 1
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences


async def test_what_redis_lost_is_replayed_and_what_it_has_stays(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings, redis: "Redis"
) -> None:
    """A Redis that lost its last entries gets them back from SQL; customers it did not lose are left alone."""
    await cases.customers.get_or_create("ann", Profile())
    await cases.customers.get_or_create("bob", Profile())
    await cases.flusher.flush_once()
    kept = {key: await redis.dump(key) or b"" for key in await redis.keys("*")}
    await _track(cases, "ann", None)
    await cases.flusher.flush_once()
    for key in await redis.keys("*"):  # as it was before the track
        await redis.delete(key)
    for key, value in kept.items():
        await redis.restore(key, 0, value)

    async with _again(settings) as (_, cases_again):
        ann = await cases_again.customers.get("ann")
        bob = await cases_again.customers.get("bob")
        assert sum(ann.balances.values()) == 5 * NANOS - NANOS // 100
        assert sum(bob.balances.values()) == 5 * NANOS
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences


async def test_flushall_under_a_running_sidecar_is_noticed(
    cases: openings.UseCases, stores: openings.Stores, redis: "Redis"
) -> None:
    """Somebody empties Redis while we run: within a tick it is filled again, and no customer is unknown."""
    await cases.customers.get_or_create("ann", Profile())
    await _track(cases, "ann", None)
    await cases.flusher.flush_once()
    await redis.flushall()
    await cases.reconciler.watch()
    assert sum((await cases.customers.get("ann")).balances.values()) == 5 * NANOS - NANOS // 100
    await _track(cases, "ann", None)
    assert await cases.flusher.flush_once() == 1


async def test_calls_before_the_tick_after_flushall(
    cases: openings.UseCases, settings: Settings, redis: "Redis"
) -> None:
    """Redis was emptied a moment ago: whatever call comes first puts it back, before anything is written."""
    await cases.customers.get_or_create("ann", Profile())
    await _track(cases, "ann", None)
    await cases.flusher.flush_once()
    await redis.flushall()
    await asyncio.gather(
        *(cases.customers.get_or_create("bob", Profile()) for _ in range(4)),
        *(_track(cases, "ann", None) for _ in range(8)),
    )
    await cases.flusher.flush_once()
    assert sum((await cases.customers.get("bob")).balances.values()) == 5 * NANOS
    assert sum((await cases.customers.get("ann")).balances.values()) == 5 * NANOS - 9 * NANOS // 100
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences


async def test_a_change_of_the_catalog_before_the_tick_after_flushall(
    cases: openings.UseCases, redis: "Redis"
) -> None:
    """A catalog is not begun anew, with one plan, because Redis was emptied a moment ago."""
    await cases.flusher.flush_once()
    await redis.flushall()
    await cases.catalogs.create_plan(Plan("gift", "Gift", 1))
    assert {"free", "pro", "gift"} <= cases.catalogs.current.plans.keys()


async def test_callers_and_features_are_known_before_the_tick_after_flushall(
    cases: openings.UseCases, redis: "Redis"
) -> None:
    """What looks for changes meanwhile finds nothing, and must not take that for the truth."""
    secret = await cases.access.first_key("test", cases.clock.now_ms())
    assert secret is not None
    version = (await cases.catalogs.refresh()).version
    await redis.flushall()
    await cases.access.follow()
    assert await cases.access.find(digest_of(secret)) == "admin"
    assert (await cases.catalogs.refresh()).version == version > 0
    assert "basic_messages" in cases.catalogs.current.features


async def test_a_customer_is_not_unknown_before_the_tick(cases: openings.UseCases, redis: "Redis") -> None:
    """Neither a check nor a read nor a track says that nobody is there, because Redis was emptied a moment ago."""
    await cases.customers.get_or_create("ann", Profile())
    asks: list[Callable[[], Awaitable[object]]] = [
        lambda: cases.customers.get("ann"),
        lambda: cases.meter.check(Usage("check", "ann", "basic_messages", None, NANOS, Mode.REJECT)),
        lambda: cases.meter.track(_usage("ann", None)),
    ]
    for ask in asks:
        await cases.flusher.flush_once()
        await redis.flushall()
        await ask()


@pytest.mark.parametrize("is_empty", [True, False], ids=["emptied", "restarted"])
async def test_a_flush_in_flight_while_redis_loses_its_data(
    cases: openings.UseCases,
    stores: openings.Stores,
    settings: Settings,
    redis: "Redis",
    monkeypatch: pytest.MonkeyPatch,
    is_empty: bool,
) -> None:
    """What a flusher read from a server that then lost it does not come into SQL behind the back of who put it back."""
    await cases.customers.get_or_create("ann", Profile())
    await cases.flusher.flush_once()
    kept = {key: await redis.dump(key) or b"" for key in await redis.keys("*")}
    await _track(cases, "ann", None)
    flush = cases.flusher._append

    def lose(batches: Sequence[Batch]) -> None:
        asyncio.run_coroutine_threadsafe(lost(), loop).result()
        flush(batches)

    async def lost() -> None:
        await redis.flushall()
        if not is_empty:
            for key, value in kept.items():
                await redis.restore(key, 0, value)
            monkeypatch.setattr(reconciler, "server_ids", _another_run)
            cases.reconciler._guard.reconciled = frozenset()
        await cases.reconciler.watch()
        cases.reconciler._guard.reconciled = frozenset(
            [await server_id_of(redis)]
        )  # it is the same one after all

    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patched:
        patched.setattr(cases.flusher, "_append", lose)
        assert await cases.flusher.flush_once() == 0
    assert sum((await cases.customers.get("ann")).balances.values()) == 5 * NANOS
    await _track(cases, "ann", None)
    assert await cases.flusher.flush_once() == 1
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences


async def test_a_new_database_is_not_taken_for_the_history_of_what_redis_has(
    cases: openings.UseCases, settings: Settings, tmp_path: Path
) -> None:
    """Who forgets --database would get a sidecar that works, and a history that begins in the middle."""
    await cases.customers.get_or_create("ann", Profile())
    await cases.flusher.flush_once()
    forgetful = msgspec.structs.replace(settings, data_dir=tmp_path / "new")
    with pytest.raises(StartupError, match="name that one with --database"):
        async with _again(forgetful):
            pass


async def test_a_server_whose_clock_is_behind(
    cases: openings.UseCases, stores: openings.Stores, redis: "Redis"
) -> None:
    """What is put back goes on after SQL's position, though the server's clock is not there yet."""
    await cases.customers.get_or_create("ann", Profile())
    ahead = StreamId(cases.clock.now_ms() + 3_600_000, 0)
    await JournalStream(redis, stores.keys).advance(stores.keys.partition_of("ann"), ahead)
    await _track(cases, "ann", None)
    await cases.flusher.flush_once()
    await redis.flushall()
    await cases.reconciler.watch()
    await _track(cases, "ann", None)
    assert await cases.flusher.flush_once() == 1


async def test_a_second_sidecar_disturbs_no_flush(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings
) -> None:
    """A server that was reconciled keeps its place in SQL: who comes later finds nothing to put right."""
    await cases.customers.get_or_create("ann", Profile())
    before = stores.ledger.positions()
    async with _again(settings):
        assert stores.ledger.positions() == before


async def _another_run(_: object) -> dict[str, str]:
    return {"": "another"}


async def test_a_rebuild_half_way_under_a_running_sidecar_is_noticed(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings, redis: "Redis"
) -> None:
    """Redis was emptied and another process has put back a part of it: the sidecar puts back the rest at once."""
    names = [f"customer {number}" for number in range(20)]
    for name in names:
        await cases.customers.get_or_create(name, Profile())
    await cases.flusher.flush_once()
    first = stores.keys.partitions[0]
    kept = {key: await redis.dump(key) or b"" for key in await redis.keys(f"cg:{{{first}}}:*")}
    system = {key: await redis.dump(key) or b"" for key in await redis.keys("cg:{sys}:*")}
    await redis.flushall()
    for key, value in (kept | system).items():
        await redis.restore(key, 0, value)
    await cases.reconciler.watch()
    for name in names:
        await cases.customers.get(name)


async def test_two_sidecars_that_find_redis_empty_both_start(
    cases: openings.UseCases, settings: Settings, redis: "Redis"
) -> None:
    """After Redis lost everything, all sidecars put it back at the same time, and none stumbles over another."""
    for number in range(20):
        await cases.customers.get_or_create(f"customer {number}", Profile())
    await cases.flusher.flush_once()
    await redis.flushall()
    sidecars = [_again(settings) for _ in range(4)]
    for _, other in await asyncio.gather(*(sidecar.__aenter__() for sidecar in sidecars)):
        await other.customers.get("customer 7")
    for sidecar in sidecars:
        await sidecar.__aexit__(None, None, None)
    async with operations.open_verifier(settings) as verifier:
        assert (await verifier.verify()).holds


async def test_two_histories_are_refused(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings, redis: "Redis"
) -> None:
    """A Redis with a journal of its own is not mixed with the SQL of another."""
    await redis.set(stores.keys.epoch("p00"), "another")
    with pytest.raises(StartupError, match="two different histories"):
        async with _again(settings):
            pass


class _again:
    """A second sidecar on the same data."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __aenter__(self) -> tuple[openings.Stores, openings.UseCases]:
        assert self._settings.redis is not None
        self._stores = openings.open_stores(self._settings, self._settings.redis, make=None)
        stores = await self._stores.__aenter__()
        self._cases = openings.open_use_cases(self._settings, self._settings.redis, stores)
        try:
            return stores, await self._cases.__aenter__()
        except BaseException:
            await self._stores.__aexit__(None, None, None)
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._cases.__aexit__(None, None, None)
        await self._stores.__aexit__(None, None, None)


def _usage(customer_id: str, key: CallerKey | None) -> Usage:
    return Usage("track", customer_id, "basic_messages", None, NANOS, Mode.CAP, key=key)


async def _track(cases: openings.UseCases, customer_id: str, key: CallerKey | None) -> None:
    decision = await cases.meter.track(_usage(customer_id, key))
    assert decision.moved
    assert not decision.is_replay


async def test_documents_that_several_put_back_at_once(stores: openings.Stores) -> None:
    """However many sidecars restore the catalog at the same moment, each finds it restored, and none gives up."""
    store = BalanceStore(stores.redis, stores.keys, RedisClock())
    await asyncio.gather(*(store.restore_documents("other", 5, {"-": "{}"}) for _ in range(20)))
    assert await store.documents("other") == (5, {"-": b"{}"})
