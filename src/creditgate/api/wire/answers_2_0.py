"""What version 2.0 was answered: granted, purchased and current balances, and an on/off feature as an empty balance.

Each function reads like the JSON that it makes.
"""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from creditgate.api.wire.answers import max_purchase_nanos, reset_answer, rollover_answer
from creditgate.api.wire.customers import CustomerAnswer, PurchaseAnswer, SubscriptionAnswer
from creditgate.api.wire.features import FeatureAnswer
from creditgate.api.wire.numbers import number
from creditgate.core.customers import Flag, Record, Row
from creditgate.core.decisions import Balance, Decision, balances_of

Shape = dict[str, Any]


def check(decision: Decision, *, customer_id: str) -> Shape:
    return {
        "allowed": decision.allowed,
        "customer_id": customer_id,
        "required_balance": number(decision.required_nanos),
        "balance": _answering(decision),
    }


def track(decision: Decision, *, customer_id: str, value_nanos: int, event_name: str | None) -> Shape:
    balances = {pool.feature_id: _balance_in(decision, pool.feature_id) for pool in decision.pools}
    return {
        "customer_id": customer_id,
        **({"event_name": event_name} if event_name else {}),
        "value": number(value_nanos),
        "balance": _answering(decision),
        **({"balances": balances} if len(balances) > 1 else {}),
    }


def customer(newest: CustomerAnswer, record: Record) -> Shape:
    """Return the customer whose newest shape is given."""
    subscriptions = held_by(newest)
    return profile_of(newest) | {
        "subscriptions": [_subscription(one) for one in subscriptions if one.status != "scheduled"],
        "scheduled_subscriptions": [_subscription(one) for one in subscriptions if one.status == "scheduled"],
        "balances": _balances(newest, record),
    }


def profile_of(newest: CustomerAnswer) -> Shape:
    return {
        "id": newest.id,
        "created_at": newest.created_at,
        "name": newest.name,
        "email": newest.email,
        "fingerprint": newest.fingerprint,
        "stripe_id": newest.stripe_id,
        "env": newest.env,
        "metadata": newest.metadata,
        "send_email_receipts": newest.send_email_receipts,
        "billing_controls": newest.billing_controls,
    }


def held_by(newest: CustomerAnswer) -> list[SubscriptionAnswer]:
    """Return every plan of the customer. A purchase was an add-on then, and several of one plan were one."""
    bought: dict[str, SubscriptionAnswer] = {}
    for purchase in newest.purchases:
        bought[purchase.plan_id] = _as_add_on(purchase, bought.get(purchase.plan_id))
    return [*newest.subscriptions, *bought.values()]


def _as_add_on(purchase: PurchaseAnswer, earlier: SubscriptionAnswer | None) -> SubscriptionAnswer:
    return SubscriptionAnswer(
        id="",
        plan_id=purchase.plan_id,
        auto_enable=False,
        add_on=True,
        expires_at=purchase.expires_at,
        started_at=earlier.started_at if earlier else purchase.started_at,
        current_period_start=None,
        current_period_end=None,
        quantity=purchase.quantity + (earlier.quantity if earlier else 0),
    )


def _subscription(held: SubscriptionAnswer) -> Shape:
    return {
        "plan_id": held.plan_id,
        "default": held.auto_enable,
        "add_on": held.add_on,
        "status": held.status,
        "past_due": held.past_due,
        "canceled_at": held.canceled_at,
        "expires_at": held.expires_at,
        "trial_ends_at": held.trial_ends_at,
        "started_at": held.started_at,
        "current_period_start": held.current_period_start,
        "current_period_end": held.current_period_end,
        "quantity": held.quantity,
    }


def shown_usage_nanos(balance: Balance) -> int:
    """Return the usage; of what is unlimited, none was shown."""
    return 0 if balance.unlimited else balance.usage_nanos


def rollovers_of(balance: Balance) -> Shape:
    rollovers = [rollover_answer(row, raw_nanos) for row, raw_nanos in balance.rollovers]
    return {"rollovers": rollovers} if rollovers else {}


