"""Cancelling a plan: at the end of the period that is paid, or at once; and taking that back while it goes on.

A cancelled plan only carries the instant at which it ends. What happens then is the business of `forward.py`.
"""

from enum import StrEnum

from msgspec.structs import replace

from creditgate.core.attach import cycle_end
from creditgate.core.changes import Change, profile_change
from creditgate.core.customers import Customer, Record, Scheduled, Subscription
from creditgate.errors import InvalidRequest, NotFound


class CancelAction(StrEnum):
    """What is done to a plan that the customer is on."""

    CANCEL_IMMEDIATELY = "cancel_immediately"
    CANCEL_END_OF_CYCLE = "cancel_end_of_cycle"
    UNCANCEL = "uncancel"


def find_subscription(
    customer: Customer, *, plan_id: str | None, subscription_id: str | None, entity_id: str | None = None
) -> Subscription | Scheduled:
    """Return what is named by its own id, by that of its plan, by both, or by neither: what is, else what is to come.

    Without its own id, it is looked for among the plans of the entity, or those of the customer.

    Where several fit: the paid plan before free ones, plans before add-ons, the newest first.
    Raises NotFound `cus_product_not_found`.
    """
    ranked: list[Subscription | Scheduled] = [
        *sorted(
            customer.subscriptions, key=lambda held: (held.add_on, held.recurrence is None, -held.started_at)
        ),
        *customer.scheduled,
    ]
    if entity_id is not None:
        customer.entity(entity_id)
    if subscription_id is None or entity_id is not None:
        ranked = [held for held in ranked if held.entity_id == entity_id]
    found = [
        held for held in ranked if subscription_id in (None, held.id) and plan_id in (None, held.plan_id)
    ]
    if not found:
        named = f" with subscription_id '{subscription_id}'" if subscription_id is not None else ""
        on = f" for plan '{plan_id}' on" if plan_id is not None else " for"
        raise NotFound(
            f"No active subscription found{named}{on} customer '{customer.id}'", code="cus_product_not_found"
        )
    return found[0]


def cancellation(record: Record, named: Subscription | Scheduled, action: CancelAction) -> Change | None:
    """Return the change that cancels a plan of the record, or takes that back; None if it is so already.

    What was to come in the place of the plan does not come any more: the free plan of the group comes by itself.
    Raises InvalidRequest for the end of a cycle where there is none.
    """
    if isinstance(named, Scheduled):
        changed = record.customer if action is CancelAction.UNCANCEL else _unscheduled(record.customer, named)
    else:
        held = _with_action(named, action, record.now, record.customer.time_zone)
        place = (named.group, named.entity_id)
        coming = (
            s
            for s in record.customer.scheduled
            if named.add_on or s.add_on or (s.group, s.entity_id) != place
        )
        changed = replace(_with(record.customer, held), scheduled=tuple(coming))
    return profile_change(record, changed) if changed != record.customer else None


def _with_action(held: Subscription, action: CancelAction, now: int, zone: str) -> Subscription:
    match action:
        case CancelAction.UNCANCEL:
            return held if held.canceled_at is None else replace(held, canceled_at=None, expires_at=None)
        case CancelAction.CANCEL_IMMEDIATELY:
            return replace(held, canceled_at=held.canceled_at or now, expires_at=now)
    end = cycle_end(held, now, zone)
    if end <= now:
        raise InvalidRequest("A free plan has no billing cycle that could end; use cancel_immediately")
    if held.canceled_at is not None:
        return held
    return replace(held, canceled_at=now, expires_at=min(end, held.expires_at or end))


def _unscheduled(customer: Customer, coming: Scheduled) -> Customer:
    """The plan is not to come, so the one that was to end for it goes on."""
    for held in customer.subscriptions:
        if held.expires_at == coming.starts_at and _is_in_place(held, coming):
            customer = _with(customer, replace(held, canceled_at=None, expires_at=None))
    return replace(customer, scheduled=tuple(s for s in customer.scheduled if s.id != coming.id))


def _is_in_place(held: Subscription, coming: Scheduled) -> bool:
    if held.entity_id != coming.entity_id:
        return False
    if held.add_on or coming.add_on:
        return held.plan_id == coming.plan_id
    return held.group == coming.group


def _with(customer: Customer, changed: Subscription) -> Customer:
    held = tuple(changed if s.id == changed.id else s for s in customer.subscriptions)
    return replace(customer, subscriptions=held)
