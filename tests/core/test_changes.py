"""Changes of what a customer holds: rows open and close, 64 have room, and what fell due is stepped over once."""

import msgspec
import pytest

from creditgate.core.burn import ROWS_MAX, in_burn_order, order_fields
from creditgate.core.catalog import Interval, ItemPrice, Recurrence
from creditgate.core.changes import (
    Change,
    Step,
    in_period_at,
    next_due,
    profile_change,
    rows_change,
)
from creditgate.core.controls import BillingControls, UsageLimit
from creditgate.core.customers import Customer, Flag, Record, Row, Terms
from creditgate.core.decisions import balance_of
from creditgate.core.forward import forward_change
from creditgate.core.periods import boundary
from creditgate.errors import Conflict
from tests.core.words import DAY, DAY_MS, MONTH, NOW, ONE_OFF, Mint, applied, catalog, nanos, record, row


def at(instant: int, held: Record) -> Record:
    """The same record, read at another instant."""
    return msgspec.structs.replace(held, now=instant)


def forwarded(instant: int, held: Record) -> Change:
    """What brings the record to this instant, where no plan comes back."""
    return forward_change(at(instant, held), catalog(), Mint())


def row_ids(change: Change) -> list[str]:
    """The rows that there are after the change, in burn order."""
    assert change.terms is not None
    return [r.id for r in change.terms.rows]


def one_offs(count: int, name: str = "r") -> list[Row]:
    """So many rows that never reset, the oldest first."""
    return [row(f"{name}{n}", reset=ONE_OFF, created_at=NOW + n) for n in range(count)]


# Rows


def test_opened_rows_join_in_burn_order() -> None:
    """A new row stands where it burns, with an order for its feature, and starts with what it is granted."""
    held = record(row("life"), row("other", feature_id="usd"))
    change = rows_change(held, opened=[row("month", "5", reset=MONTH)])
    assert row_ids(change) == ["month", "life", "other"]
    assert change.steps == (Step("open", "month", nanos("5")),)
    assert change.terms is not None
    assert change.orders == order_fields(change.terms)
    assert change.due == boundary(NOW, MONTH, 1)
    assert change.customer is None


def test_order_of_a_feature_without_rows_is_removed() -> None:
    """When the last row of a feature closes, the scripts no longer see one."""
    held = record(row("a", owner_id="sub"), row("b", feature_id="usd"))
    change = rows_change(held, closed=["sub"])
    assert change.orders == {"messages": "", "usd": "0:b:0:1000000000:-"}
    assert change.steps == (Step("close", "a"),)


def test_flags_come_and_go_with_their_owner() -> None:
    """On/off features end with the plan that gave them; those of others stay."""
    held = record(flags=(Flag("f1", "sso", owner_id="sub"), Flag("f2", "vip", owner_id="other")))
    change = rows_change(held, closed=["sub"], flags=[Flag("f3", "new")])
    assert change.terms is not None
    assert [flag.id for flag in change.terms.flags] == ["f2", "f3"]


def test_bought_rows_stay_without_their_plan() -> None:
    """Credits that were paid for once survive the plan they were bought with, and belong to nobody from then on."""
    pack = ItemPrice(nanos("1"), ONE_OFF)
    bought = row("b", "0", prepaid_nanos=nanos("5"), price=pack, owner_id="sub", plan_id="pro")
    held = record(row("a", owner_id="sub", plan_id="pro"), bought)
    change = rows_change(held, closed=["sub"])
    assert change.steps == (Step("close", "a"),)
    assert change.terms is not None
    (kept,) = change.terms.rows
    assert (kept.id, kept.owner_id, kept.plan_id) == ("b", None, None)


def test_generators_are_read_once() -> None:
    """What is passed as an iterable is not lost half way."""
    held = record(row("a", owner_id="x"), row("b", owner_id="y"))
    change = rows_change(held, opened=iter([row("new")]), closed=iter(["x"]), flags=iter([Flag("f", "sso")]))
    assert sorted(row_ids(change)) == ["b", "new"]
    assert [step.action for step in change.steps] == ["close", "open"]


