"""OV-1 to OV-6: beyond the balance. Modes of a track, what is paid later, spend limits, `overage_allowed`."""

from tests.conformance.cases.catalog import CREDITS_100, MESSAGES_100, USERS_5
from tests.conformance.cases.words import (
    Body,
    Case,
    allowed,
    balance,
    case,
    check,
    deducted,
    denied,
    grant,
    item,
    left,
    on,
    pay_per_use,
    plan,
    prepaid,
    read,
    refused,
    send,
    track,
)

PAY_PER_USE_100 = plan("pay-per-use-100", item("messages", 100, "month", price=pay_per_use()), price=20)
PAY_PER_USE_300 = plan(
    "pay-per-use-100-max-300", item("messages", 100, "month", price=pay_per_use(300)), price=20
)
PAY_PER_USE_200 = plan(
    "pay-per-use-200", item("messages", 200, "month", price=pay_per_use()), price=20, add_on=True
)
PREPAID_100 = plan("prepaid-100", item("messages", 100, price=prepaid()), price=20)
BOTH = plan("action1-10-credits-100", item("action1", 10, "month"), item("credits", 100, "month"))

REJECT: Body = {"overage_behavior": "reject"}
OVERFLOW: Body = {"overage_behavior": "overflow"}
INSUFFICIENT = refused("insufficient_balance")


def limited_to(credits: float, feature: str = "messages", **more: object) -> Body:
    """A customer who may go so far below zero."""
    limit = {"feature_id": feature, "overage_limit": credits, "enabled": True, **more}
    return {"made_with": {"billing_controls": {"spend_limits": [limit]}}}


def overage(feature: str, *, enabled: bool) -> Body:
    """A customer who may, or may not, go below zero."""
    said = {"feature_id": feature, "enabled": enabled}
    return {"made_with": {"billing_controls": {"overage_allowed": [said]}}}


MODES: tuple[Case, ...] = (
    case(
        "OV-1",
        "overflow takes what is not there, and what is owed is not taken by the next cap",
        on(MESSAGES_100),
        track("messages", 150, {**balance(0, 150), **deducted(("messages", 150))}, **OVERFLOW),
        check("messages", 1, denied(1)),
        track("messages", 10, {"value": 10, **balance(0, 150), "deductions": []}),
        track("messages", 10, INSUFFICIENT, status=400, **REJECT),
        read(messages=left(0, 150)),
    ),
    case(
        "OV-1",
        "overflow beyond all pools lands on the first",
        on(BOTH),
        track(
            "action1",
            600,
            {
                **deducted(("action1", 100), ("credits", 100)),
                "balances": {"action1": left(0, 100), "credits": left(0, 100)},
            },
            **OVERFLOW,
        ),
    ),
    case(
        "OV-4",
        "what is given back with overflow has no ceiling",
        on(MESSAGES_100),
        track("messages", 30, balance(70)),
        track("messages", -50, balance(120, -20, 100), **OVERFLOW),
        track("messages", -5, balance(120, -20, 100)),
    ),
    case(
        "1.2",
        "a bound on what is paid later holds, in every mode but overflow",
        on(PAY_PER_USE_300),
        check("messages", 400, allowed(400, **balance(100, 0, 100, overage_allowed=True, max_purchase=300))),
        check("messages", 401, denied(401)),
        track("messages", 401, INSUFFICIENT, status=400, **REJECT),
        track("messages", 1000, {**balance(0, 400), **deducted(("messages", 400))}),
        check("messages", 1, denied(1)),
        check("messages", 0, allowed(0)),
        track("messages", 50, balance(0, 450), **OVERFLOW),
        check("messages", 0, allowed(0)),
        track("messages", 1, {**balance(0, 450), "deductions": []}),
        track("messages", -500, balance(100, 0)),
    ),
    case(
        "1.2",
        "a balance beyond its bound takes nothing from what another one has",
        on(PAY_PER_USE_300),
        track("messages", 500, **OVERFLOW),
        grant("messages", 20),
        check("messages", 20, allowed(20, **balance(20))),
        send("messages", 20, allowed(20, **balance(0))),
    ),
)

