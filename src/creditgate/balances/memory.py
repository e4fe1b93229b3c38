"""How much memory this process and its children may use, as the machine and the containers around us have it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


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
