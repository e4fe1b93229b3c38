"""What falls due happens once, whoever notices it."""

import asyncio

import pytest

from creditgate import openings
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import Interval, Recurrence
from creditgate.core.decisions import Mode
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.usage import Usage
from creditgate.engine.writer import CLOCK_SKEW_MAX_MS
from creditgate.errors import Undecided
from tests.engine.instants import SOON_MS, passed

MONTH_MS = 31 * 86_400_000


async def test_month_end_resets_the_plan_and_leaves_the_top_up(cases: openings.UseCases) -> None:
    """A month later the monthly credits are back at their allowance; what was bought is as it was."""
    await cases.customers.get_or_create("ann", Profile())
    await _buy(cases, "ann", "pro", {})
    await _buy(cases, "ann", "top_up", {"usd_credits": 20 * NANOS})
    await _track(cases, "ann", 110)  # 11 credits: the 10 of the month, then 1 of the top-up
    record = await cases.customers.get("ann")
    later = await cases.customers.advance_test_clock("ann", record.now + MONTH_MS)
    assert sorted(later.balances.values()) == [10 * NANOS, 19 * NANOS]
    again = await cases.customers.advance_test_clock("ann", later.now)
    assert again.balances == later.balances


async def test_many_missed_months_are_one_reset(cases: openings.UseCases) -> None:
    """A customer who comes back after years has one month's credits, and the next reset lies ahead."""
    await cases.customers.get_or_create("ann", Profile())
    record = await cases.customers.get("ann")
    later = await cases.customers.advance_test_clock("ann", record.now + 100 * MONTH_MS)
    assert list(later.balances.values()) == [5 * NANOS]
    (row,) = later.terms.rows
    assert row.resets_at is not None
    assert row.resets_at > later.now
    assert row.period >= 100


async def test_calls_at_the_boundary_reset_once(cases: openings.UseCases) -> None:
    """Parallel tracks one instant after a reset was due see one reset, and each is taken from the new credits."""
    await cases.customers.get_or_create("ann", Profile())
    now = cases.clock.now_ms()
    await cases.customers.grant(
        Grant(
            "ann", "basic_messages", 100 * NANOS, reset=Recurrence(Interval.HOUR), next_reset_at=now + SOON_MS
        )
    )
    await _track(cases, "ann", 30, feature="basic_messages")
    await passed(cases, now + SOON_MS)
    await asyncio.gather(*(_track(cases, "ann", 10, feature="basic_messages") for _ in range(5)))
    record = await cases.customers.get("ann")
    own = next(row for row in record.terms.rows if row.feature_id == "basic_messages")
    assert record.balances[own.id] == 50 * NANOS
    page = await cases.history.events(
        customer_id="ann", feature_ids=(), start=None, end=None, limit=100, cursor=""
    )
    assert len(page.events) == 6


async def test_the_sweep_closes_what_expired(cases: openings.UseCases) -> None:
    """A grant that expires is gone though nobody asks, and two sweeps at once close it once."""
    await cases.customers.get_or_create("ann", Profile())
    now = cases.clock.now_ms()
    await cases.customers.grant(Grant("ann", "usd_credits", 7 * NANOS, expires_at=now + SOON_MS))
    before = await cases.customers.get("ann")
    await passed(cases, now + SOON_MS)
    await asyncio.gather(cases.sweep.tick(), cases.sweep.tick())
    record = await cases.customers.get("ann")
    assert list(record.balances.values()) == [5 * NANOS]
    assert record.sequence == before.sequence + 1


async def test_clocks_that_disagree_step_nobody(cases: openings.UseCases) -> None:
    """A clock that jumped gives nobody a month: what is overdue waits, undecided, and everybody else goes on."""
    now = cases.clock.now_ms()
    for customer_id, next_reset_at in (("ann", now + SOON_MS), ("bob", now + MONTH_MS)):
        await cases.customers.get_or_create(customer_id, Profile())
        hourly = Recurrence(Interval.HOUR)
        await cases.customers.grant(
            Grant(customer_id, "basic_messages", NANOS, reset=hourly, next_reset_at=next_reset_at)
        )
    await passed(cases, now + SOON_MS)
    cases.clock.skew_ms = CLOCK_SKEW_MAX_MS + 1
    with pytest.raises(Undecided, match="clocks"):
        await _track(cases, "ann", 1)
    await _track(cases, "bob", 1)
    cases.clock.skew_ms = 0
    await _track(cases, "ann", 1)


async def _buy(cases: openings.UseCases, customer_id: str, plan_id: str, quantities: dict[str, int]) -> None:
    attached = await cases.billing.attach(
        customer_id=customer_id,
        plan_id=plan_id,
        quantities=quantities,
        success_url=None,
        base_url="http://localhost",
        key=None,
    )
    assert attached.payment_url is not None
    token = attached.payment_url.rsplit("/", 1)[1]
    await asyncio.gather(cases.billing.pay(token), cases.billing.pay(token))


async def _track(
    cases: openings.UseCases, customer_id: str, units: int, feature: str = "premium_messages"
) -> None:
    await cases.meter.track(Usage("track", customer_id, feature, None, units * NANOS, Mode.CAP))
