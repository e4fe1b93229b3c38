"""Taking over a customer: what each kind of balance becomes, and that whatever was taken before is found again."""

import pytest
from msgspec.structs import replace

from creditgate.core.arrivals import Arrival, Holding, Lot
from creditgate.core.catalog import Interval, ItemPrice, Recurrence, Rollover
from creditgate.core.changes import Change
from creditgate.core.customers import Customer, Flag, Record, Row, Subscription, Terms
from creditgate.core.periods import boundary
from creditgate.core.take_over import TakenOver, take_over
from creditgate.errors import Conflict
from tests.core.words import (
    DAY_MS,
    MONTH,
    NOW,
    ONE_OFF,
    Mint,
    boolean,
    catalog,
    feature,
    item,
    nanos,
    plan,
    record,
    row,
)

ROLLING = replace(item("messages", "10", reset=MONTH), rollover=Rollover(months=3))
CATALOG = catalog(
    feature("messages"),
    feature("seats", consumable=False),
    boolean("sso"),
    plan("free", item("messages", "5", reset=MONTH), auto_enable=True),
    plan("pro", ROLLING, price="10"),
    plan("extra", item("messages", "1"), add_on=True),
    plan("top_up", item("messages", price="1"), add_on=True),
)
ANN = Customer("ann", NOW - 100 * DAY_MS, name="Ann")
SOON = NOW + 7 * DAY_MS
MINT = Mint()  # one for all: an id never comes again


def lot(name: str, included: str = "5", left: str | None = None, **more: object) -> Lot:
    """A balance of messages, full unless it is said."""
    left_nanos = nanos(included if left is None else left)
    values = {"feature_id": "messages", "prepaid_nanos": 0, **more}
    return Lot(name, included_nanos=nanos(included), left_nanos=left_nanos, **values)  # type: ignore[arg-type]


def monthly(name: str, included: str = "5", left: str | None = None, **more: object) -> Lot:
    """One that starts again soon."""
    return lot(name, included, left, **{"reset": MONTH, "resets_at": SOON, **more})


def taken(arrival: Arrival, before: Record | None = None, *, now: int = NOW) -> TakenOver:
    """What is to be done to take it over."""
    return take_over(arrival, before, CATALOG, now=now, mint=MINT)


def after(change: Change | None, before: Record | None = None, *, now: int = NOW) -> Record:
    """The record once the change is applied, as the script does."""
    if change is None:
        assert before is not None
        return before
    balances = dict(before.balances) if before else {}
    for step in change.steps:
        if step.action == "close":
            del balances[step.row_id]
        else:
            assert step.action in ("open", "correct")
            assert (step.action == "open") == (step.row_id not in balances)
            balances[step.row_id] = step.amount_nanos
    customer, terms = change.customer, change.terms
    assert customer is not None
    assert terms is not None
    assert {held.id for held in terms.rows} == balances.keys()
    return replace(before or record(now=now), customer=customer, terms=terms, balances=balances)


def held(here: Record) -> dict[str, str]:
    """What is in each row, by the name that callers know it by."""
    return {r.public_id: str(here.balances[r.id] / 10**9) for r in here.terms.rows}


def only_row(here: Record) -> Row:
    (found,) = here.terms.rows
    return found


PRO = Holding("pro", NOW - 40 * DAY_MS, id="s1", period_start=NOW - 10 * DAY_MS)
USAGE_BASED = ItemPrice(nanos("1"), MONTH, billing_method="usage_based")
EVERYTHING = Arrival(
    ANN,
    holdings=(
        PRO,
        Holding("extra", NOW, id="s2"),
        Holding("extra", NOW, id="s3"),
        Holding("top_up", NOW - 5),
    ),
    lots=(
        monthly("a", "10", "2.5", plan_id="pro"),
        lot("b", "1", plan_id="extra"),
        lot("c", "1", "0", plan_id="extra"),
        lot("d", "0", "20", prepaid_nanos=nanos("20"), plan_id="top_up", reset=ONE_OFF),
        lot("e", "3", "-4"),
        lot("f", "0", unlimited=True),
        lot("g", "3", rolled=True, expires_at=SOON),
        lot("h", "3", "1", feature_id="seats"),
        monthly("i", price=USAGE_BASED),
        monthly("overdue", "7", "1", resets_at=NOW - DAY_MS),
        lot("over", expires_at=NOW - 1),
    ),
    flags=(Flag("f1", "sso", plan_id="pro"),),
)


