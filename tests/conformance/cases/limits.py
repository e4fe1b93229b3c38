"""OV-7, CK-12, RS-8: usage limits. How much may be used in a window, even if balance remains."""

from tests.conformance.cases.catalog import CREDITS_100, MESSAGES_100
from tests.conformance.cases.words import (
    ABSENT,
    DAY,
    FEBRUARY,
    HOUR,
    T0,
    Ask,
    Body,
    Case,
    allowed,
    balance,
    case,
    check,
    clock,
    deducted,
    denied,
    events,
    grant,
    item,
    left,
    on,
    plan,
    read,
    refused,
    send,
    together,
    track,
)

CREDITS_1 = plan("credits-1", item("credits", 1, "month"))
BOTH = plan("action1-5-credits-100", item("action1", 5, "month"), item("credits", 100, "month"))
UNLIMITED = plan("unlimited", item("messages", unlimited=True))
CAPPED_PLAN = plan(
    "messages-100-cap-3",
    item("messages", 100, "month"),
    billing_controls={"usage_limits": [{"feature_id": "messages", "limit": 3, "interval": "month"}]},
)


def cap(limit: float, feature: str = "messages", interval: str = "month", **more: object) -> Body:
    return {"feature_id": feature, "limit": limit, "interval": interval, **more}


def capped(*limits: Body) -> Body:
    """A customer with these usage limits."""
    return {"made_with": {"billing_controls": {"usage_limits": list(limits)}}}


def used(*amounts: float) -> Ask:
    """`customers.get` shows so much usage of each limit, in their order."""
    return read({"billing_controls": {"usage_limits": [{"usage": amount} for amount in amounts]}})


