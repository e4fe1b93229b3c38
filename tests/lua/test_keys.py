"""Callers' idempotency keys in the scripts: one key, one effect, for 24 hours and for one customer."""

import pytest

from creditgate.balances.clock import RedisClock
from creditgate.balances.keys import KEY_BUCKET_MS
from creditgate.balances.store import BalanceStore, Reply
from creditgate.core.changes import rows_change
from creditgate.core.decisions import Mode, Status
from tests.lua.harness import DAY_MS, HOUR_MS, MONTH, NEVER_TOO_LATE, T0, UID, World, answer, row

KEY, FIRST, OTHER = "aa11", "bb22", "cc33"


async def track(world: World, units: str = "1", *, fingerprint: str = FIRST, customer: str = "ann") -> Reply:
    """A track with the caller's key."""
    return await world.track(customer, "messages", units, key=KEY, fingerprint=fingerprint)


async def test_replay_changes_nothing(world: World) -> None:
    """A caller who tries again is charged once, and gets the place of the first entry with the balances as they are."""
    await world.create("ann", row("r", "messages", "10"))
    first = await track(world)
    await world.track("ann", "messages", "2")
    before = await world.everything()
    again = await track(world)
    assert (again.status, again.stream_id) == (Status.REPLAYED, first.stream_id)
    assert (again.balances, again.moved, again.sequence) == ({"r": 7 * 10**9}, (), 3)
    assert await world.everything() == before


async def test_reused_key_changes_nothing(world: World) -> None:
    """A key that comes back with other parameters is an error of the caller, and charges nobody."""
    await world.create("ann", row("r", "messages", "10"))
    await track(world)
    before = await world.everything()
    assert (await track(world, "2", fingerprint=OTHER)).status is Status.KEY_REUSED
    assert await world.everything() == before


async def test_refused_call_keeps_no_key(world: World) -> None:
    """After a refusal the same key works again once there are credits."""
    await world.create("ann", row("r", "messages", "1"))
    call = {"key": KEY, "fingerprint": FIRST, "mode": Mode.REJECT}
    assert (await world.track("ann", "messages", "2", **call)).status is Status.REFUSED  # type: ignore[arg-type]
    record = await world.record("ann")
    await world.change(record, rows_change(record, opened=[row("s", "messages", "1")]))
    assert (await world.track("ann", "messages", "2", **call)).status is Status.OK  # type: ignore[arg-type]
    assert (await world.track("ann", "messages", "2", **call)).status is Status.REPLAYED  # type: ignore[arg-type]


async def test_empty_use_keeps_its_key(world: World) -> None:
    """A use that took nothing was accepted and is recorded once, not once for each attempt."""
    await world.create("ann")
    assert [(await track(world)).status for _ in range(3)] == [Status.OK, Status.REPLAYED, Status.REPLAYED]
    assert len(await world.entries("ann")) == 2


async def test_keys_are_per_customer(world: World) -> None:
    """Two customers may use the same key, also when they share a partition."""
    for name in ("ann", "bob", "cyd", "dan", "eve"):
        await world.create(name, row("r", "messages", "10"))
        assert (await track(world, customer=name)).status is Status.OK


async def test_keys_of_change_and_track_are_one_set(world: World) -> None:
    """A creation that is tried again with its key answers with the first one instead of a conflict."""
    call = world.call("create", key=KEY, fingerprint=FIRST)
    first = await world.create("ann", row("r", "messages", "10"), call=call)
    before = await world.everything()
    again = await world.create("ann", row("s", "messages", "10"), call=call, uid="uid2")
    assert (again.status, again.stream_id, again.number) == (Status.REPLAYED, first.stream_id, 1)
    other = world.call("create", key=KEY, fingerprint=OTHER)
    assert (await world.create("ann", call=other)).status is Status.KEY_REUSED
    assert await world.everything() == before


async def test_key_is_not_for_who_comes_after(world: World) -> None:
    """A customer who was deleted and made again is not given the old one's answers."""
    await world.create("ann", row("r", "messages", "10"))
    await track(world)
    await world.redis.delete(world.keys.record("ann"))
    await world.create("ann", row("r", "messages", "10"), uid="uid2")
    assert (await track(world, fingerprint=OTHER)).status is Status.OK
    assert (await track(world, fingerprint=OTHER)).status is Status.REPLAYED


