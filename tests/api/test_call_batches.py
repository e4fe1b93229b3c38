"""`balances.batch` over HTTP: each item is answered as if it came alone, and none changes another."""

import json
import os
import signal
from typing import Any

import pytest

from tests.api.client import ApiClient
from tests.sidecar_process import SidecarProcess, wait_until

CALLS_MAX = 100
BATCH_BYTES_MAX = 1024 * 1024
CHECK = {"verb": "check", "customer_id": "ann", "feature_id": "premium_messages"}
TRACK = {"verb": "track", "customer_id": "ann", "feature_id": "premium_messages"}
LOCK = {"lock": {"enabled": True, "lock_id": "l1"}}

# One item, and the status and code of its answer.
BAD_ITEMS: tuple[tuple[Any, int, str], ...] = (
    (None, 400, "invalid_inputs"),
    ("x", 400, "invalid_inputs"),
    ([TRACK], 400, "invalid_inputs"),
    ({}, 400, "invalid_inputs"),
    (TRACK | {"verb": "grant"}, 400, "invalid_inputs"),
    (TRACK | {"verb": None}, 400, "invalid_inputs"),
    (TRACK | {"verb": ["track"]}, 400, "invalid_inputs"),
    (TRACK | {"customer_id": ""}, 400, "invalid_inputs"),
    (TRACK | {"value": "2"}, 400, "invalid_inputs"),
    (TRACK | {"value": 1e13}, 400, "amount_out_of_range"),
    (TRACK | {"idempotency_key": ""}, 400, "invalid_inputs"),
    (TRACK | {"entity_id": "seat"}, 404, "entity_not_found"),
    (TRACK | {"value": 99, "overage_behavior": "reject"}, 400, "insufficient_balance"),
    (TRACK | {"customer_id": "nobody"}, 404, "customer_not_found"),
    (TRACK | {"feature_id": "nothing"}, 404, "feature_not_found"),
    (CHECK | {"required_balance": None}, 400, "invalid_inputs"),
    (CHECK | {"idempotency_key": 5}, 400, "invalid_inputs"),
    (CHECK | {"send_event": True, "idempotency_key": ""}, 400, "invalid_inputs"),
    (CHECK | {"customer_id": "nobody"}, 404, "customer_not_found"),
)


@pytest.fixture(scope="module", autouse=True)
def customers(api: ApiClient) -> None:
    """Three customers with 5 credits; a premium message costs 0.1."""
    for name in ("ann", "bob", "carl"):
        api.ask("customers.get_or_create", {"customer_id": name})


def test_each_item_is_answered_as_if_it_came_alone(api: ApiClient) -> None:
    """Whoever moves from single calls to batches reads the same bodies, in the order of the calls."""
    bob = {"customer_id": "bob"}
    check, track, denied = CHECK | bob, TRACK | bob | {"value": 3}, CHECK | bob | {"required_balance": 51}
    alone = [api.call("balances.check", check), api.call("balances.check", denied)]
    answers = api.ask("balances.batch", [check, denied, track, check])
    assert [answer["status"] for answer in answers] == [200] * 4
    assert [answer["body"] for answer in answers[:2]] == [answer.json() for answer in alone]
    assert answers[1]["body"]["allowed"] is False
    assert answers[2]["body"]["balance"]["remaining"] == 4.7
    assert answers[3]["body"] == api.ask("balances.check", check)


def test_items_of_one_customer_are_applied_in_their_order(api: ApiClient) -> None:
    """A check that stands after a track sees it, however many other customers are served at the same time."""
    items = [
        item | {"customer_id": name}
        for _ in range(10)
        for name in ("bob", "carl")
        for item in (TRACK, CHECK | {"required_balance": 1})
    ]
    answers = [answer["body"]["balance"]["remaining"] for answer in api.ask("balances.batch", items)]
    for first in (0, 2):
        left = [answers[at + place] for at in range(first, len(items), 4) for place in (0, 1)]
        assert left[::2] == left[1::2]
        assert left[::2] == [pytest.approx(left[0] - 0.1 * taken) for taken in range(10)]


@pytest.mark.parametrize(("item", "status", "code"), BAD_ITEMS, ids=lambda part: json.dumps(part)[:90])
def test_a_bad_item_changes_no_other(api: ApiClient, item: Any, status: int, code: str) -> None:
    """What is malformed or refused is told where it stands; what stands around it is done, whoever it is of."""
    for name in ("ann", "bob"):
        before = _used(api, name)
        little = {"customer_id": name, "verb": "track", "feature_id": "basic_messages"}
        first, bad, last = api.ask("balances.batch", [little, item, little])
        assert (bad["status"], bad["body"]["code"]) == (status, code)
        assert (first["status"], last["status"]) == (200, 200)
        assert _used(api, name) - before == pytest.approx(0.02)


