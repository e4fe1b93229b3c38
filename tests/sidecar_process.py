"""A real sidecar for tests: the command line in a process of its own, in a short directory, on a port it picks.

That process is forked from one that has imported everything. Where a program is named it is started as users start it:
a second later.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.forked import ForkedProgram

START_SECONDS_MAX = 40.0
STOP_SECONDS_MAX = 30.0
CALL_SECONDS_MAX = 20.0

MAIN = [sys.executable, "-c", "from creditgate.cli import main; main()"]
READY = "creditgate ready on "


class SidecarProcess:
    """One `creditgate serve`. `join` starts another on the same data. `main` is the program, if not ours, forked."""

    def __init__(
        self, *, directory: Path | None = None, arguments: Sequence[str] = (), main: Sequence[str] = ()
    ) -> None:
        self.owns_directory = directory is None
        self.main = list(main)
        self.directory = directory or Path(tempfile.mkdtemp(prefix="cgs"))
        self.arguments = list(arguments)
        self.url = ""
        self.process: subprocess.Popen[str] | ForkedProgram | None = None

    @property
    def key(self) -> str:
        return (self.directory / "secret_key").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def start(self) -> "SidecarProcess":
        """Return when it has said that it answers."""
        self.process = self._begun("serve", "--port", "0", "--data-dir", str(self.directory), *self.arguments)
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
            assert line.startswith(READY), (self.directory / "log").read_text()[-4000:]
        except BaseException:
            self.close()
            raise
        self.url = line.removeprefix(READY).strip()
        return self

    def _begun(self, *arguments: str) -> subprocess.Popen[str] | ForkedProgram:
        log = self.directory / "log"
        if not self.main:
            return ForkedProgram(arguments, stderr=log, cwd=self.directory)
        with log.open("ab") as stderr:
            return subprocess.Popen(
                [*self.main, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=self.directory
            )

    def join(self, *arguments: str, main: Sequence[str] = ()) -> "SidecarProcess":
        """Start a second sidecar on this one's Redis and SQL."""
        servers = [
            "--redis",
            f"unix://{self.directory}/valkey.sock",
            "--database",
            f"sqlite:///{self.directory}/ledger.db",
        ]
        return SidecarProcess(directory=self.directory, arguments=[*servers, *arguments], main=main).start()

    def call(self, route: str, body: Any = None, *, headers: dict[str, str] | None = None) -> httpx.Response:
        """POST one call and return the answer."""
        return httpx.post(
            f"{self.url}/v1/{route}",
            json={} if body is None else body,
            headers=self.headers | (headers or {}),
            timeout=CALL_SECONDS_MAX,
        )

    def ask(self, route: str, body: Any = None) -> Any:
        """POST one call that must be answered 200, and return what it says."""
        answer = self.call(route, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def kill(self) -> None:
        """End it with SIGKILL, as a whole: its other processes end when the one that was started does; so does Valkey.

        Those that were stopped go on before, since only who runs sees that.
        """
        assert self.process is not None
        others = {child for pid in self.pids for child in _children(pid)}
        self.process.kill()
        self.ended()
        _send(signal.SIGCONT, others)
        wait_until(lambda: not any(is_alive(pid) for pid in others), what="the other processes end")

    def stop(self) -> int:
        """End it with SIGTERM; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def signal(self, number: signal.Signals) -> None:
        """Send all of its own processes a signal, such as SIGSTOP."""
        for pid in self.pids:
            os.kill(pid, number)

    def kill_valkey(self) -> None:
        """End the embedded server with SIGKILL; the sidecar brings it back."""
        os.kill(self.valkey_pid, signal.SIGKILL)

    @property
    def pids(self) -> list[int]:
        """Its own processes, first the one that was started: not Valkey's."""
        assert self.process is not None
        main = self.process.pid
        return [main, *(pid for pid in _children(main) if not _is_valkey(pid))]

    @property
    def worker_pids(self) -> list[int]:
        """The processes that only answer calls."""
        return [pid for pid in self.pids[1:] if not _children(pid)]

    @property
    def background_pid(self) -> int:
        """The process that has the embedded server, and works in the background."""
        [pid] = (pid for pid in self.pids if any(_is_valkey(child) for child in _children(pid)))
        return pid

    @property
    def valkey_pid(self) -> int:
        [pid] = _children(self.background_pid)
        return pid

    def verify(self) -> subprocess.CompletedProcess[str]:
        """Run `creditgate verify` on the data."""
        return run("verify", "--data-dir", str(self.directory))

    def close(self) -> None:
        """End it, if it runs, and remove its directory. Nothing is left, even if it does not end as it should."""
        family = self.pids if self.process is not None and self.process.poll() is None else []
        try:
            if family:
                self.kill()
        finally:
            _send(signal.SIGKILL, filter(is_alive, family))
            if self.process is not None:
                self.ended()
            if self.owns_directory:
                shutil.rmtree(self.directory, ignore_errors=True)

    def ended(self) -> int:
        """Return its exit code when it has ended."""
        assert self.process is not None
        code = self.process.wait(STOP_SECONDS_MAX)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command line of creditgate to its end, forked."""
    with tempfile.NamedTemporaryFile("r") as stderr:
        program = ForkedProgram(arguments, stderr=Path(stderr.name), cwd=Path.cwd())
        with program.stdout as stdout:
            said = stdout.read()
        return subprocess.CompletedProcess(arguments, program.wait(STOP_SECONDS_MAX), said, stderr.read())


def run_afresh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command line of creditgate to its end, as users do: in an interpreter that has imported nothing yet."""
    return subprocess.run(
        [*MAIN, *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=STOP_SECONDS_MAX + START_SECONDS_MAX,
    )


def is_alive(pid: int) -> bool:
    """Say whether a process runs: one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, number)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_valkey(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().strip() in ("valkey-server", "redis-server")


def wait_until(condition: Any, *, what: str, seconds: float = 20.0) -> None:
    """Return once the condition holds; fails with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
