"""Attaching a plan: what it replaces, when it starts, and what goes over from the old plan to the new one.

A dearer plan starts at once, a cheaper one when the period that was paid is over. Balances are never prorated: a new
plan gives all of its allowance. What is in use of seats goes over always; usage or what is left only where it is asked.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from msgspec.structs import replace

from creditgate.core.catalog import Catalog, Interval, Plan, Recurrence
from creditgate.core.changes import Change, Step, profile_change, rows_change
from creditgate.core.customers import (
    AS_USUAL,
    AttachOptions,
    Customer,
    Purchase,
    Record,
    Row,
    Scheduled,
    Subscription,
)
from creditgate.core.periods import MEAN_MS, boundary, period_at
from creditgate.core.plans import Given, Mint, cycle_anchor, given_by, subscribed, trial_end
from creditgate.core.rollovers import handed_on
from creditgate.errors import Conflict, InvalidInputs, InvalidRequest


class Switch(NamedTuple):
    """The subscription that a plan replaces, if any, and when it starts."""

    replaced: Subscription | None
    starts_at: int


def switch_to(
    customer: Customer, catalog: Catalog, plan: Plan, now: int, options: AttachOptions = AS_USUAL
) -> Switch:
    """Return what attaching the plan replaces, and when.

    Raises NotFound `entity_not_found`, Conflict `plan_already_attached` if the plan is active and can be held only
    once, InvalidRequest for one that is archived, InvalidInputs for times that make no sense.
    """
    if options.entity_id is not None:
        customer.entity(options.entity_id)
    if plan.archived:
        raise InvalidRequest(f"Product {plan.id} is archived")
    starts_at = max(now, options.starts_at or now)
    if options.ends_at is not None and options.ends_at <= starts_at:
        raise InvalidInputs("ends_at: must be after the start")
    if plan.is_one_off:
        if starts_at > now or options.ends_at is not None:
            raise InvalidRequest(f"{plan.id} is bought once; it cannot be scheduled")
        return Switch(None, now)
    held_by_it = customer.plans_of(options.entity_id)
    if any(held.plan_id == plan.id and held.expires_at is None for held in held_by_it):
        message = (
            f"Cannot attach because the customer's current product '{plan.name}' is the same as the product "
            "being attached"
        )
        raise Conflict(message, code="plan_already_attached")
    replaced = _main_plan(held_by_it, plan)
    if replaced is None or options.starts_at is not None or replaced.plan_id == plan.id:
        return Switch(replaced, starts_at)
    current = catalog.plan(replaced.plan_id, replaced.plan_version)
    is_cheaper = _price_per_time(plan) < _price_per_time(current)
    if options.schedule == "end_of_cycle" or (is_cheaper and options.schedule is None):
        starts_at = cycle_end(replaced, now, customer.time_zone)
    return Switch(replaced, starts_at)


def attach(
    record: Record,
    customer: Customer,
    catalog: Catalog,
    plan: Plan,
    quantities: Mapping[str, int],
    *,
    mint: Mint,
    options: AttachOptions = AS_USUAL,
) -> Change:
    """Return the change that gives the customer the plan, in place of the one that it replaces, now or later.

    `customer` is the document to keep, with whatever else changes in the same step (a checkout that was paid).
    """
    replaced, starts_at = switch_to(customer, catalog, plan, record.now, options)
    if plan.is_one_off:
        return _bought(record, customer, catalog, plan, quantities, options.entity_id, mint)
    # Of what was to come in this place, the last that is asked for does.
    coming = tuple(s for s in customer.scheduled if not _is_in_place(s, plan, options.entity_id))
    customer = replace(customer, scheduled=coming)
    if replaced is not None and replaced.plan_id == plan.id:
        return profile_change(record, _with_subscription(customer, _going_on(replaced, options)))
    if starts_at > record.now:
        return profile_change(
            record,
            _scheduled(record, customer, plan, quantities, replaced, starts_at, options.entity_id, mint),
        )
    return _switched(record, customer, catalog, plan, quantities, replaced, options, mint)


def cycle_end(held: Subscription, now: int, zone: str) -> int:
    """Return when what was paid is over; now for a free plan. A trial is a cycle too."""
    if held.trial_ends_at is not None and held.trial_ends_at > now:
        return held.trial_ends_at
    if held.recurrence is None:
        return now
    period = period_at(held.anchor, held.recurrence, now, zone)
    return boundary(held.anchor, held.recurrence, period + 1, zone)


def after(record: Record, change: Change) -> Record:
    """Return the record as it will be once a change is applied, to work out another that follows in the same step."""
    balances = dict(record.balances)
    for step in change.steps:
        left = step.on(balances.pop(step.row_id, 0))
        if left is not None:
            balances[step.row_id] = left
    return replace(
        record,
        customer=change.customer or record.customer,
        terms=change.terms if change.terms is not None else record.terms,
        balances=balances,
    )


def together(first: Change, second: Change) -> Change:
    """Return two changes as one; the second was worked out from what is `after` the first."""
    return Change(
        due=second.due,
        customer=second.customer or first.customer,
        terms=second.terms if second.terms is not None else first.terms,
        orders={**first.orders, **second.orders},
        steps=(*first.steps, *second.steps),
        is_exact=first.is_exact or second.is_exact,
    )


def _main_plan(held: Iterable[Subscription], plan: Plan) -> Subscription | None:
    """Return the subscription that holds the plan's place: add-ons have none."""
    if plan.add_on:
        return next((s for s in held if s.plan_id == plan.id), None)
    return next((s for s in held if s.group == plan.group and not s.add_on), None)


