"""Attaching: when a plan starts, what goes over from the old one, and what several changes in one step come to."""

import pytest

from creditgate.core.attach import after, attach, switch_to, together
from creditgate.core.catalog import Catalog, FreeTrial, Interval, Plan, Recurrence, Rollover
from creditgate.core.changes import Change
from creditgate.core.customers import AttachOptions, Customer, Record, Row
from creditgate.core.forward import forward_change, up_to_next_plan
from creditgate.errors import Conflict, InvalidInputs, InvalidRequest
from tests.core.words import (
    DAY_MS,
    MONTH,
    NOW,
    YEAR,
    Mint,
    catalog,
    feature,
    item,
    nanos,
    plan,
    record,
    system,
)

MONTH_END = NOW + 31 * DAY_MS
FEATURES = (feature("messages"), feature("seats", consumable=False), system("usd", messages="0.01"))

FREE = plan("free", item("usd", "5", reset=MONTH), auto_enable=True)
PRO = plan("pro", item("usd", "100", reset=MONTH), price="10")
MAX = plan("max", item("usd", "500", reset=MONTH), price="50")
SHOP = catalog(*FEATURES, FREE, PRO, MAX)


def on(shop: Catalog, *plan_ids: str, **balances: str) -> tuple[Record, Mint]:
    """A customer to whom these plans were attached, with balances by feature, else full."""
    held, mint = record(customer=Customer("ann", NOW)), Mint()
    for plan_id in plan_ids:
        change = attach(held, held.customer, shop, shop.plan(plan_id), {}, mint=mint)
        held = after(held, change)
    for row in held.terms.rows:
        if row.feature_id in balances:
            held.balances[row.id] = nanos(balances[row.feature_id])
    return held, mint


def switched(held: Record, shop: Catalog, plan_id: str, mint: Mint, **options: object) -> Change:
    said = AttachOptions(**options)  # type: ignore[arg-type]
    return attach(held, held.customer, shop, shop.plan(plan_id), {}, mint=mint, options=said)


def amounts(held: Record) -> list[tuple[str | None, int]]:
    """The plan and the balance of each row, in nanos, in burn order."""
    return [(row.plan_id, held.balances[row.id]) for row in held.terms.rows]


def row_of(held: Record, plan_id: str | None) -> Row:
    return next(row for row in held.terms.rows if row.plan_id == plan_id)


@pytest.mark.parametrize("schedule", [None, "end_of_cycle"])
def test_a_cheaper_plan_waits_until_what_was_paid_is_over(schedule: str | None) -> None:
    """Nobody loses a month that was paid: the old credits stay, and the new plan comes with its own allowance."""
    held, mint = on(SHOP, "pro", usd="40")
    change = switched(held, SHOP, "free", mint, schedule=schedule)
    assert (change.steps, change.due) == ((), MONTH_END)
    later = after(held, change)
    assert [(s.plan_id, s.canceled_at, s.expires_at) for s in later.customer.subscriptions] == [
        ("pro", NOW, MONTH_END)
    ]
    then = record(*later.terms.rows, customer=later.customer, now=MONTH_END, balances={"bal_2": "40"})
    stepped = after(then, forward_change(then, SHOP, mint))
    assert [s.plan_id for s in stepped.customer.subscriptions] == ["free"]
    assert stepped.customer.scheduled == ()
    assert amounts(stepped) == [("free", nanos("5"))]


def test_a_cheaper_plan_at_once_if_it_is_asked_for() -> None:
    """`plan_schedule: immediate` does not wait."""
    held, mint = on(SHOP, "pro")
    assert amounts(after(held, switched(held, SHOP, "free", mint, schedule="immediate"))) == [
        ("free", nanos("5"))
    ]


def test_a_dearer_plan_can_wait_too() -> None:
    """`plan_schedule: end_of_cycle` keeps what was paid; the dearer plan comes after it."""
    held, mint = on(SHOP, "pro")
    later = after(held, switched(held, SHOP, "max", mint, schedule="end_of_cycle"))
    assert [(s.plan_id, s.starts_at) for s in later.customer.scheduled] == [("max", MONTH_END)]


def test_attaching_the_plan_again_takes_the_end_back() -> None:
    """A customer who changes their mind before the end goes on as before, and pays nothing twice."""
    held, mint = on(SHOP, "pro")
    leaving = after(held, switched(held, SHOP, "free", mint))
    staying = after(leaving, switched(leaving, SHOP, "pro", mint))
    assert staying.customer.subscriptions == held.customer.subscriptions
    assert staying.customer.scheduled == ()
    with pytest.raises(Conflict):
        switched(staying, SHOP, "pro", mint)


def test_what_was_scheduled_goes_with_another_attach() -> None:
    """Of two plans of a group only one can come: the last that was asked for."""
    held, mint = on(SHOP, "pro")
    leaving = after(held, switched(held, SHOP, "free", mint))
    dearer = after(leaving, switched(leaving, SHOP, "max", mint))
    assert dearer.customer.scheduled == ()
    assert [s.plan_id for s in dearer.customer.subscriptions] == ["max"]


