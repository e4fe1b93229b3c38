"""What a catalog refuses to hold: features, credit systems and plans that make no sense beside the others."""

from creditgate.core.catalog import Catalog, Feature, FeatureType, Plan, PlanItem
from creditgate.core.controls import BillingControls
from creditgate.errors import InvalidInputs, InvalidRequest, NotFound


def check_feature(feature: Feature, catalog: Catalog) -> None:
    """Raise InvalidInputs, or InvalidRequest `invalid_feature`, for a feature or credit system without sense."""
    is_credit_system = feature.type is FeatureType.CREDIT_SYSTEM
    if feature.type is not FeatureType.METERED and feature.consumable != is_credit_system:
        raise InvalidInputs(f"consumable: must be {str(is_credit_system).lower()} for a {feature.type}")
    if is_credit_system:
        _check_credit_schema(feature, catalog)
    elif feature.credit_schema:
        raise InvalidInputs("credit_schema: only a credit system has one")
    if feature.type is FeatureType.METERED and feature.consumable:
        return
    for system in catalog.document.features:
        if any(cost.feature_id == feature.id for cost in system.credit_schema):
            raise InvalidRequest(
                f"{system.id} prices {feature.id}, which must be metered and consumable",
                code="invalid_feature",
            )


def check_plan(plan: Plan, catalog: Catalog) -> None:
    """Raise InvalidInputs, InvalidRequest or NotFound for a plan with an item or controls that make no sense."""
    named: set[tuple[str, str | None]] = set()
    for number, item in enumerate(plan.items):
        if item.key in named:
            raise InvalidInputs(f"items[{number}]: feature {item.feature_id} is listed twice")
        named.add(item.key)
        _check_item(item, catalog, f"items[{number}]")
    check_controls(plan.controls, catalog)
    if plan.auto_enable and not plan.is_free:
        raise InvalidInputs("auto_enable: a plan with a price cannot be enabled by itself")


def check_controls(controls: BillingControls | None, catalog: Catalog) -> None:
    """Raise NotFound `feature_not_found` unless every feature that the controls name is there."""
    for feature_id in controls.feature_ids if controls else ():
        catalog.feature(feature_id)


def check_entity_feature(feature_id: str, catalog: Catalog, *, field: str) -> Feature:
    """Return a feature that entities can be of: NotFound, InvalidInputs for one that is used up."""
    feature = catalog.features.get(feature_id)
    if feature is None:
        raise NotFound(f"Feature {feature_id} not found", code="feature_not_found")
    if feature.type is not FeatureType.METERED or feature.consumable:
        raise InvalidInputs(
            f"{field}: {feature_id} must be metered and not consumable; an entity takes one unit of it"
        )
    return feature


def _check_credit_schema(system: Feature, catalog: Catalog) -> None:
    if not system.credit_schema:
        raise InvalidRequest("credit_schema: cannot be empty", code="invalid_feature")
    members = [cost.feature_id for cost in system.credit_schema]
    if len(set(members)) != len(members):
        raise InvalidRequest("credit_schema: a feature is listed twice", code="invalid_feature")
    for member in members:
        feature = catalog.features.get(member)
        if member == system.id or (feature and feature.type is not FeatureType.METERED):
            raise InvalidRequest(f"credit_schema: {member} is not a metered feature", code="invalid_feature")
        if feature and not feature.consumable:
            raise InvalidRequest(f"credit_schema: {member} is not consumable", code="invalid_feature")


def _check_item(item: PlanItem, catalog: Catalog, place: str) -> None:
    feature = catalog.features.get(item.feature_id)
    if feature is None:
        raise NotFound(f"{place}.feature_id: Feature {item.feature_id} not found", code="feature_not_found")
    if feature.type is FeatureType.BOOLEAN and (
        item.included_nanos or item.reset or item.price or item.unlimited
    ):
        raise InvalidInputs(f"{place}: {feature.id} is on or off; it has no included amount, reset or price")
    if item.pooled and (feature.type is FeatureType.BOOLEAN or item.entity_feature_id is not None):
        raise InvalidInputs(f"{place}.pooled: is for what is counted, and given to the customer for all")
    if item.entity_feature_id is not None:
        _check_per_entity(item, catalog, item.entity_feature_id, place)
    if item.unlimited and (item.included_nanos or item.price or item.rollover):
        raise InvalidInputs(f"{place}: what is unlimited has no included amount, price or rollover")
    if item.rollover is not None:
        reset = catalog.reset_of(item)
        if reset is None or not reset.repeats:
            raise InvalidInputs(f"{place}.rollover: {feature.id} does not reset, so nothing rolls over")
    if not feature.consumable and item.reset is not None:
        raise InvalidInputs(f"{place}.reset: {feature.id} is not consumable, so it cannot reset")
    price = item.price
    if price is not None and item.reset is not None and item.reset.repeats and item.reset != price.recurrence:
        raise InvalidRequest(
            f"{place}.reset: a reset of {feature.id} that differs from its price is not supported yet"
        )


def _check_per_entity(item: PlanItem, catalog: Catalog, entity_feature_id: str, place: str) -> None:
    check_entity_feature(entity_feature_id, catalog, field=f"{place}.entity_feature_id")
    if catalog.feature(item.feature_id).type is FeatureType.BOOLEAN or item.feature_id == entity_feature_id:
        raise InvalidInputs(f"{place}.entity_feature_id: {item.feature_id} cannot be given to each entity")
    if item.is_prepaid:
        raise InvalidRequest(
            f"{place}.price: what is given to each entity cannot be prepaid; this is not supported yet"
        )
