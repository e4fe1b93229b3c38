"""Makes calls through autumn-sdk for another process, which writes lists of calls, a line for each list.

The calls of a list are made at the same time, and their answers are one line. What the published client cannot say is
posted as it is.
"""

import inspect
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from autumn_sdk.errors import (  # type: ignore[import-not-found]
    AutumnDefaultError,
    ResponseValidationError,
)

from tests.sdk.python.script import SECRET_KEY, URL, autumn

THREADS = 16
PYTHON_NAMES = {"async": "async_"}


class Agent:
    """One client, used from several threads."""

    def __init__(self, client: Any) -> None:
        self._http = httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {SECRET_KEY}"})
        self._methods: dict[str, Callable[..., Any]] = {
            "balances.check": client.check,
            "balances.finalize": client.balances.finalize,
            "balances.track": client.track,
            "balances.create": client.balances.create,
            "balances.update": client.balances.update,
            "billing.attach": client.billing.attach,
            "customers.advance_test_clock": client.customers.advance_test_clock,
            "customers.get": client.customers.get,
            "customers.get_or_create": client.customers.get_or_create,
            "customers.update": client.customers.update,
            "entities.create": client.entities.create,
            "entities.delete": client.entities.delete,
            "entities.get": client.entities.get,
            "entities.list": client.entities.list,
            "entities.update": client.entities.update,
            "events.list": client.events.list,
            "plans.create": client.plans.create,
            "plans.update": client.plans.update,
        }

    def answer(self, call: dict[str, Any]) -> dict[str, Any]:
        """Make one call, by the client if it can."""
        headers = {"Idempotency-Key": call["header_key"]} if call["header_key"] else {}
        params = {PYTHON_NAMES.get(name, name): value for name, value in call["body"].items()}
        method = self._methods.get(call["verb"])
        if method is None or call["raw"] or not _can_say(method, params):
            answer = self._http.post(f"/v1/{call['verb']}", json=call["body"], headers=headers)
            return {"status": answer.status_code, "body": answer.json(), "by": "http"}
        try:
            said = method(**params, http_headers=headers).model_dump(mode="json", by_alias=True)
        except (
            ResponseValidationError
        ) as error:  # the client cannot read the answer: never what a case expects
            return {"status": 0, "body": {"code": "unreadable", "message": str(error)}, "by": "client"}
        except AutumnDefaultError as error:
            return {"status": error.status_code, "body": json.loads(error.body), "by": "client"}
        return {"status": 200, "body": said, "by": "client"}


def _can_say(method: Callable[..., Any], params: dict[str, Any]) -> bool:
    known = inspect.signature(method).parameters
    items = params.get("items", ())  # it knows no items per entity, and would leave that out
    return (
        params.keys() <= known.keys()
        and params.get("overage_behavior") != "reject"
        and not any("entity_feature_id" in item for item in items)
    )


if __name__ == "__main__":
    with autumn() as client, ThreadPoolExecutor(THREADS) as threads:
        agent = Agent(client)
        for line in sys.stdin:
            calls = json.loads(line)
            answers = map(agent.answer, calls) if len(calls) == 1 else threads.map(agent.answer, calls)
            print(json.dumps(list(answers)), flush=True)
