"""balances.update, delete and list on a running sidecar."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.client import ApiClient
from tests.sidecar_process import CALL_SECONDS_MAX

CONCURRENT_TRACKS = 100


@pytest.fixture
def customer(api: ApiClient, request: pytest.FixtureRequest) -> str:
    """A customer on the free plan: five credits a month."""
    customer_id: str = request.node.name
    api.ask("customers.get_or_create", {"customer_id": customer_id})
    return customer_id


def credits(api: ApiClient, customer_id: str) -> Any:
    return api.ask("customers.get", {"customer_id": customer_id})["balances"]["usd_credits"]


def update(api: ApiClient, customer_id: str, **more: Any) -> Any:
    return api.ask("balances.update", {"customer_id": customer_id, "feature_id": "usd_credits"} | more)


def grant(api: ApiClient, customer_id: str, **more: Any) -> Any:
    return api.ask("balances.create", {"customer_id": customer_id, "feature_id": "usd_credits"} | more)


def test_set_remaining(api: ApiClient, customer: str) -> None:
    """An exact remainder, with the usage that follows from it."""
    assert update(api, customer, remaining=2.65) == {"success": True}
    found = credits(api, customer)
    assert (found["granted"], found["remaining"], found["usage"]) == (5, 2.65, 2.35)


def test_add_beyond_the_grant(api: ApiClient, customer: str) -> None:
    """Credits that are added are there, also beyond what was granted: the usage is then below zero."""
    update(api, customer, add_to_balance=2)
    found = credits(api, customer)
    assert (found["granted"], found["remaining"], found["usage"]) == (5, 7, -2)


def test_another_grant_in_one_row(api: ApiClient, customer: str) -> None:
    """With an interval only that row moves."""
    grant(api, customer, included_grant=50, balance_id="extra")
    update(api, customer, remaining=3.75, included_grant=7.5, interval="month")
    found = credits(api, customer)
    assert [(row["included_grant"], row["remaining"]) for row in found["breakdown"]] == [
        (7.5, 3.75),
        (50, 50),
    ]


def test_a_repeated_update_with_a_key_is_one(api: ApiClient, customer: str) -> None:
    """A retry of `add_to_balance` adds once."""
    body = {"customer_id": customer, "feature_id": "usd_credits", "add_to_balance": 1}
    answers = [api.call("balances.update", body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert credits(api, customer)["remaining"] == 6


def test_delete_and_list(api: ApiClient, customer: str) -> None:
    """A grant is listed page by page, and gone once it is deleted; a plan's balance is refused."""
    for number in range(3):
        grant(api, customer, included_grant=number + 1, balance_id=f"extra_{number}")
    body = {"customer_id": customer, "limit": 2}
    first = api.ask("balances.list", body)
    second = api.ask("balances.list", body | {"start_cursor": first["next_cursor"]})
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    listed = [row["id"] for row in first["list"] + second["list"]]
    assert listed[1:] == ["extra_0", "extra_1", "extra_2"]
    api.ask("balances.delete", {"customer_id": customer, "balance_id": "extra_1"})
    assert credits(api, customer)["granted"] == 5 + 1 + 3
    again = api.call("balances.delete", {"customer_id": customer, "balance_id": "extra_1"})
    assert (again.status_code, again.json()["code"]) == (404, "balance_not_found")
    of_plan = api.call("balances.delete", {"customer_id": customer, "balance_id": listed[0]})
    assert (of_plan.status_code, of_plan.json()["code"]) == (400, "invalid_request")


def test_an_update_beside_tracks_is_exact(api: ApiClient, customer: str) -> None:
    """Whatever is tracked meanwhile, a set balance less what was tracked after it is what is left: to the nano."""
    grant(api, customer, included_grant=1000)

    async def run() -> None:
        url, headers = api.sidecar.url, api.sidecar.headers
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=CALL_SECONDS_MAX) as http:
            track = {"customer_id": customer, "feature_id": "usd_credits", "value": 0.001}
            add = {"customer_id": customer, "feature_id": "usd_credits", "add_to_balance": 0.5}
            answers = await asyncio.gather(
                *(http.post("/v1/balances.track", json=track) for _ in range(CONCURRENT_TRACKS)),
                *(http.post("/v1/balances.update", json=add) for _ in range(4)),
            )
        assert {answer.status_code for answer in answers} == {200}

    asyncio.run(run())
    assert credits(api, customer)["remaining"] == 1005 + 4 * 0.5 - CONCURRENT_TRACKS * 0.001