def _is_in_place(coming: Scheduled, plan: Plan, entity_id: str | None) -> bool:
    """Say whether what is to come would hold the plan's place, at the customer or at an entity."""
    if coming.entity_id != entity_id:
        return False
    if plan.add_on or coming.add_on:
        return coming.plan_id == plan.id
    return coming.group == plan.group


def _going_on(held: Subscription, options: AttachOptions) -> Subscription:
    """Return a subscription that was to end and now does not: its plan was attached again."""
    return replace(held, canceled_at=None, expires_at=options.ends_at)


def _with_subscription(customer: Customer, changed: Subscription) -> Customer:
    held = tuple(changed if s.id == changed.id else s for s in customer.subscriptions)
    return replace(customer, subscriptions=held)


def _bought(
    record: Record,
    customer: Customer,
    catalog: Catalog,
    plan: Plan,
    quantities: Mapping[str, int],
    entity_id: str | None,
    mint: Mint,
) -> Change:
    purchase = Purchase(mint("sub"), plan.id, plan.version, record.now, entity_id=entity_id)
    given = _given(customer, catalog, plan, quantities, purchase.id, record.now, record.now, entity_id, mint)
    customer = replace(customer, purchases=(*customer.purchases, purchase))
    return rows_change(record, customer=customer, opened=given.rows, flags=given.flags)


def _scheduled(
    record: Record,
    customer: Customer,
    plan: Plan,
    quantities: Mapping[str, int],
    replaced: Subscription | None,
    starts_at: int,
    entity_id: str | None,
    mint: Mint,
) -> Customer:
    scheduled = Scheduled(
        id=mint("sub"),
        plan_id=plan.id,
        plan_version=plan.version,
        created_at=record.now,
        starts_at=starts_at,
        group=plan.group,
        add_on=plan.add_on,
        quantities=dict(quantities),
        entity_id=entity_id,
    )
    if replaced is not None:
        canceled_at = replaced.canceled_at or record.now
        customer = _with_subscription(
            customer, replace(replaced, canceled_at=canceled_at, expires_at=starts_at)
        )
    return replace(customer, scheduled=(*customer.scheduled, scheduled))


def _switched(
    record: Record,
    customer: Customer,
    catalog: Catalog,
    plan: Plan,
    quantities: Mapping[str, int],
    replaced: Subscription | None,
    options: AttachOptions,
    mint: Mint,
) -> Change:
    now = record.now
    anchor = now if options.anchor_now else cycle_anchor(plan, replaced, now)
    trial_ends_at = None if options.no_trial else trial_end(customer, plan, now)
    entity_id = options.entity_id
    subscription = subscribed(
        plan, anchor=anchor, now=now, mint=mint, trial_ends_at=trial_ends_at, entity_id=entity_id
    )
    if options.ends_at is not None:
        subscription = replace(subscription, expires_at=options.ends_at)
    if trial_ends_at is not None:
        customer = replace(customer, trials=(*customer.trials, plan.id))
    given = _given(customer, catalog, plan, quantities, subscription.id, anchor, now, entity_id, mint)
    others = tuple(s for s in customer.subscriptions if replaced is None or s.id != replaced.id)
    customer = replace(customer, subscriptions=(*others, subscription))
    over = _carried(record, replaced, given.rows, options, mint)
    change = rows_change(
        record,
        customer=customer,
        opened=over.opened,
        flags=given.flags,
        closed=[replaced.id] if replaced else [],
        kept=over.kept,
        steps=over.steps,
    )
    return replace(change, is_exact=over.is_exact)


