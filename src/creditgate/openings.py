"""Opens what a process works with, and closes it again in order: Redis and SQL, and the use cases upon them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.balances.clock import RedisClock
from creditgate.balances.cluster import connect, guarded
from creditgate.balances.connection import ServerGuard, plain_client
from creditgate.balances.embedded import EmbeddedValkey
from creditgate.balances.hot_cluster import hot_path
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.journal import SYSTEM_PARTITION
from creditgate.engine.access import Access
from creditgate.engine.aggregates import Aggregates
from creditgate.engine.attempts import Attempts
from creditgate.engine.batch_worker import BATCH_LEASE_MS, BatchWorker
from creditgate.engine.batches import Batches
from creditgate.engine.billing import Billing
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.courier import Courier
from creditgate.engine.customer_list import CustomerList
from creditgate.engine.customer_tokens import CustomerTokens
from creditgate.engine.customers import Customers
from creditgate.engine.destinations import Destinations
from creditgate.engine.endpoints import Endpoints
from creditgate.engine.entities import Entities
from creditgate.engine.flusher import FLUSH_LEASE_MS, Flusher
from creditgate.engine.forward import SWEEP_LEASE_MS, Sweep
from creditgate.engine.history import History
from creditgate.engine.holds import Holds
from creditgate.engine.ids import OpIds
from creditgate.engine.imports import Importer
from creditgate.engine.instance import Instance, check_server, make_instance, read_instance
from creditgate.engine.lease import Lease, SoleLease
from creditgate.engine.meter import Meter
from creditgate.engine.outage import Outage
from creditgate.engine.reconciler import Reconciler
from creditgate.engine.spans import Spans
from creditgate.engine.spool import Spool
from creditgate.engine.spool_poster import SpoolPoster
from creditgate.engine.statement import Statements
from creditgate.engine.verify import Verifier
from creditgate.engine.webhooks import WEBHOOK_LEASE_MS, WebhookDelivery
from creditgate.engine.workers import Workers
from creditgate.engine.writer import CustomerWriter
from creditgate.errors import StartupError, Unavailable
from creditgate.ledger.sealing import read_seal_keys
from creditgate.ledger.store import Ledger
from creditgate.settings import Environment, Settings
from creditgate.telemetry.metrics import Metrics

DATA_FILES = ("lock", "ledger.db")  # one of them is in every data directory: of a sidecar, or restored


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
    tokens: CustomerTokens
    history: History
    spans: Spans
    aggregates: Aggregates
    statements: Statements
    endpoints: Endpoints
    webhooks: WebhookDelivery
    flusher: Flusher
    sweep: Sweep
    batch_worker: BatchWorker
    outage: Outage
    spool: Spool
    spool_poster: SpoolPoster
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


def open_ledger(settings: Settings) -> Ledger:
    """Return the ledger that is named, which seals what it appends if there is a key; raises StartupError."""
    keys = read_seal_keys(settings.seal_key_file) if settings.seal_key_file is not None else None
    return Ledger(settings.database_url, keys)


@asynccontextmanager
async def open_stores(
    settings: Settings, redis_url: str, *, make: tuple[Environment, int] | None, migrate: bool = True
) -> AsyncIterator[Stores]:
    """Yield Redis and SQL, checked and migrated. `make` says what to decide if there is no data yet.

    `migrate` is False where another process of the same sidecar has just done it: that waits for nobody's lock.
    """
    async with AsyncExitStack() as opened:
        redis = await opened.enter_async_context(aclosing(await connect(redis_url)))
        await check_server(redis)
        if settings.database is None:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        ledger = opened.enter_context(closing(open_ledger(settings)))
        if migrate:
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


def verifier_of(stores: Stores) -> Verifier:
    """Return a verifier of opened stores."""
    store = BalanceStore(stores.redis, stores.keys, RedisClock())
    stream = JournalStream(stores.redis, stores.keys)
    return Verifier(stores.redis, stores.keys, store, stream, stores.ledger)


@asynccontextmanager
async def open_use_cases(settings: Settings, redis_url: str, stores: Stores) -> AsyncIterator[UseCases]:
    """Yield the engine, with Redis brought up to SQL."""
    guard, clock, op_ids, metrics = ServerGuard(), RedisClock(), OpIds(), Metrics()
    redis, keys, ledger, instance = (
        guarded(stores.redis, redis_url, guard),
        stores.keys,
        stores.ledger,
        stores.instance,
    )
    reconciler = Reconciler(stores.redis, keys, clock, ledger, guard)
    destinations = Destinations(allow_private=settings.allow_private_webhooks)
    spool = Spool(spool_of(settings, instance), clock, metrics, bytes_max=settings.spool_max_mb << 20)
    hot = hot_path(redis, guard, BalanceStore.merging())
    try:
        await reconciler.run()
        store, stream = BalanceStore(redis, keys, clock, metrics, hot), JournalStream(redis, keys, hot)
        attempts = Attempts(clock, stream, ledger, reconciler)
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
            Courier(destinations),
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
            access=Access(store, attempts, op_ids, clock),
            tokens=CustomerTokens(instance.signing_secret, instance.environment.value, clock),
            history=history,
            spans=spans,
            aggregates=Aggregates(history, spans, catalogs, ledger),
            statements=Statements(keys, stream, ledger),
            endpoints=endpoints,
            webhooks=webhooks,
            flusher=Flusher(
                keys,
                stream,
                ledger,
                Lease(store, "flush", ttl_ms=FLUSH_LEASE_MS),
                metrics,
                gives_way=settings.workers > 0,
            ),
            sweep=Sweep(
                store, keys, clock, attempts, writer, Lease(store, "sweep", ttl_ms=SWEEP_LEASE_MS), metrics
            ),
            batch_worker=BatchWorker(keys, clock, batches, meter, history, batch_lease, metrics),
            outage=Outage(catalogs, spool, metrics),
            spool=spool,
            spool_poster=SpoolPoster(spool.directory, keys, clock, stream, history, meter, metrics),
            clock=clock,
            reconciler=reconciler,
            metrics=metrics,
            importer=Importer(writer, catalogs, clock),
        )
    finally:
        await spool.aclose()
        await hot.aclose()
        await redis.aclose()


def spool_of(settings: Settings, instance: Instance) -> Path:
    """Return the directory of the spool; it names the data that its usage is of, whatever the sidecar is pointed at."""
    name = hashlib.blake2b(instance.signing_secret.encode(), digest_size=8).hexdigest()
    return settings.data_dir / "spool" / name


def _instance_in_sql(ledger: Ledger) -> Instance | None:
    """An empty Redis is no new environment as long as SQL has one."""
    documents = ledger.documents(SYSTEM_PARTITION, None)
    text = next((document.text for document in documents if document.type == "settings"), None)
    return msgspec.json.decode(text, type=Instance) if text is not None else None


async def _answers(url: str) -> bool:
    redis = plain_client(url)
    try:
        return bool(await redis.ping())
    except (RedisError, OSError):
        return False
    finally:
        await redis.aclose()
