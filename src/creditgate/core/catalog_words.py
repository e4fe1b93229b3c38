"""The catalog in words: what a feature or plan says under each key of the catalog file, and what differs.

For people who read what an apply is going to do; nothing here is read back.
"""

import json
from collections.abc import Iterator

from creditgate.core.amounts import format_amount
from creditgate.core.catalog import (
    Catalog,
    Feature,
    FeatureType,
    FreeTrial,
    Interval,
    ItemPrice,
    Plan,
    PlanItem,
    Recurrence,
    Rollover,
)
from creditgate.core.controls import NO_CONTROLS, BillingControls

Words = dict[str, str]


def feature_words(feature: Feature) -> Words:
    """Return what the feature says under each key."""
    words = {"name": _text(feature.name)}
    words |= {f"costs.{cost.feature_id}": format_amount(cost.cost_nanos) for cost in feature.credit_schema}
    if feature.event_names:
        words["event_names"] = ", ".join(map(_text, feature.event_names))
    if feature.display:
        words |= {f"display.{key}": _text(text) for key, text in feature.display.items()}
    if feature.fallback_nanos != 0:
        most = feature.fallback_nanos
        words["on_unavailable"] = "allow" if most is None else f"allow up to {format_amount(most)}"
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
    if plan.free_trial:
        words["free_trial"] = _trial_words(plan.free_trial)
    words |= {_item_key(item): item_words(item, catalog) for item in plan.items}
    words |= {f"billing_controls.{key}": said for key, said in _control_words(plan.controls or NO_CONTROLS)}
    return words | {f"metadata.{key}": _text(value) for key, value in plan.metadata.items()}


def item_words(item: PlanItem, catalog: Catalog) -> str:
    """Return what a plan gives of one feature, such as `5 each month, sold at 1 for 100, once`."""
    if catalog.feature(item.feature_id).type is FeatureType.BOOLEAN:
        return "on"
    parts = []
    if item.unlimited or item.included_nanos or not item.price:
        included = "unlimited" if item.unlimited else format_amount(item.included_nanos)
        reset = catalog.reset_of(item)
        parts.append(f"{included} {every(reset)}" if reset else included)
    if item.pooled:
        parts.append("pooled")
    if item.rollover:
        parts.append(_rollover_words(item.rollover))
    if item.price:
        parts.append(_price_words(item.price))
    return ", ".join(parts)


def _item_key(item: PlanItem) -> str:
    per = f" per {item.entity_feature_id}" if item.entity_feature_id is not None else ""
    return f"items.{item.feature_id}{per}"


def _trial_words(trial: FreeTrial) -> str:
    length = f"{trial.length.count} {trial.length.interval.value}{'s'[: trial.length.count > 1]}"
    card = ", with a card" if trial.card_required else ""
    return f"{length}{card}, then it " + ("reverts" if trial.reverts else "goes on")


def _rollover_words(rollover: Rollover) -> str:
    most = ""
    if rollover.max_nanos is not None:
        most = f" up to {format_amount(rollover.max_nanos)}"
    elif rollover.max_percentage_nanos is not None:
        most = f" up to {format_amount(rollover.max_percentage_nanos)} %"
    months = rollover.months
    return f"rolling over{most} " + (f"for {months} month{'s'[: months > 1]}" if months else "for good")


def _price_words(price: ItemPrice) -> str:
    sold = "sold" if price.billing_method == "prepaid" else "charged after use"
    amount, units = format_amount(price.amount_nanos), format_amount(price.billing_units_nanos)
    words = f"{sold} at {amount} for {units}, {every(price.recurrence)}"
    if price.max_purchase_nanos is None:
        return words
    return f"{words}, at most {format_amount(price.max_purchase_nanos)}"


def _control_words(controls: BillingControls) -> Iterator[tuple[str, str]]:
    for spend in controls.spend_limits:
        yield f"spend_limits.{spend.feature_id}", format_amount(spend.limit_nanos) + _off(spend.enabled)
    for limit in controls.usage_limits:
        window = every(Recurrence(limit.interval)) + (" in UTC" if limit.in_utc else "")
        window += "".join(f" where {name} is {value}" for name, value in limit.properties.items())
        yield (
            f"usage_limits.{limit.feature_id} {window}",
            format_amount(limit.limit_nanos) + _off(limit.enabled),
        )
    for allowed in controls.overage_allowed:
        yield f"overage_allowed.{allowed.feature_id}", _text(allowed.enabled)
    for alert in controls.usage_alerts:
        threshold = f"{format_amount(alert.threshold_nanos)} {alert.threshold_type}"
        named = f" as {_text(alert.name)}" if alert.name is not None else ""
        yield f"usage_alerts.{alert.feature_id} at {threshold}{named}", "on" + _off(alert.enabled)


def _off(enabled: bool) -> str:
    return "" if enabled else " (off)"


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