def test_an_add_on_comes_once() -> None:
    """An add-on that is asked for again, now or for another day, does not come a second time on the first day."""
    extra = plan("extra", item("usd", "1", reset=MONTH), price="3", add_on=True)
    shop = catalog(*FEATURES, FREE, extra)
    held, mint = on(shop, "free")
    soon, later = NOW + 3 * DAY_MS, NOW + 9 * DAY_MS
    coming = after(held, switched(held, shop, "extra", mint, starts_at=soon))
    moved = after(coming, switched(coming, shop, "extra", mint, starts_at=later))
    assert [s.starts_at for s in moved.customer.scheduled] == [later]
    there = after(moved, switched(moved, shop, "extra", mint))
    assert there.customer.scheduled == ()
    assert [s.plan_id for s in there.customer.subscriptions] == ["free", "extra"]


def test_an_add_on_that_is_to_come_outlives_a_change_of_plans() -> None:
    """An add-on has no place in a group: what was scheduled of it comes, whatever plan the customer is on by then."""
    shop = catalog(*FEATURES, FREE, PRO, plan("extra", item("usd", "1", reset=MONTH), add_on=True))
    held, mint = on(shop, "free")
    coming = after(held, switched(held, shop, "extra", mint, starts_at=NOW + DAY_MS))
    changed = after(coming, switched(coming, shop, "pro", mint))
    assert [s.plan_id for s in changed.customer.subscriptions] == ["pro"]
    assert [s.plan_id for s in changed.customer.scheduled] == ["extra"]


def test_a_start_in_the_future() -> None:
    """Nothing is given before; then the plan starts with its own periods, in place of the one of its group."""
    held, mint = on(SHOP, "free")
    at = NOW + 3 * DAY_MS
    later = after(held, switched(held, SHOP, "pro", mint, starts_at=at))
    assert amounts(later) == [("free", nanos("5"))]
    then = record(*later.terms.rows, customer=later.customer, now=at + DAY_MS)
    stepped = after(then, forward_change(up_to_next_plan(then), SHOP, mint))
    assert amounts(stepped) == [("pro", nanos("100"))]
    assert row_of(stepped, "pro").anchor == at


def test_an_end_is_kept() -> None:
    """A plan with `ends_at` is over then, and the free plan comes back in the same step."""
    held, mint = on(SHOP, "free")
    end = NOW + 10 * DAY_MS
    later = after(held, switched(held, SHOP, "pro", mint, ends_at=end))
    then = record(*later.terms.rows, customer=later.customer, now=end)
    assert amounts(after(then, forward_change(then, SHOP, mint))) == [("free", nanos("5"))]
    with pytest.raises(InvalidInputs):
        switched(held, SHOP, "pro", mint, ends_at=NOW)


USAGES: list[tuple[str, str, str, str]] = [
    ("60", "max", "500", "460"),  # 40 of 100 used
    ("100", "max", "500", "500"),
    ("-20", "max", "500", "380"),
]


@pytest.mark.parametrize(("left", "plan_id", "granted", "expected"), USAGES)
def test_usage_goes_over(left: str, plan_id: str, granted: str, expected: str) -> None:
    """What was used of the old grant is used of the new one: by a difference, so no track in between is lost."""
    held, mint = on(SHOP, "pro", usd=left)
    change = switched(held, SHOP, plan_id, mint, carry_usages=())
    assert [step.action for step in change.steps] == ["shift"]
    assert not change.is_exact
    later = after(held, change)
    assert amounts(later) == [(plan_id, nanos(expected))]
    assert later.terms.rows[0].granted_nanos == nanos(granted)


def test_usage_beyond_a_smaller_grant_goes_below_zero() -> None:
    """50 used, and the new plan gives 30: 20 are still owed."""
    small = plan("small", item("usd", "30", reset=MONTH), price="10")
    shop = catalog(*FEATURES, PRO, small)
    held, mint = on(shop, "pro", usd="50")
    assert amounts(after(held, switched(held, shop, "small", mint, carry_usages=("usd",)))) == [
        ("small", nanos("-20"))
    ]


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ("70", [("max", "500"), (None, "70")]),
        ("0", [("max", "500")]),
        ("-20", [("max", "480")]),
    ],
)
def test_what_is_left_goes_over(left: str, expected: list[tuple[str | None, str]]) -> None:
    """What is left becomes a grant until the old reset; what is below zero goes off the new grant."""
    held, mint = on(SHOP, "pro", usd=left)
    change = switched(held, SHOP, "max", mint, carry_balances=())
    assert change.is_exact, "a track in between would be lost or taken twice"
    later = after(held, change)
    assert amounts(later) == [(plan_id, nanos(amount)) for plan_id, amount in expected]
    if nanos(left) > 0:
        assert row_of(later, None).expires_at == MONTH_END


def test_seats_stay_in_use() -> None:
    """Two of three seats are taken; the new plan has five: three are free."""
    team, big = plan("team", item("seats", "3"), price="1"), plan("big", item("seats", "5"), price="10")
    shop = catalog(*FEATURES, team, big)
    held, mint = on(shop, "team", seats="1")
    assert amounts(after(held, switched(held, shop, "big", mint))) == [("big", nanos("3"))]


