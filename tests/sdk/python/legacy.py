"""An application of API 2.0, through autumn-sdk 0.5.0, whose base URL ends in /v1; the tutorial's plans are there."""

import json
import os
from typing import Any

from autumn import APIStatusError, Autumn  # type: ignore[import-not-found]

from tests.sdk.python.browser import pay

ANN: dict[str, Any] = {"customer_id": "ann"}
BASIC: dict[str, Any] = {**ANN, "feature_id": "basic_messages"}
PREMIUM: dict[str, Any] = {**ANN, "feature_id": "premium_messages"}

answers: dict[str, Any] = {}


def keep(name: str, answer: Any) -> Any:
    answers[name] = answer.to_dict(mode="json")
    return answer


def refused(name: str, call: Any, **params: Any) -> None:
    try:
        call(**params)
    except APIStatusError as error:
        answers[name] = {"status": error.status_code, "body": error.body}
    else:
        raise AssertionError(f"{name}: the client raised nothing")


with Autumn(
    secret_key=os.environ["CREDITGATE_SECRET_KEY"], base_url=f"{os.environ['CREDITGATE_URL']}/v1"
) as client:
    keep("check", client.check(**PREMIUM, required_balance=5, customer_data={"name": "Ann"}))
    keep("track", client.track(**PREMIUM, value=2))
    keep("send_5_premium", client.check(**PREMIUM, required_balance=5, send_event=True))
    keep("check_44_premium", client.check(**PREMIUM, required_balance=44))
    keep("made_again", client.customers.create(id="ann", name="Anna", email="ann@example.com"))
    keep("expanded", client.customers.get("ann", expand=["balances.feature"]))

    once = keep("attach_pro", client.attach(**ANN, product_id="pro"))
    pay(once.checkout_url)
    options = [{"feature_id": "usd_credits", "quantity": 20}]
    for name in ("attach_top_up", "attach_another"):
        pay(keep(name, client.attach(**ANN, product_id="top_up", options=options)).checkout_url)
    keep("after", client.customers.get("ann"))

    refused("attach_pro_twice", client.attach, **ANN, product_id="pro")
    refused("check_unknown_feature", client.check, customer_id="new", feature_id="images")
    refused("get_unknown_customer", client.customers.get, customer_id="new")
    refused("expand_invoices", client.customers.get, customer_id="ann", expand=["invoices"])

print(json.dumps(answers))
