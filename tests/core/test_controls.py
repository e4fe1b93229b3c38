"""Controls: of several the strictest holds; a usage limit counts in its window, whatever the plans do meanwhile."""

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from creditgate.core.burn import order_fields
from creditgate.core.changes import Change, Step, terms_change
from creditgate.core.controls import (
    CUSTOMER,
    BillingControls,
    Gate,
    OverageAllowed,
    SpendLimit,
    UsageLimit,
    gates,
    overages,
    property_digests,
    property_text,
    spend_limits,
)
from creditgate.core.customers import Customer, Record, Subscription, Terms
from creditgate.core.forward import forward_change
from creditgate.core.intervals import Interval
from tests.core.words import DAY_MS, HOUR_MS, MONTH, NOW, Mint, catalog, nanos, record, row

FEBRUARY, MARCH, APRIL = NOW + 31 * DAY_MS, NOW + 59 * DAY_MS, NOW + 90 * DAY_MS
BERLIN = "Europe/Berlin"


def limit(most: str = "5", feature: str = "messages", interval: str = "month", **more: Any) -> UsageLimit:
    return UsageLimit(feature, nanos(most), Interval(interval), **more)


def capped(*limits: UsageLimit) -> BillingControls:
    return BillingControls(usage_limits=limits)


def held(
    *limits: UsageLimit, old: tuple[Gate, ...] = (), anchor: int = NOW, zone: str = "UTC", now: int = NOW
) -> tuple[Gate, ...]:
    """The gates of a customer's own limits."""
    return gates({CUSTOMER: capped(*limits)}, old, anchor=anchor, zone=zone, now=now)


# Spend limits and overage


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((), {}),
        ((("a", "5", True),), {"a": "5"}),
        ((("a", "5", True), ("a", "3", True), ("a", "4", True)), {"a": "3"}),
        ((("a", "5", True), ("a", "3", False)), {"a": "5"}),
        ((("a", "0", True), ("b", "1", True)), {"a": "0", "b": "1"}),
    ],
)
def test_the_smallest_spend_limit_holds(
    limits: tuple[tuple[str, str, bool], ...], expected: Mapping[str, str]
) -> None:
    """Whoever set it, customer or plan, nobody owes more than the smallest limit; one that is off is none."""
    controls = [
        BillingControls(spend_limits=(SpendLimit(feature, nanos(most), enabled),))
        for feature, most, enabled in limits
    ]
    assert spend_limits(controls) == {feature: nanos(most) for feature, most in expected.items()}


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ((True,), True),
        ((False,), False),
        ((True, False), False),
        ((False, True), False),
        ((True, True), True),
    ],
)
def test_one_no_forbids_overage(said: tuple[bool, ...], *, allowed: bool) -> None:
    """Overage that anybody forbids is forbidden."""
    controls = [BillingControls(overage_allowed=(OverageAllowed("a", each),)) for each in said]
    assert overages(controls) == {"a": allowed}


@pytest.mark.parametrize(
    ("more", "terms", "floor"),
    [
        ({}, {}, "0"),
        ({"may_go_negative": True}, {}, "~"),
        ({}, {"overages": {"messages": True}}, "~"),
        ({"may_go_negative": True}, {"overages": {"messages": False}}, "0"),
        ({"may_go_negative": True}, {"overages": {"other": False}}, "~"),
        ({"unlimited": True}, {"overages": {"messages": False}}, "*"),
        ({"rolled_from": "x"}, {"overages": {"messages": True}}, "^"),
    ],
)
def test_floor(more: dict[str, Any], terms: dict[str, Any], floor: str) -> None:
    """How far a row may go follows from its price, its kind and the controls, and is what the scripts are told."""
    one = row("r", "1", reset=None if "unlimited" in more or "rolled_from" in more else MONTH, **more)
    ceiling = 0 if "rolled_from" in more else nanos("1")
    period = 0 if one.resets_at else "-"
    assert order_fields(Terms((one,), **terms)) == {"messages": f"0:r:{floor}:{ceiling}:{period}"}


# Usage limits


def test_a_limit_is_a_gate() -> None:
    """A limit is a row of its own that holds what may still be used; its id is the same whenever it is worked out."""
    (gate,) = held(limit("5"))
    assert (gate.limit_nanos, gate.since, gate.resets_at) == (nanos("5"), NOW, FEBRUARY)
    assert held(limit("7"), old=(gate,))[0].id == gate.id
    others = [limit(feature="words"), limit(interval="day"), limit(in_utc=True), limit(properties={"a": "b"})]
    ids = {gate.id, *(held(other)[0].id for other in others)}
    assert len(ids) == 5


