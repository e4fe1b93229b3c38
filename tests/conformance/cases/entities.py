"""EN, and the rows of CC, LK, OV and RS that are about entities: what each may draw on, and never another's.

Cases without a number are none of the public list.
"""

from collections.abc import Mapping
from typing import Any

from tests.conformance.cases.catalog import MESSAGES_100
from tests.conformance.cases.words import (
    ABSENT,
    FEBRUARY,
    Ask,
    Body,
    Case,
    allowed,
    balance,
    case,
    check,
    clock,
    confirm,
    controls,
    deducted,
    denied,
    events,
    grant,
    item,
    left,
    lock,
    on,
    pay_per_use,
    plan,
    read,
    refused,
    release,
    rolled,
    rollover,
    send,
    together,
    track,
    update,
)


def per_seat(feature: str, included: float | None = None, reset: str | None = None, **more: Any) -> Body:
    """An item of which each entity of `users` gets a slot."""
    return item(feature, included, reset, entity_feature_id="users", **more)


def make(entity_id: str, expected: Mapping[str, Any] | None = None, *, status: int = 200, **more: Any) -> Ask:
    return Ask(
        "entities.create", {"entity_id": entity_id, "feature_id": "users", **more}, expected or {}, status
    )


def look(entity_id: str, *, status: int = 200, **balances: Any) -> Ask:
    """`entities.get`: what the entity can draw on of these features."""
    return Ask("entities.get", {"entity_id": entity_id}, {"balances": balances} if balances else {}, status)


def limit(entity_id: str, **kinds: Any) -> Ask:
    """The entity has these billing controls from now on."""
    return Ask("entities.update", {"entity_id": entity_id, "billing_controls": kinds})


def drop(entity_id: str, *, status: int = 200) -> Ask:
    return Ask("entities.delete", {"entity_id": entity_id}, status=status)


def totals(customer: float, one: float, two: float) -> tuple[Ask, ...]:
    """What is left for the customer and all, for `one`, and for `two`."""
    return (
        read(messages=left(customer)),
        look("one", messages=left(one)),
        look("two", messages=left(two)),
    )


MESSAGES_300 = plan("entities-300", item("messages", 300, "month"))
EACH_100 = plan("entities-each-100", per_seat("messages", 100, "month"))
CUSTOMERS_50 = plan("entities-50", item("messages", 50, "month"))
AN_ENTITYS_100 = plan("entities-plan-100", item("messages", 100, "month"), group="seat")
AN_ENTITYS_50 = plan("entities-plan-50", item("messages", 50, "month"), group="seat")
BOTH = plan("entities-both", item("messages", 100, "month"), per_seat("messages", 50, "month"))
EACH_10 = plan("entities-each-10", per_seat("messages", 10, "month"))
EACH_500_TO_600 = plan("entities-each-500", per_seat("messages", 500, price=pay_per_use(100)), price=10)
EACH_800_LATER = plan("entities-each-800", per_seat("messages", 800, price=pay_per_use()), price=10)
LATER_100 = plan("entities-later-100", item("messages", 100, price=pay_per_use()), price=10)
SEATS_2 = plan("entities-seats-2", item("users", 2))
SEATS_2_LATER = plan("entities-seats-2-later", item("users", 2, price=pay_per_use(1)), price=10)
ROLLING = plan("entities-rolling", per_seat("messages", 10, "month", rollover=rollover(15)))
CREDITS = plan("entities-credits", item("credits", 100, "month"), per_seat("action1", 5, "month"))
DASHBOARD = plan("entities-dashboard", item("dashboard"), group="seat")
BIGGER = plan("entities-bigger", item("messages", 200, "month"), per_seat("messages", 80, "month"), price=10)
TWO = (make("one"), make("two"))
THREE = (*TWO, make("three"))

