"""delete.lua on a real Valkey: a customer goes whole, the journal says how, and who comes after is somebody else."""

from typing import Any

import pytest

from creditgate.balances.store import Written
from creditgate.core.decisions import Mode, Status
from creditgate.core.journal import Kind
from tests.lua.harness import DAY_MS, MONTH, NEVER_TOO_LATE, T0, World, answer, decimal_text, row

KEY, FIRST, OTHER = "cafe", "f00d", "beef"


async def delete(
    world: World, *, key: str = "", fingerprint: str = "", not_after: int = NEVER_TOO_LATE
) -> Written:
    call = world.call("delete", key=key, fingerprint=fingerprint)
    return await world.store.delete(not_after=not_after, customer_id="ann b", call=call)


async def somebody(world: World, **more: Any) -> None:
    """A customer with rows that are full, partly used, used up and overdrawn."""
    rows = (
        row("full", "action1", "7"),
        row("used", "messages", "5"),
        row("empty", "action2", "1"),
        row("seats", "seats", "1", may_go_negative=True),
    )
    await world.create("ann b", *rows, **more)
    await world.track("ann b", "messages", "2")
    await world.track("ann b", "action2", "1")
    await world.track("ann b", "seats", "3", mode=Mode.OVERFLOW)


async def test_every_row_is_closed_in_the_journal(world: World) -> None:
    """What was left expires and what was owed is forgiven, row by row: the books of a deleted customer close."""
    await somebody(world)
    before = await world.record("ann b")
    written = await delete(world)
    assert (written.status, written.number) == (Status.OK, before.sequence + 1)
    assert await world.store.read(customer_id="ann b") is None
    *_, entry = await world.entries("ann b")
    assert (entry.stream_id, entry.sequence, entry.uid) == (
        written.stream_id,
        before.sequence + 1,
        before.uid,
    )
    moved = {item.row_id: (item.kind, decimal_text(item.delta_nanos or 0)) for item in entry.items[:-1]}
    assert moved == {
        "full": (Kind.EXPIRE, "-7"),
        "used": (Kind.EXPIRE, "-3"),
        "empty": (Kind.EXPIRE, "0"),
        "seats": (Kind.FORGIVE, "2"),
    }
    assert all(item.after_nanos == 0 for item in entry.items[:-1])
    assert (entry.items[-1].document_type, entry.items[-1].document) == ("customer", "null")


async def test_nothing_of_the_customer_is_left_to_fall_due(world: World) -> None:
    """The sweep does not come back for ever for somebody who is no longer there."""
    now = world.clock.now_ms()
    await world.create("ann b", row("m", "messages", "5", expires_at=now + DAY_MS), clock=None)
    due = world.keys.due(world.keys.partition_of("ann b"))
    assert await world.redis.zcard(due) == 1
    assert (await delete(world)).status is Status.OK
    assert await world.redis.zcard(due) == 0


async def test_what_fell_due_comes_first(world: World) -> None:
    """A customer whose month is over is renewed and then deleted, so that the history has no gap in time."""
    await world.create("ann b", row("m", "messages", "5", resets=MONTH))
    await world.set_clock("ann b", T0 + 31 * DAY_MS)
    before = await world.everything()
    assert (await delete(world, key=KEY, fingerprint=FIRST)).status is Status.DUE
    assert await world.everything() == before
    await world.forward("ann b")
    assert (await delete(world, key=KEY, fingerprint=FIRST)).status is Status.OK


async def test_a_repeated_deletion_is_told_of_the_first(world: World) -> None:
    """A retry with its key succeeds though the customer is gone; without a key, or with another, there is nobody."""
    await somebody(world)
    first = await delete(world, key=KEY, fingerprint=FIRST)
    before = await world.everything()
    again = await delete(world, key=KEY, fingerprint=FIRST)
    assert (again.status, again.stream_id) == (Status.REPLAYED, first.stream_id)
    assert (await delete(world, key=KEY, fingerprint=OTHER)).status is Status.KEY_REUSED
    assert (await delete(world, key="abba", fingerprint=FIRST)).status is Status.ABSENT
    assert (await delete(world)).status is Status.ABSENT
    assert await world.everything() == before


async def test_a_late_retry_does_not_delete_who_came_after(world: World) -> None:
    """A retry that arrives when the id is in use again is the old call, and spares the new customer."""
    await somebody(world)
    first = await delete(world, key=KEY, fingerprint=FIRST)
    await world.create("ann b", row("new", "messages", "9"), uid="uid2")
    before = await world.everything()
    again = await delete(world, key=KEY, fingerprint=FIRST)
    assert (again.status, again.stream_id) == (Status.REPLAYED, first.stream_id)
    assert await world.everything() == before
    assert (await delete(world, key="abba", fingerprint=FIRST)).status is Status.OK


async def test_a_call_that_comes_too_late_deletes_nobody(world: World) -> None:
    """A call whose fate was looked up already has no effect afterwards."""
    await somebody(world)
    before = await world.everything()
    assert (await delete(world, not_after=1)).status is Status.TOO_LATE
    assert await world.everything() == before


async def test_an_unknown_layout_is_left_alone(world: World) -> None:
    """An older sidecar does not delete what it cannot read."""
    await somebody(world)
    await answer(world.redis.hset(world.keys.record("ann b"), "v", "2"))
    assert (await delete(world)).status is Status.UPGRADE
    await answer(world.redis.hset(world.keys.record("ann b"), "v", "1"))


@pytest.mark.parametrize("clock", [T0, None], ids=["pinned", "real"])
async def test_who_comes_after_starts_anew(world: World, clock: int | None) -> None:
    """Under the same id there is another customer: own numbers from 1, own rows, nobody's debts."""
    await somebody(world, clock=clock)
    await delete(world)
    await world.create("ann b", row("new", "messages", "9"), uid="uid2", clock=None)
    record = await world.record("ann b")
    assert (record.uid, record.sequence, record.clock) == ("uid2", 1, None)
    assert await world.balances("ann b") == {"new": "9"}
