"""Locks on a running sidecar, as an application uses them: held by check or track, ended by finalize."""

import time
from typing import Any

import pytest

from tests.api.client import ApiClient

HOUR_MS = 3_600_000


@pytest.fixture
def customer(api: ApiClient, request: pytest.FixtureRequest) -> str:
    """A customer on the free plan, with 5 credits, for each test."""
    customer_id: str = request.node.name
    api.ask("customers.get_or_create", {"customer_id": customer_id})
    return customer_id


def credits(api: ApiClient, customer_id: str) -> Any:
    return api.ask("customers.get", {"customer_id": customer_id})["balances"]["usd_credits"]["remaining"]


def hold(api: ApiClient, customer_id: str, value: float, *, verb: str = "check", **lock: Any) -> Any:
    """Lock so many basic messages, 0.01 credits each; the lock is called as the customer."""
    amount = "required_balance" if verb == "check" else "value"
    body = {"customer_id": customer_id, "feature_id": "basic_messages", amount: value}
    return api.ask(f"balances.{verb}", body | {"lock": {"lock_id": customer_id, "enabled": True} | lock})


def events(api: ApiClient, customer_id: str) -> Any:
    return api.ask("events.list", {"customer_id": customer_id})["list"]


def test_the_life_of_a_lock(api: ApiClient, customer: str) -> None:
    """A lock takes at once, and is confirmed at what was used; both are events, and a statement tells them."""
    answer = hold(api, customer, 100)
    assert (answer["allowed"], answer["required_balance"], answer["balance"]["remaining"]) == (True, 1, 4)
    assert answer["balances"]["usd_credits"]["remaining"] == 4
    assert answer["lock"]["lock_id"] == customer
    assert abs(answer["lock"]["expires_at"] - time.time() * 1000 - HOUR_MS) < 60_000
    ended = api.ask("balances.finalize", {"lock_id": customer, "action": "confirm", "override_value": 30.0})
    assert ended == {"success": True}
    assert credits(api, customer) == 4.7
    found = events(api, customer)
    assert [(event["value"], event["deductions"][0]["value"]) for event in found] == [(-70, -0.7), (100, 1)]
    lines = api.ask("customers.statement", {"customer_id": customer})["list"]
    assert [(line["description"], line["change"]) for line in lines[1:]] == [
        ("held 100 basic_messages", -1),
        ("released 70 basic_messages", 0.7),
    ]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({"action": "confirm"}, 4),
        ({"action": "confirm", "override_value": 0}, 5),
        ({"action": "confirm", "override_value": 250.5}, 2.495),
        ({"action": "confirm", "override_value": 100000}, 0),
        ({"action": "release"}, 5),
    ],
)
def test_how_it_may_end(api: ApiClient, customer: str, body: dict[str, Any], left: float) -> None:
    """Confirm keeps or changes what was locked, up to what the customer has; release gives all of it back."""
    hold(api, customer, 100)
    api.ask("balances.finalize", {"lock_id": customer} | body)
    assert credits(api, customer) == left
    again = api.call("balances.finalize", {"lock_id": customer} | body)
    assert (again.status_code, again.json()["code"]) == (400, "invalid_request")
    assert again.json()["message"] == f"Lock not found for ID: {customer}"


def test_a_lock_that_is_denied(api: ApiClient, customer: str) -> None:
    """More than there is: 200 and not allowed, nothing taken, no event, no lock."""
    answer = hold(api, customer, 501)
    assert (answer["allowed"], answer["required_balance"]) == (False, 5.01)
    assert "lock" not in answer
    assert "balances" not in answer
    assert events(api, customer) == []
    assert api.call("balances.finalize", {"lock_id": customer, "action": "release"}).status_code == 400


@pytest.mark.parametrize(("overage", "left", "final_left"), [("cap", 0, 0), ("overflow", -0.01, -1)])
def test_a_lock_that_may_go_beyond(
    api: ApiClient, customer: str, overage: str, left: float, final_left: float
) -> None:
    """A lock may take what is there, or go below zero, and is confirmed by the same rule."""
    answer = hold(api, customer, 501, overage_behavior=overage)
    assert answer["allowed"]
    assert answer["balance"]["usage"] == 5 - left
    api.ask("balances.finalize", {"lock_id": customer, "action": "confirm", "override_value": 600})
    found = api.ask("customers.get", {"customer_id": customer})["balances"]["usd_credits"]
    assert found["usage"] == 5 - final_left


def test_track_locks_too(api: ApiClient, customer: str) -> None:
    """A track with a lock is answered as a track, and takes what is there, as a track does."""
    answer = hold(api, customer, 600, verb="track")
    assert (answer["value"], answer["balance"]["remaining"]) == (600, 0)
    assert [part["value"] for part in answer["deductions"]] == [5]
    assert answer["lock"]["lock_id"] == customer
    api.ask("balances.finalize", {"lock_id": customer, "action": "confirm", "override_value": 20})
    assert credits(api, customer) == 4.8


