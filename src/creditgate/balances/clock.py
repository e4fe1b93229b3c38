"""Redis's clock as this process estimates it, to say until when a call may take effect.

Scripts compare with the clock of the server that runs them. The nodes of a cluster have one each; the estimate is that
of the node that is furthest ahead, so that no node finds a call to be too late before it is. On the others a call may
take effect for a little longer, by what the clocks differ: who waits until a call cannot take effect any more asks the
node that it went to (`JournalStream.now_ms`).
"""

import time
from typing import NamedTuple

from redis.asyncio import Redis

from creditgate.balances.cluster import ClusterClient, answers_of

CLOCKS_APART_MAX_MS = 1_000  # of the nodes of a cluster; with NTP it is a few


class _Reading(NamedTuple):
    """What a server told between two instants of our monotonic clock, all in ms."""

    asked_at: float
    told: float
    answered_at: float


class RedisClock:
    """Estimates Redis TIME between readings from the monotonic clock. Call `read` before the first use.

    An estimate that is off costs a second attempt (a script answers TOO_LATE with its time, see `correct`), never a
    wrong effect: the script compares with its own time.
    """

    def __init__(self) -> None:
        self._offset_ms = 0.0
        self.skew_ms = 0  # Redis's clock minus this machine's, at the last reading
        self.apart_ms = 0  # what the clocks of a cluster's nodes differ by at least, at the last reading
        self.apart_max_ms = 0  # what they are allowed to differ by: nothing, if there is one server

    async def read(self, redis: "Redis") -> int:
        """Ask Redis for its time; returns it in ms. Nodes that are away are left out."""
        readings = list((await answers_of(redis, _read)).values())
        soonest = max(reading.told - reading.answered_at for reading in readings)
        latest = min(reading.told - reading.asked_at for reading in readings)
        self.apart_ms = max(0, int(soonest - latest))
        self.apart_max_ms = CLOCKS_APART_MAX_MS if isinstance(redis, ClusterClient) else 0
        now_ms = int(time.monotonic() * 1000 + soonest)
        self.correct(now_ms)
        return now_ms

    def correct(self, now_ms: int) -> None:
        """Take a time that Redis has just told."""
        self._offset_ms = now_ms - time.monotonic() * 1000
        self.skew_ms = int(now_ms - time.time() * 1000)

    def now_ms(self) -> int:
        """Return the estimate of Redis's time in ms."""
        return int(time.monotonic() * 1000 + self._offset_ms)


async def _read(server: "Redis") -> _Reading:
    asked_at = time.monotonic() * 1000
    seconds, micros = await server.time()
    return _Reading(asked_at, int(seconds) * 1000 + int(micros) // 1000, time.monotonic() * 1000)
