"""The tables of a catalog file: which keys each may have, and the feature or plan that it means.

Amounts are exact: numbers, or numbers in quotes. What is left out has the value that a create on the wire gives it.
A refusal begins with the place in the table that is wrong: `items[0].included: must be >= 0`.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from creditgate.core.amounts import parse_kept
from creditgate.core.catalog import (
    INTERVAL_COUNT_MAX,
    ROLLOVER_MONTHS_MAX,
    BillingInterval,
    BillingMethod,
    CreditCost,
    Feature,
    FeatureType,
    FreeTrial,
    Interval,
    ItemPrice,
    Plan,
    PlanItem,
    PlanPrice,
    Recurrence,
    Rollover,
)
from creditgate.core.controls import (
    CONTROLS_MAX,
    FILTER_KEYS_MAX,
    AlertType,
    BillingControls,
    OverageAllowed,
    SpendLimit,
    UsageAlert,
    UsageLimit,
    property_text,
)
from creditgate.core.ids import check_caller_id, check_catalog_id
from creditgate.core.own import METADATA_BYTES_MAX, compact_object
from creditgate.errors import InvalidInputs, InvalidRequest


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a key that it does not have is an error, not ignored."""


class CountedInterval(Table, frozen=True):
    """Every so many intervals."""

    interval: Interval
    interval_count: int = 1


class PlanPriceTable(Table, frozen=True):
    """What a plan costs."""

    amount: Any
    interval: BillingInterval
    interval_count: int = 1

    def price(self, place: str) -> PlanPrice:
        return PlanPrice(_amount(self.amount, f"{place}.amount"), _recurrence(self, place))


class ItemPriceTable(PlanPriceTable, frozen=True):
    """What each started pack of `billing_units` costs."""

    billing_units: Any = 1
    billing_method: BillingMethod = "prepaid"
    max_purchase: Any = None

    def item_price(self, place: str) -> ItemPrice:
        units = _amount(self.billing_units, f"{place}.billing_units")
        if units == 0:
            raise InvalidInputs(f"{place}.billing_units: must be > 0")
        if self.max_purchase is not None and self.billing_method == "prepaid":
            raise InvalidRequest(f"{place}.max_purchase: is not supported yet for what is prepaid")
        return ItemPrice(
            amount_nanos=_amount(self.amount, f"{place}.amount"),
            recurrence=_recurrence(self, place),
            billing_units_nanos=units,
            billing_method=self.billing_method,
            max_purchase_nanos=_amount_if_said(self.max_purchase, f"{place}.max_purchase"),
        )


class RolloverTable(Table, frozen=True):
    """What survives a reset, for so many months or for good."""

    months: int | None = None
    max: Any = None
    max_percentage: Any = None

    def rollover(self, place: str) -> Rollover:
        if self.months is not None and not 1 <= self.months <= ROLLOVER_MONTHS_MAX:
            raise InvalidInputs(f"{place}.months: must be between 1 and {ROLLOVER_MONTHS_MAX}")
        if self.max is not None and self.max_percentage is not None:
            raise InvalidInputs(f"{place}: max and max_percentage exclude each other")
        return Rollover(
            self.months,
            _amount_if_said(self.max, f"{place}.max"),
            _amount_if_said(self.max_percentage, f"{place}.max_percentage"),
        )


class ItemTable(Table, frozen=True):
    """What a plan gives of one feature."""

    feature: str
    included: Any = 0
    unlimited: bool = False
    reset: Interval | CountedInterval | None = None
    rollover: RolloverTable | None = None
    price: ItemPriceTable | None = None
    entity_feature: str | None = None
    pooled: bool = False

    def item(self, place: str) -> PlanItem:
        return PlanItem(
            feature_id=self.feature,
            included_nanos=_amount(self.included, f"{place}.included"),
            reset=_reset(self.reset, f"{place}.reset"),
            price=self.price.item_price(f"{place}.price") if self.price else None,
            unlimited=self.unlimited,
            rollover=self.rollover.rollover(f"{place}.rollover") if self.rollover else None,
            entity_feature_id=self.entity_feature,
            pooled=self.pooled,
        )


