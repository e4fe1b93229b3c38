"""Setting a balance by hand: what each row holds afterwards, and what is refused."""

from typing import NamedTuple

import pytest
from msgspec.structs import replace

from creditgate.core.catalog import Interval
from creditgate.core.customers import Row
from creditgate.core.updates import BalanceFilter, BalanceUpdate, balance_change, removal
from creditgate.errors import CreditgateError
from tests.core.words import DAY_MS, MONTH, NOW, ONE_OFF, nanos, record, row

FEATURE = BalanceFilter("ann", "messages")
MONTHLY = row("month", "100", reset=MONTH)
LIFETIME = row("life", "50", reset=ONE_OFF)
ROLLED = row("rolled", "20", rolled_from="month")


class Case(NamedTuple):
    """Rows with what is in them, an update, and what is in them after it."""

    promise: str
    rows: tuple[Row, ...]
    before: dict[str, str]
    update: BalanceUpdate
    after: dict[str, str]
    wanted: BalanceFilter = FEATURE


CASES = (
    Case(
        "set lower",
        (MONTHLY,),
        {"month": "90"},
        BalanceUpdate(remaining_nanos=nanos("72.65")),
        {"month": "72.65"},
    ),
    Case(
        "set above the grant", (MONTHLY,), {}, BalanceUpdate(remaining_nanos=nanos("120")), {"month": "120"}
    ),
    Case(
        "set lower over two rows: in burn order",
        (MONTHLY, LIFETIME),
        {"month": "30"},
        BalanceUpdate(remaining_nanos=nanos("40")),
        {"month": "0", "life": "40"},
    ),
    Case(
        "set higher: into the first row, beyond its grant",
        (MONTHLY, LIFETIME),
        {"month": "30"},
        BalanceUpdate(remaining_nanos=nanos("200")),
        {"month": "150", "life": "50"},
    ),
    Case(
        "a row below zero stays: it is not shown",
        (MONTHLY, LIFETIME),
        {"month": "-20"},
        BalanceUpdate(remaining_nanos=nanos("60")),
        {"month": "-20", "life": "60"},
    ),
    Case(
        "all below zero: the first shows it",
        (MONTHLY, LIFETIME),
        {"month": "-20", "life": "-1"},
        BalanceUpdate(remaining_nanos=nanos("5")),
        {"month": "5", "life": "-1"},
    ),
    Case(
        "what rolled over counts, and gives first",
        (ROLLED, MONTHLY),
        {},
        BalanceUpdate(remaining_nanos=nanos("110")),
        {"rolled": "10", "month": "100"},
    ),
    Case(
        "by its interval: that row alone",
        (MONTHLY, LIFETIME),
        {},
        BalanceUpdate(remaining_nanos=nanos("25")),
        {"month": "25", "life": "50"},
        BalanceFilter("ann", "messages", interval=Interval.MONTH),
    ),
    Case(
        "by its id",
        (MONTHLY, LIFETIME),
        {},
        BalanceUpdate(remaining_nanos=nanos("1")),
        {"month": "100", "life": "1"},
        BalanceFilter("ann", "messages", "life"),
    ),
    Case("usage", (MONTHLY,), {}, BalanceUpdate(usage_nanos=nanos("99.99")), {"month": "0.01"}),
    Case("usage beyond the grant", (MONTHLY,), {}, BalanceUpdate(usage_nanos=nanos("150")), {"month": "-50"}),
    Case("usage below zero", (MONTHLY,), {}, BalanceUpdate(usage_nanos=nanos("-7")), {"month": "107"}),
    Case(
        "usage of two rows fills each up to its grant",
        (MONTHLY, LIFETIME),
        {"month": "0", "life": "0"},
        BalanceUpdate(usage_nanos=nanos("30")),
        {"month": "100", "life": "20"},
    ),
    Case("add, with no ceiling", (MONTHLY,), {}, BalanceUpdate(add_nanos=nanos("2")), {"month": "102"}),
    Case(
        "add less than nothing",
        (MONTHLY,),
        {"month": "1"},
        BalanceUpdate(add_nanos=nanos("-2")),
        {"month": "-1"},
    ),
    Case(
        "a larger grant brings its credits",
        (MONTHLY,),
        {"month": "70"},
        BalanceUpdate(included_nanos=nanos("150")),
        {"month": "120"},
    ),
    Case(
        "a larger grant with a remainder",
        (MONTHLY,),
        {"month": "70"},
        BalanceUpdate(included_nanos=nanos("150"), remaining_nanos=nanos("100")),
        {"month": "100"},
    ),
)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.promise) for case in CASES])
def test_case(case: Case) -> None:
    """The balance is what was asked for, and each row holds its part of it."""
    before = record(*case.rows, balances=case.before)
    change = balance_change(before, case.wanted, case.update)
    after = dict(before.balances)
    for step in change.steps:
        after[step.row_id] = step.amount_nanos + (after[step.row_id] if step.action == "shift" else 0)
    assert after == before.balances | {row_id: nanos(left) for row_id, left in case.after.items()}


