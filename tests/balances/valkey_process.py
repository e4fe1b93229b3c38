"""A real Valkey for tests: one process, one Unix socket, every acknowledged write on the disk. It can be killed."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import redis
from redis.exceptions import RedisError

from creditgate.balances.embedded_command import PARENT_BOUND_EXEC, find_server

START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 10.0
POLL_SECONDS = 0.005

CONFIGURATION = {
    "port": "0",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
}


class ValkeyProcess:
    """A server in a directory of its own, which is short so that the socket's path fits into `sun_path`."""

    def __init__(self, server: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        """`server` is the program; without it, the one that the sidecar embeds. `settings` go before ours."""
        self._server = server or find_server()
        self.directory = Path(tempfile.mkdtemp(prefix="cgv"))
        self.socket = str(self.directory / "s")
        self._settings = {**CONFIGURATION, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self) -> redis.Redis:
        """A client of it that the caller closes."""
        return redis.Redis(unix_socket_path=self.socket)

    def start(self) -> None:
        """Return when the server has loaded its data and answers."""
        settings = {**self._settings, "unixsocket": self.socket, "dir": str(self.directory)}
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        # It ends with this process, even if that is killed: no test run leaves a server behind.
        bound = [sys.executable, "-I", "-S", "-c", PARENT_BOUND_EXEC, str(os.getpid())]
        command = [str(self._server), *options]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*bound, *command] if sys.platform == "linux" else command, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "the server did not answer in time"
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """End it as a power cut would, with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_SECONDS_MAX)

    def close(self) -> None:
        """End the server, if it runs, and remove its directory."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.directory)

    def _answers(self) -> bool:
        with suppress(RedisError, OSError), redis.Redis(unix_socket_path=self.socket) as client:
            return bool(client.ping())
        return False
