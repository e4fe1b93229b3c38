"""Connections to Redis: one client for the calls of the engine, which never talks to a server that was not reconciled.

Redis can come back older than SQL at any reconnect (a lost second of its log, a failover, a restored backup). So
every new connection asks which server it has reached. One that is not a reconciled one is refused before any command
was sent, and the engine reconciles first.

A *server* is one process for as long as it is a primary: its `server_id` is the run id with the replication id, which
changes with a restart, and also when a replica is promoted. So a node that was a primary, then a replica, then a
primary again is another server each time, though it never restarted.
"""

from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.connection import parse_url
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
ASK_SERVER_ID = ("INFO", "server", "replication")

_DRIVER = (
    DriverInfo()
)  # once: it looks for redis-py's version on the disk, which every connection would do again


class NotWritten(RedisConnectionError):
    """The command was never sent, so it has no effect."""


class ServerChanged(NotWritten):
    """The server behind this address is not one that was reconciled. Nothing was sent."""


class ServerGuard:
    """Remembers which servers are reconciled, by their ids: one, or the primaries of a cluster; none at first."""

    def __init__(self) -> None:
        self.reconciled: frozenset[str] = frozenset()

    async def on_connect(self, connection: Any) -> None:
        """Refuse a new connection to another server; raises ServerChanged."""
        await connection.on_connect()
        await connection.send_command(*ASK_SERVER_ID)
        self.check(server_id_in(await connection.read_response()))

    def check(self, server_id: str) -> None:
        """Raise ServerChanged unless this server is reconciled."""
        if server_id not in self.reconciled:
            raise ServerChanged("Redis is not the server that was reconciled: reconciling first")


def guarded_client(url: str, guard: ServerGuard) -> "Redis":
    """Return the client for every call of the engine. It never sends a command twice by itself.

    Raises StartupError if the URL is not one of Redis.
    """
    return _client(url, guard.on_connect)


def plain_client(url: str) -> "Redis":
    """Return a client without the guard, for start-up checks and for reconciling; raises as `guarded_client` does."""
    return _client(url, None)


def client_at(url: str, host: str, port: int, guard: ServerGuard | None) -> "Redis":
    """Return a client of another node of the cluster that the URL names one of."""
    return _client(url, guard.on_connect if guard else None, host=host, port=port)


async def server_id_of(redis: "Redis") -> str:
    """Return the id of the server that answers."""
    info: dict[str, Any] = await redis.info(*ASK_SERVER_ID[1:])
    return _server_id(info)


def server_id_in(info: bytes) -> str:
    """Return the server id in the reply to ASK_SERVER_ID."""
    return _server_id(dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line))


def _server_id(info: Mapping[str, Any]) -> str:
    return f"{info['run_id']}:{info['master_replid']}"


def _client(url: str, on_connect: Callable[..., Any] | None, **address: Any) -> "Redis":
    try:
        options = parse_url(url)
        if address and options.get("connection_class") is UnixDomainSocketConnection:
            del options["connection_class"], options["path"]
        pool = BlockingConnectionPool(
            **{
                "max_connections": CONNECTIONS_MAX,
                "timeout": CONNECTION_WAIT_S,
                "retry": Retry(NoBackoff(), 0),
                "retry_on_timeout": False,
                "socket_timeout": SOCKET_TIMEOUT_S,
                "socket_connect_timeout": CONNECT_TIMEOUT_S,
                "redis_connect_func": on_connect,
                "client_name": CLIENT_NAME,
                "driver_info": _DRIVER,
                **options,
                **address,
            }
        )
        # The connection is not opened, but refuses what a URL may not say.
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):  # whose words repeat the URL, which may hold a password
        raise StartupError(
            "--redis: not a URL; say redis://HOST:PORT, rediss://HOST or unix://PATH"
        ) from None
    return Redis.from_pool(pool)
