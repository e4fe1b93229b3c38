"""Plans: what a quote says, what attaching gives, and what it replaces or refuses."""

import msgspec
import pytest

from creditgate.core.amounts import AmountOutOfRange
from creditgate.core.attach import attach, switch_to
from creditgate.core.catalog import Catalog, Plan, Recurrence
from creditgate.core.changes import Change, Step
from creditgate.core.customers import Checkout, Customer, Offered, Record, Row, Subscription
from creditgate.core.periods import boundary
from creditgate.core.plans import Line, given_by, new_customer, quote
from creditgate.errors import Conflict, InvalidInputs, InvalidRequest
from tests.core.words import (
    DAY,
    DAY_MS,
    MONTH,
    NOW,
    ONE_OFF,
    YEAR,
    Mint,
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

FEATURES = (
    feature("messages"),
    feature("seats", consumable=False),
    boolean("sso"),
    system("usd", messages="0.01"),
)


def shop(*plans: Plan) -> Catalog:
    """A catalog with the features of these tests and some plans."""
    return catalog(*FEATURES, *plans)


def customer_on(shop: Catalog, *plan_ids: str, now: int = NOW) -> tuple[Record, Mint]:
    """A customer to whom these plans were attached one after the other, as a record with full balances."""
    mint = Mint()
    held = record(customer=Customer("ann", NOW), now=now)
    for plan_id in plan_ids:
        held = applied(held, attach(held, held.customer, shop, shop.plan(plan_id), {}, mint=mint))
    return held, mint


def applied(before: Record, change: Change, **balances: str) -> Record:
    """The record after a change, with full balances but for those that are named."""
    terms = change.terms or before.terms
    return record(
        *terms.rows,
        customer=change.customer or before.customer,
        now=before.now,
        flags=terms.flags,
        balances=balances,
    )


def rows_of(change: Change) -> list[Row]:
    """The rows that there are after the change."""
    assert change.terms is not None
    return list(change.terms.rows)


def opened(change: Change) -> list[str]:
    """The rows that the change opens."""
    return [step.row_id for step in change.steps if step.action == "open"]


# Quotes


@pytest.mark.parametrize(
    ("pack", "included", "quantity", "packs"),
    [
        ("1", "0", "20", 20),
        ("1", "0", "0", 0),
        ("1", "0", "19.5", 20),
        ("1", "0", "0.000000001", 1),
        ("100", "0", "1", 1),
        ("100", "0", "100", 1),
        ("100", "0", "100.000000001", 2),
        ("100", "100", "300", 2),
        ("100", "100", "301", 3),
        ("100", "100", "100", 0),
        ("100", "100", "50", 0),
        ("0.3", "0", "1", 4),
    ],
)
def test_quantities_are_sold_in_whole_packs(pack: str, included: str, quantity: str, packs: int) -> None:
    """A quantity is a total: the included part is free, the rest is rounded up to packs, in price and in credits."""
    top_up = plan("top", item("usd", included, price="1.5", pack=pack))
    bought = packs * nanos(pack)
    assert quote(top_up, {"usd": nanos(quantity)}) == (Line("usd", bought, packs * nanos("1.5")),)
    given = given_by(
        top_up, shop(top_up), {"usd": nanos(quantity)}, owner_id="o", anchor=NOW, now=NOW, mint=Mint()
    )
    assert (given.rows[0].included_nanos, given.rows[0].prepaid_nanos) == (nanos(included), bought)
    assert given.rows[0].granted_nanos == nanos(included) + bought


def test_quote_has_the_plan_and_each_item_that_is_sold() -> None:
    """What is charged is the plan's own price and each quantity; what is included costs nothing."""
    pro = plan("pro", item("messages", "5"), item("usd", price="2", every=MONTH), price="10")
    assert quote(pro, {"usd": nanos("3")}) == (
        Line(None, 0, nanos("10")),
        Line("usd", nanos("3"), nanos("6")),
    )
    assert quote(pro, {}) == (Line(None, 0, nanos("10")), Line("usd", 0, 0))
    assert quote(plan("free", item("messages", "5")), {}) == ()


@pytest.mark.parametrize("feature_id", ["messages", "sso", "nothing"])
def test_quantity_of_what_is_not_sold(feature_id: str) -> None:
    """A quantity that would be ignored is refused: the customer would pay for nothing, or get it for nothing."""
    pro = plan("pro", item("messages", "5"), item("usd", price="2"))
    with pytest.raises(InvalidInputs, match=feature_id):
        quote(pro, {feature_id: nanos("1")})


def test_quote_beyond_the_range() -> None:
    """A price that no amount can hold is refused before anybody is asked to pay it."""
    dear = plan("dear", item("usd", price="1000000000000"))
    assert quote(dear, {"usd": nanos("1000")})[0].total_nanos == 10**24
    with pytest.raises(AmountOutOfRange) as refusal:
        quote(dear, {"usd": nanos("1001")})
    assert refusal.value.code == "amount_out_of_range"


# What a plan gives


def test_items_become_rows_and_flags() -> None:
    """Each item gives a row with its own terms, and an on/off feature a flag; they are tied to their plan."""
    pro = plan(
        "pro",
        item("messages", "100", reset=DAY),
        item("usd", "10", price="1", every=MONTH),
        item("seats", "3"),
        item("sso"),
        add_on=True,
    )
    given = given_by(
        pro, shop(pro), {"usd": nanos("12")}, owner_id="own", anchor=NOW - DAY_MS, now=NOW, mint=Mint()
    )
    messages, usd, seats = given.rows
    assert (messages.reset, messages.anchor, messages.period, messages.resets_at) == (
        DAY,
        NOW - DAY_MS,
        1,
        NOW + DAY_MS,
    )
    assert (usd.reset, usd.granted_nanos, usd.may_go_negative) == (MONTH, nanos("12"), False)
    assert (seats.reset, seats.resets_at, seats.may_go_negative) == (None, None, True)
    assert {r.plan_id for r in given.rows} == {"pro"}
    assert {r.owner_id for r in given.rows} == {"own"}
    assert all(r.add_on and r.created_at == NOW for r in given.rows)
    assert [(f.feature_id, f.plan_id, f.owner_id, f.expires_at) for f in given.flags] == [
        ("sso", "pro", "own", None)
    ]


def test_what_is_consumable_and_never_resets_is_one_off() -> None:
    """Credits without a reset are given once; sold seats do not go below zero."""
    top_up = plan("top", item("usd", "5"), item("seats", price="5", every=MONTH))
    usd, seats = given_by(top_up, shop(top_up), {}, owner_id="o", anchor=NOW, now=NOW, mint=Mint()).rows
    assert (usd.reset, usd.resets_at) == (ONE_OFF, None)
    assert (seats.reset, seats.may_go_negative) == (None, False)


def test_new_customer_starts_on_the_plans() -> None:
    """A new customer is subscribed to each plan from now on, and holds what they give."""
    free, gift = plan("free", item("usd", "5", reset=MONTH)), plan("gift", item("sso"), add_on=True)
    change = new_customer(Customer("ann", NOW), shop(free, gift), (free, gift), now=NOW, mint=Mint())
    assert change.customer is not None
    assert [(s.plan_id, s.anchor, s.recurrence, s.add_on) for s in change.customer.subscriptions] == [
        ("free", NOW, None, False),
        ("gift", NOW, None, True),
    ]
    assert change.due == boundary(NOW, MONTH, 1)
    assert [step.amount_nanos for step in change.steps] == [nanos("5")]
    assert change.terms is not None
    assert [flag.feature_id for flag in change.terms.flags] == ["sso"]


# Attaching


def test_upgrade_replaces_the_plan_of_its_group() -> None:
    """After an upgrade there is one main plan: the old rows are closed, the new ones full, nothing is carried over."""
    free, pro = (
        plan("free", item("usd", "5", reset=MONTH), item("sso")),
        plan("pro", item("usd", "10", reset=MONTH), price="10"),
    )
    held, mint = customer_on(shop(free, pro), "free")
    old = held.terms.rows[0]
    change = attach(held, held.customer, shop(free, pro), pro, {}, mint=mint)
    assert change.customer is not None
    assert [s.plan_id for s in change.customer.subscriptions] == ["pro"]
    (new,) = rows_of(change)
    assert change.steps == (Step("close", old.id), Step("open", new.id, nanos("10")))
    assert change.terms is not None
    assert change.terms.flags == ()


@pytest.mark.parametrize(
    ("old_every", "new_every", "keeps"),
    [(MONTH, MONTH, True), (YEAR, YEAR, True), (MONTH, YEAR, False), (None, MONTH, False)],
)
def test_same_cycle_keeps_its_date(
    old_every: Recurrence | None, new_every: Recurrence, *, keeps: bool
) -> None:
    """Between paid plans of one interval the reset stays on its day; from free, or to another one, it starts now."""
    credits_of_old = item("usd", "5", reset=MONTH)
    old = (
        plan("old", credits_of_old, price="1", every=old_every) if old_every else plan("old", credits_of_old)
    )
    new = plan("new", item("usd", "9", reset=MONTH), price="100", every=new_every)
    held, mint = customer_on(shop(old, new), "old")
    later = msgspec.structs.replace(held, now=NOW + 40 * DAY_MS)
    change = attach(later, later.customer, shop(old, new), new, {}, mint=mint)
    assert change.customer is not None
    (subscription,) = change.customer.subscriptions
    (usd,) = rows_of(change)
    anchor = NOW if keeps else later.now
    assert (subscription.anchor, usd.anchor) == (anchor, anchor)
    assert usd.resets_at == boundary(anchor, MONTH, 2 if keeps else 1)
    assert subscription.started_at == usd.created_at == later.now


def test_add_ons_and_other_groups_stand_beside() -> None:
    """An add-on replaces nothing and is not replaced; a plan of another group neither."""
    plans = (
        plan("free", item("usd", "5")),
        plan("extra", item("messages", "1"), price="1", add_on=True),
        plan("other", item("messages", "2"), price="1", group="b"),
        plan("pro", item("usd", "9"), price="10"),
    )
    held, mint = customer_on(shop(*plans), "free", "extra", "other")
    change = attach(held, held.customer, shop(*plans), plans[3], {}, mint=mint)
    assert change.customer is not None
    assert [s.plan_id for s in change.customer.subscriptions] == ["extra", "other", "pro"]
    assert sorted(r.plan_id or "" for r in rows_of(change)) == ["extra", "other", "pro"]


def test_one_off_is_a_purchase_and_stacks() -> None:
    """A top-up can be bought again and again: each is a row of its own, and no plan ends by it."""
    top_up, pro = plan("top", item("usd", price="1")), plan("pro", item("usd", "9"), price="10")
    held, mint = customer_on(shop(top_up, pro), "pro")
    for count in (1, 2):
        change = attach(held, held.customer, shop(top_up, pro), top_up, {"usd": nanos("20")}, mint=mint)
        held = applied(held, change)
        assert [p.plan_id for p in held.customer.purchases] == ["top"] * count
    assert [r.granted_nanos for r in held.terms.rows] == [nanos("9"), nanos("20"), nanos("20")]
    assert [s.plan_id for s in held.customer.subscriptions] == ["pro"]
    assert len({r.owner_id for r in held.terms.rows}) == 3


@pytest.mark.parametrize("add_on", [False, True])
def test_active_plan_is_a_conflict(*, add_on: bool) -> None:
    """A double click on "subscribe" does not give a second month."""
    pro = plan("pro", item("usd", "9"), price="10", add_on=add_on)
    held, mint = customer_on(shop(pro), "pro")
    with pytest.raises(Conflict) as refusal:
        attach(held, held.customer, shop(pro), pro, {}, mint=mint)
    assert refusal.value.code == "plan_already_attached"
    assert "'Pro'" in refusal.value.message


def test_free_plan_can_be_attached_once() -> None:
    """A free plan is a subscription too: attached once it is active, though it was never bought."""
    free = plan("free", item("usd", "5"))
    held, mint = customer_on(shop(free), "free")
    assert [s.plan_id for s in held.customer.subscriptions] == ["free"]
    with pytest.raises(Conflict):
        attach(held, held.customer, shop(free), free, {}, mint=mint)


@pytest.mark.parametrize(("old", "new"), [("10", "10"), ("10", "10.01"), ("0", "0")])
def test_plan_of_the_same_price_replaces(old: str, new: str) -> None:
    """A sideways move is allowed at once."""
    current, wanted = plan("current", price=old), plan("wanted", price=new)
    held, mint = customer_on(shop(current, wanted), "current")
    change = attach(held, held.customer, shop(current, wanted), wanted, {}, mint=mint)
    assert change.customer is not None
    assert [s.plan_id for s in change.customer.subscriptions] == ["wanted"]


def test_archived_plan_is_refused() -> None:
    """A plan that was taken off the shelf cannot be bought."""
    held, _ = customer_on(shop())
    with pytest.raises(InvalidRequest, match="archived"):
        switch_to(held.customer, shop(), plan("gone", archived=True), NOW)


def test_credits_bought_for_good_outlive_the_plan() -> None:
    """One-off credits that were bought with a plan stay when it is replaced, with what is left of them."""
    team = plan("team", item("usd", "1", price="1"), item("messages", "5", reset=MONTH), price="10")
    big = plan("big", item("usd", "50", reset=MONTH), price="20")
    mint = Mint()
    held = record()
    held = applied(held, attach(held, held.customer, shop(team, big), team, {"usd": nanos("4")}, mint=mint))
    (bought,) = [r for r in held.terms.rows if r.feature_id == "usd"]
    change = attach(held, held.customer, shop(team, big), big, {}, mint=mint)
    assert "close" not in {step.action for step in change.steps if step.row_id == bought.id}
    (kept,) = [r for r in rows_of(change) if r.id == bought.id]
    assert (kept.owner_id, kept.plan_id, kept.granted_nanos) == (None, None, nanos("4"))
    assert len(rows_of(change)) == 2


def test_what_is_paid_every_month_ends_with_the_plan() -> None:
    """Credits that are paid for month by month end when their plan is replaced: nobody pays for them any more."""
    team = plan("team", item("usd", reset=ONE_OFF, price="1", every=MONTH), price="10")
    big = plan("big", item("messages", "5"), price="20")
    mint = Mint()
    held = record()
    held = applied(held, attach(held, held.customer, shop(team, big), team, {"usd": nanos("4")}, mint=mint))
    change = attach(held, held.customer, shop(team, big), big, {}, mint=mint)
    assert [r.feature_id for r in rows_of(change)] == ["messages"]


def test_included_one_off_credits_end_with_the_plan() -> None:
    """What was included and not bought goes with the plan."""
    team, big = plan("team", item("usd", "1"), price="10"), plan("big", price="20")
    held, mint = customer_on(shop(team, big), "team")
    assert rows_of(attach(held, held.customer, shop(team, big), big, {}, mint=mint)) == []


def test_document_that_is_passed_is_the_one_kept() -> None:
    """Whatever else changes in the same step, such as a checkout that was paid, is not lost."""
    pro = plan("pro", price="10")
    held, mint = customer_on(shop(pro))
    paid = Checkout("co", (Offered("pro", 1, nanos("10")),), NOW, paid_at=NOW)
    change = attach(
        held, msgspec.structs.replace(held.customer, checkouts=(paid,)), shop(pro), pro, {}, mint=mint
    )
    assert change.customer is not None
    assert change.customer.checkouts == (paid,)
    assert [s.plan_id for s in change.customer.subscriptions] == ["pro"]


def test_no_room_for_the_rows_of_a_plan() -> None:
    """A plan whose rows do not fit is refused as a whole; rows that it replaces make room."""
    pro = plan("pro", item("usd", "1", reset=MONTH), item("messages", "1"), price="10")
    full = [row(f"r{n}", reset=ONE_OFF) for n in range(63)]
    held = record(*full)
    with pytest.raises(Conflict) as refusal:
        attach(held, held.customer, shop(pro), pro, {}, mint=Mint())
    assert refusal.value.code == "too_many_balances"
    old = Customer("ann", NOW, subscriptions=(Subscription("sub", "old", 1, NOW, NOW),))
    replaced = record(*full[1:], row("a", owner_id="sub"), row("b", owner_id="sub"), customer=old)
    change = attach(replaced, old, shop(pro, plan("old")), pro, {}, mint=Mint())
    assert len(rows_of(change)) == 64
