"""Entities, through each official client as it was published."""

import json
from typing import Any

import pytest

from tests.sdk.clients import Answers

# The first run installs the clients.
pytestmark = pytest.mark.timeout(300)


def ids(page: Any) -> list[str]:
    return [entity["id"] for entity in page["list"]]


def code(answer: Any) -> str:
    return str(json.loads(answer["body"])["code"])


def test_an_entity_is_made_once(entities: Answers) -> None:
    """A client reads what it made, and learns that it is there already."""
    made = entities["made"]
    assert (made["id"], made["name"], made["feature_id"]) == ("seat_1", "Front desk", "seats")
    assert made["balances"]["usd_credits"]["remaining"] == 5
    assert (entities["made_twice"]["status"], code(entities["made_twice"])) == (409, "entity_already_exists")


def test_an_entity_draws_on_its_plan_and_then_on_the_customers(entities: Answers) -> None:
    """What a seat's plan gives is that seat's alone, and what the customer has is there for all."""
    assert (entities["of_one"]["allowed"], entities["of_one"]["entity_id"]) == (True, "seat_1")
    assert entities["of_one"]["balance"]["remaining"] == 8
    assert not entities["of_two"]["allowed"]
    tracked = entities["tracked"]
    assert (tracked["entity_id"], tracked["balance"]["remaining"]) == ("seat_1", 4)
    assert entities["locked"]["balance"]["remaining"] == 3
    assert (entities["track_of_nobody"]["status"], code(entities["track_of_nobody"])) == (
        404,
        "entity_not_found",
    )


def test_an_entity_is_limited(entities: Answers) -> None:
    """A limit that a client sets for one seat holds for that seat from then on."""
    (limit,) = entities["limited"]["billing_controls"]["usage_limits"]
    assert (limit["feature_id"], limit["limit"]) == ("usd_credits", 2)
    assert entities["within_the_limit"]["allowed"]
    assert not entities["beyond_the_limit"]["allowed"]


def test_entities_are_read_and_listed(entities: Answers) -> None:
    """A page of settings shows a seat with its plan, all seats, and what each has used."""
    got = entities["got"]
    assert got["balances"]["usd_credits"]["remaining"] == 3.5
    assert {held["plan_id"] for held in got["subscriptions"]} == {"free", "seat"}
    assert (ids(entities["first"]), entities["first"]["next_cursor"] is None) == (["seat_1"], False)
    assert ids(entities["found"]) == ["seat_2"]
    assert [entity["id"] for entity in entities["customer"]["entities"]] == ["seat_1", "seat_2"]
    assert entities["customer"]["balances"]["usd_credits"]["granted"] == 8
    assert [event["value"] for event in entities["events"]["list"]] == [400]


def test_an_entity_is_deleted(entities: Answers) -> None:
    """What a client deletes is gone for it, and the others are still there."""
    assert entities["deleted"]["success"]
    assert (entities["got_deleted"]["status"], code(entities["got_deleted"])) == (404, "entity_not_found")
    assert ids(entities["left"]) == ["seat_2"]
