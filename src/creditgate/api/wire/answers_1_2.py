"""What versions up to 1.4 were answered: features and products, and up to 0.2 little more than whether it was allowed.

Each function reads like the JSON that it makes; its name ends in the newest version that has the shape, which is 1.2
where it does not say.
"""

from typing import Any

from creditgate.api.wire.answers import max_purchase_nanos
from creditgate.api.wire.answers_2_0 import (
    has_one_reset,
    held_by,
    profile_of,
    rollovers_of,
    shown_usage_nanos,
)
from creditgate.api.wire.customers import CustomerAnswer, SubscriptionAnswer
from creditgate.api.wire.numbers import number
from creditgate.core.catalog import Catalog, Feature, FeatureType, Interval, Plan
from creditgate.core.customers import Record, Row
from creditgate.core.decisions import Balance, Decision, balances_of

Shape = dict[str, Any]

EVENT_ID = "placeholder"  # Autumn itself never said the id of the event here


def check(decision: Decision, *, customer_id: str, catalog: Catalog) -> Shape:
    return {
        "allowed": decision.allowed,
        "code": "feature_found",
        "customer_id": customer_id,
        "feature_id": _answering_id(decision),
        "required_balance": number(decision.required_nanos),
        **_answering(decision, catalog),
    }


def check_0_2(decision: Decision) -> Shape:
    balance = decision.balance(_answering_id(decision))
    if balance is None:
        flags = [{"feature_id": decision.feature_id, "balance": None}] if _has_flag(decision) else []
        return {"allowed": decision.allowed, "balances": flags}
    counts: Shape = {"feature_id": balance.feature_id}
    if balance.unlimited:
        counts |= {"required": None, "balance": None, "unlimited": True, "usage_allowed": False}
    elif balance.overage_allowed:
        counts |= {"required": None, "balance": _raw(balance), "unlimited": False, "usage_allowed": True}
    else:
        counts |= {"required": number(decision.required_nanos), "balance": _raw(balance)}
    return {"allowed": decision.allowed, "balances": [counts]}


def track(decision: Decision, *, customer_id: str, event_name: str | None) -> Shape:
    return {
        "id": EVENT_ID,
        "code": "event_received",
        "customer_id": customer_id,
        **({"event_name": event_name} if event_name else {}),
        **({} if decision.also else {"feature_id": _answering_id(decision)}),
    }


def attach(plan: Plan, *, customer_id: str, payment_url: str | None) -> Shape:
    code, message = _outcome(plan, is_paid=payment_url is None)
    return {
        "success": True,
        "customer_id": customer_id,
        "product_ids": [plan.id],
        "code": code,
        "message": message,
        **({"checkout_url": payment_url} if payment_url else {}),
    }


def attach_0_2(plan: Plan, *, payment_url: str | None) -> Shape:
    if payment_url is not None:
        return {"checkout_url": payment_url}
    return {"success": True, "message": _outcome(plan, is_paid=True)[1]}


def customer(newest: CustomerAnswer, record: Record, catalog: Catalog) -> Shape:
    """Return the customer whose newest shape is given."""
    features = {
        balance.feature_id: _feature(balance, catalog)
        for balance in balances_of(record.terms, record.balances)
    }
    features |= {flag.feature_id: _on(flag.feature_id, catalog) for flag in record.terms.flags}
    return profile_of(newest) | {"products": _products(newest, record, catalog), "features": features}


def customer_1_1(newest: CustomerAnswer, record: Record, catalog: Catalog) -> Shape:
    """Return the customer whose newest shape is given; each row of a balance was an entry of its own."""
    features: list[Shape] = [
        {"feature_id": balance.feature_id, **entry}
        for balance in balances_of(record.terms, record.balances)
        for entry in _entries_1_1(balance)
    ]
    features += [{"feature_id": flag.feature_id} for flag in record.terms.flags]
    return profile_of(newest) | {"products": _products(newest, record, catalog), "features": features}


def _outcome(plan: Plan, *, is_paid: bool) -> tuple[str, str]:
    if not is_paid:
        return "checkout_created", f"{plan.name} is attached once it is paid for"
    if plan.is_free:
        return "free_product_attached", f"{plan.name} is attached"
    if plan.is_one_off:
        return "one_off_product_attached", f"{plan.name} is bought"
    return "new_product_attached", f"{plan.name} is attached"


def _products(newest: CustomerAnswer, record: Record, catalog: Catalog) -> list[Shape]:
    """Add-ons come last."""
    versions = {bought.plan_id: bought.plan_version for bought in record.customer.purchases}
    versions |= {held.plan_id: held.plan_version for held in record.customer.subscriptions}
    held = sorted(held_by(newest), key=lambda one: one.add_on)
    return [_product(one, catalog.plans.get(one.plan_id), versions[one.plan_id], record.now) for one in held]


