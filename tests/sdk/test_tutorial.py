"""The tutorial's chat product, from features to the second month, through each official client as it was published.

basic_messages cost 0.01 and premium_messages 0.10 of usd_credits; free has 5 of them each month, pro 10; a top-up is
bought once and kept.
"""

from typing import Any

import pytest

from tests.sdk.clients import Answers

# The first run installs the clients.
pytestmark = pytest.mark.timeout(300)


def credits_of(answer: Any) -> Any:
    """The usd_credits of a customer."""
    return answer["balances"]["usd_credits"]


def rows(balance: Any) -> list[tuple[str, float, float]]:
    """Of each row of a balance: where it is from, what was granted, what remains."""
    return [
        (row["plan_id"], row["included_grant"] + row["prepaid_grant"], row["remaining"])
        for row in balance["breakdown"]
    ]


def plans_of(customer: Any) -> list[tuple[str, str]]:
    return [(held["plan_id"], held["status"]) for held in customer["subscriptions"]]


def test_features_are_created(tutorial: Answers) -> None:
    """Features created through a client are there with the costs that were said; else every price is wrong."""
    features = {feature["id"]: feature for feature in tutorial["features"]["list"]}
    assert {name: feature["type"] for name, feature in features.items()} == {
        "basic_messages": "metered",
        "premium_messages": "metered",
        "usd_credits": "credit_system",
    }
    costs = features["usd_credits"]["credit_schema"]
    assert {cost["metered_feature_id"]: cost["credit_cost"] for cost in costs} == {
        "basic_messages": 0.01,
        "premium_messages": 0.1,
    }


def test_plans_are_created(tutorial: Answers) -> None:
    """Plans created through a client include and cost what was said."""
    plans = {plan["id"]: plan for plan in tutorial["plans"]["list"]}
    assert list(plans) == ["free", "pro", "top_up"]
    assert [plan["auto_enable"] for plan in plans.values()] == [True, False, False]
    assert plans["free"]["price"] is None
    assert (plans["pro"]["price"]["amount"], plans["pro"]["price"]["interval"]) == (10, "month")
    (free,), (pro,), (top_up,) = (plan["items"] for plan in plans.values())
    assert (free["included"], free["reset"]["interval"]) == (5, "month")
    assert (pro["included"], pro["reset"]["interval"]) == (10, "month")
    assert (top_up["included"], top_up["price"]["billing_method"]) == (0, "prepaid")
    assert (top_up["price"]["amount"], top_up["price"]["interval"]) == (1, "one_off")


def test_a_new_customer_is_on_free(tutorial: Answers) -> None:
    """A customer who is created has the plan that enables itself, and its 5 credits, without another call."""
    john = tutorial["created"]
    assert (john["id"], john["name"], john["email"]) == ("john", "John Yeo", "john@example.com")
    assert plans_of(john) == [("free", "active")]
    assert rows(credits_of(john)) == [("free", 5, 5)]


def test_a_check_in_messages_is_answered_in_credits(tutorial: Answers) -> None:
    """Asked for 5 messages, the application learns that they need 0.05 of the 5 credits."""
    check = tutorial["check_5_basic"]
    assert check["allowed"]
    assert check["required_balance"] == 0.05
    assert (check["balance"]["feature_id"], check["balance"]["remaining"]) == ("usd_credits", 5)
    assert check["flag"] is None


def test_the_last_message_that_is_paid_for_is_allowed_and_the_next_denied(tutorial: Answers) -> None:
    """5 credits are 500 basic messages: one fewer would rob the customer, one more would rob the application."""
    assert tutorial["check_500_basic"]["allowed"]
    assert not tutorial["check_501_basic"]["allowed"]
    assert tutorial["check_501_basic"]["required_balance"] == 5.01


def test_a_check_asked_again_is_answered_the_same(tutorial: Answers) -> None:
    """A check takes nothing; from Python, the second one is asked with asyncio, as a server asks it."""
    assert tutorial["check_again"] == tutorial["check_5_basic"]


