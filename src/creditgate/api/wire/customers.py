"""Customers and their clock on the wire."""

from collections.abc import Container
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from creditgate.api.wire.answers import (
    BalanceAnswer,
    FlagAnswer,
    balance_answer,
    flag_answer,
    zero_balance,
)
from creditgate.api.wire.controls import ControlsAnswer, controls_answer
from creditgate.api.wire.features import FeatureAnswer, feature_answer
from creditgate.api.wire.plans import Eligibility
from creditgate.api.wire.requests import BALANCE_FEATURES, ENTITIES, FLAG_FEATURES
from creditgate.core.attach import switch_to
from creditgate.core.catalog import Catalog, Plan
from creditgate.core.customers import AttachOptions, Customer, Purchase, Record, Scheduled, Subscription
from creditgate.core.decisions import balances_of
from creditgate.core.periods import boundary, period_at
from creditgate.errors import Conflict, InvalidRequest


class SubscriptionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that the customer is on, until `expires_at` if it was cancelled; a free one has no current period."""

    id: str
    plan_id: str
    auto_enable: bool
    add_on: bool
    status: str = "active"
    past_due: bool = False
    canceled_at: int | None = None
    expires_at: int | None = None
    trial_ends_at: int | None = None
    started_at: int
    current_period_start: int | None
    current_period_end: int | None
    quantity: int
    scope: str = "customer"


class PurchaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A one-off plan that the customer bought."""

    plan_id: str
    expires_at: int | None = None
    started_at: int
    quantity: int
    scope: str = "customer"


class EntityInCustomer(msgspec.Struct, frozen=True, kw_only=True):
    """An entity as it is listed with its customer."""

    id: str
    name: str | None
    customer_id: str
    feature_id: str
    created_at: int
    env: str


class CustomerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A customer with everything that is due."""

    id: str
    name: str | None
    email: str | None
    created_at: int
    fingerprint: str | None
    stripe_id: str | None
    env: str
    metadata: dict[str, Any]
    send_email_receipts: bool
    billing_controls: ControlsAnswer
    subscriptions: tuple[SubscriptionAnswer, ...]
    purchases: tuple[PurchaseAnswer, ...]
    licenses: tuple[Any, ...]
    balances: dict[str, BalanceAnswer]
    flags: dict[str, FlagAnswer]
    config: dict[str, Any]
    processors: dict[str, dict[str, str]] | UnsetType = UNSET
    entities: tuple[EntityInCustomer, ...] | UnsetType = UNSET


class ClockAnswer(msgspec.Struct, frozen=True):
    """`customers.advance_test_clock`: by the time it is answered, everything up to then has happened."""

    customer_id: str
    frozen_time: int
    status: str = "ready"


def customer_answer(
    record: Record, catalog: Catalog, *, env: str, expand: AbstractSet[str], zero_member_rows: bool
) -> CustomerAnswer:
    customer = record.customer
    return CustomerAnswer(
        id=customer.id,
        name=customer.name,
        email=customer.email,
        created_at=customer.created_at,
        fingerprint=customer.fingerprint,
        stripe_id=customer.stripe_id,
        env=env,
        metadata=customer.metadata,
        send_email_receipts=customer.send_email_receipts,
        billing_controls=controls_answer(record),
        subscriptions=subscription_answers(record),
        purchases=purchase_answers(record),
        licenses=(),
        balances=balance_answers(record, catalog, expand=expand, zero_member_rows=zero_member_rows),
        flags=flag_answers(record, catalog, expand=expand),
        config={},
        processors={"stripe": {"id": customer.stripe_id}} if customer.stripe_id else UNSET,
        entities=_entities(customer, env) if ENTITIES in expand else UNSET,
    )


def subscription_answers(
    record: Record, holders: Container[str | None] | None = None
) -> tuple[SubscriptionAnswer, ...]:
    """Return the plans of the customer and its entities; of `holders` only, where None is the customer."""
    customer = record.customer
    held = (held for held in customer.subscriptions if holders is None or held.entity_id in holders)
    coming = (coming for coming in customer.scheduled if holders is None or coming.entity_id in holders)
    return (
        *(_subscription_answer(each, record.now, customer.time_zone) for each in held),
        *(_scheduled_answer(each) for each in coming),
    )


def purchase_answers(
    record: Record, holders: Container[str | None] | None = None
) -> tuple[PurchaseAnswer, ...]:
    """Return what was bought once; `holders` as for `subscription_answers`."""
    bought = record.customer.purchases
    return tuple(_purchase_answer(each) for each in bought if holders is None or each.entity_id in holders)


def _entities(customer: Customer, env: str) -> tuple[EntityInCustomer, ...]:
    return tuple(
        EntityInCustomer(
            id=entity.id,
            name=entity.name,
            customer_id=customer.id,
            feature_id=entity.feature_id,
            created_at=entity.created_at,
            env=env,
        )
        for entity in customer.entities
    )


def _scope(entity_id: str | None) -> str:
    return "customer" if entity_id is None else "entity"


def eligibility(
    customer: Customer, catalog: Catalog, plan: Plan, now: int, entity_id: str | None = None
) -> Eligibility:
    """Return what attaching the plan would do for the customer, or for an entity, now."""
    if plan.is_one_off:
        return Eligibility(attach_action="purchase")
    try:
        options = AttachOptions(entity_id=entity_id)
        replaced, starts_at = switch_to(customer, catalog, plan, now, options)
    except Conflict:
        return Eligibility(attach_action="none", status="active")
    except InvalidRequest:
        return Eligibility(attach_action="none")
    if replaced is not None and replaced.plan_id == plan.id:  # it was to end, and would go on
        return Eligibility(attach_action="activate", status="active", canceling=True)
    is_scheduled = any(
        (coming.plan_id, coming.entity_id) == (plan.id, entity_id) for coming in customer.scheduled
    )
    if starts_at > now:
        return Eligibility(attach_action="downgrade", status="scheduled" if is_scheduled else UNSET)
    return Eligibility(attach_action="upgrade" if replaced else "activate")


def _subscription_answer(held: Subscription, now: int, zone: str) -> SubscriptionAnswer:
    start, end = None, None
    is_trial = held.trial_ends_at is not None and held.trial_ends_at > now
    if is_trial:
        start, end = held.started_at, held.trial_ends_at
    elif held.recurrence is not None:
        period = period_at(held.anchor, held.recurrence, now, zone)
        start = boundary(held.anchor, held.recurrence, period, zone)
        end = boundary(held.anchor, held.recurrence, period + 1, zone)
    return SubscriptionAnswer(
        id=held.id,
        plan_id=held.plan_id,
        auto_enable=held.auto_enable,
        add_on=held.add_on,
        status="trialing" if is_trial else "active",
        canceled_at=held.canceled_at,
        expires_at=held.expires_at,
        trial_ends_at=held.trial_ends_at,
        started_at=held.started_at,
        current_period_start=start,
        current_period_end=end,
        quantity=held.quantity,
        scope=_scope(held.entity_id),
    )


def _scheduled_answer(coming: Scheduled) -> SubscriptionAnswer:
    return SubscriptionAnswer(
        id=coming.id,
        plan_id=coming.plan_id,
        auto_enable=False,
        add_on=coming.add_on,
        status="scheduled",
        started_at=coming.starts_at,
        current_period_start=None,
        current_period_end=None,
        quantity=1,
        scope=_scope(coming.entity_id),
    )


def _purchase_answer(purchase: Purchase) -> PurchaseAnswer:
    return PurchaseAnswer(
        plan_id=purchase.plan_id,
        started_at=purchase.started_at,
        quantity=purchase.quantity,
        scope=_scope(purchase.entity_id),
    )


def balance_answers(
    record: Record,
    catalog: Catalog,
    *,
    expand: AbstractSet[str],
    zero_member_rows: bool = False,
    entity_id: str | None = None,
) -> dict[str, BalanceAnswer]:
    """Return the balances that an entity can draw on; without one, all that the customer and its entities have."""
    is_expanded = BALANCE_FEATURES in expand
    answers = {
        balance.feature_id: balance_answer(
            balance, _feature(balance.feature_id, catalog) if is_expanded else UNSET
        )
        for balance in balances_of(record.terms, record.balances, entity_id)
    }
    if is_expanded and zero_member_rows:
        answers |= _zero_rows(answers, catalog)
    return answers


def _zero_rows(owned: dict[str, BalanceAnswer], catalog: Catalog) -> dict[str, BalanceAnswer]:
    """React's local check knows a member feature only by a row of its own, so each gets one that holds nothing."""
    members = (
        cost.feature_id
        for feature_id in owned
        if feature_id in catalog.features
        for cost in catalog.features[feature_id].credit_schema
    )
    return {
        member: zero_balance(feature_answer(catalog.features[member]))
        for member in members
        if member not in owned and member in catalog.features
    }


def flag_answers(
    record: Record, catalog: Catalog, *, expand: AbstractSet[str], entity_id: str | None = None
) -> dict[str, FlagAnswer]:
    """Return the on/off features that the customer has; with an entity, also what that has."""
    is_expanded = not expand.isdisjoint((BALANCE_FEATURES, FLAG_FEATURES))
    return {
        flag.feature_id: flag_answer(flag, _feature(flag.feature_id, catalog) if is_expanded else UNSET)
        for flag in record.terms.flags
        if flag.entity_id in (None, entity_id)
    }


def _feature(feature_id: str, catalog: Catalog) -> FeatureAnswer | UnsetType:
    """A worker may not have heard of a brand-new feature yet; its balance is answered all the same."""
    feature = catalog.features.get(feature_id)
    return feature_answer(feature) if feature else UNSET
