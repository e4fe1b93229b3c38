"""Attaching and paying: once, atomically, for what was offered."""

import asyncio

import msgspec
import pytest
from redis.asyncio import Redis

from creditgate import openings, operations
from creditgate.core.amounts import NANOS
from creditgate.core.cancellation import CancelAction
from creditgate.core.catalog import FreeTrial, Interval, Plan, PlanItem, PlanPrice, Recurrence
from creditgate.core.customers import AttachOptions
from creditgate.core.decisions import Mode
from creditgate.engine.billing import Attached, Named
from creditgate.engine.customers import Profile
from creditgate.engine.keys import CallerKey
from creditgate.engine.usage import Usage
from creditgate.errors import Conflict, KeyReused, NotFound
from creditgate.settings import Settings

KEY = CallerKey("billing.attach:header", "k", "aa")
UPDATE_KEY = CallerKey("billing.update:header", "k", "aa")
MULTI_KEY = CallerKey("multi_attach:header", "k", "aa")
PRO, TOP_UP = Named("pro"), Named("top_up", {"usd_credits": 20 * NANOS})


@pytest.fixture
async def ann(cases: openings.UseCases) -> openings.UseCases:
    """A customer on the free plan."""
    await cases.customers.get_or_create("ann", Profile())
    return cases


async def test_paying_many_times_attaches_once(ann: openings.UseCases) -> None:
    """However often the form is sent, and though all at once, the plan is there once and free is gone."""
    token = await _token(ann, "pro")
    offers = await asyncio.gather(*(ann.billing.pay(token) for _ in range(8)))
    assert len({offer.checkout.paid_at for offer in offers}) == 1
    record = await ann.customers.get("ann")
    assert [s.plan_id for s in record.customer.subscriptions] == ["pro"]
    assert list(record.balances.values()) == [10 * NANOS]


async def test_tracks_in_flight_lose_nothing_to_an_upgrade(ann: openings.UseCases) -> None:
    """Tracks that land around a plan change are each taken once, from the old plan or from the new one."""
    token = await _token(ann, "pro")
    paying = asyncio.create_task(ann.billing.pay(token))
    decisions = await asyncio.gather(*(ann.meter.track(_one_message()) for _ in range(60)))
    await paying
    taken = sum(-moved.delta_nanos for decision in decisions for moved in decision.moved)
    assert taken == 60 * NANOS // 100
    record = await ann.customers.get("ann")
    (row,) = record.terms.rows
    from_pro = sum(-m.delta_nanos for d in decisions for m in d.moved if m.row_id == row.id)
    assert record.balances[row.id] == 10 * NANOS - from_pro


async def test_one_off_plans_stack(ann: openings.UseCases) -> None:
    """Each top-up is a purchase of its own; nothing replaces anything."""
    for _ in range(2):
        await ann.billing.pay(await _token(ann, "top_up", {"usd_credits": 20 * NANOS}))
    record = await ann.customers.get("ann")
    assert len(record.customer.purchases) == 2
    assert sorted(record.balances.values()) == [5 * NANOS, 20 * NANOS, 20 * NANOS]


async def test_what_is_active_is_refused(ann: openings.UseCases) -> None:
    """A plan that the customer has is 409, at the attach and at a second checkout that was opened before."""
    first, second = await _token(ann, "pro"), await _token(ann, "pro")
    await ann.billing.pay(first)
    with pytest.raises(Conflict) as refused:
        await ann.billing.pay(second)
    assert refused.value.code == "plan_already_attached"
    with pytest.raises(Conflict):
        await _token(ann, "pro")


async def test_a_key_finds_its_checkout_again(ann: openings.UseCases) -> None:
    """The same key gives the same link and opens no second checkout; with other parameters it is refused."""
    first = await _attach(ann, "pro", KEY)
    again = await _attach(ann, "pro", KEY)
    assert again.is_replay
    assert _checkout_of(again.payment_url) == _checkout_of(first.payment_url)
    assert len((await ann.customers.get("ann")).customer.checkouts) == 1
    with pytest.raises(KeyReused):
        await _attach(ann, "top_up", KEY._replace(fingerprint="bb"))


