"""Each verb on a running sidecar, as an application calls it."""

from typing import Any

import httpx
import pytest

from tests.api.client import ApiClient

DAY_MS = 86_400_000


@pytest.fixture
def customer(api: ApiClient, request: pytest.FixtureRequest) -> str:
    """A customer on the free plan, for each test."""
    customer_id: str = request.node.name
    api.ask("customers.get_or_create", {"customer_id": customer_id})
    return customer_id


def _credits(api: ApiClient, customer_id: str) -> Any:
    return api.ask("customers.get", {"customer_id": customer_id})["balances"]["usd_credits"]


def _track(api: ApiClient, customer_id: str, value: float = 2, **more: Any) -> Any:
    body = {"customer_id": customer_id, "feature_id": "basic_messages", "value": value}
    return api.ask("balances.track", body | more)


def test_a_base_url_that_ends_in_v1(api: ApiClient, customer: str) -> None:
    """Older SDKs are given the base URL with /v1 and newer ones without: both find every verb."""
    body = {"customer_id": customer, "feature_id": "basic_messages"}
    once, twice = api.call("balances.check", body), api.call("v1/balances.check", body)
    assert once.status_code == twice.status_code == 200
    assert once.content == twice.content


def test_lists_need_no_body(api: ApiClient) -> None:
    """SDKs send `features.list` and `plans.list` with no body and no content type."""
    for verb in ("features.list", "plans.list"):
        answer = httpx.post(f"{api.sidecar.url}/v1/{verb}", headers=api.sidecar.headers)
        assert answer.status_code == 200
        assert answer.json()["list"]


def test_a_profile_is_kept(api: ApiClient) -> None:
    """What a customer was made with is there later; an existing one only has an empty name or email filled in."""
    profile = {
        "name": "Ann",
        "metadata": {"team": {"size": 3}, "tags": ["a"]},
        "fingerprint": "f",
        "stripe_id": "cus_1",
    }
    made = api.ask("customers.get_or_create", {"customer_id": "ann"} | profile)
    assert {key: made[key] for key in profile} == profile
    later = {"name": "Eve", "email": "ann@example.com", "metadata": {"other": 1}, "send_email_receipts": True}
    api.ask("customers.get_or_create", {"customer_id": "ann"} | later)
    found = api.ask("customers.get", {"customer_id": "ann"})
    assert (found["name"], found["email"], found["metadata"]) == (
        "Ann",
        "ann@example.com",
        profile["metadata"],
    )
    assert found["send_email_receipts"] is True


def test_a_profile_is_changed(api: ApiClient) -> None:
    """What is said is set, a null empties it, and what is not said stays; metadata is merged name by name."""
    made = {"name": "Ann", "email": "a@example.com", "metadata": {"team": "red", "size": 3, "tags": ["a"]}}
    api.ask("customers.get_or_create", {"customer_id": "changing"} | made)
    first = api.ask(
        "customers.update",
        {
            "customer_id": "changing",
            "name": None,
            "stripe_id": "cus_1",
            "send_email_receipts": True,
            "metadata": {"team": "blue", "size": None, "new": {"deep": None}},
        },
    )
    assert (first["name"], first["email"], first["stripe_id"]) == (None, "a@example.com", "cus_1")
    assert first["send_email_receipts"] is True
    assert first["processors"] == {"stripe": {"id": "cus_1"}}
    assert first["metadata"] == {"team": "blue", "tags": ["a"], "new": {"deep": None}}
    second = api.ask("customers.update", {"customer_id": "changing", "name": "Eve", "metadata": None})
    assert second == first | {"name": "Eve"}
    assert api.ask("customers.update", {"customer_id": "changing"}) == second
    assert api.ask("customers.get", {"customer_id": "changing"}) == second


