"""`verify` on a timer: every so often the books are proved while the sidecar runs, and /metrics says what was found."""

import asyncio
from contextlib import suppress

from redis.exceptions import RedisError

from creditgate.engine.verify import Verifier
from creditgate.errors import CreditgateError
from creditgate.telemetry import logger
from creditgate.telemetry.metrics import Metrics

FIRST_AFTER_S = 600.0  # unless it is to run more often: where sidecars are restarted daily, too

log = logger(__name__)


class Auditor:
    """Verifies every `every_s` seconds."""

    def __init__(self, verifier: Verifier, metrics: Metrics, *, every_s: float) -> None:
        self._verifier = verifier
        self._metrics = metrics
        self._every_s = every_s

    async def run(self) -> None:
        """Verify until cancelled, which may be at any time: it changes nothing."""
        await asyncio.sleep(min(FIRST_AFTER_S, self._every_s))
        while True:
            with suppress(CreditgateError, RedisError, OSError):
                await self.verify_once()
            await asyncio.sleep(self._every_s)

    async def verify_once(self) -> None:
        """Verify, count the differences and log some of them. Raises what Redis or SQL does."""
        outcome = "failed"
        try:
            proof = await self._verifier.verify()
            outcome = "holds" if proof.holds else "differs"
            self._metrics.verify_differences += proof.differences_count
            for difference in proof.differences:
                log.error("verify_found", difference=difference)
        finally:
            self._metrics.verify_runs[outcome] += 1
            log.info("verified", outcome=outcome)
