"""Retention: usage that was recorded before a date leaves SQL, and every balance is as it was, and still proven.

It goes on beside a running sidecar. Kept whatever the date: the last RETAINED_MS, with the idempotency records and the
attempts that are still looked up, and all since the oldest batch of usage that is not worked off.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from redis.asyncio import Redis

from creditgate.balances.keys import Keys
from creditgate.engine.reconciler import KEY_TTL_MS
from creditgate.errors import StartupError
from creditgate.ledger.store import Ledger

RETAINED_MS = 2 * KEY_TTL_MS
PAUSE_S = 0.01  # between two steps, for whoever waits to write


class Pruned(NamedTuple):
    """How many items were removed, and from when on the history is complete, in Unix ms (0: it is from the start)."""

    items: int
    begins_at: int


async def prune(
    redis: "Redis",
    keys: Keys,
    ledger: Ledger,
    before_ms: int,
    count: Callable[[int], None],
    *,
    pause_s: float = PAUSE_S,
) -> Pruned:
    """Remove usage that was recorded before an instant; `count` is told how many items are gone.

    Raises StartupError for an instant that is too late, NotProven where the history does not add up, SealBroken where
    it is not what was sealed.
    """
    seconds, micros = await redis.time()
    if before_ms > int(seconds) * 1000 + int(micros) // 1000 - RETAINED_MS:
        raise StartupError("--before: the last two days are always kept.")
    opened = await asyncio.to_thread(ledger.open_batches)
    before_ms = min([before_ms, *(stream_id.ms for stream_id in opened.values())])
    removed = 0
    for partition in keys.partitions:
        begins_at = -1
        while True:
            step = await asyncio.to_thread(ledger.prune_step, partition, before_ms)
            if step.begins_at == begins_at or (step.begins_at >= before_ms and not step.items):
                break
            begins_at, removed = step.begins_at, removed + step.items
            count(removed)
            await asyncio.sleep(pause_s)
    return Pruned(removed, await asyncio.to_thread(ledger.begins_at))
