"""A customer as data: the document (profile, subscriptions, purchases, checkouts) and the terms of its rows.

A *row* is one balance. Its terms never change while it lives, but for the period it is in; its amount lives beside them
in the record and changes with every track.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

import msgspec

from creditgate.core.catalog import ItemPrice, Recurrence, Rollover
from creditgate.core.controls import (
    CUSTOMER,
    NO_CONTROLS,
    BillingControls,
    Gate,
    UsageAlert,
    entity_source,
)
from creditgate.core.entities import Entity
from creditgate.core.holds import Hold
from creditgate.core.own import METADATA_BYTES_MAX
from creditgate.errors import InvalidInputs, NotFound

DERIVED_MAX = 64  # kept with the terms of one customer


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """The terms of one balance. Instants in Unix ms, amounts in nanos.

    The row is in period number `period` of its anchor, which ends at `resets_at`.
    `plan_id` is None for a grant that stands alone. `owner_id` is the subscription or purchase that gave the row.
    What rolled over from a row is a row of its own, `rolled_from` that one; `included_nanos` is then what rolled over.
    `adjustment_nanos` is what the grant was raised by in this period. `period_offset` keeps the number of the period
    that scripts see from ever coming again, where the row was given another anchor.
    `imported`: another system decides about it, see `take_over.py`.
    `entity_id` is the entity that the row belongs to; a *slot* is its part of a plan of the customer.
    """

    id: str
    feature_id: str
    created_at: int
    included_nanos: int = 0
    prepaid_nanos: int = 0
    adjustment_nanos: int = 0
    plan_id: str | None = None
    owner_id: str | None = None
    reset: Recurrence | None = None
    anchor: int | None = None
    period: int = 0
    resets_at: int | None = None
    expires_at: int | None = None
    price: ItemPrice | None = None
    add_on: bool = False
    may_go_negative: bool = False
    unlimited: bool = False
    rollover: Rollover | None = None
    rolled_from: str | None = None
    external_id: str | None = None
    zone: str = "UTC"
    period_offset: int = 0
    imported: bool = False
    entity_id: str | None = None
    is_slot: bool = False

    @property
    def public_id(self) -> str:
        """The name the caller knows the balance by: the `balance_id` it gave, else ours."""
        return self.external_id or self.id

    @property
    def granted_nanos(self) -> int:
        """What the customer was given in this period, and the most that a refund fills the row to."""
        return self.included_nanos + self.adjustment_nanos + self.prepaid_nanos

    @property
    def start_nanos(self) -> int:
        """What the row starts with, and what a reset restores."""
        return self.included_nanos + self.prepaid_nanos

    def gives_to(self, entity_id: str | None) -> bool:
        """Say whether calls for this entity draw on the row; None: calls for the customer."""
        if self.entity_id is None:
            return True
        return self.is_slot if entity_id is None else self.entity_id == entity_id

    def has_expired_by(self, now: int) -> bool:
        """Say whether its time is over at this instant."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def max_purchase_nanos(self) -> int | None:
        """How far below zero the row may be used and paid for later; None without a bound."""
        return self.price.max_purchase_nanos if self.price else None

    @property
    def is_bought_for_good(self) -> bool:
        """Credits that were paid for once: they outlive the plan they were bought with."""
        return bool(self.prepaid_nanos and self.price and not self.price.recurrence.repeats)

    @property
    def is_held(self) -> bool:
        """Seats and the like: not used up but taken and given back, so what is in use survives a change of plans."""
        return self.reset is None and not self.unlimited and self.rolled_from is None


class Flag(msgspec.Struct, frozen=True, omit_defaults=True):
    """An on/off feature that the customer has."""

    id: str
    feature_id: str
    plan_id: str | None = None
    owner_id: str | None = None
    expires_at: int | None = None
    imported: bool = False
    entity_id: str | None = None


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an entity's own controls say; `overages` say it with those of the customer."""

    alerts: tuple[UsageAlert, ...] = ()
    spend_limits: dict[str, int] = {}
    overages: dict[str, bool] = {}


