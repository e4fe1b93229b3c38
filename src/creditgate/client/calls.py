"""Calls as they are written down: a verb, a body, an idempotency key of its own for what takes something.

Each function here is one method of `Gate`, which says what it promises; every way to ask shares them.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from creditgate.client.answers import Checked, Customer, Progress, Tracked
from creditgate.client.replies import Outcomes, Reply, read_customer, read_nothing, read_progress
from creditgate.client.replies import read_checked as _checked
from creditgate.client.replies import read_outcomes as _outcomes
from creditgate.client.replies import read_tracked as _tracked
from creditgate.errors import InvalidInputs, Undecided

Amount: TypeAlias = int | Decimal
"""Units, exactly: a float is none, since 0.1 would not be 0.1."""

Overage: TypeAlias = Literal["cap", "reject", "overflow"]
Properties: TypeAlias = Mapping[str, Any]

ATTEMPT_S = 1.0  # a sidecar answers within 0.8 s, if only that it cannot decide
BATCH_ATTEMPT_S = 6.0  # its calls begin within 4 s

T = TypeVar("T")


class Ask(NamedTuple, Generic[T]):
    """One call: what is sent, how its answer is read, how long it may take.

    The key of a track stands in its body, as in a batch, so that it is the same call in both; others have a header.
    """

    verb: str
    body: bytes
    read: Callable[[Reply], T]
    idempotency_key: str | None = None
    deadline_s: float | None = None
    attempt_s: float = ATTEMPT_S

    @property
    def header_key(self) -> str | None:
        return None if self.verb == "balances.track" else self.idempotency_key

    def result(self, reply: Reply) -> T:
        """Return what was answered; raises what Gate says."""
        try:
            return self.read(reply)
        except Undecided as error:
            raise self.undecided(error.message) from None

    def undecided(self, message: str) -> Undecided:
        """Return the error that names the key to try again with."""
        error = Undecided(message)
        error.idempotency_key = self.idempotency_key
        return error


class CheckCall(msgspec.Struct, frozen=True, kw_only=True):
    """A check, as an item of a batch."""

    customer_id: str
    feature_id: str
    required_balance: Amount = 1
    properties: Properties | None = None
    send_event: bool = False
    idempotency_key: str | None = None


class TrackCall(msgspec.Struct, frozen=True, kw_only=True):
    """A track, as an item of a batch."""

    customer_id: str
    feature_id: str | None = None
    event_name: str | None = None
    value: Amount = 1
    properties: Properties | None = None
    timestamp: int | None = None
    overage_behavior: Overage = "cap"
    idempotency_key: str | None = None


def check(
    *,
    customer_id: str,
    feature_id: str,
    required_balance: Amount = 1,
    properties: Properties | None = None,
    send_event: bool = False,
    idempotency_key: str | None = None,
    deadline_s: float | None = None,
) -> Ask[Checked]:
    body = _body(
        customer_id=customer_id,
        feature_id=feature_id,
        required_balance=_amount(required_balance, "required_balance"),
        properties=properties,
        send_event=send_event or None,
    )
    key = _key(idempotency_key) if send_event else None
    return Ask("balances.check", body, _checked, key, deadline_s)


def track(
    *,
    customer_id: str,
    feature_id: str | None = None,
    event_name: str | None = None,
    value: Amount = 1,
    properties: Properties | None = None,
    timestamp: int | None = None,
    overage_behavior: Overage = "cap",
    idempotency_key: str | None = None,
    deadline_s: float | None = None,
) -> Ask[Tracked]:
    key = _key(idempotency_key)
    body = _body(
        customer_id=customer_id,
        feature_id=feature_id,
        event_name=event_name,
        value=_amount(value, "value"),
        properties=properties,
        timestamp=timestamp,
        overage_behavior=overage_behavior,
        idempotency_key=key,
    )
    return Ask("balances.track", body, _tracked, key, deadline_s)


def lock(
    *,
    customer_id: str,
    feature_id: str,
    value: Amount = 1,
    lock_id: str | None = None,
    expires_at: int | None = None,
    overage_behavior: Literal["cap", "overflow"] | None = None,
    properties: Properties | None = None,
    idempotency_key: str | None = None,
    deadline_s: float | None = None,
) -> Ask[Checked]:
    held = _said(enabled=True, lock_id=lock_id, expires_at=expires_at, overage_behavior=overage_behavior)
    body = _body(
        customer_id=customer_id,
        feature_id=feature_id,
        required_balance=_amount(value, "value"),
        properties=properties,
        lock=held,
    )
    return Ask("balances.check", body, _checked, _key(idempotency_key), deadline_s)


def finalize(
    *,
    lock_id: str,
    action: Literal["confirm", "release"] = "confirm",
    override_value: Amount | None = None,
    properties: Properties | None = None,
    idempotency_key: str | None = None,
    deadline_s: float | None = None,
) -> Ask[None]:
    final = None if override_value is None else _amount(override_value, "override_value")
    body = _body(lock_id=lock_id, action=action, override_value=final, properties=properties)
    return Ask("balances.finalize", body, read_nothing, _key(idempotency_key), deadline_s)


def progress(*, lock_id: str, used: Amount, deadline_s: float | None = None) -> Ask[Progress]:
    body = _body(lock_id=lock_id, used=_amount(used, "used"))
    return Ask("balances.progress", body, read_progress, deadline_s=deadline_s)


def batch(calls: Sequence[CheckCall | TrackCall], *, deadline_s: float | None = None) -> Ask[Outcomes]:
    items = [_check_item(call) if isinstance(call, CheckCall) else _track_item(call) for call in calls]
    kinds = [_checked if isinstance(call, CheckCall) else _tracked for call in calls]
    keys = [item.get("idempotency_key") for item in items]
    return Ask(
        "balances.batch",
        _encoded(items),
        lambda reply: _outcomes(reply, kinds, keys),
        deadline_s=BATCH_ATTEMPT_S * 2 if deadline_s is None else deadline_s,
        attempt_s=BATCH_ATTEMPT_S,
    )


def get_or_create(
    *,
    customer_id: str,
    name: str | None = None,
    email: str | None = None,
    fingerprint: str | None = None,
    metadata: Properties | None = None,
    time_zone: str | None = None,
    auto_enable_plan_id: str | None = None,
    deadline_s: float | None = None,
) -> Ask[Customer]:
    body = _body(
        customer_id=customer_id,
        name=name,
        email=email,
        fingerprint=fingerprint,
        metadata=metadata,
        time_zone=time_zone,
        auto_enable_plan_id=auto_enable_plan_id,
    )
    return Ask("customers.get_or_create", body, read_customer, deadline_s=deadline_s)


def _check_item(call: CheckCall) -> dict[str, Any]:
    return _said(
        verb="check",
        customer_id=call.customer_id,
        feature_id=call.feature_id,
        required_balance=_amount(call.required_balance, "required_balance"),
        properties=call.properties,
        send_event=call.send_event or None,
        idempotency_key=_key(call.idempotency_key) if call.send_event else None,
    )


def _track_item(call: TrackCall) -> dict[str, Any]:
    return _said(
        verb="track",
        customer_id=call.customer_id,
        feature_id=call.feature_id,
        event_name=call.event_name,
        value=_amount(call.value, "value"),
        properties=call.properties,
        timestamp=call.timestamp,
        overage_behavior=call.overage_behavior,
        idempotency_key=_key(call.idempotency_key),
    )


def _key(text: str | None) -> str:
    """Return the caller's key, or one that was never used: with it, sending a call again has no second effect."""
    if text is None:
        return secrets.token_hex(16)
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise InvalidInputs("idempotency_key: must be printable ASCII, to stand in a header")
    return text


def _amount(value: Amount, field: str) -> Raw:
    """Return the number as JSON, digit by digit."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise InvalidInputs(f"{field}: must be an int or a Decimal, which are exact")
    if isinstance(value, Decimal) and not value.is_finite():
        raise InvalidInputs(f"{field}: must be a finite number")
    return Raw(str(value).encode("ascii"))


def _said(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _body(**fields: Any) -> bytes:
    return _encoded(_said(**fields))


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputs(f"input: cannot be written as JSON: {error}") from None