VIEWS: tuple[Case, ...] = (
    case(
        "EN-1",
        "what is nobody's in particular, everybody can draw on",
        on(MESSAGES_300),
        *THREE,
        track("messages", 50, balance(250, 50)),
        look("one", messages=left(250, 50, 300)),
        look("three", messages=left(250)),
        track("messages", 20, {"entity_id": "two", **balance(230, 70)}, entity_id="two"),
        read(messages=left(230, 70, 300)),
    ),
    case(
        "EN-2",
        "each entity has its own, and the customer all of it",
        on(EACH_100),
        *THREE,
        read(messages=left(300, 0, 300)),
        track("messages", 10, {"entity_id": "one", **balance(90, 10, 100)}, entity_id="one"),
        read(messages=left(290)),
        track("messages", 10, balance(90), entity_id="two"),
        track("messages", 10, balance(90), entity_id="three"),
        read(messages=left(270, 30)),
        track("messages", 10, {"entity_id": ABSENT, **balance(260, 40)}),
        read(messages=left(260)),
        look("one", messages=left(80)),
        look("three", messages=left(90)),
        look("two", messages=left(90)),
    ),
    case(
        "EN-2",
        "an entity takes nothing of another",
        on(EACH_100),
        *TWO,
        track(
            "messages", 130, {"value": 130, **balance(0, 100), **deducted(("messages", 100))}, entity_id="one"
        ),
        look("two", messages=left(100, 0)),
        check("messages", 1, denied(entity_id="one"), entity_id="one"),
        check("messages", 100, allowed(entity_id="two"), entity_id="two"),
        check("messages", 101, denied(), entity_id="two"),
        check("messages", 100, allowed(entity_id=ABSENT)),
        send("messages", 101, denied()),
    ),
    case(
        "EN-4",
        "plans of entities are theirs alone: the customer sees their sum and cannot draw on it",
        on(CUSTOMERS_50),
        *THREE,
        *(on(AN_ENTITYS_100, {"entity_id": name}) for name in ("one", "two", "three")),
        read(messages=left(350, 0, 350)),
        look("one", messages=left(150, 0, 150)),
        track("messages", 20, balance(130), entity_id="one"),
        track("messages", 20, balance(130), entity_id="two"),
        track("messages", 20, balance(130), entity_id="three"),
        read(messages=left(290)),
        check("messages", 51, denied(balance=left(50, 0, 50))),
        track("messages", 60, {**balance(0, 50), **deducted(("messages", 50))}),
        read(messages=left(240)),
        look("two", messages=left(80)),
    ),
    case(
        "EN",
        "an entity's own feature goes before its credits, and both before the customer's",
        on(CREDITS),
        *TWO,
        grant("credits", 1, entity_id="one"),
        track("action1", 20, deducted(("action1", 5), ("credits", 1), ("credits", 2)), entity_id="one"),
        track("action1", 20, deducted(("credits", 4)), entity_id="one"),
        track("action1", 10, deducted(("action1", 5), ("credits", 1)), entity_id="two"),
        look("one", action1=left(0), credits=left(93)),
        look("two", action1=left(0), credits=left(93)),
        read(credits=left(93)),
    ),
    case(
        "EN",
        "a customer's call takes the customer's own before any slot",
        on(CREDITS),
        *TWO,
        track("action1", 501, deducted(("credits", 100), ("action1", 1))),
        look("one", action1=left(4)),
        look("two", action1=left(5)),
    ),
    case(
        "EN",
        "what is given back goes to who gave it: an entity's slot first",
        on(BOTH),
        *TWO,
        track("messages", 60, balance(90), entity_id="one"),
        track("messages", -30, balance(120), entity_id="one"),
        *totals(170, 120, 140),
        track("messages", -60, balance(150, 0), entity_id="one"),
        *totals(200, 150, 150),
    ),
    case(
        "EN",
        "on/off features of an entity's plan are not the customer's",
        *TWO,
        on(DASHBOARD, {"entity_id": "one"}),
        check("dashboard", None, allowed(flag={"plan_id": "entities-dashboard"}), entity_id="one"),
        check("dashboard", None, denied(flag=None), entity_id="two"),
        check("dashboard", None, denied(flag=None)),
        Ask("entities.get", {"entity_id": "one"}, {"flags": {"dashboard": {"feature_id": "dashboard"}}}),
        read({"flags": {}}),
    ),
)