async def test_nothing_to_pay_needs_no_checkout(ann: openings.UseCases) -> None:
    """A top-up of nothing is attached at once, as Autumn does, and costs nothing."""
    attached = await _attach(ann, "top_up", None)
    assert attached.payment_url is None


async def test_a_downgrade_waits_for_the_end_of_what_was_paid(ann: openings.UseCases) -> None:
    """Pro stays until its month is over, then free is there with its own credits; and nothing is to be paid for it."""
    await ann.billing.pay(await _token(ann, "pro"))
    assert (await _attach(ann, "free", None)).payment_url is None
    record = await ann.customers.get("ann")
    assert [s.plan_id for s in record.customer.subscriptions] == ["pro"]
    (coming,) = record.customer.scheduled
    assert list(record.balances.values()) == [10 * NANOS]
    record = await ann.customers.advance_test_clock("ann", coming.starts_at + 1)
    assert [s.plan_id for s in record.customer.subscriptions] == ["free"]
    assert list(record.balances.values()) == [5 * NANOS]


@pytest.mark.parametrize("what", ["carry_usages", "carry_balances"])
async def test_tracks_in_flight_lose_nothing_to_what_is_carried_over(
    ann: openings.UseCases, what: str
) -> None:
    """Usage or what is left goes over to the nano, however many tracks land around the change."""
    await ann.billing.pay(await _token(ann, "pro"))
    await ann.catalogs.create_plan(
        Plan("max", "Max", 1, items=(PlanItem("usd_credits", 20 * NANOS, reset=Recurrence(Interval.MONTH)),))
    )
    tracks = asyncio.gather(*(ann.meter.track(_one_message()) for _ in range(20)))
    await ann.billing.attach(
        customer_id="ann",
        plan_id="max",
        quantities={},
        options=msgspec.structs.replace(AttachOptions(schedule="immediate"), **{what: ()}),
        success_url=None,
        base_url="http://here",
        key=None,
    )
    decisions = await tracks
    assert sum(-moved.delta_nanos for decision in decisions for moved in decision.moved) == 20 * NANOS // 100
    record = await ann.customers.get("ann")
    given = 20 * NANOS if what == "carry_usages" else 30 * NANOS
    assert sum(record.balances.values()) == given - 20 * NANOS // 100


async def test_a_link_that_is_not_ours_is_not_found(ann: openings.UseCases) -> None:
    """A link that was tampered with shows nothing and pays nothing."""
    token = await _token(ann, "pro")
    for forged in ("", "x", token[:-2], f"A{token}", token.replace(".", "..")):
        with pytest.raises(NotFound):
            await ann.billing.pay(forged)
    record = await ann.customers.get("ann")
    assert [s.plan_id for s in record.customer.subscriptions] == ["free"]


async def test_cancelling_at_the_end_of_the_cycle(ann: openings.UseCases) -> None:
    """The plan says when it ends and goes on until then; on that day the free one is there, though nobody asked."""
    await ann.billing.pay(await _token(ann, "pro"))
    assert not await _update(ann, CancelAction.CANCEL_END_OF_CYCLE)
    cancelled = await ann.customers.get("ann")
    (pro,) = cancelled.customer.subscriptions
    assert pro.canceled_at is not None
    assert pro.expires_at == cancelled.terms.rows[0].resets_at
    assert list(cancelled.balances.values()) == [10 * NANOS]
    assert pro.expires_at is not None
    before = await ann.customers.advance_test_clock("ann", pro.expires_at - 1)
    assert [s.plan_id for s in before.customer.subscriptions] == ["pro"]
    after = await ann.customers.advance_test_clock("ann", pro.expires_at + 100 * 86_400_000)
    (free,) = after.customer.subscriptions
    assert (free.plan_id, free.started_at) == ("free", pro.expires_at)
    assert list(after.balances.values()) == [5 * NANOS]


