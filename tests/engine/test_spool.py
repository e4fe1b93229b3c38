"""Usage that could not be decided: on disk before it is answered, and taken exactly once when Redis is back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from creditgate import openings
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Decision, Mode
from creditgate.engine import demo, spool
from creditgate.engine.attempts import CLOCK_MARGIN_MS
from creditgate.engine.customers import Profile
from creditgate.engine.keys import CallerKey
from creditgate.engine.outage import OUTAGE_ENDS_S
from creditgate.engine.spool_poster import CUSTOMERS_AT_ONCE
from creditgate.engine.usage import Usage, UsageUndecided
from creditgate.settings import Settings
from tests.engine.fault_proxy import FaultProxy

TRACK = Usage("track", "ann", "premium_messages", None, NANOS, Mode.CAP)  # 0.1 of 5 credits


@pytest.fixture
async def behind(
    settings: Settings, stores: openings.Stores, proxy: FaultProxy
) -> AsyncIterator[openings.UseCases]:
    """The use cases behind the proxy, with a customer who has 5 credits."""
    async with openings.open_use_cases(settings, proxy.url, stores) as opened:
        await demo.load(opened.catalogs, opened.clock.now_ms())
        await opened.customers.get_or_create("ann", Profile())
        yield opened


async def test_one_that_took_effect_is_not_posted(
    behind: openings.UseCases, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A use whose reply and fate nobody could see is found in the journal by its op id, and dropped."""
    await behind.meter.track(TRACK)  # so that the script is loaded
    monkeypatch.setattr(behind.meter._attempts, "_fate", _unknown)
    proxy.lose_reply_to(b"track")
    await _spool(behind, TRACK)
    assert proxy.faults == 1
    monkeypatch.undo()
    assert await _remaining(behind) == 48 * NANOS // 10
    await _posted(behind)
    assert await _remaining(behind) == 48 * NANOS // 10
    assert behind.metrics.spool_posted == behind.metrics.spooled == 1


async def test_one_is_found_though_the_clock_of_redis_was_set_back(
    behind: openings.UseCases, proxy: FaultProxy
) -> None:
    """Our estimate was ahead then, and with it the moment since which the use may have taken effect."""
    await behind.meter.track(TRACK)
    behind.clock.correct(behind.clock.now_ms() + CLOCK_MARGIN_MS + 1_000)
    proxy.lose_reply_to(b"track")
    await _spool(behind, TRACK)
    assert proxy.faults == 1
    await _posted(behind)
    assert await _remaining(behind) == 48 * NANOS // 10


async def test_what_is_known_to_be_taken_is_not_spooled(
    behind: openings.UseCases, proxy: FaultProxy, redis: "Redis", stores: openings.Stores
) -> None:
    """A repeated call that nobody can answer has happened: posted when its key counts no more, it would again."""
    keyed = replace(TRACK, key=CallerKey("track:header", "aa", "f" * 32))
    await behind.meter.track(keyed)
    proxy.lose_reply_to(b"XRANGE")
    await _spool(behind, keyed)
    assert proxy.faults == 1
    await redis.delete(*stores.keys.key_buckets("ann", behind.clock.now_ms()))  # as if a day had passed
    await _posted(behind)
    assert await _remaining(behind) == 49 * NANOS // 10
    assert behind.metrics.spooled == 0


async def test_nothing_is_removed_before_it_is_posted(
    behind: openings.UseCases, proxy: FaultProxy, settings: Settings, stores: openings.Stores
) -> None:
    """Rounds while Redis is away leave the file; who comes after takes it beyond any cap, with its key, once."""
    await proxy.__aexit__()
    keyed = replace(TRACK, value_nanos=60 * NANOS, key=CallerKey("track:header", "k", "f" * 32))
    await _spool(behind, TRACK, TRACK, keyed, keyed)
    behind.spool.let_go()
    assert not await behind.spool_poster.round()
    behind.spool_poster.let_go()
    assert len(spool.unposted(behind.spool.directory)) == 1
    assert settings.redis is not None
    async with openings.open_use_cases(settings, settings.redis, stores) as after:
        await _posted(after)
        await _posted(after)
        assert await _remaining(after) == (50 - 1 - 1 - 60) * NANOS // 10
        assert (await after.meter.track(keyed)).is_replay


async def test_what_can_never_be_posted_is_set_aside(
    behind: openings.UseCases, settings: Settings, stores: openings.Stores, proxy: FaultProxy
) -> None:
    """A use of nobody, and a line that is none, are kept apart and counted; the others go on. A torn end is no use."""
    await proxy.__aexit__()
    await _spool(behind, replace(TRACK, customer_id="nobody"), TRACK)
    behind.spool.let_go()
    [path] = spool.unposted(behind.spool.directory)
    path.write_bytes(b'{"broken"}\n' + path.read_bytes() + b'{"op_id":"torn')
    assert settings.redis is not None
    async with openings.open_use_cases(settings, settings.redis, stores) as after:
        await _posted(after)
        assert (after.metrics.spool_posted, after.metrics.spool_set_aside) == (1, 2)
        assert await _remaining(after) == 49 * NANOS // 10
    aside = (behind.spool.directory / spool.ASIDE).read_bytes()
    assert aside.count(b"\n") == 2
    assert b"nobody" in aside
    assert b"torn" not in aside


