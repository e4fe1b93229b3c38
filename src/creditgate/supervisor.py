"""One sidecar of several processes: this one forks the others, replaces those that die, and ends them in order.

It forks before it has a thread, an event loop or a connection, and never gets any: so what a child inherits is the
imported code and the listening sockets. Between it and each child there is one pipe. On it the child says that it is
ready, or why it cannot be; and the supervisor tells it to end. A child whose pipe breaks off knows that the supervisor
was killed, and dies at once, as if the kill -9 had been its own: what is not in SQL yet is in Redis.

Signals are for the supervisor alone. Ctrl-C, and service managers, send theirs to every process, and the history must
outlive the workers.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

import structlog
import uvloop

from creditgate.errors import CreditgateError, StartupError
from creditgate.telemetry import logger

FORK = multiprocessing.get_context("fork")
STOP = "stop"
SIGNALS = (signal.SIGTERM, signal.SIGINT)

STOP_SECONDS_MAX = 20.0
"""From the order to end until SIGKILL, for a worker: what is in flight has half of that."""

RESTART_WAIT_SECONDS_MIN = 0.1
RESTART_WAIT_SECONDS_MAX = 5.0
"""The wait doubles from the one to the other, and begins again with one that lived for STEADY_SECONDS."""

STEADY_SECONDS = 60.0

log = logger(__name__)


class Line:
    """A child's end of the pipe, from the first moment of its event loop.

    `orphaned` is called when the supervisor was killed, before we die.
    """

    def __init__(self, pipe: Connection) -> None:
        self.orphaned: Callable[[], object] = lambda: None
        self._pipe = pipe
        self._stopping = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), self._on_order)

    def ready(self, answer: Any = None) -> None:
        """Say that we are ready; `answer` is what the supervisor waits for."""
        self._pipe.send(answer)

    async def stopped(self) -> None:
        """Return when we are to end."""
        await self._stopping.wait()

    def _on_order(self) -> None:
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            self.orphaned()
            os._exit(1)
        self._stopping.set()


Work = Callable[[Line], Coroutine[Any, Any, None]]


class Place:
    """What one process of ours does, whichever process that is at the time."""

    def __init__(self, name: str, work: Work) -> None:
        self.name = name
        self.restart_at = 0.0  # once it has died
        self.work = work
        self._child: tuple[ForkProcess, Connection] | None = None
        self._is_ready = False
        self._began = 0.0
        self._wait_seconds = RESTART_WAIT_SECONDS_MIN

    @property
    def process(self) -> ForkProcess | None:
        """The process, None while there is none."""
        return self._child and self._child[0]

    @property
    def is_ready(self) -> bool:
        """Whether the process, which must be there, has said so, or has said why it cannot be."""
        return self._is_ready or self.pipe.poll()

    @property
    def sentinel(self) -> int:
        """What is readable once the process, which must be there, has ended."""
        assert self._child is not None
        return self._child[0].sentinel

    @property
    def pipe(self) -> Connection:
        """Our end of the pipe to the process, which must be there."""
        assert self._child is not None
        return self._child[1]

    def fork(self, others: Iterable["Place"]) -> None:
        """Start a process here. It inherits our ends of the pipes to all others, and closes them."""
        assert threading.active_count() == 1, (
            "a lock that another thread holds would stay locked in the child"
        )
        ours, theirs = FORK.Pipe()
        inherited = [ours, *(other.pipe for other in others if other.process)]
        process = FORK.Process(target=_run, args=(self.name, self.work, theirs, inherited))
        process.start()
        theirs.close()
        self._child, self._is_ready, self._began = (process, ours), False, time.monotonic()

    def answer(self) -> Any:
        """Wait until the process is ready, and return what it says then; StartupError says why it cannot be."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            raise StartupError(
                f"The process {self.name} ended while it started, with code {self.bury()}; the log says why."
            ) from None
        if isinstance(answer, CreditgateError):
            raise answer
        self._is_ready = True
        return answer

    def ask_to_end(self) -> None:
        """Tell the process to end what it has begun; one that has not yet begun is killed."""
        if self._child is not None and self.is_ready:
            with suppress(OSError):
                self.pipe.send(STOP)
        else:
            self.kill()

    def kill(self) -> None:
        """End the process at once, if there is one."""
        if self.process is not None:
            self.process.kill()

    def bury(self) -> int | None:
        """Return the code that the process ended with, and work out when there is to be another one."""
        assert self.process is not None
        self.process.join()
        code = self.process.exitcode
        self.pipe.close()
        self._child = None
        if time.monotonic() - self._began >= STEADY_SECONDS:
            self._wait_seconds = RESTART_WAIT_SECONDS_MIN
        self.restart_at = time.monotonic() + self._wait_seconds
        self._wait_seconds = min(self._wait_seconds * 2, RESTART_WAIT_SECONDS_MAX)
        return code


