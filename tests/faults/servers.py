"""Programs to run as Valkey: slowed down, watched, or with another clock."""

import json
import shutil
from pathlib import Path

from creditgate.balances.embedded_command import find_server

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
SLOW_FSYNC_US = 600_000  # longer than a call waits for Redis
SLOW_FSYNC_EACH = 10
CLOCK, SYNCS = "clock", "syncs"  # files beside the program


def with_slow_fsync(directory: Path) -> Path:
    """Each tenth sync of the disk takes long."""
    slow = f"inject=fdatasync:delay_enter={SLOW_FSYNC_US}:when={SLOW_FSYNC_EACH}+{SLOW_FSYNC_EACH}"
    return _program(directory, f"strace -D -f -qq -o /dev/null -e trace=fdatasync -e {slow}")


def with_watched_syncs(directory: Path) -> Path:
    """What is written and synced is told in a file beside the program."""
    return _program(directory, f"strace -D -f -qq -o {directory}/{SYNCS} -e trace=openat,write,fdatasync")


def with_a_clock(directory: Path) -> Path:
    """The clock on the wall is what a file says, such as `+60s`; the one that only counts is right."""
    (directory / CLOCK).write_text("+0s")
    settings = f"LD_PRELOAD={FAKETIME} DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1"
    return _program(directory, f"env {settings} FAKETIME_TIMESTAMP_FILE={directory}/{CLOCK}")


def synced_bytes(directory: Path, log: Path) -> int:
    """Return how many bytes of this append-only file the last sync that finished has covered.

    The file was new when the server was started. A call that another thread interrupts is told in two lines.
    """
    file, written, asked, synced = "", 0, 0, 0
    begun: dict[str, str] = {}
    for told in (directory / SYNCS).read_text(errors="replace").splitlines():
        pid, _, line = told.partition(" ")
        line = begun.pop(pid, "") + line.lstrip()
        is_begun = line.endswith("<unfinished ...>")
        if is_begun:
            begun[pid] = line
        if line.startswith("openat(") and f'{log.name}"' in line:
            file = line.rpartition("= ")[2]
        elif file and line.startswith(f"write({file},") and not is_begun:
            written += int(line.rpartition("= ")[2])
        elif file and line.startswith(f"fdatasync({file}"):
            if is_begun:
                asked = written
            elif line.endswith("= 0"):
                synced = asked if "resumed" in line else written
    return synced


def missing(*programs: str) -> str:
    """Return why these cannot be run here; nothing if they can."""
    lacking = [name for name in programs if not (shutil.which(name) or Path(name).exists())]
    return f"there is no {', '.join(lacking)}" if lacking else ""


def _program(directory: Path, prefix: str) -> Path:
    path = directory / "valkey-server"
    path.write_text(f'#!/bin/sh\nexec {prefix} {json.dumps(str(find_server()))} "$@"\n')
    path.chmod(0o700)
    return path