MADE: tuple[Case, ...] = (
    case(
        "EN",
        "an entity takes a unit of its feature, and frees it",
        on(SEATS_2),
        make("one", {"id": "one", "name": "Ann", "feature_id": "users", "env": "sandbox"}, name="Ann"),
        read(users=left(1, 1, 2)),
        make("one", {"code": "entity_already_exists"}, status=409),
        make("two"),
        make("three"),
        read(users=left(0, 3, 2)),
        drop("two"),
        look("two", status=404),
        drop("two", status=404),
        read(users=left(0, 2, 2)),
        drop("one"),
        drop("three"),
        read(users=left(2, 0, 2)),
    ),
    case(
        "EN",
        "where units are bounded, no entity is made beyond them",
        on(SEATS_2_LATER),
        *THREE,
        make("four", refused("feature_limit_reached"), status=400),
        read(users=left(0, 3)),
        drop("one"),
        make("four"),
    ),
    case(
        "EN",
        "entities that are there when their feature is given take their units then",
        *TWO,
        read({"balances": {}}),
        on(SEATS_2),
        read(users=left(0, 2)),
        drop("one"),
        read(users=left(1, 1)),
    ),
    case(
        "EN",
        "an entity is made by the call that needs it, if it is said what it is",
        on(EACH_100),
        track("messages", 1, refused("entity_not_found"), status=404, entity_id="one"),
        check("messages", 1, refused("entity_not_found"), status=404, entity_id="one"),
        track(
            "messages", 1, balance(99), entity_id="one", entity_data={"feature_id": "users", "name": "Ann"}
        ),
        check("messages", 1, allowed(), entity_id="two", entity_data={"feature_id": "users"}),
        read(messages=left(199)),
        Ask(
            "entities.list", {}, {"list": [{"id": "one", "name": "Ann"}, {"id": "two"}], "next_cursor": None}
        ),
        Ask("entities.list", {"search": "ANN"}, {"list": [{"id": "one"}]}),
        Ask("entities.list", {"limit": 1}, {"list": [{"id": "one"}], "next_cursor": "1"}),
        Ask("entities.list", {"start_cursor": "1"}, {"list": [{"id": "two"}], "next_cursor": None}),
    ),
    case(
        "EN",
        "what an entity holds is gone with it, and it starts afresh if it comes again",
        on(BOTH),
        *TWO,
        on(AN_ENTITYS_100, {"entity_id": "one"}),
        grant("messages", 7, entity_id="one"),
        track("messages", 3, balance(254), entity_id="one"),
        drop("one"),
        read({"subscriptions": [{"plan_id": "entities-both", "scope": "customer"}]}, messages=left(150, 0)),
        make("one"),
        *totals(200, 150, 150),
    ),
    case(
        "EN",
        "only of what is not used up there can be entities",
        make("one", {"code": "invalid_inputs"}, status=400, feature_id="messages"),
        make("one", refused("feature_not_found"), status=404, feature_id="nowhere"),
        drop("one", status=404),
    ),
)

HOLDS: tuple[Case, ...] = (
    case(
        "LK-18",
        "an entity's lock that was too large goes back to where it came from",
        on(BOTH),
        *TWO,
        lock("messages", 30, entity_id="one"),
        confirm(10),
        *totals(190, 140, 150),
    ),
    case(
        "LK-18",
        "an entity's lock that was too small goes on with the customer's, never with another's",
        on(BOTH),
        *TWO,
        lock("messages", 30, entity_id="one"),
        confirm(80),
        *totals(120, 70, 120),
    ),
    case(
        "LK-18",
        "an entity's lock that is released leaves nothing",
        on(BOTH),
        *TWO,
        lock("messages", 30, entity_id="one"),
        release(),
        *totals(200, 150, 150),
    ),
    case(
        "LK-18",
        "a customer's lock goes over to the slots, in the order of the entities",
        on(BOTH),
        *TWO,
        lock("messages", 120),
        confirm(160),
        *totals(40, 0, 40),
    ),
    case(
        "LK-18",
        "a lock that is kept as it was is one event, whatever the customer does meanwhile",
        on(BOTH),
        *TWO,
        lock("messages", 30, entity_id="one"),
        track("messages", 10),
        confirm(),
        *totals(160, 110, 140),
        events({"value": 10}, {"value": 30}),
        Ask("events.list", {"entity_id": "one"}, {"list": [{"value": 30}]}),
    ),
    case(
        "LK-18",
        "locks of two entities do not touch each other",
        on(BOTH),
        *TWO,
        together(
            lock("messages", 30, entity_id="one", lock_id="a"),
            lock("messages", 20, entity_id="two", lock_id="b"),
        ),
        together(confirm(15, lock_id="a"), confirm(25, lock_id="b")),
        *totals(160, 135, 125),
    ),
    case(
        "LK-19",
        "what a customer's lock took of several entities goes back to the last first",
        on(EACH_10),
        *TWO,
        lock("messages", 14),
        confirm(8),
        *totals(12, 2, 10),
    ),
    case(
        "LK-20",
        "locks of entities with plans of their own",
        on(MESSAGES_100),
        *TWO,
        *(on(AN_ENTITYS_50, {"entity_id": name}) for name in ("one", "two")),
        lock("messages", 30, entity_id="one"),
        confirm(10),
        *totals(190, 140, 150),
        lock("messages", 30, entity_id="one"),
        confirm(70),
        *totals(120, 70, 120),
        lock("messages", 71, denied()),
        lock("messages", 20),
        release(),
        *totals(120, 70, 120),
    ),
    case(
        "LK-18",
        "a lock of an entity that is gone goes back to the customer",
        on(BOTH),
        *TWO,
        lock("messages", 80, entity_id="one"),
        drop("one"),
        read(messages=left(120)),
        confirm(10),
        read(messages=left(150, 0)),
    ),
)

