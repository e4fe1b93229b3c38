"""Billing controls: how far a customer may go, beyond what was granted. From the customer, or from a plan.

A *usage limit* is kept as a gate: a row of its own that holds what may still be used in this window, and starts again
with the next. Every gate holds, so of several the strictest wins; of spend limits the smallest.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from creditgate.core.amounts import NANOS
from creditgate.core.intervals import Interval, Recurrence
from creditgate.core.periods import boundary, period_at

CONTROLS_MAX = 32  # of one kind; each usage limit is one more number that a track reads
FILTER_KEYS_MAX = 4  # properties that one usage limit asks for


class SpendLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far below zero all rows of a feature may go together. Stands above a row's own `max_purchase`."""

    feature_id: str
    limit_nanos: int
    enabled: bool = True


class OverageAllowed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether rows of a feature may go below zero at all; True also lets rows without a price."""

    feature_id: str
    enabled: bool


class UsageLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much may be used in each window, even if balance remains. `properties` are those that a call must have."""

    feature_id: str
    limit_nanos: int
    interval: Interval
    in_utc: bool = False
    properties: dict[str, str] = {}
    enabled: bool = True


AlertType = Literal["usage", "usage_percentage", "remaining", "remaining_percentage"]


class UsageAlert(msgspec.Struct, frozen=True, omit_defaults=True):
    """When to tell: once what was used reaches, or what remains falls to, the threshold.

    That is in nanos; a percentage, of what was granted, in nanos of a percent.
    """

    feature_id: str
    threshold_nanos: int
    threshold_type: AlertType
    name: str | None = None
    enabled: bool = True

    @property
    def id(self) -> str:
        """A name for it that a script can carry."""
        named = f"{self.feature_id} {self.threshold_type} {self.threshold_nanos} {self.name or ''}"
        return f"alr_{hashlib.blake2b(named.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"

    def word(self, granted_nanos: int) -> str:
        """Return what the scripts compare: a total of the rows' balances, and what it falls to."""
        is_share = self.threshold_type.endswith("_percentage")
        threshold = (
            granted_nanos * self.threshold_nanos // (100 * NANOS) if is_share else self.threshold_nanos
        )
        if self.threshold_type.startswith("remaining"):
            return f"!{self.id}:r:{threshold}"
        if is_share:  # what is used reaches the share exactly when what is left falls to the rest of it
            threshold = -(-granted_nanos * self.threshold_nanos // (100 * NANOS))
        return f"!{self.id}:s:{granted_nanos - threshold}"


class BillingControls(msgspec.Struct, frozen=True, omit_defaults=True):
    """All controls of one customer or plan."""

    spend_limits: tuple[SpendLimit, ...] = ()
    usage_limits: tuple[UsageLimit, ...] = ()
    overage_allowed: tuple[OverageAllowed, ...] = ()
    usage_alerts: tuple[UsageAlert, ...] = ()

    @property
    def feature_ids(self) -> set[str]:
        """Every feature that is named."""
        return (
            {limit.feature_id for limit in self.spend_limits}
            | {limit.feature_id for limit in self.usage_limits}
            | {each.feature_id for each in self.overage_allowed}
            | {alert.feature_id for alert in self.usage_alerts}
        )


NO_CONTROLS = BillingControls()


class Gate(msgspec.Struct, frozen=True, omit_defaults=True):
    """The terms of a usage limit in its window; the balance beside it is what may still be used.

    Window number `period` of the anchor ends at `resets_at`; `since` is when the count last began. `source` is the
    customer, an entity or a subscription. One of an `entity_id` counts only calls for that entity.
    """

    id: str
    feature_id: str
    limit_nanos: int
    reset: Recurrence
    anchor: int
    source: str
    period: int = 0
    since: int = 0
    resets_at: int = 0
    zone: str = "UTC"
    in_utc: bool = False
    properties: dict[str, str] = {}
    entity_id: str | None = None

    @property
    def filter(self) -> str:
        """What the scripts compare with the digests of a call's properties."""
        return ".".join(property_digests(self.properties)) or "-"


GATE_PREFIX = "lim_"
"""What the id of every gate begins with."""

CUSTOMER = "customer"
"""The source of what the customer's own controls say."""


def entity_source(entity_id: str) -> str:
    """Return the source of what an entity's own controls say."""
    return f"entity {entity_id}"


def spend_limits(controls: Iterable[BillingControls]) -> dict[str, int]:
    """Return the spend limit of each feature that has one, the smallest of several."""
    limits: dict[str, int] = {}
    for limit in (limit for each in controls for limit in each.spend_limits if limit.enabled):
        limits[limit.feature_id] = min(limit.limit_nanos, limits.get(limit.feature_id, limit.limit_nanos))
    return limits


def overages(controls: Iterable[BillingControls]) -> dict[str, bool]:
    """Return whether each feature that is named may go below zero: no, as soon as one says so."""
    allowed: dict[str, bool] = {}
    for said in (said for each in controls for said in each.overage_allowed):
        allowed[said.feature_id] = said.enabled and allowed.get(said.feature_id, True)
    return allowed


def usage_alerts(controls: Iterable[BillingControls]) -> tuple[UsageAlert, ...]:
    """Return every alert that is on, each once."""
    found = {alert.id: alert for each in controls for alert in each.usage_alerts if alert.enabled}
    return tuple(found.values())


def gates(
    controls: Mapping[str, BillingControls],
    old: Iterable[Gate],
    *,
    anchor: int,
    zone: str,
    now: int,
    entity_id: str | None = None,
) -> tuple[Gate, ...]:
    """Return the gates of these controls by their source, each in the window that holds `now`; of twins the smaller.

    `anchor` and `zone` are those of the customer's billing cycle, for the windows that hang on it. Where the cycle
    has become another one, the window ends with that; but what was used counts until a window has ended, so that no
    change of plans gives a fresh limit. `entity_id` is the entity that the controls are for, None: the customer.
    """
    known = {gate.id: gate for gate in old}
    found: dict[str, Gate] = {}
    for source, each in controls.items():
        for limit in each.usage_limits:
            gate = msgspec.structs.replace(_gate(limit, source, anchor, zone), entity_id=entity_id)
            twin = found.get(gate.id)
            if limit.enabled and (twin is None or gate.limit_nanos < twin.limit_nanos):
                found[gate.id] = _in_window(gate, known.get(gate.id), now)
    return tuple(found.values())


def _in_window(gate: Gate, before: Gate | None, now: int) -> Gate:
    if before is None:
        return _window(gate, period_at(gate.anchor, gate.reset, now, gate.zone), since=now)
    is_moved = before.anchor != gate.anchor
    if before.resets_at > now and not is_moved:  # another time zone moves only the windows that follow
        return msgspec.structs.replace(before, limit_nanos=gate.limit_nanos, zone=gate.zone)
    period = period_at(gate.anchor, gate.reset, now, gate.zone)
    if before.resets_at > now:
        return _window(gate, period, since=before.since)
    if not is_moved:
        period = max(before.period + 1, period)
    return _window(
        gate, period, since=max(before.resets_at, boundary(gate.anchor, gate.reset, period, gate.zone))
    )


def _window(gate: Gate, period: int, *, since: int) -> Gate:
    resets_at = boundary(gate.anchor, gate.reset, period + 1, gate.zone)
    return msgspec.structs.replace(gate, period=period, since=since, resets_at=resets_at)


def property_text(value: str | float | bool) -> str:
    """Return a property as a filter compares it: 10, 10.0 and 1e1 are one number, and "10" is the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def property_digests(properties: Mapping[str, Any]) -> list[str]:
    """Return a short digest of each property that a filter could ask for: text, a number, true or false."""
    digests = []
    for name, value in sorted(properties.items()):
        if isinstance(value, str | int | float):
            whole = f"{len(name)}:{name}={property_text(value)}"
            digests.append(hashlib.blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest())
    return digests


# Windows in UTC begin with the calendar's: Monday 2024-01-01 is the first day of a week, a month and a year.
_UTC_ANCHOR = 1_704_067_200_000


def _gate(limit: UsageLimit, source: str, anchor: int, zone: str) -> Gate:
    reset = Recurrence(limit.interval)
    named = f"{source} {limit.feature_id} {limit.interval} {limit.in_utc} {sorted(limit.properties.items())}"
    digest = hashlib.blake2b(named.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    return Gate(
        id=f"{GATE_PREFIX}{digest}",
        feature_id=limit.feature_id,
        limit_nanos=limit.limit_nanos,
        reset=reset,
        anchor=_UTC_ANCHOR if limit.in_utc else anchor,
        source=source,
        zone="UTC" if limit.in_utc else zone,
        in_utc=limit.in_utc,
        properties=limit.properties,
    )
