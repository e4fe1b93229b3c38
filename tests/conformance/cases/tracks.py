"""TB, NG, PR, CC: tracking, giving back, exactness, and many calls at the same time."""

from decimal import Decimal
from random import Random

from tests.conformance.cases.catalog import CREDITS_100, MESSAGES_100, USERS_5
from tests.conformance.cases.words import (
    DAY,
    T0,
    Ask,
    Case,
    allowed,
    balance,
    case,
    deducted,
    denied,
    events,
    grant,
    item,
    left,
    on,
    plan,
    read,
    repeated,
    send,
    together,
    track,
)

THREE_FEATURES = plan(
    "three-features",
    item("action1", 100, "month"),
    item("messages", 150, "month"),
    item("words", 200, "month"),
)
DASHBOARD = plan("dashboard", item("dashboard"))
CREDITS_500 = plan("credits-500", item("credits", 500, "month"))
MESSAGES_200 = plan("messages-200", item("messages", 200, "month"))
MONTHLY_10000 = plan("messages-10000", item("messages", 10_000, "month"))
USERS_1 = plan("users-1", item("users", 1))
MESSAGES_5 = plan("messages-5", item("messages", 5, "month"))

_random = Random(6)
CENTS = [_random.randint(1, 9_000) / 100 for _ in range(500)]
CENTS_SUM = sum(Decimal(str(cents)) for cents in CENTS)
SEVENTHS = [_random.randint(1, 40_000_000) / 10_000_000 for _ in range(30)]


def _difference(count: int) -> Decimal:
    return 200 - sum((Decimal(str(each)) for each in SEVENTHS[:count]), Decimal(0))


BASIC: tuple[Case, ...] = (
    case(
        "TB-1",
        "a track without a value is one unit",
        on(MESSAGES_100),
        track("messages", None, {"value": 1, **balance(99, 1)}),
    ),
    case("TB-2", "fractions are exact", on(MESSAGES_100), track("messages", 23.47, balance(76.53, 23.47))),
    case(
        "TB-3",
        "a track of one feature leaves the others alone",
        on(THREE_FEATURES),
        track("action1", 37.82, balance(62.18, 37.82)),
        read(action1=left(62.18), messages=left(150, 0), words=left(200, 0)),
    ),
    case(
        "TB-4",
        "a track of an on/off feature is answered, and is an event that took nothing",
        on(DASHBOARD),
        track("dashboard", None, {"value": 1, "balance": None, "deductions": []}),
        events({"feature_id": "dashboard", "value": 1, "deductions": []}),
    ),
    case(
        "TB-6",
        "usage that nobody pays for is still an event, with its properties",
        track("messages", 1.1, {"value": 1.1, "balance": None}, properties={"model": "small"}),
        track("messages", 2.2),
        track("messages", 0.0000000001, status=400),
        track("messages", 3.3),
        events(
            {"value": 3.3, "properties": {}, "deductions": []},
            {"value": 2.2},
            {"value": 1.1, "properties": {"model": "small"}},
        ),
    ),
    case(
        "TB-7",
        "an event carries the time that the caller says",
        on(MESSAGES_100),
        track("messages", 1, balance(99, 1), timestamp=T0 - 3 * DAY),
        events({"timestamp": T0 - 3 * DAY, "value": 1}),
    ),
    case(
        "TB-8",
        "a track that is sent as async is answered with the balance, and taken once",
        on(MESSAGES_100),
        Ask("balances.track", {"feature_id": "messages", "value": 3, "async": True}, balance(97, 3)),
    ),
)

REFUNDS: tuple[Case, ...] = (
    case(
        "NG-1",
        "what is given back fills the balance up to what was granted, and no further",
        on(MESSAGES_100),
        track("messages", 30, balance(70)),
        track("messages", -10, balance(80, 20)),
        track("messages", -50, balance(100, 0)),
    ),
    case(
        "NG-3",
        "seats go below zero and come back; what is given back beyond the seats is dropped",
        on(USERS_5),
        track("users", 8, balance(0, 8, overage_allowed=True)),
        track("users", -2, balance(0, 6)),
        track("users", -2, balance(1, 4)),
        track("users", 8, balance(0, 12)),
        track("users", -20, balance(5, 0)),
    ),
    case(
        "NG-7",
        "the deductions of what is given back are negative",
        on(MESSAGES_100),
        track("messages", 10, deducted(("messages", 10))),
        track("messages", -4, {"value": -4, **deducted(("messages", -4))}),
        track("messages", -40, {"value": -40, **deducted(("messages", -6))}),
    ),
)

PRECISION: tuple[Case, ...] = (
    case(
        "PR-1",
        "costs that no double can hold are exact",
        on(CREDITS_500),
        track("action1", 0.1, balance(499.98)),
        track("action1", 0.2, balance(499.94)),
        send("action1", 10.3, allowed(2.06, **balance(497.88))),
    ),
    case(
        "PR-2",
        "costs of fractions add up to the last decimal",
        on(CREDITS_100),
        track("action1", 50.25, balance(89.95, 10.05)),
        track("action2", 33.67, balance(69.748, 30.252)),
    ),
    case(
        "PR-3",
        "500 tracks at once are their exact sum, across two balances",
        on(MONTHLY_10000),
        grant("messages", 20_000),
        together(*(track("messages", cents) for cents in CENTS)),
        read(
            messages={
                "remaining": 30_000 - CENTS_SUM,
                "usage": CENTS_SUM,
                "breakdown": [left(0, 10_000), left(30_000 - CENTS_SUM)],
            }
        ),
    ),
    case(
        "PR-6",
        "5 credits are exactly 500 cents, and the next is denied",
        grant("messages", 5),
        repeated(500, track("messages", 0.01)),
        read(messages=left(0, 5)),
        send("messages", 0.01, denied(0.01)),
    ),
    case(
        "PR-6",
        "small charges on a large balance are not lost",
        grant("messages", 123_456_789),
        repeated(1000, track("messages", 1e-7)),
        read(messages=left(Decimal("123456788.9999"), Decimal("0.0001"))),
    ),
    case(
        "CK-16b",
        "each of many decimals leaves the running difference",
        on(MESSAGES_200),
        *(
            send("messages", value, allowed(value, **balance(_difference(number + 1))))
            for number, value in enumerate(SEVENTHS)
        ),
    ),
)

CONCURRENCY: tuple[Case, ...] = (
    case(
        "CC-1",
        "five tracks of 10 on 5 units at once are all answered, and take 5 together",
        on(MESSAGES_5),
        together(*(track("messages", 10),) * 5),
        read(messages=left(0, 5)),
    ),
    case(
        "CC-2",
        "five seats at once on one are all taken",
        on(USERS_1),
        together(*(track("users", 1),) * 5),
        read(users=left(0, 5)),
    ),
    case(
        "CC-5",
        "as many checks that send their event pass as there are units for",
        on(MESSAGES_100),
        together(*(send("messages", 3, {}),) * 50, let_through=33),
        read(messages=left(1, 99)),
    ),
    case(
        "CC-5",
        "member features at once drain one pool to its last credit",
        on(CREDITS_100),
        together(*(track("action1", 10.5),) * 25, *(track("action2", 4.5),) * 15),
        read(credits=left(7, 93)),
    ),
)

CASES: tuple[Case, ...] = (*BASIC, *REFUNDS, *PRECISION, *CONCURRENCY)