class UsageLimitTable(Table, frozen=True):
    """How much of a feature may be used in each window, by calls that have these properties."""

    feature: str
    limit: Any
    interval: Literal["day", "week", "month", "year"]
    anchor: Literal["billing_cycle", "utc"] = "billing_cycle"
    properties: dict[str, str | int | float | bool] = {}

    def usage_limit(self, place: str) -> UsageLimit:
        if len(self.properties) > FILTER_KEYS_MAX:
            raise InvalidInputs(f"{place}.properties: must have at most {FILTER_KEYS_MAX} keys")
        return UsageLimit(
            self.feature,
            _amount(self.limit, f"{place}.limit"),
            Interval(self.interval),
            in_utc=self.anchor == "utc",
            properties={name: property_text(value) for name, value in self.properties.items()},
        )


class UsageAlertTable(Table, frozen=True):
    """When to tell about a feature, in units or in percent of what was granted."""

    feature: str
    threshold: Any
    threshold_type: AlertType
    name: str | None = None

    def alert(self, place: str) -> UsageAlert:
        threshold = _amount(self.threshold, f"{place}.threshold")
        return UsageAlert(self.feature, threshold, self.threshold_type, self.name)


class ControlsTable(Table, frozen=True):
    """How far customers with the plan may go, feature by feature."""

    spend_limits: dict[str, Any] = {}
    usage_limits: tuple[UsageLimitTable, ...] = ()
    overage_allowed: dict[str, bool] = {}
    usage_alerts: tuple[UsageAlertTable, ...] = ()

    def controls(self, place: str) -> BillingControls:
        for kind in self.__struct_fields__:
            if len(getattr(self, kind)) > CONTROLS_MAX:
                raise InvalidInputs(f"{place}.{kind}: must have at most {CONTROLS_MAX} entries")
        return BillingControls(
            spend_limits=tuple(
                SpendLimit(feature_id, _amount(limit, f"{place}.spend_limits.{feature_id}"))
                for feature_id, limit in self.spend_limits.items()
            ),
            usage_limits=tuple(
                limit.usage_limit(f"{place}.usage_limits[{number}]")
                for number, limit in enumerate(self.usage_limits)
            ),
            overage_allowed=tuple(OverageAllowed(*allowed) for allowed in self.overage_allowed.items()),
            usage_alerts=tuple(
                alert.alert(f"{place}.usage_alerts[{number}]")
                for number, alert in enumerate(self.usage_alerts)
            ),
        )


class FreeTrialTable(Table, frozen=True):
    """How long a plan is free at first, and whether it goes on after that."""

    length: int
    unit: Literal["day", "month", "year"] = "month"
    card_required: bool = False
    on_end: Literal["bill", "revert"] = "bill"

    def trial(self, place: str) -> FreeTrial:
        if not 1 <= self.length <= INTERVAL_COUNT_MAX:
            raise InvalidInputs(f"{place}.length: must be between 1 and {INTERVAL_COUNT_MAX}")
        length = Recurrence(Interval(self.unit), self.length)
        return FreeTrial(length, self.card_required, reverts=self.on_end == "revert")


class DisplayTable(Table, frozen=True):
    """What one and what several of a feature are called."""

    singular: str
    plural: str


class AllowUpToTable(Table, frozen=True):
    """So many units of each customer while checks cannot be decided."""

    allow_up_to: Any


