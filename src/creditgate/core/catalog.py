"""Features, credit systems and plans: one immutable, versioned catalog, and what follows from it for a call.

A credit system says what one unit of each of its members costs in credits. A plan says what a customer is entitled to.
Everything here is a value; the document form is what Redis and the journal keep. What a catalog may hold is said by
`catalog_checks.py`, how the next one comes about by `catalog_edits.py`.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from creditgate.core.amounts import NANOS
from creditgate.core.controls import BillingControls
from creditgate.core.intervals import INTERVAL_COUNT_MAX as INTERVAL_COUNT_MAX
from creditgate.core.intervals import Interval as Interval
from creditgate.core.intervals import Recurrence as Recurrence
from creditgate.errors import NotFound

BillingMethod = Literal["prepaid", "usage_based"]
"""Whether a quantity is paid before it is used, or after."""

ROLLOVER_MONTHS_MAX = 120


class FeatureType(StrEnum):
    BOOLEAN = "boolean"
    METERED = "metered"
    CREDIT_SYSTEM = "credit_system"


BillingInterval = Literal["one_off", "week", "month", "quarter", "semi_annual", "year"]
"""How often a price can be due."""


class CreditCost(msgspec.Struct, frozen=True):
    """What one unit of a member feature costs, in nanos of the credit system."""

    feature_id: str
    cost_nanos: int


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """A thing that can be used, with a unit; or a credit system, whose unit is the credit. Id and type never change.

    `given`: a customer was given a balance or a limit of it, so it is never erased. `fallback_nanos`: how much of it a
    customer is allowed while checks cannot be decided; nothing unless said, None without a bound.
    """

    id: str
    name: str
    type: FeatureType
    consumable: bool
    event_names: tuple[str, ...] = ()
    credit_schema: tuple[CreditCost, ...] = ()
    display: dict[str, str] | None = None
    archived: bool = False
    given: bool = False
    fallback_nanos: int | None = 0


class PlanPrice(msgspec.Struct, frozen=True):
    """What the plan itself costs, in nanos of the currency's major unit."""

    amount_nanos: int
    recurrence: Recurrence


class ItemPrice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a quantity costs, `amount_nanos` for each started pack of `billing_units_nanos`: paid before it is used
    (`prepaid`), or after (`usage_based`); then at most `max_purchase_nanos` beyond what is included.
    """

    amount_nanos: int
    recurrence: Recurrence
    billing_units_nanos: int = NANOS
    billing_method: BillingMethod = "prepaid"
    max_purchase_nanos: int | None = None


class Rollover(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a row survives its reset, for `months` (None: for good).

    Together they hold at most `max_nanos`, or `max_percentage_nanos` percent of what the row starts with.
    """

    months: int | None = None
    max_nanos: int | None = None
    max_percentage_nanos: int | None = None

    def most(self, granted_nanos: int) -> int | None:
        """Return what all rollovers of a row may hold together, None without a bound; a percentage is whole units."""
        if self.max_percentage_nanos is not None:
            return granted_nanos * self.max_percentage_nanos // (100 * NANOS) // NANOS * NANOS
        return self.max_nanos


class PlanItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a plan gives of one feature. `reset` is None where nothing is ever used up (seats, on/off features).

    With an `entity_feature_id` each entity of that feature is given it. What is `pooled` is given to the customer, for
    all to draw on, also by a plan of one entity.
    """

    feature_id: str
    included_nanos: int = 0
    reset: Recurrence | None = None
    price: ItemPrice | None = None
    unlimited: bool = False
    rollover: Rollover | None = None
    entity_feature_id: str | None = None
    pooled: bool = False

    @property
    def key(self) -> tuple[str, str | None]:
        """What tells the items of a plan apart: one feature may be given to the customer and to each entity."""
        return self.feature_id, self.entity_feature_id

    @property
    def is_prepaid(self) -> bool:
        """Sold by quantity, and paid before it is used."""
        return self.price is not None and self.price.billing_method == "prepaid"

    @property
    def is_paid_later(self) -> bool:
        """Used beyond what is included, and paid for after that."""
        return self.price is not None and self.price.billing_method == "usage_based"


class FreeTrial(msgspec.Struct, frozen=True, omit_defaults=True):
    """How long a plan is free at first; then it goes on, unless it `reverts` to the free plan of its group."""

    length: Recurrence
    card_required: bool = False
    reverts: bool = False


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A set of items under one name. At most one plan of a group is active at a time, add-ons and one-offs apart.

    `given`: it was offered or given to a customer, so it is never erased. See `Catalogs.giving`.
    """

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
    controls: BillingControls | None = None
    free_trial: FreeTrial | None = None
    archived: bool = False
    given: bool = False

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


class PlanVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a plan cost and gave before that changed; all else is the same in every version of the plan."""

    plan_id: str
    version: int
    price: PlanPrice | None = None
    items: tuple[PlanItem, ...] = ()


class CatalogDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """The catalog as it is kept; lists are in the order of creation, which is the order of choice.

    `plans` are the newest versions, `past` the versions before them.
    """

    features: tuple[Feature, ...] = ()
    plans: tuple[Plan, ...] = ()
    past: tuple[PlanVersion, ...] = ()


class Catalog:
    """One version of the catalog with its indexes. Never changes; `catalog_edits.py` works out the next document."""

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
        pools = {feature_id: [Pool(feature_id, NANOS)] for feature_id in self.features}
        for system in self.document.features:
            for cost in system.credit_schema:
                if cost.feature_id in pools:
                    pools[cost.feature_id].append(Pool(system.id, cost.cost_nanos))
        return {feature_id: tuple(found) for feature_id, found in pools.items()}

    def feature(self, feature_id: str) -> Feature:
        """Return the feature; NotFound `feature_not_found`."""
        feature = self.features.get(feature_id)
        if feature is None:
            raise NotFound(f"Feature {feature_id} not found", code="feature_not_found")
        return feature

    def plan(self, plan_id: str, version: int | None = None) -> Plan:
        """Return the plan, the newest version unless one is named; NotFound `product_not_found`."""
        plan = self.plans.get(plan_id)
        if plan is None:
            raise NotFound(f"Product {plan_id} not found", code="product_not_found")
        if version in (None, plan.version):
            return plan
        for past in self.document.past:
            if (past.plan_id, past.version) == (plan_id, version):
                return _as_it_was(plan, past)
        raise NotFound(f"Product {plan_id} has no version {version}", code="product_not_found")

    def versions(self, plan_id: str) -> tuple[Plan, ...]:
        """Return every version of the plan, the oldest first; NotFound `product_not_found`."""
        plan = self.plan(plan_id)
        past = (_as_it_was(plan, past) for past in self.document.past if past.plan_id == plan_id)
        return (*past, plan)

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


def _as_it_was(plan: Plan, past: PlanVersion) -> Plan:
    return replace(plan, version=past.version, price=past.price, items=past.items)
