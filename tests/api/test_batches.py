"""`balances.batch_track` over HTTP: all of it or nothing is accepted, and what was accepted is taken."""

import json
from typing import Any

import pytest

from tests.api.client import ApiClient
from tests.sidecar_process import wait_until

ITEMS_MAX = 1_000
BATCH_BYTES_MAX = 1024 * 1024
GOOD = {"customer_id": "ann", "feature_id": "basic_messages"}

# One bad item, the code, and what is said of it after its place.
BAD_ITEMS: tuple[tuple[Any, str, str], ...] = (
    ({"customer_id": "ann"}, "invalid_inputs", "[2]: Either feature_id or event_name must be provided"),
    (
        GOOD | {"event_name": "sent"},
        "invalid_inputs",
        "[2]: Either feature_id or event_name must be provided",
    ),
    ({"feature_id": "basic_messages"}, "invalid_inputs", "[2].customer_id: must be a string"),
    (GOOD | {"customer_id": ""}, "invalid_inputs", "[2].customer_id: cannot be empty"),
    (GOOD | {"value": "2"}, "invalid_inputs", "[2].value: must be a number (received string)"),
    (GOOD | {"value": 1e13}, "amount_out_of_range", "[2].value: "),
    (GOOD | {"value": None}, "invalid_inputs", "[2].value: must be a number (received null)"),
    (GOOD | {"timestamp": 1.5}, "invalid_inputs", "[2].timestamp: must be an integer"),
    (GOOD | {"properties": []}, "invalid_inputs", "[2].properties: "),
    (GOOD | {"properties": {"x": "y" * 5000}}, "invalid_inputs", "[2].properties: "),
    (GOOD | {"overage_behavior": "explode"}, "invalid_inputs", "[2].overage_behavior: must be one of: "),
    (
        {"customer_id": "ann", "event_name": "sent", "overage_behavior": "reject"},
        "invalid_request",
        "[2].overage_behavior",
    ),
    (GOOD | {"idempotency_key": ""}, "invalid_inputs", "[2].idempotency_key: cannot be empty"),
    (GOOD | {"lock": {"lock_id": "l", "enabled": True}}, "invalid_request", "[2].lock is not supported"),
    (None, "invalid_inputs", "[2]"),
    ("x", "invalid_inputs", "[2]"),
    ([GOOD], "invalid_inputs", "[2]"),
)


@pytest.fixture(scope="module", autouse=True)
def customers(api: ApiClient) -> None:
    """Two customers with 5 credits."""
    for name in ("ann", "bob"):
        api.ask("customers.get_or_create", {"customer_id": name})


def test_a_batch_is_accepted_and_then_taken(api: ApiClient) -> None:
    """The answer is 202 as the clients insist; a moment later each item is taken, and the batch says what failed."""
    items = [
        {"customer_id": "bob", "feature_id": "premium_messages", "value": 2.0, "async": True},
        {"customer_id": "nobody", "feature_id": "premium_messages"},
        {"customer_id": "bob", "feature_id": "premium_messages", "value": 3, "idempotency_key": "i1"},
    ]
    answer = api.call("balances.batch_track", items)
    assert (answer.status_code, answer.json()) == (202, {"success": True})
    batch_id = answer.headers["X-Creditgate-Batch"]
    batch = _done(api, batch_id)
    assert batch["created_at"] <= batch["done_at"]
    assert (batch["batch_id"], batch["items"]) == (batch_id, 3)
    assert batch["failures"] == [
        {
            "index": 1,
            "customer_id": "nobody",
            "code": "customer_not_found",
            "message": "Customer nobody not found",
        }
    ]
    assert api.ask("customers.get", {"customer_id": "bob"})["balances"]["usd_credits"]["usage"] == 0.5
    events = api.ask("events.list", {"customer_id": "bob"})["list"]
    assert [event["value"] for event in events] == [3, 2]


