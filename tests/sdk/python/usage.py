"""Usage sent in one batch, listed page by page and added up, through autumn-sdk; the features are there already."""

import time
from typing import Any

from tests.sdk.python.catalog import create_plans
from tests.sdk.python.script import Answers, autumn

ANN: dict[str, Any] = {"customer_id": "ann"}
ITEMS = [
    {**ANN, "feature_id": "basic_messages", "value": value, "properties": {"model": model}}
    for value, model in [(1, "small"), (2, "large"), (3, "small")]
]
SECONDS_MAX = 30

answers = Answers()
keep = answers.keep

with autumn() as client:
    create_plans(client)
    client.customers.get_or_create(**ANN)

    answers.refused("empty_batch", client.batch_track, request=[])
    answers.refused("bad_batch", client.batch_track, request=[*ITEMS, {**ANN, "value": 9}])
    keep("batch", client.batch_track(request=[*ITEMS, {**ANN, "feature_id": "premium_messages"}]))
    deadline = time.monotonic() + SECONDS_MAX
    while len(client.events.list(**ANN).list) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)

    first = keep("first_page", client.events.list(**ANN, feature_id="basic_messages", limit=2))
    keep(
        "last_page",
        client.events.list(**ANN, feature_id="basic_messages", limit=2, start_cursor=first.next_cursor),
    )
    keep("by_default", client.events.aggregate(**ANN, feature_id="basic_messages"))
    keep(
        "by_model",
        client.events.aggregate(
            **ANN,
            feature_id=["basic_messages", "premium_messages"],
            range="24h",
            bin_size="hour",
            group_by="properties.model",
            aggregate_on="deducted",
        ),
    )
    keep("event", client.track(**ANN, event_name="message.sent", value=2))

answers.tell()
