"""Features and plans through the API: changed, versioned, archived, erased, and what is refused."""

import itertools
from typing import Any

import httpx
import pytest

from tests.api.client import ApiClient

MESSAGES = {"type": "metered", "consumable": True}
MONTHLY = {"interval": "month"}

_numbers = itertools.count()


@pytest.fixture
def feature_id(api: ApiClient) -> str:
    """A metered feature of its own for each test."""
    name = f"feature-{next(_numbers)}"
    api.ask("features.create", {"feature_id": name, "name": "Feature"} | MESSAGES)
    return name


@pytest.fixture
def plan_id(api: ApiClient, feature_id: str) -> str:
    """A free plan that gives five of the feature each month, in a group of its own."""
    name = f"plan-{next(_numbers)}"
    items = [{"feature_id": feature_id, "included": 5, "reset": MONTHLY}]
    api.ask("plans.create", {"plan_id": name, "name": "Plan", "group": name, "items": items})
    return name


def _refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def _held(api: ApiClient, customer_id: str, plan_id: str, feature_id: str) -> Any:
    """What a customer gets who attaches the plan now: the version answered for it, and how much."""
    api.ask("customers.get_or_create", {"customer_id": customer_id})
    api.ask("billing.attach", {"customer_id": customer_id, "plan_id": plan_id})
    return _granted(api, customer_id, feature_id)


def _granted(api: ApiClient, customer_id: str, feature_id: str) -> Any:
    return api.ask("customers.get", {"customer_id": customer_id})["balances"][feature_id]["granted"]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Another"},
        {"event_names": ["event.one", "event.two"]},
        {"event_names": []},
        {"display": {"singular": "one", "plural": "many"}},
        {"archived": True},
        {"archived": False},
        {"name": "All", "event_names": ["x"], "archived": True, "type": "metered", "consumable": True},
    ],
)
def test_a_feature_is_changed(api: ApiClient, feature_id: str, changes: dict[str, Any]) -> None:
    """What is said changes, what is not said stays, and every later answer shows it."""
    before = api.ask("features.get", {"feature_id": feature_id})
    answer = api.ask("features.update", {"feature_id": feature_id} | changes)
    assert answer == before | changes
    assert api.ask("features.get", {"feature_id": feature_id}) == answer
    assert answer in api.ask("features.list")["list"]


def test_a_new_cost_counts_at_once(api: ApiClient, feature_id: str) -> None:
    """The call after a changed cost is charged by it, and a member that left the system is no longer paid by it."""
    customer, system = f"{feature_id}-customer", f"{feature_id}-credits"
    schema = [{"metered_feature_id": feature_id, "credit_cost": 0.5}]
    created = {"feature_id": system, "name": "Credits", "type": "credit_system", "credit_schema": schema}
    api.ask("features.create", created)
    api.ask("customers.get_or_create", {"customer_id": customer})
    api.ask("balances.create", {"customer_id": customer, "feature_id": system, "included_grant": 10})
    check = {"customer_id": customer, "feature_id": feature_id, "required_balance": 2}
    assert api.ask("balances.check", check)["required_balance"] == 1
    schema[0]["credit_cost"] = 0.25
    answer = api.ask("features.update", {"feature_id": system, "credit_schema": schema})
    assert answer["credit_schema"] == schema
    assert api.ask("balances.check", check)["required_balance"] == 0.5
    other = [{"metered_feature_id": "basic_messages", "credit_cost": 1}]
    api.ask("features.update", {"feature_id": system, "credit_schema": other})
    assert api.ask("balances.check", check)["allowed"] is False


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"feature_id": "nothing"}, 404, "feature_not_found"),
        ({"type": "boolean"}, 400, "invalid_request"),
        ({"type": "magic"}, 400, "invalid_inputs"),
        ({"consumable": False}, 400, "invalid_request"),
        ({"new_feature_id": "another"}, 400, "invalid_request"),
        ({"name": ""}, 400, "invalid_inputs"),
        ({"event_names": [""]}, 400, "invalid_inputs"),
        ({"credit_schema": [{"metered_feature_id": "sso", "credit_cost": 1}]}, 400, "invalid_inputs"),
        ({"feature_id": "usd_credits", "credit_schema": []}, 400, "invalid_feature"),
        (
            {"feature_id": "usd_credits", "credit_schema": [{"metered_feature_id": "sso", "credit_cost": 1}]},
            400,
            "invalid_feature",
        ),
        (
            {"feature_id": "usd_credits", "credit_schema": [{"metered_feature_id": "x", "credit_cost": -1}]},
            400,
            "invalid_inputs",
        ),
        ({"combine": "max"}, 400, "invalid_request"),
    ],
)
def test_refused_changes_of_a_feature(
    api: ApiClient, feature_id: str, changes: dict[str, Any], status: int, code: str
) -> None:
    """What would change the meaning of balances that customers hold is refused, and nothing is different after."""
    before = api.ask("features.list")
    assert _refused(api.call("features.update", {"feature_id": feature_id, "name": "New"} | changes)) == (
        status,
        code,
    )
    assert api.ask("features.list") == before