def test_of_twins_the_smaller_holds() -> None:
    """Two limits on the same window do not add up, in whatever order they are written; one that is off is none."""
    for limits in (
        (limit("7"), limit("3")),
        (limit("3"), limit("7")),
        (limit("3"), limit("1", enabled=False)),
    ):
        assert [gate.limit_nanos for gate in held(*limits)] == [nanos("3")]


def test_limits_of_customer_and_plan_both_hold() -> None:
    """Each has its own gate, so the stricter stops a call."""
    found = gates(
        {CUSTOMER: capped(limit("5")), "sub_1": capped(limit("3"))}, (), anchor=NOW, zone="UTC", now=NOW
    )
    assert [(gate.source, gate.limit_nanos) for gate in found] == [
        (CUSTOMER, nanos("5")),
        ("sub_1", nanos("3")),
    ]


@pytest.mark.parametrize(
    ("interval", "in_utc", "now", "ends"),
    [
        ("day", False, NOW + 5 * HOUR_MS, NOW + DAY_MS + 2 * HOUR_MS),
        ("day", True, NOW + 5 * HOUR_MS, NOW + DAY_MS),
        ("week", True, NOW + 5 * HOUR_MS, NOW + 4 * DAY_MS),  # Monday, 5 January 2026
        ("month", False, NOW + 40 * DAY_MS, MARCH + 2 * HOUR_MS),
        ("month", True, NOW + 40 * DAY_MS, MARCH),
        ("year", True, NOW + 40 * DAY_MS, NOW + 365 * DAY_MS),
        ("year", False, NOW + 400 * DAY_MS, NOW + 730 * DAY_MS + 2 * HOUR_MS),
    ],
)
def test_windows(interval: str, now: int, ends: int, *, in_utc: bool) -> None:
    """A window of the billing cycle hangs on its anchor, one in UTC on the calendar."""
    (gate,) = held(limit(interval=interval, in_utc=in_utc), anchor=NOW + 2 * HOUR_MS, now=now)
    assert gate.resets_at == ends


def test_windows_end_with_the_reset_in_summer_and_winter() -> None:
    """The window of a billing cycle ends when the monthly balance starts again, in the customer's time zone."""
    monthly = row("m", reset=MONTH, zone=BERLIN)
    (gate,) = held(limit(), zone=BERLIN)
    for _ in range(12):
        assert gate.resets_at == monthly.resets_at
        (gate,) = held(limit(), old=(gate,), zone=BERLIN, now=gate.resets_at)
        assert monthly.anchor is not None
        monthly = replace(monthly, resets_at=gate.resets_at)
    (utc,) = held(limit(in_utc=True), zone=BERLIN, now=APRIL + 1)
    assert utc.resets_at == NOW + 120 * DAY_MS


def test_the_count_begins_again_with_the_window_only() -> None:
    """Within the window nothing changes; at its end there is one fresh limit, however many windows were missed."""
    (gate,) = held(limit())
    assert held(limit(), old=(gate,), now=FEBRUARY - 1) == (gate,)
    (next_one,) = held(limit(), old=(gate,), now=FEBRUARY)
    assert (next_one.since, next_one.resets_at) == (FEBRUARY, MARCH)
    (later,) = held(limit(), old=(gate,), now=APRIL + 5)
    assert (later.since, later.resets_at) == (APRIL, NOW + 120 * DAY_MS)


def test_a_change_of_plans_moves_the_window_and_keeps_the_count() -> None:
    """Who attaches a plan to be given a fresh limit gets none; the window ends with the new billing cycle."""
    (gate,) = held(limit())
    plan_at = NOW + 10 * DAY_MS
    (moved,) = held(limit(), old=(gate,), anchor=plan_at, now=plan_at)
    assert (moved.since, moved.resets_at) == (gate.since, FEBRUARY + 10 * DAY_MS)
    (ended,) = held(limit(), old=(gate,), anchor=plan_at, now=FEBRUARY)
    assert ended.since == FEBRUARY
    assert ended.resets_at == FEBRUARY + 10 * DAY_MS
    (utc,) = held(limit(in_utc=True), old=(), anchor=NOW)
    assert held(limit(in_utc=True), old=(utc,), anchor=plan_at, now=plan_at) == (utc,)


def test_another_time_zone_moves_the_next_windows() -> None:
    """A customer who moves east and back is given no second window within a day."""
    (gate,) = held(limit(interval="day"))
    (there,) = held(limit(interval="day"), old=(gate,), zone="Pacific/Auckland", now=NOW + 1)
    assert (there.since, there.resets_at) == (gate.since, gate.resets_at)
    (next_one,) = held(limit(interval="day"), old=(there,), zone="America/New_York", now=gate.resets_at)
    assert next_one.period == gate.period + 1
    assert next_one.resets_at > gate.resets_at + 20 * HOUR_MS


