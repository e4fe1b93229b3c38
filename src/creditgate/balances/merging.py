"""Calls of one customer that come in one turn of the event loop go to Redis as one call of `lua/merged.lua`.

It reads and writes the customer's record once, and answers each call as its own script would alone. The first call is
sent as ever; only when a second comes before the turn is over does it become a merge. What becomes of each call is its
own: if a merge gets no reply, each of its calls fails as it would alone, and is looked up by its own op id.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hiredis import pack_command
from redis.exceptions import NoScriptError, ResponseError

from creditgate.balances.wire import Call, Command, end_with
from creditgate.errors import Unavailable

CALLS_MAX = 64  # as in lua/merged.lua; beyond that there is little left to save
ARGUMENTS_MAX = 2_000  # as in lua/merged.lua
CALLS_BYTES_MAX = (
    64 * 1024
)  # of the calls as the journal keeps them: readers of the journal take hundreds of entries
_OF_EACH = 8  # arguments that a call has in a merge beyond its own, at most
_TERMS = 4  # where a reply has them


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
    """Calls on their way as one, by the first of them, which carries all once there is another."""

    __slots__ = ("_arguments_count", "_bytes", "_carrier", "_is_loaded", "_merging", "_parts", "_send")

    def __init__(self, merging: Merging, first: Call, send: Callable[[Call], None]) -> None:
        """`send` sends a call by itself, with a deadline of its own."""
        self._merging = merging
        self._carrier = first
        self._send = send
        self._parts: list[tuple[Call, Command]] = []
        self._arguments_count = self._bytes = 0
        self._is_loaded = False
        self.add(first)
        first.merge = self

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for any of these any more."""
        return all(part.is_over for part, _ in self._parts)

    def add(self, call: Call) -> bool:
        """Let one more call go with these; False if there is no room for it."""
        command = call.command()
        arguments_count = self._arguments_count + len(command) + _OF_EACH
        call_bytes = self._bytes + _bytes_of(command)
        is_first = not self._parts
        if not is_first and (
            len(self._parts) >= CALLS_MAX or arguments_count > ARGUMENTS_MAX or call_bytes > CALLS_BYTES_MAX
        ):
            return False
        self._parts.append((call, command))
        self._arguments_count, self._bytes = arguments_count, call_bytes
        return True

    def pack(self) -> int:
        """Make the command for all that are still waited for; returns how many bytes it is longer now."""
        self._parts = [part for part in self._parts if not part[0].is_over]
        if not self._parts:
            return 0
        before = len(self._carrier.payload)
        self._carrier.payload = pack_command(self._command())
        return len(self._carrier.payload) - before

    def take(self, reply: Any) -> None:
        """Give each its own."""
        parts = self._end()
        terms, *replies = reply
        if isinstance(terms, int):  # a status: the script refused its arguments
            replies = [reply] * len(parts)
        for (part, _), raw in zip(parts, replies, strict=True):
            if len(raw) > _TERMS:
                raw[_TERMS] = terms
            end_with(part, raw)

    def fail(self, error: Exception) -> None:
        """Fail each, but send all again with the script itself if the server does not know it: none has run."""
        if isinstance(error, NoScriptError) and not self._is_loaded:
            self._is_loaded = True
            _, _, *keys_and_arguments = self._command()
            self._carrier.payload = pack_command(("EVAL", self._merging.source, *keys_and_arguments))
            try:
                self._send(self._carrier)
            except Unavailable as unavailable:
                error = unavailable
            else:
                return
        for part, command in self._end():
            self._fail(part, command, error)

    def _end(self) -> list[tuple[Call, Command]]:
        """Let go of the calls: they may be of a kind that the garbage collector does not look at."""
        parts, self._parts = self._parts, []
        self._carrier.merge = None
        return parts

    def _command(self) -> Command:
        return self._merging.command([command for _, command in self._parts])

    def _fail(self, part: Call, command: Command, error: Exception) -> None:
        """Fail one as it would have failed alone; but what only reads may well get an answer where writers got none."""
        writes = command[2] > 1
        if not writes and isinstance(error, ResponseError) and not isinstance(error, NoScriptError):
            part.payload = pack_command(command)
            try:
                self._send(part)
            except Unavailable as unavailable:
                error = unavailable
            else:
                return
        end_with(part, type(error)(*error.args))  # each its own: a traceback grows where it is raised


def _bytes_of(command: Command) -> int:
    """Return the length of the call as the journal keeps it; a check is not kept."""
    keys_count = command[2]
    return len(command[5 + keys_count]) if keys_count > 1 else 0