def test_a_feature_that_nobody_uses_is_erased(api: ApiClient, feature_id: str) -> None:
    """It is gone for every verb, and its id is free again, for a feature of another type too."""
    assert api.ask("features.delete", {"feature_id": feature_id}) == {"success": True}
    for verb in ("features.get", "features.update", "features.delete"):
        assert _refused(api.call(verb, {"feature_id": feature_id})) == (404, "feature_not_found")
    assert feature_id not in [feature["id"] for feature in api.ask("features.list")["list"]]
    again = {"feature_id": feature_id, "name": "Again", "type": "boolean"}
    assert api.ask("features.create", again)["type"] == "boolean"


def test_a_feature_in_use_is_not_erased(api: ApiClient, feature_id: str) -> None:
    """A credit system's price, a plan's item in any version, or a customer's balance keeps it; it can be archived."""
    erase = {"feature_id": feature_id}
    system, plan, customer = f"{feature_id}-system", f"{feature_id}-plan", f"{feature_id}-customer"
    schema = [{"metered_feature_id": feature_id, "credit_cost": 1}]
    created = {"feature_id": system, "name": "System", "type": "credit_system", "credit_schema": schema}
    api.ask("features.create", created)
    assert _refused(api.call("features.delete", erase)) == (409, "feature_in_use")
    api.ask("features.delete", {"feature_id": system})

    items = [{"feature_id": feature_id, "included": 1}]
    api.ask("plans.create", {"plan_id": plan, "name": "Plan", "items": items})
    api.ask("plans.update", {"plan_id": plan, "items": []})
    answer = api.call("features.delete", erase)
    assert _refused(answer) == (409, "feature_in_use")
    assert f"version 1 of plan {plan}" in answer.json()["message"]
    api.ask("plans.delete", {"plan_id": plan})

    controls = {"spend_limits": [{"feature_id": feature_id, "overage_limit": 1}]}
    api.ask("plans.create", {"plan_id": plan, "name": "Plan", "billing_controls": controls})
    assert _refused(api.call("features.delete", erase)) == (409, "feature_in_use")
    api.ask("plans.delete", {"plan_id": plan})

    api.ask("customers.get_or_create", {"customer_id": customer, "billing_controls": controls})
    assert _refused(api.call("features.delete", erase)) == (409, "feature_in_use")
    api.ask("balances.create", {"customer_id": customer, "feature_id": feature_id, "included_grant": 1})
    assert _refused(api.call("features.delete", erase)) == (409, "feature_in_use")
    assert api.ask("features.update", erase | {"archived": True})["archived"] is True
    tracked = api.ask("balances.track", {"customer_id": customer, "feature_id": feature_id, "value": 1})
    assert tracked["balance"]["remaining"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Another"},
        {"description": "For you"},
        {"add_on": True},
        {"auto_enable": False},
        {"metadata": {"a": {"b": [1, 0.5]}}},
        {"archived": True},
        {"price": None},
        {"name": "All", "description": "x", "group": "g", "metadata": {"k": "v"}},
    ],
)
def test_a_plan_is_changed_in_place(api: ApiClient, plan_id: str, changes: dict[str, Any]) -> None:
    """What customers see of a plan may change without parting those who have it from those who come next."""
    before = api.ask("plans.get", {"plan_id": plan_id})
    answer = api.ask("plans.update", {"plan_id": plan_id} | changes)
    assert answer == before | changes
    assert answer["version"] == 1
    assert api.ask("plans.get", {"plan_id": plan_id}) == answer
    listed = api.ask("plans.list", {"include_archived": True, "all_versions": True})["list"]
    assert [plan for plan in listed if plan["id"] == plan_id] == [answer]


