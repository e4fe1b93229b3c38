"""What falls due by itself: however long nobody asked, the outcome is that of having been there at every boundary."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from creditgate.core.attach import attach
from creditgate.core.catalog import Interval, PlanItem, Recurrence, Rollover
from creditgate.core.changes import Change, next_due
from creditgate.core.controls import BillingControls, UsageLimit
from creditgate.core.customers import Customer, Flag, Record, Row, Subscription
from creditgate.core.forward import forward_change, plan_in_place_of, up_to_next_plan
from creditgate.core.periods import boundary
from creditgate.core.plans import new_customer
from tests.core.words import (
    DAY,
    DAY_MS,
    MONTH,
    NOW,
    ONE_OFF,
    Mint,
    applied,
    boolean,
    catalog,
    feature,
    item,
    nanos,
    plan,
    record,
    row,
    system,
)


def rolling(feature_id: str, included: str, reset: Recurrence, rollover: Rollover) -> PlanItem:
    """A plan's item of which what is left rolls over."""
    return replace(item(feature_id, included, reset=reset), rollover=rollover)


FREE = plan("free", item("usd", "5", reset=MONTH), item("seats", "3"), auto_enable=True)
PRO = plan(
    "pro",
    item("usd", "10", reset=MONTH),
    item("messages", "100", reset=DAY),
    item("seats", "10"),
    item("sso"),
    price="10",
    controls=BillingControls(usage_limits=(UsageLimit("messages", nanos("30"), Interval.DAY),)),
)
PACKS = plan("packs", item("usd", price="1", every=ONE_OFF), price="5", group="packs")
TOP_UP = plan("top_up", item("usd", price="1", every=ONE_OFF), add_on=True)
EXTRA = plan("extra", item("messages", "7", reset=DAY), price="1", add_on=True)
SAVER = plan(
    "saver", rolling("messages", "4", DAY, Rollover(1, max_nanos=nanos("20"))), price="3", group="savings"
)
PURSE = plan(
    "purse", rolling("messages", "2", MONTH, Rollover(None, max_nanos=nanos("9"))), price="1", group="savings"
)
CATALOG = catalog(
    *(
        feature("messages"),
        feature("seats", consumable=False),
        boolean("sso"),
        system("usd", messages="0.01"),
    ),
    *(FREE, PRO, PACKS, TOP_UP, EXTRA, SAVER, PURSE),
)
END = boundary(NOW, MONTH, 1)
"""When the first month of whoever came now is over."""


def made(*plans: str) -> Record:
    """A customer who was made on the free plan now, and attached these one after the other."""
    mint = Mint()
    there = applied(
        record(), new_customer(Customer("ann", NOW), CATALOG, (FREE,), now=NOW, mint=mint), now=NOW
    )
    for plan_id in plans:
        quantities = {"usd": nanos("20")} if plan_id in ("top_up", "packs") else {}
        change = attach(there, there.customer, CATALOG, CATALOG.plan(plan_id), quantities, mint=mint)
        there = applied(there, change, now=NOW)
    return there


def ending(before: Record, plan_id: str, at: int) -> Record:
    """The customer has cancelled a plan for this instant."""
    held = tuple(
        replace(s, canceled_at=NOW, expires_at=at) if s.plan_id == plan_id else s
        for s in before.customer.subscriptions
    )
    assert any(s.plan_id == plan_id for s in held)
    return replace(before, customer=replace(before.customer, subscriptions=held))


def left(before: Record, **balances: str) -> Record:
    """The customer has this much left, by feature and plan: `usd_pro="1.5"`."""
    named = {
        row.id: nanos(balances[name])
        for row in before.terms.rows
        if (name := f"{row.feature_id}_{row.plan_id}") in balances
    }
    assert len(named) == len(balances)
    return replace(before, balances=before.balances | named)


