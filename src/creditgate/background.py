"""What runs beside the calls: the journal is flushed, what is due is swept, batches and webhooks are worked off."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]
from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.engine.access import FOLLOW_TICK_S
from creditgate.engine.auditor import Auditor
from creditgate.engine.forward import SWEEP_TICK_S
from creditgate.engine.retention import Retention
from creditgate.errors import CreditgateError
from creditgate.openings import Stores, UseCases, verifier_of
from creditgate.settings import Settings
from creditgate.telemetry import logger

CLOCK_TICK_S = 10.0
RECONCILE_TICK_S = 1.0  # how long a restart or a FLUSHALL under our feet goes unnoticed

SECONDS_OF_AN_HOUR = 3600

log = logger(__name__)


@asynccontextmanager
async def background_work(cases: UseCases, redis: "Redis") -> AsyncIterator[None]:
    """Flush, sweep, work off batches and deliver webhooks until the end, beside `upkeep`; then flush what is left.

    One process does this for all at a time, by leases.
    """
    async with upkeep(cases, redis):
        with _ticking((cases.sweep.tick, SWEEP_TICK_S)):
            flushing = asyncio.create_task(cases.flusher.run())
            delivering = asyncio.create_task(cases.webhooks.run())
            working = asyncio.create_task(cases.batch_worker.run())
            try:
                yield
            finally:
                cases.webhooks.stop()
                cases.batch_worker.stop()
                await working
                cases.flusher.stop()
                await asyncio.gather(flushing, delivering)


@asynccontextmanager
async def posting(cases: UseCases) -> AsyncIterator[None]:
    """Post what was spooled in the data directory, until the end. What is left is posted at the next start."""
    working = asyncio.create_task(cases.spool_poster.run())
    try:
        yield
    finally:
        cases.spool_poster.stop()
        await working


@asynccontextmanager
async def auditing(settings: Settings, stores: Stores, cases: UseCases) -> AsyncIterator[None]:
    """Verify on a timer. Not where the same process answers calls: it would hold them up."""
    if settings.verify_every_hours == 0:
        yield
        return
    every_s = settings.verify_every_hours * SECONDS_OF_AN_HOUR
    async with _until_the_end(Auditor(verifier_of(stores), cases.metrics, every_s=every_s).run()):
        yield


@asynccontextmanager
async def retaining(settings: Settings, stores: Stores) -> AsyncIterator[None]:
    """Prune on a timer, if there is an age at which usage goes."""
    if settings.keep_history_days == 0:
        yield
        return
    retention = Retention(stores.redis, stores.keys, stores.ledger, keep_days=settings.keep_history_days)
    async with _until_the_end(retention.run()):
        yield


@asynccontextmanager
async def _until_the_end(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let work that never ends go on beside, and cancel it."""
    working = asyncio.create_task(work)
    try:
        yield
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


@asynccontextmanager
async def upkeep(cases: UseCases, redis: "Redis") -> AsyncIterator[None]:
    """Follow the catalog, the API keys, Redis's clock, and whether Redis still has what SQL has.

    Every process does so for itself.
    """
    async with cases.catalogs.following():
        with _ticking(
            (lambda: cases.clock.read(redis), CLOCK_TICK_S),
            (cases.reconciler.follow, RECONCILE_TICK_S),
            (cases.access.follow, FOLLOW_TICK_S),
        ):
            yield


@contextlib.contextmanager
def _ticking(*jobs: tuple[Callable[[], Awaitable[object]], float]) -> Iterator[None]:
    """Do each job every so many seconds, one run of it at a time."""
    scheduler = AsyncIOScheduler(
        timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    )
    for work, tick_s in jobs:
        scheduler.add_job(_guarded(work), "interval", seconds=tick_s)
    scheduler.start()
    try:
        yield
    finally:
        scheduler.shutdown(wait=False)


def _guarded(work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    async def tick() -> None:
        try:
            await work()
        except (CreditgateError, RedisError, OSError) as error:
            log.warning("tick_failed", reason=str(error))
        except asyncio.CancelledError:
            return  # the end has come; the scheduler would log this as an error

    return tick
