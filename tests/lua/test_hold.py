"""hold.lua and progress.lua on a real Valkey: what is held, what a hold remembers, and what is refused."""

import asyncio

import msgspec
import pytest

from creditgate.core.changes import rows_change
from creditgate.core.customers import Row
from creditgate.core.decisions import Mode, Status
from creditgate.core.holds import HOLD_LIMITS, Leg, Limits
from creditgate.core.journal import Kind
from tests.lua.harness import DAY_MS, HOUR_MS, MONTH, T0, World, answer, nanos, row
from tests.lua.test_change import told
from tests.lua.test_settle import ACTION_AND_CREDITS, H5M10

ONE = 10**9
ODD_IDS = ("lock", "a b/c", "ü\u2028{x}", '"],"properties":{', "%41", "h:1", "~-_.", "x" * 256)


async def test_a_hold_takes_what_a_track_would(world: World) -> None:
    """What is held is gone for everybody else at once, and the journal says that it was held and by which receipt."""
    await world.create("ann", *ACTION_AND_CREDITS)
    await world.track("ann", "action1", "95")
    reply = await world.hold("ann", "action1", "8", properties='{"chat":"c1"}')
    assert reply.status is Status.OK
    assert await world.balances("ann") == {"a": "0", "c": "199.4"}
    assert told((await world.entries("ann"))[-1].items) == [
        (Kind.HOLD, "a", -nanos("5"), 0),
        (Kind.HOLD, "c", -nanos("0.6"), nanos("199.4")),
        (Kind.PUT, "alert", None, None),
        (Kind.PUT, "hold", None, None),
    ]
    assert reply.held is not None
    hold = reply.held.hold
    assert hold == (await world.record("ann")).holds["lock"]
    assert (hold.feature_id, hold.value_nanos, hold.used_nanos) == ("action1", nanos("8"), 0)
    assert hold.legs == (
        Leg("a", "action1", ONE, -nanos("5"), "-"),
        Leg("c", "credits", nanos("0.2"), -nanos("0.6"), "-"),
    )
    assert hold.properties_text == '{"chat":"c1"}'
    assert hold.expires_at == T0 + HOLD_LIMITS.lasts_ms


async def test_a_leg_remembers_the_period_of_its_row(world: World) -> None:
    """A row that resets is named with its period: what was held in it must not return to a later one."""
    await world.create("ann", row("m", "messages", "5", resets=MONTH))
    await world.set_clock("ann", T0 + 31 * DAY_MS)
    await world.forward("ann")
    reply = await world.hold("ann", "messages", "2")
    assert reply.held is not None
    assert [leg.period for leg in reply.held.hold.legs] == ["1"]


@pytest.mark.parametrize("hold_id", ODD_IDS)
async def test_any_id_and_any_properties(world: World, hold_id: str) -> None:
    """Whatever callers name a hold, and whatever they say of it, it is found again and settled."""
    await world.create("ann", *H5M10)
    properties = msgspec.json.encode({hold_id: ['","legs":[["m","messages",1,-9,"0"]],', hold_id]}).decode()
    assert (await world.hold("ann", "messages", "8", hold_id=hold_id, properties=properties)).status
    hold = (await world.record("ann")).holds[hold_id]
    assert hold.properties_text == properties
    assert len(hold.legs) == 2
    assert await world.store.open_hold(customer_id="ann", hold_id=hold_id) == hold
    assert (await world.settle("ann", "3", hold_id=hold_id)).status is Status.OK
    assert await world.balances("ann") == {"h": "2", "m": "10"}


async def test_a_row_that_crosses_zero_has_two_legs(world: World) -> None:
    """Legs stand as they were drawn: all that was above zero, row by row, before anything below."""
    await world.create("ann", *H5M10)
    reply = await world.hold("ann", "messages", "18", mode=Mode.OVERFLOW)
    assert reply.held is not None
    assert [(leg.row_id, leg.delta_nanos) for leg in reply.held.hold.legs] == [
        ("h", -nanos("5")),
        ("m", -nanos("10")),
        ("h", -nanos("3")),
    ]