def rolling(plan_id: str, granted: str, most: str, price: str) -> Plan:
    rolls = item("usd", granted, reset=MONTH)
    rolls = type(rolls)(
        rolls.feature_id, rolls.included_nanos, rolls.reset, rollover=Rollover(1, nanos(most))
    )
    return plan(plan_id, rolls, price=price)


@pytest.mark.parametrize(
    ("most", "left"), [("600", ["100", "500"]), ("550", ["50", "500"]), ("400", ["400"])]
)
def test_rollovers_go_over_up_to_the_new_cap(most: str, left: list[str]) -> None:
    """What had rolled over is the customer's, as far as the new plan lets it."""
    old, new = rolling("old", "500", "1000", "1"), rolling("new", "500", most, "2")
    shop = catalog(*FEATURES, old, new)
    held, mint = on(shop, "old")
    parent = held.terms.rows[0]
    rolled = [
        Row(
            f"r{number}",
            "usd",
            NOW + number,
            included_nanos=nanos(amount),
            expires_at=MONTH_END + number,
            rolled_from=parent.id,
            owner_id=parent.owner_id,
        )
        for number, amount in enumerate(("100", "500"))
    ]
    held = record(*rolled, parent, customer=held.customer)
    later = after(held, switched(held, shop, "new", mint))
    assert [held for plan_id, held in amounts(later)] == [*map(nanos, left), nanos("500")]
    assert {row.rolled_from for row in later.terms.rows[:-1]} == {later.terms.rows[-1].id}


def test_a_trial_is_free_once() -> None:
    """The plan is on trial, then goes on; a second time there is none."""
    trial = FreeTrial(Recurrence(Interval.DAY, 7))
    pro = plan("pro", item("usd", "100", reset=MONTH), price="10", free_trial=trial)
    shop = catalog(*FEATURES, FREE, pro)
    held, mint = on(shop, "free")
    later = after(held, switched(held, shop, "pro", mint))
    subscription = later.customer.subscriptions[0]
    assert (subscription.trial_ends_at, subscription.anchor, subscription.expires_at) == (
        NOW + 7 * DAY_MS,
        NOW + 7 * DAY_MS,
        None,
    )
    assert later.customer.trials == ("pro",)
    back = after(later, switched(later, shop, "free", mint, schedule="immediate"))
    again = after(back, switched(back, shop, "pro", mint))
    assert again.customer.subscriptions[0].trial_ends_at is None


def test_a_trial_that_reverts_ends_by_itself() -> None:
    """With `on_end: revert` the free plan comes back when the trial is over."""
    trial = FreeTrial(Recurrence(Interval.DAY, 7), reverts=True)
    pro = plan("pro", item("usd", "100", reset=MONTH), price="10", free_trial=trial)
    shop = catalog(*FEATURES, FREE, pro)
    held, mint = on(shop, "free")
    later = after(held, switched(held, shop, "pro", mint))
    then = record(*later.terms.rows, customer=later.customer, now=NOW + 7 * DAY_MS)
    assert amounts(after(then, forward_change(then, shop, mint))) == [("free", nanos("5"))]


@pytest.mark.parametrize(
    ("plan_id", "options", "error"),
    [
        ("top", {"starts_at": NOW + 1}, InvalidRequest),
        ("top", {"ends_at": NOW + 1}, InvalidRequest),
        ("pro", {"ends_at": NOW - 1}, InvalidInputs),
    ],
)
def test_times_that_make_no_sense(plan_id: str, options: dict[str, int], error: type[Exception]) -> None:
    """What is bought once has no start and no end."""
    shop = catalog(*FEATURES, PRO, plan("top", item("usd", price="1")))
    held, mint = on(shop)
    with pytest.raises(error):
        switched(held, shop, plan_id, mint, **options)


def test_a_yearly_plan_is_compared_by_its_price_for_the_same_time() -> None:
    """100 a year is cheaper than 10 a month, and 200 is dearer."""
    cheap, dear = plan("cheap", price="100", every=YEAR), plan("dear", price="200", every=YEAR)
    shop = catalog(*FEATURES, PRO, cheap, dear)
    held, _ = on(shop, "pro")
    assert switch_to(held.customer, shop, cheap, NOW).starts_at == MONTH_END
    assert switch_to(held.customer, shop, dear, NOW).starts_at == NOW


def test_two_changes_in_one_step() -> None:
    """A plan and an add-on in one change come to the same as one after the other."""
    extra = plan("extra", item("messages", "7"), price="1", add_on=True)
    shop = catalog(*FEATURES, FREE, PRO, extra)
    held, mint = on(shop, "free")
    first = switched(held, shop, "pro", mint)
    between = after(held, first)
    both = together(first, switched(between, shop, "extra", mint))
    later = after(held, both)
    assert sorted(s.plan_id for s in later.customer.subscriptions) == ["extra", "pro"]
    assert sorted(amounts(later), key=str) == sorted([("extra", nanos("7")), ("pro", nanos("100"))], key=str)