def test_versions(api: ApiClient, plan_id: str, feature_id: str) -> None:
    """Who has a plan keeps what it gave; who comes later gets the new version; both can be read."""
    assert _held(api, f"{plan_id}-early", plan_id, feature_id) == 5
    items = [{"feature_id": feature_id, "included": 7.0, "reset": MONTHLY}]
    second = api.ask("plans.update", {"plan_id": plan_id, "items": items})
    assert (second["version"], second["items"][0]["included"]) == (2, 7)
    assert _held(api, f"{plan_id}-late", plan_id, feature_id) == 7
    assert _granted(api, f"{plan_id}-early", feature_id) == 5

    price = {"amount": 3, "interval": "year", "interval_count": 2}
    third = api.ask("plans.update", {"plan_id": plan_id, "price": price, "force_version": True})
    assert (third["version"], third["price"], third["items"]) == (3, price, second["items"])
    first = api.ask("plans.get", {"plan_id": plan_id, "version": 1.0})
    assert (first["version"], first["price"], first["items"][0]["included"]) == (1, None, 5)
    assert api.ask("plans.get", {"plan_id": plan_id}) == third

    listed = api.ask("plans.list", {"all_versions": True})["list"]
    assert [plan for plan in listed if plan["id"] == plan_id] == [first, second, third]
    newest = api.ask("plans.list")["list"]
    assert [plan for plan in newest if plan["id"] == plan_id] == [third]
    assert _refused(api.call("plans.get", {"plan_id": plan_id, "version": 4})) == (404, "product_not_found")


def test_controls_are_changed_kind_by_kind(api: ApiClient, plan_id: str, feature_id: str) -> None:
    """Who changes a plan's spend limit keeps its usage limits; an empty list takes all of a kind away."""
    spend = {"spend_limits": [{"feature_id": feature_id, "overage_limit": 5}]}
    usage = {"usage_limits": [{"feature_id": feature_id, "limit": 3, "interval": "day"}]}
    none: dict[str, Any] = {"spend_limits": [], "usage_limits": []}
    steps: list[dict[str, Any]] = [spend | usage, {"spend_limits": []}, spend, {}, none]
    kinds = []
    for said in steps:
        answer = api.ask("plans.update", {"plan_id": plan_id, "billing_controls": said})
        kinds.append(sorted(answer["billing_controls"]))
    both = ["spend_limits", "usage_limits"]
    assert kinds == [both, ["usage_limits"], both, both, []]


def test_the_same_items_again_are_no_version(api: ApiClient, plan_id: str) -> None:
    """Somebody who sends the whole plan back with another name does not make a version of it."""
    before = api.ask("plans.get", {"plan_id": plan_id})
    said = {"plan_id": plan_id, "name": "New", "items": before["items"], "price": before["price"]}
    assert api.ask("plans.update", said) == before | {"name": "New"}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"plan_id": "nothing"}, 404, "product_not_found"),
        ({"new_plan_id": "another"}, 400, "invalid_request"),
        ({"name": ""}, 400, "invalid_inputs"),
        ({"items": [{"feature_id": "nothing"}]}, 404, "feature_not_found"),
        ({"items": [{"feature_id": "sso"}, {"feature_id": "sso"}]}, 400, "invalid_inputs"),
        ({"items": [{"feature_id": "sso", "included": 1}]}, 400, "invalid_inputs"),
        ({"items": [{"feature_id": "basic_messages", "included": -1}]}, 400, "invalid_inputs"),
        ({"price": {"amount": 1}}, 400, "invalid_inputs"),
        ({"price": {"amount": 1, "interval": "month"}, "auto_enable": True}, 400, "invalid_inputs"),
        ({"metadata": {"x": "y" * 17_000}}, 400, "invalid_inputs"),
        ({"archived": "yes"}, 400, "invalid_inputs"),
        ({"version": 1}, 400, "invalid_request"),
        ({"all_versions": True}, 400, "invalid_request"),
        ({"disable_version": True}, 400, "invalid_request"),
        ({"free_trial": {"duration_length": 7}}, 400, "invalid_request"),
    ],
)
def test_refused_changes_of_a_plan(
    api: ApiClient, plan_id: str, changes: dict[str, Any], status: int, code: str
) -> None:
    """A change that makes no sense, or that we do not do, leaves the plan and its versions as they were."""
    everything = {"include_archived": True, "all_versions": True}
    before = api.ask("plans.list", everything)
    assert _refused(api.call("plans.update", {"plan_id": plan_id, "name": "New"} | changes)) == (status, code)
    assert api.ask("plans.list", everything) == before


