"""A preview says what attaching will do, to the nano and to the millisecond."""

import pytest
from msgspec.structs import replace

from creditgate.core.attach import attach
from creditgate.core.catalog import FreeTrial, Interval, Plan, Recurrence
from creditgate.core.customers import AttachOptions, Customer, Record
from creditgate.core.periods import boundary
from creditgate.core.plans import Line, new_customer
from creditgate.core.preview import Charge, Due, Preview, Span, preview
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
TRIED = plan("tried", price="10", free_trial=FreeTrial(Recurrence(Interval.DAY, 7)))
ONLY_TRIED = replace(TRIED, id="only_tried", free_trial=FreeTrial(Recurrence(Interval.DAY, 7), reverts=True))
TOP_UP = plan("top_up", item("usd", price="1", every=ONE_OFF), add_on=True)
CATALOG = catalog(
    *(feature("messages"), system("usd", messages="0.01")),
    *(FREE, PRO, TEAM, YEARLY, TRIED, ONLY_TRIED, TOP_UP),
)


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


def previewed(
    there: Record, plan_id: str, options: AttachOptions | None = None, **quantities: str
) -> Preview:
    wanted = {feature_id: nanos(quantity) for feature_id, quantity in quantities.items()}
    mint = Mint()
    mint.count = 100  # ids that nobody has yet
    plan = CATALOG.plan(plan_id)
    return preview(there, CATALOG, plan, wanted, mint=mint, options=options or AttachOptions())


def test_a_first_paid_plan() -> None:
    """Paid from now on, for a month from now, and then each month; the free plan goes."""
    there = customer()
    found = previewed(there, "pro")
    ends = [boundary(there.now, MONTH, k) for k in (1, 2)]
    base = Line(None, 0, nanos("10"))
    assert found.now == Due(there.now, (Charge(base, Span(there.now, ends[0])),))
    assert found.next == Due(ends[0], (Charge(base, Span(*ends)),))
    assert found.now.total_nanos == nanos("10")
    assert (found.starts_at, found.quantities) == (there.now, {})
    assert found.ended is not None
    assert (found.ended.subscription.plan_id, found.ended.quantities) == ("free", {})


def test_an_upgrade_keeps_its_day_of_the_month() -> None:
    """Where one paid month follows another, the period that is running ends when it would have ended."""
    there = customer("pro")
    found = previewed(there, "team", usd="25")
    end = boundary(NOW, MONTH, 1)
    packs = Line("usd", nanos("30"), nanos("9"))
    assert found.now.charges == tuple(
        Charge(line, Span(there.now, end)) for line in (Line(None, 0, nanos("20")), packs)
    )
    assert found.next is not None
    assert {charge.span for charge in found.next.charges} == {Span(end, boundary(NOW, MONTH, 2))}
    assert found.now.total_nanos == nanos("29")
    assert found.quantities == {"usd": nanos("32")}
    assert found.ended is not None
    assert found.ended.subscription.plan_id == "pro"


def test_what_is_paid_sooner_is_the_next_charge() -> None:
    """Of a yearly plan with monthly credits, the next charge is that of the credits."""
    there = customer()
    found = previewed(there, "yearly", usd="7")
    year, month = (charge.span for charge in found.now.charges)
    assert year == Span(there.now, boundary(there.now, YEAR, 1))
    assert month == Span(there.now, boundary(there.now, MONTH, 1))
    credits_line = Line("usd", nanos("7"), nanos("21"))
    span = Span(boundary(there.now, MONTH, 1), boundary(there.now, MONTH, 2))
    assert found.next == Due(span.start, (Charge(credits_line, span),))


def test_a_top_up_is_paid_once_and_replaces_nothing() -> None:
    """Nothing comes after it, and nothing goes for it."""
    found = previewed(customer("pro"), "top_up", usd="20")
    assert found.now.charges == (Charge(Line("usd", nanos("20"), nanos("20")), None),)
    assert (found.next, found.ended) == (None, None)
    assert found.quantities == {"usd": nanos("20")}


def test_nothing_is_bought_without_a_quantity() -> None:
    """A line of nothing is not shown."""
    assert previewed(customer(), "top_up").now.charges == ()
    assert [charge.line.feature_id for charge in previewed(customer(), "team").now.charges] == [None]