@pytest.mark.parametrize(
    ("mode", "status", "left", "later"),
    [
        (Mode.REJECT, Status.REFUSED, {"h": "5", "m": "10"}, ""),
        (Mode.CAP, Status.OK, {"h": "0", "m": "0"}, "cap"),
        (Mode.OVERFLOW, Status.OK, {"h": "-1", "m": "0"}, "overflow"),
    ],
)
async def test_more_than_there_is(
    world: World, mode: Mode, status: Status, left: dict[str, str], later: str
) -> None:
    """Without a word on overage, a hold is all or nothing; else it takes what is there, or goes below zero."""
    await world.create("ann", *H5M10)
    before = await world.everything()
    reply = await world.hold("ann", "messages", "16", mode=mode)
    assert reply.status is status
    assert await world.balances("ann") == left
    if status is Status.REFUSED:
        assert (reply.balances, reply.held) == ({"h": 5 * ONE, "m": 10 * ONE}, None)
        assert await world.everything() == before
    else:
        assert reply.held is not None
        assert reply.held.hold.mode == later


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(("units", "status"), [("10", Status.REFUSED), ("0", Status.OK), ("-1", Status.OK)])
async def test_lk_no_entitlement(world: World, mode: Mode, units: str, status: Status) -> None:
    """CK-17: who has no row of the feature holds nothing, whatever the mode; nothing can be held of nothing."""
    await world.create("ann", row("c", "credits2", "5"))
    assert (await world.hold("ann", "messages", units, mode=mode)).status is status


async def test_lk_17_an_id_is_used_once_at_a_time(world: World) -> None:
    """LK-17: a second hold of an open id is refused and takes nothing; once settled, the id may be used again."""
    await world.create("ann", row("m", "messages", "20"))
    await world.hold("ann", "messages", "5")
    before = await world.everything()
    assert (await world.hold("ann", "messages", "5")).status is Status.EXISTS
    assert (await world.hold("ann", "messages", "500")).status is Status.EXISTS
    assert await world.everything() == before
    await world.settle("ann", None)
    assert (await world.hold("ann", "messages", "5")).status is Status.OK
    assert await world.balances("ann") == {"m": "10"}


async def test_a_repeated_key_is_not_a_second_hold(world: World) -> None:
    """Our own retry finds its hold: it is a replay, not an id that is taken."""
    await world.create("ann", row("m", "messages", "20"))
    first = await world.hold("ann", "messages", "5", key="aa", fingerprint="b1")
    before = await world.everything()
    again = await world.hold("ann", "messages", "5", key="aa", fingerprint="b1")
    other = await world.hold("ann", "messages", "5", key="aa", fingerprint="b2")
    assert (again.status, again.stream_id) == (Status.REPLAYED, first.stream_id)
    assert other.status is Status.KEY_REUSED
    assert await world.everything() == before
    await world.settle("ann", None)
    assert (await world.hold("ann", "messages", "5", key="aa", fingerprint="b1")).status is Status.REPLAYED


# Time


@pytest.mark.parametrize(
    ("expires_at", "status"),
    [
        (T0 - 1, Status.MISTIMED),
        (T0, Status.MISTIMED),
        (T0 + 1, Status.OK),
        (T0 + 24 * HOUR_MS, Status.OK),
        (T0 + 24 * HOUR_MS + 1, Status.MISTIMED),
    ],
)
async def test_lk_17_when_a_hold_may_expire(world: World, expires_at: int, status: Status) -> None:
    """LK-17: in the future, at most 24 hours ahead, by the customer's own clock."""
    await world.create("ann", row("m", "messages", "20"))
    before = await world.everything()
    assert (await world.hold("ann", "messages", "5", expires_at=expires_at)).status is status
    assert (await world.everything() == before) is (status is not Status.OK)


async def test_the_customer_is_due_when_the_first_hold_expires(world: World) -> None:
    """A hold that expires before anything else happens brings the customer into the sweep's view in time."""
    now = world.clock.now_ms()
    await world.create("ann", row("m", "messages", "20", expires_at=now + 900 * DAY_MS), clock=None)
    partition = world.keys.partition_of("ann")
    for hours, due in ((5, 5), (9, 5), (3, 3)):
        await world.hold("ann", "messages", "1", hold_id=f"h{hours}", expires_at=now + hours * HOUR_MS)
        assert await world.store.due_customers(partition, now + due * HOUR_MS - 1, 9) == []
        assert await world.store.due_customers(partition, now + due * HOUR_MS, 9) == ["ann"]


