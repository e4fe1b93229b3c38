"""Taking over a customer from another system: the change that makes it so here as the source says.

The source decides about the customer; the entities, and what they have, are those that are here. What was taken from
it before and is gone there goes here too; what was given here by itself stays.
So a second run changes nothing, and a run after a change at the source corrects.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from creditgate.core.arrival_rows import RowsTaken
from creditgate.core.arrivals import Arrival, Holding, Taken, not_here
from creditgate.core.catalog import Catalog, FeatureType, Plan
from creditgate.core.changes import Change, check_count, terms_change
from creditgate.core.controls import NO_CONTROLS, BillingControls
from creditgate.core.customers import Customer, Flag, Purchase, Record, Subscription
from creditgate.core.plans import Mint, subscribed


class TakenOver(NamedTuple):
    """The change that takes a customer over, None if there is nothing to do; and what could not be taken."""

    change: Change | None
    lacks: tuple[str, ...]


def take_over(
    arrival: Arrival, record: Record | None, catalog: Catalog, *, now: int, mint: Mint
) -> TakenOver:
    """Return the change that makes the customer hold here what the source says, `record` being what is here.

    Raises Conflict `too_many_balances`.
    """
    lacks = list(arrival.lacks)
    taken = _plans(arrival, _profile(arrival.customer, record, catalog, lacks), catalog, mint, lacks)
    rows = RowsTaken(record, catalog, taken, now, mint, lacks)
    rows.take(arrival.lots)
    check_count(rows.rows)
    flags = _flags(arrival.flags, record, catalog, taken, lacks)
    change = terms_change(record, rows.rows, flags, rows.steps, taken.customer)
    if record and not change.steps and (change.customer, change.terms) == (record.customer, record.terms):
        return TakenOver(None, tuple(dict.fromkeys(lacks)))
    return TakenOver(change, tuple(dict.fromkeys(lacks)))


def _profile(said: Customer, record: Record | None, catalog: Catalog, lacks: list[str]) -> Customer:
    """Return the document without plans; what the source does not say of somebody who is here stays as it is."""
    controls = _known(said.controls, catalog, lacks)
    if record is None:
        return replace(said, controls=controls)
    here = record.customer
    return replace(
        here,
        name=said.name or here.name,
        email=said.email or here.email,
        fingerprint=said.fingerprint or here.fingerprint,
        stripe_id=said.stripe_id or here.stripe_id,
        send_email_receipts=said.send_email_receipts,
        metadata=said.metadata or here.metadata,
        controls=here.controls if controls == NO_CONTROLS else controls,
    )


def _known(controls: BillingControls, catalog: Catalog, lacks: list[str]) -> BillingControls:
    """Return the controls of the features that are here."""
    unknown = controls.feature_ids - catalog.features.keys()
    lacks += [not_here(feature_id, None) for feature_id in sorted(unknown)]
    kinds = msgspec.structs.asdict(controls)
    known = {kind: tuple(c for c in each if c.feature_id not in unknown) for kind, each in kinds.items()}
    return BillingControls(**known)


def _plans(arrival: Arrival, customer: Customer, catalog: Catalog, mint: Mint, lacks: list[str]) -> Taken:
    owners: dict[str, list[str]] = {}
    here = list(customer.plans_of(None))
    bought_here = [bought for bought in customer.purchases if bought.entity_id is None]
    of_entities = [held for held in customer.subscriptions if held.entity_id is not None]
    bought_by_entities = [bought for bought in customer.purchases if bought.entity_id is not None]
    named = {holding.id for holding in arrival.holdings}
    subscriptions, purchases = [], []
    for holding in arrival.holdings:
        plan = catalog.plans.get(holding.plan_id)
        if plan is None:
            lacks.append(f"plan {holding.plan_id} is not in the catalog here; its balances stand alone")
        elif holding.id is None:
            purchases.append(_purchase(holding, bought_here, plan, mint))
            owners.setdefault(plan.id, []).append(purchases[-1].id)
        else:
            subscriptions.append(_subscription(holding, holding.id, here, named, plan))
            owners.setdefault(plan.id, []).append(subscriptions[-1].id)
    groups = {s.group for s in subscriptions if not s.add_on}
    closed = {s.id for s in here if s.imported or (s.group in groups and not s.add_on)}
    customer = replace(
        customer,
        subscriptions=(*of_entities, *(s for s in here if s.id not in closed), *subscriptions),
        purchases=(*bought_by_entities, *(p for p in bought_here if not p.imported), *purchases),
    )
    return Taken(customer, owners, closed)


def _subscription(
    holding: Holding, holding_id: str, here: list[Subscription], named: set[str | None], plan: Plan
) -> Subscription:
    """Return the subscription as the source has it; the one here that it is, if there is one, leaves the list."""
    by_id = (s for s in here if s.id == holding_id)
    by_plan = (s for s in here if s.plan_id == plan.id and s.id not in named)
    before = next(by_id, None) or next(by_plan, None)
    if before is not None:
        here.remove(before)
    else:
        anchor = holding.period_start or holding.started_at
        before = subscribed(plan, anchor=anchor, now=holding.started_at, mint=lambda _: holding_id)
    return replace(
        before,
        quantity=holding.quantity,
        canceled_at=holding.canceled_at,
        expires_at=holding.expires_at,
        imported=True,
    )


def _purchase(holding: Holding, here: list[Purchase], plan: Plan, mint: Mint) -> Purchase:
    same = (p for p in here if (p.plan_id, p.started_at) == (plan.id, holding.started_at))
    before = next(same, None)
    if before is not None:
        here.remove(before)
        return replace(before, quantity=holding.quantity, imported=True)
    return Purchase(mint("sub"), plan.id, plan.version, holding.started_at, holding.quantity, imported=True)


def _flags(
    said: Iterable[Flag], record: Record | None, catalog: Catalog, taken: Taken, lacks: list[str]
) -> tuple[Flag, ...]:
    """Return the on/off features that the customer then has."""
    flags: dict[str, Flag] = {}
    for flag in said:
        feature = catalog.features.get(flag.feature_id)
        if feature is None or feature.type is not FeatureType.BOOLEAN:
            lacks.append(not_here(flag.feature_id, feature))
            continue
        owners = taken.owners.get(flag.plan_id or "")
        plan_id, owner_id = (flag.plan_id, owners[0]) if owners else (None, None)
        flags[flag.feature_id] = replace(flag, plan_id=plan_id, owner_id=owner_id, imported=True)
    kept = (
        flag
        for flag in (record.terms.flags if record else ())
        if not flag.imported
        and flag.owner_id not in taken.closed
        and (flag.entity_id is not None or flag.feature_id not in flags)
    )
    return (*kept, *flags.values())