def test_every_kind_of_balance_becomes_a_row() -> None:
    """What is left, also below zero; what ended its period is full again; what expired is not there."""
    here = after(taken(EVERYTHING).change)
    assert held(here) == {
        "a": "2.5", "b": "1.0", "c": "0.0", "d": "20.0", "e": "-4.0", "f": "0.0", "g": "3.0", "h": "1.0",
        "i": "5.0", "overdue": "7.0",
    }  # fmt: skip
    rows = {r.public_id: r for r in here.terms.rows}
    assert [rows[name].owner_id for name in "abcde"] == [
        "s1",
        "s2",
        "s3",
        here.customer.purchases[0].id,
        None,
    ]
    assert rows["a"].rollover == Rollover(months=3)
    assert (rows["f"].unlimited, rows["h"].is_held, rows["h"].may_go_negative) == (True, True, True)
    assert rows["g"].rolled_from == rows["a"].id
    assert rows["i"].may_go_negative
    assert rows["overdue"].resets_at == boundary(NOW - DAY_MS, MONTH, 1)
    assert [f.feature_id for f in here.terms.flags] == ["sso"]


def test_a_second_time_there_is_nothing_to_do() -> None:
    """The same said again changes nothing, though nothing is remembered but what the record holds."""
    here = after(taken(EVERYTHING).change)
    assert taken(EVERYTHING, here) == TakenOver(None, ())
    assert taken(EVERYTHING, replace(here, now=NOW + DAY_MS), now=NOW + DAY_MS).change is None


def test_a_third_time_after_changes_and_back() -> None:
    """What was taken, went at the source and came back there is here again, once."""
    first = after(taken(EVERYTHING).change)
    nothing = after(taken(Arrival(ANN), first).change, first)
    assert (held(nothing), nothing.terms.flags, nothing.customer.subscriptions) == ({}, (), ())
    assert held(after(taken(EVERYTHING, nothing).change, nothing)) == held(first)


@pytest.mark.parametrize("started", [NOW - 30 * DAY_MS - DAY_MS, ANN.created_at])
def test_the_reset_stays_and_the_day_it_hangs_on_is_found(started: int) -> None:
    """A plan of the 31st that resets on the 28th goes on to the 31st, not to the 28th of every month."""
    resets_at = boundary(started, MONTH, 3)
    arrival = Arrival(
        ANN,
        holdings=(Holding("free", started, id="s1"),),
        lots=(monthly("a", plan_id="free", resets_at=resets_at),),
    )
    found = only_row(after(taken(arrival, now=resets_at - 1).change))
    assert (found.anchor, found.period, found.resets_at) == (started, 2, resets_at)


def test_a_reset_that_hangs_on_nothing_we_know_hangs_on_itself() -> None:
    """The period ends when the source says, whatever it began with."""
    weekly = Recurrence(Interval.WEEK)
    found = only_row(
        after(taken(Arrival(ANN, lots=(monthly("a", reset=weekly, resets_at=SOON + 1),))).change)
    )
    assert (found.anchor, found.period, found.resets_at) == (SOON + 1, -1, SOON + 1)


def test_another_reset_gives_the_period_a_new_number() -> None:
    """What was held in the old period must not be found in one with the same number."""
    here = after(taken(Arrival(ANN, lots=(monthly("a"),))).change)
    other = Arrival(ANN, lots=(monthly("a", resets_at=SOON + DAY_MS),))
    again = after(taken(other, here).change, here)
    old, new = only_row(here), only_row(again)
    assert new.period + new.period_offset == old.period + old.period_offset + 1
    assert taken(other, again).change is None


