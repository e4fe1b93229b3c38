"""`events.list` and `events.aggregate` over HTTP: the shapes that the clients insist on, and exact numbers."""

from typing import Any

import pytest

from tests.api.client import ApiClient

T0 = 1_764_547_200_000  # 2025-12-01T00:00:00Z
DAY_MS = 86_400_000
BASIC, PREMIUM = "basic_messages", "premium_messages"
EVENTS: tuple[tuple[str, float, int, dict[str, Any]], ...] = (
    (BASIC, 2, 0, {"model": "small", "request": {"region": "eu"}}),
    (BASIC, 0.000000001, 0, {"model": "large"}),
    (PREMIUM, 1, 0, {"model": "large", "request": {"region": "us"}}),
    (BASIC, 123456789012, 1, {"model": "small \u00fc \u0000"}),
    (BASIC, -1, 2, {}),
)
RANGE = {"custom_range": {"start": T0, "end": T0 + 3 * DAY_MS}}


@pytest.fixture(scope="module", autouse=True)
def events(api: ApiClient) -> None:
    """A customer with 5 credits and some usage, long ago."""
    api.ask("customers.get_or_create", {"customer_id": "ann"})
    api.ask("customers.get_or_create", {"customer_id": "bob"})
    for feature_id, value, day, properties in EVENTS:
        body = {"customer_id": "ann", "feature_id": feature_id, "value": value, "properties": properties}
        api.ask("balances.track", body | {"timestamp": T0 + day * DAY_MS})
    api.ask("balances.track", {"customer_id": "bob", "feature_id": BASIC, "timestamp": T0})


def test_bins_and_totals(api: ApiClient) -> None:
    """One element for each bin, its values by feature, and totals with a count and an exact sum."""
    answer = api.call("events.aggregate", {"customer_id": "ann", "feature_id": BASIC, **RANGE})
    assert answer.text == (
        '{"list":['
        f'{{"period":{T0},"values":{{"basic_messages":2.000000001}}}},'
        f'{{"period":{T0 + DAY_MS},"values":{{"basic_messages":123456789012}}}},'
        f'{{"period":{T0 + 2 * DAY_MS},"values":{{"basic_messages":-1}}}}],'
        '"total":{"basic_messages":{"count":4,"sum":123456789013.000000001}}}'
    )


def test_groups_and_filters(api: ApiClient) -> None:
    """By a property, also a nested one; an event without it is in its bin's value and in no group."""
    first, *_ = _aggregate(api, feature_id=[BASIC, PREMIUM], group_by="properties.model")["list"]
    assert first["values"] == {BASIC: 2.000000001, PREMIUM: 1}
    assert first["grouped_values"][PREMIUM]["large"] == 1
    assert {"large", "small"} <= first["grouped_values"][BASIC].keys()
    nested = _aggregate(api, feature_id=[BASIC, PREMIUM], group_by="properties.request.region")["list"]
    assert nested[0]["grouped_values"] == {BASIC: {"eu": 2, "us": 0}, PREMIUM: {"eu": 0, "us": 1}}
    filtered = _aggregate(api, filter_by={"model": "small", "request.region": "eu"})
    assert filtered["total"] == {BASIC: {"count": 1, "sum": 2}}


def test_counts_and_other_bins(api: ApiClient) -> None:
    """Counted instead of summed; by weeks of a zone; and of all customers together."""
    counted = _aggregate(api, measure="count")
    assert [one["values"][BASIC] for one in counted["list"]] == [2, 1, 1]
    weeks = _aggregate(api, bin_size="week", timezone="America/New_York")
    assert [one["period"] for one in weeks["list"]] == [T0 - 7 * DAY_MS + 5 * 3_600_000, T0 + 5 * 3_600_000]
    everybody = _aggregate(api, customer_id=None, group_by="$customer_id")
    assert everybody["list"][0]["grouped_values"] == {BASIC: {"ann": 2.000000001, "bob": 1}}


def test_deductions(api: ApiClient) -> None:
    """What the usage took, by balance, in the keys and types that the clients insist on."""
    found = _aggregate(api, feature_id=[BASIC, PREMIUM], aggregate_on="deducted", group_by="$feature_id")[
        "deductions"
    ]
    assert [one["period"] for one in found] == [T0, T0 + DAY_MS, T0 + 2 * DAY_MS]
    (credits_used,) = found[0]["values"].values()
    (balance,) = credits_used["balances"]
    assert (credits_used["feature_type"], credits_used["events"]) == ("credit_system", 3)
    assert credits_used["deducted"] == balance["deducted"] == 0.120000001
    assert balance["reset"]["interval"] == "month"
    assert balance["reset"]["resets_at"] > T0
    assert (balance["plan_id"], balance["entity_id"], balance["credit_cost"]) == ("free", None, None)
    assert found[0]["grouped_values"] == {
        balance["balance_id"]: {
            BASIC: {"deducted": 0.020000001, "credit_cost": 0.01},
            PREMIUM: {"deducted": 0.1, "credit_cost": 0.1},
        }
    }
    assert found[1]["values"]["usd_credits"]["deducted"] == 4.879999999
    assert found[2]["values"]["usd_credits"]["deducted"] == -0.01
    assert "deductions" not in _aggregate(api)


def test_lists_take_the_same_filters(api: ApiClient) -> None:
    """Several features, a property, a range or one of its own; the pages meet each event once."""
    body = {"customer_id": "ann", "feature_id": [BASIC, PREMIUM], "limit": 2, **RANGE}
    seen: list[tuple[str, float]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.ask("events.list", body | {"start_cursor": cursor})
        seen += [(event["feature_id"], event["value"]) for event in page["list"]]
        cursor = page["next_cursor"]
    assert seen == [(feature_id, value) for feature_id, value, _, _ in reversed(EVENTS)]
    large = api.ask("events.list", {"customer_id": "ann", "filter_by": {"model": "large"}})["list"]
    assert [event["value"] for event in large] == [1, 0.000000001]
    api.ask("balances.track", {"customer_id": "bob", "feature_id": PREMIUM, "value": 7})
    for wanted in ("24h", "90d", "1bc", "3bc"):
        found = api.ask("events.list", {"customer_id": "bob", "range": wanted})["list"]
        assert [event["value"] for event in found] == [7]
    assert api.ask("events.list", {"customer_id": "bob", "range": "last_cycle"})["list"] == []
    assert api.ask("events.list", {"customer_id": "nobody", "range": "24h"})["list"] == []


def test_without_a_range_it_is_the_current_cycle(api: ApiClient) -> None:
    """A page that asks for nothing in particular shows the month that the customer is in."""
    found = api.ask("events.aggregate", {"customer_id": "ann", "feature_id": BASIC})
    assert found["total"] == {BASIC: {"count": 0, "sum": 0}}
    assert found["list"]


def _aggregate(api: ApiClient, **changes: Any) -> Any:
    return api.ask("events.aggregate", {"customer_id": "ann", "feature_id": BASIC, **RANGE, **changes})
