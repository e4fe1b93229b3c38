"""The load client: a process that sends ready-made requests over kept connections and times each answer.

Closed loop: every connection sends, waits for the whole answer, sends again. Open loop: requests are due at a fixed
rate, and each is timed from when it was due, whether or not a connection was free (no coordinated omission).
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import hiredis
import msgspec

from bench.agent import work_on_demand
from bench.cpu import Meter, Spent, holders
from bench.samples import Sample, percentiles

TICK_S = 0.0005  # how often an open loop looks what is due
POLL_S = 0.005  # how often it looks whether the last was answered
STOP_WAITING_S = 10.0
ACCEPTED_S = 2.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `address` is HOST:PORT or the path of a socket; `watch` names roots of process trees."""

    protocol: str  # "http" or "resp"
    address: str
    payloads: str  # a file of a list of bytes
    connections: int
    seconds: float
    depth: int = 1  # requests that each connection sends in one write
    rate: float | None = None  # requests a second, of an open loop
    watch: Mapping[str, int] = {}


class Connection(asyncio.Protocol):
    """One connection; `answered` is told of each answer, None or why it is a failure."""

    def __init__(self, answered: Callable[["Connection", str | None], None]) -> None:
        self.answered = answered
        self.since: deque[float] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:
        while self.since:
            self.answered(self, "connection lost")

    def send(self, payload: bytes, *since: float) -> None:
        """Send requests that wait since then."""
        self.since.extend(since)
        if self.transport.is_closing():
            self.connection_lost(None)
        else:
            self.transport.write(payload)


class HttpConnection(Connection):
    """Expects one answer at a time."""

    def __init__(self, answered: Callable[[Connection, str | None], None]) -> None:
        super().__init__(answered)
        self.got = b""

    def data_received(self, data: bytes) -> None:
        if self.got:
            data = self.got + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0:
            self.got = data
            return
        at = data.lower().find(b"content-length:", 0, head_end) + 15
        if len(data) < head_end + 4 + int(data[at : data.find(b"\r", at)]):
            self.got = data
            return
        self.got = b""
        status = data[9:12]
        if status != b"200":
            self.answered(self, status.decode())
        elif b'"undecided"' in data:
            self.answered(self, "undecided")
        else:
            self.answered(self, None)


class RespConnection(Connection):
    """Expects replies of scripts: a list that begins with their status, 1 or 0; or of plain commands."""

    def __init__(self, answered: Callable[[Connection, str | None], None]) -> None:
        super().__init__(answered)
        self.reader = hiredis.Reader()

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            is_good = reply[0] in (0, 1) if isinstance(reply, list) else not isinstance(reply, Exception)
            self.answered(self, None if is_good else str(reply)[:60])


class Run(ABC):
    """What is common to both loops: connections, answers, times."""

    def __init__(self, order: Order) -> None:
        self.order = order
        payloads: list[bytes] = msgspec.msgpack.decode(Path(order.payloads).read_bytes(), type=list[bytes])
        self.payloads: Iterator[bytes] = cycle(payloads)
        self.times: list[float] = []
        self.failed: Counter[str] = Counter()
        self.in_flight = 0
        self.ended = asyncio.get_running_loop().create_future()

    async def measure(self) -> Sample:
        """Connect, then run and count from the first request to the last answer."""
        connections = [await self._connect() for _ in range(self.order.connections)]
        workers = await self._workers()
        meters = {name: Meter(pid) for name, pid in self.order.watch.items()}
        began = time.perf_counter()
        await self.drive(connections, began)
        seconds = time.perf_counter() - began
        spent: dict[str, Spent] = {name: meter.spent(workers.get(name)) for name, meter in meters.items()}
        for connection in connections:
            connection.transport.close()
        return Sample(
            answers=len(self.times),
            seconds=seconds,
            latency_ms=percentiles(self.times),
            spent=spent,
            failed={why: times for why, times in self.failed.items() if times},
        )

    @abstractmethod
    async def drive(self, connections: list[Connection], began: float) -> None:
        """Ask until the time is over, and return when all is answered."""

    def answered(self, connection: Connection, failure: str | None) -> None:
        """Note one answer."""
        self.in_flight -= 1
        since = connection.since.popleft()
        if failure is None:
            self.times.append(time.perf_counter() - since)
        else:
            self.failed[failure] += 1

    async def _connect(self) -> Connection:
        loop, address = asyncio.get_running_loop(), self.order.address
        kind = HttpConnection if self.order.protocol == "http" else RespConnection
        if address.startswith("/"):
            _, connection = await loop.create_unix_connection(lambda: kind(self.answered), address)
        else:
            host, _, port = address.rpartition(":")
            _, connection = await loop.create_connection(lambda: kind(self.answered), host, int(port))
        return connection

    async def _workers(self) -> dict[str, frozenset[int]]:
        """Return which processes of the servers have accepted our connections."""
        if self.order.protocol != "http":
            return {}
        port = int(self.order.address.rpartition(":")[2])
        deadline = time.monotonic() + ACCEPTED_S
        while True:
            await asyncio.sleep(0.02)  # a process accepts several of them in one go
            found = {name: holders(pid, port) for name, pid in self.order.watch.items()}
            if any(found.values()) or time.monotonic() > deadline:
                return {name: workers for name, workers in found.items() if workers}


