"""A customer of Autumn's, as `customers.list` writes one, put into our words.

Only what we take is read, and leniently: fields come and go between its versions. What it says and we cannot is put
into words; nothing is left out in silence.
"""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw

from creditgate.api.wire.controls import ControlsRequest
from creditgate.api.wire.fields import read
from creditgate.api.wire.numbers import instant, recurrence
from creditgate.core.amounts import NANOS, AmountOutOfRange, parse_amount
from creditgate.core.arrivals import Arrival, Holding, Lot
from creditgate.core.catalog import ItemPrice, Recurrence
from creditgate.core.controls import NO_CONTROLS, BillingControls
from creditgate.core.customers import Customer, Flag
from creditgate.core.ids import check_caller_id
from creditgate.errors import CreditgateError

_NOTHING = Raw(b"")
_CONTROLS = ("spend_limits", "usage_limits", "overage_allowed", "usage_alerts", "auto_topups")


class _Reset(msgspec.Struct):
    interval: str
    interval_count: float = 1
    resets_at: float | None = None


class _Price(msgspec.Struct):
    billing_method: str = "prepaid"
    amount: Raw = _NOTHING
    billing_units: Raw = _NOTHING
    max_purchase: Raw = _NOTHING


class _Row(msgspec.Struct):
    included_grant: Raw
    prepaid_grant: Raw
    remaining: Raw
    usage: Raw
    id: str | None = None
    plan_id: str | None = None
    unlimited: bool = False
    reset: _Reset | None = None
    price: _Price | None = None
    expires_at: float | None = None
    source: str = "customer"


class _Rollover(msgspec.Struct):
    balance: Raw
    granted: Raw = _NOTHING
    expires_at: float | None = None


class _Balance(msgspec.Struct):
    feature_id: str
    breakdown: list[_Row] = []
    rollovers: list[_Rollover] | None = None


class _Flag(msgspec.Struct):
    id: str
    feature_id: str
    plan_id: str | None = None
    expires_at: float | None = None


class _Subscription(msgspec.Struct):
    id: str
    plan_id: str
    started_at: float
    status: str = "active"
    past_due: bool = False
    canceled_at: float | None = None
    expires_at: float | None = None
    trial_ends_at: float | None = None
    current_period_start: float | None = None
    quantity: float = 1
    scope: str = "customer"


class _Purchase(msgspec.Struct):
    plan_id: str
    started_at: float
    quantity: float = 1
    scope: str = "customer"


class _Control(msgspec.Struct):
    source: str = "customer"
    enabled: bool = True


class _Customer(msgspec.Struct):
    id: str | None
    created_at: float
    name: str | None = None
    email: str | None = None
    fingerprint: str | None = None
    stripe_id: str | None = None
    metadata: dict[str, Any] = {}
    send_email_receipts: bool = False
    billing_controls: dict[str, list[Raw]] = {}
    subscriptions: list[_Subscription] = []
    purchases: list[_Purchase] = []
    licenses: list[Raw] = []
    balances: dict[str, _Balance] = {}
    flags: dict[str, _Flag] = {}


def arrival_of(body: bytes) -> Arrival:
    """Return one customer in our words; one that cannot be read has no id, and its lack says why."""
    try:
        said = msgspec.json.decode(body, type=_Customer)
        if said.id is None:
            return _unreadable("an anonymous customer, without an id")
        check_caller_id(said.id, field="id")
        lacks: list[str] = []
        return Arrival(
            customer=Customer(
                id=said.id,
                created_at=_instant(said.created_at) or 0,
                name=said.name,
                email=said.email,
                fingerprint=said.fingerprint,
                stripe_id=said.stripe_id,
                metadata=said.metadata,
                send_email_receipts=said.send_email_receipts,
                controls=_controls(said.billing_controls, lacks),
            ),
            holdings=tuple(_holdings(said, lacks)),
            lots=tuple(_named(list(_lots(said, lacks)))),
            flags=tuple(
                Flag(flag.id, flag.feature_id, flag.plan_id, expires_at=_instant(flag.expires_at))
                for flag in said.flags.values()
            ),
            lacks=(*lacks, *(("licenses",) if said.licenses else ())),
        )
    except (msgspec.DecodeError, CreditgateError, ValueError) as error:
        return _unreadable(f"a customer that cannot be read: {error}")


def _unreadable(reason: str) -> Arrival:
    return Arrival(Customer("", 0), lacks=(reason,))


def _holdings(said: _Customer, lacks: list[str]) -> Iterator[Holding]:
    for held in said.subscriptions:
        if held.scope != "customer":
            lacks.append(f"plan {held.plan_id} of an entity")
        elif held.status != "active":
            lacks.append(f"plan {held.plan_id}, which is {held.status}")
        else:
            if held.past_due:
                lacks.append(f"that plan {held.plan_id} is past due; it is active here")
            if held.trial_ends_at is not None:
                lacks.append(f"that plan {held.plan_id} is on trial; it is active here")
            yield Holding(
                held.plan_id,
                _instant(held.started_at) or 0,
                id=held.id,
                period_start=_instant(held.current_period_start),
                canceled_at=_instant(held.canceled_at),
                expires_at=_instant(held.expires_at),
                quantity=int(held.quantity),
            )
    for bought in said.purchases:
        if bought.scope != "customer":
            lacks.append(f"plan {bought.plan_id} of an entity")
        else:
            yield Holding(bought.plan_id, _instant(bought.started_at) or 0, quantity=int(bought.quantity))