TIME: tuple[Case, ...] = (
    case(
        "RS-4",
        "every slot starts again for itself",
        on(EACH_500_TO_600),
        *TWO,
        track("messages", 550, balance(0, 550), entity_id="one"),
        track("messages", 30, balance(470), entity_id="two"),
        clock(FEBRUARY),
        read(messages=left(1000, 0)),
        look("one", messages=left(500, 0)),
        look("two", messages=left(500, 0)),
    ),
    case(
        "EN",
        "a slot that comes later starts again with the plan",
        on(EACH_100),
        make("one"),
        clock(FEBRUARY - 1000),
        make("two"),
        track("messages", 40, balance(60, next_reset_at=FEBRUARY), entity_id="two"),
        clock(FEBRUARY),
        look("two", messages=left(100)),
    ),
    case(
        "EN",
        "what rolls over stays with its entity",
        on(ROLLING),
        *TWO,
        track("messages", 4, entity_id="one"),
        clock(FEBRUARY),
        look("one", messages=left(16, rollovers=rolled(6))),
        look("two", messages=left(20, rollovers=rolled(10))),
        track("messages", 12, entity_id="one"),
        look("one", messages=left(4, rollovers=rolled(0))),
        look("two", messages=left(20)),
        read(messages=left(24)),
    ),
    case(
        "EN",
        "another plan gives each entity a new slot, and one for those that come",
        on(BOTH),
        make("one"),
        track("messages", 30, entity_id="one"),
        on(BIGGER),
        look("one", messages=left(280, 0)),
        make("two"),
        look("two", messages=left(280)),
        read(messages=left(360)),
    ),
    case(
        "EN",
        "an entity's plans are replaced among themselves, and end by themselves",
        on(CUSTOMERS_50),
        *TWO,
        on(AN_ENTITYS_100, {"entity_id": "one"}),
        on(AN_ENTITYS_100, {"entity_id": "two"}),
        on(AN_ENTITYS_50, {"entity_id": "one"}),
        look("one", messages=left(100)),
        look("two", messages=left(150)),
        Ask(
            "billing.attach",
            {"plan_id": "entities-plan-100", "entity_id": "two"},
            refused("plan_already_attached"),
            409,
        ),
        Ask(
            "billing.attach",
            {"plan_id": "entities-plan-100", "entity_id": "nobody"},
            refused("entity_not_found"),
            404,
        ),
        Ask(
            "billing.update",
            {"plan_id": "entities-plan-100", "cancel_action": "cancel_immediately"},
            status=404,
        ),
        Ask(
            "billing.update",
            {"plan_id": "entities-plan-50", "entity_id": "one", "cancel_action": "cancel_immediately"},
        ),
        look("one", messages=left(50)),
        look("two", messages=left(150)),
    ),
    case(
        "CC-4",
        "calls of one entity at the same time stay within its slot",
        on(EACH_500_TO_600),
        *(make(f"seat{number}") for number in range(1, 6)),
        together(
            *(
                Ask(
                    "balances.check",
                    {
                        "feature_id": "messages",
                        "required_balance": 200,
                        "send_event": True,
                        "entity_id": "seat1",
                    },
                )
                for _ in range(5)
            ),
            let_through=3,
        ),
        look("seat1", messages=left(0, 600)),
        look("seat2", messages=left(500, 0)),
        read(messages=left(2000, 600)),
    ),
)