def stepped(before: Record, now: int) -> tuple[Record, Change]:
    """The record at the next instant of which the engine makes a step, and the step; its new ids are nobody else's."""
    mint = Mint()
    mint.count = 100 * before.sequence
    there = up_to_next_plan(replace(before, now=now))
    return there, forward_change(there, CATALOG, mint)


def forwarded(before: Record, now: int) -> Record:
    """Nobody has asked until now."""
    there = replace(before, now=now)
    while (due := next_due(there.customer, there.terms)) is not None and due <= now:
        _, change = stepped(there, now)
        there = applied(there, change, now=now)
    return there


def has(there: Record) -> dict[str, int]:
    """What the customer has left, by feature and plan."""
    found = {f"{r.feature_id}_{r.plan_id}": there.balances[r.id] for r in there.terms.rows}
    assert len(found) == len(there.terms.rows)
    return found


def the_row(there: Record, feature_id: str, plan_id: str | None) -> Row:
    (found,) = (r for r in there.terms.rows if (r.feature_id, r.plan_id) == (feature_id, plan_id))
    return found


@pytest.mark.parametrize("months", [1, 2, 7, 40])
def test_the_free_plan_is_back_since_the_end_of_the_paid_one(months: int) -> None:
    """A plan that ended months ago, unnoticed, left a free plan that has been running since that instant."""
    before = left(ending(made("pro"), "pro", END), usd_pro="8")
    now = boundary(END, MONTH, months - 1) + DAY_MS
    after = forwarded(before, now)
    (free,) = after.customer.subscriptions
    assert (free.plan_id, free.started_at, free.anchor, free.expires_at) == ("free", END, END, None)
    credits_row = the_row(after, "usd", "free")
    assert (credits_row.created_at, credits_row.anchor, credits_row.period) == (END, END, months - 1)
    assert credits_row.resets_at == boundary(END, MONTH, months)
    assert has(after) == {"usd_free": nanos("5"), "seats_free": nanos("3")}


def test_before_its_end_a_cancelled_plan_goes_on() -> None:
    """What was paid for is given to the last millisecond: the daily row is renewed, and nothing else changes."""
    before = left(ending(made("pro"), "pro", END), usd_pro="8", messages_pro="0")
    after = forwarded(before, END - 1)
    assert [s.plan_id for s in after.customer.subscriptions] == ["pro"]
    assert has(after) == has(before) | {"messages_pro": nanos("100")}
    assert [s.plan_id for s in forwarded(after, END).customer.subscriptions] == ["free"]


def test_an_end_at_the_instant_of_a_reset_gives_no_month_more() -> None:
    """The end of a paid month is the end: the plan's credits are not renewed once more at that instant."""
    before = forwarded(left(ending(made("pro"), "pro", END), usd_pro="0"), END - 1)
    _, change = stepped(before, END)
    gone = before.terms.held_ids
    assert {step.row_id for step in change.steps if step.action == "close"} == gone
    assert not [step for step in change.steps if step.row_id in gone and step.action != "close"]


@pytest.mark.parametrize(("used", "remaining"), [("0", "3"), ("2", "1"), ("3", "0"), ("7", "-4")])
def test_seats_in_use_stay_in_use(used: str, remaining: str) -> None:
    """Nobody loses a seat when a plan ends: who has more than the free plan gives is shown as that many below zero."""
    before = ending(made("pro"), "pro", END)
    taken = str(10 - int(used))
    after = forwarded(left(before, seats_pro=taken), END + 40 * DAY_MS)
    assert has(after)["seats_free"] == nanos(remaining)


@pytest.mark.parametrize("months", [0, 3])
def test_credits_bought_for_good_stay(months: int) -> None:
    """What was paid for once outlives the plan it was bought with, and a top-up has no plan that could end."""
    before = ending(made("pro", "packs", "top_up"), "packs", END)
    after = forwarded(left(before, usd_packs="12.5"), boundary(END, MONTH, months))
    assert [s.plan_id for s in after.customer.subscriptions] == ["pro"]
    kept = the_row(after, "usd", None)
    assert (kept.owner_id, after.balances[kept.id]) == (None, nanos("12.5"))
    assert has(after)["usd_top_up"] == nanos("20")
    assert len(after.customer.purchases) == 1


