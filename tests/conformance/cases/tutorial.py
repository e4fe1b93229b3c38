"""TU: the tutorial. Free gives 5 usd_credits a month; a basic message costs 0.01, a premium one 0.10."""

from tests.conformance.cases.words import (
    ABSENT,
    Ask,
    Case,
    Exactly,
    MonthsAfterCreation,
    allowed,
    balance,
    case,
    check,
    deducted,
    denied,
    item,
    left,
    plan,
    read,
    refused,
    send,
    track,
)

FREE = plan("free", item("usd_credits", 5, "month"), auto_enable=True)
ON_FREE = {"plans": (FREE,), "pinned": False}

# What TU-3 and TU-4 use, one after the other.
BASIC_2 = track("basic_messages", 2)
PREMIUM_2 = track("premium_messages", 2)
SEND_5 = send("premium_messages", 5, allowed(0.5))

CASES: tuple[Case, ...] = (
    case(
        "TU-1",
        "a new customer has the 5 credits of free, until a month after creation",
        read(usd_credits=left(5, 0, 5, next_reset_at=MonthsAfterCreation(1))),
        **ON_FREE,
    ),
    case(
        "TU-2",
        "5 credits are 500 basic messages and not one more; the answer is in credits",
        check("basic_messages", 5, allowed(0.05, **balance(5, feature_id="usd_credits"))),
        check("basic_messages", 500, allowed(5)),
        check("basic_messages", 501, denied(5.01, **balance(5), balances=ABSENT)),
        **ON_FREE,
    ),
    case(
        "TU-3",
        "a track answers what was asked for, what it took, and every balance it could have come from",
        track(
            "basic_messages",
            2,
            {
                "value": 2,
                **balance(4.98, 0.02),
                **deducted(("usd_credits", 0.02)),
                "balances": Exactly({"basic_messages": None, "usd_credits": left(4.98, 0.02)}),
            },
        ),
        **ON_FREE,
    ),
    case(
        "TU-4",
        "a check that sends its event takes what it allows",
        BASIC_2,
        track("premium_messages", 2, balance(4.78, 0.22)),
        send("premium_messages", 5, allowed(0.5, **balance(4.28, 0.72))),
        **ON_FREE,
    ),
    case(
        "TU-5",
        "a track beyond the balance takes what is there; a check that cannot have it all takes nothing",
        BASIC_2,
        PREMIUM_2,
        SEND_5,
        track("premium_messages", 1000, {"value": 1000, **balance(0, 5), **deducted(("usd_credits", 4.28))}),
        send("basic_messages", 1, denied(0.01, **balance(0, 5), balances=ABSENT)),
        read(usd_credits=left(0, 5)),
        **ON_FREE,
    ),
    case(
        "TU-6",
        "a track with reject that cannot have it all is an error, and takes nothing",
        track(
            "premium_messages",
            1000,
            refused("insufficient_balance"),
            status=400,
            overage_behavior="reject",
        ),
        read(usd_credits=left(5, 0)),
        **ON_FREE,
    ),
    case(
        "TU-10",
        "what makes no sense is refused with a code; needing nothing and giving back are always allowed",
        Ask(
            "balances.check",
            {"customer_id": "nobody", "feature_id": "basic_messages"},
            refused("customer_not_found"),
            404,
        ),
        Ask(
            "balances.track",
            {"customer_id": "nobody", "feature_id": "basic_messages"},
            refused("customer_not_found"),
            404,
        ),
        check("images", 1, refused("feature_not_found"), status=404),
        track("images", 1, refused("feature_not_found"), status=404),
        Ask(
            "balances.track",
            {"feature_id": "basic_messages", "value": "2"},
            refused("invalid_inputs"),
            400,
            raw=True,
        ),
        Ask("balances.check", {"required_balance": 1}, refused("invalid_inputs"), 400, raw=True),
        check("basic_messages", 0, allowed(0)),
        check("basic_messages", -1, allowed(-0.01)),
        **ON_FREE,
    ),
)