def test_sixty_four_rows_have_room() -> None:
    """The sixty-fourth row is opened, the sixty-fifth live row is a conflict with its own code."""
    held = record(*one_offs(63))
    assert len(row_ids(rows_change(held, opened=[row("new")]))) == ROWS_MAX == 64
    with pytest.raises(Conflict) as refusal:
        rows_change(held, opened=[row("new"), row("newer")])
    assert refusal.value.code == "too_many_balances"
    with pytest.raises(Conflict):
        rows_change(None, customer=held.customer, opened=one_offs(65))
    assert len(row_ids(rows_change(None, customer=held.customer, opened=one_offs(64)))) == 64


def test_drained_rows_give_up_their_place() -> None:
    """Used-up top-ups make room, the first to burn first, and only as many as are needed."""
    held = record(*one_offs(64), balances={"r7": "0", "r3": "0", "r9": "0"})
    change = rows_change(held, opened=[row("a"), row("b")])
    assert [step for step in change.steps if step.action == "drop"] == [
        Step("drop", "r3"),
        Step("drop", "r7"),
    ]
    assert {"r9", "a", "b"} <= set(row_ids(change))
    assert len(row_ids(change)) == 64
    with pytest.raises(Conflict):
        rows_change(held, opened=one_offs(4, "x"))


def test_drained_rows_stay_while_there_is_room() -> None:
    """A used-up top-up shows its usage until its place is needed or the next reset comes."""
    held = record(*one_offs(63), balances={"r0": "0"})
    change = rows_change(held, opened=[row("new")])
    assert "r0" in row_ids(change)


@pytest.mark.parametrize(
    "full",
    [
        row("x", reset=MONTH),
        row("x", may_go_negative=True),
        row("x", "0"),
        row("x", feature_id="messages", reset=ONE_OFF),
    ],
    ids=["resets", "seats", "granted nothing", "below zero"],
)
def test_rows_that_are_not_drained(full: Row) -> None:
    """A row that will be full again, may be used further, or is overdrawn does not give up its place."""
    empty = "-1" if full.reset is ONE_OFF else "0"
    held = record(full, *one_offs(63), balances={"x": empty})
    with pytest.raises(Conflict):
        rows_change(held, opened=[row("new")])


def test_profile_change_touches_no_row() -> None:
    """A new name neither moves a balance nor a due date."""
    held = record(row("a", reset=MONTH), row("b", expires_at=NOW + DAY_MS))
    customer = Customer("ann", NOW, name="Ann")
    assert profile_change(held, customer) == Change(due=NOW + DAY_MS, customer=customer)


def test_profile_change_brings_the_gates_along() -> None:
    """A customer whose own limit is set, raised and taken away is held to it from that very change on."""
    there = record(row("a", reset=DAY))

    def limited(*limits: str) -> tuple[Step, ...]:
        nonlocal there
        limit = tuple(UsageLimit("messages", nanos(each), Interval.MONTH) for each in limits)
        customer = msgspec.structs.replace(there.customer, controls=BillingControls(usage_limits=limit))
        change = profile_change(there, customer)
        there = applied(there, change, now=NOW)
        return change.steps

    (opened,) = limited("5")
    gate_id = opened.row_id
    assert there.balances[gate_id] == nanos("5")
    assert limited("8") == (Step("shift", gate_id, nanos("3")),)
    assert limited() == (Step("close", gate_id),)
    assert limited() == ()


@pytest.mark.parametrize(
    ("terms", "due"),
    [
        (Terms(), None),
        (Terms((row("a"),)), None),
        (Terms((row("a", expires_at=NOW + 5),)), NOW + 5),
        (Terms((row("a", reset=DAY, expires_at=NOW + 5),)), NOW + 5),
        (Terms((row("a", reset=DAY, expires_at=NOW + 5 * DAY_MS),)), NOW + DAY_MS),
        (Terms((row("a", expires_at=NOW + 5),), (Flag("f", "sso", expires_at=NOW + 4),)), NOW + 4),
    ],
)
def test_due_is_the_earliest(terms: Terms, due: int | None) -> None:
    """The next instant at which anything changes by itself is found, so that nothing is stepped over late."""
    assert next_due(Customer("ann", NOW), terms) == due


# Forward


def test_reset_into_the_period_that_holds_now() -> None:
    """However many periods were missed, there is one reset, into the period of now; the boundary stays anchored."""
    held = record(row("m", "5", reset=MONTH), row("d", "1", reset=DAY), row("life", "3"))
    change = forwarded(NOW + 100 * DAY_MS, held)
    assert change.steps == (Step("reset", "m", nanos("5")), Step("reset", "d", nanos("1")))
    assert change.terms is not None
    month, day = (next(r for r in change.terms.rows if r.id == name) for name in ("m", "d"))
    assert (month.period, month.resets_at) == (3, boundary(NOW, MONTH, 4))
    assert (day.period, day.resets_at) == (100, NOW + 101 * DAY_MS)
    assert row_ids(change) == ["d", "m", "life"]
    assert change.due == NOW + 101 * DAY_MS


