"""What a gate answers, as values. Amounts are exact `Decimal`s, instants Unix ms; see the HTTP API for each field."""

from decimal import Decimal
from typing import Any

import msgspec


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """When a row starts again."""

    interval: str
    interval_count: int = 1
    resets_at: int | None


class RowPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What the prepaid part of a row cost."""

    amount: Decimal
    billing_units: Decimal
    billing_method: str
    max_purchase: Decimal | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One plan item, purchase or grant that makes up a balance."""

    id: str
    plan_id: str | None
    included_grant: Decimal
    prepaid_grant: Decimal
    remaining: Decimal
    usage: Decimal
    unlimited: bool
    reset: Reset | None
    price: RowPrice | None
    expires_at: int | None
    source: str | None = None


class Rollover(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of what one reset rolled over."""

    granted: Decimal
    balance: Decimal
    expires_at: int


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer has of one feature or credit system."""

    feature_id: str
    granted: Decimal
    remaining: Decimal
    usage: Decimal
    unlimited: bool
    overage_allowed: bool
    max_purchase: Decimal | None
    next_reset_at: int | None
    breakdown: tuple[Row, ...]
    rollovers: tuple[Rollover, ...] = ()


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """An on/off feature that the customer has."""

    id: str
    plan_id: str | None
    expires_at: int | None
    feature_id: str


class Deduction(msgspec.Struct, frozen=True, kw_only=True):
    """What one row gave, in its own unit; negative where it got something back."""

    balance_id: str
    feature_id: str
    plan_id: str | None
    reset: Reset | None
    value: Decimal


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """Units that are taken until they are finalized, or until the lock expires."""

    lock_id: str
    expires_at: int


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a check or a lock. `is_replay`: this is the first answer to a call that was sent again."""

    allowed: bool
    customer_id: str
    required_balance: Decimal
    balance: Balance | None
    balances: dict[str, Balance | None] = {}
    flag: Flag | None
    lock: Lock | None = None
    entity_id: str | None = None
    is_replay: bool = False


class Tracked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a track. `value` is what was asked for, `deductions` what was really taken."""

    customer_id: str
    event_name: str | None = None
    value: Decimal
    balance: Balance | None
    balances: dict[str, Balance | None] = {}
    deductions: tuple[Deduction, ...]
    lock: Lock | None = None
    entity_id: str | None = None
    is_replay: bool = False


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A lock as it is now. If it expires, `used` of it is charged."""

    lock_id: str
    feature_id: str
    value: Decimal
    used: Decimal
    expires_at: int


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that the customer is on."""

    id: str
    plan_id: str
    auto_enable: bool
    add_on: bool
    status: str
    past_due: bool
    canceled_at: int | None
    expires_at: int | None
    trial_ends_at: int | None
    started_at: int
    current_period_start: int | None
    current_period_end: int | None
    quantity: int
    scope: str


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """A one-off plan that the customer bought."""

    plan_id: str
    expires_at: int | None
    started_at: int
    quantity: int
    scope: str


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """A customer with balances and plans, as of now."""

    id: str
    name: str | None
    email: str | None
    created_at: int
    fingerprint: str | None
    stripe_id: str | None
    env: str
    metadata: dict[str, Any]
    send_email_receipts: bool
    subscriptions: tuple[Subscription, ...]
    purchases: tuple[Purchase, ...]
    balances: dict[str, Balance]
    flags: dict[str, Flag]