def test_a_lock_that_is_not_enabled(api: ApiClient, customer: str) -> None:
    """A lock that is switched off is none: a check only asks, a track is for good."""
    assert "lock" not in hold(api, customer, 100, enabled=False)
    assert credits(api, customer) == 5
    assert "lock" not in hold(api, customer, 100, verb="track", enabled=False)
    assert credits(api, customer) == 4


def test_an_id_of_ours(api: ApiClient, customer: str) -> None:
    """Without a lock_id one is made and told."""
    body = {"customer_id": customer, "feature_id": "basic_messages", "required_balance": 100, "lock": {}}
    lock_id = api.ask("balances.check", body)["lock"]["lock_id"]
    api.ask("balances.finalize", {"lock_id": lock_id, "action": "release"})
    assert credits(api, customer) == 5


def test_an_id_that_is_taken(api: ApiClient, customer: str) -> None:
    """409 in Autumn's words, for whoever's lock it is; nothing is taken."""
    hold(api, customer, 100)
    api.ask("customers.get_or_create", {"customer_id": f"{customer} two"})
    for customer_id in (customer, f"{customer} two"):
        body = {"customer_id": customer_id, "feature_id": "basic_messages", "lock": {"lock_id": customer}}
        answer = api.call("balances.check", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "lock_already_exists")
        assert answer.json()["message"] == "A lock with this ID already exists"
    assert (credits(api, customer), credits(api, f"{customer} two")) == (4, 5)


def test_seats_cannot_be_locked(api: ApiClient, customer: str) -> None:
    """What is not used up is not locked."""
    seats = {"feature_id": "seats", "name": "Seats", "type": "metered", "consumable": False}
    api.ask("features.create", seats)
    for verb in ("balances.check", "balances.track"):
        answer = api.call(verb, {"customer_id": customer, "feature_id": "seats", "lock": {"lock_id": "s"}})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_repeated_calls(api: ApiClient, customer: str) -> None:
    """With an Idempotency-Key, locking and finalizing again is answered as the first time, and done once."""
    body = {"customer_id": customer, "feature_id": "basic_messages", "required_balance": 100, "lock": {}}
    key = {"Idempotency-Key": customer}
    first, again = (api.call("balances.check", body, headers=key) for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    end = {"lock_id": first.json()["lock"]["lock_id"], "action": "confirm", "override_value": 30}
    ends = [api.call("balances.finalize", end, headers=key) for _ in range(2)]
    assert [answer.json() for answer in ends] == [{"success": True}] * 2
    assert "Idempotent-Replayed" not in ends[0].headers
    assert ends[1].headers["Idempotent-Replayed"] == "true"
    other = api.call("balances.finalize", end | {"override_value": 31}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert credits(api, customer) == 4.7


def test_progress_and_expiry(api: ApiClient, customer: str) -> None:
    """A lock that nobody finalizes is charged for what was reported of it, when it expires by the customer's clock."""
    made = hold(api, customer, 100)
    for used, most in ((10, 10), (40, 40), (20, 40)):
        told = api.ask("balances.progress", {"lock_id": customer, "used": used})
        assert told == {
            "lock_id": customer,
            "feature_id": "basic_messages",
            "value": 100,
            "used": most,
            "expires_at": made["lock"]["expires_at"],
        }
    api.ask(
        "customers.advance_test_clock",
        {"customer_id": customer, "frozen_time": made["lock"]["expires_at"]},
    )
    assert credits(api, customer) == 4.6
    assert [event["value"] for event in events(api, customer)] == [-60, 100]
    answer = api.call("balances.progress", {"lock_id": customer, "used": 50})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_properties_of_the_end(api: ApiClient, customer: str) -> None:
    """Properties given to finalize stand on its event; else those of the lock do."""
    body = {"customer_id": customer, "feature_id": "basic_messages", "required_balance": 9}
    for number, properties in enumerate([{"b": 2}, None]):
        lock_id = f"{customer} {number}"
        api.ask("balances.check", body | {"properties": {"a": 1}, "lock": {"lock_id": lock_id}})
        end = {"lock_id": lock_id, "action": "release"}
        api.ask("balances.finalize", end | ({"properties": properties} if properties else {}))
    assert [event["properties"] for event in events(api, customer)] == [
        {"a": 1},
        {"a": 1},
        {"b": 2},
        {"a": 1},
    ]


def test_locks_are_counted(api: ApiClient, customer: str) -> None:
    """Whoever watches sees how many were held and how they ended, and what was really taken."""
    hold(api, customer, 1)
    api.ask("balances.finalize", {"lock_id": customer, "action": "release"})
    page = api.http.get("/metrics").text
    assert 'creditgate_decisions_total{feature="basic_messages",outcome="allowed",verb="hold"}' in page
    assert 'creditgate_holds_settled_total{outcome="released"}' in page
