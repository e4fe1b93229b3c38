"""One effect for one call, whatever happens to the reply.

A call carries `not_after`: a moment of Redis's clock past which it can no longer take effect. If its reply does not
arrive, we wait for that moment, look for the op id in the journal (the stream first, then SQL, since what is in between
is in both), and send the call again only if it is not there.

The store ends each attempt by itself, within CALL_WINDOW_MS. So the first one needs neither a task nor a timer here,
and mostly it is the only one; what follows has both.

Each loop looks at the deadline itself: in Python 3.11, the cancellation that `asyncio.timeout` sends may be swallowed
by an `asyncio.wait_for` under way, and redis-py sends every command in one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

import msgspec
from redis.exceptions import RedisError

from creditgate.balances.clock import RedisClock
from creditgate.balances.connection import CALL_WINDOW_MS
from creditgate.balances.store import DataLost, NotSent, Reply, Unknown, Written
from creditgate.balances.stream import JournalStream
from creditgate.core.decisions import Status
from creditgate.core.journal import StreamId
from creditgate.engine.reconciler import Reconciler
from creditgate.engine.stepping import in_task
from creditgate.errors import Unavailable, Undecided
from creditgate.ledger.store import Ledger

DEADLINE_S = 0.8  # of one call in all: an SDK waits 5 s, a user less
FATE_POLL_S = 0.02
CLOCK_MARGIN_MS = 2_000  # how far our estimate of Redis's clock may be off when we look for a call
# As much, where it is looked for much later: the clock may have been set back since we read it, and before the call.
SET_BACK_MAX_MS = 60_000

R = TypeVar("R", Reply, Written)
T = TypeVar("T")


class Applied(NamedTuple):
    """The call took effect, but its reply was lost: where it stands in the journal."""

    stream_id: StreamId


class Start(msgspec.Struct, frozen=True, gc=False):
    """What is noted before an attempt: times of Redis's clock in ms, the reconciler's rounds."""

    sent_at: int
    not_after: int
    rounds: int


class First(NamedTuple, Generic[T]):
    """The first attempt of a call, where it was sent before anybody waits for its outcome.

    `began` is when, by `perf_counter`.
    """

    start: Start
    began: float
    reply: Awaitable[T]

    @property
    def give_up_at(self) -> float:
        """The deadline of the call, by the event loop's clock."""
        return _now() + DEADLINE_S - (perf_counter() - self.began)


class _Failed(NamedTuple):
    """An attempt without an answer, in ms of Redis's clock.

    `in_doubt`: it may have taken effect, until `not_after`. `is_lost`: the server has lost what it held.
    """

    sent_at: int
    not_after: int
    in_doubt: bool = False
    is_lost: bool = False


class Attempts:
    """Sends calls that write, at most twice, each with one effect at most."""

    def __init__(
        self, clock: RedisClock, stream: JournalStream, ledger: Ledger, reconciler: Reconciler
    ) -> None:
        self._clock = clock
        self._stream = stream
        self._ledger = ledger
        self._reconciler = reconciler
        self._start: Start | None = None  # of this turn of the event loop

    def start(self) -> Start | None:
        """Note what the first attempt of a call starts with; None while Redis is not reconciled.

        Calls of one turn start at one time. So of those that go to Redis together (`balances/merging.py`), none is too
        late where one behind it is not, wherever this process may have stood still.
        """
        if not self._reconciler.is_done:
            return None
        start, rounds = self._start, self._reconciler.rounds
        if start is None:
            asyncio.get_running_loop().call_soon(self._end_turn)
        elif start.rounds == rounds:
            return start
        now_ms = self._clock.now_ms()
        self._start = start = Start(now_ms, now_ms + CALL_WINDOW_MS, rounds)
        return start

    def _end_turn(self) -> None:
        self._start = None

    async def write(
        self,
        partition: str,
        op_id: str,
        send: Callable[[int], Awaitable[R]],
        first: First[R] | None = None,
    ) -> R | Applied:
        """Send a call of this op id: `send` is given `not_after`. Returns its reply, or that it was applied.

        Raises Undecided if the deadline passed before the answer was known.
        """
        give_up_at = _now() + DEADLINE_S if first is None else first.give_up_at
        try:
            attempt = await self._attempt(send, first)
            if not isinstance(attempt, _Failed):
                return attempt
            await in_task()
            async with asyncio.timeout_at(give_up_at) as deadline:
                while not deadline.expired():
                    if attempt.in_doubt:
                        stream_id = await self._fate(deadline, partition, op_id, attempt)
                        if stream_id is not None:
                            return Applied(stream_id)
                    elif attempt.is_lost:
                        await self._look_again()
                    else:
                        await self._reconcile()
                    attempt = await self._attempt(send)
                    if not isinstance(attempt, _Failed):
                        return attempt
                raise TimeoutError
        except (TimeoutError, Unavailable) as error:
            raise Undecided(
                "Redis did not answer in time; whether the call took effect is not known"
            ) from error

    async def ask(
        self,
        send: Callable[[], Awaitable[T]],
        *,
        none_is_absent: bool = False,
        first: First[T] | None = None,
    ) -> T:
        """Send a call that writes nothing, again if need be until the deadline; raises Undecided.

        `none_is_absent`: an answer of None says that there is no such customer.
        """
        give_up_at = _now() + DEADLINE_S if first is None else first.give_up_at
        try:
            if first is not None or self._reconciler.is_done:
                with suppress(Unknown):
                    return await self._ask(send, none_is_absent, first)
            await in_task()
            async with asyncio.timeout_at(give_up_at) as deadline:
                while not deadline.expired():
                    await self._reconcile()
                    try:
                        return await self._ask(send, none_is_absent)
                    except Unknown:
                        await asyncio.sleep(FATE_POLL_S)
                raise TimeoutError
        except (TimeoutError, Unavailable) as error:
            raise Undecided("Redis did not answer in time") from error

    async def ask_version(self, send: Callable[[], Awaitable[int]], *, known: int) -> int:
        """Ask for the version of documents that had one before. 0 says that Redis has lost them: they are put back
        first, since nobody may be told that there is no such key or feature. Raises Undecided.
        """
        version = await self.ask(send)
        if version == 0 < known:
            await in_task()
            await self._look_again()
            version = await self.ask(send) or known
        return version

    async def _ask(
        self, send: Callable[[], Awaitable[T]], none_is_absent: bool, first: First[T] | None = None
    ) -> T:
        rounds = self._reconciler.rounds if first is None else first.start.rounds
        answer = await (send() if first is None else first.reply)
        if none_is_absent if answer is None else _is_absent(answer):
            await self._raise_if_lost(rounds)
        return answer

    async def _attempt(
        self, send: Callable[[int], Awaitable[R]], first: First[R] | None = None
    ) -> "R | _Failed":
        """Send the call once, if Redis is reconciled."""
        if first is None:
            now_ms, rounds = self._clock.now_ms(), self._reconciler.rounds
            not_after = now_ms + CALL_WINDOW_MS
            if not self._reconciler.is_done:
                return _Failed(now_ms, not_after)
        else:
            start = first.start
            now_ms, not_after, rounds = start.sent_at, start.not_after, start.rounds
        try:
            reply = await (send(not_after) if first is None else first.reply)
            if _is_absent(reply):
                await self._raise_if_lost(rounds)
        except DataLost:
            return _Failed(now_ms, not_after, is_lost=True)
        except NotSent:
            return _Failed(now_ms, not_after)
        except Unknown:
            return _Failed(now_ms, not_after, in_doubt=True)
        if reply.status is Status.TOO_LATE:
            self._clock.correct(reply.time)
            return _Failed(now_ms, not_after)
        return reply

    async def _fate(
        self, deadline: asyncio.Timeout, partition: str, op_id: str, attempt: "_Failed"
    ) -> StreamId | None:
        """Return where the call stands in the journal, None if it has no effect and can have none any more."""
        since_ms = attempt.sent_at - CLOCK_MARGIN_MS
        while not deadline.expired():
            try:
                now_ms = await self._stream.now_ms(partition)
                self._clock.correct(now_ms)
                if now_ms > attempt.not_after:
                    found = await self._stream.find_op(partition, op_id, since_ms=since_ms)
                    return found or await asyncio.to_thread(self._find_in_sql, partition, op_id, since_ms)
            except (RedisError, OSError):
                await self._reconcile()
            await asyncio.sleep(FATE_POLL_S)
        raise TimeoutError

    async def _reconcile(self) -> None:
        try:
            await self._reconciler.run()
        except Unavailable:  # not back yet: the deadline decides how long we go on asking
            await asyncio.sleep(FATE_POLL_S)

    async def _raise_if_lost(self, rounds: int) -> None:
        """Raise NotSent if Redis may have lost the customer whom it does not know; what it lost is back by then.

        `rounds` are those of the reconciler before it was asked.
        """
        await in_task()
        try:
            await self._reconciler.watch()
        except (Unavailable, RedisError, OSError) as error:
            raise NotSent("Redis cannot say what it has") from error
        if self._reconciler.rounds != rounds:
            raise NotSent("Redis had lost what was asked about")

    async def _look_again(self) -> None:
        try:
            await self._reconciler.watch()
        except (Unavailable, RedisError, OSError):  # not back yet, as above
            await asyncio.sleep(FATE_POLL_S)

    def _find_in_sql(self, partition: str, op_id: str, since_ms: int) -> StreamId | None:
        return self._ledger.find_op(partition, op_id, since_ms=since_ms, until_ms=2**62)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_absent(reply: object) -> bool:
    return isinstance(reply, Reply) and reply.status is Status.ABSENT