def test_flags_go_with_their_plan() -> None:
    """An on/off feature of a plan is off when the plan is over; one that was given otherwise is not."""
    before = ending(made("pro"), "pro", END)
    own = Flag("flag_own", "sso")
    before = replace(before, terms=replace(before.terms, flags=(*before.terms.flags, own)))
    assert len(forwarded(before, END - 1).terms.flags) == 2
    assert forwarded(before, END).terms.flags == (own,)


def test_an_add_on_ends_and_nothing_comes_in_its_place() -> None:
    """Ending an add-on leaves the plan beside it as it is."""
    before = ending(made("pro", "extra"), "extra", END)
    after = forwarded(before, END + 1)
    assert [s.plan_id for s in after.customer.subscriptions] == ["pro"]
    assert "messages_extra" not in has(after)


def test_a_free_plan_that_was_ended_does_not_come_back() -> None:
    """Whoever has left the free plan itself is on no plan."""
    after = forwarded(ending(made(), "free", NOW), NOW)
    assert after.customer.subscriptions == ()
    assert after.terms.rows == ()
    assert next_due(after.customer, after.terms) is None


def held(plan_id: str, **more: object) -> Subscription:
    return Subscription(f"sub_{plan_id}", plan_id, 1, NOW, NOW, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ended", "others", "expected"),
    [
        (held("pro"), (), "free"),
        (held("pro"), (held("extra", add_on=True),), "free"),
        (held("pro"), (held("packs", group="packs"),), "free"),
        (held("pro"), (held("other"),), None),
        (held("packs", group="packs"), (), None),
        (held("extra", add_on=True), (), None),
        (held("free"), (), None),
    ],
)
def test_which_plan_comes_back(
    ended: Subscription, others: tuple[Subscription, ...], expected: str | None
) -> None:
    """The free plan of the same group, where no other plan of the group is active."""
    found = plan_in_place_of(ended, Customer("ann", NOW, subscriptions=others), CATALOG)
    assert (found.id if found else None) == expected


def test_two_plans_that_end_at_two_instants() -> None:
    """Each end counts from its own instant, whatever comes between."""
    before = ending(ending(made("pro", "packs", "extra"), "pro", END), "extra", END - 5 * DAY_MS)
    after = forwarded(before, END + 100 * DAY_MS)
    assert sorted(s.plan_id for s in after.customer.subscriptions) == ["free", "packs"]
    assert [s.started_at for s in after.customer.subscriptions if s.plan_id == "free"] == [END]


def test_what_rolled_over_goes_along_to_the_plan_in_its_place() -> None:
    """Who moves to a cheaper plan keeps what was saved to the last day, up to what the new plan lets roll over."""
    before = made("saver", "purse")
    assert [plan.starts_at for plan in before.customer.scheduled] == [END]
    for at in (END, END + DAY_MS):
        after = forwarded(before, at)
        rows = [r for r in after.terms.rows if r.feature_id == "messages"]
        (own,) = (r for r in rows if r.rolled_from is None)
        assert {(r.plan_id, r.owner_id) for r in rows} == {("purse", own.owner_id)}
        assert {r.rolled_from for r in rows if r is not own} == {own.id}
        assert (after.balances[own.id], sum(after.balances[r.id] for r in rows)) == (nanos("2"), nanos("11"))


def test_what_rolled_over_goes_with_its_grant() -> None:
    """A gift of three months is over after three months, whether its holder looked in on the way or not."""
    gift = row("gift", "4", reset=MONTH, rollover=Rollover(6), expires_at=boundary(NOW, MONTH, 3))
    on_the_way = forwarded(record(gift), boundary(NOW, MONTH, 2))
    assert sum(on_the_way.balances.values()) == nanos("12")
    for before in (record(gift), on_the_way):
        assert forwarded(before, boundary(NOW, MONTH, 3)).terms.rows == ()


