"""What the doctor sees of the machine itself: the Python that runs us, the disk of the data directory."""

import os
import platform
import shutil
import sqlite3
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from creditgate import __version__

SYNCS = 20
SYNC_BYTES = 4_096
SYNC_MS_WARN = 10.0  # with `appendfsync always` each answer that changes something waits for one
SYNC_MS_BAD = 100.0  # an eighth of a call's whole deadline
FREE_GIB_WARN = 5.0
FREE_GIB_BAD = 0.5  # a rewrite of the append-only file needs as much again as is in memory
GIB = 1024**3


class Level(StrEnum):
    """How much a finding matters; with one that is bad, `creditgate doctor` ends with 1."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


class Finding(NamedTuple):
    """One thing that was looked at: what it is, and what to change unless it is ok."""

    level: Level
    about: str
    text: str


def graded(value: float, *, warn: float, bad: float) -> Level:
    """Return the level of a measure of which less is better."""
    return Level.OK if value < warn else Level.WARN if value < bad else Level.BAD


def examine_machine(directory: Path) -> Iterator[Finding]:
    """Yield what is found; the directory is where data is kept, and must be there."""
    yield _python()
    yield _libraries()
    yield _disk(directory)
    yield _sync_time(directory)


def _python() -> Finding:
    build = f"creditgate {__version__}, Python {platform.python_version()}"
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    if "--enable-optimizations" in options or sysconfig.get_config_var("prefix") == "/usr":
        return Finding(Level.OK, "versions", build)
    advice = (
        "built without optimizations; one with --enable-optimizations, such as Debian's, is a fifth faster"
    )
    return Finding(Level.WARN, "versions", f"{build}, {advice}")


def _libraries() -> Finding:
    found = {name: _version(name) for name in ("hiredis", "uvloop", "redis", "sqlalchemy")}
    missing = [name for name, number in found.items() if number is None]
    if missing:
        return Finding(
            Level.BAD, "libraries", f"{', '.join(missing)}: not installed; install creditgate again"
        )
    said = [f"{name} {number}" for name, number in found.items()] + [f"sqlite {sqlite3.sqlite_version}"]
    return Finding(Level.OK, "libraries", ", ".join(said))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _disk(directory: Path) -> Finding:
    free_gib = shutil.disk_usage(directory).free / GIB
    level = graded(-free_gib, warn=-FREE_GIB_WARN, bad=-FREE_GIB_BAD)
    advice = "" if level is Level.OK else "; make room: a full disk stops the embedded Valkey"
    return Finding(level, "disk", f"{free_gib:.1f} GiB free in {directory}{advice}")


def _sync_time(directory: Path) -> Finding:
    try:
        times_ms = list(_syncs(directory))
    except OSError as error:
        return Finding(Level.BAD, "fsync", f"{directory} cannot be written to: {error.strerror}")
    median_ms = statistics.median(times_ms)
    level = graded(median_ms, warn=SYNC_MS_WARN, bad=SYNC_MS_BAD)
    advice = "" if level is Level.OK else "; every change waits for one: put the data on a faster disk"
    return Finding(
        level, "fsync", f"{median_ms:.2f} ms (the middle of {SYNCS}; longest {max(times_ms):.2f} ms){advice}"
    )


def _syncs(directory: Path) -> Iterator[float]:
    """Yield how long each of some appended pages took to the disk, in ms."""
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(SYNCS):
            file.write(bytes(SYNC_BYTES))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            yield (time.perf_counter() - began) * 1000
