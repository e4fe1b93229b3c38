"""The routes from before the verbs, in the shapes of each version, as curl lines and older applications call them."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.client import ApiClient
from tests.api.test_bad_input import FIELDS, JSON_VALUES

PACK = {
    "plan_id": "pack",
    "name": "Pack",
    "add_on": True,
    "items": [
        {
            "feature_id": "usd_credits",
            "included": 100,
            "price": {"amount": 1, "interval": "one_off", "billing_method": "prepaid", "billing_units": 50},
        }
    ],
}
TEAM = {
    "plan_id": "team",
    "name": "Team",
    "add_on": True,
    "items": [{"feature_id": "seats", "included": 5}, {"feature_id": "sso"}],
}

CALLS_LATER = {
    "plan_id": "calls_later",
    "name": "Calls, paid later",
    "add_on": True,
    "items": [
        {
            "feature_id": "calls",
            "included": 10,
            "price": {
                "amount": 1,
                "interval": "month",
                "billing_method": "usage_based",
                "billing_units": 1,
                "max_purchase": 50,
            },
        }
    ],
}
MONTH_MS = 31 * 86_400_000

# Each version is answered in the shape of the first that is not older; these are their newest.
OLDER = ("2.0", "beta", "1.1", "0.2")


@pytest.fixture(scope="module", autouse=True)
def catalog(api: ApiClient) -> None:
    """A plan that includes some of what it sells, and one with seats."""
    metered = {"type": "metered", "consumable": True}
    for feature in (
        {"feature_id": "seats", "name": "Seats", "type": "metered", "consumable": False},
        {"feature_id": "images", "name": "Images", "event_names": ["drawn", "shown"], **metered},
        {"feature_id": "calls", "name": "Calls", "event_names": ["shown"], **metered},
    ):
        api.ask("features.create", feature)
    for plan in (PACK, TEAM, CALLS_LATER):
        api.ask("plans.create", plan)


@pytest.fixture
def customer(api: ApiClient, request: pytest.FixtureRequest) -> str:
    """A customer on the free plan, for each test."""
    customer_id: str = request.node.name
    api.ask("customers.get_or_create", {"customer_id": customer_id})
    return customer_id


def _call(
    api: ApiClient, path: str, body: Any = None, version: str | None = None, **headers: str
) -> httpx.Response:
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    if version is not None:
        headers["x-api-version"] = version
    method = "GET" if body is None else "POST"
    return api.http.request(method, f"/v1/{path}", json=body, headers=headers)


def _ask(api: ApiClient, path: str, body: Any = None, version: str | None = None) -> Any:
    answer = _call(api, path, body, version)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _credits(api: ApiClient, customer_id: str) -> Any:
    return api.ask("customers.get", {"customer_id": customer_id})["balances"]["usd_credits"]


def _pay(api: ApiClient, url: str) -> None:
    """Press Pay on the page that an attach led to."""
    assert httpx.post(url, headers={"Origin": api.sidecar.url}).status_code in (200, 303)


def _is_known(api: ApiClient, customer_id: str) -> bool:
    return api.call("customers.get", {"customer_id": customer_id}).status_code == 200


# Versions and spellings


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        (None, "allowed customer_id required_balance balance flag"),
        ("2.1", "allowed customer_id required_balance balance flag"),
        ("2026-05-13", "allowed customer_id required_balance balance flag"),
        ("2.0", "allowed customer_id required_balance balance"),
        ("2", "allowed customer_id required_balance balance"),
        ("2026-03-16", "allowed customer_id required_balance balance"),
        ("beta", "allowed code customer_id feature_id required_balance"),
        ("1.2", "allowed code customer_id feature_id required_balance"),
        ("2025-05-05.clover", "allowed code customer_id feature_id required_balance"),
        ("1.1.0", "allowed code customer_id feature_id required_balance"),
        ("2025-04-17", "allowed code customer_id feature_id required_balance"),
        ("0.2", "allowed balances"),
        ("2025-04-01", "allowed balances"),
        ("2025-02-01", "allowed balances"),
    ],
)
def test_a_version_gets_its_shape(api: ApiClient, customer: str, version: str | None, keys: str) -> None:
    """An application reads the keys that its version had; `images` are in no plan, so a check of them is short."""
    answer = _ask(api, "check", {"customer_id": customer, "feature_id": "images"}, version)
    assert " ".join(answer) == keys
    assert answer["allowed"] is False
    assert not answer.get("balance")
    assert not answer.get("balances")


@pytest.mark.parametrize("path", ["check", "track", "usage", "attach", "customers", "customers/ann"])
def test_what_is_no_version(api: ApiClient, path: str) -> None:
    """A version that nobody could have meant is refused, as everywhere."""
    answer = _call(api, path, None if "/" in path else {}, "latest")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_api_version")


@pytest.mark.parametrize("version", [None, *OLDER])
def test_other_names_of_a_route(api: ApiClient, customer: str, version: str | None) -> None:
    """A base URL that ends in /v1 and the oldest names of a call lead to the same answer."""
    check = {"customer_id": customer, "feature_id": "basic_messages", "required_balance": 3}
    once = _ask(api, "check", check, version)
    assert _ask(api, "v1/check", check, version) == once
    assert _ask(api, "entitled", check, version) == once
    assert _ask(api, "v1/entitled", check, version) == once
    free = {"customer_id": customer, "feature_id": "basic_messages", "value": 0}
    assert _ask(api, "events", free, version) == _ask(api, "v1/track", free, version)


def test_without_a_version_the_answers_are_those_of_the_verbs(api: ApiClient, customer: str) -> None:
    """A curl line of the documentation gets the newest shape, whichever spelling it uses."""
    check = {"customer_id": customer, "feature_id": "basic_messages", "send_event": True}
    assert list(_ask(api, "check", check)) == list(api.ask("balances.check", check))
    track = {"customer_id": customer, "feature_id": "basic_messages"}
    assert list(_ask(api, "track", track)) == list(api.ask("balances.track", track))
    got = api.ask("customers.get", {"customer_id": customer})
    assert _ask(api, f"customers/{customer}") == got
    assert (
        _ask(api, "customers", {"id": customer}) == _ask(api, "customers", {"customer_id": customer}) == got
    )
    attach = {"customer_id": customer, "plan_id": "top_up"}
    assert list(_ask(api, "attach", attach)) == list(api.ask("billing.attach", attach))


def test_ids_in_a_path(api: ApiClient) -> None:
    """An id is found in the URL as it was given in a body, slashes and all."""
    for customer_id, path in (
        ("acme/team/user", "acme/team/user"),
        ("acme/team/user", "acme%2Fteam%2Fuser"),
        ("a b@é?#", "a%20b%40%C3%A9%3F%23"),
    ):
        api.ask("customers.get_or_create", {"customer_id": customer_id})
        assert _ask(api, f"customers/{path}")["id"] == customer_id
    for path in ("", "a%00b", "x" * 257):
        assert _call(api, f"customers/{path}").json()["code"] == "invalid_inputs"
    assert _call(api, "customers/%FF").json()["code"] == "customer_not_found"


def test_expand_in_the_url(api: ApiClient, customer: str) -> None:
    """What is to be expanded is asked for in the query, and refused there where it is not built."""
    wanted = "expand=balances.feature,flags.feature"
    assert "feature" in _ask(api, f"customers/{customer}?{wanted}", version="2.0")["balances"]["usd_credits"]
    made = _ask(api, f"customers?{wanted}", {"id": customer})
    assert made["balances"]["usd_credits"]["feature"]["id"] == "usd_credits"
    for path, body in ((f"customers/{customer}", None), ("customers", {"id": customer})):
        answer = _call(api, f"{path}?expand=balances.feature&expand=invoices", body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert _call(api, f"customers/{customer}?expand=&skip_cache=true").status_code == 200


# Customers who are not there


@pytest.mark.parametrize("version", [None, "2.1"])
@pytest.mark.parametrize("path", ["check", "track", "attach"])
def test_from_2_1_on_nobody_is_made(api: ApiClient, path: str, version: str | None) -> None:
    """A typing error in an id does not make a second customer with free credits."""
    body = {"customer_id": "typo", "feature_id": "basic_messages", "plan_id": "top_up"}
    answer = _call(api, path, body, version)
    assert (answer.status_code, answer.json()["code"]) == (404, "customer_not_found")
    answer = _call(api, path, body | {"customer_data": {"name": "Typo"}}, version)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert not _is_known(api, "typo")


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize("path", ["check", "track", "attach"])
def test_before_that_a_customer_is_made(api: ApiClient, path: str, version: str) -> None:
    """An application that never made its customers finds each on the free plan, with what it said of them."""
    customer_id = f"new {path} {version}"
    data = {"name": "Ann", "email": "ann@example.com", "metadata": {"team": 5}}
    body = {"customer_id": customer_id, "customer_data": data, "send_event": True}
    _ask(api, path, body | {"feature_id": "premium_messages", "plan_id": "top_up"}, version)
    ann = api.ask("customers.get", {"customer_id": customer_id})
    assert {name: ann[name] for name in data} == data
    assert [held["plan_id"] for held in ann["subscriptions"]] == ["free"]
    assert ann["balances"]["usd_credits"]["remaining"] == (5 if path == "attach" else 4.9)


@pytest.mark.parametrize("path", ["check", "track"])
def test_many_first_calls_at_once_make_one_customer(api: ApiClient, path: str) -> None:
    """Two tabs that open at once are one customer with one free plan, both are allowed, and every use counts once."""
    body = {"customer_id": f"two tabs {path}", "feature_id": "premium_messages"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda _: httpx.post(
                    f"{api.sidecar.url}/v1/{path}",
                    json=body,
                    headers=api.sidecar.headers | {"x-api-version": "1.2"},
                    timeout=20,
                ),
                range(4),
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json().get("allowed", True) for answer in answers)
    ann = api.ask("customers.get", {"customer_id": body["customer_id"]})
    assert [held["plan_id"] for held in ann["subscriptions"]] == ["free"]
    balance = ann["balances"]["usd_credits"]
    assert (balance["granted"], balance["usage"]) == (5, 0.4 if path == "track" else 0)


# Shapes


def test_a_balance_before_2_1(api: ApiClient, customer: str) -> None:
    """What is granted, bought and overdrawn adds up in the words of each version; the newest hides no overdraft."""
    _ask(api, "attach", {"customer_id": customer, "product_id": "team"}, "2.0")
    body = {"customer_id": customer, "feature_id": "seats", "value": 7}
    tracked = _ask(api, "track", body, "2.0")
    row = {
        "id": tracked["balance"]["breakdown"][0]["id"],
        "plan_id": "team",
        "granted_balance": 5,
        "purchased_balance": 2,
        "current_balance": 0,
        "usage": 7,
        "overage_allowed": True,
        "max_purchase": None,
        "reset": None,
        "prepaid_quantity": 0,
        "expires_at": None,
    }
    balance = {
        "feature_id": "seats",
        "unlimited": False,
        "granted_balance": 5,
        "purchased_balance": 2,
        "current_balance": 0,
        "usage": 7,
        "overage_allowed": True,
        "max_purchase": None,
        "reset": None,
        "plan_id": "team",
        "breakdown": [row],
    }
    assert tracked == {"customer_id": customer, "value": 7, "balance": balance}
    check = {"customer_id": customer, "feature_id": "seats"}
    assert _ask(api, "check", check, "2.0")["balance"] == balance
    counts = {"interval": None, "interval_count": 1, "next_reset_at": None, "balance": -2, "usage": 7}
    counts |= {"included_usage": 5, "overage_allowed": True}
    assert _ask(api, "check", check, "1.2") == {
        "allowed": False,
        "code": "feature_found",
        "customer_id": customer,
        "feature_id": "seats",
        "required_balance": 1,
        "unlimited": False,
        **counts,
        "breakdown": [counts],
    }
    assert _ask(api, "check", check, "0.2")["balances"] == [
        {"feature_id": "seats", "balance": -2, "required": None, "unlimited": False, "usage_allowed": True}
    ]


def test_what_is_unlimited(api: ApiClient, customer: str) -> None:
    """Every version has its own way to say that there is no limit; none of them shows a balance to be used up."""
    grant = {"customer_id": customer, "feature_id": "images", "unlimited": True}
    api.ask("balances.create", grant)
    _ask(api, "track", {"customer_id": customer, "feature_id": "images", "value": 7}, "2.0")
    check = {"customer_id": customer, "feature_id": "images", "required_balance": 1000}
    in_2_0, in_1_2 = _ask(api, "check", check, "2.0"), _ask(api, "check", check, "1.2")
    assert in_2_0["allowed"]
    for counts in (in_2_0["balance"], *in_2_0["balance"]["breakdown"]):
        assert [counts[name] for name in ("granted_balance", "purchased_balance", "usage")] == [0, 0, 0]
    assert in_2_0["balance"]["unlimited"]
    assert (in_1_2["allowed"], in_1_2["unlimited"], in_1_2["balance"], in_1_2["usage"]) == (True, True, 0, 0)
    assert _ask(api, "check", check, "0.2")["balances"] == [
        {"feature_id": "images", "required": None, "balance": None, "unlimited": True, "usage_allowed": False}
    ]
    features = _ask(api, f"customers/{customer}", version="1.1")["features"]
    assert {"feature_id": "images", "unlimited": True} in features


def test_what_is_paid_later(api: ApiClient, customer: str) -> None:
    """What was used beyond what is included was purchased in 2.0 and owed before, up to the limit that is said."""
    _ask(api, "attach", {"customer_id": customer, "product_id": "calls_later"}, "1.2")
    _ask(api, "track", {"customer_id": customer, "feature_id": "calls", "value": 25}, "1.2")
    check = {"customer_id": customer, "feature_id": "calls"}
    balance, flat = _ask(api, "check", check, "2.0")["balance"], _ask(api, "check", check, "1.2")
    assert (balance["granted_balance"], balance["purchased_balance"], balance["current_balance"]) == (
        10,
        15,
        0,
    )
    assert (balance["usage"], balance["overage_allowed"], balance["max_purchase"]) == (25, True, 50)
    assert (flat["included_usage"], flat["balance"], flat["usage"]) == (10, -15, 25)
    assert (flat["usage_limit"], flat["overage_allowed"]) == (60, False)
    assert flat["breakdown"][0]["usage_limit"] == 60


def test_what_rolled_over(api: ApiClient, customer: str) -> None:
    """What is left of last month counts in every sum, and what it was is said beside it."""
    rollover = {"length": 2, "duration": "month"}
    grant = {"customer_id": customer, "feature_id": "images", "included_grant": 100, "rollover": rollover}
    api.ask("balances.create", grant | {"reset": {"interval": "month"}})
    _ask(api, "track", {"customer_id": customer, "feature_id": "images", "value": 30}, "1.2")
    now = api.ask("customers.get", {"customer_id": customer})["created_at"] + MONTH_MS
    api.ask("customers.advance_test_clock", {"customer_id": customer, "frozen_time": now})
    check = {"customer_id": customer, "feature_id": "images"}
    balance, flat = _ask(api, "check", check, "2.0")["balance"], _ask(api, "check", check, "1.2")
    assert (balance["granted_balance"], balance["current_balance"], balance["usage"]) == (170, 170, 0)
    assert (flat["included_usage"], flat["balance"], flat["interval"]) == (170, 170, "month")
    assert [part["balance"] for part in balance["rollovers"]] == [70]
    assert [part["balance"] for part in flat["rollovers"]] == [70]
    features = _ask(api, f"customers/{customer}", version="1.1")["features"]
    assert sum(entry["balance"] for entry in features if entry["feature_id"] == "images") == 170


def test_a_feature_that_is_on(api: ApiClient, customer: str) -> None:
    """An on/off feature was a balance of nothing, so `balance !== undefined` still means that it is on."""
    check = {"customer_id": customer, "feature_id": "sso"}
    assert _ask(api, "check", check, "2.0")["balance"] is None
    assert _ask(api, "check", check, "0.2") == {"allowed": False, "balances": []}
    _ask(api, "attach", {"customer_id": customer, "product_id": "team"}, "1.2")
    in_2_0, in_1_2 = _ask(api, "check", check, "2.0"), _ask(api, "check", check, "1.2")
    assert (in_2_0["allowed"], in_2_0["balance"]["current_balance"]) == (True, 0)
    assert (in_1_2["allowed"], in_1_2["balance"], in_1_2["interval"]) == (True, 0, None)
    assert _ask(api, "check", check, "0.2") == {
        "allowed": True,
        "balances": [{"feature_id": "sso", "balance": None}],
    }
    assert _ask(api, f"customers/{customer}", version="2.0")["balances"]["sso"] == in_2_0["balance"]
    assert _ask(api, f"customers/{customer}", version="1.2")["features"]["sso"]["type"] == "static"
    assert {"feature_id": "sso"} in _ask(api, f"customers/{customer}", version="1.1")["features"]


def test_a_customer_before_2_1(api: ApiClient, customer: str) -> None:
    """Plans and purchases are one list, two top-ups are one of two, and rows that reset differently have no reset."""
    for _ in range(2):
        options = [{"feature_id": "usd_credits", "quantity": 10}]
        body = {"customer_id": customer, "product_id": "top_up", "options": options}
        _pay(api, _ask(api, "attach", body, "2.0")["checkout_url"])
    _ask(api, "attach", {"customer_id": customer, "product_id": "team"}, "2.0")
    _ask(api, "track", {"customer_id": customer, "feature_id": "usd_credits", "value": 7}, "1.2")

    newest = api.ask("customers.get", {"customer_id": customer})
    in_2_0 = _ask(api, f"customers/{customer}", version="2.0")
    assert list(in_2_0)[-3:] == ["subscriptions", "scheduled_subscriptions", "balances"]
    assert in_2_0["created_at"] == newest["created_at"]
    assert [(one["plan_id"], one["add_on"], one["quantity"]) for one in in_2_0["subscriptions"]] == [
        ("free", False, 1),
        ("team", True, 1),
        ("top_up", True, 2),
    ]
    balance = in_2_0["balances"]["usd_credits"]
    assert (balance["granted_balance"], balance["purchased_balance"]) == (5, 20)
    assert (balance["current_balance"], balance["usage"], balance["plan_id"]) == (18, 7, None)
    assert balance["reset"] == {"interval": "multiple", "resets_at": None}
    assert [row["prepaid_quantity"] for row in balance["breakdown"]] == [0, 10, 10]

    in_1_2 = _ask(api, f"customers/{customer}", version="1.2")
    assert [(one["id"], one["name"], one["status"]) for one in in_1_2["products"]] == [
        ("free", "Free", "active"),
        ("team", "Team", "active"),
        ("top_up", "Top up", "active"),
    ]
    assert {(one["is_default"], one["version"], one["group"]) for one in in_1_2["products"]} == {
        (True, 1, None),
        (False, 1, None),
    }
    feature = in_1_2["features"]["usd_credits"]
    assert (feature["interval"], feature["included_usage"], feature["balance"]) == ("multiple", 25, 18)
    assert [row["interval"] for row in feature["breakdown"]] == ["month", "lifetime", "lifetime"]
    assert feature["breakdown"][0]["next_reset_at"] == newest["balances"]["usd_credits"]["next_reset_at"]
    assert feature["credit_schema"][0] == {"feature_id": "basic_messages", "credit_amount": 0.01}

    in_1_1 = _ask(api, f"customers/{customer}", version="1.1")
    assert in_1_1["products"] == in_1_2["products"]
    rows = [row for row in in_1_1["features"] if row["feature_id"] == "usd_credits"]
    assert [row["balance"] for row in rows] == [0, 8, 10]


@pytest.mark.parametrize("path", ["customers", "customers/nobody-0-2"])
def test_a_customer_of_0_2(api: ApiClient, path: str) -> None:
    """The parts that a customer once had are not built: that is said before anybody is made."""
    answer = _call(api, path, {"id": "nobody-0-2"} if path == "customers" else None, "0.2")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_api_version")
    assert "1.1 or later" in answer.json()["message"]
    assert not _is_known(api, "nobody-0-2")


# Tracks and checks


@pytest.mark.parametrize(
    ("version", "body", "value", "properties"),
    [
        ("1.2", {"properties": {"value": 2.5, "model": "x"}}, 2.5, {"model": "x"}),
        ("1.4", {"properties": {"value": "12"}}, 12, {}),
        ("0.2", {"properties": {"value": "-0.5"}}, -0.5, {}),
        ("1.2", {"value": 3, "properties": {"value": "gold"}}, 3, {"value": "gold"}),
        ("1.2", {"properties": {"values": 4}}, 1, {"values": 4}),
        ("1.2", {}, 1, {}),
        ("2.0", {"properties": {"value": 2}}, 1, {"value": 2}),
        (None, {"properties": {"value": 2}}, 1, {"value": 2}),
    ],
)
def test_a_value_among_the_properties(
    api: ApiClient, customer: str, version: str | None, body: Any, value: float, properties: Any
) -> None:
    """Up to 1.4 an event said there how much it was, often as a string: else every use would count as one."""
    _ask(api, "events", {"customer_id": customer, "event_name": "drawn"} | body, version)
    (event,) = api.ask("events.list", {"customer_id": customer})["list"]
    assert (event["feature_id"], event["value"], event["properties"]) == ("images", value, properties)


def test_an_event_that_counts_for_several_features(api: ApiClient, customer: str) -> None:
    """No one feature answers for all that count the event, in the shape of no version."""
    api.ask("balances.create", {"customer_id": customer, "feature_id": "images", "included_grant": 5})
    event = {"customer_id": customer, "event_name": "shown"}
    received = {"id": "placeholder", "code": "event_received"}
    assert _ask(api, "events", event, "1.2") == event | received
    in_2_0 = _ask(api, "track", event, "2.0")
    assert (in_2_0["value"], in_2_0["balance"], in_2_0["event_name"]) == (1, None, "shown")
    assert (in_2_0["balances"]["images"]["current_balance"], in_2_0["balances"]["calls"]) == (3, None)


def test_what_is_required_has_an_older_name(api: ApiClient, customer: str) -> None:
    """A check by `required_quantity` asks for as much as one by `required_balance`."""
    body = {"customer_id": customer, "feature_id": "basic_messages", "required_quantity": 501}
    assert _ask(api, "check", body, "1.2")["required_balance"] == 5.01
    assert _ask(api, "check", body)["allowed"] is False


@pytest.mark.parametrize("version", [None, *OLDER])
def test_a_key_is_one_key_under_all_names(api: ApiClient, customer: str, version: str | None) -> None:
    """A call repeated with its key counts once, also where an application moved to the verbs in between."""
    body = {"customer_id": customer, "feature_id": "basic_messages", "value": 2}
    first, again, verb = (
        _call(api, path, body, version if path != "balances.track" else None, Idempotency_Key=customer)
        for path in ("track", "events", "balances.track")
    )
    assert [answer.headers.get("Idempotent-Replayed") for answer in (first, again, verb)] == [
        None,
        "true",
        "true",
    ]
    assert first.json() == again.json()
    assert _credits(api, customer)["usage"] == 0.02


def test_a_usage_is_set(api: ApiClient, customer: str) -> None:
    """An application that counts by itself says how much is used, and to say it twice changes nothing."""
    body = {"customer_id": customer, "feature_id": "usd_credits", "value": 1.5}
    for version in ("1.2", None):
        assert _ask(api, "usage", body, version) == {"success": True}
        assert _credits(api, customer)["remaining"] == 3.5
    key = {"Idempotency_Key": customer}
    for value, remaining in ((1.5, 3.5), (2, 3.5)):
        _call(api, "usage", body | {"value": value}, **key)
        assert _credits(api, customer)["remaining"] == remaining


# Attach


@pytest.mark.parametrize("version", [None, "2.0", "1.2"])
@pytest.mark.parametrize(
    ("quantities", "granted"),
    [
        ({"options": [{"feature_id": "usd_credits", "quantity": 500}]}, 600),
        ({"options": [{"feature_id": "usd_credits", "quantity": 1.0, "adjustable_quantity": True}]}, 150),
        ({"options": [{"feature_id": "usd_credits", "quantity": 0}]}, 100),
        ({"options": []}, 100),
        ({"options": None, "feature_quantities": [{"feature_id": "usd_credits", "quantity": 500}]}, 500),
        ({}, 100),
    ],
    ids=str,
)
def test_a_quantity(
    api: ApiClient, customer: str, version: str | None, quantities: Any, granted: float
) -> None:
    """An option is bought on top of the 100 that are included; a feature quantity counts them in, as everywhere."""
    body = {"customer_id": customer, "product_id": "pack"} | quantities
    answer = _ask(api, "attach", body, version)
    url = answer.get("checkout_url") or answer.get("payment_url")
    if url is not None:
        _pay(api, url)
    rows = {row["plan_id"]: row for row in _credits(api, customer)["breakdown"]}
    assert rows["pack"]["included_grant"] + rows["pack"]["prepaid_grant"] == granted


def test_a_quantity_with_a_key(api: ApiClient, customer: str) -> None:
    """The same number said in the two spellings is not the same call, so a key does not take one for the other."""
    pack = {"customer_id": customer, "plan_id": "pack"}
    quantity = [{"feature_id": "usd_credits", "quantity": 500}]
    first = _call(api, "attach", pack | {"options": quantity}, Idempotency_Key="k")
    again = _call(api, "attach", pack | {"options": quantity}, Idempotency_Key="k")
    other = _call(api, "attach", pack | {"feature_quantities": quantity}, Idempotency_Key="k")
    assert first.json() == again.json()
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_what_attach_says(api: ApiClient, customer: str) -> None:
    """An application that sends its customers to `checkout_url` finds it, and none where nothing is to be paid."""
    team = {"customer_id": customer, "product_ids": ["team"]}
    top_up: dict[str, Any] = {"customer_id": customer, "product_id": "top_up"}
    top_up |= {"options": [{"feature_id": "usd_credits", "quantity": 1}]}
    assert _ask(api, "attach", team, "1.1") == {
        "success": True,
        "customer_id": customer,
        "product_ids": ["team"],
        "code": "free_product_attached",
        "message": "Team is attached",
    }
    checkout = _ask(api, "attach", top_up, "1.2")
    assert (checkout["code"], checkout["product_ids"]) == ("checkout_created", ["top_up"])
    assert checkout["checkout_url"].startswith(f"{api.sidecar.url}/checkout/")
    assert list(_ask(api, "attach", top_up, "0.2")) == ["checkout_url"]
    pack = {"customer_id": customer, "product_id": "pack"}
    assert _ask(api, "attach", pack, "0.2") == {"success": True, "message": "Pack is bought"}


# Bad input


class Bad(NamedTuple):
    """A call that must be refused: the usual one of its route, with some of its fields changed."""

    path: str
    changes: dict[str, Any]
    code: str = "invalid_inputs"
    status: int = 400
    version: str | None = "1.2"

    def __str__(self) -> str:
        return f"{self.path} {json.dumps(self.changes)} {self.version}"


VICTIM = "victim"
USUAL: dict[str, dict[str, Any]] = {
    "check": {"customer_id": VICTIM, "feature_id": "basic_messages", "send_event": True},
    "track": {"customer_id": VICTIM, "feature_id": "basic_messages"},
    "usage": {"customer_id": VICTIM, "feature_id": "usd_credits", "value": 1},
    "attach": {"customer_id": VICTIM, "product_id": "top_up"},
    "customers": {"id": VICTIM},
}
NOBODY = {"customer_id": "nobody", "customer_data": {"name": "Nobody"}}
NOT_YET = "invalid_request"

CALLS = (
    Bad("check", {"required_balance": 1, "required_quantity": 1}),
    Bad("check", {"required_quantity": "5"}),
    Bad("check", {"required_quantity": 1e99}, "amount_out_of_range"),
    Bad("check", {"feature_id": None}),
    Bad("check", {"feature_id": "", "product_id": "pro"}, NOT_YET),
    Bad("check", {"with_preview": True}, NOT_YET),
    Bad("check", {"entity_id": "seat_1"}, "entity_not_found", 404),
    Bad("check", {"customer_data": []}),
    Bad("check", {"customer_data": {"name": 5}}),
    Bad("check", {"customer_data": {"metadata": []}}),
    Bad("check", {"customer_data": {"disable_default": True}}, NOT_YET),
    Bad("check", NOBODY | {"feature_id": "nothing"}, "feature_not_found", 404),
    Bad("check", NOBODY | {"required_balance": "5"}),
    Bad("check", NOBODY | {"feature_id": "sso"}, NOT_YET),
    Bad("check", NOBODY | {"customer_data": {"auto_enable_plan_id": "nothing"}}, "product_not_found", 404),
    Bad("check", NOBODY | {"customer_data": {"auto_enable_plan_id": "pro"}}, "invalid_request"),
    Bad("track", {"properties": {"value": "many"}}),
    Bad("track", {"properties": {"value": ""}}),
    Bad("track", {"properties": {"value": " 5"}}),
    Bad("track", {"properties": {"value": "NaN"}}),
    Bad("track", {"properties": {"value": '"5"'}}),
    Bad("track", {"properties": {"value": None}}),
    Bad("track", {"properties": {"value": True}}),
    Bad("track", {"properties": {"value": [5]}}),
    Bad("track", {"properties": {"value": "1" * 20}}, "amount_out_of_range"),
    Bad("track", {"properties": {"value": 1e300}}, "amount_out_of_range"),
    Bad("track", {"properties": "x"}),
    Bad("track", {"feature_id": None}),
    Bad("track", NOBODY | {"value": "5"}),
    Bad("track", NOBODY | {"feature_id": "nothing"}, "feature_not_found", 404),
    Bad("track", NOBODY | {"feature_id": None, "event_name": "nothing"}, "invalid_request", 404),
    Bad("track", {"value": 1000000, "overage_behavior": "reject"}, "insufficient_balance"),
    Bad("usage", {"value": None}),
    Bad("usage", {"value": "1"}),
    Bad("usage", {"value": 1e99}, "amount_out_of_range"),
    Bad("usage", {"customer_id": ""}),
    Bad("usage", {"customer_id": "nobody"}, "customer_not_found", 404),
    Bad("usage", {"feature_id": "images"}, "balance_not_found", 404),
    Bad("usage", {"customer_data": {"name": "Ann"}}, NOT_YET),
    Bad("attach", {"product_id": None}),
    Bad("attach", {"product_id": "top_up", "plan_id": "pro"}),
    Bad("attach", {"product_ids": ["pro"]}),
    Bad("attach", {"product_id": None, "product_ids": []}, NOT_YET),
    Bad("attach", {"product_id": None, "product_ids": ["pro", "top_up"]}, NOT_YET),
    Bad("attach", {"product_id": "nothing"}, "product_not_found", 404),
    Bad("attach", NOBODY | {"product_id": "nothing"}, "product_not_found", 404),
    Bad("attach", {"product_id": "free"}, "plan_already_attached", 409),
    Bad("attach", {"options": [{"feature_id": "usd_credits", "quantity": -1}]}),
    Bad("attach", {"options": [{"feature_id": "usd_credits", "quantity": 1}] * 2}),
    Bad("attach", {"options": [{"feature_id": "basic_messages", "quantity": 1}]}),
    Bad("attach", {"options": {"usd_credits": 1}}),
    Bad(
        "attach",
        {
            "options": [{"feature_id": "usd_credits", "quantity": 1}],
            "feature_quantities": [{"feature_id": "usd_credits", "quantity": 1}],
        },
    ),
    Bad("attach", {"success_url": "javascript:alert(1)"}),
    Bad("attach", {"free_trial": True}, NOT_YET),
    Bad("attach", {"force_checkout": True}, NOT_YET),
    Bad("attach", {"invoice": True}, NOT_YET),
    Bad("attach", {"is_custom": True, "items": [{"feature_id": "usd_credits"}]}, NOT_YET),
    Bad("attach", {"reward": "HALF"}, NOT_YET),
    Bad("customers", {"id": None}),
    Bad("customers", {"id": ""}),
    Bad("customers", {"id": 5}),
    Bad("customers", {"id": "a\nb"}),
    Bad("customers", {"customer_id": "nobody"}),
    Bad("customers", {"id": "nobody", "metadata": []}),
    Bad("customers", {"id": "nobody", "expand": ["invoices"]}, NOT_YET),
    Bad("customers", {"id": "nobody", "disable_default": True}, NOT_YET),
)


@pytest.fixture
def unchanged(api: ApiClient) -> Any:
    """Compares everything a caller can see of a customer before and after; and that nobody was made."""
    api.ask("customers.get_or_create", {"customer_id": VICTIM})

    def everything() -> Any:
        return (
            api.ask("customers.get", {"customer_id": VICTIM}),
            api.ask("events.list", {"customer_id": VICTIM}),
        )

    before = everything()
    yield
    assert everything() == before
    assert not _is_known(api, "nobody")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("bad", CALLS, ids=str)
def test_calls(api: ApiClient, bad: Bad) -> None:
    """What makes no sense, and what we do not do yet, is refused, never half done, and makes no customer."""
    answer = _call(api, bad.path, USUAL[bad.path] | bad.changes, bad.version)
    assert (answer.status_code, answer.json()["code"]) == (bad.status, bad.code), answer.text
    assert set(answer.json()) == {"message", "code", "env"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "check"), ("GET", "track"), ("GET", "customers"), ("POST", "customers/ann"), ("PUT", "attach")],
)
def test_other_methods(api: ApiClient, method: str, path: str) -> None:
    """A route that was not built under this method says so."""
    answer = api.http.request(method, f"/v1/{path}")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


def test_a_key_is_needed(api: ApiClient) -> None:
    """The older routes are as closed as the newer ones, also those that only read."""
    for path, body in (*USUAL.items(), (f"customers/{VICTIM}", None)):
        answer = _call(api, path, body, Authorization="Bearer cg_sk_test_x")
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_secret_key")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["check", "track", "usage", "attach", "customers"]),
    version=st.sampled_from([None, *OLDER]),
    body=st.dictionaries(
        st.sampled_from(
            (*FIELDS, "id", "customer_data", "options", "product_id", "product_ids", "required_quantity")
        ),
        JSON_VALUES,
        max_size=6,
    ),
)
def test_anything(api: ApiClient, path: str, version: str | None, body: Any) -> None:
    """Whatever JSON is sent in whatever version, the answer is one of ours and never a 5xx."""
    answer = _call(api, path, body, version)
    assert answer.status_code < 500, (path, version, body, answer.text)
    assert answer.status_code == 200 or set(answer.json()) == {"message", "code", "env"}


def test_they_are_documented_as_older(api: ApiClient) -> None:
    """Who generates a client from the document is told which routes not to build on."""
    document = httpx.get(f"{api.sidecar.url}/openapi.json").json()
    older = {
        f"{method} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation.get("deprecated")
    }
    assert older == {
        "post /v1/attach",
        "post /v1/check",
        "post /v1/customers",
        "get /v1/customers/{customer_id}",
        "post /v1/entitled",
        "post /v1/events",
        "post /v1/track",
        "post /v1/usage",
    }
    get = document["paths"]["/v1/customers/{customer_id}"]["get"]
    assert "requestBody" not in get
    assert {(part["in"], part["name"]) for part in get["parameters"] if "name" in part} == {
        ("path", "customer_id"),
        ("query", "expand"),
    }
