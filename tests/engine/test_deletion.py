"""A customer is deleted, and comes again under the same id: nothing of the old one is left to the new one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from creditgate import openings, operations
from creditgate.balances.stream import JournalStream
from creditgate.core.amounts import NANOS
from creditgate.core.customers import CustomerChanges
from creditgate.core.decisions import Decision, Mode
from creditgate.core.journal import ORIGIN
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.keys import CallerKey
from creditgate.engine.usage import Usage
from creditgate.errors import KeyReused, NotFound
from creditgate.settings import Settings
from tests.engine.instants import SOON_MS, passed

KEY = CallerKey("customers.delete:header", "k", "aa")
TRACK_KEY = CallerKey("track:header", "k", "bb")
MONTH_MS = 31 * 86_400_000


@pytest.fixture
async def ann(cases: openings.UseCases) -> openings.UseCases:
    """A customer with a name, an open checkout, and usage under a caller's key."""
    await cases.customers.get_or_create("ann", Profile(name="Ann", metadata={"team": "red"}))
    await _track(cases, 3, TRACK_KEY)
    return cases


async def test_a_deleted_customer_is_unknown_everywhere(ann: openings.UseCases) -> None:
    """Nobody can check, track, grant, attach or delete for a customer who is gone."""
    assert not await ann.customers.delete("ann")
    for call in (
        ann.customers.get("ann"),
        ann.customers.update("ann", CustomerChanges({"name": "Eve"})),
        ann.customers.delete("ann"),
        ann.customers.delete("ann", KEY),
        ann.customers.grant(Grant("ann", "usd_credits", NANOS)),
        ann.meter.check(Usage("check", "ann", "basic_messages", None, NANOS, Mode.REJECT)),
        _track(ann, 1),
        _checkout(ann),
    ):
        with pytest.raises(NotFound) as refused:
            await call
        assert refused.value.code == "customer_not_found"


async def test_a_deletion_is_repeated_by_its_key(ann: openings.UseCases) -> None:
    """A retry after a lost answer succeeds; it spares whoever came after, and another call has another key."""
    assert not await ann.customers.delete("ann", KEY)
    assert await ann.customers.delete("ann", KEY)
    await ann.customers.get_or_create("ann", Profile())
    assert await ann.customers.delete("ann", KEY)
    assert (await ann.customers.get("ann")).customer.id == "ann"
    with pytest.raises(KeyReused):
        await ann.customers.delete("ann", KEY._replace(fingerprint="cc"))
    assert not await ann.customers.delete("ann", KEY._replace(text="another"))