def test_each_item_has_a_key_of_its_own(api: ApiClient) -> None:
    """A batch that is sent again after its answer was lost takes nothing twice, and is answered the same."""
    api.ask("customers.get_or_create", {"customer_id": "keys"})
    keys = {"customer_id": "keys"}
    items: list[dict[str, Any]] = [
        TRACK | keys | {"value": 2, "idempotency_key": "i1"},
        CHECK | keys | {"required_balance": 3, "send_event": True, "idempotency_key": "i1"},
        TRACK | keys | {"value": 4, "idempotency_key": "i1"},
        CHECK | keys | LOCK | {"idempotency_key": "i2"},
    ]
    first, again = (api.ask("balances.batch", items) for _ in range(2))
    assert [answer["status"] for answer in first] == [200, 200, 422, 200]
    assert [answer["replayed"] for answer in first] == [False] * 4
    assert [answer["replayed"] for answer in again] == [True, True, False, True]
    assert _used(api, "keys") == pytest.approx(0.6)
    check = {name: value for name, value in items[1].items() if name != "idempotency_key"}
    for alone in (
        api.call("balances.track", items[0]),
        api.call("balances.check", check, headers={"Idempotency-Key": "i1"}),
    ):
        assert alone.headers.get("Idempotent-Replayed") == "true", alone.text


def test_a_key_of_the_whole_batch_is_refused(api: ApiClient) -> None:
    """A header that were ignored would let a retry take everything twice."""
    before = _used(api, "ann")
    answer = api.call("balances.batch", [TRACK], headers={"Idempotency-Key": "b1"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inputs")
    assert _used(api, "ann") == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[1,]",
        b"[" * 100_000,
        json.dumps([TRACK] * (CALLS_MAX + 1)).encode(),
        json.dumps([TRACK]).encode() + b"x",
    ],
    ids=lambda body: f"{body[:40]!r}, {len(body)} bytes",
)
def test_what_is_no_batch(api: ApiClient, body: bytes) -> None:
    """Nothing, no array, or more items than are allowed: 400, and nothing is taken."""
    before = _used(api, "ann")
    answer = api.post("balances.batch", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inputs"), answer.text
    assert _used(api, "ann") == before


def test_a_batch_may_be_larger_than_other_bodies(api: ApiClient) -> None:
    """A hundred items with all their properties are answered; one byte more than 1 MiB is not."""
    item = TRACK | {"customer_id": "carl", "value": 0, "properties": {"quotes": "x" * 4_000}}
    body = json.dumps([item] * CALLS_MAX).encode()
    padded = body + b" " * (BATCH_BYTES_MAX - len(body))
    too_large = api.post("balances.batch", padded + b" ")
    assert (too_large.status_code, too_large.json()["code"]) == (413, "body_too_large")
    answers = api.post("balances.batch", padded).json()
    assert [answer["status"] for answer in answers] == [200] * CALLS_MAX


@pytest.mark.timeout(120)
def test_without_redis_each_item_is_undecided() -> None:
    """A check is not allowed and a track is kept, in one answer that comes before clients give up."""
    sidecar = SidecarProcess(arguments=["--demo"])
    try:
        sidecar.start()
        sidecar.ask("customers.get_or_create", {"customer_id": "ann"})
        sidecar.ask("balances.batch", [CHECK, TRACK])
        valkey = sidecar.valkey_pid
        os.kill(valkey, signal.SIGSTOP)
        held = [TRACK | {"lock": {"enabled": True}}] * 8  # these do not go together
        answers = sidecar.ask("balances.batch", [CHECK, TRACK] * 2 + held)
        os.kill(valkey, signal.SIGCONT)
        assert {(answer["status"], answer["body"].get("code", "kept")) for answer in answers} == {
            (202, "undecided"),
            (202, "kept"),
            (429, "undecided"),  # its turn came too late
        }
        assert not any(answer["body"].get("allowed") for answer in answers)
        wait_until(lambda: sidecar.call("balances.batch", [CHECK]).json()[0]["status"] == 200, what="answers")
        proof = sidecar.verify()
        assert proof.returncode == 0, proof.stdout
    finally:
        sidecar.close()


def _used(api: ApiClient, name: str) -> float:
    usage: float = api.ask("customers.get", {"customer_id": name})["balances"]["usd_credits"]["usage"]
    return usage