def test_a_limit_is_changed(api: ApiClient, customer: str) -> None:
    """A usage limit that is set on a customer holds at once, and each kind of control is replaced by itself."""

    def limit(units: int) -> Any:
        usage_limit = {"feature_id": "basic_messages", "limit": units, "interval": "month"}
        body = {"customer_id": customer, "billing_controls": {"usage_limits": [usage_limit]}}
        return api.ask("customers.update", body)["billing_controls"]["usage_limits"]

    check = {"customer_id": customer, "feature_id": "basic_messages", "required_balance": 2}
    _track(api, customer, 3)
    (found,) = limit(3)
    assert (found["limit"], found["usage"], found["source"]) == (3, 0, "customer")
    _track(api, customer, 2)
    assert api.ask("balances.check", check)["allowed"] is False
    (raised,) = limit(4)
    assert (raised["limit"], raised["usage"]) == (4, 2)
    assert api.ask("balances.check", check)["allowed"] is True
    spend = {"spend_limits": [{"feature_id": "usd_credits", "overage_limit": 1}]}
    both = api.ask("customers.update", {"customer_id": customer, "billing_controls": spend})
    assert list(both["billing_controls"]) == ["spend_limits", "usage_limits"]
    none = {"customer_id": customer, "billing_controls": {"spend_limits": [], "usage_limits": []}}
    assert api.ask("customers.update", none)["billing_controls"] == {}


def test_metadata_does_not_grow_without_end(api: ApiClient) -> None:
    """Merging cannot make a document that every later change would have to carry."""
    api.ask("customers.get_or_create", {"customer_id": "growing", "metadata": {"a": "x" * 9_000}})
    answer = api.call("customers.update", {"customer_id": "growing", "metadata": {"b": "x" * 9_000}})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inputs")
    api.ask("customers.update", {"customer_id": "growing", "metadata": {"a": None, "b": "x" * 9_000}})


def test_a_customer_is_deleted(api: ApiClient, customer: str) -> None:
    """After it nobody is there, the usage can still be looked at, and whoever comes under the id starts anew."""
    _track(api, customer, 2)
    assert api.ask("customers.delete", {"customer_id": customer, "delete_in_stripe": False}) == {
        "success": True
    }
    again = api.call("customers.delete", {"customer_id": customer})
    assert (again.status_code, again.json()["code"]) == (404, "customer_not_found")
    assert api.call("customers.get", {"customer_id": customer}).status_code == 404
    assert [event["value"] for event in api.ask("events.list", {"customer_id": customer})["list"]] == [2]
    made = api.ask("customers.get_or_create", {"customer_id": customer})
    assert made["balances"]["usd_credits"]["remaining"] == 5
    assert api.ask("events.list", {"customer_id": customer})["list"] == []


def test_customers_are_listed(api: ApiClient) -> None:
    """Newest first, page after page, each as `customers.get` shows it; searched, and by plan."""
    for number in range(5):
        profile = {"customer_id": f"listed.{number}", "name": f"Liz {number}", "email": "LIZ@example.com"}
        api.ask("customers.get_or_create", profile)
    _track(api, "listed.3", 2)
    asked: dict[str, Any] = {"search": "lIZ", "limit": 2.0, "start_cursor": ""}
    pages = [api.ask("customers.list", asked)]
    assert list(pages[0]) == ["list", "next_cursor"]
    while pages[-1]["next_cursor"] is not None:
        pages.append(api.ask("customers.list", asked | {"start_cursor": pages[-1]["next_cursor"]}))
    assert [len(page["list"]) for page in pages] == [2, 2, 1]
    found = [customer for page in pages for customer in page["list"]]
    assert [customer["id"] for customer in found] == [f"listed.{number}" for number in (4, 3, 2, 1, 0)]
    assert found[1] == api.ask("customers.get", {"customer_id": "listed.3"})
    oldest = api.ask("customers.list", asked | {"sort_order": "asc"})["list"]
    assert [customer["id"] for customer in oldest] == ["listed.0", "listed.1"]
    on_pro = {"search": "liz", "plans": [{"id": "pro"}]}
    on_free = {"search": "liz", "plans": [{"id": "free", "versions": [1.0, 2]}], "limit": 9}
    assert api.ask("customers.list", on_pro) == {"list": [], "next_cursor": None}
    assert len(api.ask("customers.list", on_free | {"subscription_status": "active"})["list"]) == 5
    ranges = {"start": found[0]["created_at"], "end": found[0]["created_at"] + 1}
    assert found[0] in api.ask("customers.list", {"search": "liz", "created_at_range": ranges})["list"]


def test_reacts_local_check_agrees(api: ApiClient, customer: str) -> None:
    """What the React hook works out from the expanded customer is what the sidecar answers."""
    state = api.ask("customers.get_or_create", {"customer_id": customer, "expand": ["balances.feature"]})
    for feature_id, most in (("basic_messages", 500), ("premium_messages", 50)):
        for required in (most, most + 1):
            body = {"customer_id": customer, "feature_id": feature_id, "required_balance": required}
            assert _local_check(state, feature_id, required) is api.ask("balances.check", body)["allowed"]


