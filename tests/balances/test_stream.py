"""The journal streams on a real Valkey: read by position, looked up, trimmed exactly, and never going back."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from creditgate.balances.clock import RedisClock
from creditgate.balances.connection import ServerGuard, server_id_of
from creditgate.balances.hot_connection import HotConnection
from creditgate.balances.keys import Keys
from creditgate.balances.stream import JournalStream
from creditgate.core.journal import (
    ORIGIN,
    SYSTEM_PAGE_MAX,
    SYSTEM_PARTITION,
    Call,
    StreamId,
    encode_call,
)

KEYS = Keys(2)
PARTITION = "p01"


@pytest.fixture
async def stream(redis: "Redis") -> JournalStream:
    """The journals of an empty server."""
    return JournalStream(redis, KEYS)


async def append(redis: "Redis", number: int, *, stream_id: str = "*", op_id: str | None = None) -> StreamId:
    """Append one entry, as a script would."""
    call = Call("track", op_id or f"op{number}", 1)
    fields = {"c": "ann", "u": "uid", "n": str(number), "k0": encode_call(call), "0": "use"}
    raw = await redis.xadd(KEYS.journal(PARTITION), fields, id=stream_id)  # type: ignore[arg-type]
    assert isinstance(raw, bytes)
    return StreamId.parse(raw.decode())


async def test_pages_meet_without_gap(redis: "Redis", stream: JournalStream) -> None:
    """Reading in pages gives every entry once and in order, also where many share a millisecond."""
    ids = [await append(redis, n, stream_id=f"{5 + n // 4}-{1 + n % 4}") for n in range(10)]
    position, found = ORIGIN, []
    while True:
        page = await stream.read(PARTITION, position, count=3)
        if page.upto == position:
            break
        found += [entry.stream_id for entry in page.entries]
        position = page.upto
    assert found == ids
    assert [entry.stream_id async for entry in stream.tail(PARTITION, ids[3])] == ids[4:]
    assert (await stream.read("p00", ORIGIN)).upto == ORIGIN


async def test_large_entries_are_read_few_at_a_time(redis: "Redis", stream: JournalStream) -> None:
    """A batch of usage is one entry of the system's journal: a hundred of them are never in memory at once."""
    call = encode_call(Call("batch_track", "op", 0))
    for number in range(SYSTEM_PAGE_MAX + 1):
        await redis.xadd(
            KEYS.journal(SYSTEM_PARTITION), {"n": 1, "k0": call, "0": f"put batch bat_{number} []"}
        )
    page = await stream.read(SYSTEM_PARTITION, ORIGIN)
    assert (len(page.entries), page.is_full) == (SYSTEM_PAGE_MAX, True)
    rest = await stream.read(SYSTEM_PARTITION, page.upto)
    assert (len(rest.entries), rest.is_full) == (1, False)
    assert len([entry async for entry in stream.tail(SYSTEM_PARTITION, ORIGIN)]) == SYSTEM_PAGE_MAX + 1


async def test_poison_is_handed_over_and_passed_by(redis: "Redis", stream: JournalStream) -> None:
    """A message that is no entry, in any bytes, stops neither the reading nor the position."""
    first = await append(redis, 1)
    await redis.xadd(KEYS.journal(PARTITION), {b"\xff": b"\xfe"})
    last = await append(redis, 2)
    page = await stream.read(PARTITION, ORIGIN)
    assert [entry.stream_id for entry in page.entries] == [first, last]
    (poison,) = page.poison
    assert (poison.partition, poison.fields) == (PARTITION, {"\\xff": "\\xfe"})
    assert first < poison.stream_id < page.upto == last
    assert "cannot be read" in poison.reason


@pytest.mark.parametrize("is_hot", [False, True])
@pytest.mark.parametrize("stream_id", ["5-0", "5-1", "5-2", "6-0"])
async def test_one_entry_is_found_by_its_id(redis: "Redis", stream_id: str, is_hot: bool) -> None:
    """The entry of a replayed call is that entry, and not the one before or after it; a poison is none."""
    guard = ServerGuard()
    guard.reconciled = frozenset([await server_id_of(redis)])
    hot = HotConnection(redis, guard)
    stream = JournalStream(redis, KEYS, hot if is_hot else None)
    for number, each in enumerate(("5-0", "5-1", "5-2", "6-0")):
        await append(redis, number, stream_id=each)
    entry = await stream.entry(PARTITION, StreamId.parse(stream_id))
    assert entry is not None
    assert str(entry.stream_id) == stream_id
    await redis.xdel(KEYS.journal(PARTITION), stream_id)
    assert await stream.entry(PARTITION, StreamId.parse(stream_id)) is None
    poison: Any = await redis.xadd(KEYS.journal(PARTITION), {b"\xff": b"\xfe"})
    assert await stream.entry(PARTITION, StreamId.parse(poison.decode())) is None
    await hot.aclose()


