"""What all scripts have in common: how they are run, what their replies say, and what is raised if there is none.

A call whose reply did not arrive raises `Unknown`: it may or may not have taken effect, and `engine/attempts.py` finds
out. Nothing here is ever sent twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import cached_property
from time import perf_counter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from creditgate.balances.clock import RedisClock
from creditgate.balances.connection import CALL_WINDOW_MS, NotWritten
from creditgate.balances.hot_cluster import Hot
from creditgate.balances.hot_connection import HotConnection
from creditgate.balances.keys import Keys
from creditgate.balances.prepared import PreparedCall
from creditgate.balances.scripts import Argument, Script
from creditgate.core.catalog import Pool
from creditgate.core.customers import Terms
from creditgate.core.decisions import Moved, Status, status_of
from creditgate.core.entities import pool_name
from creditgate.core.holds import Held
from creditgate.core.journal import Call, StreamId
from creditgate.errors import CreditgateError, Unavailable
from creditgate.telemetry.metrics import Metrics

T = TypeVar("T")


class Unknown(CreditgateError):
    """The reply did not arrive: the call may have taken effect, but not any more once Redis is past `not_after`."""

    code = "undecided"


class NotSent(Unknown):
    """The call reached no server that was reconciled: it has no effect, and may be sent again after reconciling."""


class DataLost(Unknown):
    """The server has lost what it held: the call has no effect, and may be sent again once that was put back."""


NO_JOURNAL = "NOJOURNAL"
"""How the error of lua/lib/journal.lua begins, where a partition's stream is not there."""


class Need(NamedTuple):
    """What a call for an entity, or the customer, needs of a pool, in nanos of its unit; negative gives back."""

    pool: Pool
    nanos: int
    entity_id: str | None = None

    @property
    def name(self) -> str:
        """The pool's name, as scripts know it."""
        return pool_name(self.pool.feature_id, self.entity_id)


