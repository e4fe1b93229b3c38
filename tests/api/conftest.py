"""Fixtures of the API's tests: the tutorial's catalog, applied to a running sidecar through its own API."""

from collections.abc import Iterator

import pytest

from tests.api.client import ApiClient
from tests.sidecar_process import SidecarProcess

TUTORIAL_FEATURES = (
    {"feature_id": "basic_messages", "name": "Basic messages", "type": "metered", "consumable": True},
    {"feature_id": "premium_messages", "name": "Premium messages", "type": "metered", "consumable": True},
    {
        "feature_id": "usd_credits",
        "name": "USD credits",
        "type": "credit_system",
        "credit_schema": [
            {"metered_feature_id": "basic_messages", "credit_cost": 0.01},
            {"metered_feature_id": "premium_messages", "credit_cost": 0.1},
        ],
    },
    {"feature_id": "sso", "name": "Single sign-on", "type": "boolean"},
)
MONTHLY = {"interval": "month"}
TUTORIAL_PLANS = (
    {
        "plan_id": "free",
        "name": "Free",
        "auto_enable": True,
        "items": [{"feature_id": "usd_credits", "included": 5, "reset": MONTHLY}],
    },
    {
        "plan_id": "pro",
        "name": "Pro",
        "price": {"amount": 10, "interval": "month"},
        "items": [
            {"feature_id": "usd_credits", "included": 10, "reset": MONTHLY},
            {"feature_id": "sso"},
        ],
    },
    {
        "plan_id": "top_up",
        "name": "Top up",
        "add_on": True,
        "items": [
            {
                "feature_id": "usd_credits",
                "price": {
                    "amount": 1,
                    "interval": "one_off",
                    "billing_method": "prepaid",
                    "billing_units": 1,
                },
            }
        ],
    },
)


@pytest.fixture(scope="module")
def api(sidecar: SidecarProcess) -> Iterator[ApiClient]:
    """A client of a sidecar that has the tutorial's catalog, and an on/off feature that comes with pro."""
    client = ApiClient(sidecar)
    with client.http:
        for feature in TUTORIAL_FEATURES:
            client.ask("features.create", feature)
        for plan in TUTORIAL_PLANS:
            client.ask("plans.create", plan)
        yield client
