"""A process that works on demand, so that what it spends is its own: one line of JSON asks, one line answers."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import uvloop

CHECKOUT = Path(__file__).resolve().parent.parent
STOP_S = 10.0


class Agent:
    """The other side of `work_on_demand` in a module that is run as a process; with `source`, on another checkout."""

    def __init__(self, module: str, *arguments: str, source: Path = CHECKOUT) -> None:
        command = [sys.executable, "-m", module, *arguments]
        environment = {**os.environ, "PYTHONPATH": f"{source / 'src'}{os.pathsep}{CHECKOUT}"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=CHECKOUT
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, order: Mapping[str, Any]) -> Any:
        """Return what it answers; SystemExit if it ended instead, having said why on stderr."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a process of the bench has ended: {self._process.args!r}")
        return msgspec.json.decode(line)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def work_on_demand(work: Callable[[Any], Awaitable[Mapping[str, Any]]]) -> None:
    """Answer orders until stdin ends."""
    uvloop.run(answer_orders(work))


async def answer_orders(work: Callable[[Any], Awaitable[Mapping[str, Any]]]) -> None:
    """Answer orders from inside an event loop that already has what they need."""
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        answer = await work(msgspec.json.decode(line))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
