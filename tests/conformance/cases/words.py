"""The words that the conformance cases are written in: what is asked, and what must be answered.

They are those of the wire; how a call is made is the business of a driver.

An expected answer names the fields that matter: what it does not name may be anything. Numbers are exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

T0 = 1_893_456_000_000
"""2030-01-01T00:00:00Z: where the clock of a case's customers stands, unless the case says otherwise."""
HOUR = 3_600_000
DAY = 24 * HOUR
FEBRUARY, MARCH, APRIL = T0 + 31 * DAY, T0 + 59 * DAY, T0 + 90 * DAY

Body = dict[str, Any]


class Absent:
    """A field that must not be there."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


@dataclass(frozen=True)
class Exactly:
    """An object with these fields and no other."""

    fields: Mapping[str, Any]


@dataclass(frozen=True)
class MonthsAfterCreation:
    """The instant so many months after the customer was created."""

    months: int


@dataclass(frozen=True)
class Ask:
    """One call, and what it must be answered. `customer` tells the customers of one case apart."""

    verb: str
    body: Body
    expected: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    customer: str = ""
    header_key: str | None = None
    raw: bool = False
    """The client would not send it as it is."""
    plan: Body | None = None
    """The plan that has to be there before."""


@dataclass(frozen=True)
class Together:
    """Calls that are made at the same time; so many of them must be let through, or all."""

    asks: tuple[Ask, ...]
    let_through: int | None = None


Step = Ask | Together


@dataclass(frozen=True)
class Case:
    """One public case: its number in the list of cases, the promise, and the steps from a fresh customer.

    `made_with` are fields of `customers.get_or_create`; `plans` are there though nobody attaches them; `pinned`: the
    customers' clock stands at T0; `idempotency`: how the sidecar answers a key that was used.
    """

    number: str
    promise: str
    steps: tuple[Step, ...]
    made_with: Body = field(default_factory=dict)
    plans: tuple[Body, ...] = ()
    pinned: bool = True
    idempotency: Literal["replay", "autumn"] = "replay"


def case(number: str, promise: str, *steps: Step, **more: Any) -> Case:
    return Case(number, promise, steps, **more)


# Plans


def plan(plan_id: str, *items: Body, price: float | None = None, **more: Any) -> Body:
    """A plan; with a price, one that is paid monthly."""
    body: Body = {"plan_id": plan_id, "name": plan_id, "items": list(items), **more}
    if price is not None:
        body["price"] = {"amount": price, "interval": "month"}
    return body


def item(feature: str, included: float | None = None, reset: str | None = None, **more: Any) -> Body:
    body: Body = {"feature_id": feature, **more}
    if included is not None:
        body["included"] = included
    if reset is not None:
        body["reset"] = {"interval": reset}
    return body


def prepaid(interval: str = "month", billing_units: float = 1) -> Body:
    """The price of an item that is bought by quantity."""
    return {
        "amount": 1,
        "interval": interval,
        "billing_units": billing_units,
        "billing_method": "prepaid",
    }


def pay_per_use(max_purchase: float | None = None) -> Body:
    """The price of an item that is used first and paid for later."""
    price: Body = {"amount": 1, "interval": "month", "billing_units": 1, "billing_method": "usage_based"}
    return price if max_purchase is None else {**price, "max_purchase": max_purchase}


def rollover(most: float | None = None, months: int | None = None, **more: Any) -> Body:
    """What survives a reset, for so many months or for good."""
    body: Body = {"expiry_duration_type": "forever" if months is None else "month", **more}
    if most is not None:
        body["max"] = most
    return body if months is None else {**body, "expiry_duration_length": months}


# Calls


def on(attached: Body, options: Body | None = None, *, customer: str = "", **quantities: float) -> Ask:
    """The customer is on this plan from now on, with these totals of what it sells by quantity."""
    body: Body = {"plan_id": attached["plan_id"], **(options or {})}
    if quantities:
        body["feature_quantities"] = [
            {"feature_id": feature, "quantity": quantity} for feature, quantity in quantities.items()
        ]
    return Ask("billing.attach", body, {"payment_url": None}, plan=attached, customer=customer)


def grant(
    feature: str, included: float | None = None, *, status: int = 200, customer: str = "", **more: Any
) -> Ask:
    """The customer is given a balance that belongs to no plan."""
    body: Body = {"feature_id": feature, **more}
    if included is not None:
        body["included_grant"] = included
    return Ask("balances.create", body, {"success": True} if status == 200 else {}, status, customer)


def update(feature: str, *, status: int = 200, **more: Any) -> Ask:
    """The balance is set by hand."""
    return Ask(
        "balances.update", {"feature_id": feature, **more}, {"success": True} if status == 200 else {}, status
    )


def check(
    feature: str, required: float | None, expected: Mapping[str, Any], *, status: int = 200, **more: Any
) -> Ask:
    body: Body = {"feature_id": feature, **more}
    if required is not None:
        body["required_balance"] = required
    return Ask("balances.check", body, expected, status)


def send(feature: str, required: float, expected: Mapping[str, Any], **more: Any) -> Ask:
    """A check that takes what it allows."""
    return check(feature, required, expected, send_event=True, **more)


def lock(
    feature: str,
    required: float,
    expected: Mapping[str, Any] | None = None,
    *,
    lock_id: str = "l",
    **more: Any,
) -> Ask:
    """A check that holds what it allows until it is finalized; `more` are fields of the lock."""
    status = more.pop("status", 200)
    properties = {name: more.pop(name) for name in ("properties", "entity_id") if name in more}
    held = {"enabled": True, "lock_id": lock_id, **more}
    return check(
        feature, required, allowed() if expected is None else expected, status=status, lock=held, **properties
    )


def confirm(value: float | None = None, *, lock_id: str = "l", status: int = 200, **more: Any) -> Ask:
    """A lock is put right: so much was used of it, or as much as was locked."""
    body: Body = {"lock_id": lock_id, "action": "confirm", **more}
    if value is not None:
        body["override_value"] = value
    return Ask("balances.finalize", body, {"success": True} if status == 200 else {}, status)


def release(*, lock_id: str = "l", status: int = 200) -> Ask:
    """A lock is given back."""
    return Ask(
        "balances.finalize",
        {"lock_id": lock_id, "action": "release"},
        {"success": True} if status == 200 else {},
        status,
    )


def controls(expected: Mapping[str, Any] | None = None, **kinds: Any) -> Ask:
    """The customer has these billing controls from now on, each kind for itself."""
    return Ask("customers.update", {"billing_controls": kinds}, expected or {})


def track(
    feature: str,
    value: float | None,
    expected: Mapping[str, Any] | None = None,
    *,
    status: int = 200,
    customer: str = "",
    header_key: str | None = None,
    **more: Any,
) -> Ask:
    body: Body = {"feature_id": feature, **more}
    if value is not None:
        body["value"] = value
    return Ask("balances.track", body, expected or {}, status, customer, header_key)


def read(expected: Mapping[str, Any] | None = None, *, customer: str = "", **balances: Any) -> Ask:
    """`customers.get`: the balances of these features, and what else is expected."""
    whole = dict(expected or {}) | ({"balances": balances} if balances else {})
    return Ask("customers.get", {}, whole, customer=customer)


def clock(instant: int) -> Ask:
    """Time passes until this instant."""
    return Ask("customers.advance_test_clock", {"frozen_time": instant}, {"frozen_time": instant})


def values(*expected: float) -> Ask:
    """The values of all events, the newest first."""
    return events(*({"value": value} for value in expected))


def events(*expected: Mapping[str, Any]) -> Ask:
    """`events.list`, the newest first."""
    return Ask("events.list", {}, {"list": list(expected)})


def together(*asks: Ask, let_through: int | None = None) -> Together:
    return Together(asks, let_through)


def repeated(times: int, ask: Ask) -> Together:
    return Together((ask,) * times)


# Answers


Number = float | Decimal


def left(remaining: Number, usage: Number | None = None, granted: Number | None = None, **more: Any) -> Body:
    """A balance of which so much remains."""
    body: Body = {"remaining": remaining, **more}
    if usage is not None:
        body["usage"] = usage
    return body if granted is None else {**body, "granted": granted}


def balance(
    remaining: Number, usage: Number | None = None, granted: Number | None = None, **more: Any
) -> Body:
    """An answer with such a balance."""
    return {"balance": left(remaining, usage, granted, **more)}


def allowed(required: float | None = None, **more: Any) -> Body:
    return {"allowed": True, **({} if required is None else {"required_balance": required}), **more}


def denied(required: float | None = None, **more: Any) -> Body:
    return {"allowed": False, **({} if required is None else {"required_balance": required}), **more}


def deducted(*parts: tuple[str, float]) -> Body:
    """An answer that says what each row gave, in the unit of its feature."""
    return {"deductions": [{"feature_id": feature, "value": value} for feature, value in parts]}


def refused(code: str) -> Body:
    return {"code": code}


def rolled(*balances: float) -> list[Body]:
    """What is left of each rollover, the first to be used first."""
    return [{"balance": each} for each in balances]
