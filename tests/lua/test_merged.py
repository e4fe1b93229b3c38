"""merged.lua on a real Valkey: checks and tracks of one customer in one script are what they are one by one."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from redis.exceptions import ResponseError

from creditgate.balances.merging import CALLS_MAX
from creditgate.balances.scripts import Script
from creditgate.balances.store import Reply
from creditgate.core.changes import rows_change
from creditgate.core.controls import (
    NO_CONTROLS,
    BillingControls,
    OverageAllowed,
    SpendLimit,
    UsageAlert,
    UsageLimit,
    property_digests,
)
from creditgate.core.customers import Customer, Record, Row
from creditgate.core.decisions import Mode, Status
from creditgate.core.entities import Entity
from creditgate.core.intervals import Interval
from creditgate.core.journal import Call
from tests.lua import test_check, test_limits, test_track
from tests.lua.harness import (
    COSTS,
    DAY,
    MONTH,
    NEVER_TOO_LATE,
    T0,
    UID,
    World,
    answer,
    catalog_of,
    merging_connection,
    nanos,
    row,
)

CAP, REJECT, OVERFLOW = Mode.CAP, Mode.REJECT, Mode.OVERFLOW
HUGE = "999999999999999"


@dataclass(frozen=True)
class One:
    """A track, or a check where there is no mode."""

    feature: str
    units: str
    mode: Mode | None = CAP
    key: str = ""
    fingerprint: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    entity: str | None = None
    not_after: int = NEVER_TOO_LATE


@dataclass(frozen=True)
class Sequel:
    """A promise, what a customer holds, and calls in their order; the statuses, where they are what it is about."""

    promise: str
    rows: tuple[Row, ...]
    calls: tuple[One, ...]
    controls: BillingControls = NO_CONTROLS
    entities: tuple[str, ...] = ()
    statuses: str = ""
    costs: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: COSTS)


@pytest.fixture
async def together(world: World) -> AsyncIterator[World]:
    """The same Valkey; checks and tracks that are sent in one tick go as one script, and one alone by it, too."""
    async with merging_connection(world.redis) as hot:
        yield World(world.redis, world.clock, hot=hot)


async def send(world: World, customer_id: str, one: One) -> tuple[Call | None, Reply]:
    """Send a call; returns it as the journal has it, and the reply."""
    needs = [need._replace(entity_id=one.entity) for need in world.needs(one.feature, one.units)]
    digests = property_digests(dict(one.properties))
    if one.mode is None:
        return None, await world.store.check(customer_id=customer_id, properties=digests, pools=needs)
    text = msgspec.json.encode(one.properties).decode()
    call = world.usage("track", one.feature, nanos(one.units), text, key=one.key, fingerprint=one.fingerprint)
    call = replace(call, entity_id=one.entity or "", occurred_at=T0 - len(one.units))
    return call, await world.store.track(
        not_after=one.not_after,
        customer_id=customer_id,
        call=call,
        mode=one.mode,
        properties=digests,
        pools=needs,
    )


async def make(world: World, customer_id: str, sequel: Sequel) -> None:
    """A customer who holds the rows."""
    customer = Customer(
        customer_id,
        T0,
        controls=sequel.controls,
        entities=tuple(Entity(name, "seats", T0) for name in sequel.entities),
    )
    written = await world.store.change(
        not_after=NEVER_TOO_LATE,
        customer_id=customer_id,
        call=world.call("create"),
        uid=UID,
        expected_shape=0,
        clock=T0,
        change=rows_change(None, customer=customer, opened=sequel.rows),
    )
    assert written.status is Status.OK


async def history(world: World, customer_id: str) -> list[tuple[Any, ...]]:
    """The rows that SQL would get of the customer's calls, but where they stand, and their op ids."""
    return [
        (
            item.call and replace(item.call, op_id=""),
            *(getattr(item, name) for name in item.__struct_fields__ if name not in ("call", "number")),
        )
        for entry in (await world.entries(customer_id))[1:]
        for item in entry.items
    ]


