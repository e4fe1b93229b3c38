"""Locks through autumn-sdk: held by a check, ended in every way; the features are there already."""

import time
from typing import Any

from tests.sdk.python.catalog import create_plans
from tests.sdk.python.script import Answers, autumn

ANN: dict[str, Any] = {"customer_id": "ann"}
BASIC: dict[str, Any] = {**ANN, "feature_id": "basic_messages"}
DAY_MS = 86_400_000

answers = Answers()
keep, refused = answers.keep, answers.refused


def hold(client: Any, lock_id: str, units: float, **lock: Any) -> Any:
    return client.check(**BASIC, required_balance=units, lock={"lock_id": lock_id, "enabled": True, **lock})


with autumn() as client:
    create_plans(client)
    client.customers.get_or_create(**ANN)

    expires_at = int(time.time() * 1000) + 600_000
    keep("held", hold(client, "one", 100, expires_at=expires_at))
    refused("held_again", client.check, **BASIC, lock={"lock_id": "one", "enabled": True})
    keep("denied", hold(client, "two", 1000))
    keep("confirmed", client.balances.finalize(lock_id="one", action="confirm", override_value=30))
    refused("confirmed_again", client.balances.finalize, lock_id="one", action="confirm")
    keep("after_confirm", client.customers.get(**ANN))

    hold(client, "two", 200)
    keep("released", client.balances.finalize(lock_id="two", action="release"))
    keep("after_release", client.customers.get(**ANN))

    refused("too_far", hold, client=client, lock_id="far", units=1, expires_at=expires_at + DAY_MS)
    refused("unknown", client.balances.finalize, lock_id="unknown", action="release")
    keep("events", client.events.list(**ANN))

answers.tell()