def test_a_flag_comes_with_its_plan(api: ApiClient, customer: str) -> None:
    """An on/off feature is refused before the plan that gives it, and allowed after."""
    check = {"customer_id": customer, "feature_id": "sso"}
    before = api.ask("balances.check", check)
    url = api.ask("billing.attach", {"customer_id": customer, "plan_id": "pro"})["payment_url"]
    assert httpx.post(url).status_code == 303
    after = api.ask("balances.check", check)
    assert (before["allowed"], before["flag"]) == (False, None)
    assert (after["allowed"], after["flag"]["plan_id"], after["balance"]) == (True, "pro", None)
    tracked = api.ask("balances.track", check)
    assert (tracked["value"], tracked["balance"], tracked["deductions"]) == (1, None, [])


def test_attaching_pro_and_buying_credits(api: ApiClient, customer: str) -> None:
    """The tutorial's end: pro replaces free, 20 credits are added, and the monthly ones are used first."""
    for body in (
        {"plan_id": "pro"},
        {"plan_id": "top_up", "feature_quantities": [{"feature_id": "usd_credits", "quantity": 20.0}]},
    ):
        url = api.ask("billing.attach", {"customer_id": customer} | body)["payment_url"]
        assert httpx.post(url).status_code == 303
    tracked = _track(api, customer, 1100)
    assert (tracked["balance"]["granted"], tracked["balance"]["remaining"]) == (30, 19)
    assert [(row["plan_id"], row["remaining"]) for row in tracked["balance"]["breakdown"]] == [
        ("pro", 0),
        ("top_up", 19),
    ]
    found = api.ask("customers.get", {"customer_id": customer})
    assert [held["plan_id"] for held in found["subscriptions"]] == ["pro"]
    assert [bought["plan_id"] for bought in found["purchases"]] == ["top_up"]
    assert found["subscriptions"][0]["current_period_end"] > found["subscriptions"][0]["current_period_start"]


def test_cancelling_a_plan(api: ApiClient, customer: str) -> None:
    """A cancelled plan says since when and until when, on the customer and on the pricing page; it can be kept on."""
    url = api.ask("billing.attach", {"customer_id": customer, "plan_id": "pro"})["payment_url"]
    assert httpx.post(url).status_code == 303
    before = api.ask("customers.get", {"customer_id": customer})
    update = {"customer_id": customer, "plan_id": "pro", "redirect_mode": "if_required"}
    answer = api.ask("billing.update", update | {"cancel_action": "cancel_end_of_cycle"})
    assert answer == {"customer_id": customer, "payment_url": None}
    (pro,) = api.ask("customers.get", {"customer_id": customer})["subscriptions"]
    assert (pro["status"], pro["expires_at"]) == ("active", pro["current_period_end"])
    assert pro["started_at"] <= pro["canceled_at"] < pro["expires_at"]
    plans = {plan["id"]: plan for plan in api.ask("plans.list", {"customer_id": customer})["list"]}
    assert plans["pro"]["customer_eligibility"] == {
        "attach_action": "activate",
        "status": "active",
        "canceling": True,
    }
    api.ask("billing.update", update | {"cancel_action": "uncancel"})
    assert api.ask("customers.get", {"customer_id": customer}) == before
    by_id = {"customer_id": customer, "subscription_id": pro["id"], "cancel_action": "cancel_immediately"}
    api.ask("billing.update", by_id)
    after = api.ask("customers.get", {"customer_id": customer})
    assert [held["plan_id"] for held in after["subscriptions"]] == ["free"]
    assert (after["balances"]["usd_credits"]["remaining"], after["flags"]) == (5, {})
    gone = api.call("billing.update", by_id)
    assert (gone.status_code, gone.json()["code"]) == (404, "cus_product_not_found")


