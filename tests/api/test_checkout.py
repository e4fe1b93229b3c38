"""The page behind a payment_url: what it shows, that it pays exactly once, and whom it does not obey."""

import asyncio
import base64
import hashlib
import re
from typing import Any

import httpx
import pytest

from tests.api.client import ApiClient

SUCCESS = "https://app.example/done?plan=pro&x=1#top"


@pytest.fixture
def customer(api: ApiClient, request: pytest.FixtureRequest) -> str:
    """A customer on the free plan, for each test."""
    customer_id: str = request.node.name
    api.ask("customers.get_or_create", {"customer_id": customer_id})
    return customer_id


def _attach(api: ApiClient, customer_id: str, plan_id: str = "top_up", **more: Any) -> str:
    if plan_id == "top_up":
        more["feature_quantities"] = [{"feature_id": "usd_credits", "quantity": 20}]
    answer = api.ask("billing.attach", {"customer_id": customer_id, "plan_id": plan_id} | more)
    assert answer["payment_url"].startswith(f"{api.sidecar.url}/checkout/")
    return str(answer["payment_url"])


def _granted(api: ApiClient, customer_id: str) -> float:
    customer = api.ask("customers.get", {"customer_id": customer_id})
    return float(customer["balances"]["usd_credits"]["granted"])


def test_the_page_says_what_and_how_much(api: ApiClient, customer: str) -> None:
    """Somebody who opens the link sees what is bought and for how much, and can pay or cancel; nothing is paid yet."""
    page = httpx.get(_attach(api, customer, success_url=SUCCESS))
    assert page.status_code == 200
    assert "20 USD credits" in page.text
    assert "Pay $20" in page.text
    assert f'<a href="{SUCCESS.replace("&", "&amp;")}">Cancel</a>' in page.text
    assert _granted(api, customer) == 5


def test_the_page_of_a_subscription(api: ApiClient, customer: str) -> None:
    """A plan with a price of its own says how often it is paid."""
    page = httpx.get(_attach(api, customer, "pro"))
    assert "Pro, each month" in page.text
    assert "Pay $10" in page.text
    assert "close this page" in page.text


def test_paying_goes_back_to_the_application(api: ApiClient, customer: str) -> None:
    """Pay completes the attach and leads to the success_url; the page then says that it is paid."""
    url = _attach(api, customer, success_url=SUCCESS)
    paid = httpx.post(url, headers={"Origin": api.sidecar.url, "Sec-Fetch-Site": "same-origin"})
    assert (paid.status_code, paid.headers["Location"]) == (303, SUCCESS)
    assert _granted(api, customer) == 25
    page = httpx.get(url)
    assert "Paid" in page.text
    assert "<form" not in page.text


def test_paying_without_a_success_url(api: ApiClient, customer: str) -> None:
    """Where the application names no page, the checkout itself says that it is paid, and can be reloaded."""
    url = _attach(api, customer)
    paid = httpx.post(url, follow_redirects=True)
    assert (paid.status_code, str(paid.url)) == (200, url)
    assert "Paid" in paid.text


async def test_paying_many_times_at_once(api: ApiClient, customer: str) -> None:
    """A double click, a reload and a nervous customer together buy the credits once."""
    url = _attach(api, customer)
    async with httpx.AsyncClient(timeout=20) as client:
        answers = await asyncio.gather(*(client.post(url) for _ in range(16)))
    assert {answer.status_code for answer in answers} == {303}
    again = httpx.post(url)
    assert again.status_code == 303
    assert _granted(api, customer) == 25


def test_paying_for_a_subscription_once(api: ApiClient, customer: str) -> None:
    """Two open checkouts for one plan: the second says that the plan is there already, and changes nothing."""
    first, second = _attach(api, customer, "pro"), _attach(api, customer, "pro")
    assert httpx.post(first).status_code == 303
    refused = httpx.post(second)
    assert refused.status_code == 409
    assert "cannot be paid" in refused.text
    customer_now = api.ask("customers.get", {"customer_id": customer})
    assert [held["plan_id"] for held in customer_now["subscriptions"]] == ["pro"]
    assert list(customer_now["flags"]) == ["sso"]


async def test_several_plans_on_one_page(api: ApiClient, customer: str) -> None:
    """The page names all that is bought and its sum; posted many times at once it gives each plan once."""
    plans = [
        {"plan_id": "pro"},
        {"plan_id": "top_up", "feature_quantities": [{"feature_id": "usd_credits", "quantity": 20.0}]},
    ]
    body = {"customer_id": customer, "plans": plans, "billing_cycle_anchor": "now"}
    answer = api.ask("billing.multi_attach", body | {"success_url": SUCCESS, "redirect_mode": "if_required"})
    assert answer.keys() == {"customer_id", "payment_url"}
    page = httpx.get(answer["payment_url"]).text
    for text in ("<h1>Pro, Top up</h1>", "Pro, each month", "20 USD credits", "Pay $30"):
        assert text in page
    assert _granted(api, customer) == 5
    async with httpx.AsyncClient(timeout=20) as client:
        answers = await asyncio.gather(*(client.post(answer["payment_url"]) for _ in range(16)))
    assert {paid.status_code for paid in answers} == {303}
    assert _granted(api, customer) == 30


def test_the_headers_of_the_page(api: ApiClient, customer: str) -> None:
    """No script, no frame, no foreign resource; the link does not leak to the page that is visited next."""
    page = httpx.get(_attach(api, customer, success_url=SUCCESS))
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    style = re.search("<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    assert policy == {
        "default-src": "'none'",
        "style-src": policy["style-src"],
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "form-action": "'self' https://app.example",
    }
    assert policy["style-src"] == f"'sha256-{_sha256(style[1])}'"
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<script" not in page.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=["another origin", "no origin", "cross-site", "same-site"],
)
def test_another_page_cannot_pay(api: ApiClient, headers: dict[str, str]) -> None:
    """A form on a foreign page that learned the link does not spend anybody's money."""
    api.ask("customers.get_or_create", {"customer_id": "careful"})
    url = _attach(api, "careful")
    assert httpx.post(url, headers=headers).status_code == 403
    assert _granted(api, "careful") == 5


def test_a_link_that_was_changed(api: ApiClient, customer: str) -> None:
    """A link is signed: what was not given out opens nothing, and is a page all the same."""
    url = _attach(api, customer)
    head, _, signature = url.rpartition(".")
    links = (url + "x", f"{head}.{signature[::-1]}", f"{api.sidecar.url}/checkout/nothing")
    for link in links:
        for answer in (httpx.get(link), httpx.post(link)):
            assert answer.status_code == 404
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert _granted(api, customer) == 5


def test_names_are_text(api: ApiClient, customer: str) -> None:
    """A plan or feature named in HTML is shown as the text it is."""
    name = "<script>alert(1)</script>"
    api.ask("features.create", {"feature_id": "evil", "name": name, "type": "metered", "consumable": True})
    price = {"amount": 0.5, "interval": "one_off", "billing_method": "prepaid"}
    items = [{"feature_id": "evil", "price": price}]
    api.ask("plans.create", {"plan_id": "evil", "name": name, "items": items})
    url = _attach(api, customer, "evil", feature_quantities=[{"feature_id": "evil", "quantity": 3}])
    page = httpx.get(url)
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "Pay $1.50" in page.text


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
