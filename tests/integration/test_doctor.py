"""`creditgate doctor`: each thing that can be wrong with a real server is found and said, and no password is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from creditgate.core.journal import SYSTEM_PARTITION
from tests.balances.valkey_process import ValkeyProcess
from tests.ports import free_ports
from tests.sidecar_process import SidecarProcess, run

Spoil = Callable[["redis.Redis"], object]


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    """A server whose settings a test may change; one for the module."""
    server = ValkeyProcess()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def place(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[list[str]]:
    """The flags of data on that server, as it was made."""
    with valkey.client() as client:
        client.flushall()
        before = client.config_get("*")
        flags = ["--redis", valkey.url, "--database", f"sqlite:///{tmp_path / 'ledger.db'}"]
        flags += ["--data-dir", str(tmp_path)]
        assert run("init", *flags).returncode == 0
        yield flags
        for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
            client.config_set(name, before[name])
        client.execute_command("REPLICAOF", "NO", "ONE")


def test_everything_is_well_beside_a_sidecar_and_without_one(sidecar: SidecarProcess) -> None:
    """Data that is served, and the same data after a stop, has nothing bad; each thing is one line."""
    flags = ["--data-dir", str(sidecar.directory)]
    beside = run("doctor", *flags)
    assert beside.returncode == 0, beside.stdout + beside.stderr
    sidecar.stop()
    try:
        alone = run("doctor", *flags)
    finally:
        sidecar.start()
    assert alone.returncode == 0, alone.stdout + alone.stderr
    for ended in (beside, alone):
        lines = [line.split(maxsplit=1) for line in ended.stdout.splitlines()]
        assert {level for level, _ in lines} <= {"ok", "warn"}
        for about in (
            "versions",
            "fsync",
            "disk",
            "appendfsync  always",
            "memory",
            "clock",
            "sql lag",
            "poison",
        ):
            assert [text for _, text in lines if text.startswith(about)], (about, ended.stdout)
    assert "0 entries, the oldest 0.0 s" in beside.stdout
    assert "no sidecar runs" in alone.stdout


@pytest.mark.parametrize(
    ("spoil", "level", "said"),
    [
        (lambda client: client.config_set("appendonly", "no"), "bad", "set appendonly yes"),
        (lambda client: client.config_set("appendfsync", "everysec"), "warn", "two seconds"),
        (lambda client: client.config_set("appendfsync", "no"), "bad", "set it to always"),
        (lambda client: client.config_set("maxmemory-policy", "allkeys-lru"), "bad", "can be forgotten"),
        (lambda client: client.config_set("maxmemory", "100mb"), "ok", "of 100 MiB"),
        (lambda client: client.config_set("maxmemory", "1000000"), "bad", "give it more"),
        (lambda client: client.config_set("maxmemory", "0"), "warn", "maxmemory is not set"),
        (lambda client: client.execute_command("REPLICAOF", "127.0.0.1", "1"), "bad", "is a replica"),
        (lambda client: client.flushall(), "warn", "fills it from SQL"),
    ],
)
def test_what_is_wrong_with_a_server_is_said(
    valkey: ValkeyProcess, place: list[str], spoil: Spoil, level: str, said: str
) -> None:
    """An operator reads which setting to change before it costs anything; the exit code says whether it is bad."""
    with valkey.client() as client:
        spoil(client)
    ended = run("doctor", *place)
    (line,) = [line for line in ended.stdout.splitlines() if said in line]
    assert line.split()[0] == level
    assert ended.returncode == (1 if level == "bad" else 0), ended.stdout


def test_what_waits_and_what_was_set_aside_is_said(
    valkey: ValkeyProcess, place: list[str], tmp_path: Path
) -> None:
    """Entries that SQL does not have yet are counted; a message that is none of ours is drift, and bad."""
    served = SidecarProcess(directory=tmp_path, arguments=place[:4])
    try:
        served.start()
        with valkey.client() as client:
            client.xadd(f"cg:{{{SYSTEM_PARTITION}}}:j", {"what": "is this"})
        served.stop()
        with valkey.client() as client:
            client.xadd(f"cg:{{{SYSTEM_PARTITION}}}:j", {"and": "this"})
    finally:
        served.close()
    ended = run("doctor", *place)
    assert ended.returncode == 1
    assert "1 entries wait in Redis" in ended.stdout
    assert "1 messages of the journal could not be read" in ended.stdout


def test_servers_that_do_not_belong_together_are_said(
    valkey: ValkeyProcess, place: list[str], tmp_path: Path
) -> None:
    """A Redis with the SQL of another environment is found before a sidecar is started on it."""
    assert run("rebuild", *place).returncode == 0
    with valkey.client() as client:
        client.set("cg:{p03}:epoch", "another")
    ended = run("doctor", *place)
    assert ended.returncode == 1
    assert "two different histories" in ended.stdout


def test_what_does_not_answer_is_said_without_its_password(place: list[str], tmp_path: Path) -> None:
    """The output goes into a ticket; the URLs in it have no password."""
    ended = run("doctor", "--redis", "redis://user:hidden@127.0.0.1:1", *place[2:])
    assert ended.returncode == 1
    assert "bad   redis        redis://user:PASSWORD@127.0.0.1:1 does not answer" in ended.stdout
    missing = f"sqlite:///{tmp_path / 'missing.db'}?password=hidden"
    again = run("doctor", *place[:2], "--database", missing.partition("?")[0])
    assert (again.returncode, "missing.db is not there" in again.stdout) == (1, True)
    assert not (tmp_path / "missing.db").exists()
    assert "hidden" not in ended.stdout + ended.stderr + again.stdout


def test_no_data_is_said_and_none_is_made(tmp_path: Path) -> None:
    """A mistyped directory is told, not made."""
    ended = run("doctor", "--data-dir", str(tmp_path / "typo"))
    assert ended.returncode == 1
    assert ended.stdout.startswith("bad   data         there is none in")
    assert not (tmp_path / "typo").exists()


def test_a_cluster_that_is_not_whole_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """It answers for some customers and refuses others: better not to start, and to say why."""
    port, bus_port = map(str, free_ports(2))
    cluster = ValkeyProcess(
        settings={"cluster-enabled": "yes", "bind": "127.0.0.1", "port": port, "cluster-port": bus_port}
    )
    try:
        cluster.start()
        ended = run("init", "--redis", cluster.url, "--data-dir", str(tmp_path))
    finally:
        cluster.close()
    assert ended.returncode != 0
    assert "16384 slots of the cluster have no node" in ended.stderr
