"""Seats of a customer through autumn-sdk: made, drawn on, limited, listed, deleted; the features are there already."""

from typing import Any

from tests.sdk.python.catalog import MONTHLY, create_plans, create_seats
from tests.sdk.python.script import Answers, autumn

ANN: dict[str, Any] = {"customer_id": "ann"}
ONE, TWO = ANN | {"entity_id": "seat_1"}, ANN | {"entity_id": "seat_2"}
MESSAGES = {"feature_id": "basic_messages"}
LIMIT = {"feature_id": "usd_credits", "limit": 2, "interval": "month", "enabled": True}

answers = Answers()
keep, refused = answers.keep, answers.refused

with autumn() as client:
    create_plans(client)
    create_seats()
    item = {"feature_id": "usd_credits", "included": 3, "reset": MONTHLY}
    client.plans.create(plan_id="seat", name="Seat", group="seat", items=[item])
    client.customers.get_or_create(**ANN)

    keep("made", client.entities.create(**ONE, feature_id="seats", name="Front desk"))
    client.entities.create(**TWO, feature_id="seats")
    refused("made_twice", client.entities.create, **ONE, feature_id="seats")
    client.billing.attach(**ONE, plan_id="seat")

    keep("of_one", client.check(**ONE, **MESSAGES, required_balance=800))
    keep("of_two", client.check(**TWO, **MESSAGES, required_balance=501))
    keep("tracked", client.track(**ONE, **MESSAGES, value=400))
    lock = {"lock_id": "call_1", "enabled": True}
    keep("locked", client.check(**TWO, **MESSAGES, required_balance=100, lock=lock))
    client.balances.finalize(lock_id="call_1", action="confirm", override_value=50)
    refused("track_of_nobody", client.track, **ANN, **MESSAGES, entity_id="nobody")

    keep("limited", client.entities.update(**ONE, billing_controls={"usage_limits": [LIMIT]}))
    keep("within_the_limit", client.check(**ONE, **MESSAGES, required_balance=200))
    keep("beyond_the_limit", client.check(**ONE, **MESSAGES, required_balance=201))

    keep("got", client.entities.get(**ONE))
    keep("first", client.entities.list(**ANN, limit=1))
    keep("found", client.entities.list(**ANN, search="seat_2"))
    keep("customer", client.customers.get(**ANN, expand=["entities"]))
    keep("events", client.events.list(**ONE))

    keep("deleted", client.entities.delete(**ONE))
    refused("got_deleted", client.entities.get, **ONE)
    keep("left", client.entities.list(**ANN))

answers.tell()
