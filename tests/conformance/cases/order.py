"""OR: which balance gives first."""

from tests.conformance.cases.words import (
    DAY,
    T0,
    Case,
    allowed,
    balance,
    case,
    check,
    deducted,
    grant,
    item,
    left,
    on,
    pay_per_use,
    plan,
    prepaid,
    read,
    send,
    track,
)

MESSAGES_500 = plan("messages-500", item("messages", 500, "month"))
MAIN_1000 = plan("main-1000", item("messages", 1000, "month"))
ADD_ON_500 = plan("add-on-500", item("messages", 500, "month"), add_on=True)
UNLIMITED = plan("unlimited", item("messages", unlimited=True))
MESSAGES_10 = plan("messages-10", item("messages", 10, "month"))
PAY_PER_USE_100 = plan("pay-per-use-100", item("messages", 100, "month", price=pay_per_use()), price=20)
TOP_UP = plan("messages-top-up", item("messages", price=prepaid("one_off")), add_on=True)


def _rows(*remaining: float) -> dict[str, object]:
    """An answer with a breakdown of which so much is left, in burn order."""
    return {"balance": {"breakdown": [left(each) for each in remaining]}}


CASES: tuple[Case, ...] = (
    case(
        "OR-1",
        "what comes back each month is used before what never does",
        grant("messages", 200),
        on(MESSAGES_500),
        track("messages", 100, balance(600, 100) | _rows(400, 200)),
        track("messages", 450, balance(150, 550)),
        read(messages=left(150, 550, 700, breakdown=[left(0, 500), left(150, 50)])),
    ),
    case(
        "OR-3",
        "a plan gives before its add-on",
        on(ADD_ON_500),
        on(MAIN_1000),
        track("messages", 500, balance(1000, 500, 1500)),
        read(
            messages=left(1000, breakdown=[left(500, plan_id="main-1000"), left(500, plan_id="add-on-500")])
        ),
        track("messages", 800, balance(200, 1300)),
        track("messages", 200, balance(0, 1500, 1500)),
    ),
    case(
        "OR-5",
        "of two grants the one that expires sooner is used first, whichever came first",
        grant("credits", 100, balance_id="year", expires_at=T0 + 365 * DAY),
        grant("credits", 100, balance_id="month", expires_at=T0 + 30 * DAY),
        track("credits", 60, balance(140)),
        read(credits={"breakdown": [left(40, id="month"), left(100, id="year")]}),
    ),
    case(
        "OR-6",
        "with an unlimited balance the whole is unlimited, and nothing else is touched",
        grant("messages", 50),
        on(UNLIMITED),
        check("messages", 999_999, allowed(999_999)),
        track(
            "messages",
            70,
            {
                "balance": left(0, 70, 0, unlimited=True, breakdown=[left(0, 70, unlimited=True)]),
                **deducted(("messages", 70)),
            },
        ),
        read(messages=left(0, 70, 0, unlimited=True)),
    ),
    case(
        "OR-6",
        "an own unlimited balance goes before unlimited credits, in a check as in a track",
        grant("credits", unlimited=True),
        grant("action1", unlimited=True),
        check("action1", 5, allowed(5, balance={"feature_id": "action1", "unlimited": True})),
        send("action1", 5, allowed(5, balance={"feature_id": "action1", "usage": 5})),
        read(action1=left(0, 5), credits=left(0, 0)),
    ),
    case(
        "OR-6",
        "unlimited credits go before a limited balance of the feature's own",
        grant("action1", 100),
        grant("credits", unlimited=True),
        track(
            "action1",
            5,
            {**deducted(("credits", 1)), "balance": {"feature_id": "credits", "unlimited": True, "usage": 1}},
        ),
        read(action1=left(100, 0)),
    ),
    case(
        "OR-7",
        "the 10 of the month are used before a grant that is kept",
        grant("messages", 50),
        on(MESSAGES_10),
        track("messages", 15, balance(45) | _rows(0, 45)),
        track("messages", 30, balance(15)),
    ),
    case(
        "3.2",
        "a balance that stops at zero gives before one that is paid later, within the month and for good",
        on(PAY_PER_USE_100),
        on(TOP_UP, messages=40),
        track("messages", 130, balance(10)),
        read(messages={"breakdown": [left(0, 100), left(10, 30)]}),
        track("messages", 20, balance(0, 150, 140)),
        read(messages={"breakdown": [left(0, 110), left(0, 40)]}),
    ),
)
