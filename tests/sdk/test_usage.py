"""Batches of usage and reports of it, each through every client."""

import json

import pytest

from tests.sdk.clients import Answers

# The first run installs the clients.
pytestmark = pytest.mark.timeout(300)


def test_a_batch_is_accepted_and_taken(usage: Answers) -> None:
    """autumn-js takes no status but 202 for a batch; each item is an event a moment later, in the batch's order."""
    assert usage["batch"] == {"success": True}
    pages = usage["first_page"]["list"] + usage["last_page"]["list"]
    assert [event["value"] for event in pages] == [3, 2, 1]
    assert [event["properties"] for event in pages] == [
        {"model": "small"},
        {"model": "large"},
        {"model": "small"},
    ]
    assert [event["deductions"][0]["value"] for event in pages] == [0.03, 0.02, 0.01]
    assert usage["last_page"]["next_cursor"] is None


def test_a_bad_batch_is_refused_by_its_item(usage: Answers) -> None:
    """An application learns which item to mend, and nothing of the batch is taken."""
    for name, said in (
        ("empty_batch", "input: must have 1 to 1000"),
        ("bad_batch", "[3]: Either feature_id"),
    ):
        assert usage[name]["status"] == 400
        assert json.loads(usage[name]["body"])["message"].startswith(said)


def test_usage_is_added_up(usage: Answers) -> None:
    """Without a range it is the customer's cycle by the day; every client reads bins, totals, groups and deductions."""
    by_default = usage["by_default"]
    assert by_default["total"] == {"basic_messages": {"count": 3, "sum": 6}}
    assert sum(one["values"]["basic_messages"] for one in by_default["list"]) == 6
    by_model = usage["by_model"]
    assert len(by_model["list"]) == 25
    assert by_model["total"]["premium_messages"] == {"count": 1, "sum": 1}
    groups = [one["grouped_values"]["basic_messages"] for one in by_model["list"]]
    assert [sum(group[model] for group in groups) for model in ("large", "small")] == [2, 4]
    taken = [one["values"]["usd_credits"] for one in by_model["deductions"]]
    assert round(sum(one["deducted"] for one in taken), 9) == 0.16
    assert {one["feature_type"] for one in taken} == {"credit_system"}


def test_an_event_is_taken_from_every_feature_that_counts_it(usage: Answers) -> None:
    """No one balance answers for several features; a client reads all of them, and what each gave."""
    event = usage["event"]
    assert (event["event_name"], event["value"], event["balance"]) == ("message.sent", 2, None)
    assert event["balances"]["usd_credits"]["remaining"] == 4.62
    assert [(one["feature_id"], one["value"]) for one in event["deductions"]] == [("usd_credits", 0.22)]
