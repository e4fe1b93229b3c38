"""Connections to Redis: one client for the calls of the engine, which never talks to a server that was not reconciled.

Redis can come back older than SQL at any reconnect (a lost second of its log, a failover, a restored backup). So
every new connection asks which server process it has reached. One that is not the reconciled one is refused before
any command was sent, and the engine reconciles first.
"""

from collections.abc import Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import ConnectionError as RedisConnectionError

from creditgate.errors import StartupError

CALL_WINDOW_MS = 300  # how long a call is waited for, so that a second attempt fits into a caller's deadline
CONNECT_TIMEOUT_S = 1.0
SOCKET_TIMEOUT_S = 5.0  # the last resort; every call has a shorter deadline of its own
CLIENT_NAME = "creditgate"
CONNECTIONS_MAX = 64
CONNECTION_WAIT_S = 1.0

_DRIVER = (
    DriverInfo()
)  # once: it looks for redis-py's version on the disk, which every connection would do again


class NotWritten(RedisConnectionError):
    """The command was never sent, so it has no effect."""


class ServerChanged(NotWritten):
    """The server behind this address is not the one that was reconciled. Nothing was sent."""


class ServerGuard:
    """Remembers which server process was reconciled, by its run id; None until the first time."""

    def __init__(self) -> None:
        self.run_id: str | None = None

    async def on_connect(self, connection: Any) -> None:
        """Refuse a new connection to another server process; raises ServerChanged."""
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        self.check(run_id_in(await connection.read_response()))

    def check(self, run_id: str) -> None:
        """Raise ServerChanged unless this is the server process that was reconciled."""
        if run_id != self.run_id:
            raise ServerChanged("Redis is not the server that was reconciled: reconciling first")


def guarded_client(url: str, guard: ServerGuard) -> "Redis":
    """Return the client for every call of the engine. It never sends a command twice by itself.

    Raises StartupError if the URL is not one of Redis.
    """
    return _client(url, guard.on_connect)


def plain_client(url: str) -> "Redis":
    """Return a client without the guard, for start-up checks and for reconciling; raises as `guarded_client` does."""
    return _client(url, None)


async def server_run_id(redis: "Redis") -> str:
    """Return the run id of the server process that answers."""
    info: dict[str, Any] = await redis.info("server")
    return str(info["run_id"])


def run_id_in(info: bytes) -> str:
    """Return the run id that `INFO server` tells."""
    lines = info.decode().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("run_id:"))


def _client(url: str, on_connect: Callable[..., Any] | None) -> "Redis":
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_MAX,
            timeout=CONNECTION_WAIT_S,
            retry=Retry(NoBackoff(), 0),
            retry_on_timeout=False,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            redis_connect_func=on_connect,
            client_name=CLIENT_NAME,
            driver_info=_DRIVER,
        )
        # The connection is not opened, but refuses what a URL may not say.
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):  # whose words repeat the URL, which may hold a password
        raise StartupError(
            "--redis: not a URL; say redis://HOST:PORT, rediss://HOST or unix://PATH"
        ) from None
    return Redis.from_pool(pool)