def _lots(said: _Customer, lacks: list[str]) -> Iterator[Lot]:
    for feature_id, balance in said.balances.items():
        if not balance.breakdown:
            lacks.append(f"a balance of {feature_id} that is not broken down")
        for row in balance.breakdown:
            if row.source != "customer":
                lacks.append(f"a balance of {feature_id} of an entity")
            else:
                yield _lot(row, feature_id, lacks)
        for rolled in balance.rollovers or ():
            expires_at = _instant(rolled.expires_at)
            left = _nanos(rolled.balance)
            yield Lot(
                f"rollover_{feature_id}_{expires_at or 'never'}",
                feature_id,
                included_nanos=max(left, _nanos(rolled.granted, default=left)),
                prepaid_nanos=0,
                left_nanos=left,
                rolled=True,
                expires_at=expires_at,
            )


def _lot(row: _Row, feature_id: str, lacks: list[str]) -> Lot:
    included = _nanos(row.included_grant)
    prepaid = _nanos(row.prepaid_grant)
    remaining = _nanos(row.remaining)
    usage = _nanos(row.usage)
    resets = _recurrence(row.reset) if row.reset else None
    price = None
    if row.price is not None:
        try:
            price = _price(row.price, resets)
        except (CreditgateError, msgspec.ValidationError, ValueError):
            lacks.append(f"the price of a balance of {feature_id}")
    return Lot(
        row.id or f"{row.plan_id or 'balance'}_{feature_id}",
        feature_id,
        included_nanos=0 if row.unlimited else included,
        prepaid_nanos=0 if row.unlimited else prepaid,
        # `remaining` counts from zero up; below it, only what was used tells how far.
        left_nanos=0 if row.unlimited else remaining or min(0, included + prepaid - usage),
        unlimited=row.unlimited,
        plan_id=row.plan_id,
        reset=resets,
        resets_at=_instant(row.reset.resets_at) if row.reset else None,
        expires_at=_instant(row.expires_at),
        price=price,
    )


def _named(lots: list[Lot]) -> Iterator[Lot]:
    """Give a number to those that share a name, so that each is found again."""
    seen: Counter[str] = Counter()
    for lot in lots:
        seen[lot.id] += 1
        number = seen[lot.id]
        yield lot if number == 1 else msgspec.structs.replace(lot, id=f"{lot.id}_{number}")


def _price(price: _Price, resets: Recurrence | None) -> ItemPrice:
    """Raises where the price has no amount of its own, as one with tiers, or is of a kind that we do not know."""
    if price.billing_method not in ("prepaid", "usage_based") or not bytes(price.amount) or resets is None:
        raise ValueError(price.billing_method)
    most = bytes(price.max_purchase) not in (b"", b"null")
    return ItemPrice(
        _nanos(price.amount),
        resets,
        billing_units_nanos=_nanos(price.billing_units, default=NANOS),
        billing_method="prepaid" if price.billing_method == "prepaid" else "usage_based",
        max_purchase_nanos=_nanos(price.max_purchase) if most else None,
    )


def _controls(said: dict[str, list[Raw]], lacks: list[str]) -> BillingControls:
    """Return the customer's own; those of its plans come with the plans here."""
    controls = NO_CONTROLS
    for kind, entries in said.items():
        own = [bytes(entry) for entry in entries if _is_own(bytes(entry), kind)]
        if not own:
            continue
        try:
            body = b'{"%s":[%s]}' % (kind.encode(), b",".join(own))
            controls = read(ControlsRequest, body).controls(controls)
        except CreditgateError as error:
            lacks.append(f"billing_controls.{error.message}")
        if kind not in _CONTROLS:
            lacks.append(f"billing_controls.{kind}")
    return controls


def _is_own(entry: bytes, kind: str) -> bool:
    control = msgspec.json.decode(entry, type=_Control)
    return control.source == "customer" and (control.enabled or kind != "auto_topups")


def _nanos(token: Raw, *, default: int = 0) -> int:
    """Return an amount; what a double leaves of nothing, such as 5.6e-17, is nothing."""
    text = bytes(token)
    if text in (b"", b"null"):
        return default
    try:
        return parse_amount(text, field="amount")
    except AmountOutOfRange:
        if abs(Decimal(text.decode("ascii"))) < 1:
            return 0
        raise


def _recurrence(reset: _Reset) -> Recurrence:
    return recurrence(reset.interval, reset.interval_count, field="reset.interval_count")


def _instant(value: float | None) -> int | None:
    return instant(value, field="instant")