def test_what_would_end_is_shown_with_what_it_was_bought_with() -> None:
    """Whoever changes from a plan with packs sees how many of them go."""
    there = customer()
    bought = attach(there, there.customer, CATALOG, TEAM, {"usd": nanos("12")}, mint=lambda p: f"{p}_team")
    there = applied(there, bought, now=there.now)
    found = previewed(there, "yearly", AttachOptions(schedule="immediate"))
    assert found.ended is not None
    assert found.ended.quantities == {"usd": nanos("12")}


def test_a_downgrade_is_paid_when_it_starts() -> None:
    """A cheaper plan costs nothing now: it starts when what was paid is over, and is paid from then on."""
    there = customer("team")
    found = previewed(there, "pro")
    end = boundary(NOW, MONTH, 1)
    assert (found.now.charges, found.starts_at) == ((), end)
    assert found.next == Due(end, (Charge(Line(None, 0, nanos("10")), Span(end, boundary(NOW, MONTH, 2))),))
    assert found.ended is not None
    assert found.ended.subscription.plan_id == "team"
    assert previewed(there, "free").next is None


@pytest.mark.parametrize("no_trial", [False, True])
def test_a_trial_is_paid_when_it_is_over(no_trial: bool) -> None:
    """A plan with a trial starts at once and costs nothing until then; without the trial it is paid now."""
    there = customer()
    found = previewed(there, "tried", AttachOptions(no_trial=no_trial))
    assert found.starts_at == there.now
    assert found.next is not None
    if no_trial:
        assert found.now.total_nanos == nanos("10")
    else:
        ends = there.now + 7 * DAY_MS
        assert (found.now.charges, found.next.at) == ((), ends)
        assert found.next.charges[0].span == Span(ends, boundary(ends, MONTH, 1))
    assert found.ended is not None


def test_what_ends_is_not_paid_after_its_end() -> None:
    """A trial that leads back to the free plan, and a plan that is taken for some days, have no next charge."""
    there = customer()
    found = previewed(there, "only_tried")
    assert (found.now.charges, found.next, found.expires_at) == ((), None, there.now + 7 * DAY_MS)
    for days, is_paid_again in ((20, False), (40, True)):
        found = previewed(there, "pro", AttachOptions(ends_at=there.now + days * DAY_MS))
        assert found.expires_at == there.now + days * DAY_MS
        assert (found.next is not None) is is_paid_again


def test_usage_is_reset_unless_it_is_carried_over() -> None:
    """A page can warn of what a change does to the balances: now, later, or not at all."""
    assert previewed(customer("pro"), "team").resets_usage
    assert not previewed(customer("pro"), "team", AttachOptions(carry_usages=())).resets_usage
    assert not previewed(customer("team"), "pro").resets_usage
    assert not previewed(customer(), "top_up").resets_usage


def test_a_plan_that_goes_on_after_all_costs_nothing_more() -> None:
    """Whoever attaches again what was to end keeps it: it is paid already, and nothing goes."""
    there = customer("pro")
    (pro,) = there.customer.subscriptions
    ending = replace(pro, canceled_at=there.now, expires_at=boundary(NOW, MONTH, 1))
    there = replace(there, customer=replace(there.customer, subscriptions=(ending,)))
    found = previewed(there, "pro")
    assert (found.now.charges, found.next, found.ended) == ((), None, None)


@pytest.mark.parametrize(
    ("there", "plan_id", "quantities", "error"),
    [
        (customer("pro"), "pro", {}, Conflict),
        (customer(), "pro", {"usd": "5"}, InvalidInputs),
    ],
)
def test_what_cannot_be_attached_has_no_preview(
    there: Record, plan_id: str, quantities: dict[str, str], error: type[CreditgateError]
) -> None:
    """A page never offers what will be refused."""
    with pytest.raises(error):
        previewed(there, plan_id, None, **quantities)


def test_an_archived_plan_has_no_preview() -> None:
    """What is no longer sold cannot be looked at either."""
    archived: Plan = replace(PRO, archived=True)
    with pytest.raises(InvalidRequest, match="archived"):
        preview(customer(), CATALOG, archived, {}, mint=Mint())
