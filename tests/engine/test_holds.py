"""Holds from the claim of an id to the end, whoever ends them: a caller, the clock, or a deletion."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from creditgate import openings, operations
from creditgate.balances.holds import POINTER_TTL_MS
from creditgate.core.amounts import AMOUNT_MAX, NANOS, format_amount
from creditgate.core.catalog import CreditCost, Feature, FeatureType, Interval, Recurrence
from creditgate.core.decisions import Decision, Mode
from creditgate.core.holds import HOLD_LIMITS
from creditgate.engine import demo
from creditgate.engine.claims import CLAIM_MS
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.keys import CallerKey
from creditgate.engine.usage import Usage
from creditgate.errors import Conflict, InvalidInputs, InvalidRequest, KeyReused, NotFound, Undecided
from creditgate.settings import Settings
from tests.engine.fault_proxy import FaultProxy
from tests.engine.instants import SOON_MS, passed

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
KEY = CallerKey("finalize:header", "k", "abcd")


@pytest.fixture
async def ann(cases: openings.UseCases) -> openings.UseCases:
    """A customer with 5 monthly credits, 100 messages an hour and 10 that never reset."""
    await cases.customers.get_or_create("ann", Profile())
    record = await cases.customers.get("ann")
    await cases.customers.advance_test_clock("ann", record.now + MINUTE_MS)
    await cases.customers.grant(Grant("ann", "basic_messages", 100 * NANOS, reset=Recurrence(Interval.HOUR)))
    await cases.customers.grant(Grant("ann", "basic_messages", 10 * NANOS))
    return cases


async def hold(
    cases: openings.UseCases,
    units: float,
    *,
    hold_id: str | None = "lock",
    customer_id: str = "ann",
    feature_id: str = "basic_messages",
    mode: Mode = Mode.REJECT,
    expires_at: int | None = None,
    key: CallerKey | None = None,
) -> Decision:
    usage = Usage(
        "hold", customer_id, feature_id, None, int(units * NANOS), mode, properties='{"chat":"c1"}', key=key
    )
    return await cases.holds.hold(usage, hold_id=hold_id, expires_at=expires_at)


async def balances(cases: openings.UseCases) -> list[str]:
    """What is left in each row of basic messages, in burn order."""
    record = await cases.customers.get("ann")
    return [
        format_amount(record.balances[row.id])
        for row in record.terms.rows
        if row.feature_id == "basic_messages"
    ]


async def events(cases: openings.UseCases) -> list[tuple[str, str]]:
    """The customer's events, newest first: value and properties."""
    page = await cases.history.events(
        customer_id="ann", feature_ids=(), start=None, end=None, limit=100, cursor=""
    )
    return [(format_amount(event.value_nanos), event.properties) for event in page.events]


async def now_of(cases: openings.UseCases) -> int:
    return (await cases.customers.get("ann")).now


async def verified(settings: Settings) -> None:
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences


# The life of a hold


async def test_held_used_and_settled(ann: openings.UseCases, settings: Settings) -> None:
    """What is held is gone at once, what was not used comes back, and the events add up to what was used."""
    decision = await hold(ann, 105)
    assert decision.allowed
    assert decision.held is not None
    assert decision.held.hold.expires_at == await now_of(ann) + HOLD_LIMITS.lasts_ms
    assert await balances(ann) == ["0", "5"]
    assert not await ann.holds.finalize("lock", 30 * NANOS)
    assert await balances(ann) == ["70", "10"]
    inherited = '{"chat":"c1"}'
    assert await events(ann) == [("-75", inherited), ("105", inherited)]
    await ann.flusher.flush_once()
    assert await events(ann) == [("-75", inherited), ("105", inherited)]
    await verified(settings)


