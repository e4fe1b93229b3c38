"""The command line without the second of imports before it: forked from a process that has all modules already.

Half of the time of many a test was the start of an interpreter. Multiprocessing's fork server is started once for each
process of tests, and has no thread and no connection; what it forks is a process as new as one of its own.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
# What the command line imports late is named, too. pytest is the main module here, which each child imports first.
_SERVER.set_forkserver_preload(["creditgate.cli", "creditgate.operations", "creditgate.processes", "pytest"])


class ForkedProgram:
    """`creditgate` with these arguments, begun: as much of a `subprocess.Popen` as the tests need of one."""

    def __init__(self, arguments: Sequence[str], *, stderr: Path, cwd: Path) -> None:
        ours, theirs = _SERVER.Pipe(duplex=False)
        environment = dict(os.environ)  # the server's own is from when it began
        self._process = _SERVER.Process(target=_main, args=(arguments, theirs, stderr, cwd, environment))
        self._process.start()
        theirs.close()
        self.stdout = os.fdopen(os.dup(ours.fileno()), encoding="utf-8")
        ours.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Return its exit code once it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait until it has ended, and return its exit code; raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("creditgate", timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL, if it has not ended."""
        self.send_signal(signal.SIGKILL)


def _main(
    arguments: Sequence[str], stdout: Connection, stderr: Path, cwd: Path, environment: dict[str, str]
) -> None:
    from creditgate.cli import main  # here, since the tests themselves need not load it

    os.dup2(stdout.fileno(), 1)
    stdout.close()
    with stderr.open("ab") as log:
        os.dup2(log.fileno(), 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["creditgate", *arguments]
    main()
