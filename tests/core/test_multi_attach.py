"""Several plans in one step: what they come to together, what is paid now, and which exclude each other."""

import pytest
from msgspec.structs import replace

from creditgate.core.attach import after, attach
from creditgate.core.burn import ROWS_MAX, order_fields
from creditgate.core.catalog import FreeTrial, Interval, Recurrence
from creditgate.core.changes import Change, next_due
from creditgate.core.controls import BillingControls, UsageLimit
from creditgate.core.customers import AttachOptions, Customer, Record
from creditgate.core.multi_attach import Wanted, check_together, multi_attach, paid_now
from creditgate.errors import Conflict, InvalidInputs
from tests.core.words import (
    DAY_MS,
    MONTH,
    NOW,
    ONE_OFF,
    Mint,
    catalog,
    feature,
    item,
    nanos,
    plan,
    record,
    row,
    system,
)

FEATURES = (feature("messages"), system("usd", messages="0.01"))
FREE = plan("free", item("usd", "5", reset=MONTH))
PRO = plan("pro", item("usd", "100", reset=MONTH), price="10")
MAX = plan("max", item("usd", "500", reset=MONTH), price="50")
EXTRA = plan("extra", item("messages", "7", reset=MONTH), price="3", add_on=True)
TRIED = replace(
    plan("tried", item("messages", "1", reset=MONTH), price="4", group="other"),
    free_trial=FreeTrial(Recurrence(Interval.DAY, 7)),
)
ONCE = plan("once", item("usd", "20"), price="2", every=ONE_OFF)
SHOP = catalog(*FEATURES, FREE, PRO, MAX, EXTRA, TRIED, ONCE)


def held_on(*plan_ids: str) -> tuple[Record, Mint]:
    """A customer to whom these plans were attached one after the other."""
    held, mint = record(customer=Customer("ann", NOW)), Mint()
    for plan_id in plan_ids:
        held = after(held, attach(held, held.customer, SHOP, SHOP.plan(plan_id), {}, mint=mint))
    return held, mint


def wanted(*plan_ids: str) -> list[Wanted]:
    return [Wanted(SHOP.plan(plan_id), {}) for plan_id in plan_ids]


def together(held: Record, mint: Mint, *plan_ids: str, options: AttachOptions | None = None) -> Change:
    return multi_attach(
        held, held.customer, SHOP, wanted(*plan_ids), mint=mint, options=options or AttachOptions()
    )


@pytest.mark.parametrize("plan_ids", [("pro", "extra", "once"), ("once", "extra", "pro"), ("extra",)])
def test_together_is_as_one_after_the_other(plan_ids: tuple[str, ...]) -> None:
    """One call gives what as many calls would: the same rows, amounts, plans and next due instant."""
    held, mint = held_on("free")
    at_once = together(held, mint, *plan_ids)
    one_by_one, _ = held_on("free", *plan_ids)
    result = after(held, at_once)
    assert (result.customer, result.terms) == (one_by_one.customer, one_by_one.terms)
    assert result.balances == one_by_one.balances
    assert order_fields(result.terms).items() <= at_once.orders.items()
    assert at_once.due == next_due(result.customer, result.terms)


def test_the_limits_of_several_plans_are_opened_once() -> None:
    """Each plan's usage limit counts from nothing; the second plan does not open the first one's again."""
    limit = UsageLimit(feature_id="messages", limit_nanos=nanos("10"), interval=Interval.DAY)
    shop = catalog(
        *FEATURES,
        replace(PRO, controls=BillingControls(usage_limits=(limit,))),
        replace(EXTRA, controls=BillingControls(usage_limits=(limit,))),
    )
    held, mint = record(customer=Customer("ann", NOW)), Mint()
    plans = [Wanted(shop.plan(plan_id), {}) for plan_id in ("pro", "extra")]
    change = multi_attach(held, held.customer, shop, plans, mint=mint)
    opened = [step.row_id for step in change.steps if step.action == "open"]
    assert len(opened) == len(set(opened))
    assert set(after(held, change).balances) == after(held, change).terms.held_ids


def test_one_that_cannot_come_refuses_all() -> None:
    """All or nothing: no change at all comes of a list with one that the customer has, or of rows that do not fit."""
    held, mint = held_on("pro")
    with pytest.raises(Conflict) as refused:
        together(held, mint, "extra", "pro")
    assert refused.value.code == "plan_already_attached"
    full = record(*(row(f"r{n}", reset=ONE_OFF) for n in range(ROWS_MAX - 1)))
    with pytest.raises(Conflict) as refused:
        together(full, mint, "pro", "extra")
    assert refused.value.code == "too_many_balances"


@pytest.mark.parametrize(
    ("plan_ids", "said"),
    [
        (("pro", "max"), "plans: max and pro are of the same group"),
        (("pro", "once", "pro"), "plans: pro is listed twice"),
        (("extra", "extra"), "plans: extra is listed twice"),
    ],
)
def test_plans_that_exclude_each_other(plan_ids: tuple[str, ...], said: str) -> None:
    """Of two plans of a group, one would be paid and gone at once; nobody means that."""
    with pytest.raises(InvalidInputs, match=said):
        check_together(wanted(*plan_ids))


def test_plans_that_go_together() -> None:
    """One of each group, add-ons beside them, and what is bought once as often as it is listed."""
    check_together(wanted("pro", "tried", "extra", "once", "once"))


def test_only_what_is_due_is_paid() -> None:
    """A trial costs nothing now, and a plan that starts later is paid later; the others are paid."""
    held, _ = held_on("free")
    all_of_them = wanted("pro", "tried", "once")
    assert paid_now(held.customer, SHOP, all_of_them, NOW) == [nanos("10"), 0, nanos("2")]
    untried = AttachOptions(no_trial=True)
    assert paid_now(held.customer, SHOP, all_of_them, NOW, untried) == [nanos("10"), nanos("4"), nanos("2")]
    later = AttachOptions(starts_at=NOW + DAY_MS)
    assert paid_now(held.customer, SHOP, wanted("pro", "extra"), NOW, later) == [0, 0]
    on_max, _ = held_on("max")
    assert paid_now(on_max.customer, SHOP, wanted("pro", "once"), NOW) == [0, nanos("2")]


@pytest.mark.parametrize(("anchor_now", "anchor"), [(False, NOW), (True, NOW + DAY_MS)])
def test_periods_that_begin_anew(anchor_now: bool, anchor: int) -> None:
    """`billing_cycle_anchor: now` begins a new month; without it an upgrade keeps the day of the month."""
    held, mint = held_on("pro")
    tomorrow = record(*held.terms.rows, customer=held.customer, now=NOW + DAY_MS)
    change = together(tomorrow, mint, "max", options=AttachOptions(anchor_now=anchor_now))
    assert change.customer is not None
    assert [s.anchor for s in change.customer.subscriptions] == [anchor]
    assert change.terms is not None
    assert [r.anchor for r in change.terms.rows] == [anchor]