async def test_many_deletions_at_once_are_one(ann: openings.UseCases) -> None:
    """Two buttons that are pressed at once delete once, and the second is told that there is nobody."""
    outcomes = await asyncio.gather(*(ann.customers.delete("ann") for _ in range(6)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NotFound"] * 5 + ["bool"]


async def test_who_comes_after_starts_anew(ann: openings.UseCases, stores: openings.Stores) -> None:
    """The new customer has the free plan untouched, an own uid, and none of the old one's words."""
    old = await ann.customers.get("ann")
    await ann.customers.delete("ann")
    new = await ann.customers.get_or_create("ann", Profile())
    assert new.uid != old.uid
    assert (new.sequence, new.customer.name, new.customer.metadata) == (1, None, {})
    assert list(new.balances.values()) == [5 * NANOS]
    assert not {row.id for row in new.terms.rows} & {row.id for row in old.terms.rows}


async def test_keys_of_the_old_one_are_free(ann: openings.UseCases) -> None:
    """A caller's key that was used for the old customer charges the new one, once."""
    await ann.customers.delete("ann")
    await ann.customers.get_or_create("ann", Profile())
    assert not (await _track(ann, 3, TRACK_KEY)).is_replay
    assert (await _track(ann, 3, TRACK_KEY)).is_replay
    assert list((await ann.customers.get("ann")).balances.values()) == [5 * NANOS - 3 * NANOS // 100]


async def test_a_checkout_of_the_old_one_is_gone(ann: openings.UseCases) -> None:
    """A payment link that was sent to the old customer gives the new one nothing."""
    token = (await _checkout(ann)).rsplit("/", 1)[1]
    await ann.customers.delete("ann")
    await ann.customers.get_or_create("ann", Profile())
    with pytest.raises(NotFound, match="checkout"):
        await ann.billing.pay(token)
    assert [s.plan_id for s in (await ann.customers.get("ann")).customer.subscriptions] == ["free"]


@pytest.mark.parametrize("is_flushed", [False, True])
async def test_events_and_statement_are_of_the_new_life(ann: openings.UseCases, is_flushed: bool) -> None:
    """The new customer is shown nobody else's usage; until there is one, the old history can still be looked at."""
    assert await _values(ann) == [3]
    await ann.customers.delete("ann")
    if is_flushed:
        await ann.flusher.flush_once()
    assert await _values(ann) == [3]
    assert (await ann.statements.of("ann")).lines[-1].text == "ended (free)"
    await ann.customers.get_or_create("ann", Profile())
    assert await _values(ann) == []
    if is_flushed:
        await ann.flusher.flush_once()
    assert await _values(ann) == []
    await _track(ann, 7)
    assert await _values(ann) == [7]
    lines = [line.text for line in (await ann.statements.of("ann")).lines]
    assert lines == ["granted (free)", "used 7 basic_messages"]
    assert await _values(ann, of_everybody=True) == [7, 3]


async def test_what_was_due_of_the_old_one_happens_to_nobody(
    ann: openings.UseCases, stores: openings.Stores, redis: "Redis"
) -> None:
    """The due index names only customers who are there, so no sweep steps the new one at the old one's time."""
    await ann.customers.grant(Grant("ann", "usd_credits", NANOS, expires_at=ann.clock.now_ms() + 60_000))
    await ann.customers.delete("ann")
    due = stores.keys.due(stores.keys.partition_of("ann"))
    assert await redis.zcard(due) == 0
    new = await ann.customers.get_or_create("ann", Profile())
    assert await redis.zrange(due, 0, -1) == [f"{new.uid} ann".encode()]


async def test_a_pinned_clock_is_not_inherited(ann: openings.UseCases) -> None:
    """Who comes after a customer of a test clock lives in the present."""
    record = await ann.customers.get("ann")
    await ann.customers.advance_test_clock("ann", record.now + MONTH_MS)
    await ann.customers.delete("ann")
    new = await ann.customers.get_or_create("ann", Profile())
    assert new.clock is None
    assert new.now < record.now + MONTH_MS


async def test_what_fell_due_is_done_before(ann: openings.UseCases, stores: openings.Stores) -> None:
    """The last entries of a customer whose grant has just expired are the expiry and then the deletion."""
    soon = ann.clock.now_ms() + SOON_MS
    await ann.customers.grant(Grant("ann", "usd_credits", NANOS, expires_at=soon))
    await passed(ann, soon)
    await ann.customers.delete("ann")
    stream = JournalStream(stores.redis, stores.keys)
    entries = [entry async for entry in stream.tail(stores.keys.partition_of("ann"), ORIGIN)]
    verbs = [entry.items[0].call.verb for entry in entries if entry.items[0].call]
    assert verbs[-2:] == ["forward", "customers.delete"]


@pytest.mark.parametrize("comes_again", [False, True])
@pytest.mark.parametrize("lost", ["everything", "the deletion", "nothing"])
async def test_a_redis_that_lost_the_deletion_gets_it_back(
    ann: openings.UseCases, settings: Settings, redis: "Redis", comes_again: bool, lost: str
) -> None:
    """A Redis that comes back from before the deletion raises nobody from the dead, and has whoever came after."""
    await ann.flusher.flush_once()
    kept = {key: await redis.dump(key) or b"" for key in await redis.keys("*")}
    await ann.customers.delete("ann", KEY)
    if comes_again:
        await ann.customers.get_or_create("ann", Profile(name="New"))
        await _track(ann, 9)
    await ann.flusher.flush_once()
    if lost != "nothing":
        await redis.flushall()
    if lost == "the deletion":
        for key, value in kept.items():
            await redis.restore(key, 0, value)
    async with _again(settings) as cases:
        assert await cases.customers.delete("ann", KEY)
        await _check_who_is_there(cases, comes_again)
        await _track_anybody(cases)
        await cases.flusher.flush_once()
    await _check_books(settings)


@pytest.mark.usefixtures("soon_alone")
@pytest.mark.parametrize("comes_again", [False, True])
async def test_another_number_of_partitions(
    ann: openings.UseCases, settings: Settings, comes_again: bool
) -> None:
    """Moving the history to other partitions mixes no two lives, and keeps the list of customers."""
    await ann.customers.delete("ann", KEY)
    if comes_again:
        await ann.customers.get_or_create("ann", Profile(name="New"))
        await _track(ann, 9)
    assert await operations.rebuild(settings, lambda _: None, partitions=3) == 1
    async with _again(settings) as cases:
        await _check_who_is_there(cases, comes_again)
        assert await cases.customers.delete("ann", KEY)
        await _track_anybody(cases)
        await cases.flusher.flush_once()
    await _check_books(settings)


@asynccontextmanager
async def _again(settings: Settings) -> AsyncIterator[openings.UseCases]:
    """A second sidecar on the same data."""
    assert settings.redis is not None
    async with (
        openings.open_stores(settings, settings.redis, make=None) as stores,
        openings.open_use_cases(settings, settings.redis, stores) as cases,
    ):
        yield cases


async def _check_who_is_there(cases: openings.UseCases, comes_again: bool) -> None:
    if not comes_again:
        with pytest.raises(NotFound):
            await cases.customers.get("ann")
        return
    record = await cases.customers.get("ann")
    assert (record.customer.name, record.sequence) == ("New", 2)
    assert list(record.balances.values()) == [5 * NANOS - 9 * NANOS // 100]
    assert await _values(cases) == [9]


async def _check_books(settings: Settings) -> None:
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences


async def _track(cases: openings.UseCases, units: int, key: CallerKey | None = None) -> Decision:
    return await cases.meter.track(
        Usage("track", "ann", "basic_messages", None, units * NANOS, Mode.CAP, key=key)
    )


async def _track_anybody(cases: openings.UseCases) -> None:
    """Use goes on: for the customer, made again if need be."""
    await cases.customers.get_or_create("ann", Profile())
    await _track(cases, 1)


async def _checkout(cases: openings.UseCases) -> str:
    attached = await cases.billing.attach(
        customer_id="ann",
        plan_id="pro",
        quantities={},
        success_url=None,
        base_url="http://localhost",
        key=None,
    )
    assert attached.payment_url is not None
    return attached.payment_url


async def _values(cases: openings.UseCases, *, of_everybody: bool = False) -> list[int]:
    """The units of the events that are listed for the customer, newest first."""
    page = await cases.history.events(
        customer_id=None if of_everybody else "ann", feature_ids=(), start=None, end=None, limit=9, cursor=""
    )
    return [event.value_nanos // NANOS for event in page.events]
