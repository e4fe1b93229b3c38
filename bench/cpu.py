"""CPU time as the kernel's scheduler counts it (/proc/PID/task/*/schedstat, nanoseconds): for each process of a tree.

It is what can be compared on a machine that others use too. A thread that ended takes its time with it, which is why
pools are measured while they live.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
ESTABLISHED = "01"  # in /proc/net/tcp


class Spent(NamedTuple):
    """What a tree of processes spent: main threads of those that answered connections, and everything else."""

    worker_ns: int = 0
    rest_ns: int = 0

    @property
    def all_ns(self) -> int:
        return self.worker_ns + self.rest_ns


class Meter:
    """Counts what a process and all its descendants spend from now on."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._before = _threads_of(root)

    def spent(self, workers: frozenset[int] | None = None) -> Spent:
        """Return what was spent since; without `workers`, the root is the one."""
        main, rest = 0, 0
        for thread, ns in _threads_of(self._root).items():
            more = ns - self._before.get(thread, 0)
            if thread in (workers or {self._root}):
                main += more
            else:
                rest += more
        return Spent(main, rest)


def tree(root: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [root]
    for pid in found:
        with suppress(OSError):
            for thread in (PROC / str(pid) / "task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def holders(root: int, port: int) -> frozenset[int]:
    """Return the processes of a tree that hold accepted connections of this local TCP port."""
    inodes = set(_accepted(port))
    return frozenset(pid for pid in tree(root) if not inodes.isdisjoint(_sockets_of(pid)))


def _threads_of(root: int) -> Mapping[int, int]:
    """Return the time of each thread; the main thread of a process has the number of the process."""
    found = {}
    for pid in tree(root):
        with suppress(OSError):  # it has just ended
            for thread in (PROC / str(pid) / "task").iterdir():
                found[int(thread.name)] = int((thread / "schedstat").read_text().split()[0])
    return found


def _accepted(port: int) -> Iterator[str]:
    for line in (PROC / "net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _sockets_of(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                kind, _, inode = str(descriptor.readlink()).partition(":[")
                if kind == "socket":
                    yield inode.rstrip("]")
