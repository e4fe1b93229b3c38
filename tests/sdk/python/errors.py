"""Calls that the sidecar refuses, and a call that is made twice, through autumn-sdk; the features are there already."""

from typing import Any

import httpx

from tests.sdk.python.browser import pay
from tests.sdk.python.catalog import create_plans
from tests.sdk.python.script import Answers, autumn

ANN: dict[str, Any] = {"customer_id": "ann"}
BASIC: dict[str, Any] = {**ANN, "feature_id": "basic_messages"}
ONE_KEY: dict[str, Any] = {"http_headers": {"Idempotency-Key": "message-1"}}

answers = Answers()
refused = answers.refused

with autumn() as client:
    create_plans(client)
    refused("check_unknown_customer", client.check, **BASIC)
    refused("track_unknown_customer", client.track, **BASIC)
    refused("get_unknown_customer", client.customers.get, **ANN)

    client.customers.get_or_create(**ANN)
    refused("check_unknown_feature", client.check, **ANN, feature_id="images")
    refused("track_unknown_feature", client.track, **ANN, feature_id="images")
    refused("check_no_customer_id", client.check, customer_id="", feature_id="basic_messages")
    refused("track_too_much", client.track, **BASIC, value=1e13)
    refused("attach_unknown_plan", client.billing.attach, **ANN, plan_id="gold")
    refused("create_plan_twice", client.plans.create, plan_id="pro", name="Pro")

    pay(client.billing.attach(**ANN, plan_id="pro").payment_url)
    refused("attach_pro_twice", client.billing.attach, **ANN, plan_id="pro")

with autumn(secret_key="cg_sk_test_of_another_sidecar") as stranger:
    refused("check_wrong_key", stranger.check, **BASIC)

received: list[httpx.Response] = []
with httpx.Client(event_hooks={"response": [received.append]}) as http, autumn(client=http) as client:
    answers.keep("track_once", client.track(**BASIC, value=2, **ONE_KEY))
    answers.keep("track_again", client.track(**BASIC, value=2, **ONE_KEY))
    refused("track_other_with_key", client.track, **BASIC, value=3, **ONE_KEY)
    answers.note("replayed", [answer.headers.get("Idempotent-Replayed") for answer in received])
    answers.keep("events", client.events.list(**ANN))

answers.tell()
