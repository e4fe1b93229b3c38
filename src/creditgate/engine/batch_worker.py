"""Works off the batches of usage: one process at a time, the oldest batch first, each item exactly once.

Item i of batch b is a `track` with the op id `b.i`. The lease keeps two processes from sending at the same time, so
whoever takes over looks the op ids up in the journal and sends only what is not there. The items of one customer go in
their order; one that cannot be decided now holds up that customer's only.
"""

import asyncio
from collections import Counter, deque

import msgspec

from creditgate.balances.clock import RedisClock
from creditgate.balances.keys import Keys
from creditgate.core.journal import StreamId
from creditgate.engine.attempts import SET_BACK_MAX_MS
from creditgate.engine.batches import Batches, Failure, Report
from creditgate.engine.history import History
from creditgate.engine.lease import LeaseOver, SoleLease
from creditgate.engine.meter import Meter, refusal
from creditgate.engine.usage import Usage
from creditgate.errors import CreditgateError, Unavailable, Undecided
from creditgate.telemetry import logger
from creditgate.telemetry.metrics import Metrics

BATCH_LEASE_MS = 3_000  # also what a start waits before its first batch, see `SoleLease.is_alone`
POLL_S = 0.1  # how long a new batch waits for us to look
STANDBY_S = 1.0  # between two tries to get the lease
RETRY_MS = 500  # after a round that left items undecided, doubled each time
RETRY_MAX_MS = 60_000
CUSTOMERS_AT_ONCE = 16  # enough to share the server's syncs to disk, few enough to leave it to those who wait
CRASHES_MAX = 3  # of one item, from bugs of ours, before it counts as failed

log = logger(__name__)


class Work:
    """One batch that this process works on: the items that are not decided yet, and why others failed."""

    def __init__(self, batch_id: str, stream_id: StreamId, *, was_begun: bool) -> None:
        self.batch_id = batch_id
        self.stream_id = stream_id
        self.items = 0
        self.waiting: dict[int, Usage] | None = None  # None until it is read
        self.failures: dict[int, Failure] = {}
        self.crashes: Counter[int] = Counter()
        self.look_up_since = stream_id.ms if was_begun else None
        """From when on, in ms of Redis's time, an item may have taken effect without our knowing; None: never."""
        self.rounds = 0
        self.not_before = 0

    def op_id(self, index: int) -> str:
        return f"{self.batch_id}.{index}"

    def by_customer(self) -> deque[list[int]]:
        """Return the items that wait, those of one customer together and in their order."""
        found: dict[str, list[int]] = {}
        for index, usage in (self.waiting or {}).items():
            found.setdefault(usage.customer_id, []).append(index)
        return deque(found.values())

    def decided(self, index: int, error: CreditgateError | None = None) -> None:
        """Strike an item off; `error` says why it took nothing."""
        assert self.waiting is not None
        usage = self.waiting.pop(index)
        if error is not None:
            self.failures[index] = Failure(index, usage.customer_id, error.code, error.message)

    def doubt(self, since_ms: int) -> None:
        """Remember that what was sent since then may have taken effect."""
        self.look_up_since = min(since_ms, self.look_up_since or since_ms)

    def put_off(self, now_ms: int) -> None:
        """Try it again later, each time after longer."""
        self.rounds += 1
        self.not_before = now_ms + min(RETRY_MS << min(self.rounds, 10), RETRY_MAX_MS)

    def report(self) -> Report:
        return Report(self.items, tuple(self.failures[index] for index in sorted(self.failures)))