LIMITS: tuple[Case, ...] = (
    case(
        "OV-6",
        "a customer's spend limit counts what every entity goes below zero",
        on(EACH_800_LATER),
        *TWO,
        controls(spend_limits=[{"feature_id": "messages", "overage_limit": 25, "enabled": True}]),
        track("messages", 810, entity_id="one"),
        track("messages", 810, entity_id="two"),
        check("messages", 6, denied(), entity_id="one"),
        check("messages", 5, allowed(), entity_id="one"),
        track("messages", 10, deducted(("messages", 5))),
        read(messages=left(0, 1625)),
        track("messages", 1, deducted(), entity_id="two"),
    ),
    case(
        "OV-6",
        "of an entity's spend limit and the customer's, the smaller one holds",
        on(EACH_800_LATER),
        *TWO,
        controls(spend_limits=[{"feature_id": "messages", "overage_limit": 25, "enabled": True}]),
        limit("one", spend_limits=[{"feature_id": "messages", "overage_limit": 10, "enabled": True}]),
        limit("two", spend_limits=[{"feature_id": "messages", "overage_limit": 100, "enabled": True}]),
        track("messages", 820, balance(0, 810), entity_id="one"),
        track("messages", 820, balance(0, 815), entity_id="two"),
        read(messages=left(0, 1625)),
    ),
    case(
        "OV-6",
        "overage that is off for an entity is off for its calls alone",
        on(LATER_100),
        *TWO,
        limit("one", overage_allowed=[{"feature_id": "messages", "enabled": False}]),
        track("messages", 101, deducted(("messages", 100)), entity_id="one"),
        track("messages", 1, balance(0, 101), entity_id="two"),
        track("messages", 1, balance(0, 102)),
    ),
    case(
        "EN",
        "an entity's usage limit counts its own calls, the customer's counts all",
        on(MESSAGES_100),
        *TWO,
        controls(usage_limits=[{"feature_id": "messages", "limit": 30, "interval": "month"}]),
        limit("one", usage_limits=[{"feature_id": "messages", "limit": 10, "interval": "month"}]),
        track("messages", 15, deducted(("messages", 10)), entity_id="one"),
        check("messages", 1, denied(), entity_id="one"),
        track("messages", 15, deducted(("messages", 15)), entity_id="two"),
        check("messages", 6, denied()),
        track("messages", 10, deducted(("messages", 5)), entity_id="two"),
        Ask(
            "entities.get",
            {"entity_id": "one"},
            {"billing_controls": {"usage_limits": [{"limit": 10, "usage": 10, "source": "entity"}]}},
        ),
        clock(FEBRUARY),
        check("messages", 10, allowed(), entity_id="one"),
        check("messages", 11, denied(), entity_id="one"),
        limit("one", usage_limits=[]),
        check("messages", 30, allowed(), entity_id="one"),
    ),
)

SET_BY_HAND: tuple[Case, ...] = (
    case(
        "EN",
        "a balance of an entity is set, listed and deleted by itself",
        on(EACH_100),
        *TWO,
        grant("messages", 20, entity_id="one", balance_id="gift"),
        grant("messages", 20, status=404, entity_id="nobody"),
        look("one", messages=left(120)),
        update("messages", remaining=5, entity_id="two"),
        look("two", messages=left(5)),
        update("messages", remaining=50, entity_id="one", balance_id="gift"),
        look("one", messages=left(150)),
        read(messages=left(155)),
        check("messages", 106, denied()),
        check("messages", 105, allowed()),
        Ask(
            "balances.list",
            {"entity_id": "two"},
            {"list": [{"entity_id": "two", "source": "entity", "remaining": 5}], "has_more": False},
        ),
        Ask("balances.delete", {"balance_id": "gift", "entity_id": "one"}),
        look("one", messages=left(100)),
    ),
)

CASES = VIEWS + MADE + HOLDS + TIME + LIMITS + SET_BY_HAND
