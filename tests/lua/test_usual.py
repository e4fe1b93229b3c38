"""lib/usual.lua and lib/alike.lua on a real Valkey: the short way answers and writes what the long one does."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property

import pytest
from msgspec import structs

from creditgate.balances.merging import CALLS_MAX
from creditgate.balances.scripts import Script
from creditgate.balances.store import BalanceStore, Reply
from creditgate.core.controls import NO_CONTROLS, BillingControls, UsageAlert
from creditgate.core.customers import Row
from creditgate.core.decisions import Mode, Status
from creditgate.errors import Unavailable
from tests.lua.harness import (
    DAY,
    MONTH,
    NEVER_TOO_LATE,
    T0,
    World,
    catalog_of,
    merging_connection,
    nanos,
    row,
)
from tests.lua.test_merged import (
    CAP,
    OVERFLOW,
    REJECT,
    SEQUELS,
    One,
    Sequel,
    alike,
    drawn,
    from_the_tables,
    history,
    make,
    plain,
    send,
)

SHORT = "usual_orders = function(first, last)\n"  # where the short way begins, in a linked script
LONG = "return rawget(LIB, name)\n"  # where what only the long way needs is made


class Patched(Script):
    """A script that differs from the one of its name in one place."""

    def __init__(self, name: str, place: str, text: str) -> None:
        super().__init__(name)
        self._place, self._text = place, text

    @cached_property
    def source(self) -> str:
        before, after = super().source.split(self._place)  # there once
        return before + self._text + after


def patched(place: str, text: str) -> type[BalanceStore]:
    class Store(BalanceStore):
        _track, _check, _merged = (Patched(name, place, text) for name in ("track", "check", "merged"))

    return Store


LongStore = patched(SHORT, f"{SHORT}do return nil end\n")
ShortStore = patched(LONG, "error({ err = 'LONG' })\n")


@asynccontextmanager
async def a_world(world: World, store: type[BalanceStore]) -> AsyncIterator[World]:
    """The same Valkey with other scripts; what is sent in one tick goes as one script."""
    async with merging_connection(world.redis, store) as hot:
        other = World(world.redis, world.clock)
        other.store = store(world.redis, world.keys, world.clock, hot=hot)
        yield other


@pytest.fixture
def long(world: World) -> World:
    """Every call goes the long way, and by itself."""
    other = World(world.redis, world.clock)
    other.store = LongStore(world.redis, world.keys, world.clock)
    return other


@pytest.fixture
def short(world: World) -> World:
    """A call that would go the long way fails."""
    other = World(world.redis, world.clock)
    other.store = ShortStore(world.redis, world.keys, world.clock)
    return other


async def play(world: World, long: World, sequel: Sequel) -> list[Reply]:
    """Send the calls for one customer as ever, and for another the long way, and compare all that is to be seen."""
    long.catalog = world.catalog = catalog_of(sequel.costs)
    await make(world, "one", sequel)
    await make(world, "all", sequel)
    replies = []
    for call in sequel.calls:
        (_, reply), (_, expected) = await send(world, "one", call), await send(long, "all", call)
        assert plain(reply) == plain(expected), call
        replies.append(reply)
    await are_left_alike(world)
    return replies


async def are_left_alike(world: World) -> None:
    """Compare the records of the two customers, and what SQL would get of them."""
    after, expected_after = await world.record("one"), await world.record("all")
    assert alike(after) == alike(expected_after)
    assert after.sequence == expected_after.sequence
    assert await history(world, "one") == await history(world, "all")


async def test_the_tables(world: World, long: World) -> None:
    """Whatever the scripts are tested with is the same both ways."""
    sequels = [*SEQUELS, *from_the_tables()]
    assert len(sequels) > 60
    for sequel in sequels:
        await world.empty()
        await play(world, long, sequel)


ROWS = (
    row("usd", "usd", "5", resets=MONTH),
    row("top", "usd", "2.5"),
    row("late", "usd", "0.75", resets=MONTH, paid_later="1"),
    row("seat", "usd", "1", may_go_negative=True),
    row("big", "usd", "999999.999999999"),
    row("bigger", "usd", "1000000"),
    row("huge", "usd", "9007199.254740993"),
    row("own", "basic", "3", resets=DAY),
    row("free", "premium", unlimited=True),
    row("m", "messages", "4", resets=DAY),
    structs.replace(row("slot", "usd", "1", resets=DAY, owner_id="sub_1"), entity_id="desk_a", is_slot=True),
    structs.replace(row("rolled", "usd", "1", rolled_from="usd"), expires_at=T0 + 10**9),
)
UNITS = ("0.000000001", "0.01", "1", "1", "1", "2", "4", "5", "7", "50", "99999999.9", "0", "-1")


def lived(seed: int, *, calls: int = 60) -> Sequel:
    """What usual customers do, until they have nothing left."""
    chance = random.Random(seed)
    rows = tuple(chance.sample(ROWS, chance.choice([1, 1, 2, 2, 3, 4])))
    features = chance.choice(
        [["basic"], ["basic", "premium"], ["messages", "usd"], ["basic", "premium", "messages", "usd"]]
    )
    modes: list[Mode | None] = chance.choice([[CAP], [None], [None, CAP, CAP], [None, CAP, REJECT, OVERFLOW]])
    alerts = (UsageAlert("usd", nanos("1"), "remaining", name="low"),)
    has_entity = any(row.entity_id for row in rows) or chance.random() < 0.2
    entities = ("desk_a",) if has_entity else ()
    keys = chance.choice([[""], ["", "", "", "", "aa", "bb"], [f"{number:x}" for number in range(400)]])

    def one() -> One:
        mode, units = chance.choice(modes), chance.choice(UNITS)
        key = chance.choice(keys) if mode else ""
        return One(
            chance.choice(features),
            units if mode else units.lstrip("-"),
            mode,
            key,
            chance.choice(["f1", "f1", "f2"]) if key else "",
            {"model": "big"} if chance.random() < 0.2 else {},
            "desk_a" if entities and chance.random() < 0.3 else None,
            1 if mode and chance.random() < 0.02 else NEVER_TOO_LATE,
        )

    controls = BillingControls(usage_alerts=alerts) if chance.random() < 0.2 else NO_CONTROLS
    return Sequel("", rows, tuple(one() for _ in range(calls)), controls, entities)


SEEDS = [range(30), pytest.param(range(30, 800), marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


@pytest.mark.parametrize("seeds", SEEDS)
async def test_lives_at_random(world: World, long: World, seeds: range) -> None:
    """Whatever comes after whatever, nobody can tell which way it went."""
    seen: set[Status] = set()
    for seed in seeds:
        await world.empty()
        seen |= {reply.status for reply in await play(world, long, lived(seed))}
        if seed % 10 == 0:
            await world.empty()
            await play(world, long, drawn(seed))
    assert seen >= {Status.OK, Status.REFUSED, Status.REPLAYED, Status.KEY_REUSED, Status.TOO_LATE}


@pytest.mark.parametrize("seeds", SEEDS)
async def test_several_at_random(world: World, seeds: range) -> None:
    """The same of calls that go as one."""
    async with a_world(world, BalanceStore) as together, a_world(world, LongStore) as long:
        for seed in seeds:
            await world.empty()
            sequel = lived(seed)
            long.catalog = together.catalog = world.catalog = catalog_of(sequel.costs)
            await make(world, "one", sequel)
            await make(world, "all", sequel)
            size = (2, 3, 7, 20, CALLS_MAX)[seed % 5]
            for first in range(0, len(sequel.calls), size):
                some = sequel.calls[first : first + size]
                replies = await asyncio.gather(*(send(together, "one", call) for call in some))
                expected = await asyncio.gather(*(send(long, "all", call) for call in some))
                for call, (_, reply), (_, other) in zip(some, replies, expected, strict=True):
                    assert plain(reply) == plain(other), call
            await are_left_alike(world)


PAIR = (row("usd", "usd", "5", resets=MONTH), row("top", "usd", "2.5"))
USUAL = [
    ("a track that one row pays for", PAIR, [One("basic", "1"), One("premium", "2")]),
    ("each mode", PAIR, [One("basic", "1", mode) for mode in (CAP, REJECT, OVERFLOW)]),
    ("a check", PAIR, [One("basic", "750", None), One("basic", "1", None)]),
    ("a check that is refused, of rows that end at zero", PAIR, [One("basic", "751", None)]),
    ("with a key", PAIR, [One("basic", "1", key="aa", fingerprint="f1")]),
    ("with properties", PAIR, [One("basic", "1", properties={"model": "big"})]),
    ("of the feature's own row", (row("own", "basic", "3"),), [One("basic", "1"), One("basic", "2", None)]),
    (
        "of a row that may go below zero, above it",
        (row("l", "usd", "1", may_go_negative=True),),
        [One("basic", "1")],
    ),
    ("too late", PAIR, [One("basic", "1", not_after=1)]),
]
UNUSUAL = [
    ("all that a row holds", (row("usd", "usd", "1"),), One("basic", "100")),
    ("more than the first row holds", PAIR, One("basic", "600")),
    ("of an unlimited row", (row("u", "usd", unlimited=True),), One("basic", "1")),
    ("for nothing", PAIR, One("basic", "0")),
    ("given back", PAIR, One("basic", "-1")),
    ("of two pools with rows", (*PAIR, row("own", "basic", "3")), One("basic", "1")),
    ("of what gives only after the others", ROWS[-2:-1], One("basic", "1")),
    ("of what rolled over", ROWS[-1:], One("basic", "1")),
    ("for an entity", PAIR, One("basic", "1", entity="desk_a")),
    ("by nobody who has any", (), One("basic", "1")),
    (
        "a check beyond what is above zero",
        (row("l", "usd", "1", may_go_negative=True),),
        One("basic", "101", None),
    ),
    ("a balance of sixteen digits", (row("b", "usd", "1000000"),), One("basic", "1")),
]


UNLIKE = [
    ("ann", [One("basic", "1"), One("premium", "1")]),
    ("ann", [One("basic", "1"), One("basic", "9999")]),
    ("ann", [One("basic", "1", key="aa", fingerprint="f1"), One("basic", "1")]),
    ("ann", [One("basic", "1", key="cc", fingerprint="f1"), One("basic", "1", key="cc", fingerprint="f1")]),
    ("ann", [One("basic", "1"), One("basic", "1", not_after=1)]),
    ("bob", [One("messages", "1"), One("usd", "1")]),
]


@pytest.mark.parametrize(("rows", "calls"), [pytest.param(*rest, id=name) for name, *rest in USUAL])
async def test_what_is_usual(short: World, rows: tuple[Row, ...], calls: list[One]) -> None:
    """It makes no function of the long way: that is what makes it cheap."""
    await make(short, "ann", Sequel("", rows, ()))
    for call in calls:
        await send(short, "ann", call)


@pytest.mark.parametrize(("rows", "call"), [pytest.param(*rest, id=name) for name, *rest in UNUSUAL])
async def test_what_is_not(short: World, rows: tuple[Row, ...], call: One) -> None:
    """It goes the long way."""
    await make(short, "ann", Sequel("", rows, (), entities=("desk_a",)))
    with pytest.raises(Unavailable, match="LONG"):
        await send(short, "ann", call)


async def test_several_that_are_usual(world: World) -> None:
    """So do several that differ in what they need, in their mode or their properties, checks among them."""
    calls = [
        One("basic", "1"),
        One("basic", "3", REJECT),
        One("basic", "700", None),
        One("basic", "701", None),
        One("basic", "1", OVERFLOW, properties={"model": "big"}),
        One("basic", "1", key="aa", fingerprint="f1"),
        One("basic", "1", key="bb", fingerprint="f2"),
    ]
    await make(world, "ann", Sequel("", PAIR, ()))
    await make(world, "bob", Sequel("", (*PAIR, row("m", "messages", "4")), ()))
    async with a_world(world, ShortStore) as short:
        await asyncio.gather(*(send(short, "ann", call) for call in calls))
        assert len(await world.entries("ann")) == 2
        for customer_id, pair in UNLIKE:
            sent = (send(short, customer_id, call) for call in pair)
            ended = await asyncio.gather(*sent, return_exceptions=True)
            assert ["LONG" in str(one) for one in ended] == [True, True], pair
    assert len(await world.entries("ann")) == 2
