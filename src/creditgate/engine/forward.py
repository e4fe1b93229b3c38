"""The sweep: customers for whom something fell due, and who have not asked meanwhile, are stepped forward.

The scheduler only ticks. Each tick takes bounded pages from the due indexes; the step is the one that a call takes when
it finds itself overdue, so a sweep that is late or runs twice changes no answer.
"""

from creditgate.balances.clock import RedisClock
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore
from creditgate.engine.attempts import Attempts
from creditgate.engine.lease import Lease
from creditgate.engine.writer import CustomerWriter
from creditgate.errors import CreditgateError, Undecided
from creditgate.telemetry import logger
from creditgate.telemetry.metrics import Metrics

SWEEP_TICK_S = 1.0
SWEEP_LEASE_MS = 10_000
SWEEP_PAGE = 100  # customers of one partition in one tick; the rest comes with the next

log = logger(__name__)


class Sweep:
    """Steps overdue customers of all partitions forward."""

    def __init__(
        self,
        store: BalanceStore,
        keys: Keys,
        clock: RedisClock,
        attempts: Attempts,
        writer: CustomerWriter,
        lease: Lease,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._attempts = attempts
        self._writer = writer
        self._lease = lease
        self._metrics = metrics or Metrics()

    async def tick(self) -> int:
        """Step at most one page of each partition; returns how many customers were stepped."""
        if not await self._lease.hold():
            return 0
        self._metrics.sweeps += 1
        stepped = 0
        for partition in self._keys.partitions:
            try:
                stepped += await self._sweep(partition)
            except Undecided as error:
                log.warning("sweep_postponed", partition=partition, reason=error.message)
        return stepped

    async def _sweep(self, partition: str) -> int:
        now_ms = self._clock.now_ms()
        customers = await self._attempts.ask(lambda: self._store.due_customers(partition, now_ms, SWEEP_PAGE))
        stepped = 0
        for customer_id in customers:
            try:
                await self._writer.forward(customer_id)
                stepped += 1
            except Undecided:
                raise
            except CreditgateError as error:
                log.error("customer_not_stepped", partition=partition, reason=error.message)
        return stepped
