"""forward.lua on a real Valkey: what falls due is stepped over once, whoever asks and however often."""

import asyncio

import pytest
from msgspec.structs import replace

from creditgate.core.decisions import Mode, Status
from creditgate.core.journal import Kind
from tests.lua.harness import DAY, DAY_MS, MONTH, T0, World, nanos, row
from tests.lua.test_change import told

FEBRUARY = T0 + 31 * DAY_MS
MARCH = FEBRUARY + 28 * DAY_MS


async def test_reset_restores_what_was_granted(world: World) -> None:
    """At the boundary the row starts anew with what it was granted; what was left is journaled as expired."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH))
    await world.track("ann", "messages", "2")
    await world.set_clock("ann", FEBRUARY)
    written = await world.forward("ann")
    assert (written.status, written.time) == (Status.OK, FEBRUARY)
    assert await world.balances("ann") == {"r": "5"}
    assert told((await world.entries("ann"))[-1].items) == [
        (Kind.EXPIRE, "r", -nanos("3"), 0),
        (Kind.GRANT, "r", nanos("5"), nanos("5")),
        (Kind.PUT, "terms", None, None),
    ]
    record = await world.record("ann")
    assert (record.terms.rows[0].period, record.terms.rows[0].resets_at) == (1, MARCH)
    assert not record.is_due


async def test_a_step_that_was_worked_out_before_another(world: World) -> None:
    """Of two who step a customer over at once, the second has no effect, though more is due after the first."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH))
    await world.set_clock("ann", FEBRUARY)
    before = await world.record("ann")
    change = replace(world.forward_change(before), due=FEBRUARY)
    assert (await world.forward("ann", record=before, change=change)).status is Status.OK
    assert (await world.forward("ann", record=before, change=change)).status is Status.MOVED_ON
    assert (await world.forward("ann")).status is Status.OK


async def test_overdraft_is_forgiven_at_the_reset(world: World) -> None:
    """What went below zero is forgiven by the reset: the next period has its full allowance."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH))
    await world.track("ann", "messages", "8", mode=Mode.OVERFLOW)
    await world.set_clock("ann", FEBRUARY)
    await world.forward("ann")
    assert await world.balances("ann") == {"r": "5"}
    assert told((await world.entries("ann"))[-1].items)[:2] == [
        (Kind.FORGIVE, "r", nanos("3"), 0),
        (Kind.GRANT, "r", nanos("5"), nanos("5")),
    ]


async def test_missed_periods_are_one_reset(world: World) -> None:
    """A customer who was away for a year is granted one month, in the period that holds now."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH), row("d", "messages", "1", resets=DAY))
    await world.set_clock("ann", T0 + 366 * DAY_MS)
    await world.forward("ann")
    assert await world.balances("ann") == {"d": "1", "r": "5"}
    record = await world.record("ann")
    assert [(r.id, r.period) for r in record.terms.rows] == [("d", 366), ("r", 12)]
    assert (await world.track("ann", "messages", "6", mode=Mode.REJECT)).status is Status.OK


async def test_expired_row_is_gone(world: World) -> None:
    """An expired grant gives nothing any more, what was left is journaled, and the other rows stay as they are."""
    await world.create(
        "ann", row("soon", "messages", "5", expires_at=T0 + DAY_MS), row("life", "messages", "5")
    )
    await world.track("ann", "messages", "1")
    await world.set_clock("ann", T0 + DAY_MS)
    await world.forward("ann")
    assert await world.balances("ann") == {"life": "5"}
    assert told((await world.entries("ann"))[-1].items)[0] == (Kind.EXPIRE, "soon", -nanos("4"), 0)


async def test_drained_grants_go_at_the_reset(world: World) -> None:
    """A top-up that was used up leaves at the next reset, one with something left stays."""
    await world.create(
        "ann",
        row("month", "messages", "1", resets=MONTH),
        row("spent", "messages", "5", created_at=T0 - 1),
        row("half", "messages", "5"),
    )
    await world.track("ann", "messages", "7")
    await world.set_clock("ann", FEBRUARY)
    await world.forward("ann")
    assert await world.balances("ann") == {"month": "1", "half": "4"}


@pytest.mark.parametrize("clock", [T0, FEBRUARY - 1])
async def test_nothing_due(world: World, clock: int) -> None:
    """A sweep that comes when nothing is due changes nothing."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH))
    await world.set_clock("ann", clock)
    await world.track("ann", "messages", "2")
    before = await world.everything()
    assert (await world.forward("ann")).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_steps_from_an_old_read_are_refused(world: World) -> None:
    """Steps worked out before another change are refused: nobody steps over what he did not see."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH))
    await world.set_clock("ann", FEBRUARY)
    record = await world.record("ann")
    await world.forward("ann")
    before = await world.everything()
    assert (await world.forward("ann", record=record)).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_another_customer_of_the_same_id_is_not_stepped(world: World) -> None:
    """Steps for a customer who was deleted never fall on the one who came again under the id."""
    records = []
    for uid in ("uid1", "uid2"):
        await world.redis.delete(world.keys.record("ann"))
        await world.create("ann", row("r", "messages", "5", resets=MONTH), uid=uid)
        await world.set_clock("ann", FEBRUARY)
        records.append(await world.record("ann"))
    before = await world.everything()
    assert (await world.forward("ann", record=records[0])).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_ten_at_once_reset_once(world: World) -> None:
    """Ten sidecars that find the same customer due at once grant one month between them."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH))
    await world.track("ann", "messages", "5")
    await world.set_clock("ann", FEBRUARY)
    record = await world.record("ann")
    answers = await asyncio.gather(*(world.forward("ann", record=record) for _ in range(10)))
    assert sorted(written.status for written in answers) == [Status.MOVED_ON] * 9 + [Status.OK]
    grants = [item for entry in await world.entries("ann") for item in entry.items if item.kind == Kind.GRANT]
    assert len(grants) == 2
    assert await world.balances("ann") == {"r": "5"}


async def test_too_late_and_absent(world: World) -> None:
    """Past its deadline, or without a customer, a step has no effect."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH))
    await world.set_clock("ann", FEBRUARY)
    record = await world.record("ann")
    before = await world.everything()
    assert (await world.forward("ann", not_after=1)).status is Status.TOO_LATE
    assert (await world.forward("bob", record=record)).status is Status.ABSENT
    assert await world.everything() == before


async def test_real_time_moves_the_due_index(world: World) -> None:
    """After the sweep has stepped a customer, the index names the next boundary, so that the sweep does not spin."""
    now = world.clock.now_ms()
    old = row("r", "messages", "5", resets=MONTH)  # its period ended before today
    await world.create("ann", old, row("z", "messages", "1", expires_at=now + 400 * DAY_MS), clock=None)
    partition = world.keys.partition_of("ann")
    assert (await world.track("ann", "messages", "1")).status is Status.DUE
    assert await world.store.due_customers(partition, now, 10) == ["ann"]
    record = await world.record("ann")
    change = world.forward_change(record)
    assert change.due is not None
    assert change.due > now
    assert (await world.forward("ann")).status is Status.OK
    assert await world.store.due_customers(partition, now, 10) == []
    assert await world.store.due_customers(partition, change.due, 10) == ["ann"]
    assert (await world.track("ann", "messages", "1")).status is Status.OK
