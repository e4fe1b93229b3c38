"""The spool: usage that could not be decided, on disk until Redis is back. `spool_poster.py` posts it.

Each process appends to a file of its own, one JSON line for each use, and syncs it before it answers. It holds the
file's lock while it appends, and lets go once it was quiet for a while, or the file is large, or the process has died:
from then on the file is complete, and whoever gets the lock may post it. So nobody has to say goodbye.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from creditgate.balances.clock import RedisClock
from creditgate.balances.connection import CALL_WINDOW_MS
from creditgate.engine.attempts import SET_BACK_MAX_MS
from creditgate.engine.stepping import in_task
from creditgate.engine.usage import Sent, Usage
from creditgate.errors import Unavailable
from creditgate.telemetry import logger
from creditgate.telemetry.metrics import Metrics

FILE_BYTES_MAX = 1 << 20
QUIET_S = 1.0  # then a file is complete, though it is small
ASIDE = "aside"  # the file of what can never be posted
FILE_BYTES_MIN = 4096  # what the smallest file takes of a disk

log = logger(__name__)


class SpoolFull(Unavailable):
    """The spool takes no more: its bytes are used up, or the disk refuses them. The usage was not kept."""


class Spooled(msgspec.Struct, frozen=True):
    """A use as it was sent, under the op id that it was sent with; instants are ms of Redis's clock.

    It may have taken effect since `since_ms`, and until `not_after`.
    """

    op_id: str
    usage: Usage
    since_ms: int
    not_after: int


class Spool:
    """What this process appends. `bytes_max` is for all files in the directory; 0 keeps nothing."""

    def __init__(self, directory: Path, clock: RedisClock, metrics: Metrics, *, bytes_max: int) -> None:
        self.directory = directory
        self._clock = clock
        self._metrics = metrics
        self._bytes_max = bytes_max
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._file: int | None = None
        self._quiet: asyncio.TimerHandle | None = None

    @property
    def is_on(self) -> bool:
        return self._bytes_max > 0

    async def keep(self, sent: Sent) -> None:
        """Return once the use is on disk; raises SpoolFull. Uses that come at the same time share a sync."""
        await in_task()
        now_ms = self._clock.now_ms()
        usage = sent.usage
        if usage.occurred_at is None:
            usage = msgspec.structs.replace(usage, occurred_at=now_ms)
        since_ms = (sent.first_not_after or now_ms) - CALL_WINDOW_MS - SET_BACK_MAX_MS
        line = msgspec.json.encode(Spooled(sent.op_id, usage, since_ms, sent.last_not_after)) + b"\n"
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((line, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await written
        self._metrics.spooled += 1

    async def aclose(self) -> None:
        """Write what waits, and let go of the file."""
        if self._writing is not None:
            await self._writing
        self.let_go()

    async def _write_all(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                error = await asyncio.to_thread(self._write, b"".join(line for line, _ in group))
            except Exception as unexpected:  # who waits is answered, and who comes next finds us at work
                log.error("spool_not_written", exc_info=unexpected)
                error = _cannot_be_written()
            for _, written in group:
                if written.done():  # its caller waits no more
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
        self._writing = None
        self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self.let_go)

    def _write(self, lines: bytes) -> SpoolFull | None:
        """Append and sync the lines, all or none; returns why not."""
        if bytes_in(self.directory) + len(lines) > self._bytes_max:
            return SpoolFull("Redis did not answer in time, and the spool is full; the usage was not kept")
        try:
            if self._file is None:
                self._file = _new_file(self.directory)
            size = os.fstat(self._file).st_size
            try:
                _write_whole(self._file, lines)
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise
            if size + len(lines) >= FILE_BYTES_MAX:
                self.let_go()
        except OSError as error:
            log.error("spool_not_written", reason=str(error))
            self.let_go()
            return _cannot_be_written()
        return None

    def let_go(self) -> None:
        """Let go of the file: it is complete."""
        if self._file is not None:
            os.close(self._file)  # and with it, its lock
            self._file = None


def _cannot_be_written() -> SpoolFull:
    return SpoolFull("Redis did not answer in time, and the spool cannot be written; the usage was not kept")


def bytes_in(directory: Path) -> int:
    """Return what the files of a spool take of the disk, the unposted ones and those that were set aside."""
    total = 0
    for path in (*unposted(directory), directory / ASIDE):
        try:
            total += max(path.stat().st_size, FILE_BYTES_MIN)
        except FileNotFoundError:  # posted just now
            continue
    return total


def unposted(directory: Path) -> list[Path]:
    """Return the files that hold usage, the oldest first."""
    return sorted(directory.glob("*.jsonl"))


def waiting(directory: Path) -> list[bytes]:
    """Return the lines that are to be posted, the oldest file first, also of files that are still appended to."""
    lines: list[bytes] = []
    for path in unposted(directory):
        with suppress(FileNotFoundError):  # posted just now
            lines += path.read_bytes().split(b"\n")[:-1]
    return lines


@contextmanager
def taken(path: Path) -> Iterator[bytes | None]:
    """Yield what a file holds, None while its writer may append to it; nobody else may take it meanwhile."""
    with path.open("rb") as file:
        yield file.read() if has_lock(file.fileno()) else None


def has_lock(file: int) -> bool:
    """Take the lock of an open file, until that is closed; False if another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def append(path: Path, text: bytes) -> None:
    """Append to a file, and sync it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        _write_whole(file, text)
        os.fsync(file)
    finally:
        os.close(file)


def _new_file(directory: Path) -> int:
    """Make a file with a name of its own. It has that only once it is locked, so nobody takes it for complete."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = directory / f"{time.time_ns():020d}-{os.getpid()}.new"
    file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    made.rename(made.with_suffix(".jsonl"))
    for above in (directory, directory.parent):
        _sync(above)
    return file


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _write_whole(file: int, text: bytes) -> None:
    left = memoryview(text)
    while left:
        left = left[os.write(file, left) :]
