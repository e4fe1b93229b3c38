"""The connection of the hot path: one for all calls of a process, and one write for those that come in one tick, or for
each WRITE_CALLS of them. Those of one customer go as one command (`merging.py`).

In a tick of many calls Redis works on the first while we are at the last: else each would wait for the other. But once
some were merged, the rest of the tick waits for its end, since more of them may be of one customer.

Calls wait in a queue until they are written, the connection is there, and the server has read what was sent. Every call
ends within the window: with its reply, with `NotWritten` (it was never sent), or with what redis-py would raise
(it may have taken effect). Nothing is sent twice, nothing to a server that was not reconciled, and calls that
are more than Redis can answer in the window are refused at once.
"""

import asyncio
import random
from collections import deque
from contextlib import suppress
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from creditgate.balances.connection import (
    ASK_SERVER_ID,
    CALL_WINDOW_MS,
    CLIENT_NAME,
    CONNECT_TIMEOUT_S,
    NotWritten,
    ServerChanged,
    ServerGuard,
    server_id_in,
)
from creditgate.balances.merging import Merge, Merging
from creditgate.balances.wire import Awaited, Call, Command, Wire, end_with
from creditgate.errors import Unavailable

CALLS_MAX = 16_384  # in flight and queued: more than one Redis answers in a window
QUEUED_BYTES_MAX = 16 * 2**20  # not yet written; the largest command, a batch of usage, has 2 MiB
WRITE_CALLS = (
    8  # with 4, Redis has a little less to wait for, and many more calls miss those of their customer
)
RECONNECT_FIRST_S = 0.02
RECONNECT_MAX_S = 0.5  # the next is tried after half of that to all of it, or all sidecars would come at once