async def test_other_changes_keep_the_expiry_due(world: World) -> None:
    """A grant, or a reset, that is worked out without looking at holds does not make anyone forget them."""
    now = world.clock.now_ms()
    await world.create("ann", row("m", "messages", "20", expires_at=now + 900 * DAY_MS), clock=None)
    await world.hold("ann", "messages", "1", expires_at=now + HOUR_MS)
    record = await world.record("ann")
    await world.change(record, rows_change(record, opened=[row("n", "messages", "1")]))
    partition = world.keys.partition_of("ann")
    assert await world.store.due_customers(partition, now + HOUR_MS, 9) == ["ann"]
    assert await world.store.due_customers(partition, now + HOUR_MS - 1, 9) == []


async def test_due_is_put_right_without_an_entry(world: World) -> None:
    """A customer who is due only for a hold that is settled by now gets a new due, and no line in the journal."""
    now = world.clock.now_ms()
    later = now + 900 * DAY_MS
    await world.create("ann", row("m", "messages", "20", expires_at=later), clock=None)
    await world.hold("ann", "messages", "1", expires_at=now + 1000)
    await world.settle("ann", "1")
    record_key, partition = world.keys.record("ann"), world.keys.partition_of("ann")
    await answer(world.redis.hset(record_key, "due", str(now - 1)))  # as if that second had passed
    assert (await world.track("ann", "messages", "1")).status is Status.DUE
    record = await world.record("ann")
    change = rows_change(record)
    change = msgspec.structs.replace(change, terms=None, orders={}, steps=())
    written = await world.forward("ann", record=record, change=change)
    assert (written.status, written.number, written.stream_id) == (Status.OK, record.sequence, None)
    assert len(await world.entries("ann")) == record.sequence
    assert await world.store.due_customers(partition, later - 1, 9) == []
    assert await world.store.due_customers(partition, later, 9) == ["ann"]
    assert (await world.track("ann", "messages", "1")).status is Status.OK


# Bounds


async def test_as_many_as_there_may_be(world: World) -> None:
    """A caller who never settles is stopped before the record of the customer grows without end."""
    await world.create("ann", row("m", "messages", "20"))
    few = Limits(HOUR_MS, 24 * HOUR_MS, 3)
    for number in range(3):
        await world.hold("ann", "messages", "1", hold_id=f"h{number}", limits=few)
    before = await world.everything()
    assert (await world.hold("ann", "messages", "1", hold_id="h3", limits=few)).status is Status.TOO_MANY
    assert (await world.hold("ann", "messages", "1", hold_id="h0", limits=few)).status is Status.EXISTS
    assert await world.everything() == before
    await world.settle("ann", "0", hold_id="h1")
    assert (await world.hold("ann", "messages", "1", hold_id="h3", limits=few)).status is Status.OK


async def test_the_most_holds_of_the_most_rows(world: World) -> None:
    """As many holds as there may be, on a customer with as many rows, can be changed, restored and deleted."""
    rows = [row(f"r{number}", "messages", "2") for number in range(64)]
    await world.create("ann", *rows)
    for number in range(HOLD_LIMITS.holds_max):
        await world.hold("ann", "messages", "0.001", hold_id=f"h{number}")
    record = await world.record("ann")
    assert len(record.holds) == HOLD_LIMITS.holds_max
    assert (await world.change(record, rows_change(record))).status is Status.OK
    record = await world.record("ann")
    await world.redis.delete(world.keys.record("ann"))
    restored = await world.store.restore(
        stood_at=await world.stream.last_id(world.keys.partition_of("ann")),
        customer_id="ann",
        uid=record.uid,
        sequence=record.sequence,
        clock=record.clock,
        customer=record.customer,
        terms=record.terms,
        holds=record.holds,
        balances=record.balances,
    )
    assert restored.status is Status.OK
    assert (await world.record("ann")).holds == record.holds
    written = await world.store.delete(not_after=10**14, customer_id="ann", call=world.call("delete"))
    assert written.status is Status.OK


async def test_a_row_that_is_held_does_not_go(world: World) -> None:
    """A top-up that is held to the last credit looks drained, but stays: else a release had nowhere to go."""
    await world.create("ann", row("month", "messages", "1", resets=MONTH), row("bought", "messages", "5"))
    await world.hold("ann", "messages", "6", expires_at=T0 + HOUR_MS)
    stale = await world.record("ann")
    await world.set_clock("ann", T0 + 31 * DAY_MS)
    record = await world.record("ann")
    await world.forward("ann")
    assert await world.balances("ann") == {"month": "1", "bought": "0"}
    assert record.holds == stale.holds


