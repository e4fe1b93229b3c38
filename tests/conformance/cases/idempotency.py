"""ID: a call that is made twice. As Autumn answers it, and as this sidecar does unless told otherwise."""

from tests.conformance.cases.catalog import CREDITS_100, MESSAGES_100
from tests.conformance.cases.words import (
    Ask,
    Case,
    allowed,
    balance,
    case,
    events,
    left,
    on,
    read,
    refused,
    track,
)

DUPLICATE = refused("duplicate_idempotency_key")
AUTUMN = {"idempotency": "autumn"}

CASES: tuple[Case, ...] = (
    case(
        "ID-1",
        "the same key in the body is taken once; the second is a conflict",
        on(MESSAGES_100),
        track("messages", 10, balance(90), idempotency_key="k"),
        track("messages", 10, DUPLICATE, status=409, idempotency_key="k"),
        track("messages", 11, DUPLICATE, status=409, idempotency_key="k"),
        read(messages=left(90, 10)),
        **AUTUMN,
    ),
    case(
        "ID-1",
        "the same key is taken once; the second gets the first answer, or an error if it asks for something else",
        on(CREDITS_100),
        track(
            "action1",
            10,
            {"value": 10, **balance(98), "deductions": [{"value": 2}]},
            idempotency_key="k",
        ),
        track("credits", 1, balance(97)),
        track(
            "action1",
            10,
            {"value": 10, **balance(97), "deductions": [{"value": 2}]},
            idempotency_key="k",
        ),
        track("action1", 11, refused("idempotency_key_reused"), status=422, idempotency_key="k"),
        read(credits=left(97, 3)),
    ),
    case(
        "ID-3",
        "a key whose call was refused is free for the next try",
        on(MESSAGES_100),
        track(
            "messages",
            101,
            refused("insufficient_balance"),
            status=400,
            overage_behavior="reject",
            idempotency_key="k",
        ),
        track("no-such-feature", 1, refused("feature_not_found"), status=404, idempotency_key="k"),
        track("messages", 10, balance(90), idempotency_key="k"),
        track("messages", 10, DUPLICATE, status=409, idempotency_key="k"),
        **AUTUMN,
    ),
    case(
        "ID-4",
        "a key in the header and the same key in the body are two keys",
        on(MESSAGES_100),
        track("messages", 10, balance(90), header_key="k"),
        track("messages", 10, balance(80), idempotency_key="k"),
        track("messages", 10, DUPLICATE, status=409, header_key="k"),
        track("messages", 10, DUPLICATE, status=409, idempotency_key="k"),
        read(messages=left(80, 20)),
        **AUTUMN,
    ),
    case(
        "ID-5",
        "a track that is sent as async is taken once",
        on(MESSAGES_100),
        Ask("balances.track", {"feature_id": "messages", "value": 3, "async": True, "idempotency_key": "k"}),
        Ask(
            "balances.track",
            {"feature_id": "messages", "value": 3, "async": True, "idempotency_key": "k"},
            DUPLICATE,
            409,
        ),
        read(messages=left(97, 3)),
        **AUTUMN,
    ),
    case(
        "ID-7",
        "the same key of two customers is two keys",
        on(MESSAGES_100),
        on(MESSAGES_100, customer="-b"),
        track("messages", 10, balance(90), header_key="k"),
        track("messages", 10, balance(90), header_key="k", customer="-b"),
        **AUTUMN,
    ),
    case(
        "3.8",
        "a check that sends its event accepts a key too",
        on(MESSAGES_100),
        Ask(
            "balances.check",
            {"feature_id": "messages", "required_balance": 10, "send_event": True},
            allowed(10, **balance(90)),
            header_key="k",
        ),
        Ask(
            "balances.check",
            {"feature_id": "messages", "required_balance": 10, "send_event": True},
            allowed(10, **balance(90)),
            header_key="k",
        ),
        events({"value": 10}),
    ),
)