def _product(held: SubscriptionAnswer, plan: Plan | None, version: int, now: int) -> Shape:
    """`items` is null, which its type allows: what a plan is made of is told by `plans.get`."""
    return {
        "id": held.plan_id,
        "name": plan.name if plan else None,
        "group": plan.group or None if plan else None,
        "status": _status(held, now),
        "canceled_at": held.canceled_at,
        "started_at": held.started_at,
        "is_default": held.auto_enable,
        "is_add_on": held.add_on,
        "version": version,
        "current_period_start": held.current_period_start,
        "current_period_end": held.current_period_end,
        "items": None,
        "quantity": held.quantity,
    }


def _status(held: SubscriptionAnswer, now: int) -> str:
    if held.status != "active":
        return held.status
    if held.past_due:
        return "past_due"
    return "trialing" if (held.trial_ends_at or 0) > now else "active"


def _answering_id(decision: Decision) -> str:
    return decision.pool.feature_id if decision.pool else decision.feature_id


def _answering(decision: Decision, catalog: Catalog) -> Shape:
    """Without a balance, a check says nothing of one."""
    balance = decision.balance(_answering_id(decision))
    if balance is not None:
        return _counts(balance, catalog)
    return _ON if _has_flag(decision) else {}


def _has_flag(decision: Decision) -> bool:
    return any(flag.feature_id == decision.feature_id for flag in decision.terms.flags)


def _feature(balance: Balance, catalog: Catalog) -> Shape:
    feature = catalog.features.get(balance.feature_id)
    is_held = feature is not None and not feature.consumable
    return {
        "id": balance.feature_id,
        "type": "continuous_use" if is_held else "single_use",
        "name": feature.name if feature else None,
        **_counts(balance, catalog),
    }


# An on/off feature that a customer has was answered with counts of nothing.
_ON: Shape = {
    "interval": None,
    "interval_count": None,
    "unlimited": False,
    "balance": 0,
    "usage": 0,
    "included_usage": 0,
    "next_reset_at": None,
    "overage_allowed": False,
}


def _on(feature_id: str, catalog: Catalog) -> Shape:
    feature = catalog.features.get(feature_id)
    return {"id": feature_id, "type": "static", "name": feature.name if feature else None, **_ON}


def _counts(balance: Balance, catalog: Catalog) -> Shape:
    most, feature = max_purchase_nanos(balance), catalog.features.get(balance.feature_id)
    limit = {} if most is None else {"usage_limit": number(most + balance.granted_nanos)}
    return {
        **_interval(balance),
        "unlimited": balance.unlimited,
        "balance": _raw(balance),
        "usage": number(shown_usage_nanos(balance)),
        "included_usage": number(balance.granted_nanos),
        "overage_allowed": balance.overage_allowed and most is None,
        **limit,
        "breakdown": [_row(row, raw_nanos) for row, raw_nanos in balance.rows],
        **rollovers_of(balance),
        **(_credit_schema(feature) if feature else {}),
    }


def _entries_1_1(balance: Balance) -> list[Shape]:
    """What rolled over had no place of its own, so it is one more entry: else a sum of them would lack it."""
    if balance.unlimited:
        return [{"unlimited": True}]
    rows = (*balance.rows, *balance.rollovers)
    return [{"unlimited": False, **_row(row, raw_nanos)} for row, raw_nanos in rows]


def _row(row: Row, raw_nanos: int) -> Shape:
    raw_nanos = 0 if row.unlimited else raw_nanos
    most = row.max_purchase_nanos
    limit = {} if most is None else {"usage_limit": number(most + row.granted_nanos)}
    return {
        **_interval_of(row),
        "balance": number(raw_nanos),
        "usage": number(row.granted_nanos - raw_nanos),
        "included_usage": number(row.granted_nanos),
        "overage_allowed": row.may_go_negative and most is None,
        **limit,
    }


def _interval(balance: Balance) -> Shape:
    if not has_one_reset(balance):
        return {"interval": "multiple", "interval_count": None, "next_reset_at": None}
    return _interval_of(balance.rows[0][0]) | {"next_reset_at": balance.next_reset_at}


def _interval_of(row: Row) -> Shape:
    if row.reset is None:
        return {"interval": None, "interval_count": None if row.unlimited else 1, "next_reset_at": None}
    word = "lifetime" if row.reset.interval is Interval.ONE_OFF else row.reset.interval
    return {"interval": word, "interval_count": row.reset.count, "next_reset_at": row.resets_at}


def _raw(balance: Balance) -> object:
    """A balance was one number, negative where more was used than there was."""
    return number(balance.granted_nanos - shown_usage_nanos(balance))


def _credit_schema(feature: Feature) -> Shape:
    if feature.type is not FeatureType.CREDIT_SYSTEM:
        return {}
    costs = [
        {"feature_id": c.feature_id, "credit_amount": number(c.cost_nanos)} for c in feature.credit_schema
    ]
    return {"credit_schema": costs}