async def test_a_full_spool_keeps_nothing_more(
    behind: openings.UseCases, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was kept is there; what did not fit, or the disk refused, left no trace, and was told so."""
    await proxy.__aexit__()
    monkeypatch.setattr(behind.spool, "_bytes_max", spool.FILE_BYTES_MIN + 300)
    await _spool(behind, *(TRACK for _ in range(3)))
    large = replace(TRACK, properties=msgspec.json.encode({"note": "x" * 4000}).decode())
    with pytest.raises(spool.SpoolFull, match="full"):
        await _spool(behind, large)
    monkeypatch.setattr(behind.spool, "_bytes_max", 1 << 20)
    monkeypatch.setattr("creditgate.engine.spool.os.fsync", _disk_full)
    with pytest.raises(spool.SpoolFull, match="cannot be written"):
        await _spool(behind, large)
    monkeypatch.undo()
    [path] = spool.unposted(behind.spool.directory)
    assert path.read_bytes().count(b"\n") == behind.metrics.spooled == 3


async def test_a_round_that_fails_leaves_nothing_under_way(
    behind: openings.UseCases,
    settings: Settings,
    stores: openings.Stores,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk refuses to set one aside while others are being posted: the next round posts none of these again."""
    names = [f"customer_{number}" for number in range(3 * CUSTOMERS_AT_ONCE)]
    for name in names:
        await behind.customers.get_or_create(name, Profile())
    await proxy.__aexit__()
    uses = [replace(TRACK, customer_id=name) for name in ("nobody", *names)]
    await asyncio.gather(*(_spool(behind, use) for use in uses))
    behind.spool.let_go()
    assert settings.redis is not None
    async with openings.open_use_cases(settings, settings.redis, stores) as after:
        track = after.meter.track

        async def slow(usage: Usage, **how: Any) -> Decision:
            if usage.customer_id in names:
                await asyncio.sleep(0.1)
            return await track(usage, **how)

        monkeypatch.setattr(after.meter, "track", slow)
        with monkeypatch.context() as full:
            full.setattr("creditgate.engine.spool_poster.append", _disk_full)
            assert not await after.spool_poster.round()
        await _posted(after)
        await asyncio.sleep(0.5)  # for what was under way, if it was
        balances = [(await after.customers.get(name)).balances for name in names]
    assert {sum(balance.values()) for balance in balances} == {49 * NANOS // 10}


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("bytes_in", OSError(5, "Input/output error")),
        ("_new_file", RuntimeError("can't start new thread")),
    ],
)
async def test_an_error_that_nobody_expects_ends_nothing(
    behind: openings.UseCases,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    error: Exception,
) -> None:
    """Who waits is told so, and the next use is kept."""
    await proxy.__aexit__()

    def broken(_: object) -> int:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(spool, what, broken)
        async with asyncio.timeout(5):
            with pytest.raises(spool.SpoolFull, match="cannot be written"):
                await _spool(behind, TRACK)
    async with asyncio.timeout(5):
        await _spool(behind, TRACK)


async def test_a_feature_says_what_is_allowed(
    cases: openings.UseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`allow_up_to` is for each customer and outage; an outage is over when something was decided after a while."""

    def allows(customer_id: str, nanos: int) -> bool:
        return cases.outage.allows(customer_id=customer_id, feature_id="premium_messages", nanos=nanos)

    assert not allows("ann", 1)
    await cases.catalogs.update_feature("premium_messages", {"fallback_nanos": None})
    assert allows("ann", 10**15)
    await cases.catalogs.update_feature("premium_messages", {"fallback_nanos": 5 * NANOS})
    assert [allows("ann", 2 * NANOS) for _ in range(3)] == [True, True, False]
    assert allows("ann", NANOS)
    assert not allows("ann", 1)
    assert allows("bob", NANOS)
    later = cases.outage._last_at + OUTAGE_ENDS_S + 1
    monkeypatch.setattr("creditgate.engine.outage.monotonic", lambda: later)
    assert not allows("ann", 1)  # nothing was decided meanwhile
    await cases.customers.get_or_create("ann", Profile())
    await cases.meter.check(Usage("check", "ann", "premium_messages", None, NANOS, Mode.REJECT))
    monkeypatch.setattr("creditgate.engine.outage.monotonic", lambda: later + OUTAGE_ENDS_S + 1)
    assert allows("ann", NANOS)


def _disk_full(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def _unknown(*_: object) -> None:
    raise TimeoutError


async def _spool(cases: openings.UseCases, *usages: Usage) -> None:
    for usage in usages:
        with pytest.raises(UsageUndecided) as failure:
            await cases.meter.track(usage)
        assert await cases.outage.keeps(failure.value)


async def _posted(cases: openings.UseCases) -> None:
    """Return when all that was spooled is posted."""
    cases.spool.let_go()
    async with asyncio.timeout(10):
        while not await cases.spool_poster.round():  # noqa: ASYNC110 - each is tried
            await asyncio.sleep(0.1)
    assert not spool.unposted(cases.spool.directory)


async def _remaining(cases: openings.UseCases) -> int:
    record = await cases.customers.get("ann")
    return sum(record.balances.values())