class Needs(tuple[Need, ...]):
    """What a call needs of each pool that it may draw on, in their order."""

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        return tuple(need.pool for need in self)

    @cached_property
    def sent(self) -> list[Argument]:
        """The needs as arguments of a script."""
        arguments: list[Argument] = []
        for need in self:
            arguments += [need.name, need.pool.cost_nanos, need.nanos]
        return arguments


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What a script said of a customer. Past `status` and `time`, the rest is set where the script gives it.

    `entry` is the id of the entry that was appended, or that of the first call for a replay; `pool` is the number of
    the pool that answers a check, from 1, or 0.
    """

    status: Status
    time: int
    sequence: int = 0
    terms: Terms = Terms()
    balances: Mapping[str, int] = MappingProxyType({})
    moved: tuple[Moved, ...] = ()
    entry: bytes | str = ""
    pool: int = 0
    held: Held | None = None

    @property
    def stream_id(self) -> StreamId | None:
        """Where the entry stands, None if there is none."""
        return stream_id_of(self.entry)


class Begun(msgspec.Struct, frozen=True):
    """A call that was sent, and its reply, which ends as one that is awaited would."""

    call: PreparedCall
    reply: asyncio.Future[Any]


class Written(NamedTuple):
    """What a script said that writes a document or a change: the new sequence number or version."""

    status: Status
    time: int
    number: int = 0
    stream_id: StreamId | None = None


class ScriptCalls:
    """Calls of scripts on one server and prefix.

    With a hot connection, scripts go over it, and each call is waited for no longer than CALL_WINDOW_MS; `hot` is the
    one to a single server, over which prepared calls may go. The scripts
    themselves belong to the class: their sources are read and joined once in a process, whoever opens a store.
    """

    def __init__(
        self,
        redis: "Redis",
        keys: Keys,
        clock: RedisClock,
        metrics: Metrics | None = None,
        hot: Hot | None = None,
    ) -> None:
        self._redis = redis
        self._scripts = hot or redis
        self.hot = hot if isinstance(hot, HotConnection) else None
        self._window_s = CALL_WINDOW_MS / 1000 if hot else None
        self._keys = keys
        self._clock = clock
        self._metrics = metrics or Metrics()

    def _due_of(self, customer_id: str) -> str:
        return self._keys.due(self._keys.partition_of(customer_id))

    def _buckets(self, customer_id: str, call: Call) -> list[str]:
        return self._keys.key_buckets(customer_id, self._clock.now_ms()) if call.key else []

    def _go_on(self, begun: Begun, read: Callable[[list[Any]], T]) -> Coroutine[Any, Any, T]:
        """Return what becomes of a call that was sent, as if it were run."""
        prepared = begun.call.prepared
        arguments = prepared.arguments(begun.call.not_after, begun.call.op_id)
        return self._run_for(prepared.script, prepared.keys, arguments, read, begun)

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> list[Any]:
        """Run a script and return its reply."""
        return await self._run_for(script, keys, args, list)

    async def _run_for(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        read: Callable[[list[Any]], T],
        begun: Begun | None = None,
    ) -> T:
        """Run a script and return what `read` makes of its reply."""
        began = perf_counter() if begun is None else begun.call.began
        try:
            raw = await script.call(self._scripts, keys, args, begun.reply if begun else None)
        except BaseException as error:
            self._metrics.redis_failed(script.name, perf_counter() - began, error)
            if isinstance(error, RedisError | OSError):
                raise _told(error) from error
            raise
        self._metrics.redis_s[script.name].add(perf_counter() - began)
        if raw[0] == Status.INVALID:
            raise AssertionError(f"{script.name}.lua refused its arguments: {args!r}")
        return read(raw)

    async def _asked(self, operation: str, answer: Awaitable[Any]) -> Any:
        """Return the answer to a plain command of redis-py, which needs a task."""
        try:
            with self._metrics.redis_call(operation):
                async with asyncio.timeout(self._window_s):
                    return await answer
        except (RedisError, OSError) as error:
            raise _told(error) from error


def _told(error: RedisError | OSError) -> CreditgateError:
    """Return what it means for the call."""
    if isinstance(error, ResponseError) and str(error).startswith(NO_JOURNAL):
        return DataLost("Redis has lost this partition: reconciling first")
    if isinstance(error, ResponseError):  # an answer: the server refused before it wrote
        return Unavailable(f"Redis refused the call: {error}")
    if isinstance(error, NotWritten):
        return NotSent(str(error))
    return Unknown(f"Redis did not answer: {error}")


def needs_sent(pools: Iterable[Need]) -> list[Argument]:
    """Return the needs as arguments."""
    return (pools if isinstance(pools, Needs) else Needs(pools)).sent


def balances_in(raw: Sequence[Any], at: int) -> tuple[dict[str, int], int]:
    """Read '<count>, then so many pairs of row id and amount' from raw[at] on; returns where it ends."""
    end = at + 1 + 2 * raw[at]
    return {text_of(raw[i]): int(raw[i + 1]) for i in range(at + 1, end, 2)}, end


def moved_in(raw: Sequence[Any], at: int) -> tuple[Moved, ...]:
    """Read pairs of row id and delta from raw[at] to the end."""
    return tuple([Moved(text_of(raw[i]), int(raw[i + 1])) for i in range(at, len(raw), 2)])


def written_in(raw: Sequence[Any]) -> Written:
    """Return the reply of a script that says little."""
    if len(raw) == 2:
        return Written(status_of(raw[0]), raw[1])
    return Written(status_of(raw[0]), raw[1], raw[2], stream_id_of(raw[3]))


def stream_id_of(raw: bytes | str) -> StreamId | None:
    """Return a stream id, None where a script says ''."""
    return StreamId.parse(text_of(raw)) if raw else None


def text_of(raw: bytes | str) -> str:
    """Return a piece of a reply as text."""
    return raw.decode() if isinstance(raw, bytes) else raw