async def test_properties_given_at_the_end_replace_those_of_the_hold(ann: openings.UseCases) -> None:
    """What the application knows only afterwards stands on the event of the settled hold."""
    await hold(ann, 8)
    await ann.holds.finalize("lock", 0, properties='{"tokens":5}')
    assert (await events(ann))[0] == ("-8", '{"tokens":5}')


async def test_used_as_held_is_no_event(ann: openings.UseCases) -> None:
    """Nothing happens but that the hold is no more."""
    await hold(ann, 8)
    await ann.holds.finalize("lock", None)
    assert await balances(ann) == ["92", "10"]
    assert len(await events(ann)) == 1
    with pytest.raises(InvalidRequest, match="Lock not found for ID: lock"):
        await ann.holds.finalize("lock", None)


async def test_a_hold_that_is_refused_leaves_nothing(ann: openings.UseCases, redis: "Redis") -> None:
    """A denied hold takes nothing, and its id is free for anyone at once."""
    decision = await hold(ann, 1000)
    assert (decision.allowed, decision.held) == (False, None)
    assert await redis.keys("cg:{l:*") == []
    with pytest.raises(NotFound):
        await hold(ann, 1, customer_id="nobody")
    with pytest.raises(InvalidInputs):
        await hold(ann, 1, expires_at=1)
    assert await redis.keys("cg:{l:*") == []


async def test_an_id_is_made_where_none_is_given(ann: openings.UseCases) -> None:
    """Without an id of its own, the caller learns the one to finalize."""
    first, second = await hold(ann, 1, hold_id=None), await hold(ann, 2, hold_id=None)
    assert first.held is not None
    assert second.held is not None
    assert first.held.hold_id != second.held.hold_id
    await ann.holds.finalize(second.held.hold_id, 0)
    assert await balances(ann) == ["99", "10"]


async def test_what_cannot_be_held(ann: openings.UseCases) -> None:
    """On/off features and seats have nothing to hold; a time in the past or beyond a day is no expiry."""
    now = await now_of(ann)
    for expires_at in (now, now + 24 * HOUR_MS + 1):
        with pytest.raises(InvalidInputs, match=r"lock\.expires_at"):
            await hold(ann, 1, expires_at=expires_at)
    assert await balances(ann) == ["100", "10"]


