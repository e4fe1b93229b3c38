"""The journal streams: reading by position, looking one entry up, trimming what SQL has."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from creditgate.balances.cluster import server_of
from creditgate.balances.hot_cluster import Hot
from creditgate.balances.keys import Keys
from creditgate.core.journal import ORIGIN, Entry, PoisonEntry, StreamId, decode_entry, page_size

READ_COUNT = 1_000  # messages in one reply: about 250 kB


class Poisoned(NamedTuple):
    """A message that is not an entry: set aside, never lost."""

    partition: str
    stream_id: StreamId
    fields: Mapping[str, str]
    reason: str


class Page(NamedTuple):
    """What one read of one partition brought, and the position after it; `is_full`: there may be more."""

    entries: Sequence[Entry]
    poison: Sequence[Poisoned]
    upto: StreamId
    is_full: bool


class JournalStream:
    """The streams of all partitions. With a hot connection, single entries are read over it, beside the calls."""

    def __init__(self, redis: "Redis", keys: Keys, hot: Hot | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._hot = hot

    async def read(self, partition: str, after: StreamId, *, count: int = READ_COUNT) -> Page:
        """Return the next messages after a position, oldest first; `upto` is `after` when there are none.

        At most `count` of them, and of the system's journal fewer: what is there may be large.
        """
        count = page_size(partition, count)
        messages: Any = await self._redis.xrange(self._keys.journal(partition), f"({after}", count=count)
        return _page_of(partition, messages, after, count)

    async def pages(
        self, after: Mapping[str, StreamId], *, count: int = READ_COUNT, pause_s: float = 0.0
    ) -> tuple[dict[str, Page], Exception | None]:
        """Return the next page of each partition after its position, read in one round trip to each node.

        After each page with entries others have the event loop, and for `pause_s` the processor. A partition that
        cannot be read is left out, and why is returned beside. Raises what redis-py raises where there is one server,
        and it is away.
        """
        counts = {partition: page_size(partition, count) for partition in after}
        async with self._redis.pipeline(transaction=False) as together:
            for partition, position in after.items():
                key = self._keys.journal(partition)
                together.xrange(key, f"({position}", count=counts[partition])
            replies: list[Any] = await together.execute(raise_on_error=False)
        pages, failed = {}, None
        for partition, reply in zip(after, replies, strict=True):
            if isinstance(reply, Exception):
                failed = reply
                continue
            pages[partition] = _page_of(partition, reply, after[partition], counts[partition])
            if pages[partition].entries:
                await asyncio.sleep(pause_s)
        return pages, failed

    async def tail(self, partition: str, after: StreamId) -> AsyncIterator[Entry]:
        """Yield every entry after a position, in pages."""
        position = after
        while True:
            page = await self.read(partition, position)
            for entry in page.entries:
                yield entry
            if page.upto == position:
                return
            position = page.upto

    async def entry(self, partition: str, stream_id: StreamId) -> Entry | None:
        """Return one entry, None if the stream does not have it (any more).

        Over the hot connection it needs no task, and has its answer or an error of redis-py within CALL_WINDOW_MS.
        """
        at, journal = str(stream_id), self._keys.journal(partition)
        if self._hot is None:
            found: Any = await self._redis.xrange(journal, at, at)
        else:
            found = [(name, _pairs(raw)) for name, raw in await self._hot.xrange(journal, at, at)]
        with suppress(PoisonEntry):
            return decode_entry(partition, stream_id, found[0][1]) if found else None
        return None

    async def find_op(self, partition: str, op_id: str, *, since_ms: int) -> StreamId | None:
        """Return where the call with this op id stands among the entries since a time, None if nowhere."""
        async for entry in self.tail(partition, _before(since_ms)):
            if any(item.call and item.call.op_id == op_id for item in entry.items):
                return entry.stream_id
        return None

    async def find_ops(self, partition: str, prefix: str, *, since_ms: int) -> set[str]:
        """Return every op id that begins so, of calls in the entries since a time."""
        return {
            item.call.op_id
            async for entry in self.tail(partition, _before(since_ms))
            for item in entry.items
            if item.call and item.call.op_id.startswith(prefix)
        }

    async def trim(self, upto: Mapping[str, StreamId]) -> None:
        """Delete every message of each partition up to and including its position, in one round trip.

        Exact, never an estimate. Raises what redis-py raises, once all were tried whose node answers.
        """
        async with self._redis.pipeline(transaction=False) as together:
            for partition, (ms, counter) in upto.items():
                after = StreamId(ms, counter + 1)
                together.xtrim(self._keys.journal(partition), minid=str(after), approximate=False)
            await together.execute()

    async def wait(self, partition: str, after: StreamId, *, timeout_ms: int) -> None:
        """Return once there is a message after a position, or when the time is over."""
        await self._redis.xread({self._keys.journal(partition): str(after)}, count=1, block=timeout_ms)

    async def length(self, partition: str) -> int:
        length: int = await self._redis.xlen(self._keys.journal(partition))
        return length

    async def is_whole(self, partition: str) -> bool:
        """Say whether the stream, which is there, still has every message that ever came into it."""
        info = await self._redis.xinfo_stream(self._keys.journal(partition))
        return bool(info["length"] == info["entries-added"])

    async def waiting(self, partitions: Sequence[str]) -> tuple[int, StreamId | None]:
        """Return how many messages these partitions' streams hold, and the id of the oldest, in one round trip."""
        async with self._redis.pipeline(transaction=False) as together:
            for partition in partitions:
                together.xlen(self._keys.journal(partition))
                together.xrange(self._keys.journal(partition), count=1)
            replies: list[Any] = await together.execute()
        firsts = [StreamId.parse(_text(found[0][0])) for found in replies[1::2] if found]
        return sum(replies[0::2]), min(firsts, default=None)

    async def last_id(self, partition: str) -> StreamId:
        """Return the last id that the stream ever gave; trimming does not lower it. ORIGIN if there is no stream."""
        return await last_id(self._redis, self._keys.journal(partition))

    async def epoch(self, partition: str) -> str | None:
        raw = await self._redis.get(self._keys.epoch(partition))
        return _text(raw) if raw is not None else None

    async def epochs(self, partitions: Sequence[str]) -> dict[str, str]:
        """Return the names of the partitions' journals, in one round trip; one without a journal is left out."""
        async with self._redis.pipeline(transaction=False) as together:
            for partition in partitions:
                together.get(self._keys.epoch(partition))
            names = await together.execute()
        return {p: _text(name) for p, name in zip(partitions, names, strict=True) if name is not None}

    async def are_whole(self, partitions: Sequence[str]) -> bool:
        """Say whether every one of these journals is there and has its name, in one round trip.

        Those on a node that is away are left out; raises what redis-py raises if nobody answers.
        """
        async with self._redis.pipeline(transaction=False) as together:
            for partition in partitions:
                together.exists(self._keys.journal(partition))
                together.exists(self._keys.epoch(partition))
            replies: list[Any] = await together.execute(raise_on_error=False)
        failed = [reply for reply in replies if isinstance(reply, Exception)]
        if len(failed) == len(replies):
            raise failed[0]
        return 0 not in replies

    async def now_ms(self, partition: str) -> int:
        """Return the time of the server that holds the partition, in ms."""
        seconds, micros = await server_of(self._redis, self._keys.journal(partition)).time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def make(self, partition: str) -> None:
        """Make the partition's journal if it is not there, with nothing in it."""
        key = self._keys.journal(partition)
        if await self._redis.exists(key):
            return
        async with self._redis.pipeline(transaction=True) as together:
            together.xgroup_create(key, "made", mkstream=True)  # the one way to an empty stream
            together.xgroup_destroy(key, "made")
            await together.execute()

    async def begin(self, partition: str, epoch: str) -> str:
        """Make the partition's journal and name it, unless it has a name; returns the name that it has.

        Nothing is written to a partition whose journal was not made.
        """
        await self.make(partition)
        await self._redis.set(self._keys.epoch(partition), epoch, nx=True)
        return await self.epoch(partition) or epoch

    async def rename(self, partition: str, epoch: str) -> None:
        """Give the partition's journal this name, whatever name it had."""
        await self._redis.set(self._keys.epoch(partition), epoch)

    async def advance(self, partition: str, stream_id: StreamId) -> None:
        """Make the stream give ids after this one only; nothing happens if it does already, by whomever."""
        if await self.last_id(partition) >= stream_id:
            return
        key = self._keys.journal(partition)
        try:
            async with self._redis.pipeline(transaction=True) as together:
                together.xadd(key, {"seed": "1"}, id=str(stream_id))
                together.xdel(key, str(stream_id))
                await together.execute()
        except ResponseError:  # the id is too small by now: another process was first
            if await self.last_id(partition) < stream_id:
                raise


