"""Time passes, and it does not matter who looks: in one leap or boundary by boundary, with the sidecar up or down."""

from typing import Any

import pytest

from creditgate import openings
from creditgate.balances.store import BalanceStore
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import Interval, Plan, PlanItem, PlanPrice, Recurrence, Rollover
from creditgate.core.changes import next_due
from creditgate.core.controls import BillingControls, UsageLimit
from creditgate.core.customers import Customer, Record
from creditgate.core.decisions import Mode
from creditgate.core.journal import Call
from creditgate.core.plans import new_customer
from creditgate.engine.customers import Grant
from creditgate.engine.ids import mint
from creditgate.engine.usage import Usage

DAY_MS = 86_400_000
NEVER_TOO_LATE = 10**14
MONTH, DAY, WEEK = Recurrence(Interval.MONTH), Recurrence(Interval.DAY), Recurrence(Interval.WEEK)
MONTH_END = 1_769_862_896_789  # 31 January 2026, 12:34:56.789
BEFORE_SUMMER = (
    1_774_650_600_000  # 27 March 2026, 22:30, two days before the clocks of Berlin are put forward
)

LIMITS = BillingControls(
    usage_limits=(
        UsageLimit("basic_messages", 30 * NANOS, Interval.WEEK),
        UsageLimit("premium_messages", 9 * NANOS, Interval.MONTH, in_utc=True),
    )
)
SAVER = Plan(
    "saver",
    "Saver",
    0,
    group="savings",
    items=(
        PlanItem("usd_credits", 7 * NANOS, reset=MONTH, rollover=Rollover(2, max_nanos=12 * NANOS)),
        PlanItem("basic_messages", 3 * NANOS, reset=DAY, rollover=Rollover(1)),
        PlanItem("premium_messages", 2 * NANOS, reset=WEEK, rollover=Rollover()),
    ),
)
RENTED = Plan(
    "rented",
    "Rented",
    0,
    group="savings",
    price=PlanPrice(NANOS, MONTH),
    items=(PlanItem("usd_credits", 90 * NANOS, reset=MONTH, rollover=Rollover(None, max_nanos=100 * NANOS)),),
)


@pytest.fixture
async def shop(cases: openings.UseCases) -> openings.UseCases:
    """The tutorial's catalog, and two plans of which things roll over."""
    for plan in (SAVER, RENTED):
        await cases.catalogs.create_plan(plan)
    await cases.catalogs.giving(plan_ids=["free", "saver", "rented"])
    return cases


@pytest.mark.parametrize("plan_id", ["saver", "rented"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Apia"])
@pytest.mark.parametrize("start", [MONTH_END, BEFORE_SUMMER])
async def test_one_leap_is_as_many_small_steps(
    shop: openings.UseCases, stores: openings.Stores, start: int, zone: str, plan_id: str
) -> None:
    """A test that advances a clock by half a year sees what production does in half a year of days."""
    for name in ("leaps", "walks"):
        await _made(shop, stores, name, start, zone, plan_id, is_pinned=True)
    for days in (1, 40, 9, 150):
        to = (await shop.customers.get("leaps")).now + days * DAY_MS
        await shop.customers.advance_test_clock("leaps", to)
        await _walk(shop, "walks", to)
        assert _seen(await shop.customers.get("leaps")) == _seen(await shop.customers.get("walks"))
        for name in ("leaps", "walks"):
            for feature in ("basic_messages", "premium_messages"):
                await _track(shop, name, feature, 5)


@pytest.mark.parametrize("plan_id", ["saver", "rented"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
async def test_a_sidecar_that_was_down_for_months_catches_up(
    shop: openings.UseCases, stores: openings.Stores, zone: str, plan_id: str
) -> None:
    """Nobody loses, and nobody gains, by months in which nothing ran: the first sweep makes up for all of them."""
    now = shop.clock.now_ms()
    start = now - 217 * DAY_MS - 12_345_678
    await _made(shop, stores, "asleep", start, zone, plan_id, is_pinned=False)
    await _made(shop, stores, "awake", start, zone, plan_id, is_pinned=True)
    while (await shop.customers.get("awake")).now < now:
        due = _due(await shop.customers.get("awake"))
        await shop.customers.advance_test_clock("awake", min(due, now))
    assert await shop.sweep.tick() == 1
    asleep = await shop.customers.get("asleep")
    assert _seen(asleep) == _seen(await shop.customers.get("awake"))
    assert _due(asleep) > now
    assert await shop.sweep.tick() == 0


async def _made(
    cases: openings.UseCases,
    stores: openings.Stores,
    customer_id: str,
    start: int,
    zone: str,
    plan_id: str,
    *,
    is_pinned: bool,
) -> None:
    """A customer who came at this instant; without a pinned clock, all that fell due since is still to be done."""
    catalog = cases.catalogs.current
    plans = (catalog.plan("free"), catalog.plan(plan_id))
    customer = Customer(customer_id, start, controls=LIMITS, time_zone=zone)
    store = BalanceStore(stores.redis, stores.keys, cases.clock)
    await store.change(
        not_after=NEVER_TOO_LATE,
        customer_id=customer_id,
        call=Call("create", mint("op"), catalog.version),
        uid=mint("uid"),
        expected_shape=0,
        expected_sequence=None,
        clock=start if is_pinned else None,
        change=new_customer(customer, catalog, plans, now=start, mint=mint),
    )


async def _walk(cases: openings.UseCases, customer_id: str, to: int) -> None:
    """Be there at every boundary."""
    while (record := await cases.customers.get(customer_id)).now < to:
        await cases.customers.advance_test_clock(customer_id, min(_due(record), to))


async def _track(cases: openings.UseCases, customer_id: str, feature: str, units: int) -> None:
    await cases.meter.track(Usage("track", customer_id, feature, None, units * NANOS, Mode.CAP))


def _due(record: Record) -> int:
    due = next_due(record.customer, record.terms)
    assert due is not None
    return due


def _seen(record: Record) -> dict[str, Any]:
    """What a customer has, and until when, without the ids that were made."""
    rows = [
        (r.feature_id, r.plan_id, r.expires_at, r.resets_at, r.granted_nanos, record.balances[r.id])
        for r in record.terms.rows
    ]
    gates = [(g.feature_id, g.since, g.resets_at, record.balances[g.id]) for g in record.terms.gates]
    return {"rows": rows, "gates": gates, "plans": [s.plan_id for s in record.customer.subscriptions]}


async def test_a_grant_is_the_same_in_a_leap(shop: openings.UseCases, stores: openings.Stores) -> None:
    """A grant with resets, a rollover and an end is over when it is over, however time comes there."""
    for name in ("leaps", "walks"):
        await _made(shop, stores, name, MONTH_END, "Europe/Berlin", "saver", is_pinned=True)
        await shop.customers.grant(
            Grant(
                name,
                "premium_messages",
                5 * NANOS,
                reset=DAY,
                rollover=Rollover(1, max_nanos=9 * NANOS),
                expires_at=MONTH_END + 50 * DAY_MS,
            )
        )
    for days in (30, 49, 50, 51):
        to = MONTH_END + days * DAY_MS
        await shop.customers.advance_test_clock("leaps", to)
        await _walk(shop, "walks", to)
        assert _seen(await shop.customers.get("leaps")) == _seen(await shop.customers.get("walks"))
