"""settle.lua on a real Valkey: what a hold becomes once it is known how much was used. Cases LK-* by their number."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from creditgate.balances.holds import FINALS_MAX, Final
from creditgate.balances.store import Reply
from creditgate.core.catalog import Interval, Recurrence, Rollover
from creditgate.core.changes import rows_change
from creditgate.core.controls import BillingControls, UsageLimit
from creditgate.core.customers import Row
from creditgate.core.decisions import Mode, Status
from creditgate.core.holds import Limits
from creditgate.core.journal import Kind
from creditgate.ledger.events import events_of
from tests.lua.harness import (
    COSTS,
    DAY,
    DAY_MS,
    HOUR_MS,
    MONTH,
    T0,
    World,
    catalog_of,
    decimal_text,
    nanos,
    row,
)
from tests.lua.test_change import told

HOUR = Recurrence(Interval.HOUR)
MONTHS = Limits(1, 99 * DAY_MS, 9)
H5M10 = (row("h", "messages", "5", resets=HOUR), row("m", "messages", "10", resets=MONTH))
ACTION_AND_CREDITS = (row("a", "action1", "100"), row("c", "credits", "200"))
CREDITS = (row("c", "credits", "200"),)


@dataclass(frozen=True)
class Step:
    """A track, a hold, or its end at so many units (None: as it was held)."""

    verb: str
    units: str | None
    mode: Mode | None = None


def track(units: str, mode: Mode = Mode.CAP) -> Step:
    return Step("track", units, mode)


def hold(units: str, mode: Mode = Mode.REJECT) -> Step:
    return Step("hold", units, mode)


def settle(units: str | None) -> Step:
    return Step("settle", units)


@dataclass(frozen=True)
class Scenario:
    """A promise, the rows that a new customer holds, what happens, and what is left; events are newest first."""

    promise: str
    rows: tuple[Row, ...]
    steps: tuple[Step, ...]
    after: Mapping[str, str]
    events: tuple[str, ...] | None = None
    feature: str = "messages"
    costs: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: COSTS)


SCENARIOS = [
    Scenario(
        "LK-1: held 8, used 5: 10 of 15 are left",
        H5M10,
        (hold("8"), settle("5")),
        {"h": "0", "m": "10"},
        ("-3", "8"),
    ),
    Scenario(
        "LK-3: given 5 in advance, 3 of them are kept",
        H5M10,
        (track("10"), hold("-5"), settle("-3")),
        {"h": "3", "m": "5"},
        ("2", "-5", "10"),
    ),
    Scenario(
        "LK-4: given 5 in advance, but then 3 were used",
        H5M10,
        (track("10"), hold("-5"), settle("3")),
        {"h": "0", "m": "2"},
        ("8", "-5", "10"),
    ),
    Scenario(
        "LK-5: held 8, used 11",
        H5M10,
        (hold("8"), settle("11")),
        {"h": "0", "m": "4"},
        ("3", "8"),
    ),
    Scenario(
        "LK-6: given 5 in advance, and 3 more",
        H5M10,
        (track("10"), hold("-5"), settle("-8")),
        {"h": "5", "m": "8"},
    ),
    Scenario(
        "LK-7: held 5, and given back 2: all of it comes back, never above the grant",
        H5M10,
        (hold("5"), settle("-2")),
        {"h": "5", "m": "10"},
        ("-7", "5"),
    ),
    Scenario(
        "LK-8: given 3 in advance, and 5 more",
        H5M10,
        (track("10"), hold("-3"), settle("-8")),
        {"h": "5", "m": "8"},
        ("-5", "-3", "10"),
    ),
    Scenario(
        "LK-9: held 8, released",
        H5M10,
        (hold("8"), settle("0")),
        {"h": "5", "m": "10"},
        ("-8", "8"),
    ),
    Scenario(
        "LK-10: the release gives back to the row that gave, though another has room",
        H5M10,
        (track("5"), hold("8"), settle("0")),
        {"h": "0", "m": "10"},
    ),
    Scenario(
        "LK-12: held from the own feature, used 0",
        ACTION_AND_CREDITS,
        (hold("8"), settle("0")),
        {"a": "100", "c": "200"},
        feature="action1",
    ),
    Scenario(
        "LK-12: held across two pools, used 4 more",
        ACTION_AND_CREDITS,
        (track("95"), hold("8"), settle("12")),
        {"a": "0", "c": "198.6"},
        feature="action1",
    ),
    Scenario(
        "LK-12: held across two pools, used 3: the credits come back first",
        ACTION_AND_CREDITS,
        (track("95"), hold("8"), settle("3")),
        {"a": "2", "c": "200"},
        feature="action1",
    ),
    Scenario(
        "LK-12: held 10, used 115: what is used beyond spills into credits",
        ACTION_AND_CREDITS,
        (hold("10"), settle("115")),
        {"a": "0", "c": "197"},
        feature="action1",
    ),
    Scenario(
        "LK-12: fractions",
        ACTION_AND_CREDITS,
        (hold("27.89"), settle("12.45")),
        {"a": "87.55", "c": "200"},
        feature="action1",
    ),
    Scenario(
        "LK-12: the credits themselves, used less",
        CREDITS,
        (hold("30"), settle("20")),
        {"c": "180"},
        feature="credits",
    ),
    Scenario(
        "LK-12: the credits themselves, used more",
        CREDITS,
        (hold("30"), settle("45")),
        {"c": "155"},
        feature="credits",
    ),
    Scenario(
        "LK-12: used as held: nothing moves, and there is no event",
        ACTION_AND_CREDITS,
        (track("95"), hold("8"), settle(None)),
        {"a": "0", "c": "199.4"},
        ("8", "95"),
        feature="action1",
    ),
    Scenario(
        "used as held, and said so",
        H5M10,
        (hold("8"), settle("8")),
        {"h": "0", "m": "7"},
        ("8",),
    ),
    Scenario(
        "a part of a part: the last row that gave gets back first, in part",
        H5M10,
        (hold("12"), settle("9.5")),
        {"h": "0", "m": "5.5"},
    ),
    Scenario(
        "what was used beyond the hold is capped, as a track is",
        H5M10,
        (hold("10"), settle("100")),
        {"h": "0", "m": "0"},
        ("90", "10"),
    ),
    Scenario(
        "a hold that takes what is there keeps as much of it as was used",
        H5M10,
        (hold("100", Mode.CAP), settle("6")),
        {"h": "0", "m": "9"},
        ("-94", "100"),
    ),
    Scenario(
        "a hold that took what is there, used more than was there: nothing is left, and nothing more is taken",
        H5M10,
        (hold("100", Mode.CAP), settle("60")),
        {"h": "0", "m": "0"},
    ),
    Scenario(
        "a hold may overdraw, and its end puts it right in the order in which it was drawn",
        H5M10,
        (hold("18", Mode.OVERFLOW), settle("16")),
        {"h": "-1", "m": "0"},
    ),
    Scenario(
        "an overdraft is undone before what was there, as if only 7 had been taken at once",
        H5M10,
        (hold("18", Mode.OVERFLOW), settle("7")),
        {"h": "0", "m": "8"},
    ),
    Scenario(
        "what is used beyond an overdrawn hold overdraws further",
        H5M10,
        (hold("18", Mode.OVERFLOW), settle("20")),
        {"h": "-5", "m": "0"},
    ),
    Scenario(
        "given in advance to rows below zero first, and taken back from the last",
        H5M10,
        (track("18", Mode.OVERFLOW), hold("-10"), settle("-7")),
        {"h": "4", "m": "0"},
    ),
    Scenario(
        "what was given in advance and used meanwhile is taken from the other rows",
        H5M10,
        (track("5"), hold("-4"), track("3"), settle("0")),
        {"h": "0", "m": "7"},
    ),
    Scenario(
        "nothing is held, and something used",
        H5M10,
        (hold("0"), settle("6")),
        {"h": "0", "m": "9"},
        ("6", "0"),
    ),
    Scenario(
        "nothing is held, and something given back",
        H5M10,
        (track("6"), hold("0"), settle("-2")),
        {"h": "2", "m": "9"},
        ("-2", "0", "6"),
    ),
    Scenario(
        "a released hold gives back above the grant, where a refund had filled the row meanwhile",
        (row("r", "messages", "10"),),
        (hold("4"), track("-4"), settle("0")),
        {"r": "14"},
    ),
    Scenario(
        "a cost that does not divide is rounded once when it is held, and that amount is moved",
        (row("x", "xs", "10"),),
        (hold("3"), settle("0")),
        {"x": "10"},
        feature="action1",
        costs={"xs": {"action1": "0.333333333"}},
    ),
    Scenario(
        "of a hold at a cost that does not divide, so much is kept as a track of the rest would have taken",
        (row("x", "xs", "10"),),
        (hold("2.5"), settle("1.000000001")),
        {"x": "9.666666666"},
        feature="action1",
        costs={"xs": {"action1": "0.333333333"}},
    ),
    Scenario(
        "across systems of different cost, what is left is converted as a track would",
        (row("c1", "credits", "10", resets=MONTH), row("c3", "credits3", "10")),
        (hold("54"), settle("52")),
        {"c1": "0", "c3": "6"},
        feature="action1",
    ),
    Scenario(
        "a feature that is free holds nothing, and the end of the hold is an event all the same",
        (row("x", "xs", "10"),),
        (hold("3"), settle("1")),
        {"x": "10"},
        ("-2", "3"),
        feature="action1",
        costs={"xs": {"action1": "0"}},
    ),
    Scenario(
        "amounts beyond 2^53 come back to the nano",
        (row("r", "messages", "9007199254740.993"),),
        (hold("9007199254740.992999999"), settle("0.000000001")),
        {"r": "9007199254740.992999999"},
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.promise)
async def test_scenarios(world: World, scenario: Scenario) -> None:
    """A hold that is settled leaves what a track of that many units would have left, and its receipt is gone."""
    world.catalog = catalog_of(scenario.costs)
    await world.create("ann", *scenario.rows)
    for step in scenario.steps:
        reply = await run(world, scenario.feature, step)
        assert reply.status is Status.OK, step
    assert await world.balances("ann") == scenario.after
    assert (await world.record("ann")).holds == {}
    if scenario.events is not None:
        assert await events(world) == list(scenario.events)


async def run(world: World, feature: str, step: Step) -> Reply:
    if step.verb == "settle":
        return await world.settle("ann", step.units)
    assert step.units is not None
    assert step.mode is not None
    if step.verb == "hold":
        return await world.hold("ann", feature, step.units, mode=step.mode)
    return await world.store.track(
        not_after=10**14,
        customer_id="ann",
        call=world.usage("track", feature, nanos(step.units)),
        mode=step.mode,
        properties=(),
        pools=world.needs(feature, step.units),
    )


async def events(world: World, customer_id: str = "ann") -> list[str]:
    """The values of the customer's events, newest first."""
    found = [event for entry in await world.entries(customer_id) for event in events_of(entry)]
    return [decimal_text(event.call.value_nanos or 0) for event in reversed(found)]