class FeatureTable(Table, frozen=True):
    """`[features.ID]`"""

    name: str | None = None
    type: FeatureType = FeatureType.METERED
    consumable: bool | None = None
    costs: dict[str, Any] = {}
    event_names: tuple[str, ...] = ()
    display: DisplayTable | None = None
    on_unavailable: Literal["deny", "allow"] | AllowUpToTable = "deny"

    def feature(self, feature_id: str) -> Feature:
        for number, event_name in enumerate(self.event_names):
            check_caller_id(event_name, field=f"event_names[{number}]")
        is_consumable = self.type is not FeatureType.BOOLEAN if self.consumable is None else self.consumable
        return Feature(
            id=check_catalog_id(feature_id, field="the id"),
            name=_name(feature_id, self.name),
            type=self.type,
            consumable=is_consumable,
            event_names=self.event_names,
            credit_schema=tuple(
                CreditCost(member, _amount(cost, f"costs.{member}")) for member, cost in self.costs.items()
            ),
            display=msgspec.structs.asdict(self.display) if self.display else None,
            fallback_nanos=_fallback(self.on_unavailable),
        )


class PlanTable(Table, frozen=True):
    """`[plans.ID]`"""

    name: str | None = None
    description: str | None = None
    group: str = ""
    add_on: bool = False
    auto_enable: bool = False
    price: PlanPriceTable | None = None
    items: tuple[ItemTable, ...] = ()
    free_trial: FreeTrialTable | None = None
    billing_controls: ControlsTable | None = None
    metadata: dict[str, Any] = {}

    def plan(self, plan_id: str) -> Plan:
        """Return the plan; when it was created is for the engine to say."""
        return Plan(
            id=check_catalog_id(plan_id, field="the id"),
            name=_name(plan_id, self.name),
            created_at=0,
            description=self.description,
            group=self.group,
            add_on=self.add_on,
            auto_enable=self.auto_enable,
            price=self.price.price("price") if self.price else None,
            items=tuple(item.item(f"items[{number}]") for number, item in enumerate(self.items)),
            free_trial=self.free_trial.trial("free_trial") if self.free_trial else None,
            controls=self.billing_controls.controls("billing_controls") if self.billing_controls else None,
            metadata=_as_json(self.metadata),
        )


class CatalogTable(Table, frozen=True):
    """The whole file. What is in each table is read one by one, so that an error can name it."""

    features: dict[str, Any] = {}
    plans: dict[str, Any] = {}


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _amount(value: object, field: str) -> int:
    """Return the nanos of a number, or of a number in quotes."""
    text = str(value)
    if isinstance(value, bool | dict | list) or _NUMBER.fullmatch(text) is None:
        raise InvalidInputs(f'{field}: must be a number, such as 5 or "0.01"')
    return parse_kept(text.encode("ascii"), field=field)


def _amount_if_said(value: object, field: str) -> int | None:
    return None if value is None else _amount(value, field)


def _fallback(said: str | AllowUpToTable) -> int | None:
    if isinstance(said, AllowUpToTable):
        return _amount(said.allow_up_to, "on_unavailable.allow_up_to")
    return None if said == "allow" else 0


def _reset(said: Interval | CountedInterval | None, place: str) -> Recurrence | None:
    if isinstance(said, CountedInterval):
        return _recurrence(said, place)
    return Recurrence(said) if said else None


def _recurrence(table: CountedInterval | PlanPriceTable, place: str) -> Recurrence:
    if not 1 <= table.interval_count <= INTERVAL_COUNT_MAX:
        raise InvalidInputs(f"{place}.interval_count: must be between 1 and {INTERVAL_COUNT_MAX}")
    return Recurrence(Interval(table.interval), table.interval_count)


def _name(word_id: str, name: str | None) -> str:
    """Return the name; without one it is the id in words."""
    if name == "":
        raise InvalidInputs("name: cannot be empty")
    return name or re.sub("[_-]+", " ", word_id).strip().capitalize() or word_id


_JSON = msgspec.json.Encoder(decimal_format="number")


def _as_json(metadata: Mapping[str, Any]) -> dict[str, object]:
    """Return metadata as the wire would have brought it: it is the caller's own, and no amount."""
    text = compact_object(_JSON.encode(metadata), field="metadata", bytes_max=METADATA_BYTES_MAX)
    found: dict[str, object] = msgspec.json.decode(text)
    return found
