"""What a back office does with customers, through each official client as it was published."""

import json
from typing import Any

import pytest

from tests.sdk.clients import Answers

# The first run installs the clients.
pytestmark = pytest.mark.timeout(300)


def names(page: Any) -> list[str]:
    return [customer["id"] for customer in page["list"]]


def test_all_customers_are_met_page_by_page(customers: Answers) -> None:
    """An export that follows the cursor has each customer once, the newest first, with the balance of now."""
    pages = customers["pages"]
    assert [names(page) for page in pages] == [["user_4", "user_3"], ["user_2", "user_1"], ["user_0"]]
    assert [page["next_cursor"] is None for page in pages] == [False, False, True]
    left = {
        customer["id"]: customer["balances"]["usd_credits"]["remaining"]
        for page in pages
        for customer in page["list"]
    }
    assert left == {f"user_{number}": 5 for number in range(5)} | {"user_3": 4.98}


def test_customers_are_found(customers: Answers) -> None:
    """By a part of the name, by the plan, and from the other end."""
    assert names(customers["searched"]) == ["user_4"]
    assert names(customers["oldest"]) == ["user_0"]
    assert names(customers["on_pro"]) == ["ann"]


def test_a_customer_is_changed(customers: Answers) -> None:
    """What is said is set, null empties, and metadata is merged."""
    updated, emptied = customers["updated"], customers["emptied"]
    assert (updated["name"], updated["metadata"]) == ("Anna", {"team": "blue"})
    assert (emptied["name"], emptied["metadata"]) == (None, {"team": "blue"})


def test_a_plan_is_looked_at_before(customers: Answers) -> None:
    """A client can show what attaching would cost and which plan would go."""
    preview = customers["preview"]
    assert (preview["total"], preview["currency"], preview["redirect_to_checkout"]) == (10, "usd", True)
    assert [(line["display_name"], line["total"]) for line in preview["line_items"]] == [("Pro", 10)]
    assert [plan["plan_id"] for plan in preview["incoming"]] == ["pro"]
    assert [plan["plan_id"] for plan in preview["outgoing"]] == ["free"]
    assert preview["next_cycle"]["starts_at"] == preview["line_items"][0]["period"]["end"]


def test_a_plan_is_cancelled_kept_and_ended(customers: Answers) -> None:
    """Each client can cancel for the end of the month, take that back, and end a plan at once."""
    assert customers["cancelling"]["payment_url"] is None
    (pro,) = customers["cancelled"]["subscriptions"]
    assert (pro["plan_id"], pro["status"], pro["expires_at"]) == ("pro", "active", pro["current_period_end"])
    assert pro["canceled_at"] is not None
    (kept,) = customers["uncancelled"]["subscriptions"]
    assert kept == pro | {"canceled_at": None, "expires_at": None}
    assert [held["plan_id"] for held in customers["ended"]["subscriptions"]] == ["free"]
    assert customers["ended"]["balances"]["usd_credits"]["remaining"] == 5
    refused = customers["cancel_what_is_gone"]
    assert (refused["status"], json.loads(refused["body"])["code"]) == (404, "cus_product_not_found")


def test_several_plans_are_attached_together(customers: Answers) -> None:
    """Each client's multi-attach gives one link for all plans; once it is paid, all of them are there."""
    assert customers["several"]["payment_url"].startswith("http")
    found = customers["on_several"]
    assert [held["plan_id"] for held in found["subscriptions"]] == ["pro"]
    assert [bought["plan_id"] for bought in found["purchases"]] == ["top_up"]
    assert found["balances"]["usd_credits"]["remaining"] == 30


def test_a_customer_is_deleted_and_comes_again(customers: Answers) -> None:
    """A deletion is over when it is answered; whoever comes under the same id starts anew."""
    assert customers["deleted"]["success"] is True
    for call in ("get_deleted", "delete_twice"):
        refused = customers[call]
        assert (refused["status"], json.loads(refused["body"])["code"]) == (404, "customer_not_found")
    assert (customers["made_again"]["name"], customers["made_again"]["metadata"]) == (None, {})
    assert names(customers["in_the_end"]) == ["ann", *(f"user_{number}" for number in (4, 3, 2, 1, 0))]