# What it says


async def test_lk_24_the_event_carries_what_moved(world: World) -> None:
    """LK-24: the event of a settled hold says which rows got how much back, and what was taken besides."""
    await world.create("ann", *ACTION_AND_CREDITS)
    await world.track("ann", "action1", "95")
    await world.hold("ann", "action1", "8", properties='{"chat":"c1"}')
    reply = await world.settle("ann", "-1")
    assert [(moved.row_id, decimal_text(moved.delta_nanos)) for moved in reply.moved] == [
        ("a", "5"),
        ("c", "0.6"),
        ("a", "1"),
    ]
    entry = (await world.entries("ann"))[-1]
    assert entry.stream_id == reply.stream_id
    assert told(entry.items) == [
        (Kind.UNHOLD, "a", nanos("5"), nanos("5")),
        (Kind.UNHOLD, "c", nanos("0.6"), nanos("200")),
        (Kind.REFUND, "a", nanos("1"), nanos("6")),
        (Kind.PUT, "hold", None, None),
    ]
    (event,) = events_of(entry)
    assert [item.row_id for item in event.deductions] == ["a", "c", "a"]


# Rows that have changed meanwhile


async def test_a_release_after_the_reset_gives_nothing_back(world: World) -> None:
    """What was held in the old period is lost with it: else a hold across the boundary would carry credits over."""
    await world.create("ann", row("m", "messages", "10", resets=DAY), row("life", "messages", "10"))
    await world.hold("ann", "messages", "12", expires_at=T0 + DAY_MS, limits=MONTHS)
    await world.change(await world.record("ann"), rows_change(await world.record("ann")), clock=T0 + 1)
    await to_next_day(world)
    assert await world.balances("ann") == {"m": "10", "life": "8"}
    assert (await settled_though_due(world, "0")).status is Status.OK
    assert await world.balances("ann") == {"m": "10", "life": "10"}


