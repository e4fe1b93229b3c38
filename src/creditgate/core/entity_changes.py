"""Making an entity and deleting it: one unit of its feature is taken and freed, and its rows come and go with it."""

from typing import NamedTuple

from msgspec.structs import replace

from creditgate.core.amounts import NANOS
from creditgate.core.catalog import Catalog
from creditgate.core.changes import Change, Step, rows_change, terms_change
from creditgate.core.customers import Customer, Purchase, Record, Row, Subscription
from creditgate.core.entities import ENTITIES_MAX, Entity
from creditgate.core.plans import Mint, given_by
from creditgate.errors import Conflict, InvalidRequest


class Owner(NamedTuple):
    """A plan of the customer, at the version that the customer has, as it was attached."""

    plan_id: str
    plan_version: int


def owners(customer: Customer) -> list[Owner]:
    """Return the plans that may give a slot to a new entity."""
    return [Owner(held.plan_id, held.plan_version) for held in _held(customer)]


def creation(record: Record, entity: Entity, catalog: Catalog, mint: Mint) -> Change:
    """Return the change that makes the entity, with a slot of each item that the customer's plans give to each.

    Raises Conflict `entity_already_exists`, `too_many_entities` or `too_many_balances`, InvalidRequest
    `feature_limit_reached` if no unit of its feature is left.
    """
    customer = record.customer
    if any(each.id == entity.id for each in customer.entities):
        raise Conflict(f"Entity {entity.id} already exists", code="entity_already_exists")
    if len(customer.entities) >= ENTITIES_MAX:
        raise Conflict(f"A customer can have at most {ENTITIES_MAX} entities", code="too_many_entities")
    entity = replace(entity, created_at=record.now)
    slots = [row for held in _held(customer) for row in _slots(held, entity, record, catalog, mint)]
    customer = replace(customer, entities=(*customer.entities, entity))
    change = rows_change(record, customer=customer, opened=slots, steps=_taken(record, entity.feature_id))
    return replace(change, is_exact=True)


def deletion(record: Record, entity_id: str) -> Change:
    """Return the change that deletes an entity with its rows, plans and limits; NotFound `entity_not_found`.

    A hold of it stays open: what comes back to a row that is gone goes to the customer's.
    """
    customer = record.customer
    entity = customer.entity(entity_id)
    plans: list[Subscription | Purchase] = [*customer.subscriptions, *customer.purchases]
    ended = {held.id for held in plans if held.entity_id == entity_id}
    gone = {row.id for row in record.terms.rows if row.entity_id == entity_id or row.owner_id in ended}
    customer = replace(
        customer,
        entities=tuple(each for each in customer.entities if each.id != entity_id),
        subscriptions=tuple(held for held in customer.subscriptions if held.entity_id != entity_id),
        scheduled=tuple(held for held in customer.scheduled if held.entity_id != entity_id),
        purchases=tuple(held for held in customer.purchases if held.entity_id != entity_id),
    )
    kept = [row for row in record.terms.rows if row.id not in gone]
    flags = [flag for flag in record.terms.flags if flag.entity_id != entity_id]
    closed = [Step("close", row.id) for row in record.terms.rows if row.id in gone]
    steps = (*closed, *_freed(record, entity.feature_id))
    return replace(terms_change(record, kept, flags, steps, customer), is_exact=True)


def _held(customer: Customer) -> list[Subscription | Purchase]:
    purchases = (bought for bought in customer.purchases if bought.entity_id is None)
    return [*customer.plans_of(None), *purchases]


def _slots(
    held: Subscription | Purchase, entity: Entity, record: Record, catalog: Catalog, mint: Mint
) -> tuple[Row, ...]:
    """Periods of a slot are those of the plan, whenever the entity came."""
    plan = catalog.plan(held.plan_id, held.plan_version)
    items = tuple(item for item in plan.items if item.entity_feature_id == entity.feature_id)
    anchor = held.started_at
    if isinstance(held, Subscription) and held.anchor <= record.now:  # else it is the end of a trial
        anchor = held.anchor
    return given_by(
        replace(plan, items=items),
        catalog,
        {},
        owner_id=held.id,
        anchor=anchor,
        now=record.now,
        mint=mint,
        zone=record.customer.time_zone,
        entities=[entity],
    ).rows


def _taken(record: Record, feature_id: str) -> list[Step]:
    """One unit: of the first row that has one left, else of the first that may go below zero by one."""
    rows = _own(record, feature_id)
    giving = [row for row in rows if row.unlimited or record.balances[row.id] >= NANOS]
    giving += [row for row in rows if _may_give_one(row, record)]
    if rows and not giving:
        raise InvalidRequest(
            f"No unit of {feature_id} is left for another entity", code="feature_limit_reached"
        )
    return [Step("shift", row.id, -NANOS) for row in giving[:1]]


def _may_give_one(row: Row, record: Record) -> bool:
    after, limit = record.balances[row.id] - NANOS, record.terms.spend_limits.get(row.feature_id)
    if not record.terms.may_go_below(row):
        return False
    if limit is not None:
        rows = _own(record, row.feature_id)
        below = sum(min(0, record.balances[each.id]) for each in rows if each.id != row.id)
        return below + min(0, after) >= -limit
    return row.max_purchase_nanos is None or after >= -row.max_purchase_nanos


def _freed(record: Record, feature_id: str) -> list[Step]:
    """One unit: to the first row below zero, else to the first of which one is in use."""
    rows = _own(record, feature_id)
    getting = [row for row in rows if record.balances[row.id] < 0]
    getting += [row for row in rows if row.granted_nanos - record.balances[row.id] >= NANOS]
    return [Step("shift", row.id, NANOS) for row in getting[:1]]


def _own(record: Record, feature_id: str) -> list[Row]:
    return [row for row in record.terms.rows_of(feature_id) if row.entity_id is None]
