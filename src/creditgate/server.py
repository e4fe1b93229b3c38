"""Answers HTTP: the application on uvicorn, until it is told to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.api.app import Api, ApiSettings, create_app
from creditgate.api.fastlane import fast_lane
from creditgate.balances.clock import RedisClock
from creditgate.balances.stream import JournalStream
from creditgate.core.journal import SYSTEM_PARTITION
from creditgate.engine.spool import bytes_in
from creditgate.errors import CreditgateError
from creditgate.ledger.outbox import Backlog
from creditgate.ledger.store import Ledger
from creditgate.openings import Stores, UseCases
from creditgate.settings import Settings
from creditgate.telemetry.exposition import Readings, Waiting, exposed
from creditgate.telemetry.siblings import Siblings

GRACEFUL_SHUTDOWN_S = 10  # for requests in flight; each has a deadline far below
KEEP_ALIVE_S = 30
READY_TIMEOUT_S = 0.5


async def answer_calls(
    settings: Settings,
    stores: Stores,
    cases: UseCases,
    sockets: list[socket.socket],
    *,
    siblings: Siblings | None,
    started: Callable[[], None],
    stopped: Callable[[], Awaitable[object]],
) -> None:
    """Answer calls until `stopped` returns, and then those in flight. `started` is called once it answers."""
    app = _app(settings, stores, cases, siblings)
    config = uvicorn.Config(
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
    )
    server = _Server(config, started)
    stopping = asyncio.create_task(_stop(server, stopped))
    try:
        await server.serve(sockets=sockets)
    finally:
        stopping.cancel()


class _Server(uvicorn.Server):
    """Uvicorn that says when it answers, and that leaves signals to us."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _stop(server: uvicorn.Server, stopped: Callable[[], Awaitable[object]]) -> None:
    await stopped()
    server.should_exit = True


def _app(settings: Settings, stores: Stores, cases: UseCases, siblings: Siblings | None) -> Api:
    async def ready() -> dict[str, str]:
        return {"redis": await _redis_state(stores.redis), "sql": await _sql_state(stores.ledger)}

    async def numbers(accept: str) -> tuple[bytes, str]:
        parts, waiting, backlog = await asyncio.gather(
            ready(), _waiting(stores, cases.clock), _backlog(stores.ledger)
        )
        spooled = await asyncio.to_thread(bytes_in, cases.spool.directory)
        readings = Readings(parts, cases.catalogs.current.version, waiting, backlog, spooled)
        others = await siblings.others() if siblings else ()
        return exposed(cases.metrics, readings, accept, others)

    return create_app(
        meter=cases.meter,
        holds=cases.holds,
        batches=cases.batches,
        customers=cases.customers,
        entities=cases.entities,
        outage=cases.outage,
        customer_list=cases.customer_list,
        catalogs=cases.catalogs,
        billing=cases.billing,
        access=cases.access,
        tokens=cases.tokens,
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
            allowed_origins=settings.allowed_origins,
            public_url=settings.public_url,
        ),
    )


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