def test_a_track_takes_exactly_what_the_messages_cost(tutorial: Answers) -> None:
    """Every message takes its price, to the cent, and the client sees what is left."""
    basic, premium = tutorial["track_2_basic"], tutorial["track_2_premium"]
    assert (basic["value"], basic["balance"]["remaining"], basic["balance"]["usage"]) == (2, 4.98, 0.02)
    assert (premium["value"], premium["balance"]["remaining"], premium["balance"]["usage"]) == (2, 4.78, 0.22)


def test_a_check_that_sends_its_event_takes_what_it_allows(tutorial: Answers) -> None:
    """Asking and taking in one call leaves no moment in between; what is denied takes nothing."""
    allowed, denied = tutorial["send_5_premium"], tutorial["send_43_premium"]
    assert (allowed["allowed"], allowed["required_balance"]) == (True, 0.5)
    assert allowed["balance"]["remaining"] == 4.28
    assert (denied["allowed"], denied["required_balance"]) == (False, 4.3)
    assert denied["balance"]["remaining"] == 4.28


def test_every_use_is_listed_once(tutorial: Answers) -> None:
    """The newest first, each use is an event with what it took; a denied one is none."""
    events = tutorial["events"]["list"]
    assert [(event["feature_id"], event["value"]) for event in events] == [
        ("premium_messages", 5),
        ("premium_messages", 2),
        ("basic_messages", 2),
    ]
    taken = [[(part["feature_id"], part["value"]) for part in event["deductions"]] for event in events]
    assert taken == [[("usd_credits", 0.5)], [("usd_credits", 0.2)], [("usd_credits", 0.02)]]
    assert {event["customer_id"] for event in events} == {"john"}
    assert tutorial["events"]["next_cursor"] is None


def test_a_plan_gives_nothing_until_it_is_paid(tutorial: Answers) -> None:
    """Attaching a plan that costs money gives a place to pay, and changes nothing else."""
    assert tutorial["attach_pro"]["customer_id"] == "john"
    assert tutorial["attach_pro"]["payment_url"].startswith("http")
    john = tutorial["before_pro_is_paid"]
    assert plans_of(john) == [("free", "active")]
    assert rows(credits_of(john)) == [("free", 5, 4.28)]


def test_paying_for_pro_replaces_free(tutorial: Answers) -> None:
    """Who paid has the 10 credits of pro at once, and no longer free's."""
    john = tutorial["after_pro_is_paid"]
    assert plans_of(john) == [("pro", "active")]
    assert rows(credits_of(john)) == [("pro", 10, 10)]


def test_a_top_up_adds_what_was_bought(tutorial: Answers) -> None:
    """20 credits that were paid for stand beside the monthly 10, as a purchase that never expires."""
    john = tutorial["after_top_up_is_paid"]
    assert plans_of(john) == [("pro", "active")]
    assert [(bought["plan_id"], bought["expires_at"]) for bought in john["purchases"]] == [("top_up", None)]
    balance = credits_of(john)
    assert (balance["granted"], balance["remaining"]) == (30, 30)
    assert rows(balance) == [("pro", 10, 10), ("top_up", 20, 20)]
    top_up = balance["breakdown"][1]
    assert (top_up["prepaid_grant"], top_up["reset"]["interval"]) == (20, "one_off")
    assert (top_up["reset"]["resets_at"], top_up["expires_at"]) == (None, None)


def test_the_monthly_credits_go_first(tutorial: Answers) -> None:
    """What would be lost at the end of the month is used before what was bought to keep."""
    assert rows(tutorial["track_70_premium"]["balance"]) == [("pro", 10, 3), ("top_up", 20, 20)]
    assert rows(tutorial["track_50_premium"]["balance"]) == [("pro", 10, 0), ("top_up", 20, 18)]
    assert not tutorial["check_181_premium"]["allowed"]


def test_a_month_later_the_allowance_is_back_and_the_top_up_as_it_was(tutorial: Answers) -> None:
    """A new month brings the 10 credits of pro, not more; what is left of the top-up stays, not less."""
    john = tutorial["after_a_month"]
    assert plans_of(john) == [("pro", "active")]
    balance = credits_of(john)
    assert rows(balance) == [("pro", 10, 10), ("top_up", 20, 18)]
    assert (balance["granted"], balance["remaining"], balance["usage"]) == (30, 28, 2)
    assert balance["next_reset_at"] > tutorial["track_50_premium"]["balance"]["next_reset_at"]