@pytest.mark.parametrize(
    ("age_ms", "expected"),
    [
        (0, Status.REPLAYED),
        (DAY_MS - 60_000, Status.REPLAYED),
        (DAY_MS, Status.OK),
        (35 * HOUR_MS, Status.OK),
    ],
)
@pytest.mark.parametrize("bucket", [0, 1, 2, 3])
async def test_key_holds_for_24_hours(world: World, age_ms: int, expected: Status, bucket: int) -> None:
    """A key replays for 24 hours, wherever it was written, and is free again after them."""
    await world.create("ann", row("r", "messages", "10"))
    now = await world.clock.read(world.redis)
    name = world.keys.key_buckets("ann", now)[bucket]
    await answer(world.redis.hset(name, KEY, f"{FIRST} {now - age_ms}-0 {UID}"))
    await world.redis.pexpire(name, HOUR_MS)
    reply = await track(world)
    assert reply.status is expected
    if expected is Status.REPLAYED:
        assert (await track(world, fingerprint=OTHER)).status is Status.KEY_REUSED


@pytest.mark.parametrize(
    ("written_by", "read_by"), [(0, 0), (0, 1), (1, 0), (-1, 0), (0, -1), (1, 1), (-1, -1), (0, 2), (-1, 1)]
)
async def test_sidecars_on_both_sides_of_a_bucket_boundary(
    world: World, written_by: int, read_by: int
) -> None:
    """A retry by another sidecar is found although the clocks of the two stand on different sides of a boundary."""
    now = world.clock.now_ms()
    boundary = (now // KEY_BUCKET_MS) * KEY_BUCKET_MS + KEY_BUCKET_MS // 2
    await world.create("ann", row("r", "messages", "10"))
    statuses = []
    for offset in (written_by, read_by):
        clock = RedisClock()
        clock.correct(boundary + offset * KEY_BUCKET_MS)
        store = BalanceStore(world.redis, world.keys, clock)
        reply = await store.track(
            not_after=NEVER_TOO_LATE,
            customer_id="ann",
            call=world.call("track", key=KEY, fingerprint=FIRST),
            mode=Mode.CAP,
            properties=(),
            pools=world.needs("messages", "1"),
        )
        statuses.append(reply.status)
    assert statuses == [Status.OK, Status.REPLAYED]


async def test_pinned_clock_does_not_move_the_window(world: World) -> None:
    """A test customer who is moved a year ahead still gets the replay: keys live in real time."""
    await world.create("ann", row("r", "messages", "10"), row("life", "messages", "10", resets=None))
    await track(world)
    await world.set_clock("ann", T0 + 400 * DAY_MS)
    assert (await track(world)).status is Status.REPLAYED


async def test_due_comes_before_the_replay(world: World) -> None:
    """A replay too shows the balance as it is now, so the customer is stepped forward first."""
    await world.create("ann", row("r", "messages", "10", resets=MONTH))
    await track(world)
    await world.set_clock("ann", T0 + 31 * DAY_MS)
    assert (await track(world)).status is Status.DUE
    await world.forward("ann")
    reply = await track(world)
    assert (reply.status, reply.balances) == (Status.REPLAYED, {"r": 10 * 10**9})


async def test_key_is_remembered_36_hours_after_the_last(world: World) -> None:
    """Keys are forgotten by themselves, and no sooner than they stop to hold."""
    await world.create("ann", row("r", "messages", "10"))
    await track(world)
    (bucket,) = [
        key for key in world.keys.key_buckets("ann", world.clock.now_ms()) if await world.redis.exists(key)
    ]
    assert 36 * HOUR_MS - 60_000 < await world.redis.pttl(bucket) <= 36 * HOUR_MS


async def test_many_keys_of_one_customer(world: World) -> None:
    """Each of many keys finds its own first call."""
    await world.create("ann", row("r", "messages", "1000"))
    first = [
        (await world.track("ann", "messages", "1", key=f"{n:032x}", fingerprint=f"{n:x}")).stream_id
        for n in range(100)
    ]
    again = [
        await world.track("ann", "messages", "1", key=f"{n:032x}", fingerprint=f"{n:x}") for n in range(100)
    ]
    assert [reply.status for reply in again] == [Status.REPLAYED] * 100
    assert [reply.stream_id for reply in again] == first
    assert await world.balances("ann") == {"r": "900"}
