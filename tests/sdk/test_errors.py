"""What goes wrong reaches an application as its client's own exception; what is sent twice happens once."""

import json

import pytest

from tests.sdk.clients import Answers

# The first run installs the clients.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("call", "status", "code", "message"),
    [
        ("check_unknown_customer", 404, "customer_not_found", "Customer ann not found"),
        ("track_unknown_customer", 404, "customer_not_found", "Customer ann not found"),
        ("get_unknown_customer", 404, "customer_not_found", "Customer ann not found"),
        ("check_unknown_feature", 404, "feature_not_found", "Feature images not found"),
        ("track_unknown_feature", 404, "feature_not_found", "Feature images not found"),
        ("attach_unknown_plan", 404, "product_not_found", "gold"),
        ("check_no_customer_id", 400, "invalid_inputs", "customer_id: "),
        ("track_too_much", 400, "amount_out_of_range", "value"),
        ("create_plan_twice", 400, "product_already_exists", "pro"),
        ("attach_pro_twice", 409, "plan_already_attached", "'Pro'"),
        ("check_wrong_key", 401, "invalid_secret_key", "Invalid secret key: "),
        ("track_other_with_key", 422, "idempotency_key_reused", "message-1"),
    ],
)
def test_a_refused_call_raises_with_status_code_and_message(
    errors: Answers, call: str, status: int, code: str, message: str
) -> None:
    """A call that is refused never passes for an allowed one: the client raises, and its error says why."""
    raised = errors[call]
    body = json.loads(raised["body"])
    assert (raised["status"], body["code"]) == (status, code)
    assert message in body["message"]


def test_an_error_does_not_show_the_key(errors: Answers) -> None:
    """An error is logged by applications; the key that was sent must not be read there."""
    assert "cg_sk_test_of_another_sidecar" not in errors["check_wrong_key"]["body"]


def test_a_call_with_the_same_idempotency_key_is_answered_again_and_happens_once(errors: Answers) -> None:
    """An application that repeats a call after a lost answer gets that answer; the customer pays once."""
    assert errors["track_once"]["balance"]["remaining"] == 9.98
    assert errors["track_again"] == errors["track_once"]
    assert errors["replayed"] == [None, "true", None]
    assert [event["value"] for event in errors["events"]["list"]] == [2]