async def test_a_confirmation_after_the_reset_charges_the_old_period(world: World) -> None:
    """What was used of the hold was taken before the reset; only use beyond it is taken from the new period."""
    await world.create("ann", row("m", "messages", "10", resets=DAY))
    await world.hold("ann", "messages", "4", expires_at=T0 + DAY_MS, limits=MONTHS)
    await to_next_day(world)
    assert (await settled_though_due(world, "7")).status is Status.OK
    assert await world.balances("ann") == {"m": "7"}


async def test_credit_given_in_the_old_period_is_not_taken_from_the_new(world: World) -> None:
    """What was given in advance ended with its period: taking it back afterwards would take it twice."""
    await world.create("ann", row("m", "messages", "10", resets=DAY))
    await world.track("ann", "messages", "6")
    await world.hold("ann", "messages", "-4", expires_at=T0 + DAY_MS, limits=MONTHS)
    await to_next_day(world)
    assert (await settled_though_due(world, "0")).status is Status.OK
    assert await world.balances("ann") == {"m": "10"}


async def to_next_day(world: World) -> None:
    """Step over the reset only, as if it had come before the hold expired."""
    await world.set_clock("ann", T0 + DAY_MS)
    await world.forward("ann")


async def settled_though_due(world: World, units: str) -> Reply:
    """Settle the hold, which expires at this very moment."""
    record = await world.record("ann")
    final = world.final("lock", record.holds["lock"], units)
    return await world.store.settle(
        not_after=10**14, customer_id="ann", expected_sequence=record.sequence, finals=[final]
    )


