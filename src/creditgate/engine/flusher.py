"""The flusher: what the streams hold goes to SQL, exactly once, and only then leaves the streams.

One process at a time flushes, by lease; correctness rests on the position that moves with the rows, so one that lost
its lease without noticing commits nothing. Killed anywhere, it goes on from the committed position.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
from redis.exceptions import RedisError

from creditgate.balances.keys import Keys
from creditgate.balances.stream import JournalStream, Page
from creditgate.core.journal import SYSTEM_PARTITION, Entry
from creditgate.engine.lease import Lease
from creditgate.errors import CreditgateError
from creditgate.ledger.appending import Batch, Poison
from creditgate.ledger.database import EntriesRefused
from creditgate.ledger.positions import Position, PositionMoved
from creditgate.ledger.seals import JournalSealed
from creditgate.ledger.store import Ledger
from creditgate.telemetry import logger
from creditgate.telemetry.metrics import Metrics

BATCH_ENTRIES = 500  # of one partition in one transaction; with 9 partitions, well under a second of SQLite
FLUSH_TICK_S = 0.1  # how long the last entry of a quiet stream waits
FLUSH_LEASE_MS = 5_000
RETRY_WAIT_S = 1.0  # after SQL or Redis refused
SEALED_WAIT_S = 10.0  # without the key of a sealed journal; others ask for the lease each second
# While it keeps up: the thread that writes to SQL has a tenth of a processor where others want all of it, and it sleeps
# between two pieces of work, since the kernel may let it go on for 4 ms before it looks who else is there.
NICENESS = 10
PAUSE_S = 0.0006
READ_PAUSE_S = 0.001  # the least that uvloop sleeps
DRAIN_ROUNDS_MAX = 1_000  # batches flushed at shutdown before we leave the rest to the next start

log = logger(__name__)


class Flusher:
    """Moves the journal of all partitions from Redis to SQL."""

    def __init__(
        self,
        keys: Keys,
        stream: JournalStream,
        ledger: Ledger,
        lease: Lease,
        metrics: Metrics | None = None,
        *,
        gives_way: bool = False,
    ) -> None:
        """`gives_way`: while it keeps up, other processes go before it. Not where it is in the process that answers
        calls: its threads share one lock, so calls would wait for it as long as it waits for others.
        """
        self._partitions = (SYSTEM_PARTITION, *keys.partitions)
        self._stream = stream
        self._ledger = ledger
        self._lease = lease
        self._metrics = metrics or Metrics()
        self._aside = ThreadPoolExecutor(1, "flush", initializer=_give_way) if gives_way else None
        self._positions: dict[str, Position] | None = None
        self._is_behind = False
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Flush until `stop`, then once more until the streams are empty, whoever has the lease: it may be of one who
        was killed, and the position guards.
        """
        while not self._stopping.is_set():
            wait_s = await self._round()
            if wait_s:
                await self._sleep(wait_s)
        for _ in range(DRAIN_ROUNDS_MAX):
            if await self._round(needs_lease=False):
                break
        await self._lease.release()

    def stop(self) -> None:
        """Ask `run` to finish."""
        self._stopping.set()

    async def flush_once(self) -> int:
        """Move one batch of every partition; returns the number of entries. Raises what SQL or Redis raises."""
        is_remembered = self._positions is not None
        try:
            return await self._flush()
        except PositionMoved:
            if not is_remembered:
                raise
            return await self._flush()  # from where they are now: the reconciler has put a fence there

    async def _flush(self) -> int:
        if self._positions is None:
            found = await asyncio.to_thread(self._ledger.positions)
            for partition, at in (await asyncio.to_thread(self._ledger.begin_seals)).items():
                log.warning("seals_begin", partition=partition, at=str(at))
            self._positions = found
        positions = self._positions
        after = {p: positions[p].stream_id for p in self._partitions if p in positions}
        # One on a node that is away does not keep the others from SQL.
        pause_s = READ_PAUSE_S if self._gives_way else 0.0
        pages, failed = await self._stream.pages(after, count=BATCH_ENTRIES, pause_s=pause_s)
        new = [(positions[p], page) for p, page in pages.items() if page.upto > after[p]]
        self._is_behind = any(page.is_full for _, page in new)
        batches = [_batch(position, page) for position, page in new]
        if batches:
            await self._move(batches)
            self._positions = positions | {batch.partition: _position_after(batch) for batch in batches}
        if failed is not None:
            raise failed
        return sum(len(batch.entries) + len(batch.poison) for batch in batches)

    @property
    def _gives_way(self) -> bool:
        return self._aside is not None and not self._is_behind

    async def _move(self, batches: Sequence[Batch]) -> None:
        executor = self._aside if self._gives_way else None
        try:
            await asyncio.get_running_loop().run_in_executor(executor, self._append, batches)
        finally:
            self._positions = None  # a commit whose answer was lost may have moved them
        for batch in batches:
            self._metrics.flushed(batch.entries, batch.poison)
        await self._stream.trim({batch.partition: batch.upto for batch in batches})

    def _append(self, batches: Sequence[Batch]) -> None:
        try:
            self._ledger.append(batches, pause=_pause if self._gives_way else None)
        except EntriesRefused:
            for batch in batches:
                self._append_one_by_one(batch)

    def _append_one_by_one(self, batch: Batch) -> None:
        """Store every entry that the database takes; set the others aside, so that they stop nobody else's history."""
        after = batch.after
        messages: list[Entry | Poison] = [*batch.entries, *batch.poison]
        for found in sorted(messages, key=lambda message: message.stream_id):
            one = msgspec.structs.replace(batch, after=after, upto=found.stream_id, entries=(), poison=())
            if isinstance(found, Poison):
                self._ledger.append([msgspec.structs.replace(one, poison=(found,))])
            else:
                try:
                    self._ledger.append([msgspec.structs.replace(one, entries=(found,))])
                except EntriesRefused as error:
                    poison = Poison(found.stream_id, {"entry": repr(found)}, error.message)
                    self._ledger.append([msgspec.structs.replace(one, poison=(poison,))])
                    self._metrics.poison += 1
            after = found.stream_id
        self._ledger.append([msgspec.structs.replace(batch, after=after, entries=(), poison=())])

    async def _round(self, *, needs_lease: bool = True) -> float:
        """Flush once if the lease is ours; returns how long to wait before the next time."""
        if not await self._lease.hold():
            self._positions = None
            if needs_lease:
                return RETRY_WAIT_S
        try:
            await self.flush_once()
        except PositionMoved as error:
            log.warning("flushed_by_another", partitions=error.partitions)
            return RETRY_WAIT_S
        except JournalSealed as error:
            log.error("flush_failed", reason=error.message)
            self._metrics.flush_failures += 1
            await self._lease.release()  # so that a process flushes which has the key
            return SEALED_WAIT_S
        except (CreditgateError, RedisError, OSError) as error:
            log.error("flush_failed", reason=str(error))
            self._metrics.flush_failures += 1
            return RETRY_WAIT_S
        return 0.0 if self._is_behind else FLUSH_TICK_S

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _give_way() -> None:
    """Let others go first where processors are short: for good, and, on Linux alone, for this thread alone."""
    if sys.platform == "linux":
        os.nice(NICENESS)


def _pause() -> None:
    time.sleep(PAUSE_S)


def _batch(position: Position, page: Page) -> Batch:
    return Batch(
        partition=position.partition,
        epoch=position.epoch,
        after=position.stream_id,
        upto=page.upto,
        entries=page.entries,
        poison=[Poison(poisoned.stream_id, poisoned.fields, poisoned.reason) for poisoned in page.poison],
    )


def _position_after(batch: Batch) -> Position:
    return Position(batch.partition, batch.epoch, batch.upto)