async def play(world: World, together: World, sequel: Sequel, *, at_once: int = CALLS_MAX) -> list[Reply]:
    """Send the calls one by one for one customer, and together for another, and compare all that is to be seen."""
    world.catalog = together.catalog = catalog_of(sequel.costs)
    await make(world, "one", sequel)
    await make(world, "all", sequel)
    singles = [await send(world, "one", call) for call in sequel.calls]
    merged: list[tuple[Call | None, Reply]] = []
    for first in range(0, len(sequel.calls), at_once):
        before = (await world.record("all")).sequence
        some = sequel.calls[first : first + at_once]
        merged += await asyncio.gather(*(send(together, "all", call) for call in some))
        assert (await world.record("all")).sequence <= before + 1, "the calls were not one entry"
    for call, (_, single), (_, one) in zip(sequel.calls, singles, merged, strict=True):
        assert plain(one) == plain(single), call
    after, expected = await world.record("all"), await world.record("one")
    assert alike(after) == alike(expected)
    assert await history(world, "all") == await history(world, "one")
    await each_is_found(together, merged)
    return [reply for _, reply in merged]


async def each_is_found(world: World, sent: Sequence[tuple[Call | None, Reply]]) -> None:
    """Where its reply says, each call is found by its own op id; a replay names the entry of the first."""
    partition, firsts = world.keys.partition_of("all"), {}
    for call, reply in sent:
        found = call and await world.stream.find_op(partition, call.op_id, since_ms=0)
        assert found == (reply.stream_id if reply.status is Status.OK else None)
        if call is not None and call.key and reply.status is Status.OK:
            firsts[call.key] = found
        if call is not None and reply.status is Status.REPLAYED:
            assert reply.stream_id == firsts[call.key]


def plain(reply: Reply) -> Reply:
    """A reply without what differs between two customers and two moments."""
    is_short = not reply.terms.rows
    return msgspec.structs.replace(reply, sequence=0, entry="", time=0 if is_short else reply.time)


def alike(record: Record) -> Record:
    customer = replace(record.customer, id="")
    return replace(record, sequence=0, customer=customer)


MESSAGES = row("m", "messages", "10")
LIMITS = BillingControls(
    usage_limits=(
        UsageLimit("messages", nanos("7"), Interval.DAY),
        UsageLimit("action1", nanos("30"), Interval.DAY, properties={"model": "big"}),
        UsageLimit("credits", nanos("40"), Interval.MONTH),
    ),
    spend_limits=(SpendLimit("messages", nanos("4")),),
    overage_allowed=(OverageAllowed("messages", enabled=True),),
    usage_alerts=(UsageAlert("messages", nanos("3"), "remaining", name="low"),),
)

