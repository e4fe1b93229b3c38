"""PL: what plans give, when they are attached and when they are changed."""

from tests.conformance.cases.catalog import MESSAGES_100
from tests.conformance.cases.words import (
    APRIL,
    FEBRUARY,
    HOUR,
    MARCH,
    T0,
    Ask,
    Body,
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
TRIAL = plan(
    "default-trial",
    item("messages", 100, "month"),
    auto_enable=True,
    free_trial={"duration_type": "day", "duration_length": 7, "card_required": False},
)
MESSAGES_50 = plan("messages-50", item("messages", 50, "month"))
TWO_HUNDRED = plan("paid-200", item("messages", 200, "month"), price=20)
THIRTY = plan("paid-30", item("messages", 30, "month"), price=20)
PRO_100 = plan("pro-100", item("messages", 100, "month"), price=20)
PREMIUM_500 = plan("premium-500", item("messages", 500, "month"), price=50)
USERS_30 = plan("users-30", item("users", 30))
PAID_USERS_5 = plan("paid-users-5", item("users", 5), price=20)
USAGES: Body = {"carry_over_usages": {"enabled": True}}
BALANCES: Body = {"carry_over_balances": {"enabled": True}}
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
        "PL-1",
        "what a plan gives can be used while it is on trial",
        read({"subscriptions": [{"plan_id": "default-trial", "status": "trialing"}]}, messages=left(100, 0)),
        track("messages", 40, balance(60)),
        plans=(TRIAL,),
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
        "PL-5",
        "usage that is carried over is used of the new plan",
        on(MESSAGES_50),
        track("messages", 40),
        on(TWO_HUNDRED, USAGES),
        read({"subscriptions": [{"plan_id": "paid-200"}]}, messages=left(160, 40, 200)),
        clock(FEBRUARY),
        read(messages=left(200, 0)),
    ),
    case(
        "PL-5",
        "where nothing was used, the new plan is full",
        on(MESSAGES_50),
        on(TWO_HUNDRED, USAGES),
        read(messages=left(200, 0, 200)),
    ),
    case(
        "PL-5",
        "usage beyond what the new plan gives is owed",
        on(MESSAGES_50),
        track("messages", 50),
        on(THIRTY, USAGES),
        read(messages=left(0, 50, 30)),
        track("messages", 1, {**balance(0, 50), "deductions": []}),
    ),
    case(
        "PL-5",
        "seats that are taken stay taken, asked or not",
        on(USERS_30),
        track("users", 25),
        on(PAID_USERS_5),
        read(users=left(0, 25, 5)),
        track("users", -21, balance(1, 4)),
    ),
    case(
        "PL-6",
        "what is left goes along as a grant, until it would have been reset",
        on(PRO_100),
        track("messages", 30),
        on(PREMIUM_500, BALANCES),
        read(
            messages=left(
                570,
                0,
                570,
                breakdown=[
                    left(500, plan_id="premium-500", expires_at=None),
                    left(70, plan_id=None, expires_at=FEBRUARY),
                ],
            )
        ),
        clock(FEBRUARY),
        read(messages=left(500, 0, 500)),
    ),
    case(
        "PL-6",
        "where nothing is left, nothing goes along",
        on(PRO_100),
        track("messages", 100),
        on(PREMIUM_500, BALANCES),
        read(messages=left(500, 0, 500)),
    ),
    case(
        "PL-6",
        "what is owed goes along, too",
        on(PRO_100),
        track("messages", 120, overage_behavior="overflow"),
        on(PREMIUM_500, BALANCES),
        read(messages=left(480, 20, 500)),
    ),
    case(
        "PL-8",
        "a cheaper plan waits for the end of the period that is paid",
        on(PRO),
        track("messages", 100),
        on(MESSAGES_100),
        read(
            {
                "subscriptions": [
                    {"plan_id": "pro-500", "status": "active", "canceled_at": T0, "expires_at": FEBRUARY},
                    {"plan_id": "messages-100", "status": "scheduled", "started_at": FEBRUARY},
                ]
            },
            messages=left(400, 100, 500),
        ),
        clock(FEBRUARY - 1),
        read(messages=left(400, 100, 500)),
        clock(FEBRUARY),
        read(
            {"subscriptions": [{"plan_id": "messages-100", "status": "active"}], "flags": Exactly({})},
            messages=left(100, 0, 100, next_reset_at=MARCH),
        ),
    ),
    case(
        "PL-8",
        "a cheaper plan waits for the end of the period in the customer's time zone",
        clock(MARCH),
        on(PRO),
        on(MESSAGES_100),
        read({"subscriptions": [{"expires_at": APRIL - HOUR}, {"started_at": APRIL - HOUR}]}),
        clock(APRIL - HOUR - 1),
        read(messages=left(500)),
        clock(APRIL - HOUR),
        read(messages=left(100, 0, 100)),
        made_with={"time_zone": "Europe/Berlin"},
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
