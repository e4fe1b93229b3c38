"""An application that holds units before a long answer, and settles them afterwards, through each official client."""

import json

import pytest

from tests.sdk.clients import Answers

# The first run installs the clients.
pytestmark = pytest.mark.timeout(300)


def test_a_lock_takes_at_once(locks: Answers) -> None:
    """What is locked is gone for every other call; what is not there is denied, and nothing is locked."""
    held, denied = locks["held"], locks["denied"]
    assert (held["allowed"], held["required_balance"], held["balance"]["remaining"]) == (True, 1, 4)
    assert (denied["allowed"], denied["required_balance"], denied["balance"]["remaining"]) == (False, 10, 4)


def test_a_lock_ends_at_what_was_used(locks: Answers) -> None:
    """Confirmed at 30 of 100, the customer pays for 30; released, for nothing."""
    assert (locks["confirmed"], locks["released"]) == ({"success": True}, {"success": True})
    for name in ("after_confirm", "after_release"):
        assert locks[name]["balances"]["usd_credits"]["remaining"] == 4.7


def test_every_move_is_an_event(locks: Answers) -> None:
    """The newest first: what was locked, and what came back of it."""
    assert [event["value"] for event in locks["events"]["list"]] == [-200, 200, -70, 100]


@pytest.mark.parametrize(
    ("call", "status", "code", "message"),
    [
        ("held_again", 409, "lock_already_exists", "A lock with this ID already exists"),
        ("confirmed_again", 400, "invalid_request", "Lock not found for ID: one"),
        ("unknown", 400, "invalid_request", "Lock not found for ID: unknown"),
        ("too_far", 400, "invalid_inputs", "lock.expires_at: "),
    ],
)
def test_a_refused_call_raises(locks: Answers, call: str, status: int, code: str, message: str) -> None:
    """A lock that was not made, or not ended, never passes for one that was."""
    body = json.loads(locks[call]["body"])
    assert (locks[call]["status"], body["code"]) == (status, code)
    assert message in body["message"]