@st.composite
def grant_of(draw: st.DrawFn, row_id: str) -> Row:
    """A grant that resets or does not, rolls over or does not, and may expire."""
    days, reset = draw(st.integers(0, 80)), draw(st.sampled_from([None, ONE_OFF, DAY, MONTH]))
    rollovers = [None, Rollover(1), Rollover(2, max_nanos=nanos("3")), Rollover(None, max_nanos=nanos("6"))]
    rollover = draw(st.sampled_from(rollovers)) if reset == MONTH else None
    return row(row_id, "4", expires_at=NOW + days * DAY_MS if days else None, reset=reset, rollover=rollover)


def lives() -> st.SearchStrategy[Record]:
    """A customer on some plans, of which some end, with rows full, used and used up, and grants that expire."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> Record:
        names = st.sampled_from(["pro", "packs", "top_up", "extra", "saver"])
        plans = draw(st.lists(names, unique=True, max_size=5))
        cheaper = {"pro": "free", "saver": "purse"}
        downgrade = [cheaper[name] for name in plans if name in cheaper and draw(st.booleans())]
        there = made(*plans, *downgrade)
        for held in there.customer.subscriptions:
            if draw(st.booleans()):
                ends = [NOW, NOW + 1, END - 1, END, END + 1, boundary(NOW, MONTH, 2)]
                there = ending(there, held.plan_id, draw(st.sampled_from(ends)))
        grants = [draw(grant_of(f"grant_{number}")) for number in range(draw(st.integers(0, 3)))]
        rows = (*there.terms.rows, *grants)
        shares = st.sampled_from([0, 1, 2])
        balances = {r.id: r.granted_nanos * draw(shares) // 2 for r in rows}
        balances |= {gate.id: gate.limit_nanos * draw(shares) // 2 for gate in there.terms.gates}
        return replace(there, terms=replace(there.terms, rows=rows), balances=balances)

    return draw_one()


def boundaries(before: Record, until: int) -> Iterator[int]:
    """Every instant at which something falls due; the customer is there each time."""
    there = before
    while (due := next_due(there.customer, there.terms)) is not None and due <= until:
        yield due
        there = forwarded(there, due)


def seen(there: Record) -> object:
    """All that can be told apart from outside, but for the ids that were made meanwhile."""
    plan_of = {s.id: s.plan_id for s in there.customer.subscriptions}
    plan_of |= {p.id: p.plan_id for p in there.customer.purchases}
    rows, rolled_over = [], Counter[object]()
    for each in there.terms.rows:
        if each.rolled_from is None:
            known = replace(each, id="", owner_id=plan_of.get(each.owner_id or ""))
            rows.append((repr(known), there.balances[each.id]))
        else:
            rolled_over[each.feature_id, each.expires_at] += there.balances[each.id]
    gates = [(gate.since, gate.resets_at, there.balances[gate.id]) for gate in there.terms.gates]
    held = [replace(s, id="") for s in there.customer.subscriptions]
    flags = [flag.feature_id for flag in there.terms.flags]
    return sorted(rows), rolled_over, sorted(gates), held, flags


@given(
    before=lives(),
    until=st.sampled_from([0, 1, DAY_MS - 1, DAY_MS, 20 * DAY_MS, END - NOW, 40 * DAY_MS, 75 * DAY_MS]),
)
def test_one_step_after_a_long_time_is_as_many_small_ones(before: Record, until: int) -> None:
    """A customer who comes back after months has exactly what one has who looked in at every boundary."""
    now = NOW + until
    step_by_step = before
    for due in boundaries(before, now):
        step_by_step = forwarded(step_by_step, due)
    at_once = forwarded(before, now)
    assert seen(at_once) == seen(step_by_step)
    ahead = next_due(at_once.customer, at_once.terms)
    assert ahead is None or ahead > now