def _page_of(partition: str, messages: Sequence[Any], after: StreamId, count: int) -> Page:
    """Read a reply of at most `count` messages after a position."""
    entries: list[Entry] = []
    poison: list[Poisoned] = []
    upto = after
    for raw_id, fields in messages:
        upto = StreamId.parse(raw_id.decode())
        try:
            entries.append(decode_entry(partition, upto, fields))
        except PoisonEntry as error:
            told = {_told(name): _told(value) for name, value in fields.items()}
            poison.append(Poisoned(partition, upto, told, error.message))
    return Page(entries, poison, upto, is_full=len(messages) == count)


def _pairs(raw: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of a message, which Redis sends as one list."""
    return dict(zip(raw[::2], raw[1::2], strict=True))


def _before(ms: int) -> StreamId:
    """Return a position before every entry of this millisecond."""
    return StreamId(ms - 1, 2**63) if ms else ORIGIN


async def last_id(redis: "Redis", journal: str) -> StreamId:
    """Return the last id that the stream under this key ever gave, ORIGIN if there is none."""
    if not await redis.exists(journal):
        return ORIGIN
    info: dict[str, Any] = await redis.xinfo_stream(journal)
    return StreamId.parse(_text(info["last-generated-id"]))


def _told(raw: bytes) -> str:
    """Return what a poison has, which need not be UTF-8."""
    return raw.decode("utf-8", "backslashreplace")


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw
