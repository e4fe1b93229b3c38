"""Billing controls on the wire: spend limits, usage limits, and whether a balance may go below zero."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from creditgate.api.wire.fields import NotYet, Request
from creditgate.api.wire.numbers import kept, number
from creditgate.core.catalog import Interval
from creditgate.core.controls import (
    CONTROLS_MAX,
    CUSTOMER,
    FILTER_KEYS_MAX,
    NO_CONTROLS,
    AlertType,
    BillingControls,
    Gate,
    OverageAllowed,
    SpendLimit,
    UsageAlert,
    UsageLimit,
    entity_source,
    property_text,
)
from creditgate.core.customers import Record
from creditgate.core.entities import Entity
from creditgate.errors import InvalidInputs


class OnlyAbsolute(NotYet):
    """A spend limit is an amount; one in percent is not built."""

    harmless = ("absolute",)


class SpendLimitRequest(Request, frozen=True):
    """How far below zero all rows of a feature may go together."""

    feature_id: str
    overage_limit: Raw
    enabled: bool = True
    limit_type: OnlyAbsolute | None = None
    skip_overage_billing: NotYet | None = None

    def limit(self, place: str) -> SpendLimit:
        nanos = kept(self.overage_limit, field=f"{place}.overage_limit")
        return SpendLimit(self.feature_id, nanos, self.enabled)


class FilterRequest(Request, frozen=True):
    """The properties that a call must have to be counted."""

    properties: dict[str, str | int | float | bool]


class UsageLimitRequest(Request, frozen=True):
    """How much of a feature may be used in each window."""

    feature_id: str
    limit: Raw
    interval: Literal["day", "week", "month", "year"]
    enabled: bool = True
    anchor: Literal["billing_cycle", "utc"] = "billing_cycle"
    filter: FilterRequest | None = None

    def usage_limit(self, place: str) -> UsageLimit:
        properties = self.filter.properties if self.filter else {}
        if len(properties) > FILTER_KEYS_MAX:
            raise InvalidInputs(f"{place}.filter.properties: must have at most {FILTER_KEYS_MAX} keys")
        return UsageLimit(
            feature_id=self.feature_id,
            limit_nanos=kept(self.limit, field=f"{place}.limit"),
            interval=Interval(self.interval),
            in_utc=self.anchor == "utc",
            properties={name: property_text(value) for name, value in properties.items()},
            enabled=self.enabled,
        )


class OverageAllowedRequest(Request, frozen=True):
    """Whether rows of a feature may go below zero."""

    feature_id: str
    enabled: bool


class OnlyBalance(NotYet):
    """An alert looks at the whole balance; another basis is not built."""

    harmless = ("balance",)


class UsageAlertRequest(Request, frozen=True):
    """When to tell; a webhook of `balances.usage_alert_triggered` is told."""

    feature_id: str
    threshold: Raw
    threshold_type: AlertType
    name: str | None = None
    enabled: bool = True
    basis: OnlyBalance | None = None
    filter: NotYet | None = None

    def alert(self, place: str) -> UsageAlert:
        threshold = kept(self.threshold, field=f"{place}.threshold")
        return UsageAlert(self.feature_id, threshold, self.threshold_type, self.name, self.enabled)


class ControlsRequest(Request, frozen=True):
    """`billing_controls`. What is not said is left as it is; an empty list removes all of its kind."""

    spend_limits: tuple[SpendLimitRequest, ...] | None = None
    usage_limits: tuple[UsageLimitRequest, ...] | None = None
    overage_allowed: tuple[OverageAllowedRequest, ...] | None = None
    usage_alerts: tuple[UsageAlertRequest, ...] | None = None
    auto_topups: NotYet | None = None

    def controls(self, before: BillingControls = NO_CONTROLS) -> BillingControls:
        """Return what was there before with what is said; InvalidInputs where it makes no sense."""
        return msgspec.structs.replace(before, **self.said())

    def said(self) -> dict[str, Any]:
        """Return what is said, by the fields of `BillingControls`."""
        said: dict[str, Any] = {}
        if self.spend_limits is not None:
            said["spend_limits"] = tuple(
                limit.limit(_place("spend_limits", number)) for number, limit in enumerate(self.spend_limits)
            )
        if self.usage_limits is not None:
            said["usage_limits"] = tuple(
                limit.usage_limit(_place("usage_limits", number))
                for number, limit in enumerate(self.usage_limits)
            )
        if self.overage_allowed is not None:
            said["overage_allowed"] = tuple(
                OverageAllowed(each.feature_id, each.enabled) for each in self.overage_allowed
            )
        if self.usage_alerts is not None:
            said["usage_alerts"] = tuple(
                alert.alert(_place("usage_alerts", number)) for number, alert in enumerate(self.usage_alerts)
            )
        for name, each in said.items():
            if len(each) > CONTROLS_MAX:
                raise InvalidInputs(f"billing_controls.{name}: must have at most {CONTROLS_MAX} entries")
        return said


class SpendLimitAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A spend limit; `source` says whether the customer has it or a plan brings it."""

    feature_id: str
    enabled: bool
    limit_type: str = "absolute"
    overage_limit: Raw
    source: str


class FilterAnswer(msgspec.Struct, frozen=True):
    """The properties that a call must have to be counted."""

    properties: dict[str, str]


class UsageLimitAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A usage limit, and what was used in this window."""

    feature_id: str
    limit: Raw
    interval: str
    enabled: bool
    anchor: str
    filter: FilterAnswer | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET
    source: str


class OverageAllowedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether rows of a feature may go below zero."""

    feature_id: str
    enabled: bool
    source: str


class UsageAlertAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """When a webhook is told."""

    feature_id: str
    threshold: Raw
    threshold_type: str
    name: str | UnsetType = UNSET
    enabled: bool
    source: str


class ControlsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`billing_controls`: only the kinds of which there are any."""

    spend_limits: tuple[SpendLimitAnswer, ...] | UnsetType = UNSET
    usage_limits: tuple[UsageLimitAnswer, ...] | UnsetType = UNSET
    overage_allowed: tuple[OverageAllowedAnswer, ...] | UnsetType = UNSET
    usage_alerts: tuple[UsageAlertAnswer, ...] | UnsetType = UNSET


def controls_answer(record: Record) -> ControlsAnswer:
    """Return all controls that hold for a customer."""
    return _from(record, record.customer.controls_by_source, CUSTOMER, "customer")


def entity_controls_answer(record: Record, entity: Entity) -> ControlsAnswer:
    """Return what an entity is held to beside the customer's controls."""
    return _from(record, record.customer.controls_of(entity), entity_source(entity.id), "entity")


def _from(record: Record, controls: Mapping[str, BillingControls], own: str, owner: str) -> ControlsAnswer:
    answers = [
        controls_of(each, owner if source == own else "plan", _usage(record, source))
        for source, each in controls.items()
    ]
    return ControlsAnswer(
        spend_limits=_together(answer.spend_limits for answer in answers),
        usage_limits=_together(answer.usage_limits for answer in answers),
        overage_allowed=_together(answer.overage_allowed for answer in answers),
        usage_alerts=_together(answer.usage_alerts for answer in answers),
    )


def controls_of(
    controls: BillingControls, source: str, usage: dict[tuple[object, ...], int] | None = None
) -> ControlsAnswer:
    """Return the controls of one source; `usage` is what was used in the windows of those that are counted."""
    return ControlsAnswer(
        spend_limits=tuple(
            SpendLimitAnswer(
                feature_id=limit.feature_id,
                enabled=limit.enabled,
                overage_limit=number(limit.limit_nanos),
                source=source,
            )
            for limit in controls.spend_limits
        )
        or UNSET,
        usage_limits=tuple(
            _usage_limit_answer(limit, source, (usage or {}).get(_window_of(limit)))
            for limit in controls.usage_limits
        )
        or UNSET,
        overage_allowed=tuple(
            OverageAllowedAnswer(feature_id=each.feature_id, enabled=each.enabled, source=source)
            for each in controls.overage_allowed
        )
        or UNSET,
        usage_alerts=tuple(
            UsageAlertAnswer(
                feature_id=alert.feature_id,
                threshold=number(alert.threshold_nanos),
                threshold_type=alert.threshold_type,
                name=alert.name or UNSET,
                enabled=alert.enabled,
                source=source,
            )
            for alert in controls.usage_alerts
        )
        or UNSET,
    )


def _usage_limit_answer(limit: UsageLimit, source: str, used_nanos: int | None) -> UsageLimitAnswer:
    return UsageLimitAnswer(
        feature_id=limit.feature_id,
        limit=number(limit.limit_nanos),
        interval=limit.interval,
        enabled=limit.enabled,
        anchor="utc" if limit.in_utc else "billing_cycle",
        filter=FilterAnswer(limit.properties) if limit.properties else UNSET,
        usage=UNSET if used_nanos is None else number(used_nanos),
        source=source,
    )


def _usage(record: Record, source: str) -> dict[tuple[object, ...], int]:
    return {
        _window_of(gate): gate.limit_nanos - record.balances[gate.id]
        for gate in record.terms.gates
        if gate.source == source
    }


def _window_of(limit: UsageLimit | Gate) -> tuple[object, ...]:
    """What tells the limits of one source apart."""
    interval = limit.reset.interval if isinstance(limit, Gate) else limit.interval
    return limit.feature_id, interval, limit.in_utc, tuple(sorted(limit.properties.items()))


def _together(parts: Iterable[Any]) -> Any:
    return tuple(entry for part in parts if part is not UNSET for entry in part) or UNSET


def _place(kind: str, position: int) -> str:
    return f"billing_controls.{kind}[{position}]"