@pytest.mark.parametrize(
    ("held", "final", "after"),
    [
        ("6", "0", {"new": "20"}),  # the new row is full: there is no room for what comes back
        ("6", "8", {"new": "18"}),  # 2 were used beyond the hold
        ("6", "6", {"new": "20"}),
    ],
)
async def test_a_plan_changed_while_units_were_held(
    world: World, held: str, final: str, after: Mapping[str, str]
) -> None:
    """A plan that is replaced takes its rows along; what a hold took from them is settled with the new rows."""
    await world.create("ann", row("old", "messages", "10", owner_id="plan"))
    await world.hold("ann", "messages", held)
    record = await world.record("ann")
    await world.change(
        record,
        rows_change(record, opened=[row("new", "messages", "20", owner_id="plan2")], closed=["plan"]),
    )
    assert (await world.settle("ann", final)).status is Status.OK
    assert await world.balances("ann") == after


async def test_what_was_held_from_a_row_that_is_gone_fills_the_rows_that_are_there(world: World) -> None:
    """Like a refund: in the order of the rows, up to what each was granted, converted to what they cost."""
    await world.create(
        "ann", row("c1", "credits", "10", owner_id="plan"), row("c3", "credits3", "100"), clock=T0
    )
    await world.hold("ann", "action1", "50")  # all 10 credits, at 0.2
    record = await world.record("ann")
    await world.change(record, rows_change(record, opened=[row("own", "action1", "20")], closed=["plan"]))
    await world.track("ann", "action1", "30")  # 20 of its own, 10 at 2 credits
    assert await world.balances("ann") == {"own": "0", "c3": "80"}
    await world.settle("ann", "20")  # 30 units come back
    assert await world.balances("ann") == {"own": "20", "c3": "100"}


