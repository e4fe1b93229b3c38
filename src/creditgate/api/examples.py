"""One request for each verb, in an order in which they work one after the other on the tutorial's catalog.

They stand in the OpenAPI document, and a test sends them.
"""

from collections.abc import Mapping
from typing import Any

_ANN = {"customer_id": "user_123"}
_GIFT = {"feature_id": "usd_credits", "balance_id": "gift"}

EXAMPLES: Mapping[str, dict[str, Any]] = {
    "customers.get_or_create": _ANN | {"name": "Ann", "email": "ann@example.com"},
    "customers.get": _ANN | {"expand": ["balances.feature"]},
    "balances.check": _ANN | {"feature_id": "basic_messages", "required_balance": 5},
    "balances.track": _ANN | {"feature_id": "basic_messages", "value": 2, "properties": {"model": "small"}},
    "balances.create": _ANN | _GIFT | {"included_grant": 2.5, "reset": {"interval": "month"}},
    "balances.update": _ANN | _GIFT | {"remaining": 2},
    "balances.list": _ANN,
    "balances.delete": _ANN | _GIFT,
    "events.list": _ANN | {"limit": 10},
    "customers.statement": _ANN | {"limit": 10},
    "billing.attach": _ANN
    | {
        "plan_id": "top_up",
        "feature_quantities": [{"feature_id": "usd_credits", "quantity": 20}],
        "success_url": "https://app.example/thanks",
    },
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
}