def has_one_reset(balance: Balance) -> bool:
    """Say whether all rows start again alike; where they do not, nothing was said of any of them."""
    return len({row.reset.interval if row.reset else None for row, _ in balance.rows}) == 1


def _balances(newest: CustomerAnswer, record: Record) -> dict[str, Shape]:
    balances = {
        balance.feature_id: _balance(balance, newest.balances[balance.feature_id].feature)
        for balance in balances_of(record.terms, record.balances)
    }
    flags = {
        flag.feature_id: _flag(flag, newest.flags[flag.feature_id].feature) for flag in record.terms.flags
    }
    return balances | flags


def _answering(decision: Decision) -> Shape | None:
    if decision.pool is not None:
        return _balance_in(decision, decision.pool.feature_id)
    if decision.also:
        return None
    flag = next((flag for flag in decision.terms.flags if flag.feature_id == decision.feature_id), None)
    return _flag(flag) if flag else None


def _balance_in(decision: Decision, feature_id: str) -> Shape | None:
    balance = decision.balance(feature_id)
    return _balance(balance) if balance else None


def _balance(balance: Balance, feature: FeatureAnswer | UnsetType = UNSET) -> Shape:
    plan_ids = {row.plan_id for row, _ in balance.rows}
    prepaid_nanos = sum(row.prepaid_nanos for row, _ in balance.rows)
    return {
        "feature_id": balance.feature_id,
        **({} if feature is UNSET else {"feature": feature}),
        "unlimited": balance.unlimited,
        **_amounts(balance.granted_nanos, prepaid_nanos, balance.remaining_nanos, shown_usage_nanos(balance)),
        "overage_allowed": balance.overage_allowed,
        "max_purchase": _number_or_none(max_purchase_nanos(balance)),
        "reset": _reset(balance),
        "plan_id": plan_ids.pop() if len(plan_ids) == 1 else None,
        "breakdown": [_row(row, raw_nanos) for row, raw_nanos in balance.rows],
        **rollovers_of(balance),
    }


def _row(row: Row, raw_nanos: int) -> Shape:
    raw_nanos = 0 if row.unlimited else raw_nanos
    usage_nanos = row.granted_nanos - raw_nanos
    return {
        "id": row.public_id,
        "plan_id": row.plan_id,
        **_amounts(row.granted_nanos, row.prepaid_nanos, max(0, raw_nanos), usage_nanos),
        "overage_allowed": row.may_go_negative,
        "max_purchase": _number_or_none(row.max_purchase_nanos),
        "reset": reset_answer(row),
        "prepaid_quantity": number(row.prepaid_nanos),
        "expires_at": row.expires_at,
    }


def _amounts(granted_nanos: int, prepaid_nanos: int, remaining_nanos: int, usage_nanos: int) -> Shape:
    """What was used beyond what there was counted as purchased, like what was paid for before."""
    overage_nanos = usage_nanos - (granted_nanos - remaining_nanos)
    return {
        "granted_balance": number(granted_nanos - prepaid_nanos),
        "purchased_balance": number(prepaid_nanos + overage_nanos),
        "current_balance": number(remaining_nanos),
        "usage": number(usage_nanos),
    }


def _reset(balance: Balance) -> object:
    if not has_one_reset(balance):
        return {"interval": "multiple", "resets_at": None}
    first = reset_answer(balance.rows[0][0])
    return first and msgspec.structs.replace(first, resets_at=balance.next_reset_at)


def _flag(flag: Flag, feature: FeatureAnswer | UnsetType = UNSET) -> Shape:
    row = Row(
        id=flag.id,
        feature_id=flag.feature_id,
        created_at=0,
        plan_id=flag.plan_id,
        expires_at=flag.expires_at,
    )
    return _balance(Balance(flag.feature_id, rows=((row, 0),)), feature)


def _number_or_none(nanos: int | None) -> object:
    return None if nanos is None else number(nanos)