def test_a_key_in_the_header_is_the_key_of_the_batch(api: ApiClient) -> None:
    """A batch that is sent again with its key is not taken again, and the answer names the first one."""
    items = [GOOD | {"value": 10}] * 3
    first = api.call("balances.batch_track", items, headers={"Idempotency-Key": "b1"})
    again = api.call("balances.batch_track", items, headers={"Idempotency-Key": "b1"})
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["X-Creditgate-Batch"] == first.headers["X-Creditgate-Batch"]
    other = api.call("balances.batch_track", items[:1], headers={"Idempotency-Key": "b1"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    _done(api, first.headers["X-Creditgate-Batch"])
    assert api.ask("customers.get", {"customer_id": "ann"})["balances"]["usd_credits"]["usage"] == 0.3


@pytest.mark.parametrize(("item", "code", "said"), BAD_ITEMS, ids=lambda part: json.dumps(part)[:90])
def test_one_bad_item_refuses_all_and_is_named(api: ApiClient, item: Any, code: str, said: str) -> None:
    """Half of a batch is never taken: the caller mends the item that is named and sends the whole again."""
    before = _usage(api)
    answer = api.call("balances.batch_track", [GOOD, GOOD, item, GOOD])
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
    assert answer.json()["message"].startswith(said), answer.text
    assert "X-Creditgate-Batch" not in answer.headers
    assert _usage(api) == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'"x"',
        b"[",
        b"[1,]",
        b'[{"customer_id":"ann","feature_id":"basic_messages"}]x',
        b'[{"customer_id":"\xff","feature_id":"basic_messages"}]',
        b'[{"customer_id":"\\ud800","feature_id":"basic_messages"}]',
        b"[" * 100_000,
        b"[" + b",".join([b'{"customer_id":"ann","feature_id":"basic_messages"}'] * (ITEMS_MAX + 1)) + b"]",
    ],
    ids=lambda body: f"{body[:40]!r}, {len(body)} bytes",
)
def test_what_is_no_batch(api: ApiClient, body: bytes) -> None:
    """Nothing, no array, or more items than are allowed: 400, and nothing is kept."""
    before = _usage(api)
    answer = api.post("balances.batch_track", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inputs"), answer.text
    assert _usage(api) == before


def test_a_batch_may_be_larger_than_other_bodies(api: ApiClient) -> None:
    """A thousand items of nearly a kilobyte are accepted and taken; one byte more than 1 MiB is not."""
    item = {"customer_id": "carl", "feature_id": "basic_messages", "properties": {"quotes": '"' * 400}}
    api.ask("customers.get_or_create", {"customer_id": "carl"})
    body = json.dumps([item] * ITEMS_MAX).encode()
    assert len(body) > BATCH_BYTES_MAX * 0.8
    padded = body + b" " * (BATCH_BYTES_MAX - len(body))
    too_large = api.post("balances.batch_track", padded + b" ")
    assert (too_large.status_code, too_large.json()["code"]) == (413, "body_too_large")
    answer = api.post("balances.batch_track", padded)
    assert answer.status_code == 202, answer.text
    assert _done(api, answer.headers["X-Creditgate-Batch"])["failures"] == []
    balance = api.ask("customers.get", {"customer_id": "carl"})["balances"]["usd_credits"]
    assert (balance["remaining"], balance["usage"]) == (0, 5)


def test_batches_are_listed_the_newest_first(api: ApiClient) -> None:
    """Whoever sends batches through a client that hides headers still sees what became of them, page by page."""
    sent = [
        api.call("balances.batch_track", [GOOD | {"customer_id": name}]).headers["X-Creditgate-Batch"]
        for name in ("bob", "nobody", "bob")
    ]
    _usage(api)
    first = api.ask("balances.batch_list", {"limit": 2})
    assert [batch["batch_id"] for batch in first["list"]] == [sent[2], sent[1]]
    assert [len(batch["failures"]) for batch in first["list"]] == [0, 1]
    rest = api.ask("balances.batch_list", {"limit": 100, "start_cursor": first["next_cursor"]})
    assert rest["list"][0]["batch_id"] == sent[0]
    assert rest["next_cursor"] is None
    assert api.ask("balances.batch_list", {"batch_id": "bat_nothing"})["list"] == []


def _usage(api: ApiClient) -> Any:
    """What ann has used, once no batch is waiting."""
    wait_until(
        lambda: "creditgate_batches_open 0.0" in api.http.get("/metrics").text, what="all batches worked off"
    )
    return api.ask("customers.get", {"customer_id": "ann"})["balances"]["usd_credits"]["usage"]


def _done(api: ApiClient, batch_id: str) -> Any:
    """The batch, once it is worked off."""

    def found() -> Any:
        (batch,) = api.ask("balances.batch_list", {"batch_id": batch_id})["list"]
        return batch

    wait_until(lambda: found()["status"] == "done", what="the batch worked off", seconds=60)
    return found()
