"""One effect for one call, whatever happens to the reply.

A call carries `not_after`: a moment of Redis's clock past which it can no longer take effect. If its reply does not
arrive, we wait for that moment, look for the op id in the journal (the stream first, then SQL, since what is in between
is in both), and send the call again only if it is not there.

Each loop looks at the deadline itself: in Python 3.11, the cancellation that `asyncio.timeout` sends may be swallowed
by an `asyncio.wait_for` under way, and redis-py sends every command in one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.balances.clock import RedisClock
from creditgate.balances.store import DataLost, NotSent, Reply, Unknown, Written
from creditgate.balances.stream import JournalStream
from creditgate.core.decisions import Status
from creditgate.core.journal import StreamId
from creditgate.engine.reconciler import Reconciler
from creditgate.errors import Unavailable, Undecided
from creditgate.ledger.store import Ledger

DEADLINE_S = 0.8  # of one call in all: an SDK waits 5 s, a user less
EFFECT_WINDOW_MS = 300  # of one attempt, so that a second one fits into the deadline
FATE_POLL_S = 0.02
CLOCK_MARGIN_MS = 2_000  # how far our estimate of Redis's clock may be off when we look for a call

R = TypeVar("R", Reply, Written)
T = TypeVar("T")


class Applied(NamedTuple):
    """The call took effect, but its reply was lost: where it stands in the journal."""

    stream_id: StreamId


class Attempts:
    """Sends calls that write, at most twice, each with one effect at most."""

    def __init__(
        self, redis: "Redis", clock: RedisClock, stream: JournalStream, ledger: Ledger, reconciler: Reconciler
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._stream = stream
        self._ledger = ledger
        self._reconciler = reconciler

    async def write(self, partition: str, op_id: str, send: Callable[[int], Awaitable[R]]) -> R | Applied:
        """Send a call of this op id: `send` is given `not_after`. Returns its reply, or that it was applied.

        Raises Undecided if the deadline passed before the answer was known.
        """
        try:
            async with asyncio.timeout(DEADLINE_S) as deadline:
                while not deadline.expired():
                    if not self._reconciler.is_done:
                        await self._reconcile()
                        continue
                    rounds = self._reconciler.rounds
                    since_ms = self._clock.now_ms() - CLOCK_MARGIN_MS
                    not_after = self._clock.now_ms() + EFFECT_WINDOW_MS
                    try:
                        async with asyncio.timeout(EFFECT_WINDOW_MS / 1000):
                            reply = await send(not_after)
                    except DataLost:
                        await self._look_again()
                        continue
                    except NotSent:
                        await self._reconcile()
                        continue
                    except (Unknown, TimeoutError):
                        stream_id = await self._fate(deadline, partition, op_id, since_ms, not_after)
                        if stream_id is not None:
                            return Applied(stream_id)
                        continue
                    if reply.status is Status.TOO_LATE:
                        self._clock.correct(reply.time)
                    elif reply.status is not Status.ABSENT or not await self._was_lost(rounds):
                        return reply
                raise TimeoutError
        except (TimeoutError, Unavailable) as error:
            raise Undecided(
                "Redis did not answer in time; whether the call took effect is not known"
            ) from error

    async def ask(self, send: Callable[[], Awaitable[T]], *, none_is_absent: bool = False) -> T:
        """Send a call that writes nothing, again if need be until the deadline; raises Undecided.

        `none_is_absent`: an answer of None says that there is no such customer.
        """
        try:
            async with asyncio.timeout(DEADLINE_S) as deadline:
                while not deadline.expired():
                    if not self._reconciler.is_done:
                        await self._reconcile()
                        continue
                    rounds = self._reconciler.rounds
                    try:
                        async with asyncio.timeout(EFFECT_WINDOW_MS / 1000):
                            reply = await send()
                    except NotSent:
                        await self._reconcile()
                        continue
                    except (Unknown, TimeoutError):
                        await asyncio.sleep(FATE_POLL_S)
                        continue
                    is_absent = none_is_absent if reply is None else _is_absent(reply)
                    if not is_absent or not await self._was_lost(rounds):
                        return reply
                raise TimeoutError
        except (TimeoutError, Unavailable) as error:
            raise Undecided("Redis did not answer in time") from error

    async def _fate(
        self, deadline: asyncio.Timeout, partition: str, op_id: str, since_ms: int, not_after: int
    ) -> StreamId | None:
        while not deadline.expired():
            try:
                if await self._clock.read(self._redis) > not_after:
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

    async def _was_lost(self, rounds: int) -> bool:
        """Say whether Redis may have lost the customer whom it does not know; by now, what it lost is back.

        `rounds` are those of the reconciler before it was asked.
        """
        await self._look_again()
        return self._reconciler.rounds != rounds

    async def _look_again(self) -> None:
        try:
            await self._reconciler.watch()
        except (Unavailable, RedisError, OSError):  # not back yet, as above
            await asyncio.sleep(FATE_POLL_S)

    def _find_in_sql(self, partition: str, op_id: str, since_ms: int) -> StreamId | None:
        return self._ledger.find_op(partition, op_id, since_ms=since_ms, until_ms=2**62)


def _is_absent(reply: object) -> bool:
    return isinstance(reply, Reply) and reply.status is Status.ABSENT
