"""Fixtures of all tests: a real Valkey and PostgreSQL for each test process; a running sidecar."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.balances.valkey_process import ValkeyProcess
from tests.postgresql import PostgreSQLServer
from tests.sidecar_process import SidecarProcess

SOCKET_TIMEOUT_SECONDS = 20.0

# The same examples each time, so that a test that fails has to do with what was changed; --hypothesis-profile=new looks
# for others. An example that takes long is a busy machine, not a bug; what hangs is ended by pytest-timeout.
hypothesis.settings.register_profile("new", deadline=None, print_blob=True)
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.load_profile("same")

# Logs that nobody configured, as in these processes, show an error with rich: half a second for each one.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

MEMORY = Path("/dev/shm")  # where it is there: a disk in memory
MEMORY_BYTES_MIN = 2 * 1024**3


def _is_good_for_temporary_files(directory: Path) -> bool:
    """Whether there is room, and programs may be run there: a container's has 64 MiB, and forbids it."""
    try:
        there = os.statvfs(directory)
    except OSError:
        return False
    has_room = there.f_bavail * there.f_frsize >= MEMORY_BYTES_MIN
    return has_room and not there.f_flag & os.ST_NOEXEC and os.access(directory, os.W_OK)


# All our servers wait for the disk before they answer: a third of the time of many tests. No test cuts the power, and
# what a kill -9 leaves is the same in memory.
if "TMPDIR" not in os.environ and _is_good_for_temporary_files(MEMORY):
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.fixture(scope="session")
def valkey_socket() -> Iterator[str]:
    """The socket of a Valkey that writes everything to disk before it answers; one for each worker of pytest-xdist."""
    server = ValkeyProcess()
    try:
        server.start()
        yield server.socket
    finally:
        server.close()


@pytest.fixture
async def redis(valkey_socket: str) -> AsyncIterator["Redis"]:
    """A client of the Valkey, which is empty when the test begins."""
    client = Redis(
        unix_socket_path=valkey_socket, retry=Retry(NoBackoff(), 0), socket_timeout=SOCKET_TIMEOUT_SECONDS
    )
    try:
        await client.flushall()
        yield client
    finally:
        await client.aclose()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQLServer]:
    """A PostgreSQL, started when the first test asks for it; one for each worker of pytest-xdist."""
    server = PostgreSQLServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def sidecar() -> Iterator[SidecarProcess]:
    """A running sidecar with nothing in its catalog yet; one for each module of tests."""
    process = SidecarProcess()
    try:
        yield process.start()
    finally:
        process.close()


@pytest.fixture(scope="module")
def demo() -> Iterator[SidecarProcess]:
    """A running sidecar with the tutorial's catalog: what `make run` starts; one for each module of tests."""
    process = SidecarProcess(arguments=["--demo"])
    try:
        yield process.start()
    finally:
        process.close()


@pytest.fixture(scope="module")
def sidecar_url(sidecar: SidecarProcess) -> str:
    """Where it answers."""
    return sidecar.url


@pytest.fixture(scope="module")
def secret_key(sidecar: SidecarProcess) -> str:
    """Its API key."""
    return sidecar.key


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much the model test did: a number that falls to nothing is a test that no longer tests."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "said":
                terminalreporter.write_line(f"{report.nodeid}: {value}")