async def test_only_so_many(ann: openings.UseCases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the most holds that a customer may have, the next is refused with a code of its own."""
    few = HOLD_LIMITS._replace(holds_max=2)
    monkeypatch.setattr("creditgate.engine.holds.HOLD_LIMITS", few)
    await hold(ann, 1, hold_id="a")
    await hold(ann, 1, hold_id="b")
    with pytest.raises(Conflict) as raised:
        await hold(ann, 1, hold_id="c")
    assert raised.value.code == "too_many_holds"


# Ids


async def test_one_id_names_one_hold(ann: openings.UseCases) -> None:
    """An open lock's id is refused to everybody, to its own customer too, and nothing is taken."""
    await ann.customers.get_or_create("bob", Profile())
    await hold(ann, 8)
    for customer_id in ("ann", "bob"):
        with pytest.raises(Conflict, match="A lock with this ID already exists") as raised:
            await hold(ann, 1, customer_id=customer_id)
        assert raised.value.code == "lock_already_exists"
    await ann.holds.finalize("lock", 3 * NANOS)
    assert await balances(ann) == ["97", "10"]
    assert (await hold(ann, 1)).allowed, "its customer may use the id again"


async def test_another_customer_may_use_an_id_that_is_free(ann: openings.UseCases, redis: "Redis") -> None:
    """An id whose hold is settled may name another customer's, once nobody can be making a hold under it any more."""
    await ann.customers.get_or_create("bob", Profile())
    await hold(ann, 8)
    await ann.holds.finalize("lock", None)
    with pytest.raises(Conflict):
        await hold(ann, 1, customer_id="bob")
    (pointer,) = await redis.keys("cg:{l:*")
    await redis.pexpire(pointer, POINTER_TTL_MS - CLAIM_MS - 1)
    assert (await hold(ann, 1, customer_id="bob")).allowed
    await ann.holds.finalize("lock", 0)


async def test_a_pointer_outlives_every_hold(ann: openings.UseCases, redis: "Redis") -> None:
    """An id that its customer uses again can be found for as long as the new hold is open."""
    await hold(ann, 8)
    (pointer,) = await redis.keys("cg:{l:*")
    await ann.holds.finalize("lock", None)
    await redis.pexpire(pointer, HOUR_MS)
    await hold(ann, 8, expires_at=await now_of(ann) + 24 * HOUR_MS)
    assert await redis.pttl(pointer) > 24 * HOUR_MS


async def test_a_lost_pointer_comes_back(ann: openings.UseCases, redis: "Redis") -> None:
    """Whoever asks for the id again is told that it is taken, and it can be finalized again."""
    await hold(ann, 8)
    (pointer,) = await redis.keys("cg:{l:*")
    await redis.delete(pointer)
    with pytest.raises(InvalidRequest, match="Lock not found"):
        await ann.holds.finalize("lock", None)
    with pytest.raises(Conflict):
        await hold(ann, 8)
    await ann.holds.finalize("lock", 0)
    assert await balances(ann) == ["100", "10"]


# Twice


async def test_a_repeated_hold_is_one_hold(ann: openings.UseCases) -> None:
    """With its key, a repeated call is told of the hold that it made, also of the id that was made for it."""
    for hold_id in ("lock", None):
        key = CallerKey("check:header", f"k {hold_id}", "ab")
        first, again = (
            await hold(ann, 8, hold_id=hold_id, key=key),
            await hold(ann, 8, hold_id=hold_id, key=key),
        )
        assert again.is_replay
        assert again.held == first.held
        assert again.moved == first.moved
        assert first.held is not None
        await ann.holds.finalize(first.held.hold_id, 0)
        assert (await hold(ann, 8, hold_id=hold_id, key=key)).held == first.held
    assert await balances(ann) == ["100", "10"]


async def test_a_repeated_finalize_is_one(ann: openings.UseCases) -> None:
    """With its key, finalizing again is a success that changes nothing; with other parameters it is refused."""
    await hold(ann, 8)
    assert not await ann.holds.finalize("lock", 3 * NANOS, key=KEY)
    assert await ann.holds.finalize("lock", 3 * NANOS, key=KEY)
    with pytest.raises(KeyReused):
        await ann.holds.finalize("lock", 0, key=KEY._replace(fingerprint="dcba"))
    with pytest.raises(InvalidRequest, match="Lock not found"):
        await ann.holds.finalize("lock", 0, key=KEY._replace(text="other"))
    assert await balances(ann) == ["97", "10"]


async def test_lk_16_two_at_once(ann: openings.UseCases) -> None:
    """LK-16: of two who confirm at once, one is told that it did; the other that it was too late."""
    for number in range(5):
        await hold(ann, 8, hold_id=f"h{number}")
        results = await asyncio.gather(
            *(ann.holds.finalize(f"h{number}", 4 * NANOS) for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) in (
            ["Conflict", "bool"],
            ["InvalidRequest", "bool"],
        )
    assert await balances(ann) == ["80", "10"]


# Time


async def test_lk_16_an_expired_hold_is_released(ann: openings.UseCases, settings: Settings) -> None:
    """LK-16: what nobody finalized comes back once, with an event at the moment it expired; later it is unknown."""
    now = await now_of(ann)
    await hold(ann, 8, expires_at=now + 5 * MINUTE_MS)
    await ann.customers.advance_test_clock("ann", now + 6 * MINUTE_MS)
    assert await balances(ann) == ["100", "10"]
    await ann.customers.advance_test_clock("ann", now + 7 * MINUTE_MS)
    with pytest.raises(InvalidRequest, match="Lock not found for ID: lock"):
        await ann.holds.finalize("lock", 4 * NANOS)
    assert await balances(ann) == ["100", "10"]
    page = await ann.history.events(
        customer_id="ann", feature_ids=(), start=None, end=None, limit=9, cursor=""
    )
    assert [(event.timestamp - now, event.value_nanos // NANOS) for event in page.events] == [
        (5 * MINUTE_MS, -8),
        (0, 8),
    ]
    assert (await ann.statements.of("ann")).lines[-1].text == "released 8 basic_messages (the hold expired)"
    await verified(settings)


async def test_lk_16_confirmed_then_expired(ann: openings.UseCases) -> None:
    """LK-16: the expiry of a hold that is settled changes nothing."""
    now = await now_of(ann)
    await hold(ann, 8, expires_at=now + 5 * MINUTE_MS)
    await ann.holds.finalize("lock", 4 * NANOS)
    before = await ann.customers.get("ann")
    later = await ann.customers.advance_test_clock("ann", now + 6 * MINUTE_MS)
    assert await balances(ann) == ["96", "10"]
    assert later.sequence == before.sequence + 1, "only the clock was set"


async def test_finalizing_what_has_just_expired(
    ann: openings.UseCases, stores: openings.Stores, redis: "Redis"
) -> None:
    """A caller who comes too late is told so, and the hold is released first, not as the caller says."""
    await hold(ann, 8)
    now = await now_of(ann) + 2 * HOUR_MS
    await redis.hset(stores.keys.record("ann"), "clock", str(now))
    with pytest.raises(InvalidRequest, match="Lock not found"):
        await ann.holds.finalize("lock", 4 * NANOS)
    with pytest.raises(InvalidRequest, match="Lock not found"):
        await ann.holds.progress("lock", NANOS)


async def test_progress_is_charged_if_the_hold_expires(ann: openings.UseCases) -> None:
    """A stream that broke off is charged for what it had reported, not for all that was held, nor for nothing."""
    now = await now_of(ann)
    await hold(ann, 50, expires_at=now + 5 * MINUTE_MS)
    for used, most in ((10, 10), (30, 30), (20, 30)):
        held = await ann.holds.progress("lock", used * NANOS)
        assert held.hold.used_nanos == most * NANOS
    assert await balances(ann) == ["50", "10"]
    await ann.customers.advance_test_clock("ann", now + 5 * MINUTE_MS)
    assert await balances(ann) == ["70", "10"]
    assert (await events(ann))[0][0] == "-20"


async def test_progress_beyond_the_hold_is_charged_too(ann: openings.UseCases) -> None:
    """What was used beyond the hold is taken when it expires, as far as there is something."""
    now = await now_of(ann)
    await hold(ann, 50, expires_at=now + 5 * MINUTE_MS)
    await ann.holds.progress("lock", 105 * NANOS)
    await ann.customers.advance_test_clock("ann", now + 5 * MINUTE_MS)
    assert await balances(ann) == ["0", "5"]


async def test_confirming_after_progress_charges_what_was_held(ann: openings.UseCases) -> None:
    """Progress is for the worst case only: who confirms says what was used."""
    await hold(ann, 50)
    await ann.holds.progress("lock", 20 * NANOS)
    await ann.holds.finalize("lock", None)
    assert await balances(ann) == ["50", "10"]


async def test_no_progress(ann: openings.UseCases) -> None:
    """Progress of an unknown lock, or of one that gave credit, is refused."""
    with pytest.raises(InvalidRequest, match="Lock not found for ID: lock"):
        await ann.holds.progress("lock", NANOS)
    await ann.meter.track(Usage("track", "ann", "basic_messages", None, 20 * NANOS, Mode.CAP))
    await hold(ann, -5)
    with pytest.raises(InvalidRequest, match="gave credit"):
        await ann.holds.progress("lock", NANOS)


async def test_nobody_was_there_for_a_day(ann: openings.UseCases, settings: Settings) -> None:
    """Holds and resets that fell due while every process was down come in the order of time, as if one had been up.

    Each hour has 100 messages of its own. A hold that expires within its hour gives back to that hour, one that expires
    later gives back only what it took from the row that never resets.
    """
    now = await now_of(ann)
    await hold(ann, 95, hold_id="within the hour", expires_at=now + 30 * MINUTE_MS)
    await hold(ann, 8, hold_id="across", expires_at=now + 90 * MINUTE_MS)  # 5 of the hour, 3 of the others
    await hold(ann, 4, hold_id="at the boundary", expires_at=now + HOUR_MS)
    await hold(ann, 2, hold_id="used", expires_at=now + 150 * MINUTE_MS)
    await ann.holds.progress("used", 40 * NANOS)  # 38 beyond the hold, taken from its third hour
    await ann.customers.advance_test_clock("ann", now + 2 * HOUR_MS + 59 * MINUTE_MS)
    assert await balances(ann) == ["62", "8"]
    told = [
        (line.text, format_amount(line.change_nanos))
        for line in (await ann.statements.of("ann")).lines
        if line.feature_id == "basic_messages"
    ]
    assert told[-8:] == [
        ("released 95 basic_messages (the hold expired)", "95"),
        ("released 4 basic_messages (the hold expired)", "4"),
        ("expired", "-95"),
        ("renewed", "100"),
        ("released 8 basic_messages (the hold expired)", "3"),
        ("expired", "-100"),
        ("renewed", "100"),
        ("used 38 basic_messages", "-38"),
    ]
    await verified(settings)


async def test_as_many_steps_as_it_takes(ann: openings.UseCases, settings: Settings) -> None:
    """Holds that expire between the resets of a whole day are all stepped over by the first call that comes."""
    now = await now_of(ann)
    for number in range(60):
        expires_at = now + (24 * number + 5) * MINUTE_MS
        await hold(ann, 1, hold_id=f"h{number}", expires_at=expires_at)
    await ann.customers.advance_test_clock("ann", now + 26 * HOUR_MS)
    record = await ann.customers.get("ann")
    assert record.holds == {}
    assert await balances(ann) == ["100", "10"]
    await verified(settings)


async def test_the_sweep_releases_what_expired(cases: openings.UseCases, settings: Settings) -> None:
    """Credits that were held by an application that died come back though nobody asks."""
    await cases.customers.get_or_create("ann", Profile())
    expires_at = cases.clock.now_ms() + SOON_MS
    await hold(cases, 100, expires_at=expires_at)
    before = await cases.customers.get("ann")
    await passed(cases, expires_at)
    await asyncio.gather(cases.sweep.tick(), cases.sweep.tick())
    after = await cases.customers.get("ann")
    assert (sum(before.balances.values()), sum(after.balances.values())) == (4 * NANOS, 5 * NANOS)
    assert after.sequence == before.sequence + 1
    assert await cases.sweep.tick() == 0, "and the customer is not looked at again"
    await verified(settings)


async def test_an_expired_hold_that_cannot_come_back_stays_charged(ann: openings.UseCases) -> None:
    """A balance that has no room for a return does not stop everything else of its customer for ever."""
    now = await now_of(ann)
    await ann.customers.grant(Grant("ann", "premium_messages", AMOUNT_MAX - 1))
    await hold(ann, 5, feature_id="premium_messages", expires_at=now + MINUTE_MS)
    await hold(ann, 1, hold_id="other", expires_at=now + MINUTE_MS)
    await ann.meter.track(Usage("track", "ann", "premium_messages", None, -5 * NANOS, Mode.OVERFLOW))
    await ann.customers.advance_test_clock("ann", now + MINUTE_MS)
    record = await ann.customers.get("ann")
    assert record.holds == {}
    assert await balances(ann) == ["100", "10"]


# Plans, catalogs, deletions


async def test_a_plan_that_changed_meanwhile(cases: openings.UseCases, settings: Settings) -> None:
    """A customer who upgrades while units are held has all of the new plan, and no more of it when they come back."""
    await cases.customers.get_or_create("ann", Profile())
    await hold(cases, 200)  # 2 of the 5 credits of free
    attached = await cases.billing.attach(
        customer_id="ann",
        plan_id="pro",
        quantities={},
        success_url=None,
        base_url="http://localhost",
        key=None,
    )
    assert attached.payment_url is not None
    await cases.billing.pay(attached.payment_url.rsplit("/", 1)[1])
    await cases.meter.track(Usage("track", "ann", "basic_messages", None, 50 * NANOS, Mode.CAP))
    await cases.holds.finalize("lock", 0)
    record = await cases.customers.get("ann")
    assert list(record.balances.values()) == [10 * NANOS]
    await verified(settings)


async def test_a_feature_that_was_deleted_meanwhile(ann: openings.UseCases, settings: Settings) -> None:
    """A hold on a feature that the catalog has no more is settled all the same."""
    now = await now_of(ann)
    await ann.catalogs.create_feature(_feature("words"))
    await ann.catalogs.update_feature("usd_credits", {"credit_schema": _schema("words")})
    await hold(ann, 10, feature_id="words", hold_id="one")
    await hold(ann, 10, feature_id="words", hold_id="two", expires_at=now + MINUTE_MS)
    await ann.catalogs.update_feature("usd_credits", {"credit_schema": _schema("basic_messages")})
    await ann.catalogs.delete_feature("words")
    await ann.holds.finalize("one", 4 * NANOS)
    await ann.customers.advance_test_clock("ann", now + MINUTE_MS)
    record = await ann.customers.get("ann")
    credits = next(row for row in record.terms.rows if row.feature_id == "usd_credits")
    assert record.balances[credits.id] == 5 * NANOS - 4 * NANOS // 10
    await verified(settings)


async def test_a_customer_who_was_deleted_meanwhile(
    ann: openings.UseCases, settings: Settings, redis: "Redis"
) -> None:
    """A deletion releases every hold; whoever comes again under the id has none of them, also after a restore."""
    await hold(ann, 105)
    await ann.customers.delete("ann")
    with pytest.raises(InvalidRequest, match="Lock not found"):
        await ann.holds.finalize("lock", 0)
    await ann.customers.get_or_create("ann", Profile())
    with pytest.raises(InvalidRequest, match="Lock not found"):
        await ann.holds.finalize("lock", 0)
    await verified(settings)
    await ann.flusher.flush_once()
    await redis.flushall()
    await ann.reconciler.watch()
    assert (await ann.customers.get("ann")).holds == {}
    assert (await hold(ann, 100)).allowed
    await verified(settings)


def _feature(feature_id: str) -> Feature:
    return Feature(feature_id, feature_id, FeatureType.METERED, consumable=True)


def _schema(member: str) -> tuple[CreditCost, ...]:
    return (CreditCost(member, NANOS // 10),)


# When something breaks


@pytest.fixture
async def behind(
    settings: Settings, stores: openings.Stores, proxy: FaultProxy
) -> AsyncIterator[openings.UseCases]:
    """The use cases behind the proxy, with a customer who has 5 credits."""
    async with openings.open_use_cases(settings, proxy.url, stores) as opened:
        await demo.load(opened.catalogs, opened.clock.now_ms())
        await opened.customers.get_or_create("ann", Profile())
        yield opened


@pytest.mark.parametrize("word", [b'["hold"', b"{l:"])
async def test_a_lost_reply_is_one_hold(behind: openings.UseCases, proxy: FaultProxy, word: bytes) -> None:
    """A hold, or the claim of its id, whose reply was lost happens once, and is answered with what it holds."""
    proxy.lose_reply_to(word)
    decision = await hold(behind, 100)
    assert proxy.faults == 1
    assert decision.allowed
    assert not decision.is_replay
    assert decision.held is not None
    assert decision.held.hold.value_nanos == 100 * NANOS
    assert await _credits(behind) == 4 * NANOS
    await behind.holds.finalize("lock", 0)
    assert await _credits(behind) == 5 * NANOS


async def test_a_lost_reply_is_one_end(behind: openings.UseCases, proxy: FaultProxy) -> None:
    """A finalize whose reply was lost settles once, and says that it did."""
    await hold(behind, 100)
    proxy.lose_reply_to(b'["balances.finalize"')
    assert not await behind.holds.finalize("lock", 300 * NANOS)
    assert proxy.faults == 1
    assert await _credits(behind) == 2 * NANOS


async def test_a_lost_reply_is_one_progress(behind: openings.UseCases, proxy: FaultProxy) -> None:
    """Progress whose reply was lost is answered with the hold as it is."""
    await hold(behind, 100)
    proxy.lose_reply_to(b'["balances.progress"')
    held = await behind.holds.progress("lock", 30 * NANOS)
    assert proxy.faults == 1
    assert held.hold.used_nanos == 30 * NANOS


async def test_a_lost_reply_is_one_expiry(behind: openings.UseCases, proxy: FaultProxy) -> None:
    """An expiry whose reply was lost happens once."""
    expires_at = behind.clock.now_ms() + SOON_MS
    await hold(behind, 100, expires_at=expires_at)
    await passed(behind, expires_at)
    proxy.lose_reply_to(b'["expire"')
    assert await _credits(behind) == 5 * NANOS
    assert proxy.faults == 1


async def test_a_hold_that_arrives_late_has_no_effect(behind: openings.UseCases, proxy: FaultProxy) -> None:
    """A first attempt that stalls past its deadline holds nothing; the second is the only hold."""
    proxy.hold_back(b'["hold"', 0.4)
    assert (await hold(behind, 100)).allowed
    assert proxy.faults == 1
    assert await _credits(behind) == 4 * NANOS


async def test_undecided_leaves_the_id(behind: openings.UseCases, proxy: FaultProxy) -> None:
    """While Redis cannot be reached, nobody is told that something is held, or is not."""
    await hold(behind, 100)
    await proxy.__aexit__()
    with pytest.raises(Undecided):
        await hold(behind, 1, hold_id="other")
    with pytest.raises(Undecided):
        await behind.holds.finalize("lock", 0)


async def test_an_emptied_redis_has_its_holds_again(
    ann: openings.UseCases, settings: Settings, redis: "Redis"
) -> None:
    """After Redis lost everything, open holds are open, found by their ids, due when they were, and settled exactly."""
    now = await now_of(ann)
    await hold(ann, 105, hold_id="open", expires_at=now + 30 * MINUTE_MS)
    await hold(ann, 2, hold_id="expiring", expires_at=now + 5 * MINUTE_MS)
    await hold(ann, 1, hold_id="closed")
    await ann.holds.progress("open", 20 * NANOS)
    await ann.holds.finalize("closed", 0)
    before = await ann.customers.get("ann")
    await ann.flusher.flush_once()
    await redis.flushall()
    await ann.reconciler.watch()
    after = await ann.customers.get("ann")
    assert (after.holds, after.balances) == (before.holds, before.balances)
    await ann.customers.advance_test_clock("ann", now + 6 * MINUTE_MS)
    assert await balances(ann) == ["0", "5"]
    await ann.holds.finalize("open", 3 * NANOS)
    with pytest.raises(InvalidRequest):
        await ann.holds.finalize("closed", 0)
    assert await balances(ann) == ["97", "10"]
    await verified(settings)


async def _credits(cases: openings.UseCases) -> int:
    return sum((await cases.customers.get("ann")).balances.values())