class Supervisor:
    """The places of one sidecar. `signals` has the number of each signal that came."""

    def __init__(self, signals: Connection) -> None:
        self._signals = signals
        self._places: list[Place] = []

    def start(self, places: Sequence[Place]) -> list[Any] | None:
        """Start them and return what they answer when all are ready; None if we were told to stop meanwhile.

        Raises StartupError if one cannot start.
        """
        for place in places:
            place.fork(self._places)
            self._places.append(place)
        answers = []
        for place in places:
            wait([self._signals, place.pipe])
            if self._signal() is not None:
                return None
            answers.append(place.answer())
        return answers

    def watch(self) -> None:
        """Start another process in the place of each that dies, until we are told to stop."""
        while self._signal() is None:
            due = [place.restart_at for place in self._places if not place.process]
            timeout = max(0.0, min(due) - time.monotonic()) if due else None
            wait([self._signals, *(place.sentinel for place in self._places if place.process)], timeout)
            for place in self._places:
                if place.process is not None and not place.process.is_alive():
                    log.error("process_died", place=place.name, code=place.bury())
                elif place.process is None and place.restart_at <= time.monotonic():
                    place.fork(self._places)

    def revive(self, place: Place, *, seconds_max: float) -> None:
        """Have another process in the place of one that died, if it is ready in time: it ends what is left to do."""
        if place.process is not None and not place.process.is_alive():
            log.error("process_died", place=place.name, code=place.bury())
        if place.process is None:
            place.fork(self._places)
        if not place.is_ready:
            wait([self._signals, place.pipe], seconds_max)

    def end(self, places: Sequence[Place], *, seconds_max: float | None) -> None:
        """Return when none of them runs any more. They are killed when the time is over, or at the next Ctrl-C."""
        for place in places:
            place.ask_to_end()
        deadline = None if seconds_max is None else time.monotonic() + seconds_max
        while running := [place for place in places if place.process]:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            came = wait([self._signals, *(place.sentinel for place in running)], timeout)
            is_over = not came or self._signal() == signal.SIGINT
            for place in running:
                if place.sentinel in came:
                    place.bury()
                elif is_over:
                    place.kill()
            deadline = None if is_over else deadline

    def _signal(self) -> int | None:
        """Return the next signal that came, None if there is none."""
        return self._signals.recv() if self._signals.poll() else None


@contextmanager
def supervising() -> Iterator[Supervisor]:
    """Yield a supervisor that hears SIGTERM and SIGINT, as long as this lasts."""
    heard, told = FORK.Pipe(duplex=False)
    before = {number: signal.signal(number, lambda number, _: told.send(number)) for number in SIGNALS}
    try:
        yield Supervisor(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        heard.close()
        told.close()


def _run(name: str, work: Work, pipe: Connection, inherited: Iterable[Connection]) -> None:
    """Do the work of a child, from its first moment to its end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for other in inherited:
        other.close()
    structlog.contextvars.bind_contextvars(process=name)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_with_line(work, pipe))
    except CreditgateError as error:
        log.error("process_failed", reason=error.message)
        with suppress(OSError):
            pipe.send(StartupError(error.message))
        sys.exit(1)
    except Exception:
        log.exception("process_failed")
        sys.exit(1)


async def _with_line(work: Work, pipe: Connection) -> None:
    await work(Line(pipe))