def test_a_larger_grant_lasts_until_the_reset() -> None:
    """An adjustment shows in what was granted now; the next period starts with what the plan says."""
    change = balance_change(record(MONTHLY), FEATURE, BalanceUpdate(included_nanos=nanos("150")))
    assert change.terms is not None
    changed = change.terms.rows[0]
    assert (changed.granted_nanos, changed.start_nanos) == (nanos("150"), nanos("100"))


def test_another_reset_never_brings_an_old_period_back() -> None:
    """A hold remembers the number of its row's period: with another anchor the numbers go on."""
    later = NOW + 7 * DAY_MS
    old = replace(MONTHLY, period=3)
    change = balance_change(record(old, LIFETIME), FEATURE, BalanceUpdate(next_reset_at=later))
    assert change.terms is not None
    moved = next(row for row in change.terms.rows if row.id == "month")
    assert moved.resets_at == later
    assert moved.period + moved.period_offset == 3
    assert change.steps == ()
    assert change.due == later


REFUSED = {
    "no such feature": (BalanceFilter("ann", "words"), BalanceUpdate(add_nanos=1), "balance_not_found"),
    "no such id": (
        BalanceFilter("ann", "messages", "other"),
        BalanceUpdate(add_nanos=1),
        "balance_not_found",
    ),
    "expiry of what resets": (FEATURE, BalanceUpdate(expires_at=NOW + 1), "invalid_request"),
    "expiry in the past": (
        BalanceFilter("ann", "messages", "life"),
        BalanceUpdate(expires_at=NOW),
        "invalid_inputs",
    ),
    "reset of what never resets": (
        BalanceFilter("ann", "messages", "life"),
        BalanceUpdate(next_reset_at=NOW + 1),
        "invalid_request",
    ),
    "reset in the past": (FEATURE, BalanceUpdate(next_reset_at=NOW), "invalid_inputs"),
}


@pytest.mark.parametrize(("wanted", "update", "code"), REFUSED.values(), ids=REFUSED)
def test_refused(wanted: BalanceFilter, update: BalanceUpdate, code: str) -> None:
    """What makes no sense is refused by a stable code."""
    with pytest.raises(CreditgateError) as error:
        balance_change(record(MONTHLY, LIFETIME), wanted, update)
    assert error.value.code == code


def test_unlimited_is_not_set() -> None:
    """There is no amount to set where there is no bound."""
    with pytest.raises(CreditgateError):
        balance_change(record(row("all", "0", unlimited=True)), FEATURE, BalanceUpdate(remaining_nanos=1))


def test_removal_takes_the_rollovers_along() -> None:
    """A balance goes with what rolled over from it; others stay."""
    change = removal(record(ROLLED, MONTHLY, LIFETIME), BalanceFilter("ann", balance_id="month"))
    assert [(step.action, step.row_id) for step in change.steps] == [("close", "month"), ("close", "rolled")]
    assert change.terms is not None
    assert [kept.id for kept in change.terms.rows] == ["life"]


def test_a_plans_balance_is_not_removed() -> None:
    """What a plan gives goes with the plan: without it the customer would pay for nothing."""
    with pytest.raises(CreditgateError) as error:
        removal(record(row("r", owner_id="sub_1", plan_id="pro")), FEATURE)
    assert error.value.code == "invalid_request"
