"""The tutorial through autumn-sdk, from plans to the second month; the features are there already."""

import asyncio
from typing import Any

import httpx

from tests.sdk.python.browser import pay
from tests.sdk.python.catalog import create_plans
from tests.sdk.python.script import SECRET_KEY, URL, Answers, autumn

JOHN: dict[str, Any] = {"customer_id": "john"}
BASIC: dict[str, Any] = {**JOHN, "feature_id": "basic_messages"}
PREMIUM: dict[str, Any] = {**JOHN, "feature_id": "premium_messages"}
DAY_MS = 86_400_000


def advance_test_clock(client: Any, customer_id: str, frozen_time: int) -> None:
    """Move the customer forward; by hand with 1.1.0, which cannot say it."""
    if hasattr(client.customers, "advance_test_clock"):
        client.customers.advance_test_clock(customer_id=customer_id, frozen_time=frozen_time)
        return
    httpx.post(
        f"{URL}/v1/customers.advance_test_clock",
        headers={"Authorization": f"Bearer {SECRET_KEY}"},
        json={"customer_id": customer_id, "frozen_time": frozen_time},
    ).raise_for_status()


answers = Answers()
keep = answers.keep

with autumn() as client:
    create_plans(client)
    keep("plans", client.plans.list())

    keep("created", client.customers.get_or_create(**JOHN, name="John Yeo", email="john@example.com"))

    keep("check_5_basic", client.check(**BASIC, required_balance=5))
    keep("check_500_basic", client.check(**BASIC, required_balance=500))
    keep("check_501_basic", client.check(**BASIC, required_balance=501))
    keep("check_again", asyncio.run(client.check_async(**BASIC, required_balance=5)))

    keep("track_2_basic", client.track(**BASIC, value=2))
    keep("track_2_premium", client.track(**PREMIUM, value=2))
    keep("send_5_premium", client.check(**PREMIUM, required_balance=5, send_event=True))
    keep("send_43_premium", client.check(**PREMIUM, required_balance=43, send_event=True))
    keep("events", client.events.list(**JOHN))

    pro = keep("attach_pro", client.billing.attach(**JOHN, plan_id="pro"))
    keep("before_pro_is_paid", client.customers.get(**JOHN))
    pay(pro.payment_url)
    keep("after_pro_is_paid", client.customers.get(**JOHN))

    top_up = keep(
        "attach_top_up",
        client.billing.attach(
            **JOHN, plan_id="top_up", feature_quantities=[{"feature_id": "usd_credits", "quantity": 20}]
        ),
    )
    pay(top_up.payment_url)
    keep("after_top_up_is_paid", client.customers.get(**JOHN))

    keep("track_70_premium", client.track(**PREMIUM, value=70))
    tracked = keep("track_50_premium", client.track(**PREMIUM, value=50))
    keep("check_181_premium", client.check(**PREMIUM, required_balance=181))

    advance_test_clock(client, "john", tracked.balance.next_reset_at + DAY_MS)
    keep("after_a_month", client.customers.get(**JOHN))

answers.tell()
