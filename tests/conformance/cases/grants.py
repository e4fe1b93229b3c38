"""LO: balances that belong to no plan."""

from tests.conformance.cases.catalog import MESSAGES_100
from tests.conformance.cases.words import (
    FEBRUARY,
    Case,
    Exactly,
    allowed,
    balance,
    case,
    check,
    clock,
    deducted,
    grant,
    item,
    left,
    on,
    plan,
    read,
    refused,
    track,
)

CREDITS_5 = plan("credits-5", item("credits", 5, "month"))

CASES: tuple[Case, ...] = (
    case(
        "LO-1",
        "a drained grant is shown with its usage, until the next reset of the customer",
        on(CREDITS_5),
        grant("messages", 20),
        track("messages", 50, {**balance(0, 20, 20), **deducted(("messages", 20))}),
        read(messages=left(0, 20, 20)),
        clock(FEBRUARY),
        read({"balances": Exactly({"credits": left(5)})}),
    ),
    case(
        "LO-3",
        "a balance has the id that it was given, once for each customer",
        grant("messages", 100, balance_id="first"),
        grant("messages", 5, status=409, balance_id="first"),
        grant("messages", 200, balance_id="second"),
        read(messages=left(300, 0, 300, breakdown=[{"id": "first"}, {"id": "second"}])),
        track("messages", 150, {"deductions": [{"balance_id": "first"}, {"balance_id": "second"}]}),
    ),
    case(
        "LO-3",
        "another customer's balance may have the same id",
        grant("messages", 100, balance_id="first"),
        grant("messages", 100, balance_id="first", customer="-b"),
        read(messages=left(100)),
        read(messages=left(100), customer="-b"),
    ),
    case(
        "LO-4",
        "a grant belongs to no plan",
        grant("messages", 100),
        track("messages", 10, {"deductions": [{"plan_id": None}], **balance(90, 10)}),
        read(messages=left(90, breakdown=[left(90, 10, plan_id=None)])),
    ),
    case(
        "LO-4",
        "a grant is used bit by bit",
        grant("messages", 100),
        track("messages", 20, balance(80, 20)),
        track("messages", 30, balance(50, 50)),
    ),
    case(
        "LO-4",
        "a grant beside a plan is one balance with it",
        on(MESSAGES_100),
        grant("messages", 50),
        read(messages=left(150, 0, 150)),
        track("messages", 120, balance(30, 120)),
    ),
    case(
        "1.3",
        "a grant can be unlimited, and says nothing else then",
        grant("messages", unlimited=True),
        check("messages", 10**9, allowed(10**9)),
        grant("words", 5, unlimited=True, status=400),
        grant("words", status=400),
        grant("dashboard", 1, status=400),
        read({"balances": Exactly({"messages": left(0, unlimited=True)})}),
        track("images", 1, refused("feature_not_found"), status=404),
    ),
)
