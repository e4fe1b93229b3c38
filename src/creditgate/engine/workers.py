"""Who answers calls now, and by which version of the catalog: a heartbeat of each worker, and waiting for all of them.

A change of the catalog is answered when every worker has named its version. Who does not, because it hangs or was
killed, is waited for SEEN_TIMEOUT_S at most, and not at all once its heartbeat is HEARTBEAT_TTL_MS old.
"""

import asyncio
import secrets

from creditgate.balances.clock import RedisClock
from creditgate.balances.store import BalanceStore, Unknown
from creditgate.errors import Unavailable
from creditgate.telemetry import logger

HEARTBEAT_TICK_MS = 500
HEARTBEAT_TTL_MS = 2_000  # four ticks, so that a slow one is no death
SEEN_TIMEOUT_S = 1.0
SEEN_POLL_S = 0.005
FORGET_AFTER_MS = 60_000  # long after the TTL: whoever comes back has announced itself again before

log = logger(__name__)


class Workers:
    """The workers of one environment; this one is `id`."""

    def __init__(self, store: BalanceStore, clock: RedisClock) -> None:
        self._store = store
        self._clock = clock
        self.id = secrets.token_hex(8)

    async def announce(self, version: int) -> None:
        """Say that this worker answers by this version."""
        until_ms = self._clock.now_ms() + HEARTBEAT_TTL_MS
        await self._store.announce(worker=self.id, version=version, until_ms=until_ms)

    async def leave(self) -> None:
        """Say that this worker answers no more, if Redis can be told."""
        try:
            await self._store.forget_workers([self.id])
        except (Unknown, Unavailable):
            return

    async def wait_for(self, version: int) -> None:
        """Return when all other workers answer by this version or a later one; or when the time is over."""
        behind: list[str] = []
        try:
            async with asyncio.timeout(SEEN_TIMEOUT_S) as deadline:
                while behind := await self._behind(version):
                    if deadline.expired():  # its cancellation may have been swallowed, as attempts.py tells
                        raise TimeoutError
                    await asyncio.sleep(SEEN_POLL_S)
        except (Unknown, Unavailable, TimeoutError) as error:
            log.warning("catalog_not_seen_by_all", version=version, behind=behind, reason=repr(error))

    async def _behind(self, version: int) -> list[str]:
        workers, now = await self._store.workers(), self._clock.now_ms()
        gone = [worker for worker, (_, until) in workers.items() if until + FORGET_AFTER_MS < now]
        if gone:
            await self._store.forget_workers(gone)
        return [
            worker
            for worker, (seen, until) in workers.items()
            if worker != self.id and until > now and seen < version
        ]