class HotConnection:
    """Runs scripts as redis-py's client does (`evalsha`, `eval`), which raise the same errors."""

    def __init__(
        self,
        redis: "Redis",
        guard: ServerGuard,
        *,
        window_s: float = CALL_WINDOW_MS / 1000,
        merging: Merging | None = None,
    ) -> None:
        """Go where this client goes. Connects with the first call; needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        # Not opened, but redis-py has read the URL.
        self._address: Any = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        self._guard = guard
        self._window_s = window_s
        self._wire: Wire | None = None
        self._queued: deque[Call] = deque()
        self._queued_bytes = 0
        self._room = CALLS_MAX  # for at least so many more
        self._merging = merging or Merging()
        self._joinable: dict[str, Call | Merge] = {}  # by record: what the next call of this turn may go with
        self._merges: list[Merge] = []  # of this turn
        self._flush_is_due = False
        self._expiry: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._is_closed = False

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: str | bytes | int) -> "asyncio.Future[Any]":
        """Run a script. Raises Unavailable at once if too many calls wait."""
        command: Command = ("EVALSHA", sha, numkeys, *keys_and_args)
        if sha not in self._merging.scripts:
            return self._send(command)
        call = Awaited(b"", 0.0, None, self._loop.create_future(), command)
        self.send(call, command[3])
        return call.reply

    def send(self, call: Call, record: str) -> None:
        """Send a call with those of its customer that came in the same turn, or as the first of them. It is waited for
        from now on, whatever deadline it has. Raises as `evalsha` does.
        """
        call.deadline = self._loop.time() + self._window_s
        joinable = self._joinable
        if record in joinable:
            there = joinable[record]
            merge = there if isinstance(there, Merge) else self._merge(record, there)
            if merge.add(call):
                return
        if len(self._queued) >= WRITE_CALLS and not self._merges and self._is_writable():
            self._write()
        call.payload = call.packed()
        self.take(call)
        joinable[record] = call
        if self._merging.merges_one:
            self._merge(record, call)

    def part(self, record: str) -> None:
        """Let the next call of a customer go with none that was sent before it."""
        self._joinable.pop(record, None)

    def eval(self, source: str, numkeys: int, *keys_and_args: str | bytes | int) -> "asyncio.Future[Any]":
        """Run a script that the server does not know, and have it remember it."""
        return self._send(("EVAL", source, numkeys, *keys_and_args))

    def xrange(self, stream: str, first: str, last: str) -> "asyncio.Future[Any]":
        """Read the messages of a stream between two ids, both included. Raises as `evalsha` does."""
        return self._send(("XRANGE", stream, first, last))

    async def aclose(self) -> None:
        """Close it; what is in flight becomes unknown."""
        self._is_closed = True
        self._room = 0
        if self._expiry is not None:
            self._expiry.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._connecting
        if self._wire is not None:
            self._wire.end("closed")
        self._fail_queued(NotWritten, "closed")

    def _send(self, command: Command) -> "asyncio.Future[Any]":
        call = self._awaited(command)
        self.take(call)
        return call.reply

    def _awaited(self, command: Command) -> Awaited:
        return Awaited(pack_command(command), self._deadline(), None, self._loop.create_future(), command)

    def _merge(self, record: str, first: Call) -> Merge:
        merge = Merge(self._merging, first, self._send_anew)
        self._joinable[record] = merge
        self._merges.append(merge)
        return merge

    def _send_anew(self, call: Call) -> None:
        call.deadline = self._deadline()
        self.take(call)

    def _deadline(self) -> float:
        return self._loop.time() + self._window_s

    def take(self, call: Call) -> None:
        """Send a call; raises Unavailable at once if too many wait."""
        queued_bytes = self._queued_bytes + len(call.payload)
        if self._room <= 0 or queued_bytes > QUEUED_BYTES_MAX:
            self._make_room(queued_bytes)
        self._room -= 1
        self._queued.append(call)
        self._queued_bytes = queued_bytes
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
            if self._expiry is None:
                self._expiry = self._loop.call_at(call.deadline, self._expire)

    def _make_room(self, queued_bytes: int) -> None:
        self._room = 0
        if not self._is_closed:
            self._room = CALLS_MAX - len(self._queued) - (len(self._wire) if self._wire is not None else 0)
        if self._room <= 0:
            raise Unavailable("Redis is slower than calls come in")
        if queued_bytes > QUEUED_BYTES_MAX:
            raise Unavailable("Redis does not take more")

    def _is_writable(self) -> bool:
        return self._wire is not None and not self._wire.is_paused

    def _flush(self) -> None:
        """End a turn."""
        self._flush_is_due = False
        self._write()

    def _write(self) -> None:
        """Write all that is queued, if there is somebody who reads it."""
        self._joinable.clear()
        while self._merges:
            self._queued_bytes += self._merges.pop().pack()
        wire = self._wire
        if wire is None:
            self._connect()
        elif wire.server_id not in self._guard.reconciled:
            wire.end("Redis is being reconciled")
        elif self._queued and not wire.is_paused:
            calls, self._queued, self._queued_bytes = self._queued, deque(), 0
            wire.write(calls)

    def _expire(self) -> None:
        """End the waits whose deadlines have passed; one timer is enough, since calls come in their order."""
        now = self._loop.time()
        look_at = [self._wire.expire(now)] if self._wire is not None else []
        while self._queued and self._queued[0].deadline <= now:
            call = self._queued.popleft()
            self._queued_bytes -= len(call.payload)
            self._joinable.clear()  # nothing may go with what has ended
            end_with(call.merge or call, NotWritten("Redis could not be reached in time"))
        if self._queued:
            look_at.append(self._queued[0].deadline)
        next_at = min((at for at in look_at if at is not None), default=None)
        self._expiry = self._loop.call_at(next_at, self._expire) if next_at is not None else None

    def _connect(self) -> None:
        if self._connecting is None and not self._is_closed:
            self._connecting = self._loop.create_task(self._connect_until_there())

    def _lost(self, wire: Wire) -> None:
        if wire is self._wire:
            self._wire = None
            self._connect()

    async def _connect_until_there(self) -> None:
        """Connect, however long it takes; but at another server's door, wait for the next call to ask again."""
        wait_s = RECONNECT_FIRST_S
        try:
            while self._wire is None:
                try:
                    self._wire = await self._opened()
                except ServerChanged as error:
                    self._fail_queued(ServerChanged, str(error))
                    return
                except (RedisError, OSError):  # an OSError is also a timeout, or what TLS refuses
                    await asyncio.sleep(wait_s * random.uniform(0.5, 1))  # noqa: S311
                    wait_s = min(2 * wait_s, RECONNECT_MAX_S)
        finally:
            self._connecting = None
        self._write()

    async def _opened(self) -> Wire:
        """Return a connection to a server that is reconciled."""
        wire = Wire(on_writable=self._write, on_lost=self._lost)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._reach(wire)
                wire.server_id = await self._greet(wire)
            self._guard.check(wire.server_id)
            if wire.is_lost:
                raise RedisConnectionError("the connection was lost at once")
        except BaseException:
            wire.end("not opened")
            raise
        return wire

    async def _reach(self, wire: Wire) -> None:
        address = self._address
        if isinstance(address, UnixDomainSocketConnection):
            await self._loop.create_unix_connection(lambda: wire, address.path)
        else:
            tls = address.ssl_context.get() if isinstance(address, SSLConnection) else None
            await self._loop.create_connection(lambda: wire, address.host, address.port, ssl=tls)

    async def _greet(self, wire: Wire) -> str:
        """Log in, choose the database, and return the server's id; raises what the server refuses."""
        address = self._address
        commands: list[tuple[Any, ...]] = []
        if address.username or address.password:
            commands.append(("AUTH", *filter(None, (address.username, address.password))))
        commands.append(("CLIENT", "SETNAME", CLIENT_NAME))
        if address.db:
            commands.append(("SELECT", address.db))
        commands.append(ASK_SERVER_ID)
        calls = [self._awaited(command) for command in commands]
        wire.write(calls)
        *_, info = await asyncio.gather(*(call.reply for call in calls))
        return server_id_in(info)

    def _fail_queued(self, kind: type[NotWritten], reason: str) -> None:
        calls, self._queued, self._queued_bytes = self._queued, deque(), 0
        self._joinable.clear()
        for call in calls:
            end_with(call.merge or call, kind(reason))
