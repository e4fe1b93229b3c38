"""The tutorial's features and plans, created through autumn-sdk.

Run as a program, it creates the features: with 1.1.0, since `client.features` of the published 1.2.0 raises NameError.
"""

from typing import Any

import httpx

from tests.sdk.python.script import SECRET_KEY, URL, Answers, autumn

MONTHLY = {"interval": "month"}


def create_features(client: Any) -> None:
    for name in ("Basic Messages", "Premium Messages"):
        client.features.create(
            feature_id=name.lower().replace(" ", "_"),
            name=name,
            type_="metered",
            consumable=True,
            event_names=["message.sent"],
        )
    client.features.create(
        feature_id="usd_credits",
        name="USD Credits",
        type_="credit_system",
        credit_schema=[
            {"metered_feature_id": "basic_messages", "credit_cost": 0.01},
            {"metered_feature_id": "premium_messages", "credit_cost": 0.1},
        ],
    )


def create_seats() -> None:
    """Seats, that entities can be of: by hand, for the client that cannot."""
    body = {"feature_id": "seats", "name": "Seats", "type": "metered", "consumable": False}
    headers = {"Authorization": f"Bearer {SECRET_KEY}"}
    httpx.post(f"{URL}/v1/features.create", json=body, headers=headers).raise_for_status()


def create_plans(client: Any) -> None:
    client.plans.create(
        plan_id="free",
        name="Free",
        auto_enable=True,
        items=[{"feature_id": "usd_credits", "included": 5, "reset": MONTHLY}],
    )
    client.plans.create(
        plan_id="pro",
        name="Pro",
        price={"amount": 10, "interval": "month"},
        items=[{"feature_id": "usd_credits", "included": 10, "reset": MONTHLY}],
    )
    client.plans.create(
        plan_id="top_up",
        name="Top Up",
        add_on=True,
        items=[
            {
                "feature_id": "usd_credits",
                "price": {
                    "amount": 1,
                    "interval": "one_off",
                    "billing_units": 1,
                    "billing_method": "prepaid",
                },
            }
        ],
    )


if __name__ == "__main__":
    answers = Answers()
    with autumn() as client:
        create_features(client)
        answers.keep("features", client.features.list())
    answers.tell()
