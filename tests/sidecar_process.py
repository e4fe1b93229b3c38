"""A real sidecar for tests: the command line in a process of its own, in a short directory, on a port it picks."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

START_SECONDS_MAX = 40.0
STOP_SECONDS_MAX = 30.0
CALL_SECONDS_MAX = 20.0

MAIN = [sys.executable, "-c", "from creditgate.cli import main; main()"]
READY = "creditgate ready on "


class SidecarProcess:
    """One `creditgate serve`. `join` starts another on the same data. `main` is the program, if not ours as it is."""

    def __init__(
        self, *, directory: Path | None = None, arguments: Sequence[str] = (), main: Sequence[str] = MAIN
    ) -> None:
        self.owns_directory = directory is None
        self.main = list(main)
        self.directory = directory or Path(tempfile.mkdtemp(prefix="cgs"))
        self.arguments = list(arguments)
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    @property
    def key(self) -> str:
        return (self.directory / "secret_key").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def start(self) -> "SidecarProcess":
        """Return when it has said that it answers."""
        command = [*self.main, "serve", "--port", "0", "--data-dir", str(self.directory), *self.arguments]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.directory
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(READY), (self.directory / "log").read_text()[-4000:]
        self.url = line.removeprefix(READY).strip()
        return self

    def join(self, *arguments: str, main: Sequence[str] = MAIN) -> "SidecarProcess":
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
        """End it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.ended()

    def stop(self) -> int:
        """End it with SIGTERM; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def kill_valkey(self) -> None:
        """End the embedded server with SIGKILL; the sidecar brings it back."""
        os.kill(self.valkey_pid, signal.SIGKILL)

    @property
    def valkey_pid(self) -> int:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def verify(self) -> subprocess.CompletedProcess[str]:
        """Run `creditgate verify` on the data."""
        return run("verify", "--data-dir", str(self.directory))

    def close(self) -> None:
        """End it, if it runs, and remove its directory."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
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
    """Run one command line of creditgate to its end."""
    return subprocess.run(
        [*MAIN, *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=STOP_SECONDS_MAX + START_SECONDS_MAX,
    )


def wait_until(condition: Any, *, what: str, seconds: float = 20.0) -> None:
    """Return once the condition holds; fails with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
