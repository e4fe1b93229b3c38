"""Features, credit systems and plans: one immutable, versioned catalog, and what follows from it for a call.

A credit system says what one unit of each of its members costs in credits. A plan says what a customer is entitled to.
Everything here is a value; the document form is what Redis and the journal keep.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from creditgate.core.amounts import NANOS
from creditgate.core.controls import NO_CONTROLS, BillingControls
from creditgate.core.intervals import INTERVAL_COUNT_MAX as INTERVAL_COUNT_MAX
from creditgate.core.intervals import Interval as Interval
from creditgate.core.intervals import Recurrence as Recurrence
from creditgate.errors import Conflict, InvalidInputs, InvalidRequest, NotFound

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
    """One version of the catalog with its indexes. Never changes; `with_…` and `without_…` make the next document."""

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

    def with_feature(self, feature: Feature) -> CatalogDocument:
        """Return the document with the feature added.

        Raises Conflict `duplicate_feature_id`, InvalidRequest `invalid_feature` for a credit system without sense.
        """
        if feature.id in self.features:
            raise Conflict(f"Feature {feature.id} already exists", code="duplicate_feature_id")
        self._check_feature(feature)
        return replace(self.document, features=(*self.document.features, feature))

    def with_plan(self, plan: Plan) -> CatalogDocument:
        """Return the document with the plan added; InvalidRequest if the id is taken or an item makes no sense."""
        if plan.id in self.plans:
            raise InvalidRequest(f"Product {plan.id} already exists", code="product_already_exists")
        self._check_plan(plan)
        return replace(self.document, plans=(*self.document.plans, _tidy(plan)))

    def with_feature_changed(self, feature_id: str, changes: Mapping[str, Any]) -> CatalogDocument:
        """Return the document with some fields of a feature changed; a cost applies to calls from then on.

        Raises NotFound, InvalidRequest for another type, and what `with_feature` does.
        """
        feature = self.feature(feature_id)
        changed = replace(feature, **changes)
        if changed.type is not feature.type:
            raise InvalidRequest(f"type: {feature_id} is {feature.type}, and a type never changes")
        if changed.consumable != feature.consumable:
            kind = "consumable" if feature.consumable else "not consumable"
            raise InvalidRequest(f"consumable: {feature_id} is {kind}, and that never changes")
        self._check_feature(changed)
        return replace(self.document, features=_with(self.document.features, changed))

    def with_plan_changed(self, plan_id: str, changes: Mapping[str, Any]) -> CatalogDocument:
        """Return the document with some fields of a plan changed; another price or other items are its next version.

        `controls` may be a mapping, of the kinds that change. Raises NotFound, and what `with_plan` does.
        """
        plan = self.plan(plan_id)
        controls = changes.get("controls")
        if isinstance(controls, Mapping):
            changes = {**changes, "controls": replace(plan.controls or NO_CONTROLS, **controls)}
        changed = _tidy(replace(plan, **changes))
        self._check_plan(changed)
        past = self.document.past
        if self._terms(changed) == self._terms(plan):
            written = {item.key: item for item in plan.items}
            changed = replace(changed, items=tuple(written[item.key] for item in changed.items))
        else:
            changed = replace(changed, version=plan.version + 1)
            past = (*past, PlanVersion(plan.id, plan.version, plan.price, plan.items))
        return replace(self.document, plans=_with(self.document.plans, changed), past=past)

    def with_given(self, plan_ids: Iterable[str], feature_ids: Iterable[str]) -> CatalogDocument:
        """Return the document with these plans and features marked as given; NotFound if one is not there."""
        document = self.document
        for feature_id in feature_ids:
            feature = replace(self.feature(feature_id), given=True)
            document = replace(document, features=_with(document.features, feature))
        for plan_id in plan_ids:
            plan = replace(self.plan(plan_id), given=True)
            document = replace(document, plans=_with(document.plans, plan))
        return document

    def without_feature(self, feature_id: str) -> CatalogDocument:
        """Return the document without the feature; NotFound, Conflict `feature_in_use`."""
        feature = self.feature(feature_id)
        user = "customers" if feature.given else self._user_of(feature_id)
        if user is not None:
            raise Conflict(
                f"Feature {feature_id} is used by {user}; it can be archived, not deleted",
                code="feature_in_use",
            )
        features = tuple(feature for feature in self.document.features if feature.id != feature_id)
        return replace(self.document, features=features)

    def without_plan(self, plan_id: str) -> CatalogDocument:
        """Return the document without the plan; one that was given to a customer is archived. NotFound."""
        if self.plan(plan_id).given:
            return self.with_plan_changed(plan_id, {"archived": True})
        plans = tuple(plan for plan in self.document.plans if plan.id != plan_id)
        past = tuple(past for past in self.document.past if past.plan_id != plan_id)
        return replace(self.document, plans=plans, past=past)

    def _user_of(self, feature_id: str) -> str | None:
        """Say who needs the feature: a credit system that prices it, or a plan that names it in any of its versions."""
        for system in self.document.features:
            if any(cost.feature_id == feature_id for cost in system.credit_schema):
                return f"credit system {system.id}"
        for plan_id, newest in self.plans.items():
            if newest.controls and feature_id in newest.controls.feature_ids:
                return f"the billing controls of plan {plan_id}"
            for plan in self.versions(plan_id):
                if any(feature_id in (item.feature_id, item.entity_feature_id) for item in plan.items):
                    return f"version {plan.version} of plan {plan_id}"
        return None

    def _terms(self, plan: Plan) -> object:
        """What a customer pays and gets: the same in any order, and whether a reset is left out or written out."""
        return plan.price, {item.key: replace(item, reset=self.reset_of(item)) for item in plan.items}

    def _check_feature(self, feature: Feature) -> None:
        is_credit_system = feature.type is FeatureType.CREDIT_SYSTEM
        if feature.type is not FeatureType.METERED and feature.consumable != is_credit_system:
            raise InvalidInputs(f"consumable: must be {str(is_credit_system).lower()} for a {feature.type}")
        if is_credit_system:
            self._check_credit_schema(feature)
        elif feature.credit_schema:
            raise InvalidInputs("credit_schema: only a credit system has one")
        if feature.type is FeatureType.METERED and feature.consumable:
            return
        for system in self.document.features:
            if any(cost.feature_id == feature.id for cost in system.credit_schema):
                raise InvalidRequest(
                    f"{system.id} prices {feature.id}, which must be metered and consumable",
                    code="invalid_feature",
                )

    def _check_plan(self, plan: Plan) -> None:
        named: set[tuple[str, str | None]] = set()
        for number, item in enumerate(plan.items):
            if item.key in named:
                raise InvalidInputs(f"items[{number}]: feature {item.feature_id} is listed twice")
            named.add(item.key)
            self._check_item(item, f"items[{number}]")
        self.check_controls(plan.controls)
        if plan.auto_enable and not plan.is_free:
            raise InvalidInputs("auto_enable: a plan with a price cannot be enabled by itself")

    def check_controls(self, controls: BillingControls | None) -> None:
        """Raise NotFound `feature_not_found` unless every feature that the controls name is there."""
        for feature_id in controls.feature_ids if controls else ():
            self.feature(feature_id)

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

    def _check_item(self, item: PlanItem, place: str) -> None:
        feature = self.features.get(item.feature_id)
        if feature is None:
            raise NotFound(
                f"{place}.feature_id: Feature {item.feature_id} not found", code="feature_not_found"
            )
        if feature.type is FeatureType.BOOLEAN and (
            item.included_nanos or item.reset or item.price or item.unlimited
        ):
            raise InvalidInputs(
                f"{place}: {feature.id} is on or off; it has no included amount, reset or price"
            )
        if item.pooled and (feature.type is FeatureType.BOOLEAN or item.entity_feature_id is not None):
            raise InvalidInputs(f"{place}.pooled: is for what is counted, and given to the customer for all")
        if item.entity_feature_id is not None:
            self._check_per_entity(item, item.entity_feature_id, place)
        if item.unlimited and (item.included_nanos or item.price or item.rollover):
            raise InvalidInputs(f"{place}: what is unlimited has no included amount, price or rollover")
        if item.rollover is not None:
            reset = self.reset_of(item)
            if reset is None or not reset.repeats:
                raise InvalidInputs(f"{place}.rollover: {feature.id} does not reset, so nothing rolls over")
        if not feature.consumable and item.reset is not None:
            raise InvalidInputs(f"{place}.reset: {feature.id} is not consumable, so it cannot reset")
        price = item.price
        if (
            price is not None
            and item.reset is not None
            and item.reset.repeats
            and item.reset != price.recurrence
        ):
            raise InvalidRequest(
                f"{place}.reset: a reset of {feature.id} that differs from its price is not supported yet"
            )

    def check_entity_feature(self, feature_id: str, *, field: str) -> Feature:
        """Return a feature that entities can be of: NotFound, InvalidInputs for one that is used up."""
        feature = self.features.get(feature_id)
        if feature is None:
            raise NotFound(f"Feature {feature_id} not found", code="feature_not_found")
        if feature.type is not FeatureType.METERED or feature.consumable:
            raise InvalidInputs(
                f"{field}: {feature_id} must be metered and not consumable; an entity takes one unit of it"
            )
        return feature

    def _check_per_entity(self, item: PlanItem, entity_feature_id: str, place: str) -> None:
        self.check_entity_feature(entity_feature_id, field=f"{place}.entity_feature_id")
        if self.feature(item.feature_id).type is FeatureType.BOOLEAN or item.feature_id == entity_feature_id:
            raise InvalidInputs(
                f"{place}.entity_feature_id: {item.feature_id} cannot be given to each entity"
            )
        if item.is_prepaid:
            raise InvalidRequest(
                f"{place}.price: what is given to each entity cannot be prepaid; this is not supported yet"
            )


Named = TypeVar("Named", Feature, Plan)


def _with(named: tuple[Named, ...], changed: Named) -> tuple[Named, ...]:
    """Return all of them with one in the place of that of its id."""
    return tuple(changed if one.id == changed.id else one for one in named)


def _tidy(plan: Plan) -> Plan:
    """Return the plan with nothing in the place of controls that say nothing."""
    return replace(plan, controls=None) if plan.controls == NO_CONTROLS else plan


def _as_it_was(plan: Plan, past: PlanVersion) -> Plan:
    return replace(plan, version=past.version, price=past.price, items=past.items)