SPEND_LIMITS: tuple[Case, ...] = (
    case(
        "OV-3",
        "overflow goes no further below zero than the spend limit",
        grant("messages", 1000),
        on(PAY_PER_USE_100),
        track("messages", 1120, balance(0, 1120)),
        track("messages", 10, balance(0, 1125), **OVERFLOW),
        track("messages", 1, {**balance(0, 1125), "deductions": []}, **OVERFLOW),
        **limited_to(25),
    ),
    case(
        "OV-6",
        "a spend limit stands above what the price would allow",
        grant("messages", 1000),
        on(PAY_PER_USE_300),
        check("messages", 1125, allowed(1125)),
        check("messages", 1126, denied(1126)),
        track("messages", 1120, balance(0, 1120)),
        check("messages", 5, allowed(5)),
        check("messages", 6, denied(6)),
        track("messages", 10, balance(0, 1125)),
        track("messages", 1, INSUFFICIENT, status=400, **REJECT),
        send("messages", 1, denied(1)),
        check("messages", 0, allowed(0)),
        **limited_to(25),
    ),
    case(
        "OV-6",
        "a spend limit counts what is owed, after all that was bought",
        on(PREPAID_100, messages=600),
        on(PAY_PER_USE_200),
        track("messages", 820, balance(0, 820)),
        track("messages", 10, balance(0, 825)),
        **limited_to(25),
    ),
    case(
        "OV-6",
        "a limit that is switched off is as if it were not there",
        on(PAY_PER_USE_100),
        track("messages", 120, balance(0, 120)),
        track("messages", 10, balance(0, 130), **REJECT),
        **limited_to(25, enabled=False),
    ),
    case(
        "1.5",
        "with a limit of nothing, nothing is owed",
        on(PAY_PER_USE_100),
        check("messages", 101, denied(101)),
        track("messages", 101, balance(0, 100)),
        **limited_to(0),
    ),
    case(
        "1.5",
        "what is owed already is not taken from what is there",
        on(PAY_PER_USE_100),
        track("messages", 125, balance(0, 125)),
        grant("messages", 50),
        check("messages", 50, allowed(50, **balance(50))),
        check("messages", 51, denied(51)),
        track("messages", 60, balance(0, 175)),
        **limited_to(25),
    ),
    case(
        "1.5",
        "a spend limit gives a balance no overage that has none",
        on(MESSAGES_100),
        check("messages", 101, denied(101)),
        track("messages", 120, balance(0, 100)),
        **limited_to(25),
    ),
    case(
        "1.5",
        "of the limits of customer and plan the smaller holds",
        on(
            plan(
                "pay-per-use-limit-10",
                item("messages", 100, "month", price=pay_per_use()),
                price=20,
                billing_controls={
                    "spend_limits": [{"feature_id": "messages", "overage_limit": 10, "enabled": True}]
                },
            )
        ),
        track("messages", 200, balance(0, 110)),
        read(
            {
                "billing_controls": {
                    "spend_limits": [
                        {"overage_limit": 25, "source": "customer", "enabled": True},
                        {"overage_limit": 10, "source": "plan", "enabled": True},
                    ]
                }
            }
        ),
        **limited_to(25),
    ),
)

OVERAGE_ALLOWED: tuple[Case, ...] = (
    case(
        "1.5",
        "who may go below zero does so without a price, and is not billed for it",
        on(MESSAGES_100),
        check("messages", 1000, allowed(1000, **balance(100, 0, 100, overage_allowed=True))),
        track("messages", 150, {**balance(0, 150), **deducted(("messages", 150))}),
        send("messages", 50, allowed(50, **balance(0, 200))),
        track("messages", 10, balance(0, 210), **REJECT),
        **overage("messages", enabled=True),
    ),
    case(
        "1.5",
        "who may not is stopped at zero, even where it could be paid later",
        on(PAY_PER_USE_100),
        check("messages", 101, denied(101, **balance(100, 0, 100, overage_allowed=False))),
        track("messages", 150, {**balance(0, 100), **deducted(("messages", 100))}),
        send("messages", 1, denied(1)),
        **overage("messages", enabled=False),
    ),
    case(
        "1.5",
        "seats are stopped too",
        on(USERS_5),
        track("users", 7, balance(0, 5, overage_allowed=False)),
        **overage("users", enabled=False),
    ),
    case(
        "1.5",
        "seats that may go below zero are taken by a check, too",
        on(USERS_5),
        check("users", 6, allowed(6)),
        send("users", 6, allowed(6, **balance(0, 6))),
        **overage("users", enabled=True),
    ),
    case(
        "1.5",
        "a spend limit holds where overage is allowed without a price",
        on(MESSAGES_100),
        track("messages", 200, balance(0, 125)),
        made_with={
            "billing_controls": {
                "overage_allowed": [{"feature_id": "messages", "enabled": True}],
                "spend_limits": [{"feature_id": "messages", "overage_limit": 25, "enabled": True}],
            }
        },
    ),
    case(
        "1.5",
        "overage of a feature is not overage of the credits that price it",
        on(CREDITS_100),
        track("action1", 600, balance(0, 100)),
        **overage("action1", enabled=True),
    ),
    case(
        "1.5",
        "overage of the credits is there for every feature that they pay for",
        on(CREDITS_100),
        check("action1", 600, allowed(120)),
        track("action1", 600, balance(0, 120)),
        **overage("credits", enabled=True),
    ),
)

CASES: tuple[Case, ...] = (*MODES, *SPEND_LIMITS, *OVERAGE_ALLOWED)