def test_a_preview_of_a_plan(api: ApiClient, customer: str) -> None:
    """What attaching pro costs and changes, in full, as it stands on the wire."""
    now = api.ask(
        "customers.advance_test_clock", {"customer_id": customer, "frozen_time": 1_900_000_000_000}
    )["frozen_time"]
    preview = api.ask("billing.preview_attach", {"customer_id": customer, "plan_id": "pro"})
    line = {
        "display_name": "Pro",
        "description": "Pro - base price",
        "subtotal": 10,
        "total": 10,
        "plan_id": "pro",
        "feature_id": None,
        "quantity": 1,
        "discounts": [],
    }
    month, two_months = now + 31 * DAY_MS, now + 61 * DAY_MS  # from the 17th of March
    assert preview == {
        "customer_id": customer,
        "line_items": [line | {"period": {"start": now, "end": month}}],
        "subtotal": 10,
        "total": 10,
        "currency": "usd",
        "incoming": [
            {
                "plan_id": "pro",
                "feature_quantities": [],
                "effective_at": None,
                "canceled_at": None,
                "expires_at": None,
            }
        ],
        "outgoing": [
            {
                "plan_id": "free",
                "feature_quantities": [],
                "effective_at": now,
                "canceled_at": now,
                "expires_at": now,
            }
        ],
        "redirect_to_checkout": True,
        "checkout_type": "autumn_checkout",
        "resets_usage": True,
        "next_cycle": {
            "starts_at": month,
            "subtotal": 10,
            "total": 10,
            "line_items": [line | {"period": {"start": month, "end": two_months}}],
            "usage_line_items": [],
        },
    }
    (held,) = api.ask("customers.get", {"customer_id": customer})["subscriptions"]
    assert held["plan_id"] == "free"


def test_a_preview_of_a_top_up(api: ApiClient, customer: str) -> None:
    """Credits that are bought once replace nothing and are not paid again; none of them cost nothing."""
    quantities = [{"feature_id": "usd_credits", "quantity": 20.5}]
    asked = {"customer_id": customer, "plan_id": "top_up", "feature_quantities": quantities}
    preview = api.ask("billing.preview_attach", asked)
    assert preview["line_items"] == [
        {
            "display_name": "USD credits",
            "description": "Top up - 21 USD credits",
            "subtotal": 21,
            "total": 21,
            "plan_id": "top_up",
            "feature_id": "usd_credits",
            "quantity": 21,
            "discounts": [],
        }
    ]
    assert (preview["outgoing"], preview["resets_usage"], "next_cycle" in preview) == ([], False, False)
    assert preview["incoming"][0]["feature_quantities"] == [{"feature_id": "usd_credits", "quantity": 21}]
    nothing = api.ask("billing.preview_attach", {"customer_id": customer, "plan_id": "top_up"})
    assert (nothing["total"], nothing["redirect_to_checkout"], nothing["checkout_type"]) == (0, False, None)


def test_a_grant_of_its_own(api: ApiClient, customer: str) -> None:
    """A free grant is a row beside the plan's, under the name the caller gave it; the name cannot be given twice."""
    grant = {
        "customer_id": customer,
        "feature_id": "usd_credits",
        "included_grant": 3.0,
        "balance_id": "gift",
    }
    assert api.ask("balances.create", grant) == {"success": True}
    rows = _credits(api, customer)["breakdown"]
    assert [(row["plan_id"], row["included_grant"]) for row in rows] == [("free", 5), (None, 3)]
    assert rows[1]["id"] == "gift"
    again = api.call("balances.create", grant)
    assert (again.status_code, again.json()["code"]) == (409, "balance_already_exists")
    used = _track(api, customer, 600)
    assert [part["balance_id"] for part in used["deductions"]][1] == "gift"


def test_a_clock_of_its_own(api: ApiClient, customer: str) -> None:
    """Advancing one customer's clock by a month resets that customer's credits, and nobody else's."""
    api.ask("customers.get_or_create", {"customer_id": "bystander"})
    for customer_id in (customer, "bystander"):
        _track(api, customer_id, 100)
    resets_at = _credits(api, customer)["next_reset_at"]
    answer = api.ask(
        "customers.advance_test_clock", {"customer_id": customer, "frozen_time": float(resets_at + DAY_MS)}
    )
    assert answer == {"customer_id": customer, "frozen_time": resets_at + DAY_MS, "status": "ready"}
    assert (_credits(api, customer)["remaining"], _credits(api, "bystander")["remaining"]) == (5, 4)
    assert _credits(api, customer)["next_reset_at"] > resets_at