def _given(
    customer: Customer,
    catalog: Catalog,
    plan: Plan,
    quantities: Mapping[str, int],
    owner_id: str,
    anchor: int,
    now: int,
    entity_id: str | None,
    mint: Mint,
) -> Given:
    return given_by(
        plan,
        catalog,
        quantities,
        owner_id=owner_id,
        anchor=anchor,
        now=now,
        mint=mint,
        zone=customer.time_zone,
        entity_id=entity_id,
        entities=customer.entities,
    )


class _Carried(NamedTuple):
    """What of the old plan's rows goes over to the new plan's.

    `kept` are old rows that live on, as rows of the new plan; `opened` are new ones. Where it depends on what is left
    in a row, it `is_exact`.
    """

    kept: list[Row]
    opened: list[Row]
    steps: list[Step]
    is_exact: bool


def _carried(
    record: Record, replaced: Subscription | None, rows: Iterable[Row], options: AttachOptions, mint: Mint
) -> _Carried:
    old = {
        (row.feature_id, row.entity_id): row
        for row in record.terms.rows
        if replaced is not None and row.owner_id == replaced.id and row.rolled_from is None
    }
    carried = _Carried([], [], [], is_exact=False)
    for new in rows:
        before = old.pop((new.feature_id, new.entity_id), None)
        if before is None or before.unlimited or new.unlimited or before.is_bought_for_good:
            carried.opened.append(new)
        elif (before.is_held and new.is_held) or _names(options.carry_usages, new.feature_id):
            carried.kept.append(_in_place_of(before, new))
            carried.steps.append(Step("shift", before.id, new.granted_nanos - before.granted_nanos))
        else:
            carried.opened.append(new)
            if _names(options.carry_balances, new.feature_id):
                carried = _with_balance(carried, record, before, new, mint)
        if before is not None and new.rollover is not None:
            carried = _with_rollovers(carried, record, before, new)
    for before in old.values():
        if _names(options.carry_balances, before.feature_id) and not before.unlimited:
            carried = _with_balance(carried, record, before, None, mint)
    return carried


def _names(features: tuple[str, ...] | None, feature_id: str) -> bool:
    return features is not None and (not features or feature_id in features)


def _in_place_of(before: Row, new: Row) -> Row:
    """Return the new plan's row on the balance of the old one: what was used is used of the new grant.

    A hold on the old row finds it again: to a script, its period is still the one that it was.
    """
    offset = before.period + before.period_offset - new.period
    return replace(new, id=before.id, created_at=before.created_at, period_offset=offset)


def _with_balance(carried: _Carried, record: Record, before: Row, new: Row | None, mint: Mint) -> _Carried:
    """What is left becomes a grant of its own until the old reset date; what is below zero goes off the new grant."""
    left = record.balances[before.id]
    if left > 0:
        grant = Row(
            id=mint("bal"),
            feature_id=before.feature_id,
            created_at=record.now,
            included_nanos=left,
            reset=Recurrence(Interval.ONE_OFF),
            expires_at=before.resets_at,
            zone=before.zone,
            entity_id=before.entity_id,
            is_slot=before.is_slot,
        )
        carried.opened.append(grant)
    elif left < 0 and new is not None:
        carried.steps.append(Step("shift", new.id, left))
    return carried._replace(is_exact=True)


def _with_rollovers(carried: _Carried, record: Record, before: Row, new: Row) -> _Carried:
    """What had rolled over goes on, up to what the new plan lets roll over."""
    heir = next((row for row in carried.kept if row.id == before.id), new)
    rows = [row for row in record.terms.rows if row.rolled_from == before.id]
    along = handed_on(heir, [(row, record.balances[row.id]) for row in rows])
    carried.kept.extend(along.rows)
    carried.steps.extend(along.steps)
    return carried._replace(is_exact=carried.is_exact or bool(along.steps))


def _price_per_time(plan: Plan) -> Fraction:
    """A measure to compare plans by, never an amount to charge."""
    if plan.price is None or not plan.price.recurrence.repeats:
        return Fraction(0)
    recurrence = plan.price.recurrence
    return Fraction(plan.price.amount_nanos, MEAN_MS[recurrence.interval] * recurrence.count)
