"""RV: what survives a reset."""

from creditgate.api.wire.answers import NEVER
from tests.conformance.cases.words import (
    ABSENT,
    APRIL,
    DAY,
    FEBRUARY,
    MARCH,
    T0,
    Body,
    Case,
    Exactly,
    balance,
    case,
    clock,
    grant,
    item,
    left,
    on,
    pay_per_use,
    plan,
    prepaid,
    read,
    rolled,
    rollover,
    track,
)


def _rolling(plan_id: str, included: float, most: float | None, price: float | None = None) -> Body:
    return plan(plan_id, item("messages", included, "month", rollover=rollover(most)), price=price)


ROLLING_400 = _rolling("rolling-400", 400, 500)
PAY_PER_USE = plan(
    "rolling-pay-per-use",
    item("messages", 400, "month", price=pay_per_use(), rollover=rollover()),
    price=20,
)
PREPAID = plan("rolling-prepaid", item("messages", 300, price=prepaid(), rollover=rollover()), price=20)
FREE_500 = _rolling("rolling-free-500", 500, 1000)
PRO_500 = _rolling("rolling-pro-500", 500, 600, price=20)
PRO_MAX_1000 = _rolling("rolling-pro-max-1000", 500, 1000, price=20)
FREE_MAX_600 = _rolling("rolling-free-max-600", 500, 600)
NOT_ROLLING_PRO = plan("not-rolling-pro", item("messages", 500, "month"), price=20)
ROLLING_200 = _rolling("rolling-500-max-200", 500, 200)
ONE_MONTH = plan("rolling-for-a-month", item("messages", 100, "month", rollover=rollover(months=1)))
PERCENT = plan("rolling-half", item("messages", 5, "month", rollover={**rollover(), "max_percentage": 50}))