async def test_cancelling_at_once(ann: openings.UseCases) -> None:
    """When the call is answered, the plan is gone and the free one is there; what was bought for good stays."""
    await ann.billing.pay(await _token(ann, "pro"))
    await ann.billing.pay(await _token(ann, "top_up", {"usd_credits": 3 * NANOS}))
    await _update(ann, CancelAction.CANCEL_IMMEDIATELY)
    record = await ann.customers.get("ann")
    assert [s.plan_id for s in record.customer.subscriptions] == ["free"]
    assert sorted(record.balances.values()) == [3 * NANOS, 5 * NANOS]


async def test_uncancelling(ann: openings.UseCases) -> None:
    """Whoever thinks again in time keeps the plan, and nothing happens on the day it would have ended."""
    await ann.billing.pay(await _token(ann, "pro"))
    await _update(ann, CancelAction.CANCEL_END_OF_CYCLE)
    (pro,) = (await ann.customers.get("ann")).customer.subscriptions
    await _update(ann, CancelAction.UNCANCEL)
    assert pro.expires_at is not None
    later = await ann.customers.advance_test_clock("ann", pro.expires_at + 1)
    assert [(s.plan_id, s.canceled_at) for s in later.customer.subscriptions] == [("pro", None)]


@pytest.mark.parametrize("action", list(CancelAction))
async def test_a_cancellation_is_repeated_by_its_key(ann: openings.UseCases, action: CancelAction) -> None:
    """A retry is answered as the first call, though the plan has gone or somebody has changed it since."""
    await ann.billing.pay(await _token(ann, "pro"))
    assert not await _update(ann, action, key=UPDATE_KEY)
    if action is not CancelAction.CANCEL_IMMEDIATELY:
        other = set(CancelAction) - {action, CancelAction.CANCEL_IMMEDIATELY}
        await _update(ann, other.pop())
    before = await ann.customers.get("ann")
    assert await _update(ann, action, key=UPDATE_KEY)
    after = await ann.customers.get("ann")
    assert (after.customer, after.sequence) == (before.customer, before.sequence)
    with pytest.raises(KeyReused):
        await _update(ann, action, key=UPDATE_KEY._replace(fingerprint="bb"))


async def test_a_plan_that_the_customer_is_not_on(ann: openings.UseCases) -> None:
    """Nothing is cancelled in its place: not the plan of another id, not a purchase, not for nobody."""
    await ann.billing.pay(await _token(ann, "top_up", {"usd_credits": 3 * NANOS}))
    for plan_id in ("pro", "top_up", "nothing"):
        with pytest.raises(NotFound) as refused:
            await _update(ann, CancelAction.CANCEL_IMMEDIATELY, plan_id=plan_id)
        assert refused.value.code == "cus_product_not_found"
    with pytest.raises(NotFound) as refused:
        await ann.billing.update(
            customer_id="eve",
            plan_id=None,
            subscription_id=None,
            action=CancelAction.CANCEL_IMMEDIATELY,
            key=None,
        )
    assert refused.value.code == "customer_not_found"


@pytest.mark.parametrize("pinned", [False, True])
async def test_tracks_in_flight_lose_nothing_to_a_cancellation(
    ann: openings.UseCases, settings: Settings, pinned: bool
) -> None:
    """Tracks that land around the end of a plan are each taken once, from the old row or from the new one."""
    await ann.billing.pay(await _token(ann, "pro"))
    if pinned:
        record = await ann.customers.get("ann")
        await ann.customers.advance_test_clock("ann", record.now + 60_000)
    decisions = [await ann.meter.track(_one_message())]

    async def use() -> None:
        for _ in range(10):
            decisions.append(await ann.meter.track(_one_message()))

    await asyncio.gather(_update(ann, CancelAction.CANCEL_IMMEDIATELY), *(use() for _ in range(6)))
    decisions.append(await ann.meter.track(_one_message()))
    taken = sum(-moved.delta_nanos for decision in decisions for moved in decision.moved)
    assert taken == 62 * NANOS // 100
    record = await ann.customers.get("ann")
    assert [s.plan_id for s in record.customer.subscriptions] == ["free"]
    (row,) = record.terms.rows
    from_free = sum(-m.delta_nanos for d in decisions for m in d.moved if m.row_id == row.id)
    assert 0 < from_free < taken
    assert record.balances[row.id] == 5 * NANOS - from_free
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences


async def test_many_cancellations_at_once_are_one(ann: openings.UseCases) -> None:
    """Two buttons that are pressed at once end one plan; the free one that comes in its place is not ended too."""
    await ann.billing.pay(await _token(ann, "pro"))
    tries = (_update(ann, CancelAction.CANCEL_IMMEDIATELY, plan_id="pro") for _ in range(6))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {bool, NotFound}
    assert False in outcomes
    record = await ann.customers.get("ann")
    assert [s.plan_id for s in record.customer.subscriptions] == ["free"]
    assert list(record.balances.values()) == [5 * NANOS]


async def test_several_plans_are_paid_once_and_come_in_one_step(
    ann: openings.UseCases, settings: Settings, redis: "Redis"
) -> None:
    """One page for all of them; however often it is posted, they are there once, by one entry of the journal."""
    token = _checkout_token((await _multi_attach(ann, PRO, TOP_UP, TOP_UP)).payment_url)
    offer = await ann.billing.offer(token)
    assert offer.checkout.total_nanos == (10 + 20 + 20) * NANOS
    journals = await redis.keys("cg:{p*}:j")
    before = sum([await redis.xlen(journal) for journal in journals])
    offers = await asyncio.gather(*(ann.billing.pay(token) for _ in range(8)))
    assert len({paid.checkout.paid_at for paid in offers}) == 1
    assert sum([await redis.xlen(journal) for journal in journals]) == before + 1
    record = await ann.customers.get("ann")
    assert [s.plan_id for s in record.customer.subscriptions] == ["pro"]
    assert [p.plan_id for p in record.customer.purchases] == ["top_up", "top_up"]
    assert sorted(record.balances.values()) == [10 * NANOS, 20 * NANOS, 20 * NANOS]
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences


async def test_of_several_plans_all_come_or_none(ann: openings.UseCases) -> None:
    """Whoever names one that is there already, or is nowhere, gets nothing of the list, and pays nothing for it."""
    await ann.billing.pay(await _token(ann, "pro"))
    before = await ann.customers.get("ann")
    for plans, kind in (((TOP_UP, PRO), Conflict), ((TOP_UP, Named("nothing")), NotFound)):
        with pytest.raises(kind):
            await _multi_attach(ann, *plans)
    after = await ann.customers.get("ann")
    assert (after.customer, after.sequence) == (before.customer, before.sequence)


async def test_several_plans_without_a_price(ann: openings.UseCases) -> None:
    """Where nothing is to be paid they are there when the call is answered, and a retry with the key adds nothing."""
    row = PlanItem("usd_credits", 2 * NANOS, reset=Recurrence(Interval.MONTH))
    for plan_id in ("gift", "present"):
        await ann.catalogs.create_plan(Plan(plan_id, plan_id.title(), 1, add_on=True, items=(row,)))
    plans = (Named("gift"), Named("present"))
    assert await _multi_attach(ann, *plans, key=MULTI_KEY) == Attached(None, is_replay=False)
    assert await _multi_attach(ann, *plans, key=MULTI_KEY) == Attached(None, is_replay=True)
    record = await ann.customers.get("ann")
    assert sorted(record.balances.values()) == [2 * NANOS, 2 * NANOS, 5 * NANOS]
    with pytest.raises(KeyReused):
        await _multi_attach(ann, PRO, key=MULTI_KEY._replace(fingerprint="bb"))


async def test_a_key_finds_the_checkout_of_several_plans_again(ann: openings.UseCases) -> None:
    """A retry opens no second page to pay on, also when the first one was paid meanwhile."""
    first = await _multi_attach(ann, PRO, TOP_UP, key=MULTI_KEY)
    await ann.billing.pay(_checkout_token(first.payment_url))
    again = await _multi_attach(ann, PRO, TOP_UP, key=MULTI_KEY)
    assert again.is_replay
    assert _checkout_of(again.payment_url) == _checkout_of(first.payment_url)
    assert len((await ann.customers.get("ann")).customer.checkouts) == 1


