"""A client of a cluster: each command goes to the node that holds its key, and follows where that node sends it.

The same calls as on redis-py's client of one server, so that nobody else needs to know: the keys of one call lie in one
slot (`keys.py`), and so do those of a transaction. (redis-py has a cluster client of its own, without a place for our
guard, and one that sends commands again by itself.) A call that was redirected has not run: it may always be sent on.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError

from creditgate.balances.connection import NotWritten, ServerGuard, guarded_client, plain_client, server_id_of
from creditgate.balances.topology import Address, NodeClients, Topology, address_in, slot_of
from creditgate.errors import StartupError

REDIRECTS_MAX = 16  # of one call: with a pause at each TRYAGAIN, about as long as a call's window
TRY_AGAIN_S = 0.02

REFUSALS = (AskError, ClusterDownError, TryAgainError)  # before anything ran; MovedError is an AskError too

_KEY_AT = {"EVALSHA": 3, "EVAL": 3}
_WITHOUT_KEY = {"CONFIG GET", "INFO", "PING", "SCAN", "SCRIPT LOAD", "TIME"}

Command = tuple[tuple[Any, ...], Mapping[str, Any]]  # and options, of redis-py's own

T = TypeVar("T")


class ClusterClient(Redis):
    """Commands with keys in one slot, pipelines over several slots, and SCAN over all nodes."""

    def __init__(self, url: str, guard: ServerGuard | None = None, topology: Topology | None = None) -> None:
        """The URL names any node. Several clients may share one topology, which somebody has to `refresh`."""
        self.nodes = NodeClients(url, guard)
        super().__init__(connection_pool=self.nodes.seed.connection_pool)
        self.topology = topology or Topology(self.nodes)

    @property
    def primaries(self) -> dict[str, "Redis"]:
        """The primaries by their addresses."""
        return {str(address): self.nodes.at(address) for address in self.topology.primaries}

    def address_of(self, key: str | bytes) -> Address:
        """Return where a key is; raises NotWritten if no node holds its slot."""
        return self.topology.holder(slot_of(key))

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        slot = slot_of(_key_in(args))
        address, is_asking = self.topology.holder(slot), False
        for _ in range(REDIRECTS_MAX):
            try:
                return await self._execute_at(address, is_asking, args, options)
            except AskError as error:
                address, is_asking = address_in(error, address), not isinstance(error, MovedError)
                if not is_asking:
                    self.topology.move(slot, address)
            except (ClusterDownError, TryAgainError):
                await asyncio.sleep(TRY_AGAIN_S)
                address, is_asking = self.topology.holder(slot), False
        raise NotWritten(f"the nodes of the cluster do not agree on who holds slot {slot}")

    async def _execute_at(
        self, address: Address, is_asking: bool, args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Any:
        client = self.nodes.at(address)
        if not is_asking:
            return await client.execute_command(*args, **options)  # type: ignore[no-untyped-call]
        async with client.pipeline(transaction=False) as together:
            together.execute_command("ASKING")
            together.execute_command(*args, **options)
            _, reply = await together.execute(raise_on_error=False)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def execute_together(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to commands, in one round trip to each node; what failed is its exception."""
        replies: list[Any] = [None] * len(commands)
        numbers_at: dict[Address, list[int]] = defaultdict(list)
        for number, (args, _) in enumerate(commands):
            try:
                numbers_at[self.address_of(_key_in(args))].append(number)
            except NotWritten as error:
                replies[number] = error
        pages = [
            self._page(address, [commands[n] for n in numbers]) for address, numbers in numbers_at.items()
        ]
        for numbers, page in zip(numbers_at.values(), await asyncio.gather(*pages), strict=True):
            for number, reply in zip(numbers, page, strict=True):
                args, options = commands[number]
                replies[number] = await self._again(args, options) if isinstance(reply, REFUSALS) else reply
        return replies

    async def _page(self, address: Address, commands: Sequence[Command]) -> list[Any]:
        try:
            async with self.nodes.at(address).pipeline(transaction=False) as together:
                for args, options in commands:
                    together.execute_command(*args, **options)
                found: list[Any] = await together.execute(raise_on_error=False)
                return found
        except (RedisError, OSError) as error:
            return [error] * len(commands)

    async def _again(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        try:
            return await self.execute_command(*args, **options)
        except (RedisError, OSError) as error:
            return error

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "ClusterPipeline":
        return ClusterPipeline(self, transaction)

    async def scan_iter(self, *args: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        """Yield keys of all nodes. One of a slot that moves meanwhile may come twice, or not."""
        for client in self.primaries.values():
            async for key in client.scan_iter(*args, **options):
                yield key

    async def unlink(self, *names: Any) -> int:
        """Remove keys, of whatever slots."""
        replies = await self.execute_together([(("UNLINK", name), {}) for name in names])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return sum(replies)

    async def ping(self, **_options: Any) -> bool:
        """Return True if any node answers, else raise."""
        return bool(await answers_of(self, lambda server: server.ping()))

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.nodes.aclose()


class ClusterPipeline(Pipeline):
    """Commands sent together: a transaction in one slot, or commands of any slots, one trip to each node.

    A transaction that finds its slot moved fails before it has run.
    """

    def __init__(self, cluster: ClusterClient, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster
        self._slot: int | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.is_transaction:
            slot = slot_of(_key_in(args))
            if self._slot is None:
                self._slot = slot
                at = self._cluster.topology.holder(slot)
                self.connection_pool = self._cluster.nodes.at(at).connection_pool
            assert slot == self._slot, "a transaction has one slot"
        return super().execute_command(*args, **options)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        if self.is_transaction:
            return await super().execute(raise_on_error)
        commands, self.command_stack = self.command_stack, []
        replies = await self._cluster.execute_together(commands)
        failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if raise_on_error and failed is not None:
            raise failed
        return replies


async def connect(url: str) -> "Redis":
    """Return a client of the server, or of the cluster that it is part of; without a guard, for start-up.

    Raises StartupError if nobody answers there.
    """
    redis = plain_client(url)
    try:
        if not (await redis.info("cluster")).get("cluster_enabled"):
            return redis
        cluster = ClusterClient(url)
        await cluster.topology.refresh()
    except (RedisError, OSError) as error:
        await redis.aclose()
        raise StartupError(f"--redis: the server does not answer: {error}") from error
    await redis.aclose()
    return cluster


def guarded(redis: "Redis", url: str, guard: ServerGuard) -> "Redis":
    """Return the client of the engine, for what is behind the client that `connect` returned."""
    if isinstance(redis, ClusterClient):
        return ClusterClient(url, guard, redis.topology)
    return guarded_client(url, guard)


def servers_of(redis: "Redis") -> dict[str, "Redis"]:
    """Return the servers that hold data, by address: the primaries of a cluster, or the one, which is called ''."""
    return redis.primaries if isinstance(redis, ClusterClient) else {"": redis}


def place_of(redis: "Redis", key: str) -> str:
    """Return the address of the server that holds a key, as `servers_of` names it; 'nowhere' if none does."""
    if not isinstance(redis, ClusterClient):
        return ""
    try:
        return str(redis.address_of(key))
    except NotWritten:
        return "nowhere"


def server_of(redis: "Redis", key: str) -> "Redis":
    """Return the server that holds a key; raises NotWritten if none does."""
    return redis.nodes.at(redis.address_of(key)) if isinstance(redis, ClusterClient) else redis


async def answers_of(redis: "Redis", ask: Callable[["Redis"], Awaitable[T]]) -> dict[str, T]:
    """Return what each server says, by address, but those that are away; raises if all are."""
    servers = servers_of(redis)
    replies = await asyncio.gather(*(ask(server) for server in servers.values()), return_exceptions=True)
    answers, failed = {}, None
    for address, reply in zip(servers, replies, strict=True):
        if isinstance(reply, BaseException):
            if not isinstance(reply, (RedisError, OSError)):
                raise reply
            failed = reply
        else:
            answers[address] = reply
    if not answers and failed is not None:
        raise failed
    return answers


async def server_ids(redis: "Redis") -> dict[str, str | None]:
    """Return the id of each server by address, None of one that is away or still loads; of a cluster as it is now.

    Raises what redis-py raises if all are away.
    """
    if isinstance(redis, ClusterClient):
        await redis.topology.refresh()
    found = await answers_of(redis, _id_once_ready)
    return {address: found.get(address) for address in servers_of(redis)}


async def _id_once_ready(server: "Redis") -> str:
    await server.ping()  # refused while it loads its data, and INFO is not
    return await server_id_of(server)


def _key_in(args: tuple[Any, ...]) -> str | bytes:
    """Return the first key of a command, as redis-py builds it."""
    name = args[0]
    assert name not in _WITHOUT_KEY, f"{name} is a question to one node: see servers_of"
    at = args.index(b"STREAMS") + 1 if name == "XREAD" else _KEY_AT.get(name, 1)
    key: str | bytes = args[at]
    return key