def test_a_plan_that_nobody_had_is_erased(api: ApiClient, plan_id: str, feature_id: str) -> None:
    """It goes with all its versions, and a plan of that id later begins anew."""
    api.ask("plans.update", {"plan_id": plan_id, "items": []})
    assert api.ask("plans.delete", {"plan_id": plan_id, "all_versions": True}) == {"success": True}
    for body in ({"plan_id": plan_id}, {"plan_id": plan_id, "version": 1}):
        assert _refused(api.call("plans.get", body)) == (404, "product_not_found")
    for verb in ("plans.update", "plans.delete"):
        assert _refused(api.call(verb, {"plan_id": plan_id})) == (404, "product_not_found")
    assert api.ask("features.delete", {"feature_id": feature_id}) == {"success": True}
    assert api.ask("plans.create", {"plan_id": plan_id, "name": "Again"})["version"] == 1


def test_a_plan_that_somebody_has_is_archived(api: ApiClient, plan_id: str, feature_id: str) -> None:
    """Deleting it takes it off the list and out of reach, not out of the hands of its customers; it can come back."""
    assert _held(api, f"{plan_id}-a", plan_id, feature_id) == 5
    assert api.ask("plans.delete", {"plan_id": plan_id}) == {"success": True}
    assert _granted(api, f"{plan_id}-a", feature_id) == 5
    assert api.ask("plans.get", {"plan_id": plan_id})["archived"] is True
    listed = [
        plan_id in [plan["id"] for plan in api.ask("plans.list", {"include_archived": archived})["list"]]
        for archived in (False, True)
    ]
    assert listed == [False, True]
    attach = {"customer_id": f"{plan_id}-b", "plan_id": plan_id}
    api.ask("customers.get_or_create", {"customer_id": f"{plan_id}-b"})
    assert _refused(api.call("billing.attach", attach)) == (400, "invalid_request")
    made = {"customer_id": f"{plan_id}-c", "auto_enable_plan_id": plan_id}
    assert _refused(api.call("customers.get_or_create", made)) == (400, "invalid_request")
    assert api.ask("plans.update", {"plan_id": plan_id, "archived": False})["archived"] is False
    api.ask("billing.attach", attach)
    assert _granted(api, f"{plan_id}-b", feature_id) == 5


def test_an_archived_plan_enables_itself_no_more(api: ApiClient, plan_id: str) -> None:
    """Whoever comes after a plan was archived starts without it."""
    api.ask("plans.update", {"plan_id": plan_id, "auto_enable": True})

    def starts_with(customer_id: str) -> list[str]:
        made = api.ask("customers.get_or_create", {"customer_id": customer_id})
        return [held["plan_id"] for held in made["subscriptions"]]

    assert plan_id in starts_with(f"{plan_id}-before")
    api.ask("plans.update", {"plan_id": plan_id, "archived": True})
    assert plan_id not in starts_with(f"{plan_id}-after")


@pytest.mark.parametrize(
    ("verb", "more", "other"),
    [
        ("features.update", {"name": "New"}, {"name": "Newer"}),
        ("features.delete", {}, None),
        ("plans.update", {"items": []}, {"items": [{"feature_id": "sso"}]}),
        ("plans.delete", {}, None),
    ],
)
def test_a_repeated_key_changes_once(
    api: ApiClient, verb: str, more: dict[str, Any], other: dict[str, Any] | None
) -> None:
    """A retry gets the first answer again, also where the second call alone would find nothing to erase."""
    name = f"keyed-{next(_numbers)}"
    body = {f"{verb.split('.')[0].removesuffix('s')}_id": name}
    api.ask("features.create", {"feature_id": name, "name": "F"} | MESSAGES)
    items = [{"feature_id": "basic_messages", "included": 1}]
    api.ask("plans.create", {"plan_id": name, "name": "P", "items": items})
    key = {"Idempotency-Key": name}
    first, again = (api.call(verb, body | more, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200), again.text
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    if other is not None:
        assert _refused(api.call(verb, body | other, headers=key)) == (422, "idempotency_key_reused")