async def test_a_page_whose_trial_was_used_meanwhile_is_not_paid(ann: openings.UseCases) -> None:
    """A trial that came free with a page is free once: the page of a second list does not give a month unpaid."""
    items = (PlanItem("usd_credits", NANOS, reset=Recurrence(Interval.MONTH)),)
    price = PlanPrice(9 * NANOS, Recurrence(Interval.MONTH))
    trial = FreeTrial(Recurrence(Interval.DAY, 7))
    await ann.catalogs.create_plan(
        Plan("team", "Team", 1, price=price, items=items, add_on=True, free_trial=trial)
    )
    first, second = [
        _checkout_token((await _multi_attach(ann, TOP_UP, Named("team"))).payment_url) for _ in range(2)
    ]
    assert (await ann.billing.pay(first)).checkout.total_nanos == 20 * NANOS
    await _update(ann, CancelAction.CANCEL_IMMEDIATELY, plan_id="team")
    before = await ann.customers.get("ann")
    with pytest.raises(Conflict) as refused:
        await ann.billing.pay(second)
    assert refused.value.code == "checkout_outdated"
    assert (await ann.customers.get("ann")).sequence == before.sequence


async def test_a_page_for_what_would_come_later_is_not_paid(ann: openings.UseCases) -> None:
    """Nobody pays now for a plan that, since the page was made, would wait for the end of a dearer one."""
    price = PlanPrice(50 * NANOS, Recurrence(Interval.MONTH))
    await ann.catalogs.create_plan(Plan("max", "Max", 1, price=price))
    pro = await _token(ann, "pro")
    await ann.billing.pay(await _token(ann, "max"))
    with pytest.raises(Conflict) as refused:
        await ann.billing.pay(pro)
    assert refused.value.code == "checkout_outdated"
    assert (await ann.customers.get("ann")).customer.scheduled == ()


async def test_a_preview_writes_nothing(ann: openings.UseCases, redis: "Redis") -> None:
    """Looking at what a plan would cost leaves no trace: not at the customer, in the journal or in the catalog."""
    before = {key: await redis.dump(key) for key in await redis.keys("*")}
    quantities = {"usd_credits": 20 * NANOS}
    for plan_id, wanted in (("pro", {}), ("top_up", quantities), ("top_up", {})):
        previewed = await ann.billing.preview_attach(customer_id="ann", plan_id=plan_id, quantities=wanted)
        assert previewed.needs_checkout is (previewed.preview.now.total_nanos > 0)
    assert {key: await redis.dump(key) for key in await redis.keys("*")} == before


def _one_message() -> Usage:
    return Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP)


async def _update(
    cases: openings.UseCases,
    action: CancelAction,
    *,
    plan_id: str | None = None,
    key: CallerKey | None = None,
) -> bool:
    return await cases.billing.update(
        customer_id="ann", plan_id=plan_id, subscription_id=None, action=action, key=key
    )


async def _attach(
    cases: openings.UseCases, plan_id: str, key: CallerKey | None, quantities: dict[str, int] | None = None
) -> Attached:
    return await cases.billing.attach(
        customer_id="ann",
        plan_id=plan_id,
        quantities=quantities or {},
        success_url=None,
        base_url="http://localhost",
        key=key,
    )


async def _multi_attach(cases: openings.UseCases, *plans: Named, key: CallerKey | None = None) -> Attached:
    return await cases.billing.multi_attach(
        customer_id="ann", plans=plans, success_url=None, base_url="http://localhost", key=key
    )


async def _token(cases: openings.UseCases, plan_id: str, quantities: dict[str, int] | None = None) -> str:
    return _checkout_token((await _attach(cases, plan_id, None, quantities)).payment_url)


def _checkout_token(payment_url: str | None) -> str:
    assert payment_url is not None
    return payment_url.rsplit("/", 1)[1]


def _checkout_of(payment_url: str | None) -> str:
    """The signed part without its time."""
    return _checkout_token(payment_url).split(".")[0]
