"""Redis's clock as this process estimates it, to say until when a call may take effect."""

import time

from redis.asyncio import Redis


class RedisClock:
    """Estimates Redis TIME between readings from the monotonic clock. Call `read` before the first use.

    An estimate that is off costs a second attempt (a script answers TOO_LATE with its time, see `correct`), never a
    wrong effect: the script compares with its own time.
    """

    def __init__(self) -> None:
        self._offset_ms = 0.0
        self.skew_ms = 0  # Redis's clock minus this machine's, at the last reading

    async def read(self, redis: "Redis") -> int:
        """Ask Redis for its time; returns it in ms."""
        seconds, micros = await redis.time()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        self.correct(now_ms)
        return now_ms

    def correct(self, now_ms: int) -> None:
        """Take a time that Redis has just told."""
        self._offset_ms = now_ms - time.monotonic() * 1000
        self.skew_ms = int(now_ms - time.time() * 1000)

    def now_ms(self) -> int:
        """Return the estimate of Redis's time in ms."""
        return int(time.monotonic() * 1000 + self._offset_ms)