async def test_call_is_found_by_its_op_id(redis: "Redis", stream: JournalStream) -> None:
    """A call whose reply was lost is found if it took effect, and only then."""
    await append(redis, 1, stream_id="1000-0", op_id="before")
    wanted = await append(redis, 2, stream_id="2000-0", op_id="wanted")
    await append(redis, 3, stream_id="2000-1", op_id="after")
    assert await stream.find_op(PARTITION, "wanted", since_ms=1500) == wanted
    assert await stream.find_op(PARTITION, "wanted", since_ms=1999) == wanted
    assert await stream.find_op(PARTITION, "before", since_ms=1500) is None
    assert await stream.find_op(PARTITION, "never", since_ms=0) is None
    assert await stream.find_op("p00", "wanted", since_ms=0) is None


async def test_call_of_the_same_millisecond_is_found(redis: "Redis", stream: JournalStream) -> None:
    """A call that took effect in the very millisecond in which it was first sent is not sent again."""
    wanted = await append(redis, 1, stream_id="2000-0", op_id="wanted")
    assert await stream.find_op(PARTITION, "wanted", since_ms=2000) == wanted


async def test_trim_is_exact(redis: "Redis", stream: JournalStream) -> None:
    """What SQL has goes, up to the position and not one entry more; the last id is remembered."""
    ids = [await append(redis, n) for n in range(300)]
    await stream.trim({PARTITION: ids[99], "p00": ids[99]})
    assert await stream.length(PARTITION) == 200
    assert [entry.stream_id async for entry in stream.tail(PARTITION, ORIGIN)] == ids[100:]
    await stream.trim({PARTITION: ids[-1]})
    assert await stream.length(PARTITION) == 0
    assert await stream.last_id(PARTITION) == ids[-1]


async def test_position_of_an_empty_partition(stream: JournalStream) -> None:
    """A partition that was never used has the first position of all."""
    assert await stream.last_id(PARTITION) == ORIGIN
    assert await stream.length(PARTITION) == 0


async def test_ids_go_on_after_the_position_of_sql(redis: "Redis", stream: JournalStream) -> None:
    """Where Redis came back older than SQL, new entries get ids after SQL's position, or nobody would read them."""
    ahead = StreamId(await RedisClock().read(redis) + 1_000_000, 5)
    await append(redis, 1)
    await stream.advance(PARTITION, ahead)
    assert await stream.last_id(PARTITION) == ahead
    assert await append(redis, 2) > ahead
    assert await stream.length(PARTITION) == 2
    await stream.advance(PARTITION, StreamId(5, 0))
    assert await stream.last_id(PARTITION) > ahead
    await stream.advance("p00", ahead)
    assert await stream.last_id("p00") == ahead
    assert (await stream.read("p00", ORIGIN)).entries == []


async def test_journal_is_named_once(stream: JournalStream) -> None:
    """A journal keeps the name it was given first; one that has none is another journal. It is there from then on."""
    assert not await stream.are_whole([PARTITION])
    assert await stream.epoch(PARTITION) is None
    assert await stream.begin(PARTITION, "one") == "one"
    assert await stream.begin(PARTITION, "two") == "one"
    assert await stream.epoch(PARTITION) == "one"
    assert await stream.are_whole([PARTITION])
    assert not await stream.are_whole([PARTITION, "p00"])
    assert (await stream.last_id(PARTITION), await stream.length(PARTITION)) == (ORIGIN, 0)


async def test_clock_follows_redis(redis: "Redis") -> None:
    """The time up to which a call may take effect is estimated in Redis's time, however this machine's clock stands."""
    clock = RedisClock()
    before = await clock.read(redis)
    assert before <= clock.now_ms() <= await clock.read(redis) + 1
    clock.correct(5_000_000)
    assert 5_000_000 <= clock.now_ms() < 5_060_000
    assert clock.skew_ms < 0


async def test_two_who_advance_at_once_both_succeed(stream: JournalStream) -> None:
    """Two sidecars that find Redis empty at the same time both start; neither is told that the other was first."""
    goals = [StreamId(1_795_340_847_034, number % 3) for number in range(24)]
    await asyncio.gather(*(stream.advance("p00", goal) for goal in goals))
    assert await stream.last_id("p00") == max(goals)
    assert await stream.length("p00") == 0
