"""Nonsense from outside: each case gets its 4xx and its code, nothing changes, and nothing is ever a 5xx.

An SDK takes a 5xx on check for "allowed", so here a crash would be free access.
"""

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.client import ApiClient

CUSTOMER = "victim"
JSON = {"Content-Type": "application/json"}
ID_BYTES_MAX = 256
BODY_BYTES_MAX = 64 * 1024

VERBS = (
    "balances.batch",
    "balances.batch_list",
    "balances.batch_track",
    "balances.check",
    "balances.track",
    "balances.finalize",
    "balances.progress",
    "balances.create",
    "billing.attach",
    "billing.multi_attach",
    "billing.preview_attach",
    "billing.update",
    "entities.create",
    "entities.delete",
    "entities.get",
    "entities.list",
    "entities.update",
    "customers.advance_test_clock",
    "customers.get",
    "customers.get_or_create",
    "customers.list",
    "customers.update",
    "events.aggregate",
    "events.list",
    "features.create",
    "features.delete",
    "features.get",
    "features.list",
    "features.update",
    "plans.create",
    "plans.delete",
    "plans.get",
    "plans.list",
    "webhooks.create",
    "webhooks.delete",
    "webhooks.get",
    "webhooks.list",
    "webhooks.update",
    "plans.update",
)

# Numbers as they stand in the JSON text, and what is said of them.
NUMBERS = {
    "NaN": "invalid_inputs",
    "Infinity": "invalid_inputs",
    "-Infinity": "invalid_inputs",
    "nan": "invalid_inputs",
    "01": "invalid_inputs",
    "1.": "invalid_inputs",
    ".5": "invalid_inputs",
    "+1": "invalid_inputs",
    "0x10": "invalid_inputs",
    "1e400": "amount_out_of_range",
    "1e99": "amount_out_of_range",
    "-1e99": "amount_out_of_range",
    "1e-99": "amount_out_of_range",
    "0.0000000001": "amount_out_of_range",
    "10000000000000": "amount_out_of_range",
    "9007199254740993": "amount_out_of_range",
    "9223372036854775808": "amount_out_of_range",
    "1" * 5000: "amount_out_of_range",
    '"5"': "invalid_inputs",
    '""': "invalid_inputs",
    "true": "invalid_inputs",
    "null": "invalid_inputs",
    "[1]": "invalid_inputs",
    '{"amount":1}': "invalid_inputs",
}

# Bodies that are not a JSON object at all, or not one of sensible shape.
BODIES = {
    "nothing": b"",
    "blank": b" \n",
    "half an object": b'{"customer_id":',
    "a word": b"hello",
    "a list": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "two objects": b"{}{}",
    "a comment": b'{/* */"customer_id":"victim"}',
    "single quotes": b"{'customer_id':'victim'}",
    "a trailing comma": b'{"customer_id":"victim",}',
    "a byte order mark": b'\xef\xbb\xbf{"customer_id":"victim","feature_id":"basic_messages"}',
    "UTF-16": '{"customer_id":"victim","feature_id":"basic_messages"}'.encode("utf-16"),
    "bad UTF-8 in an id": b'{"customer_id":"\xff","feature_id":"basic_messages"}',
    "bad UTF-8 in an unknown field": b'{"customer_id":"victim","feature_id":"basic_messages","x":"\xff"}',
    "bad UTF-8 in a name": b'{"customer_id":"victim","feature_id":"basic_messages","\xff":1}',
    "a lone surrogate": b'{"customer_id":"\\ud800","feature_id":"basic_messages"}',
    "a lone surrogate in an unknown field": b'{"customer_id":"victim","feature_id":"basic_messages","x":"\\udc00"}',
    "a raw control character": b'{"customer_id":"a\x00b","feature_id":"basic_messages"}',
    "too many brackets": b'{"customer_id":"victim","feature_id":"basic_messages","x":' + b"[" * 60_000,
    "too deep a value": b'{"properties":{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}}",
}

IDS = {
    "empty": "",
    "a line feed": "a\nb",
    "a carriage return": "a\rb",
    "a NUL": "a\x00b",
    "a C1 control": "a\x85b",
    "delete": "a\x7fb",
    "one byte too many": "x" * (ID_BYTES_MAX + 1),
    "too many bytes in few characters": "é" * 129,
    "a number": 5,
    "null": None,
    "a list": ["victim"],
    "an object": {"id": "victim"},
    "true": True,
}


class Bad(NamedTuple):
    """A call that must be refused: the usual one of its verb, with some of its fields changed."""

    verb: str
    changes: dict[str, Any]
    code: str = "invalid_inputs"
    status: int = 400

    @property
    def body(self) -> dict[str, Any]:
        return USUAL[self.verb] | self.changes

    def __str__(self) -> str:
        return f"{self.verb} {json.dumps(self.changes)[:160]}"


USUAL: dict[str, dict[str, Any]] = {
    "webhooks.create": {"id": "hook", "url": "https://1.1.1.1/"},
    "webhooks.update": {"id": "nobody"},
    "webhooks.get": {"id": "nobody"},
    "webhooks.delete": {"id": "nobody"},
    "balances.check": {"customer_id": CUSTOMER, "feature_id": "basic_messages"},
    "balances.track": {"customer_id": CUSTOMER, "feature_id": "basic_messages"},
    "balances.finalize": {"lock_id": "held", "action": "confirm"},
    "balances.progress": {"lock_id": "held", "used": 1},
    "balances.create": {"customer_id": CUSTOMER, "feature_id": "usd_credits", "included_grant": 1},
    "balances.update": {"customer_id": CUSTOMER, "feature_id": "usd_credits"},
    "balances.delete": {"customer_id": CUSTOMER, "feature_id": "usd_credits"},
    "balances.list": {"customer_id": CUSTOMER},
    "billing.attach": {"customer_id": CUSTOMER, "plan_id": "top_up"},
    "billing.multi_attach": {"customer_id": CUSTOMER, "plans": [{"plan_id": "top_up"}]},
    "billing.preview_attach": {"customer_id": CUSTOMER, "plan_id": "top_up"},
    "billing.update": {"customer_id": CUSTOMER, "cancel_action": "cancel_end_of_cycle"},
    "customers.get": {"customer_id": CUSTOMER},
    "customers.get_or_create": {"customer_id": CUSTOMER},
    "customers.advance_test_clock": {"customer_id": CUSTOMER},
    "customers.list": {},
    "customers.update": {"customer_id": CUSTOMER},
    "customers.delete": {"customer_id": CUSTOMER},
    "balances.batch_list": {},
    "events.aggregate": {"customer_id": CUSTOMER, "feature_id": "basic_messages"},
    "events.list": {"customer_id": CUSTOMER},
    "features.create": {"feature_id": "new", "name": "New", "type": "metered", "consumable": True},
    "plans.create": {"plan_id": "new", "name": "New"},
    "plans.list": {"customer_id": CUSTOMER},
    "entities.create": {"customer_id": CUSTOMER, "entity_id": "seat_1", "feature_id": "basic_messages"},
    "entities.get": {"customer_id": CUSTOMER, "entity_id": "seat_1"},
    "entities.update": {"customer_id": CUSTOMER, "entity_id": "seat_1"},
    "entities.delete": {"customer_id": CUSTOMER, "entity_id": "seat_1"},
    "entities.list": {"customer_id": CUSTOMER},
}


