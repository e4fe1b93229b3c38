"""What a plan gives and costs, and what attaching it does to a customer. Pure: time and new ids are passed in."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from creditgate.core.amounts import AMOUNT_MAX, AmountOutOfRange
from creditgate.core.catalog import Catalog, FeatureType, Plan, PlanItem, Recurrence
from creditgate.core.changes import Change, in_period_at, rows_change
from creditgate.core.customers import Customer, Flag, Row, Subscription
from creditgate.core.entities import Entity
from creditgate.core.periods import MEAN_MS, boundary
from creditgate.errors import InvalidInputs

Mint = Callable[[str], str]


class Line(NamedTuple):
    """One line of a quote: what, how much of it, and the sum in nanos of the currency's major unit."""

    feature_id: str | None
    quantity_nanos: int
    total_nanos: int


class Given(NamedTuple):
    """The rows and flags that a plan gives."""

    rows: tuple[Row, ...]
    flags: tuple[Flag, ...]


def quote(plan: Plan, quantities: Mapping[str, int]) -> tuple[Line, ...]:
    """Return what attaching the plan costs now; quantities are totals, the included part of an item is free.

    Raises InvalidInputs for a quantity of something that the plan does not sell.
    """
    sold = {item.feature_id for item in plan.items if item.is_prepaid}
    for feature_id in quantities:
        if feature_id not in sold:
            raise InvalidInputs(f"feature_quantities: plan {plan.id} does not sell {feature_id} by quantity")
    lines = [Line(None, 0, plan.price.amount_nanos)] if plan.price else []
    for item in plan.items:
        if item.price and item.is_prepaid:
            packs = _packs(item, quantities.get(item.feature_id, 0))
            lines.append(
                Line(item.feature_id, packs * item.price.billing_units_nanos, packs * item.price.amount_nanos)
            )
    if any(line.total_nanos > AMOUNT_MAX or line.quantity_nanos > AMOUNT_MAX for line in lines):
        raise AmountOutOfRange("feature_quantities: the quantity or its price is too large")
    return tuple(lines)


def totals(plan: Plan, bought: Mapping[str, int]) -> dict[str, int]:
    """Return as quantities, which count what the plan includes, those that are bought on top of it."""
    included = {item.feature_id: item.included_nanos for item in plan.items if item.is_prepaid}
    return {feature_id: included.get(feature_id, 0) + nanos for feature_id, nanos in bought.items()}


def given_by(
    plan: Plan,
    catalog: Catalog,
    quantities: Mapping[str, int],
    *,
    owner_id: str,
    anchor: int,
    now: int,
    mint: Mint,
    zone: str = "UTC",
    entity_id: str | None = None,
    entities: Iterable[Entity] = (),
) -> Given:
    """Return the rows and flags of the plan for who gets it now; periods hang on `anchor`, in `zone`.

    That is a customer with these entities, each of which gets a slot of what is given per entity; or the one entity.
    """
    rows, flags = [], []
    for item in plan.items:
        feature = catalog.feature(item.feature_id)
        if feature.type is FeatureType.BOOLEAN:
            flag = Flag(mint("flag"), feature.id, plan_id=plan.id, owner_id=owner_id, entity_id=entity_id)
            flags.append(flag)
            continue
        row = Row(
            id="",
            feature_id=feature.id,
            created_at=now,
            included_nanos=item.included_nanos,
            prepaid_nanos=_prepaid_nanos(item, quantities.get(item.feature_id, 0)),
            plan_id=plan.id,
            owner_id=owner_id,
            reset=None if item.unlimited else catalog.reset_of(item),
            anchor=anchor,
            price=item.price,
            add_on=plan.add_on,
            may_go_negative=item.is_paid_later or (not feature.consumable and item.price is None),
            unlimited=item.unlimited,
            rollover=item.rollover,
            zone=zone,
            entity_id=None if item.pooled else entity_id,
        )
        row = in_period_at(row, now)
        if item.entity_feature_id is None or entity_id is not None:
            rows.append(msgspec.structs.replace(row, id=mint("bal")))
        else:
            rows += [
                msgspec.structs.replace(row, id=mint("bal"), entity_id=entity.id, is_slot=True)
                for entity in entities
                if entity.feature_id == item.entity_feature_id
            ]
    return Given(tuple(rows), tuple(flags))


def new_customer(
    customer: Customer, catalog: Catalog, plans: tuple[Plan, ...], *, now: int, mint: Mint
) -> Change:
    """Return the change that creates a customer on the given free plans."""
    rows: list[Row] = []
    flags: list[Flag] = []
    for plan in plans:
        trial_ends_at, zone = trial_end(customer, plan, now), customer.time_zone
        subscription = subscribed(plan, anchor=now, now=now, mint=mint, trial_ends_at=trial_ends_at)
        if trial_ends_at is not None:
            customer = msgspec.structs.replace(customer, trials=(*customer.trials, plan.id))
        given = given_by(
            plan, catalog, {}, owner_id=subscription.id, anchor=now, now=now, mint=mint, zone=zone
        )
        rows.extend(given.rows)
        flags.extend(given.flags)
        customer = msgspec.structs.replace(customer, subscriptions=(*customer.subscriptions, subscription))
    return rows_change(None, customer=customer, opened=rows, flags=flags)


def billing_cycle(plan: Plan) -> Recurrence | None:
    """Return how often the plan is paid: the longest of its prices that repeat, None if none does."""
    prices = [plan.price.recurrence] if plan.price else []
    prices += [item.price.recurrence for item in plan.items if item.price]
    repeating = (recurrence for recurrence in prices if recurrence.repeats)
    return max(repeating, key=lambda cycle: MEAN_MS[cycle.interval] * cycle.count, default=None)


def cycle_anchor(plan: Plan, replaced: Subscription | None, now: int) -> int:
    """Return what the plan's periods hang on: those of the plan that it replaces go on if they are as long."""
    cycle = billing_cycle(plan)
    if replaced is not None and cycle is not None and replaced.recurrence == cycle:
        return replaced.anchor
    return now


def subscribed(
    plan: Plan,
    *,
    anchor: int,
    now: int,
    mint: Mint,
    trial_ends_at: int | None = None,
    entity_id: str | None = None,
) -> Subscription:
    """Return the subscription of a customer, or of an entity, who gets the plan now; periods hang on `anchor`."""
    reverts = trial_ends_at is not None and plan.free_trial is not None and plan.free_trial.reverts
    return Subscription(
        id=mint("sub"),
        plan_id=plan.id,
        plan_version=plan.version,
        started_at=now,
        anchor=anchor if trial_ends_at is None else trial_ends_at,
        group=plan.group,
        add_on=plan.add_on,
        auto_enable=plan.auto_enable,
        recurrence=billing_cycle(plan),
        expires_at=trial_ends_at if reverts else None,
        trial_ends_at=trial_ends_at,
        controls=plan.controls,
        entity_id=entity_id,
    )


def trial_end(customer: Customer, plan: Plan, now: int) -> int | None:
    """Return when a trial would end that starts now; None if the plan has none, or the customer has had it."""
    if plan.free_trial is None or plan.id in customer.trials:
        return None
    return boundary(now, plan.free_trial.length, 1, customer.time_zone)


def _packs(item: PlanItem, quantity_nanos: int) -> int:
    if item.price is None or not item.is_prepaid:
        return 0
    return -(-max(0, quantity_nanos - item.included_nanos) // item.price.billing_units_nanos)


def _prepaid_nanos(item: PlanItem, quantity_nanos: int) -> int:
    return _packs(item, quantity_nanos) * item.price.billing_units_nanos if item.price else 0
