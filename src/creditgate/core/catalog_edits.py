"""The next document of a catalog: with a feature or plan added, changed or given, or without it.

A catalog never changes. Whoever edits one works out the next document, which is put if the catalog is still the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from creditgate.core.catalog import Catalog, CatalogDocument, Feature, Plan, PlanVersion
from creditgate.core.catalog_checks import check_feature, check_plan
from creditgate.core.controls import NO_CONTROLS
from creditgate.errors import Conflict, InvalidRequest

Named = TypeVar("Named", Feature, Plan)


def with_feature(catalog: Catalog, feature: Feature) -> CatalogDocument:
    """Return the document with the feature added.

    Raises Conflict `duplicate_feature_id`, InvalidRequest `invalid_feature` for a credit system without sense.
    """
    if feature.id in catalog.features:
        raise Conflict(f"Feature {feature.id} already exists", code="duplicate_feature_id")
    check_feature(feature, catalog)
    return replace(catalog.document, features=(*catalog.document.features, feature))


def with_plan(catalog: Catalog, plan: Plan) -> CatalogDocument:
    """Return the document with the plan added; InvalidRequest if the id is taken or an item makes no sense."""
    if plan.id in catalog.plans:
        raise InvalidRequest(f"Product {plan.id} already exists", code="product_already_exists")
    check_plan(plan, catalog)
    return replace(catalog.document, plans=(*catalog.document.plans, _tidy(plan)))


def with_feature_changed(catalog: Catalog, feature_id: str, changes: Mapping[str, Any]) -> CatalogDocument:
    """Return the document with some fields of a feature changed; a cost applies to calls from then on.

    Raises NotFound, InvalidRequest for another type, and what `with_feature` does.
    """
    feature = catalog.feature(feature_id)
    changed = replace(feature, **changes)
    if changed.type is not feature.type:
        raise InvalidRequest(f"type: {feature_id} is {feature.type}, and a type never changes")
    if changed.consumable != feature.consumable:
        kind = "consumable" if feature.consumable else "not consumable"
        raise InvalidRequest(f"consumable: {feature_id} is {kind}, and that never changes")
    check_feature(changed, catalog)
    return replace(catalog.document, features=_replaced(catalog.document.features, changed))


def with_plan_changed(catalog: Catalog, plan_id: str, changes: Mapping[str, Any]) -> CatalogDocument:
    """Return the document with some fields of a plan changed; another price or other items are its next version.

    `controls` may be a mapping, of the kinds that change. Raises NotFound, and what `with_plan` does.
    """
    plan = catalog.plan(plan_id)
    controls = changes.get("controls")
    if isinstance(controls, Mapping):
        changes = {**changes, "controls": replace(plan.controls or NO_CONTROLS, **controls)}
    changed = _tidy(replace(plan, **changes))
    check_plan(changed, catalog)
    past = catalog.document.past
    if _terms(catalog, changed) == _terms(catalog, plan):
        written = {item.key: item for item in plan.items}
        changed = replace(changed, items=tuple(written[item.key] for item in changed.items))
    else:
        changed = replace(changed, version=plan.version + 1)
        past = (*past, PlanVersion(plan.id, plan.version, plan.price, plan.items))
    return replace(catalog.document, plans=_replaced(catalog.document.plans, changed), past=past)


def with_given(catalog: Catalog, plan_ids: Iterable[str], feature_ids: Iterable[str]) -> CatalogDocument:
    """Return the document with these plans and features marked as given; NotFound if one is not there."""
    document = catalog.document
    for feature_id in feature_ids:
        feature = replace(catalog.feature(feature_id), given=True)
        document = replace(document, features=_replaced(document.features, feature))
    for plan_id in plan_ids:
        plan = replace(catalog.plan(plan_id), given=True)
        document = replace(document, plans=_replaced(document.plans, plan))
    return document


def without_feature(catalog: Catalog, feature_id: str) -> CatalogDocument:
    """Return the document without the feature; NotFound, Conflict `feature_in_use`."""
    feature = catalog.feature(feature_id)
    user = "customers" if feature.given else _user_of(catalog, feature_id)
    if user is not None:
        raise Conflict(
            f"Feature {feature_id} is used by {user}; it can be archived, not deleted",
            code="feature_in_use",
        )
    features = tuple(feature for feature in catalog.document.features if feature.id != feature_id)
    return replace(catalog.document, features=features)


def without_plan(catalog: Catalog, plan_id: str) -> CatalogDocument:
    """Return the document without the plan; one that was given to a customer is archived. NotFound."""
    if catalog.plan(plan_id).given:
        return with_plan_changed(catalog, plan_id, {"archived": True})
    plans = tuple(plan for plan in catalog.document.plans if plan.id != plan_id)
    past = tuple(past for past in catalog.document.past if past.plan_id != plan_id)
    return replace(catalog.document, plans=plans, past=past)


def _user_of(catalog: Catalog, feature_id: str) -> str | None:
    """Say who needs the feature: a credit system that prices it, or a plan that names it in any of its versions."""
    for system in catalog.document.features:
        if any(cost.feature_id == feature_id for cost in system.credit_schema):
            return f"credit system {system.id}"
    for plan_id, newest in catalog.plans.items():
        if newest.controls and feature_id in newest.controls.feature_ids:
            return f"the billing controls of plan {plan_id}"
        for plan in catalog.versions(plan_id):
            if any(feature_id in (item.feature_id, item.entity_feature_id) for item in plan.items):
                return f"version {plan.version} of plan {plan_id}"
    return None


def _terms(catalog: Catalog, plan: Plan) -> object:
    """What a customer pays and gets: the same in any order, and whether a reset is left out or written out."""
    return plan.price, {item.key: replace(item, reset=catalog.reset_of(item)) for item in plan.items}


def _replaced(named: tuple[Named, ...], changed: Named) -> tuple[Named, ...]:
    """Return all of them with one in the place of that of its id."""
    return tuple(changed if one.id == changed.id else one for one in named)


def _tidy(plan: Plan) -> Plan:
    """Return the plan with nothing in the place of controls that say nothing."""
    return replace(plan, controls=None) if plan.controls == NO_CONTROLS else plan
