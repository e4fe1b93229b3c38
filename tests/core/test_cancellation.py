"""Cancelling: a plan is told when it ends, and goes on until then; taking that back leaves no trace."""

import pytest
from msgspec.structs import replace

from creditgate.core.cancellation import CancelAction, cancellation, find_subscription
from creditgate.core.changes import Change
from creditgate.core.customers import Customer, Record, Scheduled, Subscription
from creditgate.core.periods import boundary
from creditgate.errors import InvalidRequest, NotFound
from tests.core.words import DAY, DAY_MS, MONTH, NOW, YEAR, record, row

FREE = Subscription("sub_free", "free", 1, NOW, NOW)
PRO = Subscription("sub_pro", "pro", 1, NOW, NOW, recurrence=MONTH)
EXTRA = Subscription("sub_extra", "extra", 1, NOW, NOW, add_on=True, recurrence=YEAR)


def customer(*held: Subscription) -> Record:
    """A record of somebody on these plans, who also holds a row that resets each day."""
    return record(
        row("daily", reset=DAY), customer=Customer("ann", NOW, subscriptions=held), now=NOW + DAY_MS // 2
    )


def outcome(record: Record, held: Subscription, action: CancelAction) -> Change:
    change = cancellation(record, held, action)
    assert change is not None
    assert change.steps == ()
    assert change.terms is None
    return change


def after(record: Record, held: Subscription, action: CancelAction) -> Subscription:
    """The subscription as the change leaves it; all others stay as they are."""
    changed = outcome(record, held, action).customer
    assert changed is not None
    others = [s for s in changed.subscriptions if s.id != held.id]
    assert others == [s for s in record.customer.subscriptions if s.id != held.id]
    return next(s for s in changed.subscriptions if s.id == held.id)


def test_at_the_end_of_the_cycle_the_plan_goes_on() -> None:
    """Who has paid for the month keeps it; the end is that of the period that is running."""
    held = replace(PRO, anchor=NOW - 40 * DAY_MS)
    now = customer(held)
    ended = after(now, held, CancelAction.CANCEL_END_OF_CYCLE)
    assert ended == replace(held, canceled_at=now.now, expires_at=boundary(held.anchor, MONTH, 2))


def test_immediately_is_now() -> None:
    """The plan is over at this instant, and what falls due then is the next thing that happens."""
    now = customer(FREE, PRO)
    assert after(now, PRO, CancelAction.CANCEL_IMMEDIATELY) == replace(
        PRO, canceled_at=now.now, expires_at=now.now
    )
    assert outcome(now, PRO, CancelAction.CANCEL_IMMEDIATELY).due == now.now


def test_immediately_after_all() -> None:
    """Whoever cancelled for the end of the month and then wants it now did cancel back then."""
    held = replace(PRO, canceled_at=NOW, expires_at=NOW + 31 * DAY_MS)
    now = customer(held)
    ended = after(now, held, CancelAction.CANCEL_IMMEDIATELY)
    assert (ended.canceled_at, ended.expires_at) == (NOW, now.now)


def test_the_end_is_due_only_if_nothing_else_comes_before() -> None:
    """A cancellation does not put off what falls due sooner: here, the daily row of the same customer."""
    now = customer(PRO)
    (daily,) = now.terms.rows
    assert outcome(now, PRO, CancelAction.CANCEL_END_OF_CYCLE).due == daily.resets_at


def test_uncancel_leaves_no_trace() -> None:
    """Whoever changes their mind in time is where they were: nothing ends, and nothing is due for it."""
    before = customer(PRO)
    cancelled = outcome(before, PRO, CancelAction.CANCEL_END_OF_CYCLE).customer
    assert cancelled is not None
    (held,) = cancelled.subscriptions
    assert after(replace(before, customer=cancelled), held, CancelAction.UNCANCEL) == PRO


@pytest.mark.parametrize(
    ("held", "action"),
    [
        (PRO, CancelAction.UNCANCEL),
        (FREE, CancelAction.UNCANCEL),
        (replace(PRO, canceled_at=NOW, expires_at=NOW + 9 * DAY_MS), CancelAction.CANCEL_END_OF_CYCLE),
    ],
)
def test_what_is_so_already_is_no_change(held: Subscription, action: CancelAction) -> None:
    """A second click neither moves the end nor writes anything."""
    assert cancellation(customer(held), held, action) is None


def test_a_free_plan_has_no_cycle_to_end() -> None:
    """A plan that is never paid has no paid period to go on for; it can be ended at once."""
    with pytest.raises(InvalidRequest, match="cancel_immediately"):
        cancellation(customer(FREE), FREE, CancelAction.CANCEL_END_OF_CYCLE)
    assert after(customer(FREE), FREE, CancelAction.CANCEL_IMMEDIATELY).expires_at is not None


