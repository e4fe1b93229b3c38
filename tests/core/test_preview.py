"""A preview says what attaching will do, to the nano and to the millisecond."""

import pytest
from msgspec.structs import replace

from creditgate.core.catalog import Plan
from creditgate.core.customers import Customer, Record
from creditgate.core.periods import boundary
from creditgate.core.plans import Line, attach, new_customer
from creditgate.core.preview import Charge, Preview, Span, preview
from creditgate.errors import Conflict, CreditgateError, InvalidInputs, InvalidRequest
from tests.core.words import (
    DAY_MS,
    MONTH,
    NOW,
    ONE_OFF,
    YEAR,
    Mint,
    applied,
    catalog,
    feature,
    item,
    nanos,
    plan,
    record,
    system,
)

FREE = plan("free", item("usd", "5", reset=MONTH), auto_enable=True)
PRO = plan("pro", item("usd", "10", reset=MONTH), price="10")
TEAM = plan("team", item("usd", "2", price="3", every=MONTH, pack="10"), price="20")
YEARLY = plan("yearly", item("usd", price="3", every=MONTH), price="240", every=YEAR)
TOP_UP = plan("top_up", item("usd", price="1", every=ONE_OFF), add_on=True)
CATALOG = catalog(*(feature("messages"), system("usd", messages="0.01")), *(FREE, PRO, TEAM, YEARLY, TOP_UP))


def customer(*plans: str) -> Record:
    """A customer who was made on the free plan and attached these, some days ago."""
    mint = Mint()
    there = applied(
        record(), new_customer(Customer("ann", NOW), CATALOG, (FREE,), now=NOW, mint=mint), now=NOW
    )
    for plan_id in plans:
        there = applied(
            there,
            attach(there, there.customer, CATALOG, CATALOG.plan(plan_id), {}, mint=mint),
            now=NOW,
        )
    return replace(there, now=NOW + 3 * DAY_MS)


def previewed(there: Record, plan_id: str, **quantities: str) -> Preview:
    wanted = {feature_id: nanos(quantity) for feature_id, quantity in quantities.items()}
    return preview(there, CATALOG, CATALOG.plan(plan_id), wanted, mint=Mint())


def test_a_first_paid_plan() -> None:
    """Paid from now on, for a month from now, and then each month; the free plan goes."""
    there = customer()
    found = previewed(there, "pro")
    ends = [boundary(there.now, MONTH, k) for k in (1, 2)]
    base = Line(None, 0, nanos("10"))
    assert found.charges == (Charge(base, Span(there.now, ends[0])),)
    assert found.next_charges == (Charge(base, Span(*ends)),)
    assert found.total_nanos == nanos("10")
    assert found.quantities == {}
    assert found.ended is not None
    assert (found.ended.subscription.plan_id, found.ended.quantities) == ("free", {})


def test_an_upgrade_keeps_its_day_of_the_month() -> None:
    """Where one paid month follows another, the period that is running ends when it would have ended."""
    there = customer("pro")
    found = previewed(there, "team", usd="25")
    end = boundary(NOW, MONTH, 1)
    packs = Line("usd", nanos("30"), nanos("9"))
    assert found.charges == tuple(
        Charge(line, Span(there.now, end)) for line in (Line(None, 0, nanos("20")), packs)
    )
    assert {charge.span for charge in found.next_charges} == {Span(end, boundary(NOW, MONTH, 2))}
    assert found.total_nanos == nanos("29")
    assert found.quantities == {"usd": nanos("32")}
    assert found.ended is not None
    assert found.ended.subscription.plan_id == "pro"


def test_what_is_paid_sooner_is_the_next_charge() -> None:
    """Of a yearly plan with monthly credits, the next charge is that of the credits."""
    there = customer()
    found = previewed(there, "yearly", usd="7")
    year, month = (charge.span for charge in found.charges)
    assert year == Span(there.now, boundary(there.now, YEAR, 1))
    assert month == Span(there.now, boundary(there.now, MONTH, 1))
    (then,) = found.next_charges
    assert then.line == Line("usd", nanos("7"), nanos("21"))
    assert then.span == Span(boundary(there.now, MONTH, 1), boundary(there.now, MONTH, 2))


def test_a_top_up_is_paid_once_and_replaces_nothing() -> None:
    """Nothing comes after it, and nothing goes for it."""
    found = previewed(customer("pro"), "top_up", usd="20")
    assert found.charges == (Charge(Line("usd", nanos("20"), nanos("20")), None),)
    assert found.next_charges == ()
    assert found.quantities == {"usd": nanos("20")}
    assert found.ended is None


def test_nothing_is_bought_without_a_quantity() -> None:
    """A line of nothing is not shown."""
    assert previewed(customer(), "top_up").charges == ()
    assert [charge.line.feature_id for charge in previewed(customer(), "team").charges] == [None]


def test_what_would_end_is_shown_with_what_it_was_bought_with() -> None:
    """Whoever changes from a plan with packs sees how many of them go."""
    there = customer()
    bought = attach(there, there.customer, CATALOG, TEAM, {"usd": nanos("12")}, mint=lambda p: f"{p}_team")
    there = applied(there, bought, now=there.now)
    found = previewed(there, "yearly")
    assert found.ended is not None
    assert found.ended.quantities == {"usd": nanos("12")}


@pytest.mark.parametrize(
    ("there", "plan_id", "quantities", "error"),
    [
        (customer("pro"), "pro", {}, Conflict),
        (customer("team"), "pro", {}, InvalidRequest),
        (customer(), "pro", {"usd": "5"}, InvalidInputs),
    ],
)
def test_what_cannot_be_attached_has_no_preview(
    there: Record, plan_id: str, quantities: dict[str, str], error: type[CreditgateError]
) -> None:
    """A page never offers what will be refused."""
    with pytest.raises(error):
        previewed(there, plan_id, **quantities)


def test_an_archived_plan_has_no_preview() -> None:
    """What is no longer sold cannot be looked at either."""
    archived: Plan = replace(PRO, archived=True)
    with pytest.raises(InvalidRequest, match="archived"):
        preview(customer(), CATALOG, archived, {}, mint=Mint())