def test_the_plan_that_enabled_itself_here_is_the_one_at_the_source() -> None:
    """A customer whom the application made here first does not get the free plan twice."""
    local = Subscription("sub_1", "free", 1, NOW, NOW)
    before = record(
        row("row_1", "5", owner_id="sub_1", plan_id="free", reset=MONTH),
        customer=replace(ANN, subscriptions=(local,)),
    )
    arrival = Arrival(
        ANN,
        holdings=(Holding("free", NOW - DAY_MS, id="s1"),),
        lots=(monthly("a", left="1", plan_id="free"),),
    )
    here = after(taken(arrival, before).change, before)
    assert [s.id for s in here.customer.subscriptions] == ["sub_1"]
    assert (only_row(here).id, held(here)) == ("row_1", {"a": "1.0"})
    assert taken(arrival, here).change is None


def test_what_was_given_here_stays() -> None:
    """Grants and add-ons of our own are not the source's to take; a plan of the same group is."""
    mine = (
        Subscription("sub_1", "free", 1, NOW, NOW),
        Subscription("sub_2", "extra", 1, NOW, NOW, add_on=True),
    )
    before = record(
        row("row_1", "5", owner_id="sub_1", plan_id="free"),
        row("row_2", "1", owner_id="sub_2", plan_id="extra"),
        row("row_3", "9", external_id="gift"),
        customer=replace(ANN, subscriptions=mine),
        flags=(Flag("f0", "sso"),),
    )
    arrival = Arrival(ANN, holdings=(PRO,), lots=(monthly("a", "10", plan_id="pro"),))
    here = after(taken(arrival, before).change, before)
    assert [s.plan_id for s in here.customer.subscriptions] == ["extra", "pro"]
    assert held(here) == {"a": "10.0", "row_2": "1.0", "gift": "9.0"}
    assert [f.id for f in here.terms.flags] == ["f0"]


def test_what_rolled_over_here_meanwhile_is_not_there_twice() -> None:
    """The source has rolled the same credits over, and says so."""
    here = after(taken(Arrival(ANN, holdings=(PRO,), lots=(monthly("a", "10", plan_id="pro"),))).change)
    base = only_row(here)
    ours = row("row_9", "4", rolled_from=base.id)
    reset = replace(here, terms=Terms((base, ours)), balances={base.id: nanos("10"), "row_9": nanos("4")})
    said = Arrival(
        ANN,
        holdings=(PRO,),
        lots=(monthly("a", "10", plan_id="pro"), lot("r", "4", rolled=True, expires_at=SOON)),
    )
    assert held(after(taken(said, reset).change, reset)) == {"a": "10.0", "r": "4.0"}


def test_what_cannot_be_taken_is_said_once() -> None:
    """Unknown features and plans, each in words; the rest is taken."""
    arrival = Arrival(
        ANN,
        holdings=(Holding("gone", NOW, id="s1"),),
        lots=(lot("a", feature_id="gone"), lot("b", feature_id="gone"), lot("c", feature_id="sso"), lot("d")),
        flags=(Flag("f", "messages"),),
        lacks=("a house",),
    )
    done = taken(arrival)
    assert done.lacks == (
        "a house",
        "plan gone is not in the catalog here; its balances stand alone",
        "feature gone is not in the catalog here",
        "feature sso is on or off here, and not at the source",
        "feature messages is metered here, and not at the source",
    )
    assert held(after(done.change)) == {"d": "5.0"}


def test_too_many_balances_are_refused_whole() -> None:
    """A customer with more than 64 balances is not taken in half."""
    with pytest.raises(Conflict, match="64"):
        taken(Arrival(ANN, lots=tuple(lot(f"l{number}") for number in range(65))))