async def test_credit_given_to_a_row_that_is_gone_is_taken_from_the_rows_that_are_there(world: World) -> None:
    """Taken back in normal order, as far as there is something."""
    await world.create("ann", row("old", "messages", "10", owner_id="plan"), row("life", "messages", "3"))
    await world.track("ann", "messages", "8")
    await world.hold("ann", "messages", "-6")
    record = await world.record("ann")
    await world.change(record, rows_change(record, closed=["plan"]))
    await world.settle("ann", "0")
    assert await world.balances("ann") == {"life": "0"}


async def test_a_cost_that_changed_meanwhile(world: World) -> None:
    """What comes back is what was taken; only what is used beyond the hold costs what it costs now."""
    await world.create("ann", row("c", "credits", "100"))
    await world.hold("ann", "action1", "10")
    world.catalog = catalog_of({**COSTS, "credits": {"action1": "5"}})
    await world.settle("ann", "4")
    assert await world.balances("ann") == {"c": "99.2"}
    await world.hold("ann", "action1", "4")
    world.catalog = catalog_of(COSTS)
    await world.settle("ann", "5")
    assert await world.balances("ann") == {"c": "79"}


async def test_a_feature_that_left_its_credit_system(world: World) -> None:
    """A hold goes back to the credits that gave it, although the feature no longer costs any."""
    await world.create("ann", row("c", "credits", "100"), row("own", "action1", "10"))
    await world.hold("ann", "action1", "20")
    world.catalog = catalog_of({})
    await world.settle("ann", "4")
    assert await world.balances("ann") == {"own": "6", "c": "100"}


# Rollovers, unlimited rows, limits

CAPPED = BillingControls(usage_limits=(UsageLimit("messages", nanos("5"), Interval.DAY),))
HUNDRED = row("r", "messages", "100")


def rolled(row_id: str, units: str, *, expires_at: int | None = None) -> Row:
    """What rolled over from the row `m`."""
    return replace(
        row(row_id, "messages", units, expires_at=expires_at), reset=None, anchor=None, rolled_from="m"
    )


def monthly_with_rollover(units: str) -> Row:
    return replace(row("m", "messages", units, resets=MONTH), rollover=Rollover())


async def test_lk_14_rollovers(world: World) -> None:
    """LK-14: rollovers give first, and get back last; they are filled again though a refund would not."""
    rows = (rolled("r1", "100", expires_at=T0 + 9 * DAY_MS), rolled("r2", "100"), row("m", "messages", "100"))
    await world.create("ann", *rows)
    await world.hold("ann", "messages", "250")
    assert await world.balances("ann") == {"r1": "0", "r2": "0", "m": "50"}
    await world.settle("ann", "80")
    assert await world.balances("ann") == {"r1": "20", "r2": "100", "m": "100"}
    assert await events(world) == ["-170", "250"]


async def test_a_rollover_that_is_held_outlives_the_next_reset(world: World) -> None:
    """A rollover that is held to the last unit is not gone: released after the next reset, all of it is back."""
    await world.create("ann", rolled("r1", "7"), monthly_with_rollover("100"))
    await world.hold("ann", "messages", "7", expires_at=T0 + 31 * DAY_MS + 1, limits=MONTHS)
    await world.set_clock("ann", T0 + 31 * DAY_MS)
    await world.forward("ann")
    assert (await world.balances("ann"))["r1"] == "0"
    await world.settle("ann", "2")
    assert (await world.balances("ann"))["r1"] == "5"