def test_events_are_listed_newest_first(api: ApiClient, customer: str) -> None:
    """What was tracked is in the list at once, with its properties and what it took, page after page."""
    for value in (1, 2, 3):
        _track(api, customer, value, properties={"n": value, "exact": 0.1})
    first = api.ask("events.list", {"customer_id": customer, "limit": 2.0, "start_cursor": ""})
    rest = api.ask("events.list", {"customer_id": customer, "limit": 2, "start_cursor": first["next_cursor"]})
    assert [event["value"] for event in (*first["list"], *rest["list"])] == [3, 2, 1]
    assert rest["next_cursor"] is None
    newest = first["list"][0]
    assert list(newest) == [
        *("id", "timestamp", "feature_id", "customer_id", "value", "properties", "deductions"),
    ]
    assert newest["properties"] == {"n": 3, "exact": 0.1}
    assert [(part["feature_id"], part["plan_id"], part["value"]) for part in newest["deductions"]] == [
        ("usd_credits", "free", 0.03)
    ]


def test_events_are_filtered(api: ApiClient, customer: str) -> None:
    """By feature, one or several, and by when it happened, as the caller dated it."""
    _track(api, customer, 1, timestamp=1_700_000_000_000)
    _track(api, customer, 2, feature_id="premium_messages")
    by_feature = {"customer_id": customer, "feature_id": "premium_messages"}
    by_both = {"customer_id": customer, "feature_id": ["basic_messages", "premium_messages"]}
    by_time = {
        "customer_id": customer,
        "custom_range": {"start": 1_600_000_000_000, "end": 1_700_000_000_001},
    }
    values = [
        [event["value"] for event in api.ask("events.list", asked)["list"]]
        for asked in (by_feature, by_both, by_time)
    ]
    assert values == [[2], [2, 1], [1]]


def test_a_repeated_key_takes_once(api: ApiClient, customer: str) -> None:
    """A retry with the same key gets the first answer again and takes nothing, also if it spells 2 as 2.0."""
    body = {"customer_id": customer, "feature_id": "basic_messages", "value": 2}
    key = {"Idempotency-Key": "once"}
    first = api.call("balances.track", body, headers=key)
    again = api.call("balances.track", body | {"value": 2.0}, headers=key)
    other = api.call("balances.track", body | {"value": 3}, headers=key)
    assert "Idempotent-Replayed" not in first.headers
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert _credits(api, customer)["usage"] == 0.02


