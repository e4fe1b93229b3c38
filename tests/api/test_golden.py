"""Real request and response pairs, captured from a self-hosted Autumn (API 2.3.0), played against this sidecar.

The pairs are in golden/, named by their order; the last two name no version. Between them the balance is brought to
where it was when a pair was captured. Every answer must have the same keys in the same order, the same types, and the
same values but for ids and times that no two servers share.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sidecar_process import SidecarProcess

GOLDEN = Path(__file__).parent / "golden"
Step = str | tuple[str, dict[str, Any]]

# A name plays a pair; a route with a body brings the state to where it was before the next pair.
STEPS: tuple[Step, ...] = (
    "00_feature_basic_create",
    "00_feature_premium_create",
    "00_feature_credits_create",
    "01_plan_free_create",
    "01_plan_topup_create",
    "01_plan_bonus_create",
    "02_customer_get_or_create",
    "03_check_basic_default_allowed",
    "03_check_basic_required5_allowed",
    "03_check_basic_required501_denied",
    "03_check_credits_default",
    "03_check_credits_required5_allowed",
    "04_track_basic_2",
    "04_track_premium_2",
    "05_check_credits_required5_denied_after_track",
    "05_check_premium_required5_allowed_after_track",
    "06_check_send_event_premium_5",
    "07_track_premium_1000_beyond_balance",
    "07_check_send_event_denied",
    "07_check_after_beyond",
    "08_customer_get_after",
    ("customers.get_or_create", {"customer_id": "live_2"}),
    "09_track_credits_direct_1_5",
    "09_track_negative_premium",
    "09_track_default_value",
    "09_track_beyond_overage_reject",
    ("balances.track", {"customer_id": "live_2", "feature_id": "basic_messages", "value": 0.5}),
    "10_check_missing_feature",
    "10_check_required0",
    "10_check_required_negative",
    "10_check_unknown_customer",
    "10_check_unknown_feature",
    "10_track_string_value",
    "10_track_unknown_customer",
    "10_track_unknown_feature",
    "11_track_idem_first",
    "11_track_idem_dup",
    "11_track_idem_header_first",
    "11_track_idem_header_dup",
    "12_track_event_name_unmatched",
    ("customers.get_or_create", {"customer_id": "live_3", "name": "Bo", "email": "bo@example.com"}),
    ("balances.track", {"customer_id": "live_3", "feature_id": "usd_credits", "value": 2}),
    "13_attach_bonus_free_addon",
    "13_check_after_bonus",
    "14_attach_topup_paid_stripe_stub",
    ("balances.track", {"customer_id": "live_3", "feature_id": "usd_credits", "value": 6}),
    "14_customer_after_attach",
    ("balances.track", {"customer_id": "live_2", "feature_id": "usd_credits", "value": 1.945}),
    ("balances.create", {"customer_id": "live_2", "feature_id": "usd_credits", "included_grant": 7}),
    "18_noversion_check",
    "18_noversion_track",
)
PAIRS = tuple(step for step in STEPS if isinstance(step, str))

# What a sidecar without Stripe or a pricing page does not say.
KEYS_LEFT_OUT = frozenset({"entitlement_id", "price_id", "display", "processors"})
VALUES_OF_THEIR_OWN = frozenset(
    {"balance_id", "created_at", "started_at", "next_reset_at", "resets_at", "payment_url"}
)
THEIR_ID_PREFIXES = ("cus_prod_", "cus_ent_")


@pytest.fixture(scope="module")
def sidecar() -> Iterator[SidecarProcess]:
    """A sidecar that refuses a repeated key as Autumn does."""
    process = SidecarProcess(arguments=["--idempotency", "autumn"])
    try:
        yield process.start()
    finally:
        process.close()


@pytest.fixture(scope="module")
def played(sidecar: SidecarProcess) -> dict[str, tuple[int, Any]]:
    """The answers to all pairs, played once in order."""
    answers = {}
    for step in STEPS:
        if isinstance(step, str):
            request = _pair(step)
            route, version = request["path"].removeprefix("/v1/"), request.get("version", "2.3.0")
            headers = request["headers"] | ({"x-api-version": version} if version else {})
            answer = sidecar.call(route, request["body"], headers=headers)
            answers[step] = (answer.status_code, answer.json())
        else:
            sidecar.ask(*step)
    return answers


@pytest.mark.parametrize("name", PAIRS)
def test_pair(name: str, played: dict[str, tuple[int, Any]]) -> None:
    """An application written against Autumn gets the answer that Autumn gave, key for key."""
    pair = _pair(name)
    status, body = played[name]
    assert status == pair["status"], body
    assert _differences(pair["response"], body, name) == []


def test_every_pair_is_played() -> None:
    """A pair that lies in the folder and is not played would look as if it passed."""
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == sorted(PAIRS)


def _pair(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def _differences(expected: Any, actual: Any, at: str) -> list[str]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        keys = [key for key in expected if key not in KEYS_LEFT_OUT]
        if list(actual) != keys:
            return [f"{at}: keys {list(actual)}, expected {keys}"]
        return [text for key in keys for text in _of_key(key, expected[key], actual[key], f"{at}.{key}")]
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = enumerate(zip(expected, actual, strict=True))
        return [text for n, (one, other) in pairs for text in _differences(one, other, f"{at}[{n}]")]
    if _kind(expected) != _kind(actual) or expected != actual:
        return [f"{at}: {actual!r}, expected {expected!r}"]
    return []


def _of_key(key: str, expected: Any, actual: Any, at: str) -> list[str]:
    if key == "stripe_id":
        return [] if actual is None else [f"{at}: {actual!r}, and there is no Stripe"]
    is_their_id = isinstance(expected, str) and expected.startswith(THEIR_ID_PREFIXES)
    if key in VALUES_OF_THEIR_OWN or is_their_id:
        return [] if _kind(expected) == _kind(actual) else [f"{at}: {actual!r}, expected a {_kind(expected)}"]
    return _differences(expected, actual, at)


def _kind(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__
