"""What a request costs: CPU time of the server per check and per track, in the fast lane and through Starlette.

    python bench/lanes.py

Two sidecars, alike but for the lane, are asked in turns over kept connections, so that what else the machine does
meets both. The figures are the CPU time of the sidecar's process (Valkey has its own), with everything that it does
besides. Prints medians and their spread, then one line of JSON. Takes under a minute.
"""

import argparse
import asyncio
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

CONNECTIONS = (1, 32)
CUSTOMERS = 100
START_CLI = "from creditgate.cli import main; main()"
LANES = {
    "fast": START_CLI,
    "plain": f"from creditgate import server; server.fast_lane = lambda *_: 'httptools'; {START_CLI}",
}
BODIES = {  # so little is tracked that the free plan's credits last
    "check": '{"customer_id":"c%d","feature_id":"basic_messages","required_balance":1}',
    "track": '{"customer_id":"c%d","feature_id":"basic_messages","value":0.0001}',
}


class Server(NamedTuple):
    """One sidecar."""

    pid: int
    host: str
    port: int
    key: str

    def request(self, verb: str, body: str) -> bytes:
        return (
            f"POST /v1/{verb} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\naccept: application/json\r\nuser-agent: bench\r\n"
            f"x-api-version: 2.3.0\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()


class Asking(asyncio.Protocol):
    """One connection: asks, waits for the whole answer, asks again."""

    def __init__(self, requests: Iterator[bytes], until: float, answered: Callable[[], None]) -> None:
        self.requests = requests
        self.until = until
        self.answered = answered
        self.ended = asyncio.get_running_loop().create_future()
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            head, _, body = data.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), data
            self.missing = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]) - len(body)
        else:
            self.missing -= len(data)
        if self.missing:
            return
        self.answered()
        if time.monotonic() < self.until:
            self.transport.write(next(self.requests))
        else:
            self.transport.close()
            self.ended.set_result(None)


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


async def cost(server: Server, verb: str, connections: int, seconds: float) -> tuple[float, float]:
    """Ask for so long; returns microseconds of CPU per request, and requests per second."""
    before, began = cpu_ns(server.pid), time.monotonic()
    count = await ask(server, verb, connections, seconds)
    return (cpu_ns(server.pid) - before) / count / 1000, count / (time.monotonic() - began)


async def ask(server: Server, verb: str, connections: int, seconds: float) -> int:
    """Ask for so long, one call at a time on each connection; returns how many were answered."""
    count = 0

    def answered() -> None:
        nonlocal count
        count += 1

    def requests(number: int) -> Iterator[bytes]:
        while True:
            number = (number + 7) % CUSTOMERS
            yield server.request(f"balances.{verb}", BODIES[verb] % number)

    loop = asyncio.get_running_loop()
    began = time.monotonic()
    asking: list[Asking] = []
    for number in range(connections):
        _, protocol = await loop.create_connection(
            lambda number=number: Asking(requests(number), began + seconds, answered),
            server.host,
            server.port,
        )
        asking.append(protocol)
    await asyncio.gather(*(protocol.ended for protocol in asking))
    return count


@contextmanager
def started(program: str, *, workers: int = 0) -> Iterator[Server]:
    """Yield a sidecar with the tutorial's catalog and some customers, in a directory that is removed."""
    directory = Path(tempfile.mkdtemp(prefix="cgb"))
    command = [sys.executable, "-c", program, "serve", "--demo", "--workers", str(workers)]
    command += ["--port", "0", "--data-dir", str(directory)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)  # noqa: S603
    try:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().split()[-1])
        key = (directory / "secret_key").read_text().strip()
        server = Server(process.pid, str(address.hostname), int(address.port or 0), key)
        for number in range(CUSTOMERS):
            _make_customer(server, f"c{number}")
        yield server
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)


def _make_customer(server: Server, customer_id: str) -> None:
    url = f"http://{server.host}:{server.port}/v1/customers.get_or_create"
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    body = json.dumps({"customer_id": customer_id}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        answer.read()


async def main(rounds: int, seconds: float) -> None:
    """Measure each case in every lane, in turns, and print it."""
    cases = [(verb, connections) for connections in CONNECTIONS for verb in BODIES]
    costs: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = {
        case: {lane: [] for lane in LANES} for case in cases
    }
    with ExitStack() as servers:
        running = {lane: servers.enter_context(started(program)) for lane, program in LANES.items()}
        for number in range(-1, rounds):
            for verb, connections in cases:
                for lane, server in running.items():
                    measured = await cost(server, verb, connections, seconds)
                    if number >= 0:  # the first round warms up
                        costs[verb, connections][lane].append(measured)
    print(f"{'':12}{'fast us':>18}{'plain us':>20}{'ratio':>8}{'fast/s':>9}{'plain/s':>9}")
    results = []
    for (verb, connections), by_lane in costs.items():
        us = {lane: sorted(one[0] for one in measured) for lane, measured in by_lane.items()}
        median = {lane: statistics.median(values) for lane, values in us.items()}
        per_s = {lane: statistics.median(one[1] for one in measured) for lane, measured in by_lane.items()}
        spread = {lane: f"{median[lane]:.0f} ({us[lane][0]:.0f}-{us[lane][-1]:.0f})" for lane in us}
        ratio = median["fast"] / median["plain"]
        print(
            f"{verb} c={connections:<4}{spread['fast']:>18}{spread['plain']:>20}{ratio:>8.2f}"
            f"{per_s['fast']:>9.0f}{per_s['plain']:>9.0f}"
        )
        results.append({"verb": verb, "connections": connections, "us": median, "per_s": per_s})
    print(json.dumps({"python": platform.python_version(), "results": results}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.seconds))