@pytest.mark.parametrize("place", ["header", "body"])
def test_keys_of_each_place(api: ApiClient, place: str) -> None:
    """A key works in the header as in the body."""
    api.ask("customers.get_or_create", {"customer_id": place})
    body = {"customer_id": place, "feature_id": "basic_messages"}
    headers = {"Idempotency-Key": "k"} if place == "header" else None
    body |= {"idempotency_key": "k"} if place == "body" else {}
    for _ in range(3):
        assert api.call("balances.track", body, headers=headers).status_code == 200
    assert _credits(api, place)["usage"] == 0.01


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("balances.create", {"feature_id": "usd_credits", "included_grant": 1}),
        (
            "billing.attach",
            {"plan_id": "top_up", "feature_quantities": [{"feature_id": "usd_credits", "quantity": 1}]},
        ),
        ("balances.check", {"feature_id": "basic_messages", "send_event": True}),
        ("customers.update", {"name": "Once", "metadata": {"n": 1}}),
        ("customers.delete", {}),
        ("billing.update", {"cancel_action": "cancel_immediately"}),
    ],
)
def test_other_calls_with_a_key(api: ApiClient, verb: str, body: dict[str, Any]) -> None:
    """Whatever changes something can be retried with a key, and answers the same again."""
    customer_id = f"keyed {verb}"
    api.ask("customers.get_or_create", {"customer_id": customer_id})
    asked = {"customer_id": customer_id} | body
    first, again = (api.call(verb, asked, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(api.ask("events.list", {"customer_id": customer_id})["list"]) <= 1


def test_a_refused_track_takes_nothing(api: ApiClient, customer: str) -> None:
    """In mode reject a track is all or nothing; by default it takes what is there."""
    body = {"customer_id": customer, "feature_id": "premium_messages", "value": 51}
    refused = api.call("balances.track", body | {"overage_behavior": "reject"})
    assert (refused.status_code, refused.json()["code"]) == (400, "insufficient_balance")
    assert _credits(api, customer)["remaining"] == 5
    capped = api.ask("balances.track", body)
    assert (capped["value"], capped["balance"]["remaining"], capped["deductions"][0]["value"]) == (51, 0, 5)


def test_an_event_by_its_name(api: ApiClient, customer: str) -> None:
    """A feature can be tracked by the name of an event that counts for it, and the answer says the name again."""
    feature = {"feature_id": "images", "name": "Images", "type": "metered", "consumable": True}
    api.ask("features.create", feature | {"event_names": ["image.made"]})
    tracked = api.ask("balances.track", {"customer_id": customer, "event_name": "image.made"})
    assert (tracked["event_name"], tracked["value"], tracked["balance"]) == ("image.made", 1, None)


def test_an_event_that_counts_for_several_features(api: ApiClient, customer: str) -> None:
    """Each feature takes from its own balances; no one balance answers, all are shown, and every deduction is."""
    for feature_id in ("basic_messages", "premium_messages"):
        api.ask("features.update", {"feature_id": feature_id, "event_names": ["message.sent"]})
    try:
        event = {"customer_id": customer, "event_name": "message.sent"}
        tracked = api.ask("balances.track", event | {"value": 2, "properties": {"model": "a"}})
        refused = api.call("balances.track", event | {"overage_behavior": "reject"})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        locked = api.call("balances.track", event | {"lock": {"enabled": True}})
        assert (locked.status_code, locked.json()["code"]) == (400, "invalid_request")
    finally:
        for feature_id in ("basic_messages", "premium_messages"):
            api.ask("features.update", {"feature_id": feature_id, "event_names": []})
    assert (tracked["value"], tracked["event_name"], tracked["balance"]) == (2, "message.sent", None)
    assert list(tracked["balances"]) == ["basic_messages", "usd_credits", "premium_messages"]
    assert tracked["balances"]["basic_messages"] is tracked["balances"]["premium_messages"] is None
    assert tracked["balances"]["usd_credits"]["remaining"] == 4.78
    assert [(part["feature_id"], part["value"]) for part in tracked["deductions"]] == [("usd_credits", 0.22)]
    events = api.ask("events.list", {"customer_id": customer})["list"]
    assert [
        (event["feature_id"], event["value"], event["deductions"][0]["value"], event["properties"])
        for event in events
    ] == [("premium_messages", 2, 0.2, {"model": "a"}), ("basic_messages", 2, 0.02, {"model": "a"})]
    assert _credits(api, customer)["remaining"] == 4.78


def test_the_catalog_can_be_read(api: ApiClient) -> None:
    """What was created is found by its id and in the list, the same each time."""
    for kind, name in (("features", "feature"), ("plans", "plan")):
        for listed in api.ask(f"{kind}.list")["list"]:
            assert api.ask(f"{kind}.get", {f"{name}_id": listed["id"]}) == listed
    assert api.call("features.get", {"feature_id": "nothing"}).json()["code"] == "feature_not_found"
    assert api.call("plans.get", {"plan_id": "nothing"}).json()["code"] == "product_not_found"


def test_plans_for_a_customer(api: ApiClient, customer: str) -> None:
    """A pricing page is told what each plan would mean for the customer who looks at it."""
    plans = api.ask("plans.list", {"customer_id": customer})["list"]
    actions = {plan["id"]: plan["customer_eligibility"]["attach_action"] for plan in plans}
    assert actions["free"] == "none"
    assert actions["pro"] == "upgrade"
    assert actions["top_up"] == "purchase"


def test_plans_for_a_customer_who_is_not_there_yet(api: ApiClient) -> None:
    """A page that lists plans before it has made its customer still gets the list."""
    plans = api.ask("plans.list", {"customer_id": "not yet"})["list"]
    assert plans == api.ask("plans.list")["list"]


def _local_check(state: dict[str, Any], feature_id: str, required: float) -> bool:
    """The algorithm of autumn-js 1.3.13, `getLocalCheckResponse`, for a customer without flags."""
    balances = state["balances"]
    features = [balance["feature"] for balance in balances.values()]
    if feature_id not in [feature["id"] for feature in features]:
        return False
    if balances[feature_id]["remaining"] >= required:
        return True
    systems = [
        (feature["id"], cost["credit_cost"])
        for feature in features
        for cost in feature.get("credit_schema", [])
        if cost["metered_feature_id"] == feature_id
    ]
    return any(balances[system]["remaining"] >= required * cost for system, cost in systems)
