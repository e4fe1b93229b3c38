"""CR: one pool that several features draw on, at a cost each."""

from tests.conformance.cases.catalog import CREDITS_100
from tests.conformance.cases.overage import limited_to
from tests.conformance.cases.words import (
    ABSENT,
    FEBRUARY,
    Case,
    Exactly,
    balance,
    case,
    clock,
    deducted,
    denied,
    item,
    left,
    on,
    pay_per_use,
    plan,
    read,
    refused,
    rolled,
    rollover,
    send,
    track,
)

OWN_AND_CREDITS = plan("own-and-credits", item("action1", 100, "month"), item("credits", 200, "month"))
WITH_MESSAGES = plan(
    "own-credits-messages",
    item("action1", 100, "month"),
    item("credits", 200, "month"),
    item("messages", 10, "month"),
)
PAY_PER_USE_CREDITS = plan(
    "pay-per-use-credits", item("credits", 100, "month", price=pay_per_use()), price=20
)
ROLLING_CREDITS = plan("rolling-credits", item("credits", 100, "month", rollover=rollover(500)))

CASES: tuple[Case, ...] = (
    case(
        "CR-1",
        "tracking the credits themselves is one to one, and names no other balance",
        on(CREDITS_100),
        track(
            "credits",
            27.35,
            {"value": 27.35, **balance(72.65, 27.35, feature_id="credits"), "balances": ABSENT},
        ),
    ),
    case(
        "CR-3",
        "the own balance gives before the credits, and the answer shows both",
        on(OWN_AND_CREDITS),
        track(
            "action1",
            40.5,
            {
                **balance(59.5, 40.5, feature_id="action1"),
                "balances": {"action1": left(59.5, 40.5), "credits": left(200, 0)},
                **deducted(("action1", 40.5)),
            },
        ),
    ),
    case(
        "CR-4",
        "what the own balance lacks is paid in credits, at their cost",
        on(OWN_AND_CREDITS),
        track("action1", 40.5),
        track(
            "action1",
            80,
            {
                "value": 80,
                **balance(0, 100, feature_id="action1"),
                "balances": {"action1": left(0, 100), "credits": left(195.9, 4.1)},
                **deducted(("action1", 59.5), ("credits", 4.1)),
            },
        ),
    ),
    case(
        "CR-5",
        "once the own balance is empty, the credits give and answer",
        on(OWN_AND_CREDITS),
        track("action1", 120.5),
        track("action1", 50.75, balance(185.75, 14.25, feature_id="credits")),
    ),
    case(
        "CR-7",
        "the balances of an answer are the feature and all systems that price it, null where there is none",
        on(WITH_MESSAGES),
        track(
            "action1", 1, {"balances": Exactly({"action1": left(99), "credits": left(200), "credits3": None})}
        ),
        track("messages", 1, {"balances": ABSENT}),
        track("credits", 1, {"balances": ABSENT}),
    ),
    case(
        "CR-9",
        "credits that rolled over are used first, also by a feature that is paid in credits",
        on(ROLLING_CREDITS),
        track("action1", 200, balance(60, 40)),
        clock(FEBRUARY),
        read(credits=left(160, 0, 160, rollovers=rolled(60))),
        track("action1", 250, {**balance(110, 50, 160, rollovers=rolled(10)), **deducted(("credits", 50))}),
        track("action1", 100, {**balance(90, 70, rollovers=rolled(0))}),
    ),
    case(
        "CR-10",
        "a spend limit on credits is counted in credits, whatever feature they pay for",
        on(PAY_PER_USE_CREDITS),
        track("action1", 600, balance(0, 120, overage_allowed=True)),
        track("action1", 50, {"value": 50, **balance(0, 125), **deducted(("credits", 5))}),
        track("action1", 5, refused("insufficient_balance"), status=400, overage_behavior="reject"),
        send("action1", 5, denied(1)),
        **limited_to(25, "credits"),
    ),
)