def test_a_trial_is_a_cycle_too() -> None:
    """Whoever cancels while trying keeps the trial to its end, and is not let into a month that is not wanted."""
    held = replace(PRO, anchor=NOW + 7 * DAY_MS, trial_ends_at=NOW + 7 * DAY_MS)
    assert after(customer(held), held, CancelAction.CANCEL_END_OF_CYCLE).expires_at == NOW + 7 * DAY_MS


@pytest.mark.parametrize("days", [3, 300])
def test_an_end_that_was_agreed_is_not_put_off(days: int) -> None:
    """A plan that was taken until a day ends then or sooner; to uncancel what was not cancelled leaves that day."""
    held = replace(PRO, expires_at=NOW + days * DAY_MS)
    there = customer(held)
    ended = after(there, held, CancelAction.CANCEL_END_OF_CYCLE)
    assert ended.canceled_at == there.now
    assert ended.expires_at == NOW + min(days, 31) * DAY_MS
    assert cancellation(there, held, CancelAction.UNCANCEL) is None


def downgraded() -> tuple[Record, Subscription, Scheduled]:
    """Somebody on pro, with a cheaper plan to come, and an add-on to come besides."""
    end = boundary(NOW, MONTH, 1)
    pro = replace(PRO, canceled_at=NOW, expires_at=end)
    basic = Scheduled("sub_basic", "basic", 1, NOW, end)
    more = Scheduled("sub_more", "more", 1, NOW, end, add_on=True)
    there = customer(pro)
    coming = replace(there.customer, scheduled=(basic, more))
    return replace(there, customer=coming), pro, basic


@pytest.mark.parametrize("action", list(CancelAction))
def test_what_was_to_come_instead_does_not_come(action: CancelAction) -> None:
    """Whoever leaves a plan, or stays after all, is not surprised by a downgrade that was planned before."""
    there, pro, _ = downgraded()
    changed = outcome(there, pro, action).customer
    assert changed is not None
    assert [s.plan_id for s in changed.scheduled] == ["more"]
    (held,) = changed.subscriptions
    assert (held.canceled_at is None) == (action is CancelAction.UNCANCEL)


@pytest.mark.parametrize("action", [CancelAction.CANCEL_END_OF_CYCLE, CancelAction.CANCEL_IMMEDIATELY])
def test_a_plan_that_was_to_come_is_called_off(action: CancelAction) -> None:
    """Without the plan that was to come, the one that was to end for it goes on."""
    there, pro, basic = downgraded()
    assert find_subscription(there.customer, plan_id="basic", subscription_id=None) == basic
    change = cancellation(there, basic, action)
    assert change is not None
    assert change.customer is not None
    assert change.customer.subscriptions == (replace(pro, canceled_at=None, expires_at=None),)
    assert [s.plan_id for s in change.customer.scheduled] == ["more"]
    assert cancellation(there, basic, CancelAction.UNCANCEL) is None


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ({}, PRO),
        ({"plan_id": "free"}, FREE),
        ({"plan_id": "extra"}, EXTRA),
        ({"subscription_id": "sub_extra"}, EXTRA),
        ({"subscription_id": "sub_free", "plan_id": "free"}, FREE),
    ],
)
def test_which_subscription_is_meant(named: dict[str, str], found: Subscription) -> None:
    """By its own id or by its plan's; by neither, the one that is paid for, not the add-on and not the free one."""
    held = Customer("ann", NOW, subscriptions=(FREE, EXTRA, PRO))
    assert find_subscription(held, **{"plan_id": None, "subscription_id": None} | named) == found


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"plan_id": "gold"}, "for plan 'gold' on customer 'ann'"),
        ({"subscription_id": "sub_x"}, "with subscription_id 'sub_x' for customer 'ann'"),
        ({"subscription_id": "sub_free", "plan_id": "pro"}, "'sub_free'"),
    ],
)
def test_a_subscription_that_is_not_there(named: dict[str, str], said: str) -> None:
    """Cancelling the wrong plan is worse than an error: ids that do not belong together find nothing."""
    held = Customer("ann", NOW, subscriptions=(FREE, PRO))
    with pytest.raises(NotFound, match=said) as refused:
        find_subscription(held, **{"plan_id": None, "subscription_id": None} | named)
    assert refused.value.code == "cus_product_not_found"


def test_nobody_is_on_nothing() -> None:
    """A customer without any plan has none to cancel."""
    with pytest.raises(NotFound, match="for customer 'ann'"):
        find_subscription(Customer("ann", NOW), plan_id=None, subscription_id=None)
