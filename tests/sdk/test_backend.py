"""autumn-js's routes for browsers, in an application's backend that asks the sidecar."""

import pytest

from tests.sdk.clients import Answers

# The first run installs the client.
pytestmark = pytest.mark.timeout(300)


def test_a_customer_is_made_for_who_is_signed_in(backend: Answers) -> None:
    """A browser that asks for its customer gets them with the plan that enables itself."""
    assert backend["customer"]["status"] == 200
    rea = backend["customer"]["body"]
    assert (rea["id"], rea["name"], rea["email"]) == ("rea", "Rea", "rea@example.com")
    assert [held["plan_id"] for held in rea["subscriptions"]] == ["free"]
    assert rea["balances"]["usd_credits"]["remaining"] == 5


def test_features_come_with_the_balances(backend: Answers) -> None:
    """The React hook checks by itself, so it needs every feature it may be asked for, and what each costs."""
    balances = backend["customer"]["body"]["balances"]
    assert {name: balance["feature"]["id"] for name, balance in balances.items()} == {
        "usd_credits": "usd_credits",
        "basic_messages": "basic_messages",
        "premium_messages": "premium_messages",
    }
    costs = balances["usd_credits"]["feature"]["credit_schema"]
    assert [cost["credit_cost"] for cost in costs] == [0.01, 0.1]


def test_plans_are_listed_with_what_they_are_to_the_customer(backend: Answers) -> None:
    """A pricing page can say which plan the customer has and what the others would be."""
    assert backend["plans"]["status"] == 200
    actions = {
        plan["id"]: plan["customer_eligibility"]["attach_action"] for plan in backend["plans"]["body"]["list"]
    }
    assert actions == {"free": "none", "pro": "upgrade", "top_up": "purchase"}


def test_usage_can_be_shown_in_the_page(backend: Answers) -> None:
    """A page can list and chart what its customer used, also what was used just now."""
    assert [event["value"] for event in backend["events"]["body"]["list"]] == [2]
    assert backend["usage"]["status"] == 200
    assert backend["usage"]["body"]["total"] == {"basic_messages": {"count": 1, "sum": 2}}


def test_a_refusal_reaches_the_browser_with_status_code_and_message(backend: Answers) -> None:
    """The backend passes on why the sidecar refused, so that the page can say it."""
    assert backend["unknown_plan"]["status"] == 404
    refusal = backend["unknown_plan"]["body"]
    assert (refusal["code"], refusal["status_code"]) == ("product_not_found", 404)
    assert "gold" in refusal["message"]


def test_who_paid_comes_back_to_the_application_with_the_plan(backend: Answers) -> None:
    """After paying, the browser is sent where the application wanted it, and the plan is active by then."""
    assert backend["attach_pro"]["status"] == 200
    assert backend["paid"]["sent"] == backend["paid"]["wanted"]
    rea = backend["customer_after"]["body"]
    assert [held["plan_id"] for held in rea["subscriptions"]] == ["pro"]
    assert rea["balances"]["usd_credits"]["remaining"] == 10
