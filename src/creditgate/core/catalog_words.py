"""The catalog in words: what a feature or plan says under each key of the catalog file, and what differs.

For people who read what an apply is going to do; nothing here is read back.
"""

import json
from collections.abc import Iterator

from creditgate.core.amounts import format_amount
from creditgate.core.catalog import Catalog, Feature, FeatureType, Interval, Plan, PlanItem, Recurrence

Words = dict[str, str]


def feature_words(feature: Feature) -> Words:
    """Return what the feature says under each key."""
    words = {"name": _text(feature.name)}
    words |= {f"costs.{cost.feature_id}": format_amount(cost.cost_nanos) for cost in feature.credit_schema}
    if feature.event_names:
        words["event_names"] = ", ".join(map(_text, feature.event_names))
    if feature.display:
        words |= {f"display.{key}": _text(text) for key, text in feature.display.items()}
    return words


def plan_words(plan: Plan, catalog: Catalog) -> Words:
    """Return what the plan says under each key; one item is one sentence."""
    words = {"name": _text(plan.name)}
    if plan.description is not None:
        words["description"] = _text(plan.description)
    if plan.group:
        words["group"] = _text(plan.group)
    words["add_on"], words["auto_enable"] = _text(plan.add_on), _text(plan.auto_enable)
    if plan.price:
        words["price"] = f"{format_amount(plan.price.amount_nanos)} {every(plan.price.recurrence)}"
    words |= {f"items.{item.feature_id}": item_words(item, catalog) for item in plan.items}
    return words | {f"metadata.{key}": _text(value) for key, value in plan.metadata.items()}


def item_words(item: PlanItem, catalog: Catalog) -> str:
    """Return what a plan gives of one feature, such as `5 each month, sold at 1 for 100, once`."""
    if catalog.feature(item.feature_id).type is FeatureType.BOOLEAN:
        return "on"
    parts = []
    if item.included_nanos or not item.price:
        reset = catalog.reset_of(item)
        parts.append(format_amount(item.included_nanos) + (f" {every(reset)}" if reset else ""))
    if price := item.price:
        amount, units = format_amount(price.amount_nanos), format_amount(price.billing_units_nanos)
        parts.append(f"sold at {amount} for {units}, {every(price.recurrence)}")
    return ", ".join(parts)


def every(recurrence: Recurrence) -> str:
    """Return how often something happens: `each month`, `every 2 weeks`, `once`."""
    if not recurrence.repeats:
        return "once"
    noun = "half-year" if recurrence.interval is Interval.SEMI_ANNUAL else recurrence.interval.value
    return f"each {noun}" if recurrence.count == 1 else f"every {recurrence.count} {noun}s"


def differences(before: Words, after: Words) -> Iterator[str]:
    """Yield one sentence for each key under which something else is said."""
    for key in before | after:
        match before.get(key), after.get(key):
            case None, now:
                yield f"{key} added, {now}"
            case was, None:
                yield f"{key} removed, was {was}"
            case was, now if was != now:
                yield f"{key} from {was} to {now}"


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
