"""autumn-js's React hook, which decides a check in the browser from the customer that it was given."""

import pytest

from tests.sdk.clients import Answers

# The first run installs the client.
pytestmark = pytest.mark.timeout(300)


def test_the_hook_gets_its_customer(react: Answers) -> None:
    """A page that uses the hook shows who is signed in and what they have."""
    assert react["customer"]["id"] == "rea"
    assert react["customer"]["balances"]["usd_credits"]["remaining"] == 5


@pytest.mark.parametrize(
    ("last_allowed", "first_denied", "credits_needed"),
    [("check_500_basic", "check_501_basic", 5), ("check_50_premium", "check_51_premium", 5)],
)
def test_the_hook_allows_what_the_credits_pay_for_and_no_more(
    react: Answers, last_allowed: str, first_denied: str, credits_needed: float
) -> None:
    """With credits only, the hook knows a member feature by the empty balance that it is sent; else it denies all."""
    assert react[last_allowed]["allowed"]
    assert react[last_allowed]["required_balance"] == credits_needed
    assert not react[first_denied]["allowed"]


def test_a_plan_paid_for_in_the_page_is_there_when_it_asks_again(react: Answers) -> None:
    """Attach gives the page a link to pay at; after that the hook decides with the new plan's credits."""
    assert react["attach_pro"]["payment_url"].startswith("http")
    assert react["check_1000_basic_on_pro"]["allowed"]
    assert not react["check_1001_basic_on_pro"]["allowed"]