def _system(**changes: Any) -> dict[str, Any]:
    cost = {"metered_feature_id": "basic_messages", "credit_cost": 1} | changes
    return {"type": "credit_system", "credit_schema": [cost]}


def _controls(**controls: Any) -> dict[str, Any]:
    return {"billing_controls": controls}


def _limit(**more: Any) -> dict[str, Any]:
    return {"feature_id": "usd_credits", "limit": 1, "interval": "day"} | more


def _item(**changes: Any) -> dict[str, Any]:
    return {"items": [{"feature_id": "usd_credits", "included": 1} | changes]}


def _priced(**changes: Any) -> dict[str, Any]:
    return _item(price={"amount": 1, "interval": "month", "billing_method": "prepaid"} | changes)


def _deep(levels: int) -> dict[str, Any]:
    return {"x": _deep(levels - 1)} if levels else {}


def _cursor(text: str) -> str:
    """A cursor that we might have given, if it said so."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


NOT_YET = "invalid_request"
FAR = 4_102_444_800_000  # the year 2100

# What is well formed and makes no sense, or is Autumn's and not built here.
CALLS = (
    *(
        Bad("webhooks.create", {"url": url})
        for url in (
            *(
                "",
                "x",
                "ftp://example.com",
                "http://",
                "http://a:b@example.com",
                "https://example.com/\r\nX: y",
            ),
            *(
                "http://example.com:0",
                "http://\u00e4.example.com",
                "https://example.com/" + "a" * 2048,
                1,
                None,
            ),
        )
    ),
    *(
        Bad("webhooks.create", {"url": f"http://{host}/"}, NOT_YET)
        for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "2130706433", "[::ffff:10.0.0.1]")
    ),
    *(Bad("webhooks.create", {"id": name}) for name in ("", "a b", "x" * 129, None, 7)),
    *(
        Bad("webhooks.create", {"events": events})
        for events in ([], ["invoice.finalized"], "balances.limit_reached", [None])
    ),
    Bad("webhooks.create", {"description": 1}),
    Bad("webhooks.create", {"description": "x" * 1001}),
    Bad("webhooks.create", {"disabled": "no"}),
    Bad("webhooks.update", {"url": "http://10.0.0.1/"}, NOT_YET),
    *(
        Bad(verb, {}, "webhook_not_found", 404)
        for verb in ("webhooks.get", "webhooks.update", "webhooks.delete")
    ),
    *(Bad(verb, {"id": ""}) for verb in ("webhooks.get", "webhooks.update", "webhooks.delete")),
    Bad("balances.check", {"feature_id": ""}),
    Bad("balances.check", {"feature_id": None}),
    Bad("balances.check", {"send_event": "yes"}),
    Bad("balances.check", {"properties": []}),
    Bad("balances.check", {"properties": "x"}),
    Bad("balances.check", {"send_event": True, "properties": {"x": "y" * 5000}}),
    Bad("balances.check", {"lock": True}),
    Bad("balances.check", {"lock": {"enabled": "yes"}}),
    Bad("balances.check", {"lock": {"lock_id": 5}}),
    Bad("balances.check", {"lock": {"expires_at": 1}}),
    Bad("balances.check", {"lock": {"expires_at": FAR}}),
    Bad("balances.check", {"lock": {"expires_at": "tomorrow"}}),
    Bad("balances.check", {"lock": {"expires_at": 1.5}}),
    Bad("balances.check", {"lock": {"expires_at": 1e300}}),
    Bad("balances.check", {"lock": {"overage_behavior": "reject"}}),
    Bad("balances.check", {"lock": {"overage_behavior": "explode"}}),
    Bad("balances.check", {"lock": {"lock_id": "l1"}, "feature_id": "sso"}, "invalid_request"),
    Bad("balances.check", {"lock": {"lock_id": "l1"}, "feature_id": "nothing"}, "feature_not_found", 404),
    Bad("balances.check", {"lock": {"lock_id": "l1"}, "customer_id": "no"}, "customer_not_found", 404),
    Bad("balances.check", {"lock": {"lock_id": "l1"}, "properties": {"x": "y" * 5000}}),
    Bad("balances.check", {"entity_id": "seat_1"}, "entity_not_found", 404),
    Bad("balances.check", {"with_preview": True}, NOT_YET),
    Bad("balances.check", {"expand": ["balance.feature"]}, NOT_YET),
    Bad("balances.check", {"customer_data": {"name": "Ann"}}, NOT_YET),
    Bad("balances.check", {"feature_id": "sso", "send_event": True}, NOT_YET),
    Bad("balances.check", {"customer_id": "nobody", "feature_id": "sso"}, "customer_not_found", 404),
    Bad("balances.check", {"feature_id": "no\x00"}, "feature_not_found", 404),
    Bad("balances.track", {"event_name": "sent"}),
    Bad("balances.track", {"feature_id": None}),
    Bad("balances.track", {"feature_id": None, "event_name": "nothing"}, "invalid_request", 404),
    Bad("balances.track", {"overage_behavior": "explode"}),
    Bad("balances.track", {"overage_behavior": 5}),
    Bad("balances.track", {"timestamp": -1}),
    Bad("balances.track", {"timestamp": 1.5}),
    Bad("balances.track", {"timestamp": "now"}),
    Bad("balances.track", {"timestamp": 1e300}),
    Bad("balances.track", {"value": 1000000, "overage_behavior": "reject"}, "insufficient_balance"),
    Bad("balances.track", {"lock": {"lock_id": "a\nb"}}),
    Bad(
        "balances.track",
        {"value": 1000000, "overage_behavior": "reject", "lock": {}},
        "insufficient_balance",
    ),
    Bad("balances.finalize", {"lock_id": None}),
    Bad("balances.finalize", {"lock_id": "nothing"}, "invalid_request"),
    Bad("balances.finalize", {"action": None}),
    Bad("balances.finalize", {"action": "explode"}),
    Bad("balances.finalize", {"action": "release", "override_value": 1}),
    Bad("balances.finalize", {"properties": []}),
    Bad("balances.finalize", {"properties": {"x": "y" * 5000}}),
    Bad("balances.progress", {"lock_id": "nothing"}, "invalid_request"),
    Bad("balances.progress", {"used": -1}),
    Bad("balances.track", {"entity_id": "seat_1"}, "entity_not_found", 404),
    Bad("balances.track", {"skip_event": True}, NOT_YET),
    Bad("balances.track", {"idempotency_key": ""}),
    Bad("balances.track", {"idempotency_key": "k" * 257}),
    Bad("balances.track", {"idempotency_key": 5}),
    Bad("billing.attach", {"plan_id": None}),
    Bad("billing.attach", {"plan_id": "nothing"}, "product_not_found", 404),
    Bad("billing.attach", {"plan_id": "free"}, "plan_already_attached", 409),
    Bad("billing.attach", {"success_url": "javascript:alert(1)"}),
    Bad("billing.attach", {"success_url": "http://"}),
    Bad("billing.attach", {"success_url": "http://a b/"}),
    Bad("billing.attach", {"success_url": "http://x;script-src 'unsafe-inline'/"}),
    Bad("billing.attach", {"success_url": "http://user:pw@bank.example/"}),
    Bad("billing.attach", {"success_url": "//evil.example"}),
    Bad("billing.attach", {"success_url": "http://x/\r\nSet-Cookie: a=b"}),
    Bad("billing.attach", {"success_url": "http://x/" + "a" * 3000}),
    Bad("billing.attach", {"feature_quantities": [{"feature_id": "usd_credits", "quantity": -1}]}),
    Bad("billing.attach", {"feature_quantities": [{"feature_id": "basic_messages", "quantity": 1}]}),
    Bad("billing.attach", {"feature_quantities": [{"feature_id": "usd_credits", "quantity": 1}] * 2}),
    Bad("billing.attach", {"feature_quantities": {"usd_credits": 1}}),
    Bad("billing.attach", {"redirect_mode": "always"}, NOT_YET),
    Bad("billing.attach", {"free_trial": {"duration_length": 7}}, NOT_YET),
    Bad("billing.attach", {"customize": {"price": None, "items": [{"feature_id": "usd_credits"}]}}, NOT_YET),
    Bad("billing.multi_attach", {"plans": None}),
    Bad("billing.multi_attach", {"plans": []}),
    Bad("billing.multi_attach", {"plans": {"plan_id": "pro"}}),
    Bad("billing.multi_attach", {"plans": ["pro"]}),
    Bad("billing.multi_attach", {"plans": [{"version": 1}]}),
    Bad("billing.multi_attach", {"plans": [{"plan_id": "top_up"}] * 17}),
    Bad("billing.multi_attach", {"plans": [{"plan_id": "pro"}] * 2}),
    Bad("billing.multi_attach", {"plans": [{"plan_id": "pro"}, {"plan_id": "free"}]}),
    Bad("billing.multi_attach", {"plans": [{"plan_id": "top_up"}, {"plan_id": "pro", "version": 0}]}),
    Bad(
        "billing.multi_attach",
        {"plans": [{"plan_id": "top_up"}, {"plan_id": "nothing"}]},
        "product_not_found",
        404,
    ),
    Bad(
        "billing.multi_attach",
        {"plans": [{"plan_id": "top_up"}, {"plan_id": "free"}]},
        "plan_already_attached",
        409,
    ),
    Bad(
        "billing.multi_attach",
        {
            "plans": [
                {"plan_id": "pro"},
                {"plan_id": "top_up", "feature_quantities": [{"feature_id": "usd_credits", "quantity": -1}]},
            ]
        },
    ),
    Bad("billing.multi_attach", {"plans": [{"plan_id": "pro", "entity_id": "seat"}]}, NOT_YET),
    Bad("billing.multi_attach", {"plans": [{"plan_id": "pro", "subscription_id": "sub"}]}, NOT_YET),
    Bad("billing.multi_attach", {"billing_cycle_anchor": "then"}),
    Bad("billing.multi_attach", {"billing_behavior": "none"}, NOT_YET),
    Bad("billing.multi_attach", {"success_url": "javascript:alert(1)"}),
    Bad("billing.preview_attach", {"plan_id": None}),
    Bad("billing.preview_attach", {"plan_id": "nothing"}, "product_not_found", 404),
    Bad("billing.preview_attach", {"plan_id": "free"}, "plan_already_attached", 409),
    Bad("billing.preview_attach", {"customer_id": "nobody"}, "customer_not_found", 404),
    Bad("billing.preview_attach", {"success_url": "javascript:alert(1)"}),
    Bad("billing.preview_attach", {"feature_quantities": [{"feature_id": "sso", "quantity": 1}]}),
    Bad(
        "billing.preview_attach",
        {"feature_quantities": [{"feature_id": "usd_credits", "quantity": 1e14}]},
        "amount_out_of_range",
    ),
    Bad("billing.preview_attach", {"customize": {"price": {"amount": 1, "interval": "month"}}}, NOT_YET),
    Bad("billing.update", {}, NOT_YET),
    Bad("billing.update", {"cancel_action": None}, NOT_YET),
    Bad("billing.update", {"cancel_action": "explode"}),
    Bad("billing.update", {"cancel_action": 5}),
    Bad("billing.update", {"plan_id": "pro"}, "cus_product_not_found", 404),
    Bad("billing.update", {"plan_id": 5}),
    Bad("billing.update", {"subscription_id": "sub_x"}, "cus_product_not_found", 404),
    Bad("billing.update", {"customer_id": "nobody"}, "customer_not_found", 404),
    Bad("billing.update", {"entity_id": "seat_1"}, "entity_not_found", 404),
    Bad("billing.update", {"refund_last_payment": "full"}, NOT_YET),
    Bad("billing.update", {"no_billing_changes": True}, NOT_YET),
    Bad("billing.update", {"feature_quantities": [{"feature_id": "usd_credits", "quantity": 1}]}, NOT_YET),
    Bad("balances.create", {"included_grant": -1}),
    Bad("balances.create", {"included_grant": "1"}),
    Bad("balances.create", {"included_grant": None}),
    Bad("balances.create", {"feature_id": "sso"}),
    Bad("balances.create", {"reset": {"interval": "fortnight"}}),
    Bad("balances.create", {"reset": {"interval": "month", "interval_count": 0}}),
    Bad("balances.create", {"reset": {"interval": "month", "interval_count": 1000000}}),
    Bad("balances.create", {"reset": {}}),
    Bad("balances.create", {"expires_at": 1}),
    Bad("balances.create", {"expires_at": 1e300}),
    Bad("balances.create", {"next_reset_at": 1}),
    Bad("balances.create", {"balance_id": "a\nb"}),
    Bad("balances.create", {"unlimited": True}),
    Bad("balances.create", {"rollover": {"length": 1}}),
    Bad("balances.create", {"reset": {"interval": "month"}, "rollover": {"length": 0}}),
    Bad("balances.create", {"reset": {"interval": "month"}, "rollover": {"length": 1, "max": -1}}),
    Bad("balances.create", {"reset": {"interval": "month"}, "rollover": {"length": 1, "duration": "week"}}),
    Bad("balances.create", {"entity_id": "seat_1"}, "entity_not_found", 404),
    Bad("billing.attach", {"entity_id": "seat_1"}, "entity_not_found", 404),
    Bad("balances.check", {"entity_id": ""}),
    Bad("balances.check", {"entity_id": 5}),
    Bad("balances.check", {"entity_data": {"feature_id": "sso"}}),
    Bad("balances.check", {"entity_id": "seat_1", "entity_data": {"name": "Ann"}}),
    Bad("balances.check", {"entity_id": "seat_1", "entity_data": {"feature_id": "sso"}}),
    Bad(
        "balances.track",
        {"entity_id": "seat_1", "entity_data": {"feature_id": "no"}},
        "feature_not_found",
        404,
    ),
    Bad("balances.list", {"entity_id": "a\nb"}),
    Bad("plans.list", {"customer_id": None, "entity_id": "seat_1"}),
    Bad("plans.create", _item(entity_feature_id="no"), "feature_not_found", 404),
    Bad("plans.create", _item(entity_feature_id="sso")),
    Bad("plans.create", _item(entity_feature_id="basic_messages")),
    Bad("entities.create", {}),
    Bad("entities.create", {"entity_id": None}),
    Bad("entities.create", {"entity_id": "a\nb"}),
    Bad("entities.create", {"entity_id": "x" * 257}),
    Bad("entities.create", {"feature_id": "sso"}),
    Bad("entities.create", {"feature_id": "usd_credits"}),
    Bad("entities.create", {"feature_id": "no"}, "feature_not_found", 404),
    Bad("entities.create", {"customer_id": "nobody", "feature_id": "sso"}),
    Bad("entities.create", {"billing_controls": {"spend_limits": [{"feature_id": "sso"}]}}),
    Bad("entities.create", {"name": 5}),
    Bad("entities.get", {}, "entity_not_found", 404),
    Bad("entities.get", {"customer_id": "nobody"}, "customer_not_found", 404),
    Bad("entities.get", {"customer_id": None}),
    Bad("entities.update", {}),
    Bad("entities.update", {"billing_controls": {}}, "entity_not_found", 404),
    Bad("entities.update", {"billing_controls": {"auto_topups": [{}]}}, NOT_YET),
    Bad("entities.delete", {}, "entity_not_found", 404),
    Bad("entities.list", {"limit": 0}),
    Bad("entities.list", {"start_cursor": "x"}),
    Bad("entities.list", {"customer_id": "nobody"}, "customer_not_found", 404),
    Bad("entities.list", {"plans": [{"id": "pro"}]}, NOT_YET),
    Bad("customers.advance_test_clock", {}),
    Bad("balances.update", {}),
    Bad("balances.update", {"remaining": 1, "usage": 1}),
    Bad("balances.update", {"remaining": 1, "add_to_balance": 1}),
    Bad("balances.update", {"remaining": -1}),
    Bad("balances.update", {"add_to_balance": "1"}),
    Bad("balances.update", {"add_to_balance": 1e99}, "amount_out_of_range"),
    Bad("balances.update", {"included_grant": -1}),
    Bad("balances.update", {"next_reset_at": 1}),
    Bad("balances.update", {"expires_at": 1}, "invalid_request"),
    Bad("balances.update", {"interval": "fortnight", "remaining": 1}),
    Bad("balances.update", {"balance_id": "no", "remaining": 1}, "balance_not_found", 404),
    Bad("balances.update", {"entity_id": "seat_1", "remaining": 1}, "entity_not_found", 404),
    Bad("balances.delete", {"feature_id": None}),
    Bad("balances.delete", {"feature_id": "basic_messages"}, "balance_not_found", 404),
    Bad("balances.list", {"limit": 0}),
    Bad("balances.list", {"start_cursor": "x"}),
    Bad("balances.list", {"statuses": ["gone"]}),
    Bad("customers.advance_test_clock", {"frozen_time": 1}, "invalid_request"),
    Bad("customers.advance_test_clock", {"frozen_time": "2030-01-01"}),
    Bad("customers.advance_test_clock", {"frozen_time": 1.5}),
    Bad("customers.advance_test_clock", {"frozen_time": -1}),
    Bad("customers.advance_test_clock", {"frozen_time": 1e308}),
    Bad("customers.get", {"expand": ["invoices"]}, NOT_YET),
    Bad("customers.get", {"expand": "balances.feature"}),
    Bad("customers.get", {"customer_id": "nobody"}, "customer_not_found", 404),
    Bad("customers.get_or_create", {"metadata": {"x": "y" * 17_000}}),
    Bad("customers.get_or_create", {"metadata": _deep(40)}),
    Bad("balances.track", {"properties": _deep(40)}),
    Bad("plans.create", {"metadata": _deep(900)}),
    Bad("customers.get_or_create", {"metadata": []}),
    Bad("customers.get_or_create", {"name": 5}),
    Bad("customers.get_or_create", {"currency": "eur"}, NOT_YET),
    Bad("customers.get_or_create", {"customer_id": "x", "auto_enable_plan_id": "pro"}, "invalid_request"),
    Bad("customers.list", {"limit": 0}),
    Bad("customers.list", {"limit": 1001}),
    Bad("customers.list", {"limit": 1.5}),
    Bad("customers.list", {"limit": None}),
    Bad("customers.list", {"search": 5}),
    Bad("customers.list", {"search": "a\x00b"}),
    Bad("customers.list", {"search": "x" * 257}),
    Bad("customers.list", {"plans": "pro"}),
    Bad("customers.list", {"plans": ["pro"]}),
    Bad("customers.list", {"plans": [{"id": ""}]}),
    Bad("customers.list", {"plans": [{"id": "pro", "versions": [0]}]}),
    Bad("customers.list", {"plans": [{"id": "pro", "versions": [1.5]}]}),
    Bad("customers.list", {"plans": [{"id": "pro", "versions": [1] * 101}]}),
    Bad("customers.list", {"plans": [{"id": "pro"}] * 101}),
    Bad("customers.list", {"subscription_status": "expired"}),
    Bad("customers.list", {"processors": ["stripe"]}, NOT_YET),
    Bad("customers.list", {"sort_order": "down"}),
    Bad("customers.list", {"created_at_range": {"start": "today"}}),
    Bad("customers.list", {"created_at_range": {"end": 1e300}}),
    Bad("customers.list", {"start_cursor": "bogus"}),
    Bad("customers.list", {"start_cursor": "\u00e9"}),
    Bad("customers.list", {"start_cursor": _cursor("1")}),
    Bad("customers.list", {"start_cursor": _cursor("1" * 30 + ".ann")}),
    Bad("customers.list", {"start_cursor": _cursor("1.a\x00b")}),
    Bad("customers.update", {"customer_id": "nobody"}, "customer_not_found", 404),
    Bad("customers.update", {"new_customer_id": "other"}, NOT_YET),
    Bad("customers.update", {"new_customer_id": CUSTOMER}, NOT_YET),
    Bad("customers.update", {"name": 5}),
    Bad("customers.update", {"email": ["v@example.com"]}),
    Bad("customers.update", {"metadata": "x"}),
    Bad("customers.update", {"metadata": {"x": "y" * 17_000}}),
    Bad("customers.update", {"metadata": _deep(40)}),
    Bad("customers.update", {"send_email_receipts": "yes"}),
    Bad("customers.update", _controls(spend_limits=[{"enabled": True}])),
    Bad("customers.update", _controls(usage_limits=[_limit(feature_id="nothing")]), "feature_not_found", 404),
    Bad("customers.update", _controls(usage_limits=[_limit()] * 33)),
    Bad("customers.update", _controls(auto_topups=[{"feature_id": "usd_credits"}]), NOT_YET),
    Bad("customers.update", {"time_zone": "Europe/Paris"}, NOT_YET),
    Bad("customers.update", {"config": {"disable_pooled_balance": True}}, NOT_YET),
    Bad("customers.update", {"currency": "eur"}, NOT_YET),
    Bad("customers.delete", {"customer_id": "nobody"}, "customer_not_found", 404),
    Bad("customers.delete", {"delete_in_stripe": True}, NOT_YET),
    Bad("events.list", {"start_cursor": _cursor("1" * 30 + ".p00.1-1.0")}),
    Bad("events.list", {"start_cursor": _cursor("1.p00." + "1" * 30 + "-1.0")}),
    Bad("events.list", {"start_cursor": _cursor("1.p00.1-1." + "1" * 30)}),
    Bad("events.list", {"start_cursor": _cursor("1.p\x00.1-1.0")}),
    Bad("events.list", {"limit": 0}),
    Bad("events.list", {"limit": 1001}),
    Bad("events.list", {"limit": "50"}),
    Bad("events.list", {"start_cursor": "bogus"}),
    Bad("events.list", {"custom_range": {"start": "today"}}),
    Bad("balances.batch_list", {"limit": 0}),
    Bad("balances.batch_list", {"limit": 101}),
    Bad("balances.batch_list", {"start_cursor": "x"}),
    Bad("balances.batch_list", {"batch_id": "bat_\x00"}),
    Bad("balances.batch_list", {"batch_id": ""}),
    Bad("balances.batch_list", {"batch_id": 5}),
    Bad("events.list", {"feature_id": "a\x00b"}),
    Bad("events.list", {"filter_by": {"a": "\x00"}}),
    Bad("events.list", {"range": "1y"}),
    Bad("events.list", {"range": "24h", "custom_range": {"start": 1}}),
    Bad("events.list", {"filter_by": {"a b": "x"}}),
    Bad("events.list", {"filter_by": {"a": 1}}),
    Bad("events.list", {"entity_id": "a\nb"}),
    Bad("events.aggregate", {"feature_id": None}),
    Bad("events.aggregate", {"feature_id": []}),
    Bad("events.aggregate", {"feature_id": [""]}),
    Bad("events.aggregate", {"feature_id": [5]}),
    Bad("events.aggregate", {"feature_id": [f"f{n}" for n in range(51)]}),
    Bad("events.aggregate", {"customer_id": ""}),
    Bad("events.aggregate", {"customer_id": "nobody"}, "customer_not_found", 404),
    Bad("events.aggregate", {"range": "1y"}),
    Bad("events.aggregate", {"range": "24h", "custom_range": {"start": 1, "end": 2}}),
    Bad("events.aggregate", {"custom_range": {}}),
    Bad("events.aggregate", {"custom_range": {"start": 2, "end": 2}}),
    Bad("events.aggregate", {"custom_range": {"start": -1, "end": 2}}),
    Bad("events.aggregate", {"custom_range": {"start": 0, "end": 1e300}}),
    Bad("events.aggregate", {"custom_range": {"start": 0, "end": 7e12}}),
    Bad("events.aggregate", {"custom_range": {"start": 0, "end": 1e12}, "bin_size": "hour"}),
    Bad("events.aggregate", {"bin_size": "minute"}),
    Bad("events.aggregate", {"timezone": "Mars/Olympus"}),
    Bad("events.aggregate", {"timezone": "../../etc/passwd"}),
    Bad("events.aggregate", {"timezone": ""}),
    Bad("events.aggregate", {"group_by": "model"}),
    Bad("events.aggregate", {"group_by": "properties."}),
    Bad("events.aggregate", {"group_by": "properties.a..b"}),
    Bad("events.aggregate", {"group_by": "properties.a'b"}),
    Bad("events.aggregate", {"group_by": 'properties.a"b'}),
    Bad("events.aggregate", {"group_by": "properties." + "x" * 300}),
    Bad("events.aggregate", {"group_by": "$feature_id"}),
    Bad("events.aggregate", {"group_by": "$plan_id"}, NOT_YET),
    Bad("events.aggregate", {"filter_by": {f"p{n}": "x" for n in range(6)}}),
    Bad("events.aggregate", {"filter_by": {"a]": "x"}}),
    Bad("events.aggregate", {"filter_by": []}),
    Bad("events.aggregate", {"max_groups": 0}),
    Bad("events.aggregate", {"max_groups": 251}),
    Bad("events.aggregate", {"max_groups": 1.5}),
    Bad("events.aggregate", {"measure": "average"}),
    Bad("events.aggregate", {"aggregate_on": "granted"}),
    Bad("events.aggregate", {"aggregate_on": "deducted", "customer_id": None}, "invalid_request"),
    Bad("events.aggregate", {"entity_id": "a\nb"}),
    Bad(
        "events.aggregate",
        {"range": "90d", "bin_size": "hour", "group_by": "properties.x", "max_groups": 250},
    ),
    Bad("events.list", {"feature_id": [5]}),
    Bad("features.create", {"feature_id": "basic_messages"}, "duplicate_feature_id", 409),
    Bad("features.create", {"feature_id": "a b"}),
    Bad("features.create", {"feature_id": "../etc"}),
    Bad("features.create", {"feature_id": "x" * 129}),
    Bad("features.create", {"feature_id": ""}),
    Bad("features.create", {"name": ""}),
    Bad("features.create", {"type": "magic"}),
    Bad("features.create", {"type": "ai_credit_system"}),
    Bad("features.create", {"consumable": None}),
    Bad("features.create", {"event_names": ["a\nb"]}),
    Bad("features.create", {"combine": "max"}, NOT_YET),
    Bad("features.create", {"credit_schema": [{"metered_feature_id": "basic_messages", "credit_cost": 1}]}),
    Bad("features.create", {"type": "credit_system"}, "invalid_feature"),
    Bad("features.create", _system(credit_cost=-1)),
    Bad("features.create", _system(credit_cost="0.01")),
    Bad("features.create", _system(credit_cost=1.5e-09)),
    Bad("features.create", _system(metered_feature_id="usd_credits"), "invalid_feature"),
    Bad("features.create", _system(metered_feature_id="sso"), "invalid_feature"),
    Bad("features.create", _system(billing_units=1000), NOT_YET),
    Bad("features.create", _system(tiers=[{"to": "inf", "credit_cost": 1}]), NOT_YET),
    Bad("features.create", _system(dimensions={"a": {"credit_cost": 1}}), NOT_YET),
    Bad("plans.create", {"plan_id": "free"}, "product_already_exists"),
    Bad("plans.create", {"plan_id": "a/b"}),
    Bad("plans.create", {"name": ""}),
    Bad("plans.create", {"price": {"amount": 1}}),
    Bad("plans.create", {"price": {"amount": -1, "interval": "month"}}),
    Bad("plans.create", {"price": {"amount": 1, "interval": "hour"}}),
    Bad("plans.create", {"price": {"amount": 1, "interval": "month", "interval_count": 1.5}}),
    Bad("plans.create", {"price": {"amount": 1, "interval": "month"}, "auto_enable": True}),
    Bad("plans.create", {"free_trial": {"duration_length": 0}}),
    Bad("plans.create", {"free_trial": {"duration_length": 7, "duration_type": "hour"}}),
    Bad("plans.create", {"free_trial": {}}),
    Bad("billing.attach", {"version": 9}, "product_not_found", 404),
    Bad("billing.attach", {"version": 0}),
    Bad("billing.attach", {"plan_schedule": "tomorrow"}),
    Bad("billing.attach", {"starts_at": 7000000000000}, "invalid_request"),
    Bad("billing.attach", {"plan_id": "pro", "starts_at": "now"}),
    Bad("billing.attach", {"plan_id": "pro", "ends_at": 1}),
    Bad("billing.attach", {"plan_id": "pro", "carry_over_usages": {}}),
    Bad("plans.create", {"items": {}}),
    Bad("plans.create", _controls(spend_limits=[{"feature_id": "usd_credits"}])),
    Bad("plans.create", _controls(spend_limits=[{"feature_id": "usd_credits", "overage_limit": -1}])),
    Bad(
        "plans.create",
        _controls(spend_limits=[{"feature_id": "nothing", "overage_limit": 1}]),
        "feature_not_found",
        404,
    ),
    Bad(
        "plans.create",
        _controls(usage_limits=[{"feature_id": "usd_credits", "limit": 1, "interval": "hour"}]),
    ),
    Bad("plans.create", _controls(usage_limits=[_limit(filter={"properties": {}})] * 33)),
    Bad("plans.create", _controls(usage_limits=[_limit(filter={"properties": dict.fromkeys("abcde", "1")})])),
    Bad("plans.create", _controls(usage_limits=[_limit(filter={"properties": {"a": []}})])),
    Bad("plans.create", _controls(overage_allowed=[{"feature_id": "usd_credits"}])),
    Bad("customers.get_or_create", {"time_zone": "Mars/Olympus"}),
    Bad("plans.create", _item(feature_id="nothing"), "feature_not_found", 404),
    Bad("plans.create", _item(included=-5)),
    Bad("plans.create", _item(unlimited=True)),
    Bad("plans.create", _item(pooled=True, entity_feature_id="seats")),
    Bad("plans.create", _item(rollover={"expiry_duration_type": "month", "max": 5})),
    Bad("plans.create", _item(reset={"interval": "month"}, rollover={"expiry_duration_type": "day"})),
    Bad("plans.create", _item(expiry={"duration": "month", "length": 1}), NOT_YET),
    Bad("plans.create", _item(feature_id="sso")),
    Bad("plans.create", _priced(billing_method="pay_what_you_want")),
    Bad("plans.create", _priced(max_purchase=10), NOT_YET),
    Bad("plans.create", _priced(tiers=[{"to": "inf", "amount": 1}]), NOT_YET),
    Bad("plans.create", _priced(billing_units=0)),
    Bad("plans.create", _priced(amount=-1)),
)

HEADERS: tuple[tuple[list[tuple[str, str]], int, str], ...] = (
    ([("Idempotency-Key", "a"), ("Idempotency-Key", "b")], 400, "invalid_inputs"),
    ([("Idempotency-Key", "")], 400, "invalid_inputs"),
    ([("Idempotency-Key", "k" * 257)], 400, "invalid_inputs"),
    ([("x-api-version", "2.0.0")], 400, "invalid_api_version"),
    ([("x-api-version", "1.2")], 400, "invalid_api_version"),
    ([("x-api-version", "beta")], 400, "invalid_api_version"),
    ([("x-api-version", "2025-05-05.clover")], 400, "invalid_api_version"),
    ([("x-api-version", "latest")], 400, "invalid_api_version"),
    ([("x-api-version", "2026-13-45")], 400, "invalid_api_version"),
    ([("x-api-version", "")], 400, "invalid_api_version"),
    ([("Host", "evil.example")], 400, "invalid_host"),
    ([("Host", "127.0.0.1.evil.example")], 400, "invalid_host"),
    ([("Origin", "http://evil.example")], 403, "cross_site_request"),
    ([("Origin", "null")], 403, "cross_site_request"),
    ([("Sec-Fetch-Site", "cross-site")], 403, "cross_site_request"),
    ([("Sec-Fetch-Site", "same-site")], 403, "cross_site_request"),
    ([("Authorization", "")], 401, "no_secret_key"),
    ([("Authorization", "Basic YTpi")], 401, "no_secret_key"),
    ([("Authorization", "bearer cg_sk_test_x")], 401, "no_secret_key"),
    ([("Authorization", "Bearer hello")], 401, "invalid_request"),
    ([("Authorization", "Bearer am_sk_test_1234567890")], 401, "invalid_secret_key"),
    ([("Content-Type", "text/plain")], 415, "unsupported_media_type"),
    ([("Content-Type", "application/x-www-form-urlencoded")], 415, "unsupported_media_type"),
    ([("Content-Type", "")], 415, "unsupported_media_type"),
)


@pytest.fixture(scope="module", autouse=True)
def customer(api: ApiClient) -> None:
    """A customer who has used a little, and holds a little."""
    api.ask("customers.get_or_create", {"customer_id": CUSTOMER, "name": "Vic", "email": "v@example.com"})
    body = {"customer_id": CUSTOMER, "feature_id": "basic_messages"}
    api.ask("balances.track", body | {"value": 3})
    api.ask("balances.check", body | {"required_balance": 7, "lock": {"lock_id": "held"}})


@pytest.fixture
def unchanged(api: ApiClient) -> Iterator[None]:
    """Compares everything a caller can see before and after."""
    before = _everything(api)
    yield
    assert _everything(api) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("number", NUMBERS, ids=lambda text: text[:24])
@pytest.mark.parametrize(
    ("verb", "field"), [("balances.check", "required_balance"), ("balances.track", "value")]
)
def test_numbers(api: ApiClient, verb: str, field: str, number: str) -> None:
    """A number that is none, or that we could not keep exactly, is refused before anything is taken."""
    body = f'{{"customer_id":"{CUSTOMER}","feature_id":"basic_messages","{field}":{number}}}'
    answer = api.post(verb, body.encode())
    assert (answer.status_code, answer.json()["code"]) == (400, NUMBERS[number]), answer.text


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("number", NUMBERS, ids=lambda text: text[:24])
@pytest.mark.parametrize(
    ("verb", "field"), [("balances.finalize", "override_value"), ("balances.progress", "used")]
)
def test_numbers_of_a_lock(api: ApiClient, verb: str, field: str, number: str) -> None:
    """A lock is settled at an exact amount, or stays as it is."""
    body = f'{{"lock_id":"held","action":"confirm","{field}":{number}}}'
    answer = api.post(verb, body.encode())
    assert (answer.status_code, answer.json()["code"]) == (400, NUMBERS[number]), answer.text


@pytest.mark.parametrize(
    ("number", "required"),
    [
        ("-0", 0),
        ("0.0", 0),
        ("1.5", 0.015),
        ("5", 0.05),
        ("5.0", 0.05),
        ("0.5e1", 0.05),
        ("1E2", 1),
        ("-1", -0.01),
    ],
)
def test_numbers_that_are_fine(api: ApiClient, number: str, required: float) -> None:
    """Every spelling of a number that JSON allows means the number."""
    body = f'{{"customer_id":"{CUSTOMER}","feature_id":"basic_messages","required_balance":{number}}}'
    answer = api.post("balances.check", body.encode())
    assert (answer.status_code, answer.json()["required_balance"]) == (200, required), answer.text


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("verb", ["balances.check", "balances.track", "customers.get_or_create"])
@pytest.mark.parametrize("name", BODIES)
def test_bodies(api: ApiClient, verb: str, name: str) -> None:
    """A body that is not what JSON says it is gets 400, never a crash."""
    answer = api.post(verb, BODIES[name])
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inputs"), answer.text


def test_a_name_that_comes_twice(api: ApiClient) -> None:
    """The last of two equal names counts, as in JavaScript: we and the application mean the same."""
    body = f'{{"customer_id":"{CUSTOMER}","feature_id":"basic_messages","required_balance":9,"required_balance":2}}'
    assert api.post("balances.check", body.encode()).json()["required_balance"] == 0.02


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("verb", ["balances.check", "balances.track"])
def test_a_body_too_large(api: ApiClient, verb: str) -> None:
    """A large body is refused after 64 KiB, whether its length is announced or not."""
    body = json.dumps({"customer_id": CUSTOMER, "feature_id": "basic_messages", "x": "y" * BODY_BYTES_MAX})
    for content in (body.encode(), iter([body.encode()[:50_000], body.encode()[50_000:]])):
        answer = httpx.post(
            f"{api.sidecar.url}/v1/{verb}", content=content, headers=api.sidecar.headers | JSON, timeout=20
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "verb",
    [
        *("balances.check", "balances.track", "balances.create", "billing.attach"),
        *("customers.get_or_create", "customers.update", "customers.delete"),
        *("billing.preview_attach", "billing.update", "billing.multi_attach"),
    ],
)
@pytest.mark.parametrize("name", IDS)
def test_customer_ids(api: ApiClient, verb: str, name: str) -> None:
    """An id that could not be kept as it is, or that would break a line of a log, is refused."""
    body = {"customer_id": IDS[name], "feature_id": "usd_credits", "plan_id": "free", "included_grant": 1}
    body["plans"] = [{"plan_id": "top_up"}]
    answer = api.call(verb, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inputs"), answer.text
    assert answer.json()["message"].startswith("customer_id: "), answer.text


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("verb", ["balances.check", "balances.finalize", "balances.progress"])
@pytest.mark.parametrize("name", [name for name in IDS if name != "null"])
def test_lock_ids(api: ApiClient, verb: str, name: str) -> None:
    """An id that could not be kept as it is makes no lock and ends none."""
    body = USUAL[verb] | (
        {"lock": {"lock_id": IDS[name]}} if verb == "balances.check" else {"lock_id": IDS[name]}
    )
    answer = api.call(verb, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inputs"), answer.text


def test_customer_ids_that_look_hostile(api: ApiClient) -> None:
    """Any other id is an id like any other, and no two of them share a balance."""
    ids = [
        *("a:b", "a", "{a}", "{a", "a}", "*", "?", "[a-z]", "a b", "a%20b", "%00", "..", "/", "\\", '"', "'"),
        *(
            "a@b.example",
            "é",
            "e\u0301",
            "日本",
            "\u202eabc",
            "😀",
            "x" * ID_BYTES_MAX,
            "$where",
            "null",
            "0",
            "-1",
        ),
        *("a\u2028b", "${jndi:ldap://x}", "{{7*7}}", "<script>", "';--", "\ufeffa", "a\u200bb"),
    ]
    for number, customer_id in enumerate(ids):
        answer = api.ask("customers.get_or_create", {"customer_id": customer_id})
        assert answer["id"] == customer_id
        body = {"customer_id": customer_id, "feature_id": "basic_messages", "value": number}
        api.ask("balances.track", body)
    for number, customer_id in enumerate(ids):
        used = api.ask("customers.get", {"customer_id": customer_id})["balances"]["usd_credits"]["usage"]
        assert used == number / 100, customer_id
        events = api.ask("events.list", {"customer_id": customer_id})["list"]
        assert [(event["customer_id"], event["value"]) for event in events] == [(customer_id, number)]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("bad", CALLS, ids=str)
def test_calls(api: ApiClient, bad: Bad) -> None:
    """What makes no sense, and what we do not do yet, is refused and never half done."""
    answer = api.call(bad.verb, bad.body)
    assert (answer.status_code, answer.json()["code"]) == (bad.status, bad.code), answer.text
    assert set(answer.json()) == {"message", "code", "env"}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("verb", ["balances.check", "balances.track"])
@pytest.mark.parametrize(("headers", "status", "code"), HEADERS, ids=lambda part: str(part)[:60])
def test_headers(api: ApiClient, verb: str, headers: list[tuple[str, str]], status: int, code: str) -> None:
    """A call without a key of ours, from a foreign page, or in a dialect we do not speak is turned away."""
    names = {name.lower() for name, _ in headers}
    usual = [
        (name, value) for name, value in {**api.sidecar.headers, **JSON}.items() if name.lower() not in names
    ]
    body = {"customer_id": CUSTOMER, "feature_id": "basic_messages", "send_event": True}
    answer = httpx.post(
        f"{api.sidecar.url}/v1/{verb}", content=json.dumps(body), headers=[*usual, *headers], timeout=20
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


@pytest.mark.usefixtures("unchanged")
def test_two_keys_for_one_call(api: ApiClient) -> None:
    """A call with a key in its header and another in its body is refused, since only one of them could be kept."""
    body = {"customer_id": CUSTOMER, "feature_id": "basic_messages", "idempotency_key": "body"}
    answer = api.call("balances.track", body, headers={"Idempotency-Key": "header"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inputs")


def test_a_rejected_key_is_not_shown(api: ApiClient) -> None:
    """An error shows enough of a wrong key to recognise it, and the log shows nothing of it."""
    secret = "cg_sk_test_SECRETSECRETSECRET"
    answer = api.call("balances.check", headers={"Authorization": f"Bearer {secret}"})
    assert answer.json()["message"] == "Invalid secret key: cg_sk_test_SECR****"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "SECR" not in (api.sidecar.directory / "log").read_text()
    assert api.sidecar.key not in (api.sidecar.directory / "log").read_text()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_other_methods(api: ApiClient, method: str) -> None:
    """Only POST calls anything, and no answer invites a browser's scripts in (no CORS headers)."""
    answer = httpx.request(
        method, f"{api.sidecar.url}/v1/balances.check", headers=api.sidecar.headers, timeout=20
    )
    assert answer.status_code == 405
    assert method == "HEAD" or answer.json()["code"] == "method_not_allowed"
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/balances.check/", "/v1", "/", "/v2/balances.check", "/%00"]
)
def test_unknown_routes(api: ApiClient, path: str) -> None:
    """A route that is not there says so in JSON, as every error."""
    answer = httpx.post(f"{api.sidecar.url}{path}", headers=api.sidecar.headers, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_request_without_a_host(api: ApiClient) -> None:
    """The parser lets a request without Host through; the host check does not."""
    where = urlsplit(api.sidecar.url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.sampled_from([CUSTOMER, "usd_credits", "basic_messages", "top_up", "month", "metered", "reject"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    *("customer_id", "feature_id", "plan_id", "value", "required_balance", "properties", "timestamp"),
    *("send_event", "expand", "name", "type", "items", "price", "reset", "metadata", "frozen_time"),
    *("included_grant", "interval", "feature_quantities", "credit_schema", "limit", "custom_range"),
    *(
        "event_names",
        "overage_behavior",
        "idempotency_key",
        "success_url",
        "lock",
        "lock_id",
        "action",
        "override_value",
        "used",
        "consumable",
        "start_cursor",
        *(
            "cancel_action",
            "subscription_id",
            "search",
            "plans",
            "sort_order",
            "subscription_status",
            "created_at_range",
            "email",
        ),
        "range",
        "bin_size",
        "group_by",
        "filter_by",
        "timezone",
        "max_groups",
        "aggregate_on",
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    verb=st.sampled_from(VERBS),
    body=st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=6) | JSON_VALUES,
)
def test_anything(api: ApiClient, verb: str, body: Any) -> None:
    """Whatever JSON is sent to whatever route, the answer is one of ours and never a 5xx."""
    answer = api.post(verb, json.dumps(body).encode())
    assert answer.status_code < 500, (verb, body, answer.text)
    assert answer.headers["content-type"] == "application/json"
    assert answer.status_code in (200, 202) or set(answer.json()) == {"message", "code", "env"}


def _everything(api: ApiClient) -> Any:
    return (
        api.ask("customers.get", {"customer_id": CUSTOMER}),
        api.ask("events.list", {"customer_id": CUSTOMER}),
        api.ask("balances.progress", {"lock_id": "held", "used": 0}),
        api.ask("features.list"),
        api.ask("plans.list"),
        api.ask("webhooks.list"),
    )