ENFORCED: tuple[Case, ...] = (
    case(
        "OV-7",
        "a cap on a member feature stops its credits, and counts in units of the feature",
        on(CREDITS_100),
        track("action1", 5, balance(99)),
        used(5),
        track("action1", 1, {"value": 1, **balance(99), "deductions": []}),
        track("action1", 1, refused("insufficient_balance"), status=400, overage_behavior="reject"),
        used(5),
        **capped(cap(5, "action1")),
    ),
    case(
        "OV-7",
        "a track beyond a cap takes what the cap lets through, and is answered as it was asked for",
        on(MESSAGES_100),
        track("messages", 10, {"value": 10, **balance(95, 5), **deducted(("messages", 5))}),
        used(5),
        **capped(cap(5)),
    ),
    case(
        "OV-7",
        "a cap on the feature holds over all balances that give",
        on(CREDITS_1),
        grant("credits", 10),
        track("action1", 15, balance(9)),
        used(10),
        **capped(cap(10, "action1")),
    ),
    case(
        "OV-7",
        "of two tracks at once, a cap lets one through; both are events",
        on(CREDITS_100),
        together(track("action1", 5), track("action1", 5)),
        read(credits=left(99, 1)),
        events({"value": 5}, {"value": 5}),
        **capped(cap(5, "action1")),
    ),
    case(
        "OV-7",
        "a cap counts what the feature's own balance gives and what its credits give",
        on(BOTH),
        track("action1", 10, {"balances": {"action1": left(0), "credits": left(99.4)}}),
        used(8),
        **capped(cap(8, "action1")),
    ),
    case(
        "CK-12",
        "a check asks the cap before the balance",
        on(MESSAGES_100),
        track("messages", 3),
        check("messages", 2, allowed(2, **balance(97))),
        check("messages", 3, denied(3, **balance(97))),
        check("messages", 0, allowed(0)),
        check("messages", -1, allowed(-1)),
        send("messages", 3, denied(3)),
        send("messages", 2, allowed(2, **balance(95))),
        used(5),
        **capped(cap(5)),
    ),
    case(
        "CK-12",
        "a cap on a member gates its check, and not that of the credits",
        on(CREDITS_100),
        track("action1", 3),
        check("action1", 2, allowed(0.4)),
        check("action1", 3, denied(0.6)),
        track("action1", 2),
        check("action1", 1, denied(0.2)),
        check("action2", 1, allowed(0.6)),
        check("credits", 50, allowed(50)),
        **capped(cap(5, "action1")),
    ),
    case(
        "1.5",
        "a cap on the credits counts credits, whatever they pay for",
        on(CREDITS_100),
        track("action1", 10, balance(98)),
        track("action2", 10, balance(95)),
        used(5),
        check("action1", 0.1, denied(0.02)),
        check("credits", 1, denied(1)),
        **capped(cap(5, "credits")),
    ),
    case(
        "1.5",
        "a cap on the credits leaves the feature's own balance alone",
        on(BOTH),
        track("action1", 30, {"balances": {"action1": left(0), "credits": left(98)}}),
        used(2),
        **capped(cap(2, "credits")),
    ),
    case(
        "3.3",
        "overflow passes the cap, and is counted",
        on(MESSAGES_100),
        track("messages", 8, balance(92), overage_behavior="overflow"),
        used(8),
        track("messages", 1, balance(92)),
        check("messages", 0, allowed(0)),
        check("messages", 1, denied(1)),
        **capped(cap(5)),
    ),
    case(
        "3.4",
        "what is given back is not taken off the count",
        on(MESSAGES_100),
        track("messages", 5, balance(95)),
        track("messages", -3, balance(98)),
        used(5),
        track("messages", 1, balance(98)),
        **capped(cap(5)),
    ),
    case(
        "3.2",
        "what is unlimited has no cap, and is not counted",
        on(UNLIMITED),
        track("messages", 8, {**deducted(("messages", 8))}),
        check("messages", 1000, allowed(1000)),
        used(0),
        **capped(cap(5)),
    ),
    case(
        "1.5",
        "usage that nobody has a balance for is not counted",
        track("messages", 3, {"balance": None}),
        used(0),
        **capped(cap(5)),
    ),
    case(
        "1.5",
        "the cap of a plan and that of the customer both hold",
        on(CAPPED_PLAN),
        track("messages", 10, balance(97)),
        read(
            {
                "billing_controls": {
                    "usage_limits": [
                        {"limit": 5, "usage": 3, "source": "customer"},
                        {"limit": 3, "usage": 3, "source": "plan"},
                    ]
                }
            }
        ),
        **capped(cap(5)),
    ),
    case(
        "1.5",
        "of two caps on the same window the smaller holds",
        on(MESSAGES_100),
        track("messages", 20, balance(97)),
        **capped(cap(7), cap(3)),
    ),
    case(
        "1.5",
        "a cap that is switched off is as if it were not there",
        on(MESSAGES_100),
        track("messages", 10, balance(90)),
        read({"billing_controls": {"usage_limits": [{"limit": 5, "enabled": False, "usage": ABSENT}]}}),
        **capped(cap(5, enabled=False)),
    ),
)

WINDOWS: tuple[Case, ...] = (
    case(
        "RS-8",
        "with the window the count is zero again, and the cap as it was",
        on(MESSAGES_100),
        track("messages", 5, balance(95)),
        clock(FEBRUARY),
        read({"billing_controls": {"usage_limits": [{"usage": 0, "limit": 5}]}}, messages=left(100)),
        track("messages", 10, balance(95)),
        **capped(cap(5)),
    ),
    case(
        "RS-8",
        "a window of the billing cycle ends when the balance resets, in the customer's time zone",
        on(MESSAGES_100),
        clock(T0 + 59 * DAY),
        track("messages", 5, balance(95, next_reset_at=T0 + 90 * DAY - HOUR)),
        clock(T0 + 90 * DAY - HOUR - 1),
        used(5),
        clock(T0 + 90 * DAY - HOUR),
        used(0),
        **{"made_with": {"time_zone": "Europe/Berlin", "billing_controls": {"usage_limits": [cap(5)]}}},
    ),
    case(
        "4.4",
        "a daily cap lets the same through each day of the month",
        on(MESSAGES_100),
        track("messages", 9, balance(95)),
        clock(T0 + DAY - 1),
        track("messages", 9, balance(95)),
        clock(T0 + DAY),
        track("messages", 9, balance(90)),
        used(5),
        **capped(cap(5, interval="day")),
    ),
    case(
        "4.4",
        "windows of different length each hold",
        on(MESSAGES_100),
        track("messages", 9, balance(95)),
        used(5, 5),
        clock(T0 + DAY),
        track("messages", 9, balance(92)),
        used(3, 8),
        clock(T0 + 2 * DAY),
        track("messages", 1, balance(92)),
        check("messages", 1, denied(1)),
        used(0, 8),
        clock(T0 + 7 * DAY),
        track("messages", 9, balance(87)),
        used(5, 5),
        **capped(cap(5, interval="day"), cap(8, interval="week")),
    ),
    case(
        "4.4",
        "a window of the billing cycle hangs on the plan; one in UTC on the calendar",
        clock(T0 + 9 * DAY + 15 * HOUR),
        on(MESSAGES_100),
        track("messages", 4, balance(96)),
        used(4, 4),
        clock(T0 + 10 * DAY),
        used(4, 0),
        clock(T0 + 10 * DAY + 15 * HOUR),
        used(0, 0),
        **capped(cap(4, interval="day"), cap(4, interval="day", anchor="utc")),
    ),
    case(
        "4.4",
        "weeks in UTC begin on Monday, months on the first, years in January",
        clock(T0 + 4 * DAY),
        on(MESSAGES_100),
        track("messages", 4),
        used(4, 4, 4),
        clock(T0 + 6 * DAY - 1),
        used(4, 4, 4),
        clock(T0 + 6 * DAY),  # Monday, 7 January 2030
        used(0, 4, 4),
        clock(FEBRUARY),
        used(0, 0, 4),
        clock(T0 + 365 * DAY),
        used(0, 0, 0),
        **capped(*(cap(50, interval=interval, anchor="utc") for interval in ("week", "month", "year"))),
    ),
)

FILTERS: tuple[Case, ...] = (
    case(
        "4.4",
        "a cap with a filter counts the calls that have the property, and no others",
        on(MESSAGES_100),
        track("messages", 9, balance(95), properties={"model": "large", "user": "u1"}),
        track("messages", 9, balance(86), properties={"model": "small"}),
        track("messages", 9, balance(77)),
        track("messages", 1, balance(77), properties={"model": "large"}),
        check("messages", 1, denied(1), properties={"model": "large"}),
        check("messages", 1, allowed(1)),
        send("messages", 1, denied(1), properties={"model": "large"}),
        used(5),
        **capped(cap(5, filter={"properties": {"model": "large"}})),
    ),
    case(
        "4.4",
        "a call must have every property of the filter",
        on(MESSAGES_100),
        track("messages", 9, balance(91), properties={"model": "large"}),
        track("messages", 9, balance(86), properties={"model": "large", "beta": True, "seats": 2}),
        track("messages", 9, balance(77), properties={"model": "large", "beta": False, "seats": 2}),
        used(5),
        **capped(cap(5, filter={"properties": {"model": "large", "beta": "true", "seats": "2"}})),
    ),
    case(
        "4.4",
        "a number is the same number however it is written",
        on(MESSAGES_100),
        track("messages", 3, balance(97), properties={"size": 10.0}),
        track("messages", 3, balance(95), properties={"size": 10}),
        track("messages", 3, balance(95), properties={"size": 1e1}),
        track("messages", 3, balance(92), properties={"size": 10.5}),
        used(5),
        **capped(cap(5, filter={"properties": {"size": 10}})),
    ),
    case(
        "4.4",
        "each value has a count of its own",
        on(MESSAGES_100),
        track("messages", 9, balance(95), properties={"model": "large"}),
        track("messages", 9, balance(88), properties={"model": "small"}),
        used(5, 7),
        **capped(
            cap(5, filter={"properties": {"model": "large"}}),
            cap(7, filter={"properties": {"model": "small"}}),
        ),
    ),
)

CASES: tuple[Case, ...] = (*ENFORCED, *WINDOWS, *FILTERS)