@pytest.mark.parametrize(("final", "left"), [("0", "0"), ("3", "-3"), ("5", "-5"), ("9", "-9"), ("-2", "0")])
async def test_lk_22_unlimited(world: World, final: str, left: str) -> None:
    """LK-22: an unlimited row counts what was really used, and nothing else is touched."""
    await world.create("ann", replace(row("u", "messages"), unlimited=True), HUNDRED)
    await world.hold("ann", "messages", "5")
    assert await world.balances("ann") == {"u": "-5", "r": "100"}
    await world.settle("ann", final)
    assert await world.balances("ann") == {"u": left, "r": "100"}


@pytest.mark.parametrize(
    ("held", "final", "left", "may_use"),
    [
        ("3", "3", "97", "2"),
        ("4", "1", "99", "4"),
        ("3", "6", "95", "0"),
        ("4", "0", "100", "5"),
        ("4", "-3", "100", "5"),
    ],
)
async def test_lk_23_usage_limits(world: World, held: str, final: str, left: str, may_use: str) -> None:
    """LK-23: a hold counts against a usage limit at once, and what was not used of it counts no more."""
    await world.create("ann", HUNDRED, controls=CAPPED)
    await world.hold("ann", "messages", held)
    assert (await world.hold("ann", "messages", "3", hold_id="more")).status is Status.REFUSED
    await world.settle("ann", final)
    balances = await world.balances("ann")
    (gate,) = (await world.record("ann")).terms.gates
    assert (balances["r"], balances[gate.id]) == (left, may_use)
    await world.track("ann", "messages", "9")
    assert (await world.balances("ann"))["r"] == decimal_text(nanos(left) - nanos(may_use))


async def test_a_window_that_ended_counts_nothing_of_an_old_hold(world: World) -> None:
    """Released in the next window, a hold does not let through more than that window's limit."""
    await world.create("ann", HUNDRED, controls=CAPPED)
    await world.hold("ann", "messages", "4", expires_at=T0 + DAY_MS + 1, limits=MONTHS)
    await to_next_day(world)
    await world.settle("ann", "0")
    (gate,) = (await world.record("ann")).terms.gates
    assert await world.balances("ann") == {"r": "100", gate.id: "5"}


async def test_limits_of_a_feature_and_of_its_credits(world: World) -> None:
    """A limit on the feature counts units wherever they were drawn, one on the credits what these gave."""
    limits = (
        UsageLimit("action1", nanos("50"), Interval.DAY),
        UsageLimit("credits", nanos("10"), Interval.DAY),
    )
    await world.create(
        "ann", row("a", "action1", "5"), CREDITS[0], controls=BillingControls(usage_limits=limits)
    )
    await world.hold("ann", "action1", "20")  # 5 of its own, 15 for 3 credits

    async def left() -> list[str]:
        balances, record = await world.balances("ann"), await world.record("ann")
        return [balances["a"], balances["c"], *(balances[gate.id] for gate in record.terms.gates)]

    assert await left() == ["0", "197", "30", "7"]
    await world.settle("ann", "10")
    assert await left() == ["0", "199", "40", "9"]
    await world.hold("ann", "action1", "10")
    await world.settle("ann", "0")
    assert await left() == ["0", "199", "40", "9"]


async def test_a_limit_counts_only_calls_of_its_properties(world: World) -> None:
    """A hold is counted by the limits of its properties, and is taken off the same ones."""
    limit = UsageLimit("messages", nanos("5"), Interval.DAY, properties={"model": "large"})
    await world.create("ann", HUNDRED, controls=BillingControls(usage_limits=(limit,)))
    await world.hold("ann", "messages", "50", hold_id="small", properties='{"model":"small"}')
    await world.hold("ann", "messages", "4", properties='{"model":"large"}')
    (gate,) = (await world.record("ann")).terms.gates
    assert await world.balances("ann") == {"r": "46", gate.id: "1"}
    await world.settle("ann", "1")
    await world.settle("ann", "60", hold_id="small")
    assert await world.balances("ann") == {"r": "39", gate.id: "4"}
    await world.hold("ann", "messages", "1", properties='{"model":"large"}')
    await world.settle("ann", "9")
    assert await world.balances("ann") == {"r": "35", gate.id: "0"}