class BatchWorker:
    """Works off the batches of all sidecars on the same data."""

    def __init__(
        self,
        keys: Keys,
        clock: RedisClock,
        batches: Batches,
        meter: Meter,
        history: History,
        lease: SoleLease,
        metrics: Metrics | None = None,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._batches = batches
        self._meter = meter
        self._history = history
        self._lease = lease
        self._metrics = metrics or Metrics()
        self._works: dict[str, Work] = {}
        self._known_since: int | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop`; what is under way then is finished by the next who starts."""
        while not self._stopping.is_set():
            wait_s = await self.round()
            try:
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        await self._lease.release()

    def stop(self) -> None:
        """Ask `run` to finish."""
        self._stopping.set()

    async def round(self) -> float:
        """Work on every open batch once if the lease is ours; returns how long to wait before the next time."""
        if not await self._lease.hold():
            return STANDBY_S
        if not self._lease.is_alone:
            return POLL_S
        try:
            await self._take_stock()
            for work in list(self._works.values()):
                if work.not_before <= self._clock.now_ms() and not self._stopping.is_set():
                    await self._work_on(work)
        except LeaseOver as error:
            log.warning("batches_interrupted", reason=error.message)
        except (
            Exception
        ) as error:  # whatever it was, the batches are still there, and the next round finds them
            log.error("batches_postponed", exc_info=error)
            return STANDBY_S
        return POLL_S

    async def _take_stock(self) -> None:
        """Know every open batch. What was open when we took over may have been begun; what came later was not."""
        is_new_here = self._known_since != self._lease.taken_at
        if is_new_here:
            self._works.clear()
        waiting = await self._batches.waiting()
        self._works = {
            batch_id: self._works.get(batch_id) or Work(batch_id, stream_id, was_begun=is_new_here)
            for batch_id, stream_id in waiting.items()
        }
        self._known_since = self._lease.taken_at

    async def _work_on(self, work: Work) -> None:
        begun_ms = self._clock.now_ms()
        if not await self._make_ready(work):
            return
        customers = work.by_customer()
        tasks = (self._apply_all(work, customers) for _ in range(CUSTOMERS_AT_ONCE))
        errors = [found for found in await asyncio.gather(*tasks, return_exceptions=True) if found]
        if work.waiting:
            work.doubt(begun_ms)
            work.put_off(self._clock.now_ms())
        else:
            await self._close(work)
        if errors:
            raise errors[0]

    async def _make_ready(self, work: Work) -> bool:
        """Read the items, and strike off those that took effect before; False if they cannot be read."""
        if work.waiting is None:
            try:
                _, usages = await self._batches.read(work.stream_id)
            except (Unavailable, msgspec.DecodeError) as error:  # `verify` says so, and the others go on
                log.error("batch_unreadable", batch=work.batch_id, reason=str(error))
                work.put_off(self._clock.now_ms())
                return False
            work.items, work.waiting = len(usages), dict(enumerate(usages))
        if work.look_up_since is not None:
            found = await self._ops_of(work, since_ms=work.look_up_since - SET_BACK_MAX_MS)
            for index in [index for index in work.waiting if work.op_id(index) in found]:
                work.decided(index)
            work.look_up_since = None
        return True

    async def _ops_of(self, work: Work, *, since_ms: int) -> set[str]:
        assert work.waiting is not None
        partitions = {self._keys.partition_of(usage.customer_id) for usage in work.waiting.values()}
        found: set[str] = set()
        for partition in partitions:
            found |= await self._history.ops(partition, f"{work.batch_id}.", since_ms=since_ms)
        return found

    async def _close(self, work: Work) -> None:
        await self._batches.close(work.batch_id, work.report())
        del self._works[work.batch_id]
        self._metrics.batches_closed += 1
        if work.failures:
            log.warning("batch_items_failed", batch=work.batch_id, failed=len(work.failures))

    async def _apply_all(self, work: Work, customers: deque[list[int]]) -> None:
        while customers and not self._stopping.is_set():
            await self._apply_in_order(work, customers.popleft())

    async def _apply_in_order(self, work: Work, indexes: list[int]) -> None:
        for index in indexes:
            if self._stopping.is_set():
                return
            await self._lease.keep()
            try:
                await self._apply(work, index)
            except (Undecided, Unavailable) as error:
                log.warning("batch_item_postponed", batch=work.batch_id, index=index, reason=error.message)
                return

    async def _apply(self, work: Work, index: int) -> None:
        """Take what one item asks for, or note why it never will be; raises what may be otherwise later."""
        assert work.waiting is not None
        usage = work.waiting[index]
        failure: CreditgateError | None
        try:
            decision = await self._meter.track(usage, op_id=work.op_id(index), within=self._lease.within)
            failure = None if decision.allowed else refusal(decision, usage)
        except (LeaseOver, Undecided, Unavailable):
            raise
        except CreditgateError as error:
            failure = error
        except Exception as error:
            failure = self._crashed(work, index, error)
        work.decided(index, failure)
        self._metrics.batch_items["failed" if failure else "applied"] += 1

    def _crashed(self, work: Work, index: int, error: Exception) -> CreditgateError:
        """Return what to note of an item at which a bug of ours strikes each time; until then, raise Undecided.

        Whether it struck before or after the effect, the journal knows.
        """
        log.error("batch_item_crashed", batch=work.batch_id, index=index, exc_info=error)
        work.crashes[index] += 1
        if work.crashes[index] < CRASHES_MAX:
            raise Undecided("Something went wrong inside creditgate")
        return CreditgateError("Something went wrong inside creditgate")
