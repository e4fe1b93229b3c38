"""Callers in a process of their own: the product's library, the engine below it, and redis-py with the same script.

    python -m bench.callers REDIS_URL DATABASE_URL PREFIX

Works on demand: each order is a kind of call, and how many are in flight for how long.
"""

import asyncio
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import hiredis
import msgspec
import uvloop
from redis.asyncio import Redis

from bench import data
from bench.agent import answer_orders
from bench.commands import FEATURE, VALUE_NANOS
from bench.cpu import Meter as CpuMeter
from bench.samples import Sample, percentiles
from creditgate import Meter
from creditgate.client import TrackCall
from creditgate.core.decisions import Decision, Mode
from creditgate.engine import stepping
from creditgate.engine.at_once import Asked
from creditgate.engine.meanings import Repeated, Taking
from creditgate.engine.meter import Meter as EngineMeter
from creditgate.engine.stepping import Done
from creditgate.engine.usage import Usage
from creditgate.errors import CreditgateError
from creditgate.openings import UseCases
from creditgate.settings import Settings

CONNECTIONS_MAX = 1_024  # redis-py's own bound of 100 fails the rest of 256 callers

VALUE = Decimal(data.VALUE)

Ask = Callable[[str], Awaitable[object]]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Calls are for these customers in turn, or for any of so many; `items` is how many calls a batch has,
    `commands` a file of what redis-py is to send."""

    kind: str
    customers: list[str] | int
    at_a_time: int
    seconds: float
    items: int = 1
    commands: str = ""
    watch: Mapping[str, int] = {}


class Callers:
    """All kinds of calls, on the data of one prefix."""

    def __init__(self, meter: Meter, cases: UseCases, redis: "Redis", bare: "_Bare") -> None:
        self._meter, self._cases, self._redis, self._bare = meter, cases, redis, bare
        self._askers: dict[str, _Asker] = {}

    async def work(self, raw: Any) -> Mapping[str, Any]:
        """Do one order."""
        order = msgspec.convert(raw, Order)
        run = _Run(self._ask(order), order)
        measured: dict[str, Any] = msgspec.to_builtins(await run.measure())
        return measured

    def _ask(self, order: Order) -> Ask:
        if order.commands:
            commands: list[list[Any]] = msgspec.msgpack.decode(Path(order.commands).read_bytes())
            if order.kind == "bare":
                packed = cycle([hiredis.pack_command(tuple(command)) for command in commands])
                return lambda _: self._bare.send(next(packed))
            sent = cycle(commands)
            redis: Any = self._redis
            return lambda _: redis.execute_command(*next(sent))
        if order.kind == "batch":
            return self._batch(_names(order.customers), order.items)
        kinds: dict[str, Ask] = {
            "meter": self._track,
            "engine track": self._engine_track,
            "engine track again": self._engine_track_again,
            "engine check": self._engine_check,
        }
        return kinds[order.kind]

    def _track(self, customer_id: str) -> Awaitable[object]:
        return self._meter.track(customer_id=customer_id, feature_id=FEATURE, value=VALUE)

    def _batch(self, customers: Iterator[str], items: int) -> Ask:
        async def batch(_: str) -> None:
            calls = [
                TrackCall(customer_id=next(customers), feature_id=FEATURE, value=VALUE) for _ in range(items)
            ]
            outcomes = await self._meter.batch(calls)
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome

        return batch

    def _engine_track(self, customer_id: str) -> Awaitable[object]:
        """Track as the sidecar does with a body that it has not seen before."""
        return self._at_once(_Asker(self._cases.meter, _usage(customer_id)))

    def _engine_track_again(self, customer_id: str) -> Awaitable[object]:
        """Track what was tracked before, as the sidecar does with a body that it knows."""
        asker = self._askers.get(customer_id)
        if asker is None:
            asker = self._askers[customer_id] = _Asker(self._cases.meter, _usage(customer_id))
        return self._at_once(asker)

    def _at_once(self, asker: "_Asker") -> Awaitable[object]:
        ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if not self._cases.meter.at_once.track(asker, partial(_end, ended)):
            return _stepped(self._cases.meter.track(asker.usage))
        return ended

    def _engine_check(self, customer_id: str) -> Awaitable[Decision]:
        return _stepped(
            self._cases.meter.check(Usage("check", customer_id, FEATURE, None, VALUE_NANOS, Mode.REJECT))
        )


def _usage(customer_id: str) -> Usage:
    return Usage("track", customer_id, FEATURE, None, VALUE_NANOS, Mode.CAP)


class _Asker:
    """Who tracks, perhaps again and again, and wants the decision or the amounts."""

    def __init__(self, meter: EngineMeter, usage: Usage) -> None:
        self._meter = meter
        self.usage = usage
        self.means: Taking | None = None
        self.unkeyed = None

    def decided(self, decision: Decision, done: Done[object]) -> None:
        done(decision, None)

    def told(
        self, repeated: Repeated, amounts: Sequence[int], deltas: Sequence[int], done: Done[object]
    ) -> None:
        done((repeated.decision, amounts, deltas), None)

    def further(self, asked: Asked[Taking], done: Done[object]) -> None:
        stepping.run(self._meter.track(self.usage, asked=asked), done)


class _Bare(asyncio.Protocol):
    """The least that a client in Python can do: commands that are packed before, one write for those of a turn, futures
    that get the replies, unread. Who sends has no deadline, and nothing that was lost is noticed.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[object]] = deque()
        self._queued: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.popleft().set_result(reply)

    def send(self, command: bytes) -> "asyncio.Future[object]":
        if not self._queued:
            self._loop.call_soon(self._write)
        self._queued.append(command)
        waiter: asyncio.Future[object] = self._loop.create_future()
        self._waiting.append(waiter)
        return waiter

    def _write(self) -> None:
        commands, self._queued = self._queued, []
        self.transport.write(b"".join(commands))


