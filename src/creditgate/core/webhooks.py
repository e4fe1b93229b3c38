"""Webhooks as data: endpoints, the events they ask for, and how a message is signed.

Messages are signed as Standard Webhooks says (https://www.standardwebhooks.com): HMAC-SHA256 over id, time and body.
"""

import base64
import hashlib
import hmac
from enum import StrEnum
from typing import Any

import msgspec

from creditgate.core.amounts import format_amount
from creditgate.core.controls import UsageAlert

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with
SECRET_BYTES = 32


class EventType(StrEnum):
    """What a webhook can be told of."""

    LIMIT_REACHED = "balances.limit_reached"
    USAGE_ALERT_TRIGGERED = "balances.usage_alert_triggered"


class Webhook(msgspec.Struct, frozen=True, omit_defaults=True):
    """One endpoint. Without `events` it is told of everything.

    `uid` is never used again, so that what waits for a webhook that was deleted never goes to another of its id.
    """

    id: str
    uid: str
    url: str
    secret: str
    created_at: int
    updated_at: int
    events: tuple[EventType, ...] = ()
    description: str | None = None
    disabled: bool = False

    @property
    def event_types(self) -> tuple[EventType, ...]:
        """What it is told of."""
        return self.events or tuple(EventType)

    def wants(self, event_type: str) -> bool:
        """Say whether it is to be told of this."""
        return not self.disabled and event_type in self.event_types


def secret_of(key: bytes) -> str:
    """Return a secret as receivers know it, made of random bytes."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`; the time is in seconds."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.digest(key, b"%s.%d.%s" % (message_id.encode(), timestamp, body), hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def limit_reached(customer_id: str, feature_id: str, entity_id: str | None, limit_type: str) -> str:
    """Return the body that says that a balance is used up, or that a limit is reached: for calls of an entity, or of
    the customer.
    """
    data = {
        "customer_id": customer_id,
        "feature_id": feature_id,
        **_named(entity_id),
        "limit_type": limit_type,
    }
    return _body(EventType.LIMIT_REACHED, data)


def usage_alert_triggered(customer_id: str, entity_id: str | None, alert: UsageAlert) -> str:
    """Return the body that says that the threshold of a customer's alert, or an entity's, was crossed."""
    told = {
        "name": alert.name,
        "threshold": msgspec.Raw(format_amount(alert.threshold_nanos).encode()),
        "threshold_type": alert.threshold_type,
    }
    data = {
        "customer_id": customer_id,
        "feature_id": alert.feature_id,
        **_named(entity_id),
        "usage_alert": told,
    }
    return _body(EventType.USAGE_ALERT_TRIGGERED, data)


def _named(entity_id: str | None) -> dict[str, str]:
    return {} if entity_id is None else {"entity_id": entity_id}


def _body(event_type: EventType, data: dict[str, Any]) -> str:
    return msgspec.json.encode({"type": event_type, "data": data}).decode()
