"""The embedded Valkey: started on its data directory, watched, brought back when it ends, and stopped.

A server whose sidecar was killed may still be there at the next start. It is waited for, and asked to end where the
kernel has not told it to; `data_directory.py` says how two sidecars and their servers are kept apart.
"""

import asyncio
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from creditgate.balances.data_directory import claim, in_one_sentence, open_private, try_lock
from creditgate.balances.embedded_command import bound_to_us, find_server
from creditgate.balances.embedded_config import config_text
from creditgate.errors import StartupError

SOCKET_PATH_BYTES_MAX = 103
"""A Unix socket's path ends with a NUL within 104 bytes on macOS, within 108 on Linux."""

START_SECONDS_MAX = 120.0
"""From the launch to the first PONG. Loading took 3 s for each GB in memory: this is 6 GB on a busy disk."""

STOP_SECONDS_MAX = 10.0
"""From SIGTERM to SIGKILL: a last fsync takes seconds on a stalled disk. Nothing acknowledged is lost."""

ORPHAN_SECONDS_MAX = 10.0
"""How long the server of a killed sidecar may take to end: the same last fsync."""

ANSWER_SECONDS_MAX = 1.0
"""For one PING; the next one may find the server less busy."""

POLL_SECONDS = 0.01
"""Between two looks at a server that is starting or stopping; it does either in a few dozen milliseconds."""

WATCH_SECONDS = 0.05
"""Between two looks at a server that runs: one system call each."""

RESTART_WAIT_SECONDS_MIN = 0.1
RESTART_WAIT_SECONDS_MAX = 5.0
"""The wait doubles from the one to the other. No attempt is the last: a full disk can have space again."""

STEADY_SECONDS = 60.0
"""A server that was up for so long had nothing wrong with it: its restart waits the shortest time again."""

LOG_BYTES_MAX = 10 * 1024 * 1024
"""A log above this becomes the one old log at the next start: a server that keeps dying fills no disk."""

_LOG_PREFIX = re.compile(r"^\d+:[A-Z] .*?:\d\d\.\d+ [.*#-] ")

log = logging.getLogger(__name__)


