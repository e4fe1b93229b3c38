"""The official clients of before version 2.1, as they were published: they use the routes from before the verbs."""

import sys
from typing import Any

import pytest

from tests.sdk.clients import Answers

# The first run installs the clients.
pytestmark = pytest.mark.timeout(300)


def _refusal(answer: Any) -> tuple[int, str]:
    return answer["status"], answer["body"]["code"]


def test_python_checks_and_tracks(legacy_python: Answers) -> None:
    """An application of API 2.0 reads what is left in `current_balance`, and its first call makes the customer."""
    check, track = legacy_python["check"], legacy_python["track"]
    assert (check["allowed"], check["required_balance"]) == (True, 0.5)
    assert (check["balance"]["feature_id"], check["balance"]["current_balance"]) == ("usd_credits", 5)
    assert (track["value"], track["balance"]["current_balance"], track["balance"]["usage"]) == (2, 4.8, 0.2)
    assert legacy_python["send_5_premium"]["balance"]["current_balance"] == 4.3
    assert not legacy_python["check_44_premium"]["allowed"]


def test_python_has_its_customer(legacy_python: Answers) -> None:
    """Whoever a check made is the customer that is got by name afterwards, with a name and plans."""
    ann = legacy_python["made_again"]
    assert (ann["id"], ann["name"], ann["email"]) == ("ann", "Ann", "ann@example.com")
    assert [(held["plan_id"], held["default"]) for held in ann["subscriptions"]] == [("free", True)]
    feature = legacy_python["expanded"]["balances"]["usd_credits"]["feature"]
    assert (feature["id"], feature["type"]) == ("usd_credits", "credit_system")


def test_python_attaches(legacy_python: Answers) -> None:
    """A plan costs what its checkout says, and top-ups add up as what was purchased."""
    attach = legacy_python["attach_pro"]
    assert (attach["success"], attach["code"]) == (True, "checkout_created")
    assert attach["product_ids"] == ["pro"]
    after = legacy_python["after"]
    assert [(held["plan_id"], held["quantity"]) for held in after["subscriptions"]] == [
        ("pro", 1),
        ("top_up", 2),
    ]
    balance = after["balances"]["usd_credits"]
    assert (balance["granted_balance"], balance["purchased_balance"]) == (10, 40)
    assert (balance["current_balance"], balance["reset"]["interval"]) == (50, "multiple")


def test_python_raises(legacy_python: Answers) -> None:
    """What is refused reaches an application as the error that it knows."""
    assert _refusal(legacy_python["attach_pro_twice"]) == (409, "plan_already_attached")
    assert _refusal(legacy_python["check_unknown_feature"]) == (404, "feature_not_found")
    assert _refusal(legacy_python["get_unknown_customer"]) == (404, "customer_not_found")
    assert _refusal(legacy_python["expand_invoices"]) == (400, "invalid_request")


@pytest.mark.skipif(sys.platform != "linux", reason="the embedded server is found through /proc")
def test_python_repeats_nothing_that_may_have_happened(legacy_python_outage: Answers) -> None:
    """This client repeats failed calls by itself: a track or a purchase that did take effect would count again."""
    assert not legacy_python_outage["check"]["allowed"]
    assert legacy_python_outage["check"]["customer_id"] == "ann"
    assert _refusal(legacy_python_outage["track"]) == (429, "undecided")
    assert legacy_python_outage["attach"]["status"] == 503
    assert legacy_python_outage["sent"] == ["/v1/check", "/v1/track", "/v1/attach"]


def test_javascript_checks_and_tracks(legacy_js: Answers) -> None:
    """An application of API 1.2 reads one flat `balance`, and says how much among the properties."""
    check = legacy_js["check"]
    assert (check["allowed"], check["code"], check["feature_id"]) == (True, "feature_found", "usd_credits")
    assert (check["balance"], check["included_usage"], check["interval"]) == (5, 5, "month")
    assert legacy_js["track"]["code"] == legacy_js["track_among_properties"]["code"] == "event_received"
    denied = legacy_js["check_46_premium"]
    assert (denied["allowed"], denied["required_balance"], denied["balance"]) == (False, 4.6, 4.5)


def test_javascript_has_its_customer(legacy_js: Answers) -> None:
    """A customer has features and products."""
    ann = legacy_js["customer"]
    assert (ann["id"], ann["name"], ann["email"]) == ("ann", "Ann", "ann@example.com")
    assert ann == legacy_js["made_again"]
    assert [(product["id"], product["name"], product["status"]) for product in ann["products"]] == [
        ("free", "Free", "active")
    ]
    feature = ann["features"]["usd_credits"]
    assert (feature["name"], feature["type"]) == ("USD credits", "single_use")
    assert (feature["balance"], feature["usage"]) == (4.5, 0.5)


def test_javascript_sets_a_usage(legacy_js: Answers) -> None:
    """An application that counts by itself says how much is used in all."""
    assert legacy_js["usage"] == {"success": True}
    assert (legacy_js["check_after_usage"]["balance"], legacy_js["check_after_usage"]["usage"]) == (3, 2)


def test_javascript_attaches(legacy_js: Answers) -> None:
    """A plan that costs money gives a place to pay, and a refusal comes as the error that the client returns."""
    assert legacy_js["attach_pro"]["checkout_url"].startswith("http")
    assert legacy_js["attach_free_again"] == {"status": 409, "code": "plan_already_attached"}
    assert legacy_js["check_unknown_feature"] == {"status": 404, "code": "feature_not_found"}
    assert legacy_js["get_unknown_customer"] == {"status": 404, "code": "customer_not_found"}