@pytest.mark.parametrize(("offset", "resets"), [(-1, False), (0, True), (1, True)])
def test_boundary_belongs_to_the_next_period(offset: int, *, resets: bool) -> None:
    """A period ends at its boundary, not a millisecond later."""
    held = record(row("m", reset=DAY))
    change = forwarded(NOW + DAY_MS + offset, held)
    assert bool(change.steps) == resets


def test_expiry_before_reset() -> None:
    """A row that expires and resets at the same instant is gone: it is not renewed first."""
    held = record(row("a", reset=DAY, expires_at=NOW + DAY_MS), row("b", expires_at=NOW + DAY_MS + 1))
    change = forwarded(NOW + DAY_MS, held)
    assert change.steps == (Step("close", "a"),)
    assert row_ids(change) == ["b"]


def test_drained_rows_go_at_a_reset_only() -> None:
    """Used-up rows that never reset go when another row resets, not when one merely expires."""
    rows = (row("m", reset=MONTH), row("spent"), row("left"), row("soon", expires_at=NOW + DAY_MS))
    held = record(*rows, balances={"spent": "0"})
    assert row_ids(forwarded(NOW + DAY_MS, held)) == ["m", "spent", "left"]
    change = forwarded(NOW + 31 * DAY_MS, held)
    assert row_ids(change) == ["m", "left"]
    assert Step("drop", "spent") in change.steps


def test_flags_expire() -> None:
    """An on/off feature that was given for a time ends with it."""
    held = record(flags=(Flag("f", "sso", expires_at=NOW + 5), Flag("g", "vip", expires_at=NOW + 6)))
    change = forwarded(NOW + 5, held)
    assert change.terms is not None
    assert [flag.id for flag in change.terms.flags] == ["g"]
    assert change.due == NOW + 6


def test_period_is_never_lowered() -> None:
    """A clock that went back does not put a customer into a period again whose credits he already had."""
    later = in_period_at(row("m", reset=MONTH), NOW + 100 * DAY_MS)
    assert in_period_at(later, NOW) == later
    assert later.period == 3


@pytest.mark.parametrize("reset", [None, ONE_OFF])
def test_what_never_resets_has_no_period(reset: Recurrence | None) -> None:
    """A one-off row stays as it is for ever."""
    life = Row("r", "messages", NOW, reset=reset, anchor=NOW)
    assert in_period_at(life, NOW + 10**12) is life


def test_nothing_due_is_no_step() -> None:
    """Stepping when nothing is due would change nothing."""
    held = record(
        *in_burn_order([row("m", reset=MONTH), row("life"), row("h", reset=Recurrence(Interval.HOUR))])
    )
    change = forwarded(NOW, held)
    assert (change.steps, change.terms) == ((), held.terms)


# What owners see


def test_balance_counts_each_row_from_zero_up() -> None:
    """A row below zero does not eat what is left in another; usage counts it exactly."""
    held = record(
        row("m", "5", reset=MONTH),
        row("life", "10"),
        row("x", "7", feature_id="usd"),
        balances={"m": "-2", "life": "10"},
    )
    seen = balance_of("messages", held.terms, held.balances)
    assert seen is not None
    assert (seen.granted_nanos, seen.remaining_nanos, seen.usage_nanos) == (
        nanos("15"),
        nanos("10"),
        nanos("7"),
    )
    assert seen.next_reset_at == boundary(NOW, MONTH, 1)
    assert [(r.id, raw) for r, raw in seen.rows] == [("m", nanos("-2")), ("life", nanos("10"))]
    assert balance_of("nothing", held.terms, held.balances) is None


def test_balance_above_what_was_granted() -> None:
    """After a refund without a ceiling usage is negative, and nothing is hidden."""
    held = record(row("life", "10"), balances={"life": "12"})
    seen = balance_of("messages", held.terms, held.balances)
    assert seen is not None
    assert (seen.remaining_nanos, seen.usage_nanos, seen.next_reset_at) == (nanos("12"), nanos("-2"), None)