class EmbeddedValkey:
    """A Valkey of our own in one data directory, from `start` to `stop`.

    Run `watch` as a task after `start`. While the server is away `running` is false and nobody can connect.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.socket_path = self.data_dir / "valkey.sock"
        self.log_path = self.data_dir / "valkey.log"
        self._sidecar_lock: int | None = None  # the descriptor; None before `start` and after `stop`
        self._process: subprocess.Popen[bytes] | None = None
        self._answered = False
        self._stopping = asyncio.Event()

    @property
    def url(self) -> str:
        """Where the server answers while it runs, whoever started it."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def running(self) -> bool:
        """True from a server's first PONG until that server ends."""
        return self._answered and self._alive

    async def start(self) -> str:
        """Return the URL of a server that has its data and answers; StartupError says why there is none."""
        assert self._sidecar_lock is None, "it was started before"
        self._stopping.clear()
        self._claim_directory()
        try:
            await self._launch()
        except BaseException:
            await self.stop()
            raise
        return self.url

    async def watch(self) -> None:
        """Bring the server back each time it ends by itself; returns after `stop`."""
        wait_seconds = RESTART_WAIT_SECONDS_MIN
        while self._sidecar_lock is not None:
            since = time.monotonic()
            while self._alive and self._sidecar_lock is not None:
                await self._sleep(WATCH_SECONDS)  # a process has no event that every platform and loop knows
            if time.monotonic() - since >= STEADY_SECONDS:
                wait_seconds = RESTART_WAIT_SECONDS_MIN
            await self._sleep(wait_seconds)
            wait_seconds = min(wait_seconds * 2, RESTART_WAIT_SECONDS_MAX)
            if self._sidecar_lock is not None:
                await self._relaunch()

    async def stop(self) -> None:
        """End the server, then let go of the directory. Safe to call at any time, and twice."""
        sidecar_lock, self._sidecar_lock = self._sidecar_lock, None
        self._stopping.set()
        try:
            await self._end()
        finally:
            if sidecar_lock is not None:
                os.close(sidecar_lock)

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # The directory

    def _claim_directory(self) -> None:
        if len(os.fsencode(self.socket_path)) > SOCKET_PATH_BYTES_MAX:
            raise StartupError(
                f"The path of the data directory {self.data_dir} is too long to hold a Unix socket: "
                f"choose a shorter one with --data-dir."
            )
        self._sidecar_lock = claim(self.data_dir)

    async def _outlive_orphan(self, server_lock: int) -> None:
        """Hold the server's lock on return: no earlier server, nor a fork of one, writes here any more."""
        if try_lock(server_lock):
            return
        log.warning("an earlier Valkey still runs in %s; waiting for it to end", self.data_dir)
        with suppress(RedisError):
            async with self._client() as client:
                await client.shutdown()
        if not await _until(lambda: try_lock(server_lock), seconds=ORPHAN_SECONDS_MAX):
            raise StartupError(
                f"An earlier Valkey in {self.data_dir} did not end within {ORPHAN_SECONDS_MAX:.0f} seconds: "
                f"end the process that holds {self.data_dir / 'valkey.lock'}, then start again."
            )

    # The server

    @property
    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _client(self) -> Redis:
        return Redis(
            unix_socket_path=str(self.socket_path),
            socket_timeout=ANSWER_SECONDS_MAX,
            socket_connect_timeout=ANSWER_SECONDS_MAX,
            retry=Retry(NoBackoff(), 0),
        )

    async def _launch(self) -> None:
        self._answered = False
        with in_one_sentence(self.data_dir):
            server_lock = open_private(self.data_dir / "valkey.lock")
            try:
                await self._outlive_orphan(server_lock)
                if self._sidecar_lock is None:
                    raise StartupError("The embedded Valkey was stopped while it started.")
                log_offset = self._spawn(server_lock)
            finally:
                os.close(server_lock)  # the server has its own descriptor of the same lock
            try:
                await self._wait_for_answer(log_offset)
            except BaseException:
                await self._end()
                raise
        self._answered = True

    async def _relaunch(self) -> None:
        assert self._process is not None, "watch() comes after start()"
        log.error("the embedded Valkey ended with code %s; starting it again", self._process.returncode)
        try:
            await self._launch()
        except StartupError as error:
            log.error("the embedded Valkey did not come back: %s", error.message)
        else:
            log.warning("the embedded Valkey is back")

    def _spawn(self, server_lock: int) -> int:
        """Launch the server with its lock; returns where its part of the log begins."""
        assert threading.current_thread() is threading.main_thread(), "the server would end with this thread"
        server_log = self._open_log()
        log_offset = os.fstat(server_log).st_size
        try:
            self._process = subprocess.Popen(  # noqa: S603 - no shell, and no argument from outside
                bound_to_us([str(find_server()), str(self._write_config())]),
                stdin=subprocess.DEVNULL,
                stdout=server_log,
                stderr=server_log,
                cwd=self.data_dir,
                pass_fds=(server_lock,),
                umask=0o077,
                start_new_session=True,  # Ctrl-C is for the sidecar: it needs the server until it is drained
            )
        finally:
            os.close(server_log)
        return log_offset

    async def _wait_for_answer(self, log_offset: int) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not await self._answers():
            if not self._alive:
                raise StartupError(
                    f"The embedded Valkey ended while it started ({self._last_words(log_offset)}); "
                    f"its log is {self.log_path}."
                )
            if time.monotonic() > deadline:
                raise StartupError(
                    f"The embedded Valkey did not answer within {START_SECONDS_MAX:.0f} seconds; "
                    f"its log is {self.log_path}."
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _answers(self) -> bool:
        """True once the data is loaded: until then a PING is answered with an error."""
        if not self.socket_path.exists():
            return False
        try:
            async with self._client() as client:
                return bool(await client.ping())
        except RedisError:
            return False

    async def _end(self) -> None:
        self._answered = False
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        if await _until(lambda: process.poll() is not None, seconds=STOP_SECONDS_MAX):
            return
        log.error("the embedded Valkey did not end within %.0f seconds; killing it", STOP_SECONDS_MAX)
        process.kill()
        await _until(lambda: process.poll() is not None, seconds=STOP_SECONDS_MAX)

    # Its files

    def _tidy_directory(self) -> Path:
        """Valkey's own directory, without what killed rewrites left: files as large as the data, never read."""
        directory = self.data_dir / "valkey"
        directory.mkdir(mode=0o700, exist_ok=True)
        for remnant in directory.glob("temp-rewriteaof-*"):
            remnant.unlink()
        return directory

    def _write_config(self) -> Path:
        text = config_text(socket=self.socket_path, directory=self._tidy_directory())
        path = self.data_dir / "valkey.conf"
        with open(open_private(path, os.O_TRUNC), "w", encoding="ascii") as config:
            config.write(text)
        return path

    def _open_log(self) -> int:
        with suppress(FileNotFoundError):
            if self.log_path.stat().st_size > LOG_BYTES_MAX:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return open_private(self.log_path, os.O_APPEND)

    def _last_words(self, log_offset: int) -> str:
        with open(self.log_path, "rb") as server_log:
            server_log.seek(log_offset)
            lines = server_log.read().decode(errors="replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        return _LOG_PREFIX.sub("", spoken[-1]).rstrip(".") if spoken else "without a word"


async def _until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Wait for the condition; False if the time is over first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
