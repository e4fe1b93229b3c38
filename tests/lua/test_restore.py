"""restore.lua and lease.lua on a real Valkey: a record comes back as SQL has it, and work is done by one at a time."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from redis.exceptions import ResponseError

from creditgate.balances.scripts import Script
from creditgate.balances.store import BalanceStore, Unknown, Written
from creditgate.balances.stream import JournalStream
from creditgate.core.customers import Record, Terms
from creditgate.core.decisions import Mode, Status
from creditgate.core.journal import StreamId
from tests.lua.harness import DAY_MS, HOUR_MS, World, answer, row
from tests.lua.test_contracts import Recorder
from tests.lua.test_faults import WHOLE, Sent


def arguments_of(
    record: Record, *, stood_at: StreamId, sequence: int | None = None, uid: str | None = None
) -> dict[str, Any]:
    """What restores this record, into a stream that stands there."""
    return {
        "stood_at": stood_at,
        "customer_id": record.customer.id,
        "uid": uid or record.uid,
        "sequence": sequence or record.sequence,
        "clock": record.clock,
        "customer": record.customer,
        "terms": record.terms,
        "holds": record.holds,
        "balances": record.balances,
    }


async def restore(world: World, record: Record, **more: Any) -> Written:
    arguments = {"stood_at": await stands_at(world)} | more
    return await world.store.restore(**arguments_of(record, **arguments))


async def stands_at(world: World) -> StreamId:
    """Where the journal of our customer stands."""
    stream = JournalStream(world.redis, world.keys)
    return await stream.last_id(world.keys.partition_of("ann b"))


async def somebody(world: World, *, pinned: bool = False) -> Record:
    """A customer with rows that reset, expire and are overdrawn."""
    now = world.clock.now_ms()
    clock = {} if pinned else {"clock": None}
    rows = (
        row("m", "messages", "5", expires_at=now + 900 * DAY_MS),
        row("c", "credits", "0.000000001"),
        row("s", "seats", "1", may_go_negative=True),
    )
    await world.create("ann b", *rows, **clock)  # type: ignore[arg-type]
    await world.track("ann b", "messages", "2")
    await world.track("ann b", "seats", "3", mode=Mode.OVERFLOW)
    await world.hold("ann b", "messages", "0.5", hold_id="ä/b", properties='{"x":"],\\"properties\\":{"}')
    return await world.record("ann b")


@pytest.mark.parametrize("pinned", [False, True])
async def test_lost_record_comes_back_whole(world: World, *, pinned: bool) -> None:
    """After Redis lost a customer, all of it is as SQL knows it: balances, order, clock, place in the due index."""
    record = await somebody(world, pinned=pinned)
    due_key = world.keys.due(world.keys.partition_of("ann b"))
    await world.redis.delete(world.keys.record("ann b"), due_key)
    assert (await restore(world, record)).status is Status.OK
    again = await world.record("ann b")
    assert msgspec.structs.replace(again, now=0, shape=0) == msgspec.structs.replace(record, now=0, shape=0)
    assert again.shape not in range(record.shape + 1), "a change worked out before the loss must not fit"
    assert (await world.track("ann b", "messages", "1")).status is Status.OK


@pytest.mark.parametrize("behind", [0, 1, 2])
async def test_newer_record_stays(world: World, behind: int) -> None:
    """A slow restorer never undoes what was written since it read SQL."""
    record = await somebody(world)
    before = await world.everything()
    assert (await restore(world, record, sequence=record.sequence - behind)).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_stream_that_went_on_keeps_its_record(world: World) -> None:
    """Once another restorer is through and calls go on, a slow one restores nothing."""
    record, stood_at = await somebody(world), await stands_at(world)
    await world.track("ann b", "messages", "1")
    record_key = world.keys.record("ann b")
    await answer(world.redis.rename(record_key, f"{record_key}:away"))
    before = await world.everything()
    assert (await restore(world, record, stood_at=stood_at)).status is Status.MOVED_ON
    assert await world.everything() == before
    await answer(world.redis.rename(f"{record_key}:away", record_key))


async def test_deleted_customer_stays_deleted(world: World) -> None:
    """Where SQL knows of a deletion that Redis has lost, the record goes again, and what was due of it."""
    record = await somebody(world)
    arguments = arguments_of(record, stood_at=await stands_at(world), sequence=record.sequence + 1)
    gone: dict[str, Any] = {"customer": None, "terms": Terms(), "holds": {}, "balances": {}}
    assert (await world.store.restore(**arguments | gone)).status is Status.OK
    assert await world.store.read(customer_id="ann b") is None
    assert await world.redis.zcard(world.keys.due(world.keys.partition_of("ann b"))) == 0


async def test_older_record_is_replaced_whole(world: World) -> None:
    """Where Redis came back older, nothing of the older state stays beside the newer one: no row, no order."""
    record = await somebody(world)
    await answer(
        world.redis.hset(
            world.keys.record("ann b"), mapping={"seq": "1", "b:old": "5", "o:old": "9:old:0:5:-"}
        )
    )
    assert (await restore(world, record)).status is Status.OK
    fields = await answer(world.redis.hgetall(world.keys.record("ann b")))
    assert {name for name in fields if name.endswith(b":old")} == set()
    assert (await world.record("ann b")).balances == record.balances


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        *(
            (argument, text)
            for argument in ("sequence", "clock", "due", "orders_count", "holds_count")
            for text in WHOLE
            if text
        ),
        ("orders_count", "1000000000"),
        ("holds_count", "1000000000"),
        ("sequence", ""),
        ("uid", ""),
        ("uid", "a b"),
    ],
)
async def test_garbage_is_invalid(world: World, argument: str, text: str) -> None:
    """What is not what the header says is refused before the record that is there is deleted."""
    sent = await captured(world)
    before = await world.everything()
    reply = await sent.with_argument(sent.slot(argument), text).run(world)
    assert reply[0] == Status.INVALID
    assert await world.everything() == before


@pytest.mark.parametrize("more", [-1, 1])
async def test_cut_off_arguments_are_invalid(world: World, more: int) -> None:
    """A list that is cut off does not delete the record and then fail."""
    sent = await captured(world)
    before = await world.everything()
    arguments = sent.arguments[:more] if more < 0 else [*sent.arguments, "x"]
    assert (await replace(sent, arguments=arguments).run(world))[0] == Status.INVALID
    assert await world.everything() == before


@pytest.mark.parametrize("text", ["", "nan", "1.5", "9" * 25])
async def test_garbage_balance_is_invalid(world: World, text: str) -> None:
    """Only an amount becomes a balance."""
    sent = await captured(world)
    before = await world.everything()
    assert (await sent.with_argument(len(sent.arguments) - 1, text).run(world))[0] == Status.INVALID
    assert await world.everything() == before


@pytest.mark.parametrize("slot", [0, 1])
async def test_key_of_a_wrong_type(world: World, slot: int) -> None:
    """A key that cannot be used stops the restore before anything is written."""
    sent = await captured(world)
    kept = await world.redis.dump(sent.keys[slot])
    await world.redis.set(sent.keys[slot], "x")
    before = await world.everything()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await sent.run(world)
    assert await world.everything() == before
    await world.redis.delete(sent.keys[slot])
    if kept is not None:
        await answer(world.redis.restore(sent.keys[slot], 0, kept))


async def captured(world: World) -> Sent:
    """A restore that would succeed."""
    record = await somebody(world)
    await answer(world.redis.hset(world.keys.record("ann b"), "seq", record.sequence))
    recorder = Recorder()
    store = BalanceStore(recorder, world.keys, world.clock)  # type: ignore[arg-type]
    sequence, stood_at = record.sequence + 1, await stands_at(world)
    with pytest.raises(Unknown):
        await store.restore(**arguments_of(record, sequence=sequence, stood_at=stood_at))
    return Sent(Script("restore"), recorder.keys, recorder.arguments)


async def test_lease_is_held_by_one(world: World) -> None:
    """Of two workers one does the work; it may go on as long as it asks, and the other may once it is given back."""

    async def take(*, name: str, holder: str, ttl_ms: int) -> bool:
        return (await world.store.lease(name=name, holder=holder, ttl_ms=ttl_ms)).is_ours

    assert await take(name="sweep", holder="one", ttl_ms=HOUR_MS)
    assert not await take(name="sweep", holder="two", ttl_ms=HOUR_MS)
    assert await take(name="sweep", holder="one", ttl_ms=HOUR_MS)
    assert await take(name="flush", holder="two", ttl_ms=HOUR_MS)
    assert not await take(name="sweep", holder="two", ttl_ms=0)
    assert await take(name="sweep", holder="one", ttl_ms=0)
    assert await take(name="sweep", holder="two", ttl_ms=HOUR_MS)
    assert 0 < await world.redis.pttl(world.keys.lease("sweep")) <= HOUR_MS


async def test_lease_says_whether_it_was_held_before(world: World) -> None:
    """Who lost a lease and takes it again knows that somebody else may have worked in between."""

    async def was_ours(ttl_ms: int = HOUR_MS) -> bool:
        return (await world.store.lease(name="sweep", holder="one", ttl_ms=ttl_ms)).was_ours

    assert not await was_ours()
    assert await was_ours()
    await answer(world.redis.delete(world.keys.lease("sweep")))
    assert not await was_ours()
    assert await was_ours(ttl_ms=0)
    assert not await was_ours()