async def test_a_row_that_was_held_meanwhile_is_not_dropped(world: World) -> None:
    """A change that was worked out before the hold, and would drop the row as drained, is worked out again."""
    rows = [row(f"r{number}", "messages", "1") for number in range(64)]
    await world.create("ann", *rows)
    await world.track("ann", "messages", "64")
    record = await world.record("ann")
    change = rows_change(record, opened=[row("new", "messages", "1")])
    await world.track("ann", "messages", "-64")
    await world.hold("ann", "messages", "64")
    before = await world.everything()
    assert (await world.change(record, change)).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_a_deleted_customer_releases_its_holds(world: World) -> None:
    """The journal of a deleted customer adds up: what was held came back, and then expired."""
    rows: list[Row] = [row("m", "messages", "10", resets=MONTH), row("life", "messages", "10")]
    await world.create("ann", *rows)
    await world.hold("ann", "messages", "12", hold_id="one")
    await world.hold("ann", "messages", "3", hold_id="two")
    written = await world.store.delete(not_after=10**14, customer_id="ann", call=world.call("delete"))
    assert written.status is Status.OK
    assert sorted(told((await world.entries("ann"))[-1].items)) == sorted(
        [
            (Kind.UNHOLD, "m", nanos("10"), nanos("10")),
            (Kind.EXPIRE, "m", -nanos("10"), 0),
            (Kind.UNHOLD, "life", nanos("5"), nanos("10")),
            (Kind.EXPIRE, "life", -nanos("10"), 0),
            (Kind.PUT, "hold", None, None),
            (Kind.PUT, "hold", None, None),
            (Kind.PUT, "customer", None, None),
        ],
        key=str,
    )


# Progress


async def test_the_most_progress_counts(world: World) -> None:
    """Reports that overtake one another, or come twice, never make less of what was used."""
    await world.create("ann", *H5M10)
    await world.hold("ann", "messages", "8")
    for said, kept in (("3", "3"), ("2.5", "3"), ("3", "3"), ("3.000000001", "3.000000001"), ("20", "20")):
        reply = await world.progress("ann", said)
        assert reply.status is Status.OK
        assert reply.held == ("lock", (await world.record("ann")).holds["lock"])
        assert reply.held.hold.used_nanos == nanos(kept)
    assert len(await world.entries("ann")) == 5
    assert await world.balances("ann") == {"h": "0", "m": "7"}
    await world.settle("ann", None)
    assert await world.balances("ann") == {"h": "0", "m": "7"}


async def test_no_progress_of_what_is_not_held(world: World) -> None:
    """Progress of an unknown hold, of one that gives credit, in the past of a customer or of none, changes nothing."""
    await world.create("ann", *H5M10)
    await world.track("ann", "messages", "5")
    await world.hold("ann", "messages", "-2", hold_id="credit")
    await world.hold("ann", "messages", "2", expires_at=T0 + 1)
    before = await world.everything()
    assert (await world.progress("ann", "1", hold_id="other")).status is Status.MOVED_ON
    assert (await world.progress("ann", "1", hold_id="credit")).status is Status.REFUSED
    assert (await world.progress("bob", "1")).status is Status.ABSENT
    assert (await world.progress("ann", "1", not_after=1)).status is Status.TOO_LATE
    assert await world.everything() == before
    await world.set_clock("ann", T0 + 1)
    assert (await world.progress("ann", "1")).status is Status.DUE


# All at once


async def test_fifty_at_once(world: World) -> None:
    """Fifty holds of 1 on 15 units: fifteen are held; released, they can be held again."""
    await world.create("ann", *H5M10)
    for _ in range(2):
        replies = await asyncio.gather(
            *(world.hold("ann", "messages", "1", hold_id=f"h{number}") for number in range(50))
        )
        assert sorted(reply.status for reply in replies) == [Status.REFUSED] * 35 + [Status.OK] * 15
        held = [number for number, reply in enumerate(replies) if reply.status is Status.OK]
        await asyncio.gather(*(world.settle("ann", "0", hold_id=f"h{number}") for number in held))
        assert await world.balances("ann") == {"h": "5", "m": "10"}


async def test_too_late_and_absent(world: World) -> None:
    """Past its deadline, or for a customer who is not there, nothing is held."""
    await world.create("ann", *H5M10)
    before = await world.everything()
    assert (await world.hold("ann", "messages", "1", not_after=1)).status is Status.TOO_LATE
    assert (await world.hold("bob", "messages", "1")).status is Status.ABSENT
    assert await world.everything() == before