async def test_what_is_used_beyond_a_hold_is_told_if_it_crosses_a_limit(world: World) -> None:
    """The alert that a balance is used up is in the entry of the settled hold, as in that of a track."""
    await world.create("ann", HUNDRED)
    await world.hold("ann", "messages", "60")
    await world.settle("ann", "100")
    items = (await world.entries("ann"))[-1].items
    assert [item.document_id for item in items if item.document_type == "alert"] == ["included.messages"]


async def test_a_deleted_customer_releases_what_limits_counted(world: World) -> None:
    """The journal of a limit adds up too."""
    await world.create("ann", HUNDRED, controls=CAPPED)
    await world.hold("ann", "messages", "4")
    written = await world.store.delete(not_after=10**14, customer_id="ann", call=world.call("delete"))
    assert written.status is Status.OK


# More than one, and who may


async def test_several_at_once_each_find_what_the_one_before_left(world: World) -> None:
    """Holds that expired together are settled in one write, in order, each with an event of its own."""
    await world.create("ann", *H5M10)
    for number in range(3):
        await world.hold("ann", "messages", "4", hold_id=f"h{number}")
    holds = (await world.record("ann")).holds
    wanted = {"h1": "7", "h0": "0", "h2": "1"}
    finals = [world.final(hold_id, holds[hold_id], units) for hold_id, units in wanted.items()]
    reply = await world.store.settle(
        not_after=10**14, customer_id="ann", expected_sequence=None, finals=finals
    )
    assert reply.status is Status.OK
    assert await world.balances("ann") == {"h": "4", "m": "3"}
    assert await events(world) == ["-3", "-4", "3", "4", "4", "4"]


async def test_all_or_none(world: World) -> None:
    """One of several that is not there any more: none is settled."""
    await world.create("ann", *H5M10)
    await world.hold("ann", "messages", "4")
    record = await world.record("ann")
    gone = Final("gone", "op", 0, world.usage("settle", "messages", 0), (), world.needs("messages", "0"))
    before = await world.everything()
    reply = await world.store.settle(
        not_after=10**14,
        customer_id="ann",
        expected_sequence=None,
        finals=[world.final("lock", record.holds["lock"], "0"), gone],
    )
    assert reply.status is Status.MOVED_ON
    assert await world.everything() == before


async def test_the_most_that_one_call_settles(world: World) -> None:
    """So many holds, each from so many rows, are one write, and no more than Lua can unpack."""
    rows = [row(f"r{number}", "messages", "2") for number in range(60)]
    await world.create("ann", *rows)
    for number in range(FINALS_MAX):
        await world.hold("ann", "messages", "7.5", hold_id=f"h{number}")
    holds = (await world.record("ann")).holds
    finals = [world.final(hold_id, hold, "0") for hold_id, hold in holds.items()]
    reply = await world.store.settle(
        not_after=10**14, customer_id="ann", expected_sequence=None, finals=finals
    )
    assert reply.status is Status.OK
    assert set((await world.balances("ann")).values()) == {"2"}


async def test_a_hold_is_settled_once(world: World) -> None:
    """Of two who settle what they both have read, one does; the other is told that it has moved on."""
    await world.create("ann", *H5M10)
    await world.hold("ann", "messages", "8")
    hold = (await world.record("ann")).holds["lock"]
    final = world.final("lock", hold, "0")
    for expected in (Status.OK, Status.MOVED_ON):
        reply = await world.store.settle(
            not_after=10**14, customer_id="ann", expected_sequence=None, finals=[final]
        )
        assert reply.status is expected
    assert await world.balances("ann") == {"h": "5", "m": "10"}


