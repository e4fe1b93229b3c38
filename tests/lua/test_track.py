"""track.lua on a real Valkey: what is taken from which row, what is given back, and what is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from creditgate.core.customers import Row
from creditgate.core.decisions import Mode, Status
from creditgate.core.journal import Kind
from tests.lua.harness import COSTS, DAY, DAY_MS, MONTH, T0, World, catalog_of, nanos, row

CAP, REJECT, OVERFLOW = Mode.CAP, Mode.REJECT, Mode.OVERFLOW
OK, REFUSED, OUT_OF_RANGE = Status.OK, Status.REFUSED, Status.OUT_OF_RANGE


@dataclass(frozen=True)
class Take:
    """One track: units of a feature (negative gives back), the balances after it, and the status."""

    feature: str
    units: str
    after: Mapping[str, str]
    mode: Mode = CAP
    status: Status = OK


@dataclass(frozen=True)
class Scenario:
    """A promise, the rows that a new customer holds, and calls."""

    promise: str
    rows: tuple[Row, ...]
    takes: tuple[Take, ...]
    costs: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: COSTS)


SCENARIOS = [
    Scenario(
        "tutorial: two basic messages cost 0.02 credits, two premium 0.2",
        (row("r", "usd", "5", resets=MONTH),),
        (
            Take("basic", "2", {"r": "4.98"}),
            Take("premium", "2", {"r": "4.78"}),
            Take("premium", "5", {"r": "4.28"}),
            Take("premium", "1000", {"r": "4.28"}, REJECT, REFUSED),
            Take("premium", "1000", {"r": "0"}),
            Take("basic", "1", {"r": "0"}, REJECT, REFUSED),
        ),
    ),
    Scenario(
        "tracking the credit system itself is one to one",
        (row("r", "credits", "100"),),
        (Take("credits", "27.35", {"r": "72.65"}),),
    ),
    Scenario(
        "the own feature gives before the credit system, even when that one resets sooner; the rest spills at its cost",
        (row("own", "action1", "100"), row("pool", "credits", "200", resets=DAY)),
        (
            Take("action1", "40.5", {"own": "59.5", "pool": "200"}),
            Take("action1", "80", {"own": "0", "pool": "195.9"}),
            Take("action1", "50.75", {"own": "0", "pool": "185.75"}),
        ),
    ),
    Scenario(
        "other features are left alone",
        (row("a", "action1", "100"), row("m", "messages", "150"), row("c", "credits2", "10")),
        (Take("action1", "37.82", {"a": "62.18", "m": "150", "c": "10"}),),
    ),
    Scenario(
        "monthly credits are used before those that never reset",
        (row("life", "messages", "200"), row("month", "messages", "500", resets=MONTH)),
        (
            Take("messages", "100", {"month": "400", "life": "200"}),
            Take("messages", "450", {"month": "0", "life": "150"}),
        ),
    ),
    Scenario(
        "daily credits are used before monthly ones",
        (row("month", "messages", "5", resets=MONTH), row("day", "messages", "5", resets=DAY)),
        (Take("messages", "7", {"day": "0", "month": "3"}),),
    ),
    Scenario(
        "of two grants the one that expires sooner is used first",
        (
            row("year", "messages", "100", expires_at=T0 + 365 * DAY_MS),
            row("soon", "messages", "100", expires_at=T0 + 30 * DAY_MS),
            row("never", "messages", "100"),
        ),
        (
            Take("messages", "60", {"soon": "40", "year": "100", "never": "100"}),
            Take("messages", "60", {"soon": "0", "year": "80", "never": "100"}),
            Take("messages", "90", {"soon": "0", "year": "0", "never": "90"}),
        ),
    ),
    Scenario(
        "the plan gives before the add-on, and of equals the older",
        (
            row("addon", "messages", "500", resets=MONTH, add_on=True, created_at=T0 - 9),
            row("newer", "messages", "10", resets=MONTH, created_at=T0),
            row("older", "messages", "10", resets=MONTH, created_at=T0 - 1),
        ),
        (
            Take("messages", "15", {"older": "0", "newer": "5", "addon": "500"}),
            Take("messages", "6", {"older": "0", "newer": "0", "addon": "499"}),
        ),
    ),
    Scenario(
        "a spill crosses credit systems of different cost, in burn order, and the units that are left stay the same",
        (row("c3", "credits3", "10"), row("c1", "credits", "10", resets=MONTH), row("own", "action1", "1")),
        (
            # 1 unit of its own, 50 units for 10 credits at 0.2, 2 units for 4 credits at 2.
            Take("action1", "53", {"own": "0", "c1": "0", "c3": "6"}),
            Take("action1", "53", {"own": "0", "c1": "0", "c3": "6"}, REJECT, REFUSED),
            Take("action1", "3", {"own": "0", "c1": "0", "c3": "0"}, REJECT),
        ),
    ),
    Scenario(
        "rows of several credit systems interleave as they burn, not system by system",
        (
            row("c1-life", "credits", "2"),
            row("c3-day", "credits3", "2", resets=DAY),
            row("c1-month", "credits", "2", resets=MONTH),
        ),
        (
            # 1 unit at 2, then 10 units at 0.2, then 10 more.
            Take("action1", "11", {"c3-day": "0", "c1-month": "0", "c1-life": "2"}),
            Take("action1", "4", {"c3-day": "0", "c1-month": "0", "c1-life": "1.2"}),
        ),
    ),
    Scenario(
        "a cost that does not divide is rounded once, away from zero, for what is taken and for what is given back",
        (row("a", "sys", "10"),),
        (
            Take("basic", "1", {"a": "9.666666666"}),  # 1 × 0.333333334
            Take("basic", "0.1", {"a": "9.633333332"}),  # 0.0333333334 is 0.033333334
            Take("basic", "0.000000001", {"a": "9.633333331"}),
            Take("basic", "-0.1", {"a": "9.666666665"}),
        ),
        costs={"sys": {"basic": "0.333333334"}},
    ),
    Scenario(
        "units left over from one system are rounded up before the next is entered",
        (row("a", "first", "1", resets=MONTH), row("b", "second", "100")),
        # 10 units cost 7 of the first. It gives 1; the 6 left are 8.571428571… units, so 8.571428572 × 3 of the second.
        (Take("basic", "10", {"a": "0", "b": "74.285714284"}),),
        costs={"first": {"basic": "0.7"}, "second": {"basic": "3"}},
    ),
    Scenario(
        "between systems of the same cost nothing is rounded",
        (row("a", "first", "1", resets=MONTH), row("b", "second", "1")),
        (Take("basic", "4", {"a": "0", "b": "0.2"}),),
        costs={"first": {"basic": "0.45"}, "second": {"basic": "0.45"}},
    ),
    Scenario(
        "0.123456789 units at 0.01 are charged as 0.001234568, never as less",
        (row("r", "usd", "5"),),
        (
            Take("basic", "0.123456789", {"r": "4.998765432"}),
            Take("basic", "0.123456789", {"r": "4.997530864"}),
        ),
    ),
    Scenario(
        "where a unit costs nothing it is free, also with nothing left, and reject lets it pass",
        (row("own", "basic", "1"), row("pool", "sys", "3")),
        (
            Take("basic", "100", {"own": "0", "pool": "3"}),
            Take("basic", "100", {"own": "0", "pool": "3"}, REJECT),
            Take("premium", "3", {"own": "0", "pool": "0"}),
            Take("basic", "100", {"own": "0", "pool": "0"}, REJECT),
            Take("premium", "2", {"own": "0", "pool": "-2"}, OVERFLOW),
            Take("basic", "100", {"own": "0", "pool": "-2"}, REJECT),
            Take("basic", "100", {"own": "0", "pool": "-2"}, OVERFLOW),
        ),
        costs={"sys": {"basic": "0", "premium": "1"}},
    ),
    Scenario(
        "what costs nothing moves nothing between rows when it is given back, and the own rows are filled first",
        (
            row("own", "basic", "10"),
            row("month", "sys", "10", resets=MONTH),
            row("life", "sys", "20"),
            row("other", "two", "5"),
        ),
        (
            Take("premium", "15", {"own": "10", "month": "0", "life": "15", "other": "5"}),
            Take("two", "3", {"own": "10", "month": "0", "life": "15", "other": "2"}),
            Take("basic", "7", {"own": "3", "month": "0", "life": "15", "other": "2"}),
            Take("basic", "-2", {"own": "5", "month": "0", "life": "15", "other": "2"}),
            Take("basic", "-50", {"own": "10", "month": "0", "life": "15", "other": "2"}),
            Take("basic", "-50", {"own": "10", "month": "0", "life": "15", "other": "2"}),
        ),
        costs={"sys": {"basic": "0", "premium": "1"}, "two": {"basic": "0.5"}},
    ),
    Scenario(
        "giving back what costs nothing never moves credits from one row to another",
        (row("month", "sys", "10", resets=MONTH), row("life", "sys", "20")),
        (
            Take("premium", "7", {"month": "3", "life": "20"}),
            Take("basic", "-1", {"month": "3", "life": "20"}),
            Take("basic", "-1", {"month": "3", "life": "20"}, OVERFLOW),
        ),
        costs={"sys": {"basic": "0", "premium": "1"}},
    ),
    Scenario(
        "cap takes what is there and drops the rest; reject takes all or nothing; overflow lands on the first row",
        (row("month", "messages", "5", resets=MONTH), row("life", "messages", "3")),
        (
            Take("messages", "9", {"month": "5", "life": "3"}, REJECT, REFUSED),
            Take("messages", "8", {"month": "0", "life": "0"}, REJECT),
            Take("messages", "1", {"month": "0", "life": "0"}),
            Take("messages", "1", {"month": "-1", "life": "0"}, OVERFLOW),
            Take("messages", "4", {"month": "-5", "life": "0"}, OVERFLOW),
            Take("messages", "4", {"month": "-5", "life": "0"}),
        ),
    ),
    Scenario(
        "overflow spends what is left everywhere first, then the first row in its own unit",
        (row("own", "action1", "1"), row("pool", "credits", "1")),
        # 1 of its own, 5 for 1 credit, and the 4 left below zero in units.
        (Take("action1", "10", {"own": "-4", "pool": "0"}, OVERFLOW),),
    ),
    Scenario(
        "overflow without rows of its own goes below zero in credits",
        (row("pool", "credits", "1"),),
        (Take("action1", "10", {"pool": "-1"}, OVERFLOW),),
    ),
    Scenario(
        "seats may go below zero by cap, but not by reject; a row below zero is never made worse by the first pass",
        (row("seats", "seats", "5", may_go_negative=True),),
        (
            Take("seats", "6", {"seats": "5"}, REJECT, REFUSED),
            Take("seats", "8", {"seats": "-3"}),
            Take("seats", "-2", {"seats": "-1"}),
            Take("seats", "-2", {"seats": "1"}),
            Take("seats", "8", {"seats": "-7"}),
            Take("seats", "-20", {"seats": "5"}),
        ),
    ),
    Scenario(
        "a refund fills what was granted and no more",
        (row("r", "messages", "100", resets=MONTH),),
        (
            Take("messages", "30", {"r": "70"}),
            Take("messages", "-10", {"r": "80"}),
            Take("messages", "-50", {"r": "100"}),
            Take("messages", "-1", {"r": "100"}, REJECT),
        ),
    ),
    Scenario(
        "a refund with overflow has no ceiling, a later one without stays where it is",
        (row("r", "messages", "100"),),
        (
            Take("messages", "30", {"r": "70"}),
            Take("messages", "-50", {"r": "120"}, OVERFLOW),
            Take("messages", "-5", {"r": "120"}),
            Take("messages", "10", {"r": "110"}),
            Take("messages", "-5", {"r": "110"}),
        ),
    ),
    Scenario(
        "a refund goes first to the rows below zero, then to the others in the order in which they burn",
        (row("month", "messages", "10", resets=MONTH), row("life", "messages", "10")),
        (
            Take("messages", "20", {"month": "0", "life": "0"}),
            Take("messages", "5", {"month": "-5", "life": "0"}, OVERFLOW),
            Take("messages", "-7", {"month": "2", "life": "0"}),
            Take("messages", "-10", {"month": "10", "life": "2"}),
            Take("messages", "-100", {"month": "10", "life": "10"}),
        ),
    ),
    Scenario(
        "a later row below zero is raised before an earlier row is filled",
        (row("own", "action1", "10"), row("pool", "credits", "1")),
        (
            Take("action1", "10", {"own": "0", "pool": "1"}),
            Take("action2", "5", {"own": "0", "pool": "-2"}, OVERFLOW),
            # 10 units raise the 2 credits, 5 more are given to the own row, and 20 more also fill the credits.
            Take("action1", "-15", {"own": "5", "pool": "0"}),
            Take("action1", "-20", {"own": "10", "pool": "1"}),
        ),
    ),
    Scenario(
        "no units change nothing, and a feature without rows takes nothing",
        (row("r", "messages", "1"),),
        (
            Take("messages", "0", {"r": "1"}),
            Take("messages", "0", {"r": "1"}, REJECT),
            Take("action1", "5", {"r": "1"}),
            Take("action1", "5", {"r": "1"}, REJECT, REFUSED),
            Take("action1", "5", {"r": "1"}, OVERFLOW),
            Take("action1", "-5", {"r": "1"}),
        ),
    ),
    Scenario(
        "amounts at the edge of the doubles are exact",
        (
            row("a", "messages", "9007199.254740993", resets=DAY),
            row("b", "messages", "4503599.627370496", resets=MONTH),
        ),
        (
            Take("messages", "0.000000001", {"a": "9007199.254740992", "b": "4503599.627370496"}),
            Take("messages", "0.000000001", {"a": "9007199.254740991", "b": "4503599.627370496"}),
            Take("messages", "-1", {"a": "9007199.254740993", "b": "4503599.627370496"}),
            Take("messages", "9007199.254740994", {"a": "0", "b": "4503599.627370495"}),
            Take("messages", "9007199.254740994", {"a": "0", "b": "0"}),
            Take("messages", "9007199.254740993", {"a": "-9007199.254740993", "b": "0"}, OVERFLOW),
            Take("messages", "-9007199.254740994", {"a": "0.000000001", "b": "0"}),
        ),
    ),
    Scenario(
        "the largest amounts are exact, and beyond them nothing is written",
        (row("r", "messages", "999999999999999.999999999"),),
        (
            Take("messages", "0.000000001", {"r": "999999999999999.999999998"}),
            Take("messages", "-0.000000001", {"r": "999999999999999.999999999"}),
            Take("messages", "-0.000000001", {"r": "999999999999999.999999999"}, OVERFLOW, OUT_OF_RANGE),
            Take("messages", "999999999999999.999999999", {"r": "0"}),
            Take("messages", "999999999999999.999999999", {"r": "-999999999999999.999999999"}, OVERFLOW),
            Take("messages", "0.000000001", {"r": "-999999999999999.999999999"}, OVERFLOW, OUT_OF_RANGE),
            Take("messages", "999999999999999", {"r": "-999999999999999.999999999"}, OVERFLOW, OUT_OF_RANGE),
            Take("messages", "-1", {"r": "-999999999999998.999999999"}),
        ),
    ),
]


@pytest.mark.parametrize("scenario", [pytest.param(s, id=s.promise) for s in SCENARIOS])
async def test_scenario(world: World, scenario: Scenario) -> None:
    """Every row gives and gets exactly what the burn order and the cost say; else customers are charged wrongly."""
    await run(world, scenario)


async def run(world: World, scenario: Scenario) -> None:
    """Play the calls; compare balances, reply and journal after each."""
    world.catalog = catalog_of(scenario.costs)
    await world.create("ann", *scenario.rows)
    for number, take in enumerate(scenario.takes, 1):
        before = await world.record("ann")
        reply = await world.track("ann", take.feature, take.units, mode=take.mode)
        record = await world.record("ann")
        told = f"call {number}: {take}"
        assert reply.status is take.status, told
        assert await world.balances("ann") == take.after, told
        deltas = {id_: record.balances[id_] - before.balances[id_] for id_ in record.balances}
        entry = (await world.entries("ann"))[-1]
        if reply.status is not OK:
            assert record == before, told
            assert entry.sequence == before.sequence, told
            continue
        assert reply.sequence == record.sequence == before.sequence + 1, told
        moved = [(part.row_id, part.delta_nanos) for part in reply.moved]
        assert dict(moved) == {id_: delta for id_, delta in deltas.items() if delta}, told
        assert all(record.balances[id_] == balance for id_, balance in reply.balances.items()), told
        assert reply.terms == record.terms, told
        assert (entry.stream_id, entry.sequence) == (reply.stream_id, reply.sequence), told
        journaled = [(item.row_id, item.delta_nanos) for item in entry.items if item.row_id]
        assert journaled == moved, told
        assert {item.kind for item in entry.items} - {Kind.PUT} == {
            Kind.REFUND if nanos(take.units) < 0 else Kind.USE
        }, told


async def test_small_charges_on_a_large_balance_are_not_lost(world: World) -> None:
    """A thousand charges of a ten-millionth from 123 456 789 credits leave 123 456 788.9999: none is lost."""
    await world.create("ann", row("r", "credits", "123456789"))
    for _ in range(1000):
        await world.track("ann", "credits", "0.0000001")
    assert await world.balances("ann") == {"r": "123456788.9999"}


async def test_five_credits_are_exactly_five_hundred_messages(world: World) -> None:
    """The five hundredth message of a cent empties five credits to exactly 0, and the next one is refused."""
    await world.create("ann", row("r", "usd", "5", resets=MONTH))
    for _ in range(500):
        assert (await world.track("ann", "basic", "1", mode=REJECT)).status is OK
    assert await world.balances("ann") == {"r": "0"}
    assert (await world.track("ann", "basic", "1", mode=REJECT)).status is REFUSED
    assert (await world.track("ann", "basic", "0.000000001", mode=REJECT)).status is REFUSED


async def test_sixty_four_rows_in_one_call(world: World) -> None:
    """One call may empty all the rows a customer can have, and says so of each."""
    rows = [row(f"r{n}", "messages", "1", created_at=T0 + n) for n in range(64)]
    await world.create("ann", *rows)
    reply = await world.track("ann", "messages", "63.5")
    assert [moved.row_id for moved in reply.moved] == [r.id for r in rows]
    assert await world.balances("ann") == {r.id: "0" if r.id != "r63" else "0.5" for r in rows}


async def test_customers_do_not_share_anything(world: World) -> None:
    """Use of one customer never touches another, in the same partition or not, however alike the ids are."""
    names = ["ann", "ann ", "Ann", "ann:b", "ann%3Ab", "{p01}", "*", "ü", "a/b", "\u202e"]
    for name in names:
        await world.create(name, row("r", "messages", "10"), uid=f"uid-{names.index(name)}")
    for number, name in enumerate(names):
        await world.track(name, "messages", str(number + 1))
    assert [await world.balances(name) for name in names] == [
        {"r": str(10 - number - 1)} for number in range(len(names))
    ]
