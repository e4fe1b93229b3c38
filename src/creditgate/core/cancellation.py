"""Cancelling a plan: at the end of the period that is paid, or at once; and taking that back while it goes on.

A cancelled plan only carries the instant at which it ends. What happens then is the business of `forward.py`.
"""

from enum import StrEnum

from msgspec.structs import replace

from creditgate.core.changes import Change, profile_change
from creditgate.core.customers import Customer, Record, Subscription
from creditgate.core.periods import boundary, period_at
from creditgate.errors import InvalidRequest, NotFound


class CancelAction(StrEnum):
    """What is done to a plan that the customer is on."""

    CANCEL_IMMEDIATELY = "cancel_immediately"
    CANCEL_END_OF_CYCLE = "cancel_end_of_cycle"
    UNCANCEL = "uncancel"


def find_subscription(
    customer: Customer, *, plan_id: str | None, subscription_id: str | None
) -> Subscription:
    """Return the subscription that is named by its own id, by that of its plan, by both, or by neither.

    Where several fit: the paid plan before free ones, plans before add-ons, the newest first.
    Raises NotFound `cus_product_not_found`.
    """
    found = [
        held
        for held in customer.subscriptions
        if subscription_id in (None, held.id) and plan_id in (None, held.plan_id)
    ]
    if not found:
        named = f" with subscription_id '{subscription_id}'" if subscription_id is not None else ""
        on = f" for plan '{plan_id}' on" if plan_id is not None else " for"
        raise NotFound(
            f"No active subscription found{named}{on} customer '{customer.id}'", code="cus_product_not_found"
        )
    return min(found, key=lambda held: (held.add_on, held.recurrence is None, -held.started_at))


def cancellation(record: Record, subscription: Subscription, action: CancelAction) -> Change | None:
    """Return the change that cancels a subscription of the record, or takes that back; None if it is so already.

    Raises InvalidRequest for the end of a cycle where there is none.
    """
    changed = _with_action(subscription, action, record.now)
    if changed == subscription:
        return None
    held = tuple(changed if s.id == changed.id else s for s in record.customer.subscriptions)
    return profile_change(record, replace(record.customer, subscriptions=held))


def _with_action(subscription: Subscription, action: CancelAction, now: int) -> Subscription:
    match action:
        case CancelAction.UNCANCEL:
            return replace(subscription, canceled_at=None, expires_at=None)
        case CancelAction.CANCEL_IMMEDIATELY:
            return replace(subscription, canceled_at=subscription.canceled_at or now, expires_at=now)
    if subscription.recurrence is None:
        raise InvalidRequest("A free plan has no billing cycle that could end; use cancel_immediately")
    if subscription.expires_at is not None:
        return subscription
    period = period_at(subscription.anchor, subscription.recurrence, now)
    end = boundary(subscription.anchor, subscription.recurrence, period + 1)
    return replace(subscription, canceled_at=now, expires_at=end)
