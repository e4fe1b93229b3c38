"""Puts the rooms together and runs them: connections, use cases, background work, HTTP. Takes them down in order."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvicorn
from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]
from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.api.app import Api, ApiSettings, create_app
from creditgate.api.fastlane import fast_lane
from creditgate.balances.clock import RedisClock
from creditgate.balances.connection import ServerGuard, guarded_client, plain_client
from creditgate.balances.embedded import EmbeddedValkey
from creditgate.balances.hot_connection import HotConnection
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.catalog_file import CatalogFile
from creditgate.core.journal import SYSTEM_PARTITION
from creditgate.engine import demo
from creditgate.engine.access import Access
from creditgate.engine.aggregates import Aggregates
from creditgate.engine.attempts import Attempts
from creditgate.engine.batch_worker import BATCH_LEASE_MS, BatchWorker
from creditgate.engine.batches import Batches
from creditgate.engine.billing import Billing
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.courier import Courier
from creditgate.engine.customer_list import CustomerList
from creditgate.engine.customers import Customers
from creditgate.engine.destinations import Destinations
from creditgate.engine.endpoints import Endpoints
from creditgate.engine.entities import Entities
from creditgate.engine.flusher import FLUSH_LEASE_MS, Flusher
from creditgate.engine.forward import SWEEP_LEASE_MS, SWEEP_TICK_S, Sweep
from creditgate.engine.history import History
from creditgate.engine.holds import Holds
from creditgate.engine.ids import OpIds
from creditgate.engine.imports import Importer
from creditgate.engine.instance import PARTITIONS, Instance, check_server, make_instance, read_instance
from creditgate.engine.lease import Lease, SoleLease
from creditgate.engine.meter import Meter
from creditgate.engine.rebuild import repartition
from creditgate.engine.reconciler import Reconciler
from creditgate.engine.spans import Spans
from creditgate.engine.statement import Statements
from creditgate.engine.verify import Verifier
from creditgate.engine.webhooks import WEBHOOK_LEASE_MS, WebhookDelivery
from creditgate.engine.workers import Workers
from creditgate.engine.writer import CustomerWriter
from creditgate.errors import CreditgateError, StartupError, Unavailable
from creditgate.ledger.outbox import Backlog
from creditgate.ledger.store import Ledger
from creditgate.listening import listening_sockets
from creditgate.settings import Environment, Settings
from creditgate.telemetry import logger
from creditgate.telemetry.exposition import Readings, Waiting, exposed
from creditgate.telemetry.metrics import Metrics

CLOCK_TICK_S = 10.0
RECONCILE_TICK_S = 1.0  # how long a FLUSHALL under our feet goes unnoticed
GRACEFUL_SHUTDOWN_S = 10  # for requests in flight; each has a deadline far below
KEEP_ALIVE_S = 30
READY_TIMEOUT_S = 0.5
DATA_FILES = ("lock", "ledger.db")  # one of them is in every data directory: of a sidecar, or restored

log = logger(__name__)


class Stores(NamedTuple):
    """Redis and SQL of one environment, opened."""

    redis: "Redis"  # unguarded: for start-up, reconciling and verifying
    ledger: Ledger
    instance: Instance
    keys: Keys


class UseCases(NamedTuple):
    """The engine, put together."""

    meter: Meter
    holds: Holds
    batches: Batches
    customers: Customers
    entities: Entities
    customer_list: CustomerList
    catalogs: Catalogs
    billing: Billing
    access: Access
    history: History
    spans: Spans
    aggregates: Aggregates
    statements: Statements
    endpoints: Endpoints
    webhooks: WebhookDelivery
    flusher: Flusher
    sweep: Sweep
    batch_worker: BatchWorker
    clock: RedisClock
    reconciler: Reconciler
    metrics: Metrics
    importer: Importer


@asynccontextmanager
async def embedded_redis(settings: Settings, *, join: bool = False) -> AsyncIterator[str]:
    """Yield the URL of Redis: the one that was named, else our own server in the data directory, watched and stopped.

    `join`: a server that already runs there is used as it is.
    """
    if settings.redis is not None:
        yield settings.redis
        return
    valkey = EmbeddedValkey(settings.data_dir)
    if join and await _answers(valkey.url):
        yield valkey.url
        return
    url = await valkey.start()
    watching = asyncio.create_task(valkey.watch())
    try:
        yield url
    finally:
        await valkey.stop()
        await watching


@asynccontextmanager
async def open_stores(
    settings: Settings, redis_url: str, *, make: tuple[Environment, int] | None
) -> AsyncIterator[Stores]:
    """Yield Redis and SQL, checked and migrated. `make` says what to decide if there is no data yet."""
    async with AsyncExitStack() as opened:
        redis = await opened.enter_async_context(aclosing(plain_client(redis_url)))
        await check_server(redis)
        if settings.database is None:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        ledger = opened.enter_context(closing(Ledger(settings.database_url)))
        await asyncio.to_thread(ledger.migrate)
        instance = await read_instance(redis, settings.prefix) or await asyncio.to_thread(
            _instance_in_sql, ledger
        )
        if instance is None:
            if make is None:
                raise StartupError("There is no data of creditgate here; `creditgate init` makes it.")
            instance = await make_instance(redis, settings.prefix, *make)
        yield Stores(redis, ledger, instance, Keys(instance.partitions, settings.prefix))


def has_data(settings: Settings) -> bool:
    """Say whether there can be data; False for a directory that was never served and holds nothing restored."""
    return settings.redis is not None or any((settings.data_dir / name).exists() for name in DATA_FILES)


@asynccontextmanager
async def open_data(settings: Settings, *, join: bool = True) -> AsyncIterator[tuple[str, Stores]]:
    """Yield the URL of Redis and the stores of data that is there; `join`: beside a sidecar that runs, else alone.

    Raises StartupError if there is none, Unavailable if Redis does not answer any more.
    """
    if not has_data(settings):
        raise StartupError(
            f"There is no data of creditgate in {settings.data_dir}; `creditgate init` makes it."
        )
    try:
        async with (
            embedded_redis(settings, join=join) as redis_url,
            open_stores(settings, redis_url, make=None) as stores,
        ):
            yield redis_url, stores
    except (RedisError, OSError) as error:
        raise Unavailable(f"Redis does not answer: {error}") from error


@asynccontextmanager
async def open_use_cases(settings: Settings, redis_url: str, stores: Stores) -> AsyncIterator[UseCases]:
    """Yield the engine, with Redis brought up to SQL."""
    guard, clock, op_ids, metrics = ServerGuard(), RedisClock(), OpIds(), Metrics()
    redis, keys, ledger, instance = (
        guarded_client(redis_url, guard),
        stores.keys,
        stores.ledger,
        stores.instance,
    )
    reconciler = Reconciler(stores.redis, keys, clock, ledger, guard)
    destinations = Destinations(allow_private=settings.allow_private_webhooks)
    courier = Courier(destinations)
    hot = HotConnection(redis, guard)
    try:
        await reconciler.run()
        store, stream = BalanceStore(redis, keys, clock, metrics, hot), JournalStream(redis, keys)
        attempts = Attempts(redis, clock, stream, ledger, reconciler)
        catalogs = Catalogs(store, stream, attempts, op_ids, Workers(store, clock))
        writer = CustomerWriter(store, keys, clock, attempts, catalogs, op_ids, metrics)
        await catalogs.refresh()
        customers = Customers(writer, catalogs, clock, instance.environment)
        history = History(keys, stream, ledger)
        billing = Billing(
            writer,
            customers,
            catalogs,
            environment=instance.environment,
            payments=settings.payments,
            signing_secret=instance.signing_secret,
        )
        spans = Spans(writer, catalogs, clock)
        meter = Meter(store, keys, attempts, writer, catalogs, history, op_ids, metrics)
        endpoints = Endpoints(store, attempts, op_ids, clock, destinations)
        webhooks = WebhookDelivery(
            keys,
            clock,
            ledger,
            endpoints,
            courier,
            Lease(store, "webhooks", ttl_ms=WEBHOOK_LEASE_MS),
            metrics,
        )
        batches = Batches(store, stream, ledger, attempts, history, op_ids)
        batch_lease = SoleLease(store, clock, "batches", ttl_ms=BATCH_LEASE_MS)
        yield UseCases(
            meter=meter,
            holds=Holds(store, keys, attempts, writer, catalogs, meter, op_ids, metrics),
            batches=batches,
            customers=customers,
            entities=Entities(writer, customers, catalogs),
            customer_list=CustomerList(keys, stream, ledger, writer),
            catalogs=catalogs,
            billing=billing,
            access=Access(store, attempts, op_ids),
            history=history,
            spans=spans,
            aggregates=Aggregates(history, spans, catalogs, ledger),
            statements=Statements(keys, stream, ledger),
            endpoints=endpoints,
            webhooks=webhooks,
            flusher=Flusher(keys, stream, ledger, Lease(store, "flush", ttl_ms=FLUSH_LEASE_MS), metrics),
            sweep=Sweep(
                store, keys, clock, attempts, writer, Lease(store, "sweep", ttl_ms=SWEEP_LEASE_MS), metrics
            ),
            batch_worker=BatchWorker(keys, clock, batches, meter, history, batch_lease, metrics),
            clock=clock,
            reconciler=reconciler,
            metrics=metrics,
            importer=Importer(writer, catalogs, clock),
        )
    finally:
        await hot.aclose()
        await redis.aclose()


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
async def upkeep(cases: UseCases, redis: "Redis") -> AsyncIterator[None]:
    """Follow the catalog, Redis's clock, and whether Redis still has what SQL has: every process does so for itself."""
    async with cases.catalogs.following():
        with _ticking(
            (lambda: cases.clock.read(redis), CLOCK_TICK_S), (cases.reconciler.watch, RECONCILE_TICK_S)
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


async def serve(
    settings: Settings,
    *,
    catalog: CatalogFile | None = None,
    load_demo: bool = False,
    announce: Callable[[str, Path], None],
) -> None:
    """Run the sidecar until SIGTERM or SIGINT. `announce` is told the base URL and the key file when it answers.

    Raises StartupError, in one sentence, where it cannot start.
    """
    gc.freeze()  # what was imported stays; a full collection that looked through it would hold up calls for 60 ms
    with listening_sockets(settings.host, settings.port, settings.unix_socket) as sockets:
        base_url = f"http://{settings.host}:{sockets[0].getsockname()[1]}"
        async with AsyncExitStack() as open_things:
            redis_url = await open_things.enter_async_context(embedded_redis(settings))
            stores = await open_things.enter_async_context(
                open_stores(settings, redis_url, make=(Environment.TEST, PARTITIONS))
            )
            cases = await open_things.enter_async_context(open_use_cases(settings, redis_url, stores))
            await open_things.enter_async_context(background_work(cases, stores.redis))
            key_file = await _write_first_key(settings, stores.instance, cases)
            if catalog is not None:
                await _apply(catalog, cases)
            if load_demo:
                await demo.load(cases.catalogs, cases.clock.now_ms())
            app = _app(settings, stores, cases)
            server = _Server(
                uvicorn.Config(
                    app,
                    http=fast_lane(app.fast_door, cases.metrics),
                    ws="none",
                    lifespan="off",
                    access_log=False,
                    log_config=None,
                    server_header=False,
                    proxy_headers=False,
                    timeout_keep_alive=KEEP_ALIVE_S,
                    timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
                ),
                lambda: announce(base_url, key_file),
            )
            await server.serve(sockets=sockets)


async def init(settings: Settings, environment: Environment, partitions: int) -> Instance:
    """Make the data; StartupError if it is there already with something else decided."""
    async with (
        embedded_redis(settings, join=True) as redis_url,
        open_stores(settings, redis_url, make=(environment, partitions)) as stores,
    ):
        made = stores.instance
    if (made.environment, made.partitions) != (environment, partitions):
        raise StartupError(
            f"The data was made for environment {made.environment} with {made.partitions} partitions; that is fixed."
        )
    return made


@asynccontextmanager
async def open_verifier(settings: Settings) -> AsyncIterator[Verifier]:
    """Yield a verifier of the data, beside a running sidecar or with nothing running."""
    async with open_data(settings) as (_, stores):
        store = BalanceStore(stores.redis, stores.keys, RedisClock())
        stream = JournalStream(stores.redis, stores.keys)
        yield Verifier(stores.redis, stores.keys, store, stream, stores.ledger)


async def rebuild(
    settings: Settings, progress: Callable[[int], None], *, partitions: int | None = None
) -> int:
    """Put back into Redis what SQL has beyond it; returns how many customers. Nothing happens if it has everything.

    With `partitions`, the data is first moved into so many; then nothing else may work on it.
    """
    async with open_data(settings, join=partitions is None) as (_, stores):
        keys = stores.keys
        if partitions is not None:
            store = BalanceStore(stores.redis, keys, RedisClock())
            keys = await repartition(stores.redis, keys, store, stores.ledger, partitions)
        reconciler = Reconciler(stores.redis, keys, RedisClock(), stores.ledger, ServerGuard(), progress)
        await reconciler.run()
        return reconciler.customers_restored


@asynccontextmanager
async def open_statements(settings: Settings) -> AsyncIterator[Statements]:
    """Yield the statements of the data, beside a running sidecar or with nothing running."""
    async with open_data(settings) as (_, stores):
        yield Statements(stores.keys, JournalStream(stores.redis, stores.keys), stores.ledger)


class _Server(uvicorn.Server):
    """Uvicorn that says when it answers, and that ends by returning: what comes after it is ours to close."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _app(settings: Settings, stores: Stores, cases: UseCases) -> Api:
    async def ready() -> dict[str, str]:
        return {"redis": await _redis_state(stores.redis), "sql": await _sql_state(stores.ledger)}

    async def numbers(accept: str) -> tuple[bytes, str]:
        parts, waiting, backlog = await asyncio.gather(
            ready(), _waiting(stores, cases.clock), _backlog(stores.ledger)
        )
        readings = Readings(parts, cases.catalogs.current.version, waiting, backlog)
        return exposed(cases.metrics, readings, accept)

    return create_app(
        meter=cases.meter,
        holds=cases.holds,
        batches=cases.batches,
        customers=cases.customers,
        entities=cases.entities,
        customer_list=cases.customer_list,
        catalogs=cases.catalogs,
        billing=cases.billing,
        access=cases.access,
        history=cases.history,
        spans=cases.spans,
        aggregates=cases.aggregates,
        statements=cases.statements,
        endpoints=cases.endpoints,
        ready=ready,
        numbers=numbers,
        settings=ApiSettings(
            env=stores.instance.environment.value,
            idempotency=settings.idempotency.value,
            allowed_hosts=settings.allowed_hosts,
            public_url=settings.public_url,
        ),
    )


async def _apply(file: CatalogFile, cases: UseCases) -> None:
    applied = await cases.catalogs.apply(file, now_ms=cases.clock.now_ms())
    for change in applied.changes:
        log.info("catalog_changed", file=file.name, change=str(change))


async def _write_first_key(settings: Settings, instance: Instance, cases: UseCases) -> Path:
    """Make the first API key of new data and keep it in the data directory; returns where."""
    path = settings.data_dir / "secret_key"
    secret = await cases.access.first_key(instance.environment, cases.clock.now_ms())
    if secret is not None:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
    return path


def _instance_in_sql(ledger: Ledger) -> Instance | None:
    """An empty Redis is no new environment as long as SQL has one."""
    documents = ledger.documents(SYSTEM_PARTITION, None)
    text = next((document.text for document in documents if document.type == "settings"), None)
    return msgspec.json.decode(text, type=Instance) if text is not None else None


def _guarded(work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    async def tick() -> None:
        try:
            await work()
        except (CreditgateError, RedisError, OSError) as error:
            log.warning("tick_failed", reason=str(error))

    return tick


async def _answers(url: str) -> bool:
    redis = plain_client(url)
    try:
        return bool(await redis.ping())
    except (RedisError, OSError):
        return False
    finally:
        await redis.aclose()


async def _redis_state(redis: "Redis") -> str:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await redis.ping()
    except (RedisError, OSError, TimeoutError):
        return "does not answer"
    return "ok"


async def _sql_state(ledger: Ledger) -> str:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await asyncio.to_thread(ledger.positions)
    except (CreditgateError, TimeoutError):
        return "does not answer"
    return "ok"


async def _backlog(ledger: Ledger) -> Backlog | None:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            return await asyncio.to_thread(ledger.outbox.backlog)
    except (CreditgateError, TimeoutError):
        return None


async def _waiting(stores: Stores, clock: RedisClock) -> Waiting | None:
    stream = JournalStream(stores.redis, stores.keys)
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            entries, oldest = await stream.waiting((SYSTEM_PARTITION, *stores.keys.partitions))
            batches: int = await stores.redis.hlen(stores.keys.batches())
    except (RedisError, OSError, TimeoutError):
        return None
    return Waiting(entries, max(0, clock.now_ms() - oldest.ms) / 1000 if oldest else 0.0, batches)