SEQUELS = [
    Sequel(
        "each finds what those before it left, to the last credit",
        (row("r", "usd", "5", resets=MONTH),),
        (
            One("basic", "2"),
            One("premium", "2"),
            One("premium", "48", None),
            One("premium", "47", None),
            One("premium", "1000", REJECT),
            One("premium", "47.79"),
            One("basic", "0.1", REJECT),
            One("basic", "0.1", None),
            One("basic", "1"),
        ),
        statuses="OK OK REFUSED OK REFUSED OK OK REFUSED OK",
    ),
    Sequel(
        "a key replays, or is refused, also where its first call is one of these; nobody else is harmed",
        (MESSAGES,),
        (
            One("messages", "1", key="aa", fingerprint="f1"),
            One("messages", "1", key="aa", fingerprint="f1"),
            One("messages", "2", key="aa", fingerprint="f2"),
            One("messages", "100", REJECT, key="bb", fingerprint="f1"),
            One("messages", "3", REJECT, key="bb", fingerprint="f2"),
            One("messages", "3"),
            One("messages", "3", key="bb", fingerprint="f2"),
        ),
        statuses="OK REPLAYED KEY_REUSED REFUSED OK OK REPLAYED",
    ),
    Sequel(
        "what is too late, or leaves the range of amounts, changes nothing of those around it",
        (row("m", "messages", HUGE), row("c", "credits", "10")),
        (
            One("messages", "1", not_after=1),
            One("messages", f"-{HUGE}", OVERFLOW),
            One("messages", "5"),
            One("action1", "5", not_after=1, key="aa", fingerprint="f1"),
            One("messages", f"-{HUGE}", OVERFLOW, key="bb", fingerprint="f1"),
            One("action1", "5", key="aa", fingerprint="f1"),
            One("messages", "1", key="bb", fingerprint="f1"),
        ),
        statuses="TOO_LATE OUT_OF_RANGE OK TOO_LATE OUT_OF_RANGE OK OK",
    ),
    Sequel(
        "what leaves the range only in its second row has taken nothing from its first",
        (row("own", "action1", "12"), row("c", "credits", "1", resets=MONTH, paid_later="")),
        (One("credits", HUGE), One("action1", "1000"), One("action1", "3"), One("action1", "1000")),
        statuses="OK OUT_OF_RANGE OK OUT_OF_RANGE",
    ),
    Sequel(
        "calls for entities draw on their own rows and the customer's; one who is not there is told so",
        (
            row("shared", "messages", "10"),
            row("a", "messages", "3", owner_id="desk_a"),
            row("b", "messages", "3", owner_id="desk_b"),
        ),
        (
            One("messages", "2", entity="desk_a"),
            One("messages", "2", entity="nobody"),
            One("messages", "7", entity="desk_b"),
            One("messages", "6"),
            One("messages", "2", None, entity="desk_a"),
            One("messages", "1", None, entity="desk_a"),
            One("messages", "-9", entity="desk_b"),
            One("messages", "1", None, entity="nobody"),
            One("messages", "5", REJECT, entity="desk_a"),
        ),
        entities=("desk_a", "desk_b"),
        statuses="OK NO_ENTITY OK OK REFUSED OK OK NO_ENTITY OK",
    ),
    Sequel(
        "an unlimited feature next to what is counted",
        (row("u", "action1", unlimited=True), row("c", "credits", "5")),
        (
            One("action1", "1000"),
            One("action2", "5"),
            One("action1", "-3"),
            One("action1", "1", None),
            One("action2", "5", REJECT),
            One("seats", "1"),
        ),
        statuses="OK OK OK OK REFUSED OK",
    ),
    Sequel(
        "limits, alerts and what may be owed are counted on from call to call",
        (MESSAGES, row("paid", "messages", "1", resets=MONTH, paid_later="2"), row("c", "credits", "100")),
        (
            One("messages", "5"),
            One("messages", "-2"),
            One("messages", "3", None),
            One("messages", "5"),
            One("messages", "1", REJECT),
            One("action1", "20", properties={"model": "big"}),
            One("action1", "20", properties={"model": "small"}),
            One("action1", "20", properties={"model": "big"}),
            One("action1", "11", None, properties={"model": "big"}),
            One("messages", "9", OVERFLOW),
        ),
        controls=LIMITS,
    ),
]


def from_the_tables() -> list[Sequel]:
    """What the tests of the single scripts play, each track with a check of the same before it."""
    found = []
    for tracked in test_track.SCENARIOS:
        plain_takes = [(take.feature, take.units, take.mode, dict[str, Any]()) for take in tracked.takes]
        found.append(Sequel(tracked.promise, tracked.rows, checked_first(plain_takes), costs=tracked.costs))
    for limited in (*test_limits.FLOORS, *test_limits.SPENDING, *test_limits.GATES):
        takes = [(take.feature, take.units, take.mode, dict(take.properties)) for take in limited.takes]
        found.append(Sequel(limited.promise, limited.rows, checked_first(takes), limited.controls))
    for asked in test_check.SCENARIOS:
        used = [One(feature, units) for feature, units in asked.used]
        calls = (*used, *(One(ask.feature, ask.units, None) for ask in asked.asks))
        found.append(Sequel(asked.promise, asked.rows, calls, costs=asked.costs or COSTS))
    return found


def checked_first(takes: Sequence[tuple[str, str, Mode, Mapping[str, Any]]]) -> tuple[One, ...]:
    return tuple(
        One(feature, units, each, properties=properties)
        for feature, units, mode, properties in takes
        for each in (None, mode)
    )


@pytest.mark.parametrize("sequel", [pytest.param(s, id=s.promise) for s in SEQUELS])
async def test_sequel(world: World, together: World, sequel: Sequel) -> None:
    """Merged calls are answered, kept and journaled as if each had come alone."""
    replies = await play(world, together, sequel)
    if sequel.statuses:
        assert [reply.status.name for reply in replies] == sequel.statuses.split()


async def test_what_the_single_scripts_are_tested_with(world: World, together: World) -> None:
    """Every table of the single scripts is played through the merged one, too."""
    sequels = from_the_tables()
    assert len(sequels) > 60
    for sequel in sequels:
        await world.empty()
        await play(world, together, sequel)


