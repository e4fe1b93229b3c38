"""`prune` on a timer: usage that is older than so many days leaves SQL while the sidecar runs."""

import asyncio
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.balances.keys import Keys
from creditgate.engine.prune import RETAINED_MS, prune
from creditgate.errors import CreditgateError
from creditgate.ledger.store import Ledger
from creditgate.telemetry import logger

FIRST_AFTER_S = 300.0  # where sidecars are restarted daily, too
EVERY_S = 3_600.0
PAUSE_S = (
    0.5  # between two steps: some thousands of items a second, and the database is free most of the time
)
DAY_MS = 86_400_000

log = logger(__name__)


class Retention:
    """Prunes what is older than `keep_days`; the last two days are kept in any case."""

    def __init__(self, redis: "Redis", keys: Keys, ledger: Ledger, *, keep_days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._ledger = ledger
        self._keep_ms = max(keep_days * DAY_MS, RETAINED_MS)

    async def run(self) -> None:
        """Prune until cancelled, which may be at any time: the next run goes on."""
        await asyncio.sleep(FIRST_AFTER_S)
        while True:
            with suppress(CreditgateError, RedisError, OSError):
                await self.prune_once()
            await asyncio.sleep(EVERY_S)

    async def prune_once(self) -> int:
        """Prune what is too old now; returns how many items that were. Raises what Redis or SQL does, and NotProven."""
        seconds, micros = await self._redis.time()
        before_ms = int(seconds) * 1000 + int(micros) // 1000 - self._keep_ms
        try:
            done = await prune(
                self._redis, self._keys, self._ledger, before_ms, lambda _: None, pause_s=PAUSE_S
            )
        except (CreditgateError, RedisError, OSError) as error:
            log.error("prune_failed", reason=str(error))
            raise
        log.info("pruned", items=done.items, history_begins_at=done.begins_at)
        return done.items