class ClosedLoop(Run):
    """Each connection asks again when it was answered."""

    async def drive(self, connections: list[Connection], began: float) -> None:
        self.until = began + self.order.seconds
        for connection in connections:
            self.ask(connection)
        await asyncio.wait_for(self.ended, self.order.seconds + STOP_WAITING_S)

    def answered(self, connection: Connection, failure: str | None) -> None:
        super().answered(connection, failure)
        if connection.since:
            return
        if time.perf_counter() < self.until and not connection.transport.is_closing():
            self.ask(connection)
        elif not self.in_flight and not self.ended.done():
            self.ended.set_result(None)

    def ask(self, connection: Connection) -> None:
        depth = self.order.depth
        self.in_flight += depth
        now = time.perf_counter()
        if depth == 1:
            connection.send(next(self.payloads), now)
        else:
            together = b"".join([next(self.payloads) for _ in range(depth)])
            connection.send(together, *[now] * depth)


class OpenLoop(Run):
    """Requests are due at a rate; what finds no free connection waits, and its time runs."""

    async def drive(self, connections: list[Connection], began: float) -> None:
        assert self.order.rate is not None
        self.free = deque(connections)
        self.waiting: deque[float] = deque()
        total, sent = int(self.order.rate * self.order.seconds), 0
        async with _ticking() as tick:
            while sent < total:
                due = min(int((time.perf_counter() - began) * self.order.rate) + 1, total)
                while sent < due:
                    self.waiting.append(began + sent / self.order.rate)
                    sent += 1
                self.send_waiting()
                tick.clear()
                await tick.wait()
        deadline = time.perf_counter() + STOP_WAITING_S
        while (self.in_flight or self.waiting) and time.perf_counter() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        self.failed["never answered"] += self.in_flight + len(self.waiting)

    def answered(self, connection: Connection, failure: str | None) -> None:
        super().answered(connection, failure)
        if not connection.transport.is_closing():
            self.free.append(connection)
            self.send_waiting()

    def send_waiting(self) -> None:
        while self.waiting and self.free:
            self.in_flight += 1
            self.free.popleft().send(next(self.payloads), self.waiting.popleft())


@asynccontextmanager
async def _ticking() -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set each TICK_S: by a thread that sleeps.

    The loop itself would not sleep. uvloop counts in whole milliseconds, and what is due in half of one is due at once:
    the client would take a processor for itself, at whatever rate it sends.
    """
    loop, tick, is_over = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def run() -> None:
        while not is_over.is_set():
            time.sleep(TICK_S)
            loop.call_soon_threadsafe(tick.set)

    running = asyncio.create_task(asyncio.to_thread(run))
    try:
        yield tick
    finally:
        is_over.set()
        await running


async def work(raw: Any) -> Mapping[str, Any]:
    """Do one order."""
    order = msgspec.convert(raw, Order)
    run = ClosedLoop(order) if order.rate is None else OpenLoop(order)
    measured: dict[str, Any] = msgspec.to_builtins(await run.measure())
    return measured


if __name__ == "__main__":
    work_on_demand(work)