CASES: tuple[Case, ...] = (
    case(
        "RV-1",
        "what is left rolls over, up to the cap; above it the oldest loses, and the oldest is used first",
        on(ROLLING_400),
        read(messages=left(400, rollovers=ABSENT)),
        track("messages", 250, balance(150)),
        clock(FEBRUARY),
        read(messages=left(550, 0, 550, rollovers=[{"granted": 150, "balance": 150, "expires_at": NEVER}])),
        clock(MARCH),
        read(messages=left(900, 0, 900, rollovers=rolled(100, 400))),
        track("messages", 150, balance(750, 150, rollovers=rolled(0, 350))),
        track("messages", 400, balance(350, 550, rollovers=rolled(0, 0))),
    ),
    case(
        "RV-3",
        "of what is paid later, the included part that is left rolls over",
        on(PAY_PER_USE),
        track("messages", 150, balance(250)),
        clock(FEBRUARY),
        read(messages=left(650, rollovers=rolled(250))),
        track("messages", 700, balance(0, 700, rollovers=rolled(0))),
        clock(MARCH),
        read(messages=left(400, 0, 400, rollovers=ABSENT)),
    ),
    case(
        "RV-3",
        "of what was bought ahead, what is left rolls over",
        on(PREPAID, messages=500),
        track("messages", 250, balance(250)),
        clock(FEBRUARY),
        read(messages=left(750, 0, 750, rollovers=rolled(250))),
    ),
    case(
        "RV-4",
        "what rolled over goes along to the next plan, trimmed to its cap",
        on(FREE_500),
        clock(MARCH),
        read(messages=left(1500, rollovers=rolled(500, 500))),
        on(PRO_500),
        read(messages=left(1100, 0, 1100, rollovers=rolled(100, 500))),
    ),
    case(
        "RV-4",
        "what rolled over goes along to a plan that starts at the end of the period, too",
        on(PRO_MAX_1000),
        clock(FEBRUARY),
        on(FREE_MAX_600),
        read(messages=left(1000, rollovers=rolled(500))),
        track("messages", 100),
        clock(MARCH),
        read(
            {"subscriptions": [{"plan_id": "rolling-free-max-600"}]},
            messages=left(900, rollovers=rolled(400)),
        ),
        clock(APRIL),
        read(messages=left(1100, rollovers=rolled(100, 500))),
    ),
    case(
        "RV-4",
        "missed months of the old plan and of the next roll over as if each had been seen",
        on(PRO_MAX_1000),
        on(FREE_MAX_600, {"plan_schedule": "end_of_cycle", "starts_at": MARCH + DAY}),
        clock(APRIL + DAY),
        # 500 and 500 of pro, trimmed to 600; then the 500 of free's first month, trimmed again
        read(messages=left(1100, 0, 1100, rollovers=rolled(100, 500))),
    ),
    case(
        "RV-4",
        "what rolled over ends with the plan if the next one rolls nothing over",
        on(FREE_500),
        clock(MARCH),
        on(NOT_ROLLING_PRO),
        read(messages=left(500, 0, 500, rollovers=ABSENT)),
    ),
    case(
        "RV-5",
        "the cap holds for what rolls over, and what rolled over is used first",
        on(ROLLING_200),
        clock(FEBRUARY),
        read(messages=left(700, rollovers=rolled(200))),
        track("messages", 50, balance(650, 50, rollovers=rolled(150))),
        track("messages", 200, balance(450, 250, rollovers=rolled(0))),
    ),
    case(
        "RV-5",
        "usage of what rolled over is counted, and what the cap cuts off is not usage",
        on(ROLLING_400),
        track("messages", 300),
        clock(FEBRUARY),
        track("messages", 30, balance(470, 30, 500, rollovers=rolled(70))),
        clock(MARCH),
        # 70 and 400 are 30 below the cap: nothing is cut.
        read(messages=left(870, 30, 900, rollovers=rolled(70, 400))),
        clock(APRIL),
        # 870 are 370 above it: the 70 go, and 300 of the 400.
        read(messages=left(900, 0, 900, rollovers=rolled(100, 400))),
    ),
    case(
        "RV-7",
        "a grant can roll over",
        grant(
            "messages",
            400,
            reset={"interval": "month"},
            rollover={"max": 500, "duration": "forever", "length": 1},
        ),
        track("messages", 250),
        clock(FEBRUARY),
        read(messages=left(550, rollovers=rolled(150))),
    ),
    case(
        "RV-7",
        "only what is used up and resets can roll over, and only until it expires",
        grant("users", 5, status=400, rollover={"length": 1}),
        grant("messages", 5, status=400, rollover={"length": 1}),
        grant(
            "messages",
            5,
            status=400,
            reset={"interval": "month"},
            rollover={"length": 1},
            expires_at=T0 + DAY,
        ),
    ),
    case(
        "4.2",
        "what rolled over for a month is there for a month",
        on(ONE_MONTH),
        track("messages", 60),
        clock(FEBRUARY),
        read(messages=left(140, rollovers=[{"granted": 40, "balance": 40, "expires_at": MARCH}])),
        track("messages", 10, balance(130, 10, rollovers=rolled(30))),
        clock(MARCH),
        read(messages=left(200, 0, 200, rollovers=[{"granted": 100, "balance": 100, "expires_at": APRIL}])),
    ),
    case(
        "4.2",
        "missed months roll over as if each had been seen",
        on(ONE_MONTH),
        track("messages", 60),
        clock(APRIL),
        read(messages=left(200, 0, 200, rollovers=rolled(100))),
    ),
    case(
        "4.2",
        "a cap in percent is of what the balance starts with, rounded down",
        on(PERCENT),
        clock(FEBRUARY),
        read(messages=left(7, 0, 7, rollovers=rolled(2))),
    ),
    case(
        "3.4",
        "what rolled over is not filled up again",
        on(ROLLING_200),
        clock(FEBRUARY),
        track("messages", 250, balance(450, 250, rollovers=rolled(0))),
        track("messages", -250, balance(500, 200, rollovers=rolled(0))),
    ),
    case(
        "4.2",
        "what rolled over of a grant ends with the grant",
        grant(
            "messages",
            100,
            reset={"interval": "month"},
            rollover={"length": 6},
            expires_at=MARCH + DAY,
        ),
        clock(FEBRUARY),
        read(messages=left(200)),
        clock(MARCH + DAY),
        read({"balances": Exactly({})}),
    ),
)
