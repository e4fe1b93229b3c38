"""Bringing into SQL what the streams hold, for those who want to copy it: beside a running sidecar, or alone.

A sidecar that runs has the flush lease and does the work. Where none runs, a flusher of ours does.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from creditgate.balances.keys import Keys
from creditgate.balances.stream import JournalStream
from creditgate.core.journal import SYSTEM_PARTITION, StreamId
from creditgate.engine.flusher import FLUSH_LEASE_MS, Flusher
from creditgate.engine.lease import Lease
from creditgate.errors import StartupError, Unavailable
from creditgate.ledger.store import Ledger

QUIET_S = 2.5  # a sidecar that runs asks for the flush lease each second, and renews it sooner
STALLED_S_MAX = 30.0  # how long SQL may stand still: a flush that failed is tried again each second
POLL_S = 0.05


@asynccontextmanager
async def flushing(flusher: Flusher) -> AsyncIterator[None]:
    """Let a flusher stand by, which works while nobody else does; it empties the streams once more at the end."""
    working = asyncio.create_task(flusher.run())
    try:
        yield
    finally:
        flusher.stop()
        await working


async def check_alone(*leases: Lease) -> None:
    """Raise StartupError unless these flush leases stay free for as long as a sidecar would leave one.

    A sidecar that was killed a moment ago still has its lease for a few seconds.
    """
    began = free_since = time.monotonic()
    while time.monotonic() - free_since < QUIET_S:
        if not all([await lease.is_free() for lease in leases]):
            free_since = time.monotonic()
            if free_since - began > FLUSH_LEASE_MS / 1000 + QUIET_S:
                raise StartupError("A sidecar is working on this data; stop it first.")
        await asyncio.sleep(POLL_S)


async def drained(keys: Keys, stream: JournalStream, ledger: Ledger) -> None:
    """Return when SQL has everything that the streams hold now, however much is added meanwhile.

    Raises Unavailable if nobody flushes: when SQL stands still for STALLED_S_MAX.
    """
    wanted = await last_ids(keys, stream)
    reached: dict[str, StreamId] = {}
    since = time.monotonic()
    while True:
        positions = await asyncio.to_thread(ledger.positions)
        found = {partition: position.stream_id for partition, position in positions.items()}
        if all(partition in found and found[partition] >= last for partition, last in wanted.items()):
            return
        if found != reached:
            reached, since = found, time.monotonic()
        elif time.monotonic() - since > STALLED_S_MAX:
            raise Unavailable("The journal does not get from Redis to SQL; the sidecar's log says why.")
        await asyncio.sleep(POLL_S)


async def last_ids(keys: Keys, stream: JournalStream) -> dict[str, StreamId]:
    """Return where the stream of each partition ends; raises Unavailable if Redis does not answer."""
    try:
        return {
            partition: await stream.last_id(partition) for partition in (SYSTEM_PARTITION, *keys.partitions)
        }
    except (RedisError, OSError) as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
