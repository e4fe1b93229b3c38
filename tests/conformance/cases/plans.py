"""PL: what plans give, when they are attached and when they are changed."""

from tests.conformance.cases.catalog import MESSAGES_100
from tests.conformance.cases.words import (
    APRIL,
    FEBRUARY,
    HOUR,
    MARCH,
    T0,
    Ask,
    Case,
    Exactly,
    balance,
    case,
    clock,
    item,
    left,
    on,
    plan,
    prepaid,
    read,
    refused,
    together,
    track,
)

DEFAULT = plan("default-100", item("messages", 100, "month"), auto_enable=True)
OTHER_DEFAULT = plan("default-200", item("messages", 200, "month"))
TOP_UP = plan("messages-top-up", item("messages", price=prepaid("one_off")), add_on=True)
ONE_OFF = plan("messages-one-off", item("messages", price=prepaid("one_off")))
PRO = plan("pro-500", item("messages", 500, "month"), item("dashboard"), price=20)
PREMIUM = plan("premium-1000", item("messages", 1000, "month"), price=50)
PACKS = plan("packs-of-100", item("messages", price=prepaid("one_off", billing_units=100)), add_on=True)

CASES: tuple[Case, ...] = (
    case(
        "PL-1",
        "a plan that enables itself is there when the customer is created",
        read({"subscriptions": [{"plan_id": "default-100", "status": "active"}]}, messages=left(100, 0)),
        plans=(DEFAULT,),
        pinned=False,
    ),
    case(
        "PL-1",
        "another plan can be named instead",
        read({"subscriptions": [{"plan_id": "default-200"}]}, messages=left(200, 0)),
        plans=(DEFAULT, OTHER_DEFAULT),
        made_with={"auto_enable_plan_id": "default-200"},
        pinned=False,
    ),
    case(
        "PL-2",
        "a customer who is created many times at once is one, on one plan",
        together(*(Ask("customers.get_or_create", {"customer_id": "pl-2-race"}),) * 10),
        Ask(
            "customers.get",
            {"customer_id": "pl-2-race"},
            {
                "subscriptions": [{"plan_id": "default-100"}],
                "balances": {"messages": left(100, 0, breakdown=[left(100)])},
            },
        ),
        plans=(DEFAULT,),
        pinned=False,
    ),
    case(
        "PL-3",
        "what is bought once is added to what was bought before",
        on(TOP_UP, messages=100),
        read(messages=left(100, 0, 100, next_reset_at=None)),
        on(TOP_UP, messages=100),
        read(
            {"purchases": [{"plan_id": "messages-top-up", "expires_at": None}] * 2},
            messages=left(200, 0, 200, breakdown=[left(100), left(100)]),
        ),
    ),
    case(
        "PL-3",
        "a top-up of nothing gives nothing",
        on(TOP_UP, messages=0),
        read(messages=left(0, 0, 0)),
    ),
    case(
        "PL-3",
        "buying something once leaves the plan as it is, even if it is no add-on",
        on(PRO),
        on(ONE_OFF, messages=50),
        read({"subscriptions": [{"plan_id": "pro-500"}]}, messages=left(550, 0, 550)),
    ),
    case(
        "1.2",
        "what is sold in packs is rounded up to the pack",
        on(PACKS, messages=150),
        read(messages=left(200, 0, 200)),
    ),
    case(
        "4.5",
        "an upgrade from free starts a new month, with all that the new plan gives",
        on(MESSAGES_100),
        track("messages", 40),
        clock(T0 + 240 * HOUR),
        on(PRO),
        read(
            {
                "subscriptions": [{"plan_id": "pro-500"}],
                "flags": {"dashboard": {"plan_id": "pro-500"}},
            },
            messages=left(500, 0, 500, next_reset_at=FEBRUARY + 240 * HOUR),
        ),
    ),
    case(
        "4.5",
        "an upgrade from paid to paid keeps the date",
        on(PRO),
        track("messages", 40),
        clock(T0 + 240 * HOUR),
        on(PREMIUM),
        read(
            {"subscriptions": [{"plan_id": "premium-1000"}], "flags": Exactly({})},
            messages=left(1000, 0, 1000, next_reset_at=FEBRUARY),
        ),
        clock(FEBRUARY),
        read(messages=left(1000, next_reset_at=MARCH)),
    ),
    case(
        "4.5",
        "what was bought for good outlives the plans beside it",
        on(TOP_UP, messages=20),
        on(MESSAGES_100),
        track("messages", 110, balance(10)),
        on(PRO),
        read(messages=left(510)),
    ),
    case(
        "4.5",
        "the plan that a customer has cannot be attached again",
        on(PRO),
        Ask("billing.attach", {"plan_id": "pro-500"}, refused("plan_already_attached"), 409),
    ),
    case(
        "D7",
        "the period that is paid ends when the balance resets, in the customer's time zone",
        clock(MARCH),
        on(PRO),
        read(
            {"subscriptions": [{"current_period_start": MARCH, "current_period_end": APRIL - HOUR}]},
            messages={"next_reset_at": APRIL - HOUR},
        ),
        made_with={"time_zone": "Europe/Berlin"},
    ),
)
