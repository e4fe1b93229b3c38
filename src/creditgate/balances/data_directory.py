"""Whose a data directory is: it belongs to one sidecar and its Valkey at a time, and nobody else may write there.

That is decided by two `flock`s, because a sidecar and its server can outlive each other:

- `DIR/lock` is held by the sidecar alone. A second sidecar finds it taken and is refused at once.
- `DIR/valkey.lock` is held by the server alone, through a descriptor that it inherits. As long as it is taken
  something may still write to the append-only file, so the next server waits for it.

A `kill -9` of the sidecar frees the first lock at once; the kernel then sends SIGTERM to the server, which
writes out what it has and frees the second. Where the kernel cannot do that (macOS), or the signal went
astray, the next sidecar asks the orphan to shut down over its socket. Nothing is decided by a process id,
which another process may have by now.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from creditgate.errors import StartupError


def claim(directory: Path) -> int:
    """Make the directory if it is not there, and return the sidecar's lock on it, a descriptor to be closed.

    Raises StartupError if another sidecar has it, or if it is not ours alone.
    """
    with in_one_sentence(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(directory)
        sidecar_lock = open_private(directory / "lock")
        if not try_lock(sidecar_lock):
            os.close(sidecar_lock)
            raise StartupError(
                f"The data directory {directory} is in use by another creditgate: "
                f"stop that one, or choose another directory with --data-dir."
            )
    return sidecar_lock


def open_private(path: Path, flags: int = 0) -> int:
    """Open a file to read and write, made for its owner alone if it is not there."""
    return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file; False if somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def in_one_sentence(directory: Path) -> Iterator[None]:
    """Say what the system refuses there as a StartupError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StartupError(f"The embedded Valkey cannot use {directory}: {reason}.") from error


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