RICH = Sequel(
    "",
    (
        row("day", "messages", "4", resets=DAY),
        row("own", "action1", "12", resets=MONTH),
        row("paid", "messages", "9", resets=MONTH, paid_later="6"),
        row("big", "messages", "9007199.254740993"),
        row("c", "credits", "30", resets=MONTH),
        row("c3", "credits3", "25.000000001"),
        row("s", "seats", "3", may_go_negative=True),
        row("a", "messages", "3", owner_id="desk_a"),
        row("ca", "credits", "2", owner_id="desk_a"),
        row("usd", "usd", "4503599.627370497"),
    ),
    (),
    LIMITS,
    ("desk_a", "desk_b"),
)
UNITS = (
    "0.000000001",
    "0.333333333",
    "1",
    "2.5",
    "7",
    "10",
    "99.999999999",
    "4503599.627370496",
    "9007199.254740993",
    "0",
)


def drawn(seed: int) -> Sequel:
    """A long life in few ticks."""
    chance = random.Random(seed)

    def one() -> One:
        units, key = chance.choice(UNITS), chance.choice(["", "", "", "aa", "bb", "cc"])
        mode = chance.choice([None, CAP, CAP, REJECT, OVERFLOW])
        return One(
            chance.choice(["messages", "action1", "action2", "credits", "basic", "seats", "action3"]),
            f"-{units}" if mode and units != "0" and chance.random() < 0.3 else units,
            mode,
            key if mode else "",
            chance.choice(["f1", "f1", "f2"]) if key and mode else "",
            {"model": chance.choice(["big", "small"])} if chance.random() < 0.5 else {},
            chance.choice([None, None, None, "desk_a", "desk_b", "nobody"]),
            1 if mode and chance.random() < 0.05 else NEVER_TOO_LATE,
        )

    rows = tuple(r for r in RICH.rows if chance.random() < 0.7) or RICH.rows
    return replace_sequel(
        rows, tuple(one() for _ in range(3 * CALLS_MAX // 2)), limited=chance.random() < 0.5
    )


def replace_sequel(rows: tuple[Row, ...], calls: tuple[One, ...], *, limited: bool) -> Sequel:
    return Sequel("", rows, calls, LIMITS if limited else NO_CONTROLS, RICH.entities)


@pytest.mark.parametrize(
    "seeds", [range(6), pytest.param(range(6, 300), marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
async def test_drawn_at_random(world: World, together: World, seeds: range) -> None:
    """Whatever follows on whatever, and however many go at once, nobody can tell that they were merged."""
    seen: set[Status] = set()
    for seed in seeds:
        await world.empty()
        replies = await play(world, together, drawn(seed), at_once=(CALLS_MAX, 7, 2)[seed % 3])
        seen |= {reply.status for reply in replies}
    expected = {
        Status.OK,
        Status.REFUSED,
        Status.REPLAYED,
        Status.KEY_REUSED,
        Status.TOO_LATE,
        Status.NO_ENTITY,
    }
    assert seen >= expected


async def test_nothing_of_what_ends_all_of_them(world: World, together: World) -> None:
    """Each is told what it would be told alone: no customer, an unknown layout, something due; nothing is written."""
    calls = [One("messages", "1"), One("messages", "1", None), One("messages", "1", not_after=1)]

    async def statuses() -> list[str]:
        sent = await asyncio.gather(*(send(together, "ann", call) for call in calls))
        return [reply.status.name for _, reply in sent]

    assert await statuses() == ["ABSENT", "ABSENT", "TOO_LATE"]
    await world.create("ann", row("r", "messages", "5", resets=MONTH))
    record = world.keys.record("ann")
    for name, value, status in (("v", "2", "UPGRADE"), ("due", str(T0), "DUE")):
        kept = await answer(world.redis.hget(record, name))
        await answer(world.redis.hset(record, name, value))
        before = await world.everything()
        assert await statuses() == [status, status, "TOO_LATE"]
        assert await world.everything() == before
        await answer(world.redis.hset(record, name, kept))


async def test_what_only_reads_is_answered_where_writers_are_not(world: World, together: World) -> None:
    """A server without memory, or without its journal, refuses writers; a check beside them gets its answer."""
    await world.create("ann", row("r", "messages", "5"))
    calls = [One("messages", "1"), One("messages", "5", None), One("messages", "2")]
    await answer(world.redis.config_set("maxmemory", 1))
    before = await world.everything()
    try:
        sent = await asyncio.gather(*(send(together, "ann", call) for call in calls), return_exceptions=True)
    finally:
        await answer(world.redis.config_set("maxmemory", 0))
    assert [type(one).__name__ for one in sent] == ["Unavailable", "tuple", "Unavailable"]
    assert await world.everything() == before
    sent = await asyncio.gather(*(send(together, "ann", call) for call in calls))
    assert [reply.status.name for _, reply in sent] == ["OK", "REFUSED", "OK"]  # type: ignore[misc]


async def test_a_forgotten_script_is_loaded_again(world: World, together: World) -> None:
    """After a restart, a failover or SCRIPT FLUSH every call works at once, with one effect, and is merged again."""
    await world.create("ann", row("r", "messages", "50"))
    calls = [One("messages", "1"), One("messages", "50", None), One("messages", "2")]
    for spent in (3, 6):
        await world.redis.script_flush()
        await asyncio.gather(*(send(together, "ann", call) for call in calls))
        assert await world.balances("ann") == {"r": str(50 - spent)}
    entries = len(await world.entries("ann"))
    await asyncio.gather(*(send(together, "ann", call) for call in calls))
    assert len(await world.entries("ann")) == entries + 1


async def test_many_rows_in_all_of_the_calls(world: World, together: World) -> None:
    """The most calls at once over the most rows, each of which moves them all: no list is too long for the server."""
    rows = tuple(row(f"r{number}", "messages", "1") for number in range(64))
    await make(world, "ann", Sequel("", rows, ()))
    calls = [One("messages", units) for _ in range(CALLS_MAX // 2) for units in ("64", "-64")]
    sent = await asyncio.gather(*(send(together, "ann", call) for call in calls))
    assert {len(reply.moved) for _, reply in sent} == {64}
    entries = (await world.entries("ann"))[1:]
    assert [sum(item.call is not None for item in entry.items) for entry in entries] == [16, 16, 16, 16]
    assert set((await world.balances("ann")).values()) == {"1"}


async def test_malformed_arguments(world: World) -> None:
    """Whatever is wrong with one call, none is taken: it is a bug of ours, and each caller is told so."""
    await world.create("ann", row("r", "messages", "5"))
    keys = [world.keys.record("ann"), world.keys.journal(world.keys.partition_of("ann"))]
    good: list[Any] = [NEVER_TOO_LATE, b"[]", "", "", "cap", "", 1, "messages", 10**9, 10**9]
    before = await world.everything()

    async def status(*calls: list[Any], count: Any = None, keys: Sequence[str] = keys) -> Any:
        arguments = [
            "ann",
            len(calls) if count is None else count,
            *(part for call in calls for part in call),
        ]
        return (await Script("merged").call(world.redis, keys, arguments))[0]

    def wrong(slot: int, value: Any) -> list[Any]:
        return [*good[:slot], value, *good[slot + 1 :]]

    for slot, value in (
        *(
            (0, "nan"),
            (0, ""),
            (2, "no hex"),
            (4, "all"),
            (6, 0),
            (6, 2),
            (6, "x"),
            (8, "-1"),
            (9, "1e3"),
            (9, ""),
        ),
    ):
        assert await status(good, wrong(slot, value), good) == Status.INVALID, (slot, value)
    assert await status(good, [*good, "more"]) == Status.INVALID
    assert await status(good, count=2) == Status.INVALID
    assert await status(count=0) == Status.INVALID
    assert await status(*[good] * (CALLS_MAX + 1)) == Status.INVALID
    assert await status(good, keys=keys[:1]) == Status.INVALID
    assert await status([*wrong(2, "aa")[:3], "bb", *good[4:]]) == Status.INVALID  # a key, and no buckets
    assert await world.everything() == before
    journal = keys[1]
    await world.redis.delete(journal)
    with pytest.raises(ResponseError, match="NOJOURNAL"):
        await status(good)
    await world.stream.make(world.keys.partition_of("ann"))
    before.pop(journal.encode())
    assert {
        key: value for key, value in (await world.everything()).items() if key != journal.encode()
    } == before
    await world.empty()
