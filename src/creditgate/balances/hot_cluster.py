"""The hot path to a cluster: a `HotConnection` for each node, and calls that follow where a node sends them.

A node that sends a call elsewhere, or cannot say yet, has not run it, so it is sent on within its window, which does
not become longer. What a lost connection means, and how many calls may wait, is as with one server, for each node.
"""

import asyncio
from typing import Any

from hiredis import pack_command
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError
from redis.exceptions import TimeoutError as RedisTimeoutError

from creditgate.balances.cluster import REDIRECTS_MAX, REFUSALS, TRY_AGAIN_S, ClusterClient
from creditgate.balances.connection import CALL_WINDOW_MS, NotWritten, ServerGuard
from creditgate.balances.hot_connection import HotConnection
from creditgate.balances.merging import Merging
from creditgate.balances.topology import Address, address_in, slot_of
from creditgate.balances.wire import Awaited, Call
from creditgate.errors import Unavailable

ASKING = pack_command(("ASKING",))


class HotCluster:
    """Runs scripts as `HotConnection` does."""

    def __init__(
        self, cluster: ClusterClient, guard: ServerGuard, *, window_s: float = CALL_WINDOW_MS / 1000
    ) -> None:
        """Go where this client goes. Connects to each node with the first call that is for it."""
        self.loop = asyncio.get_running_loop()
        self._cluster = cluster
        self._guard = guard
        self._window_s = window_s
        self._connections: dict[Address, HotConnection] = {}

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: str | bytes | int) -> "asyncio.Future[Any]":
        """Run a script, where its first key is. Raises Unavailable or NotWritten at once if it cannot be sent."""
        return self._send(("EVALSHA", sha, numkeys, *keys_and_args))

    def eval(self, source: str, numkeys: int, *keys_and_args: str | bytes | int) -> "asyncio.Future[Any]":
        """Run a script that the node does not know, and have it remember it."""
        return self._send(("EVAL", source, numkeys, *keys_and_args))

    def xrange(self, stream: str, first: str, last: str) -> "asyncio.Future[Any]":
        """Read the messages of a stream between two ids, both included. Raises as `evalsha` does."""
        return self._send(("XRANGE", stream, first, last), key_at=1)

    async def aclose(self) -> None:
        """Close all connections; what is in flight becomes unknown."""
        for connection in self._connections.values():
            await connection.aclose()

    def _send(self, command: tuple[Any, ...], *, key_at: int = 3) -> "asyncio.Future[Any]":
        call = _RoutedCall(
            payload=pack_command(command),
            deadline=self.loop.time() + self._window_s,
            merge=None,
            reply=self.loop.create_future(),
            cluster=self,
            slot=slot_of(command[key_at]),
        )
        self.route(call)
        return call.reply

    def route(self, call: "_RoutedCall") -> None:
        """Send a call to the node that holds its slot; raises NotWritten if none does."""
        call.address = self._cluster.topology.holder(call.slot)
        self._connection(call.address).take(call)

    def redirect(self, call: "_RoutedCall", error: Exception) -> None:
        """Send a call on that was refused before it ran. Raises NotWritten or Unavailable."""
        if isinstance(error, (ClusterDownError, TryAgainError)):
            self.loop.call_later(TRY_AGAIN_S, call.try_again)
            return
        assert isinstance(error, AskError)
        call.address = address_in(error, call.address)
        connection = self._connection(call.address)
        if isinstance(error, MovedError):
            self._cluster.topology.move(call.slot, call.address)
        else:
            connection.take(_Asking(ASKING, call.deadline, None, call))
        connection.take(call)

    def _connection(self, address: Address) -> HotConnection:
        connection = self._connections.get(address)
        if connection is None:
            client = self._cluster.nodes.at(address)
            connection = HotConnection(client, self._guard, window_s=self._window_s)
            self._connections[address] = connection
        return connection


Hot = HotConnection | HotCluster


class _RoutedCall(Awaited, kw_only=True):
    """A call that follows where the nodes send it, and ends at its deadline wherever it is."""

    cluster: HotCluster
    slot: int
    address: Address = Address("", 0)
    redirects: int = 0

    def fail(self, error: Exception) -> None:
        """Send it on if that is what the error says, else end the wait."""
        if not isinstance(error, REFUSALS) or self.reply.done():
            return super().fail(error)
        self.redirects += 1
        if (
            self.redirects == 1
        ):  # queues look at their first call's deadline, and this one comes in behind younger ones
            self.cluster.loop.call_at(self.deadline, self._end)
        if self.redirects > REDIRECTS_MAX:
            return super().fail(NotWritten(str(error)))
        try:
            self.cluster.redirect(self, error)
        except (NotWritten, Unavailable) as refused:
            super().fail(NotWritten(str(refused)))

    def try_again(self) -> None:
        """Send it anew, to whoever holds its slot by now."""
        if self.reply.done():
            return
        try:
            self.cluster.route(self)
        except (NotWritten, Unavailable) as refused:
            super().fail(NotWritten(str(refused)))

    def _end(self) -> None:
        super().fail(RedisTimeoutError("no reply in time"))


class _Asking(Call):
    """Lets the command behind it into a slot that is still on its way to the node.

    Both are written or neither: alone, it would let in the call of somebody else.
    """

    behind: Call

    @property
    def is_over(self) -> bool:
        return self.behind.is_over

    def take(self, reply: Any) -> None:
        """What was asked for is in the next reply."""

    def fail(self, error: Exception) -> None:
        """If it was refused, the next is refused too, and says why."""


def hot_path(redis: "Any", guard: ServerGuard, merging: Merging | None = None) -> Hot:
    """Return the hot path beside a client of the engine. To a cluster, calls of one customer are not merged."""
    if isinstance(redis, ClusterClient):
        return HotCluster(redis, guard)
    return HotConnection(redis, guard, merging=merging)
