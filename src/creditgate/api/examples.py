"""One request for each verb, in an order in which they work one after the other on the tutorial's catalog.

They stand in the OpenAPI document, and a test sends them. Some need a thing before: a lock, a plan that is paid for, a
feature that entities can be of.
"""

from collections.abc import Mapping
from typing import Any

_ANN = {"customer_id": "user_123"}
_TOP_UP = {"plan_id": "top_up", "feature_quantities": [{"feature_id": "usd_credits", "quantity": 20}]}
_SEAT = {"entity_id": "seat_1"}
_GIFT = {"feature_id": "usd_credits", "balance_id": "gift"}

EXAMPLES: Mapping[str, dict[str, Any] | list[dict[str, Any]]] = {
    "customers.get_or_create": _ANN | {"name": "Ann", "email": "ann@example.com"},
    "customers.update": _ANN | {"metadata": {"seat": "12A"}},
    "customers.list": {"search": "ann", "limit": 10},
    "customers.get": _ANN | {"expand": ["balances.feature"]},
    "balances.check": _ANN | {"feature_id": "basic_messages", "required_balance": 5},
    "balances.track": _ANN | {"feature_id": "basic_messages", "value": 2, "properties": {"model": "small"}},
    "balances.batch": [
        _ANN | {"verb": "check", "feature_id": "premium_messages", "required_balance": 2},
        _ANN | {"verb": "track", "feature_id": "basic_messages", "idempotency_key": "message_8"},
    ],
    "balances.progress": {"lock_id": "call_2", "used": 2},
    "balances.finalize": {"lock_id": "call_1", "action": "confirm", "override_value": 3},
    "balances.create": _ANN | _GIFT | {"included_grant": 2.5, "reset": {"interval": "month"}},
    "balances.update": _ANN | _GIFT | {"remaining": 2},
    "balances.list": _ANN,
    "balances.delete": _ANN | _GIFT,
    "balances.batch_track": [
        _ANN | {"feature_id": "basic_messages", "value": 3, "idempotency_key": "message_7"},
        _ANN | {"feature_id": "premium_messages", "properties": {"model": "large"}},
    ],
    "balances.batch_list": {"limit": 10},
    "entities.create": _ANN | _SEAT | {"feature_id": "seats", "name": "Ann's seat"},
    "entities.update": _ANN
    | _SEAT
    | {"billing_controls": {"spend_limits": [{"feature_id": "usd_credits", "overage_limit": 5}]}},
    "entities.get": _ANN | _SEAT,
    "entities.list": _ANN | {"search": "seat", "limit": 10},
    "entities.delete": _ANN | _SEAT,
    "events.list": _ANN | {"limit": 10},
    "events.aggregate": _ANN
    | {"feature_id": "basic_messages", "range": "7d", "bin_size": "day", "group_by": "properties.model"},
    "customers.statement": _ANN | {"limit": 10},
    "keys.mint": _ANN | {"expires_in": 600},
    "billing.preview_attach": _ANN | _TOP_UP,
    "billing.attach": _ANN | _TOP_UP | {"success_url": "https://app.example/thanks"},
    "billing.multi_attach": _ANN | {"plans": [_TOP_UP], "success_url": "https://app.example/thanks"},
    "billing.update": _ANN | {"plan_id": "pro", "cancel_action": "cancel_end_of_cycle"},
    "features.create": {"feature_id": "images", "name": "Images", "type": "metered", "consumable": True},
    "features.update": {"feature_id": "images", "event_names": ["image.made"]},
    "features.get": {"feature_id": "images"},
    "features.list": {},
    "plans.create": {
        "plan_id": "studio",
        "name": "Studio",
        "price": {"amount": 25, "interval": "month"},
        "items": [{"feature_id": "images", "included": 100, "reset": {"interval": "month"}}],
    },
    "plans.update": {"plan_id": "studio", "description": "For people who draw."},
    "plans.get": {"plan_id": "studio"},
    "plans.list": _ANN,
    "plans.delete": {"plan_id": "studio"},
    "webhooks.create": {"id": "billing", "url": "https://example.com/hooks"},
    "webhooks.get": {"id": "billing"},
    "webhooks.list": {},
    "webhooks.update": {"id": "billing", "events": ["balances.limit_reached"]},
    "webhooks.delete": {"id": "billing"},
    "features.delete": {"feature_id": "images"},
    "customers.advance_test_clock": _ANN | {"frozen_time": 4_102_444_800_000},
    "customers.delete": _ANN,
}