def holder(*limits: UsageLimit, **more: Any) -> Customer:
    return Customer("ann", NOW, controls=capped(*limits), **more)


def with_gates(customer: Customer, **used: str) -> Record:
    """The customer with the gates that follow from the controls, of which so much was used, by feature."""
    bare = record(row("m", "100", reset=MONTH), customer=customer)
    terms = changed(bare, customer).terms
    assert terms is not None
    balances = {gate.id: gate.limit_nanos - nanos(used.get(gate.feature_id, "0")) for gate in terms.gates}
    return replace(bare, terms=terms, balances=bare.balances | balances)


def changed(held_record: Record, customer: Customer) -> Change:
    """The change to a customer with other controls."""
    return terms_change(held_record, held_record.terms.rows, (), (), customer)


def test_gates_open_move_and_close_with_the_limits() -> None:
    """A limit that is raised leaves so much more, one that is lowered less; one that is taken away holds no more."""
    before = with_gates(holder(limit("5")), messages="3")
    (gate,) = before.terms.gates
    assert changed(before, holder(limit("8"))).steps == (Step("shift", gate.id, nanos("3")),)
    assert changed(before, holder(limit("1"))).steps == (Step("shift", gate.id, nanos("-4")),)
    assert changed(before, holder()).steps == (Step("close", gate.id),)
    words = changed(before, holder(limit("5"), limit("2", "words")))
    assert words.terms is not None
    assert words.steps == (Step("open", words.terms.gates[1].id, nanos("2")),)
    assert changed(before, holder(limit("5"), name="Ann")).steps == ()


def test_the_window_is_forwarded_like_a_reset() -> None:
    """When the window ends by itself the gate starts again with its limit, and is due again at the next end."""
    before = with_gates(holder(limit("5", interval="day")), messages="3")
    (gate,) = before.terms.gates
    assert before.terms.rows[0].resets_at == FEBRUARY
    change = forward_change(replace(before, now=NOW + DAY_MS), catalog(), Mint())
    assert change.steps == (Step("reset", gate.id, nanos("5")),)
    assert change.due == NOW + 2 * DAY_MS


def test_order_names_limits_before_rows() -> None:
    """What the scripts read of a feature: spend limit, gates with their filters, then rows, if there are any."""
    customer = holder(limit("5"), limit("5", "action1", properties={"model": "large"}))
    customer = replace(
        customer, controls=replace(customer.controls, spend_limits=(SpendLimit("messages", nanos("9")),))
    )
    held_record = with_gates(customer)
    plain, filtered = held_record.terms.gates
    (digest,) = property_digests({"model": "large"})
    assert order_fields(held_record.terms) == {
        "messages": f"$9000000000 @{plain.id}:-:{NOW} 0:m:0:100000000000:0",
        "action1": f"@{filtered.id}:{digest}:{NOW}",
    }


def test_billing_cycle() -> None:
    """Windows hang on the paid plan, before free ones and add-ons; without any plan, on the customer's creation."""

    def sub(anchor: int, **more: Any) -> Subscription:
        return Subscription(f"s{anchor}", "p", 1, anchor, anchor, **more)

    assert Customer("ann", NOW).cycle_anchor == NOW
    subscriptions = (sub(1), sub(2, add_on=True, recurrence=MONTH), sub(3, recurrence=MONTH))
    assert Customer("ann", NOW, subscriptions=subscriptions).cycle_anchor == 3
    assert Customer("ann", NOW, subscriptions=subscriptions[:2]).cycle_anchor == 1


# Properties


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (10, 10.0, True),
        (1e3, 1000, True),
        (0, -0.0, True),
        (10, "10", True),
        (10.5, 10, False),
        (True, "true", True),
        (True, 1, False),
        (False, 0, False),
        ("a", "A", False),
        ("", "null", False),
        (1e300, 10**300, False),  # a double is what it is
        ("ü", "u\u0308", False),
    ],
)
def test_property_values(one: Any, other: Any, *, same: bool) -> None:
    """A filter compares what a caller means: numbers by value, text letter by letter."""
    assert (property_text(one) == property_text(other)) == same
    assert (property_digests({"p": one}) == property_digests({"p": other})) == same


def test_digests_tell_names_from_values() -> None:
    """No property passes for another one, and what no filter can ask for is left out."""
    found = property_digests({"a": "b=c", "a=b": "c", "n": None, "l": [1], "o": {"x": 1}})
    assert len(found) == len(set(found)) == 2
