"""Features, credit systems and plans: one immutable, versioned catalog, and what follows from it for a call.

A credit system says what one unit of each of its members costs in credits. A plan says what a customer is entitled to.
Everything here is a value; the document form is what Redis and the journal keep.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

import msgspec

from creditgate.core.amounts import NANOS
from creditgate.errors import Conflict, InvalidInputs, InvalidRequest, NotFound


class FeatureType(StrEnum):
    BOOLEAN = "boolean"
    METERED = "metered"
    CREDIT_SYSTEM = "credit_system"


class Interval(StrEnum):
    """How often something happens again; `one_off` is never."""

    ONE_OFF = "one_off"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    SEMI_ANNUAL = "semi_annual"
    YEAR = "year"


class Recurrence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every `count` intervals."""

    interval: Interval
    count: int = 1

    @property
    def repeats(self) -> bool:
        return self.interval is not Interval.ONE_OFF


class CreditCost(msgspec.Struct, frozen=True):
    """What one unit of a member feature costs, in nanos of the credit system."""

    feature_id: str
    cost_nanos: int


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """A thing that can be used, with a unit; or a credit system, whose unit is the credit."""

    id: str
    name: str
    type: FeatureType
    consumable: bool
    event_names: tuple[str, ...] = ()
    credit_schema: tuple[CreditCost, ...] = ()
    display: dict[str, str] | None = None
    archived: bool = False


class PlanPrice(msgspec.Struct, frozen=True):
    """What the plan itself costs, in nanos of the currency's major unit."""

    amount_nanos: int
    recurrence: Recurrence


