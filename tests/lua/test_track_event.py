"""track_event.lua on a real Valkey: one event that several features count, each with its own pools."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from creditgate.balances.store import Use
from creditgate.balances.usage import USES_MAX
from creditgate.core.controls import NO_CONTROLS, BillingControls, UsageLimit
from creditgate.core.customers import Record, Row
from creditgate.core.decisions import Mode, Moved, Status
from creditgate.core.intervals import Interval
from creditgate.core.journal import Entry, Kind
from tests.lua.harness import DAY, MONTH, NEVER_TOO_LATE, T0, World, answer, nanos, row

CAP, OVERFLOW = Mode.CAP, Mode.OVERFLOW


@dataclass(frozen=True)
class Take:
    """One event, and what is in the rows (and in gates, by their feature) after it."""

    features: tuple[str, ...]
    units: str
    after: Mapping[str, str]
    mode: Mode = CAP
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """A promise, the rows and controls of a new customer, and events."""

    promise: str
    rows: tuple[Row, ...]
    takes: tuple[Take, ...]
    controls: BillingControls = NO_CONTROLS


def cap(feature: str, limit: str, **properties: str) -> UsageLimit:
    return UsageLimit(feature, nanos(limit), Interval.DAY, properties=properties)


BOTH = ("action1", "action2")

SCENARIOS = [
    Scenario(
        "each feature gives from its own rows",
        (row("m", "messages", "10"), row("s", "seats", "10"), row("a", "action1", "10")),
        (Take(("messages", "action1"), "3", {"m": "7", "s": "10", "a": "7"}),),
    ),
    Scenario(
        "a credit system that prices both pays for both, each at its own cost",
        (row("c", "credits", "100"),),
        (Take(BOTH, "10", {"c": "92"}), Take(BOTH, "2.5", {"c": "90"})),
    ),
    Scenario(
        "own rows first, then the shared system, which the later feature finds as the earlier left it",
        (row("own", "action1", "4"), row("c", "credits", "5")),
        # 6 units of action1 at 0.2 are 1.2 credits; of action2 at 0.6 the other 3.8 pay for less than 10.
        (Take(BOTH, "10", {"own": "0", "c": "0"}),),
    ),
    Scenario(
        "the first in the catalog's order has the last credits",
        (row("c", "credits", "2.3"),),
        (Take(BOTH, "5", {"c": "0"}), Take(BOTH, "5", {"c": "0"})),
    ),
    Scenario(
        "one feature that is empty does not keep another from paying",
        (row("m", "messages", "1"), row("a", "action1", "10")),
        (Take(("messages", "action1"), "3", {"m": "0", "a": "7"}),),
    ),
    Scenario(
        "a feature of which the customer has nothing takes nothing",
        (row("m", "messages", "10"),),
        (Take(("seats", "messages", "action3"), "3", {"m": "7"}),),
    ),
    Scenario(
        "the credit system itself may be one of them",
        (row("own", "action1", "1"), row("c", "credits", "10")),
        (Take(("credits", "action1"), "2", {"own": "0", "c": "7.8"}),),
    ),
    Scenario(
        "what is given back fills the shared system in the same order, and not above what was granted",
        (row("c", "credits", "100"),),
        (
            Take(BOTH, "10", {"c": "92"}),
            Take(BOTH, "-5", {"c": "96"}),
            Take(BOTH, "-50", {"c": "100"}),
            Take(BOTH, "-1", {"c": "100.8"}, OVERFLOW),
        ),
    ),
    Scenario(
        "overflow goes below zero once for each",
        (row("m", "messages", "1"), row("c", "credits", "1")),
        (
            Take(("messages", *BOTH), "10", {"m": "-9", "c": "-7"}, OVERFLOW),
            Take(("messages", *BOTH), "-10", {"m": "1", "c": "1"}),
        ),
    ),
    Scenario(
        "of an unlimited feature nothing else gives, the other gives as ever",
        (row("u", "action1", unlimited=True), row("c", "credits", "10")),
        (Take(BOTH, "5", {"u": "-5", "c": "7"}),),
    ),
    Scenario(
        "seats go below zero, next to what does not",
        (row("s", "seats", "1", may_go_negative=True), row("m", "messages", "1")),
        (Take(("seats", "messages"), "3", {"s": "-2", "m": "0"}),),
    ),
    Scenario(
        "rows burn in their order within each feature",
        (row("life", "messages", "5"), row("day", "messages", "5", resets=DAY), row("a", "action1", "9")),
        (Take(("messages", "action1"), "7", {"day": "0", "life": "3", "a": "2"}),),
    ),
    Scenario(
        "a usage limit bounds its own feature only",
        (row("m", "messages", "10"), row("a", "action1", "10")),
        (
            Take(("messages", "action1"), "3", {"m": "8", "a": "7", "@messages": "0"}),
            Take(("messages", "action1"), "3", {"m": "8", "a": "4", "@messages": "0"}),
        ),
        BillingControls(usage_limits=(cap("messages", "2"),)),
    ),
    Scenario(
        "a usage limit on the shared system counts what both have taken",
        (row("c", "credits", "10"),),
        # 2 units of action1 are 0.4 credits, so that 0.1 of the 1.2 for action2 fit under the limit.
        (Take(BOTH, "2", {"c": "9.5", "@credits": "0"}),),
        BillingControls(usage_limits=(cap("credits", "0.5"),)),
    ),
    Scenario(
        "a usage limit for some properties counts the events that have them",
        (row("m", "messages", "10"), row("a", "action1", "10")),
        (
            Take(("messages", "action1"), "3", {"m": "7", "a": "7", "@messages": "2"}),
            Take(
                ("messages", "action1"),
                "3",
                {"m": "5", "a": "4", "@messages": "0"},
                properties={"model": "large"},
            ),
        ),
        BillingControls(usage_limits=(cap("messages", "2", model="large"),)),
    ),
]


@pytest.mark.parametrize("scenario", [pytest.param(s, id=s.promise) for s in SCENARIOS])
async def test_scenario(world: World, scenario: Scenario) -> None:
    """What an event takes and gives back, feature by feature."""
    await world.create("ann", *scenario.rows, controls=scenario.controls)
    for take in scenario.takes:
        reply = await world.track_event(
            "ann", take.features, take.units, mode=take.mode, properties=take.properties
        )
        assert reply.status is Status.OK
        after = _by_name(await world.record("ann"))
        assert {name: after[name] for name in take.after} == {
            name: nanos(amount) for name, amount in take.after.items()
        }
        assert reply.balances.items() <= after.items()


async def test_as_two_tracks_one_after_the_other(world: World) -> None:
    """An event leaves exactly what a track of each feature, one after the other, would have left."""
    rows = [row("own", "action1", "3"), row("c", "credits", "7"), row("c3", "credits3", "2", resets=MONTH)]
    limits = BillingControls(usage_limits=(cap("credits", "6"), cap("action2", "9")))
    for number, (units, mode) in enumerate(itertools.product(("1", "4.5", "20", "-2"), (CAP, OVERFLOW))):
        together, apart = f"together{number}", f"apart{number}"
        for customer_id in (together, apart):
            await world.create(customer_id, *rows, controls=limits)
            await world.track(customer_id, "action2", "2")
        await world.track_event(together, ("action1", "action2"), units, mode=mode)
        for feature_id in ("action1", "action2"):
            await world.track(apart, feature_id, units, mode=mode)
        left = [await world.record(together), await world.record(apart)]
        assert _by_name(left[0]) == _by_name(left[1])


def _by_name(record: Record) -> dict[str, int]:
    gates = {f"@{gate.feature_id}": record.balances[gate.id] for gate in record.terms.gates}
    return gates | {one.id: record.balances[one.id] for one in record.terms.rows}


async def test_one_entry_with_an_event_for_each(world: World) -> None:
    """Each feature is an event of its own in the journal, with what was taken for it; also one that took nothing."""
    await world.create("ann", row("own", "action1", "1"), row("c", "credits", "100"))
    reply = await world.track_event("ann", ("action1", "messages", "action2"), "3")
    entry = (await world.entries("ann"))[-1]
    assert entry.stream_id == reply.stream_id
    assert _events(entry) == [
        ("action1", [(Kind.USE, "own", nanos("-1")), (Kind.USE, "c", nanos("-0.4"))]),
        ("messages", [(Kind.USE, None, None)]),
        ("action2", [(Kind.USE, "c", nanos("-1.8"))]),
    ]
    assert reply.moved == (
        Moved("own", nanos("-1")),
        Moved("c", nanos("-0.4")),
        Moved("c", nanos("-1.8")),
    )
    await world.track_event("ann", ("messages", "action2"), "-1")
    assert _events((await world.entries("ann"))[-1]) == [
        ("messages", [(Kind.REFUND, None, None)]),
        ("action2", [(Kind.REFUND, "c", nanos("0.6"))]),
    ]


def _events(entry: Entry) -> list[tuple[str, list[tuple[str, str | None, int | None]]]]:
    found: list[tuple[str, list[tuple[str, str | None, int | None]]]] = []
    for item in entry.items:
        if item.call is not None:
            found.append((item.call.feature_id, []))
        if item.kind != Kind.PUT:
            found[-1][1].append((item.kind, item.row_id, item.delta_nanos))
    return found


async def test_balance_of_the_shared_system_is_used_up_once(world: World) -> None:
    """The feature that empties the shared system tells it, and the one after it does not tell it again."""
    await world.create("ann", row("c", "credits", "2"))
    await world.track_event("ann", ("action1", "action2", "basic"), "10")
    items = (await world.entries("ann"))[-1].items
    assert [item.document_id for item in items if item.document_type == "alert"] == ["included.credits"]
    await world.track_event("ann", ("action1", "action2"), "10")
    assert all(item.document_type is None for item in (await world.entries("ann"))[-1].items)


async def test_a_balance_out_of_range_takes_nothing_of_any(world: World) -> None:
    """All or none: what the first feature could give is not taken if the second would leave the range of amounts."""
    await world.create("ann", row("m", "messages", "5"), row("a", "action1", "5"))
    await world.track("ann", "messages", "999999999999999.999999999", mode=OVERFLOW)
    before = await world.everything()
    reply = await world.track_event("ann", ("action1", "messages"), "6", mode=OVERFLOW)
    assert reply.status is Status.OUT_OF_RANGE
    assert await world.everything() == before


async def test_a_key_is_used_once(world: World) -> None:
    """A repeated event takes nothing, of none of its features, and shows the balances as they are."""
    await world.create("ann", row("own", "action1", "1"), row("c", "credits", "100"))
    given: dict[str, Any] = {"key": "aa", "fingerprint": "bb"}
    first = await world.track_event("ann", BOTH, "3", **given)
    before = await world.everything()
    again = await world.track_event("ann", BOTH, "3", **given)
    assert (again.status, again.stream_id, again.moved) == (Status.REPLAYED, first.stream_id, ())
    assert again.balances == first.balances == {"own": 0, "c": nanos("97.8")}
    other = await world.track_event("ann", BOTH, "3", key="aa", fingerprint="cc")
    assert other.status is Status.KEY_REUSED
    assert await world.everything() == before


async def test_smallest_status_is_answered(world: World) -> None:
    """Where several refusals apply, the one that callers must act on first is answered, as by track."""
    await world.create("ann", row("m", "messages", "5"), row("a", "action1", "5"), clock=None)
    record_key = world.keys.record("ann")
    features = ("messages", "action1")
    assert (await world.track_event("nobody", features, "1", not_after=0)).status is Status.TOO_LATE
    assert (await world.track_event("nobody", features, "1")).status is Status.ABSENT
    await answer(world.redis.hset(record_key, mapping={"v": "2", "due": "1"}))
    assert (await world.track_event("ann", features, "1")).status is Status.UPGRADE
    await answer(world.redis.hset(record_key, "v", "1"))
    assert (await world.track_event("ann", features, "1")).status is Status.DUE
    await answer(world.redis.hset(record_key, "due", ""))
    assert (await world.track_event("ann", features, "1")).status is Status.OK


async def test_the_most_that_one_event_takes(world: World) -> None:
    """As many features, rows and limits as there can be fit into one write; one feature more is refused."""
    limits = tuple(cap("credits", "1000000", number=str(number)) for number in range(32))
    rows = [row(f"r{number}", "credits", "1", created_at=T0 + number) for number in range(64)]
    await world.create("ann", *rows, controls=BillingControls(usage_limits=limits))
    use = Use(world.usage("track", "action1", nanos("15")), world.needs("action1", "15"))
    uses = [
        Use(msgspec.structs.replace(use.call, feature_id=f"f{number}"), use.needs)
        for number in range(USES_MAX)
    ]
    given: dict[str, Any] = {"not_after": NEVER_TOO_LATE, "customer_id": "ann", "properties": ()}
    reply = await world.store.track_event(**given, mode=CAP, uses=uses)
    assert reply.status is Status.OK
    assert sum(reply.balances.values()) == nanos("64") - USES_MAX * nanos("3")
    with pytest.raises(AssertionError, match="refused its arguments"):
        await world.store.track_event(**given, mode=CAP, uses=[*uses, use])