def _names(customers: list[str] | int) -> Iterator[str]:
    if isinstance(customers, list):
        yield from cycle(customers)
    else:
        chance = random.Random(1)  # noqa: S311 — always the same
        while True:
            yield f"customer_{chance.randrange(customers)}"


def _stepped(work: Any) -> "asyncio.Future[Decision]":
    """Run a call without a task, as the fast lane does."""
    ended: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
    stepping.run(work, lambda *end: _end(ended, *end))
    return ended


def _end(ended: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if error is not None:
        ended.set_exception(error)
    else:
        ended.set_result(result)


class _Run:
    def __init__(self, ask: Ask, order: Order) -> None:
        self._ask, self._order = ask, order
        self._customers = _names(order.customers)
        self._times: list[float] = []
        self._failed: Counter[str] = Counter()

    async def measure(self) -> Sample:
        """Call from so many tasks until the time is over."""
        meters = {name: CpuMeter(pid) for name, pid in self._order.watch.items()}
        began = time.perf_counter()
        self._until = began + self._order.seconds
        await asyncio.gather(*(self._caller() for _ in range(self._order.at_a_time)))
        seconds = time.perf_counter() - began
        return Sample(
            answers=len(self._times) * self._order.items,
            seconds=seconds,
            latency_ms=percentiles(self._times),
            spent={name: meter.spent() for name, meter in meters.items()},
            failed=self._failed,
        )

    async def _caller(self) -> None:
        while (since := time.perf_counter()) < self._until:
            try:
                await self._ask(next(self._customers))
            except CreditgateError as error:
                self._failed[error.code] += 1
            else:
                self._times.append(time.perf_counter() - since)


async def _serve(settings: Settings) -> None:
    assert settings.redis is not None
    redis = Redis.from_url(settings.redis, max_connections=CONNECTIONS_MAX)
    meter = Meter(redis=settings.redis, database=settings.database, prefix=settings.prefix, background=False)
    _, bare = await asyncio.get_running_loop().create_unix_connection(
        _Bare, settings.redis.removeprefix("unix://")
    )
    async with redis, meter, data.opened(settings) as (_, cases):
        await answer_orders(Callers(meter, cases, redis, bare).work)


if __name__ == "__main__":
    redis_url, database, prefix = sys.argv[1:]
    uvloop.run(_serve(Settings(redis=redis_url, database=database, prefix=prefix)))
