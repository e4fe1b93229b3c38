"""UP, and what stands under other numbers about `balances.update`: balances that are set by hand."""

from tests.conformance.cases.catalog import CREDITS_100, MESSAGES_100, USERS_5
from tests.conformance.cases.words import (
    DAY,
    FEBRUARY,
    T0,
    Case,
    Exactly,
    balance,
    case,
    clock,
    grant,
    item,
    left,
    on,
    plan,
    read,
    track,
    update,
)

CREDITS_12 = plan("credits-12", item("credits", 12, "month"))

CASES: tuple[Case, ...] = (
    case(
        "PR-5",
        "a balance that is set is exactly what was said, and so is what is used of it",
        on(CREDITS_100),
        update("credits", remaining=72.65),
        read(credits=left(72.65, 27.35, 100)),
        track("credits", 27.35, balance(45.3, 54.7)),
        update("credits", remaining=50.5),
        read(credits=left(50.5, 49.5)),
        update("credits", remaining=0.01),
        read(credits=left(0.01, 99.99)),
    ),
    case(
        "NG-4",
        "seats that are set have their new number as the most that can be given back",
        on(USERS_5),
        update("users", remaining=10, included_grant=10),
        read(users=left(10, 0, 10)),
        track("users", 5, balance(5, 5)),
        track("users", -100, balance(10, 0)),
    ),
    case(
        "UP-2",
        "a grant can be raised together with what remains of it",
        on(MESSAGES_100),
        update("messages", remaining=100, included_grant=150),
        read(messages=left(100, 50, 150)),
        track("messages", -80, balance(150, 0)),
    ),
    case(
        "UP-2",
        "with an interval, only the balance that resets so is set",
        on(MESSAGES_100),
        grant("messages", 50),
        update("messages", remaining=50, included_grant=75, interval="month"),
        read(messages=left(100, 25, 125, breakdown=[left(50, 25), left(50, 0)])),
    ),
    case(
        "UP-2",
        "what was raised by hand is raised for this period",
        on(MESSAGES_100),
        update("messages", remaining=100, included_grant=150),
        clock(FEBRUARY),
        read(messages=left(100, 0, 100)),
    ),
    case(
        "3.9",
        "usage can be set, and what is added has no ceiling",
        on(CREDITS_12),
        update("credits", usage=10),
        read(credits=left(2, 10, 12)),
        update("credits", add_to_balance=12),
        read(credits=left(14, -2, 12)),
        update("credits", usage=15),
        read(credits=left(0, 15, 12)),
        track("credits", 1, balance(0, 15)),
        update("credits", add_to_balance=4),
        read(credits=left(1, 11, 12)),
    ),
    case(
        "RS-9",
        "the next reset can be moved; the balance stays, and what never resets has none",
        on(MESSAGES_100),
        grant("messages", 1000),
        track("messages", 30),
        update("messages", next_reset_at=FEBRUARY + 7 * DAY),
        read(messages=left(1070, 30, next_reset_at=FEBRUARY + 7 * DAY)),
        update("messages", next_reset_at=T0 + DAY, interval="month"),
        update("messages", next_reset_at=T0 + DAY, interval="one_off", status=400),
        read(
            messages={"breakdown": [left(70), left(1000, reset={"interval": "one_off", "resets_at": None})]}
        ),
        clock(T0 + DAY),
        read(messages=left(1100, 0, next_reset_at=FEBRUARY + DAY)),
    ),
    case(
        "OV-9",
        "setting usage by hand neither counts on a cap nor passes it",
        on(MESSAGES_100),
        track("messages", 3, balance(97)),
        update("messages", usage=50),
        read({"billing_controls": {"usage_limits": [{"usage": 3}]}}, messages=left(50, 50)),
        track("messages", 10, balance(48, 52)),
        update("messages", usage=0),
        track("messages", 10, balance(100, 0)),
        made_with={
            "billing_controls": {
                "usage_limits": [{"feature_id": "messages", "limit": 5, "interval": "month"}]
            }
        },
    ),
    case(
        "3.9",
        "what is not there cannot be set",
        update("messages", remaining=5, status=404),
        update("images", remaining=5, status=404),
        on(MESSAGES_100),
        update("messages", status=400),
        update("messages", remaining=5, usage=5, status=400),
        update("messages", remaining=-5, status=400),
        read({"balances": Exactly({"messages": left(100, 0)})}),
    ),
)