class ItemPrice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a prepaid quantity costs: `amount_nanos` for each started pack of `billing_units_nanos`."""

    amount_nanos: int
    recurrence: Recurrence
    billing_units_nanos: int = NANOS
    billing_method: str = "prepaid"
    max_purchase_nanos: int | None = None


class PlanItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a plan gives of one feature. `reset` is None where nothing is ever used up (seats, on/off features)."""

    feature_id: str
    included_nanos: int = 0
    reset: Recurrence | None = None
    price: ItemPrice | None = None


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A set of items under one name. At most one plan of a group is active at a time, add-ons and one-offs apart."""

    id: str
    name: str
    created_at: int
    version: int = 1
    description: str | None = None
    group: str = ""
    add_on: bool = False
    auto_enable: bool = False
    price: PlanPrice | None = None
    items: tuple[PlanItem, ...] = ()
    metadata: dict[str, object] = {}
    archived: bool = False

    @property
    def is_one_off(self) -> bool:
        """Bought once and never renewed: it becomes a purchase, not a subscription."""
        prices = [self.price.recurrence] if self.price else []
        prices += [item.price.recurrence for item in self.items if item.price]
        return bool(prices) and not any(recurrence.repeats for recurrence in prices)

    @property
    def is_free(self) -> bool:
        return self.price is None and all(item.price is None for item in self.items)


class Pool(NamedTuple):
    """Where units of a feature can be drawn: its own rows at cost 1, or those of a credit system that prices it."""

    feature_id: str
    cost_nanos: int


class CatalogDocument(msgspec.Struct, frozen=True):
    """The catalog as it is kept; lists are in the order of creation, which is the order of choice."""

    features: tuple[Feature, ...] = ()
    plans: tuple[Plan, ...] = ()


class Catalog:
    """One version of the catalog with its indexes. Never changes; `with_feature` and `with_plan` make the next one."""

    def __init__(self, version: int, document: CatalogDocument) -> None:
        self.version = version
        self.document = document

    @cached_property
    def features(self) -> Mapping[str, Feature]:
        return {feature.id: feature for feature in self.document.features}

    @cached_property
    def plans(self) -> Mapping[str, Plan]:
        return {plan.id: plan for plan in self.document.plans}

    @cached_property
    def _pools(self) -> Mapping[str, tuple[Pool, ...]]:
        pools: dict[str, tuple[Pool, ...]] = {}
        for feature in self.document.features:
            systems = (
                Pool(system.id, cost.cost_nanos)
                for system in self.document.features
                for cost in system.credit_schema
                if cost.feature_id == feature.id
            )
            pools[feature.id] = (Pool(feature.id, NANOS), *systems)
        return pools

    def feature(self, feature_id: str) -> Feature:
        """Return the feature; NotFound `feature_not_found`."""
        feature = self.features.get(feature_id)
        if feature is None:
            raise NotFound(f"Feature {feature_id} not found", code="feature_not_found")
        return feature

    def plan(self, plan_id: str) -> Plan:
        """Return the plan; NotFound `product_not_found`."""
        plan = self.plans.get(plan_id)
        if plan is None:
            raise NotFound(f"Product {plan_id} not found", code="product_not_found")
        return plan

    def pools(self, feature_id: str) -> tuple[Pool, ...]:
        """Return the feature's own pool and then the credit systems that price it, in catalog order."""
        return self._pools[self.feature(feature_id).id]

    def reset_of(self, item: PlanItem) -> Recurrence | None:
        """Return how often the item starts again: as it says, else as its price, else never.

        None for what is not used up.
        """
        if not self.feature(item.feature_id).consumable:
            return None
        if item.reset is not None:
            return item.reset
        return item.price.recurrence if item.price else Recurrence(Interval.ONE_OFF)

    def features_of_event(self, event_name: str) -> tuple[Feature, ...]:
        """Return every feature that an event of this name counts for."""
        return tuple(f for f in self.document.features if event_name in f.event_names)

    def auto_enabled(self) -> tuple[Plan, ...]:
        """Return the plans a new customer starts with: the first of each group, and every add-on."""
        groups: set[str] = set()
        chosen = []
        for plan in self.document.plans:
            if not plan.auto_enable or plan.archived:
                continue
            if plan.add_on or plan.group not in groups:
                chosen.append(plan)
            if not plan.add_on:
                groups.add(plan.group)
        return tuple(chosen)

    def with_feature(self, feature: Feature) -> CatalogDocument:
        """Return the document with the feature added.

        Raises Conflict `duplicate_feature_id`, InvalidRequest `invalid_feature` for a credit system without sense.
        """
        if feature.id in self.features:
            raise Conflict(f"Feature {feature.id} already exists", code="duplicate_feature_id")
        if feature.type is FeatureType.CREDIT_SYSTEM:
            self._check_credit_schema(feature)
        return CatalogDocument((*self.document.features, feature), self.document.plans)

    def with_plan(self, plan: Plan) -> CatalogDocument:
        """Return the document with the plan added; InvalidRequest if the id is taken or an item makes no sense."""
        if plan.id in self.plans:
            raise InvalidRequest(f"Product {plan.id} already exists", code="product_already_exists")
        named: set[str] = set()
        for item in plan.items:
            if item.feature_id in named:
                raise InvalidInputs(f"items: feature {item.feature_id} is listed twice")
            named.add(item.feature_id)
            self._check_item(item)
        if plan.auto_enable and not plan.is_free:
            raise InvalidInputs("auto_enable: a plan with a price cannot be enabled by itself")
        return CatalogDocument(self.document.features, (*self.document.plans, plan))

    def _check_credit_schema(self, system: Feature) -> None:
        if not system.credit_schema:
            raise InvalidRequest("credit_schema: cannot be empty", code="invalid_feature")
        members = [cost.feature_id for cost in system.credit_schema]
        if len(set(members)) != len(members):
            raise InvalidRequest("credit_schema: a feature is listed twice", code="invalid_feature")
        for member in members:
            feature = self.features.get(member)
            if member == system.id or (feature and feature.type is not FeatureType.METERED):
                raise InvalidRequest(
                    f"credit_schema: {member} is not a metered feature", code="invalid_feature"
                )
            if feature and not feature.consumable:
                raise InvalidRequest(f"credit_schema: {member} is not consumable", code="invalid_feature")

    def _check_item(self, item: PlanItem) -> None:
        feature = self.feature(item.feature_id)
        if feature.type is FeatureType.BOOLEAN and (item.included_nanos or item.reset or item.price):
            raise InvalidInputs(
                f"items: {feature.id} is on or off; it has no included amount, reset or price"
            )
        if not feature.consumable and item.reset is not None:
            raise InvalidInputs(f"items: {feature.id} is not consumable, so it cannot reset")
        price = item.price
        if (
            price is not None
            and item.reset is not None
            and item.reset.repeats
            and item.reset != price.recurrence
        ):
            raise InvalidRequest(
                f"items: a reset of {feature.id} that differs from its price is not supported yet"
            )
