"""What an application of API 2.0 is told while Redis does not answer, through autumn-sdk 0.5.0, which repeats calls."""

import json
import os
from typing import Any

import httpx
from autumn import APIStatusError, Autumn  # type: ignore[import-not-found]

BASIC: dict[str, Any] = {"customer_id": "ann", "feature_id": "basic_messages"}

answers: dict[str, Any] = {}
sent: list[str] = []


def note(request: httpx.Request) -> None:
    sent.append(request.url.path)


with (
    httpx.Client(event_hooks={"request": [note]}) as http,
    Autumn(
        secret_key=os.environ["CREDITGATE_SECRET_KEY"],
        base_url=f"{os.environ['CREDITGATE_URL']}/v1",
        http_client=http,
    ) as client,
):
    answers["check"] = client.check(**BASIC).to_dict(mode="json")
    for name, call, params in (
        ("track", client.track, {**BASIC, "value": 1}),
        ("attach", client.attach, {"customer_id": "ann", "product_id": "top_up"}),
    ):
        try:
            call(**params)
        except APIStatusError as error:
            answers[name] = {"status": error.status_code, "body": error.body}

answers["sent"] = sent
print(json.dumps(answers))