async def test_another_hold_of_the_same_id_is_not_settled(world: World) -> None:
    """Who has read a hold cannot settle the one that has its id by then: it may be of another feature."""
    await world.create("ann", *H5M10)
    await world.hold("ann", "messages", "8")
    old = world.final("lock", (await world.record("ann")).holds["lock"], "0")
    await world.settle("ann", "1")
    await world.hold("ann", "messages", "2")
    before = await world.everything()
    reply = await world.store.settle(
        not_after=10**14, customer_id="ann", expected_sequence=None, finals=[old]
    )
    assert reply.status is Status.MOVED_ON
    assert await world.everything() == before


async def test_a_repeated_key_settles_nothing_twice(world: World) -> None:
    """A finalize that is repeated with its key is answered as the first; with other parameters it is refused."""
    await world.create("ann", *H5M10)
    await world.hold("ann", "messages", "8")
    hold = (await world.record("ann")).holds["lock"]
    first = await world.settle("ann", "5", key="aa", fingerprint="b1")
    before = await world.everything()
    for fingerprint, expected in (("b1", Status.REPLAYED), ("b2", Status.KEY_REUSED)):
        final = world.final("lock", hold, "5", key="aa", fingerprint=fingerprint)
        reply = await world.store.settle(
            not_after=10**14, customer_id="ann", expected_sequence=None, finals=[final]
        )
        assert reply.status is expected
    assert await world.everything() == before
    assert first.stream_id is not None


async def test_due_comes_first(world: World) -> None:
    """A hold that has expired cannot be settled any more as the caller likes; what fell due is stepped over first."""
    await world.create("ann", *H5M10)
    await world.hold("ann", "messages", "8", expires_at=T0 + HOUR_MS // 2)
    await world.set_clock("ann", T0 + HOUR_MS // 2)
    before = await world.everything()
    assert (await world.settle("ann", "0")).status is Status.DUE
    assert await world.everything() == before
    assert (await settled_though_due(world, "0")).status is Status.OK


async def test_an_old_read_settles_nothing_that_is_due(world: World) -> None:
    """A step that was worked out before something else happened is worked out again."""
    await world.create("ann", *H5M10)
    await world.hold("ann", "messages", "8", expires_at=T0 + HOUR_MS // 2)
    record = await world.record("ann")
    await world.set_clock("ann", T0 + HOUR_MS // 2)
    before = await world.everything()
    reply = await world.store.settle(
        not_after=10**14,
        customer_id="ann",
        expected_sequence=record.sequence,
        finals=[world.final("lock", record.holds["lock"], "0")],
    )
    assert reply.status is Status.MOVED_ON
    assert await world.everything() == before


async def test_too_late_and_absent(world: World) -> None:
    """Past its deadline, or for a customer who is not there, nothing is settled."""
    await world.create("ann", *H5M10)
    await world.hold("ann", "messages", "8")
    final = world.final("lock", (await world.record("ann")).holds["lock"], "0")
    before = await world.everything()
    assert (await world.settle("ann", "0", not_after=1)).status is Status.TOO_LATE
    reply = await world.store.settle(
        not_after=10**14, customer_id="bob", expected_sequence=None, finals=[final]
    )
    assert reply.status is Status.ABSENT
    assert await world.everything() == before


async def test_a_balance_that_would_leave_the_range(world: World) -> None:
    """A return that a balance cannot hold changes nothing."""
    await world.create("ann", row("r", "messages", "5"))
    await world.hold("ann", "messages", "5")
    for _ in range(100):
        await world.track("ann", "messages", "-9999999999999.999999999", mode=Mode.OVERFLOW)
    before = await world.everything()
    assert (await world.settle("ann", "0")).status is Status.OUT_OF_RANGE
    assert await world.everything() == before
    assert (await world.settle("ann", None)).status is Status.OK
