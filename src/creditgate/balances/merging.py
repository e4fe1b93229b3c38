"""Calls of one customer that come in one turn of the event loop go to Redis as one call of `lua/merged.lua`.

It reads and writes the customer's record once, and answers each call as its own script would alone. The first call is
sent as ever; only when a second comes before the turn is over does it become a merge. What becomes of each call is its
own: if a merge gets no reply, each of its calls fails as it would alone, and is looked up by its own op id.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hiredis import pack_command
from redis.exceptions import NoScriptError, ResponseError

from creditgate.balances.wire import Call, Command
from creditgate.errors import Unavailable

CALLS_MAX = 64  # as in lua/merged.lua; beyond that there is little left to save
ARGUMENTS_MAX = 2_000  # as in lua/merged.lua
CALLS_BYTES_MAX = (
    64 * 1024
)  # of the calls as the journal keeps them: readers of the journal take hundreds of entries
_OF_EACH = 8  # arguments that a call has in a merge beyond its own, at most
_TERMS = 4  # where a reply has them

Waiter = asyncio.Future[Any]


class Merging(NamedTuple):
    """Which scripts may be merged, by their hashes: what each adds to the arguments of the script for several."""

    scripts: Mapping[str, Callable[[Sequence[Any]], Sequence[Any]]] = {}
    sha: str = ""
    source: str = ""
    merges_one: bool = False
    """Whether a call alone goes by the script for several, too: for tests."""

    def command(self, calls: Sequence[Command]) -> Command:
        """Return the command for several calls of one customer."""
        keys: Sequence[str] = ()
        customer_id, arguments = "", []
        for call in calls:
            keys_count = call[2]
            if keys_count > len(
                keys
            ):  # each has the record, then perhaps the journal, then perhaps the buckets
                keys = call[3 : 3 + keys_count]
            of_customer, *rest = self.scripts[call[1]](call[3 + keys_count :])
            customer_id = of_customer or customer_id
            arguments += rest
        return ("EVALSHA", self.sha, len(keys), *keys, customer_id, len(calls), *arguments)


class Merge:
    """Calls on their way as one, by `carrier`: the command of the first of them until there was another."""

    __slots__ = ("_arguments_count", "_bytes", "_carrier", "_is_loaded", "_merging", "_parts", "_send")

    def __init__(self, merging: Merging, carrier: Call, send: Callable[[Command], Waiter]) -> None:
        """`send` sends a command by itself."""
        self._merging = merging
        self._carrier = carrier
        self._send = send
        self._parts: list[tuple[Command, Waiter]] = []
        self._arguments_count = self._bytes = 0
        self._is_loaded = False
        self._note(carrier.command(), carrier.reply)
        carrier.reply = asyncio.get_running_loop().create_future()
        carrier.reply.add_done_callback(self._share)

    def takes(self, command: Command) -> bool:
        """Say whether one more call may go with these."""
        return (
            len(self._parts) < CALLS_MAX
            and self._arguments_count + len(command) + _OF_EACH <= ARGUMENTS_MAX
            and self._bytes + _bytes_of(command) <= CALLS_BYTES_MAX
            and not self._carrier.reply.done()
        )

    def add(self, command: Command) -> Waiter:
        """Let a call go with these; returns where its reply comes."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._note(command, waiter)
        return waiter

    def pack(self) -> int:
        """Make the command for all that are still waited for; returns how many bytes it is longer now."""
        if self._carrier.reply.done():
            return 0
        self._parts = [part for part in self._parts if not part[1].done()]
        if not self._parts:
            self._carrier.reply.cancel()
            return 0
        before = len(self._carrier.payload)
        self._carrier.payload = pack_command(self._merging.command([command for command, _ in self._parts]))
        return len(self._carrier.payload) - before

    def _note(self, command: Command, waiter: Waiter) -> None:
        self._parts.append((command, waiter))
        self._arguments_count += len(command) + _OF_EACH
        self._bytes += _bytes_of(command)

    def _share(self, reply: Waiter) -> None:
        """Give each its own."""
        if reply.cancelled():
            return
        error = reply.exception()
        if isinstance(error, NoScriptError) and not self._is_loaded:
            self._send_source()
            return
        if error is not None:
            for command, waiter in self._parts:
                self._fail(command, waiter, error)
            return
        terms, *replies = reply.result()
        if isinstance(terms, int):  # a status: the script refused its arguments
            replies = [reply.result()] * len(self._parts)
        for (_, waiter), raw in zip(self._parts, replies, strict=True):
            if len(raw) > _TERMS:
                raw[_TERMS] = terms
            if not waiter.done():
                waiter.set_result(raw)

    def _send_source(self) -> None:
        """Send the calls again with the script itself, which the server does not know: none has run."""
        self._is_loaded = True
        _, _, *keys_and_arguments = self._merging.command([command for command, _ in self._parts])
        try:
            self._send(("EVAL", self._merging.source, *keys_and_arguments)).add_done_callback(self._share)
        except Unavailable as unavailable:
            for _, waiter in self._parts:
                _fail(waiter, unavailable)

    def _fail(self, command: Command, waiter: Waiter, error: BaseException) -> None:
        """Fail one as it would have failed alone; but what only reads may well get an answer where writers got none."""
        writes = command[2] > 1
        if writes or isinstance(error, NoScriptError) or not isinstance(error, ResponseError):
            _fail(waiter, error)
            return
        try:
            self._send(command).add_done_callback(lambda again: _hand_on(again, waiter))
        except Unavailable as unavailable:
            _fail(waiter, unavailable)


def _bytes_of(command: Command) -> int:
    """Return the length of the call as the journal keeps it; a check is not kept."""
    keys_count = command[2]
    return len(command[5 + keys_count]) if keys_count > 1 else 0


def _fail(waiter: Waiter, error: BaseException) -> None:
    if not waiter.done():
        waiter.set_exception(type(error)(*error.args))  # each its own: a traceback grows where it is raised


def _hand_on(reply: Waiter, waiter: Waiter) -> None:
    if reply.cancelled():
        return
    error = reply.exception()
    if error is not None:
        _fail(waiter, error)
    elif not waiter.done():
        waiter.set_result(reply.result())