class Terms(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """All rows in burn order, all flags, and the limits that hold, by feature (see `controls.py`).

    `entities` are the limits of those that have any of their own; the customer's hold for them, too. Terms change
    seldom and are decoded once for many calls, so what follows from them alone is worked out once.
    """

    rows: tuple[Row, ...] = ()
    flags: tuple[Flag, ...] = ()
    gates: tuple[Gate, ...] = ()
    alerts: tuple[UsageAlert, ...] = ()
    spend_limits: dict[str, int] = {}
    overages: dict[str, bool] = {}
    entities: dict[str, Limits] = {}

    @property
    def held_ids(self) -> set[str]:
        """The ids of everything that has a balance: rows and gates."""
        return {row.id for row in self.rows} | {gate.id for gate in self.gates}

    @cached_property
    def by_id(self) -> dict[str, Row]:
        return {row.id: row for row in self.rows}

    @cached_property
    def derived(self) -> dict[tuple[object, ...], Any]:
        """What was worked out from these terms, under keys that begin with the function that did so."""
        return {}

    def derive(self, key: tuple[object, ...], value: Any) -> None:
        """Keep what follows from these terms. There are as many keys as entities and features that are asked for."""
        if len(self.derived) >= DERIVED_MAX:
            self.derived.clear()
        self.derived[key] = value

    def rows_of(self, feature_id: str, entity_id: str | None = None) -> tuple[Row, ...]:
        """Return the rows of a feature that calls for an entity, or for the customer, draw on: the first to give first.

        That unlimited rows and rollovers go before all others is how the scripts rank what they find here.
        """
        key = (Terms.rows_of, feature_id, entity_id)
        rows: tuple[Row, ...] | None = self.derived.get(key)
        if rows is None:
            rows = self._rows_of(feature_id, entity_id)
            self.derive(key, rows)
        return rows

    def _rows_of(self, feature_id: str, entity_id: str | None) -> tuple[Row, ...]:
        found = [
            row
            for row in self.rows
            if row.feature_id == feature_id and (row.entity_id is None or row.gives_to(entity_id))
        ]
        if any(row.entity_id is not None for row in found):
            found.sort(key=lambda row: (row.entity_id is None) != (entity_id is None))
        return tuple(found)

    def flag(self, feature_id: str, entity_id: str | None = None) -> Flag | None:
        """Return the on/off feature as an entity has it, or the customer; None without it."""
        if not self.flags:
            return None
        found = (flag for flag in self.flags if flag.feature_id == feature_id)
        return next((flag for flag in found if flag.entity_id in (None, entity_id)), None)

    def overage(self, feature_id: str, entity_id: str | None = None) -> bool | None:
        """Say whether controls let rows of the feature go below zero in such calls; None: they do not name it."""
        limits = self.entities.get(entity_id) if entity_id is not None else None
        allowed = self.overages.get(feature_id)
        return limits.overages.get(feature_id, allowed) if limits else allowed

    def may_go_below(self, row: Row, entity_id: str | None = None) -> bool:
        """Say whether a row may go below zero, by its price, by its kind, or because the controls say so."""
        if row.unlimited or row.rolled_from is not None:
            return False
        allowed = self.overage(row.feature_id, entity_id)
        return row.may_go_negative if allowed is None else allowed


class Subscription(msgspec.Struct, frozen=True, omit_defaults=True):
    """A plan that the customer is on. Its billing periods are `recurrence` from `anchor`; None for a free plan.

    One that was cancelled at `canceled_at` goes on until `expires_at`.
    """

    id: str
    plan_id: str
    plan_version: int
    started_at: int
    anchor: int
    group: str = ""
    add_on: bool = False
    auto_enable: bool = False
    recurrence: Recurrence | None = None
    quantity: int = 1
    canceled_at: int | None = None
    expires_at: int | None = None
    trial_ends_at: int | None = None
    controls: BillingControls | None = None
    imported: bool = False
    entity_id: str | None = None

    def has_ended_by(self, now: int) -> bool:
        """Say whether it is over at this instant."""
        return self.expires_at is not None and self.expires_at <= now


class Scheduled(msgspec.Struct, frozen=True, omit_defaults=True):
    """A plan that starts by itself at `starts_at`, in place of the one of its group."""

    id: str
    plan_id: str
    plan_version: int
    created_at: int
    starts_at: int
    group: str = ""
    add_on: bool = False
    quantities: dict[str, int] = {}
    entity_id: str | None = None


class Purchase(msgspec.Struct, frozen=True, omit_defaults=True):
    """A one-off plan that the customer bought."""

    id: str
    plan_id: str
    plan_version: int
    started_at: int
    quantity: int = 1
    imported: bool = False
    entity_id: str | None = None


class AttachOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a plan is attached. Of what is carried over: None is nothing, () every feature, else those that are named.

    With an `entity_id` it is attached to that entity, and replaces only plans of it.
    Without a `schedule` a cheaper plan starts at the end of the cycle, any other at once. `anchor_now`: the plan's
    periods begin with it, though it replaces one whose periods are as long.
    """

    schedule: Literal["immediate", "end_of_cycle"] | None = None
    starts_at: int | None = None
    ends_at: int | None = None
    carry_usages: tuple[str, ...] | None = None
    carry_balances: tuple[str, ...] | None = None
    no_trial: bool = False
    anchor_now: bool = False
    entity_id: str | None = None


AS_USUAL = AttachOptions()


class Offered(msgspec.Struct, frozen=True, omit_defaults=True):
    """A plan of a checkout at its version then, how much of what it sells, and what of it is paid now."""

    plan_id: str
    plan_version: int
    total_nanos: int
    quantities: dict[str, int] = {}


class Checkout(msgspec.Struct, frozen=True, omit_defaults=True):
    """Plans offered for payment together.

    `key` is the digest of the caller's idempotency key, so that a repeated call finds the checkout again.
    """

    id: str
    plans: tuple[Offered, ...]
    created_at: int
    success_url: str | None = None
    options: AttachOptions | None = None
    paid_at: int | None = None
    key: str | None = None

    @property
    def total_nanos(self) -> int:
        return sum(offered.total_nanos for offered in self.plans)


class Customer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The customer's document. `trials` are the plans whose trial was used."""

    id: str
    created_at: int
    name: str | None = None
    email: str | None = None
    fingerprint: str | None = None
    stripe_id: str | None = None
    send_email_receipts: bool = False
    metadata: dict[str, Any] = {}
    subscriptions: tuple[Subscription, ...] = ()
    scheduled: tuple[Scheduled, ...] = ()
    purchases: tuple[Purchase, ...] = ()
    trials: tuple[str, ...] = ()
    checkouts: tuple[Checkout, ...] = ()
    controls: BillingControls = NO_CONTROLS
    time_zone: str = "UTC"
    entities: tuple[Entity, ...] = ()

    def entity(self, entity_id: str) -> Entity:
        """Return the entity; NotFound `entity_not_found`."""
        found = next((entity for entity in self.entities if entity.id == entity_id), None)
        if found is None:
            raise NotFound(f"Entity {entity_id} not found", code="entity_not_found")
        return found

    def plans_of(self, entity_id: str | None) -> tuple[Subscription, ...]:
        """Return the plans that are attached to an entity; None: to the customer."""
        return tuple(held for held in self.subscriptions if held.entity_id == entity_id)

    @property
    def controls_by_source(self) -> dict[str, BillingControls]:
        """All controls that hold for this customer: its own, and those of its plans."""
        return {CUSTOMER: self.controls, **_of_plans(self.plans_of(None))}

    def controls_of(self, entity: Entity) -> dict[str, BillingControls]:
        """What an entity's calls are held to beside the customer's controls: its own, and those of its plans."""
        return {entity_source(entity.id): entity.controls, **_of_plans(self.plans_of(entity.id))}

    @property
    def cycle_anchor(self) -> int:
        """What the billing cycle hangs on: the paid plan before free ones, plans before add-ons, the oldest first."""
        ranked = sorted(
            self.plans_of(None), key=lambda held: (held.add_on, held.recurrence is None, held.started_at)
        )
        return ranked[0].anchor if ranked else self.created_at


def _of_plans(plans: Iterable[Subscription]) -> dict[str, BillingControls]:
    return {held.id: held.controls for held in plans if held.controls is not None}


class CustomerChanges(msgspec.Struct, frozen=True):
    """What is to be different of a customer: fields of the document, of its metadata and of its controls.

    A name in `metadata` whose value is null is taken out.
    """

    fields: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    controls: dict[str, Any] = {}

    def applied_to(self, customer: Customer) -> Customer:
        """Return the customer's next document; InvalidInputs for too much metadata."""
        merged = {
            name: value
            for name, value in (customer.metadata | self.metadata).items()
            if value is not None or name not in self.metadata
        }
        if self.metadata and len(msgspec.json.encode(merged)) > METADATA_BYTES_MAX:
            raise InvalidInputs(
                f"metadata: must have at most {METADATA_BYTES_MAX} bytes, with what is there already"
            )
        controls = msgspec.structs.replace(customer.controls, **self.controls)
        return msgspec.structs.replace(customer, metadata=merged, controls=controls, **self.fields)


class Record(msgspec.Struct, frozen=True):
    """One whole read of a customer at one instant; `now` is Redis's time or the pinned clock.

    `balances` are the raw amounts of all rows and gates.
    """

    now: int
    sequence: int
    shape: int
    uid: str
    clock: int | None
    is_due: bool
    customer: Customer
    terms: Terms
    balances: dict[str, int]
    holds: dict[str, Hold] = {}
