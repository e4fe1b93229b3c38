"""CK: whether a customer may, what of, and what the answer shows."""

from tests.conformance.cases.catalog import CREDITS_100, MESSAGES_100, USERS_5
from tests.conformance.cases.words import (
    ABSENT,
    Case,
    Exactly,
    allowed,
    balance,
    case,
    check,
    deducted,
    denied,
    events,
    grant,
    item,
    left,
    on,
    pay_per_use,
    plan,
    prepaid,
    read,
    send,
    together,
    track,
)

BOTH = plan("action1-50-credits-100", item("action1", 50, "month"), item("credits", 100, "month"))
CREDITS_1000 = plan("credits-1000", item("credits", 1000, "month"))
PAY_PER_USE_ACTION1 = plan("pay-per-use-action1", item("action1", 0, "month", price=pay_per_use()), price=20)
ACTION1_ONLY = plan("action1-only", item("action1", 100, "month"))
DASHBOARD = plan("dashboard", item("dashboard"))
MESSAGES_1000 = plan("messages-1000", item("messages", 1000, "month"))
UNLIMITED = plan("unlimited", item("messages", unlimited=True))
UNLIMITED_BOTH = plan(
    "unlimited-messages-credits", item("messages", unlimited=True), item("credits", unlimited=True)
)
PAY_PER_USE_100 = plan("pay-per-use-100", item("messages", 100, "month", price=pay_per_use()), price=20)
PREPAID_100 = plan("prepaid-100", item("messages", 100, price=prepaid()), price=20)

CASES: tuple[Case, ...] = (
    case(
        "CK-1",
        "the answer is in credits, at the cost of the feature that was asked for",
        on(CREDITS_100),
        check("action1", 50.75, allowed(10.15, **balance(100, feature_id="credits"))),
        check("action2", 50.75, allowed(30.45, **balance(100, feature_id="credits"))),
        check("action2", 167.33, denied(100.398, **balance(100, feature_id="credits"))),
    ),
    case(
        "CK-3",
        "the own balance answers while it can, then the credits",
        on(BOTH),
        check("action1", 25.5, allowed(25.5, **balance(50, feature_id="action1"))),
        check("action1", 60, allowed(12, **balance(100, feature_id="credits"))),
        check("action1", 510, denied(102, **balance(100, feature_id="credits"))),
        track("action1", 50),
        check("action1", 25.5, allowed(5.1, **balance(100, feature_id="credits"))),
    ),
    case(
        "CK-3",
        "a check that sends its event may span both, and is answered by the pool that a check would choose",
        on(BOTH),
        send(
            "action1",
            60,
            allowed(
                12,
                **balance(98, feature_id="credits"),
                balances=Exactly({"action1": left(0), "credits": left(98), "credits3": None}),
            ),
        ),
        send("action1", 491, denied(98.2, **balance(98, feature_id="credits"))),
        events({"value": 60, **deducted(("action1", 50), ("credits", 2))}),
    ),
    case(
        "CK-4",
        "a check of a member that sends its event takes credits",
        on(CREDITS_1000),
        send("action1", 25.75, allowed(5.15, **balance(994.85, 5.15, feature_id="credits"))),
    ),
    case(
        "CK-5",
        "what is paid later is allowed with nothing included",
        on(PAY_PER_USE_ACTION1),
        check("action1", 1, allowed(1, **balance(0, 0, 0, feature_id="action1", overage_allowed=True))),
        send("action1", 7, allowed(7, **balance(0, 7))),
    ),
    case(
        "CK-7",
        "who has the feature has not the credits that price it",
        on(ACTION1_ONLY),
        check("action1", 1, allowed(1)),
        check("credits", 1, denied(1, balance=None)),
    ),
    case(
        "CK-8",
        "without a plan nothing is allowed, and there is no balance to show",
        check("messages", None, denied(1, balance=None, flag=None)),
    ),
    case(
        "CK-8",
        "an on/off feature is allowed by its flag",
        check("dashboard", None, denied(1, balance=None, flag=None)),
        on(DASHBOARD),
        check(
            "dashboard",
            None,
            allowed(
                1, balance=None, flag={"plan_id": "dashboard", "feature_id": "dashboard", "expires_at": None}
            ),
        ),
        send("dashboard", 1, {"code": "invalid_request"}, status=400),
    ),
    case("CK-8", "what is there is allowed", on(MESSAGES_1000), check("messages", 1000, allowed(1000))),
    case(
        "CK-8",
        "what is unlimited is allowed",
        on(UNLIMITED),
        check("messages", 10_000_000, allowed(balance=left(0, 0, 0, unlimited=True, overage_allowed=False))),
    ),
    case(
        "CK-8",
        "what is paid later is allowed beyond the balance",
        on(PAY_PER_USE_100),
        check("messages", 101, allowed(101, **balance(100, 0, 100, overage_allowed=True, max_purchase=None))),
        track("messages", 150, balance(0, 150)),
        check("messages", 1000, allowed()),
    ),
    case(
        "CK-8",
        "monthly and lifetime units are one balance of two rows",
        grant("messages", 1000),
        on(MESSAGES_100),
        check(
            "messages",
            1100,
            allowed(
                **balance(
                    1100,
                    0,
                    1100,
                    breakdown=[
                        left(
                            100,
                            reset={"interval": "month", "resets_at": 1896134400000},
                            plan_id="messages-100",
                        ),
                        left(1000, reset={"interval": "one_off", "resets_at": None}, plan_id=None),
                    ],
                )
            ),
        ),
        check("messages", 1101, denied()),
    ),
    case(
        "CK-10",
        "what is included and what was bought are one balance",
        on(PREPAID_100, messages=600),
        check("messages", 599, allowed(599, **balance(600, 0, 600))),
        check("messages", 601, denied(601)),
        read(messages={"breakdown": [{"included_grant": 100, "prepaid_grant": 500, "remaining": 600}]}),
    ),
    case(
        "CK-14",
        "of seven checks at once that each take a seat of five, five pass",
        on(USERS_5),
        together(*(send("users", 1, {}),) * 7, let_through=5),
        read(users=left(0, 5)),
        check("users", 1, denied(1)),
        track("users", 1, balance(0, 6)),
    ),
    case(
        "CK-16",
        "unlimited balances count what was used, a member's at its cost",
        on(UNLIMITED_BOTH),
        send("messages", 1000, allowed(1000, balance={"usage": 1000, "unlimited": True})),
        send(
            "action1", 1000, allowed(200, balance={"usage": 200, "unlimited": True, "feature_id": "credits"})
        ),
        track("action1", -500, {"balance": {"usage": 100}}),
    ),
    case(
        "CK-17",
        "who has nothing is denied, unless nothing is needed",
        send("messages", 10, denied(10, balance=None, balances=ABSENT)),
        send("messages", 0, allowed(0, balance=None)),
        events({"value": 0, "deductions": []}),
    ),
    case(
        "2.2",
        "needing nothing is allowed on an empty balance, and giving back too",
        on(MESSAGES_100),
        track("messages", 100),
        check("messages", 0, allowed(0)),
        check("messages", -5, allowed(-5)),
        send("messages", 0, allowed(0)),
        send("messages", -5, allowed(-5, **balance(5, 95))),
    ),
)
