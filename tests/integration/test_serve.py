"""Starting, refusing to start, and what a start leaves behind."""

import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.balances.valkey_process import ValkeyProcess
from tests.sidecar_process import SidecarProcess, run


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path that does not exist yet."""
    with tempfile.TemporaryDirectory(prefix="cgi") as parent:
        yield Path(parent) / "d"


@pytest.fixture
def valkey() -> Iterator[ValkeyProcess]:
    """A Valkey of its own that a test may configure badly."""
    server = ValkeyProcess()
    try:
        server.start()
        yield server
    finally:
        server.close()


def test_the_first_start_makes_a_private_key_and_the_second_keeps_it() -> None:
    """The key is readable by its owner alone, works at once, and is the same after a restart; so is the data."""
    sidecar = SidecarProcess(arguments=["--demo"])
    try:
        sidecar.start()
        key = sidecar.key
        assert key.startswith("cg_sk_test_")
        assert stat.S_IMODE((sidecar.directory / "secret_key").stat().st_mode) == 0o600
        sidecar.ask("customers.get_or_create", {"customer_id": "ann"})
        sidecar.ask("balances.track", {"customer_id": "ann", "feature_id": "basic_messages", "value": 2})
        assert sidecar.stop() == 0
        sidecar.start()
        assert sidecar.key == key
        balance = sidecar.ask("customers.get", {"customer_id": "ann"})["balances"]["usd_credits"]
        assert balance["remaining"] == 4.98
        log = (sidecar.directory / "log").read_text()
        assert key not in log
    finally:
        sidecar.close()


def test_a_taken_port_is_one_sentence(directory: Path) -> None:
    """A second program on the port is told at once, and nothing is started or left behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("serve", "--port", str(port), "--data-dir", str(directory))
    assert _is_one_sentence(ended.stderr, f"127.0.0.1:{port}"), ended.stderr
    assert ended.returncode == 1
    assert not directory.exists()


def test_a_data_directory_in_use_is_one_sentence() -> None:
    """Two sidecars never run two servers on one data directory."""
    sidecar = SidecarProcess()
    try:
        sidecar.start()
        ended = run("serve", "--port", "0", "--data-dir", str(sidecar.directory))
        assert ended.returncode == 1
        assert _is_one_sentence(ended.stderr, str(sidecar.directory)), ended.stderr
        assert httpx.get(f"{sidecar.url}/healthz").status_code == 200
    finally:
        sidecar.close()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ("replicaof", "127.0.0.1 1", "replica"),
    ],
)
def test_an_unusable_redis_is_one_sentence(
    valkey: ValkeyProcess, directory: Path, setting: str, value: str, said: str
) -> None:
    """A server that would forget balances or cannot take them is refused before anything is written to it."""
    with valkey.client() as client:
        if setting == "replicaof":
            client.execute_command("REPLICAOF", *value.split())
        else:
            client.config_set(setting, value)
        ended = run("serve", "--port", "0", "--data-dir", str(directory), "--redis", valkey.url)
        assert ended.returncode == 1
        assert _is_one_sentence(ended.stderr, said), ended.stderr
        assert client.dbsize() == 0


def test_a_redis_that_is_not_there_is_one_sentence(directory: Path) -> None:
    """A wrong address is said, with the flag that holds it."""
    ended = run("serve", "--port", "0", "--data-dir", str(directory), "--redis", "redis://127.0.0.1:1")
    assert ended.returncode == 1
    assert _is_one_sentence(ended.stderr, "--redis"), ended.stderr


@pytest.mark.parametrize("url", ["here", "redis://:hidden@host:99999", "redis://:hidden@host?colour=red"])
def test_a_url_that_is_none_is_one_sentence(directory: Path, url: str) -> None:
    """A slip in the URL is said with the flag, and no password in it goes to a log."""
    ended = run("serve", "--port", "0", "--data-dir", str(directory), "--redis", url)
    assert ended.returncode == 1
    assert _is_one_sentence(ended.stderr, "--redis: not a URL"), ended.stderr
    assert "hidden" not in ended.stderr


def test_init_decides_once(valkey: ValkeyProcess, directory: Path) -> None:
    """The environment and the number of partitions are fixed when the data is made."""
    place = ["--data-dir", str(directory), "--redis", valkey.url, "--database", f"sqlite:///{directory}.db"]
    made = run("init", "--env", "live", "--partitions", "3", *place)
    assert made.returncode == 0, made.stderr
    assert "environment live, 3 partitions" in made.stdout
    assert run("init", "--env", "live", "--partitions", "3", *place).returncode == 0
    other = run("init", "--env", "live", "--partitions", "4", *place)
    assert other.returncode == 1
    assert _is_one_sentence(other.stderr, "3 partitions"), other.stderr


def test_settings_come_from_flag_environment_file_default(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag wins over the environment, that over the file, that over the default."""
    directory.mkdir()
    monkeypatch.chdir(directory)
    (directory / "creditgate.toml").write_text('data_dir = "from_file"\nenv = "live"\npartitions = 2\n')
    monkeypatch.setenv("CREDITGATE_PARTITIONS", "3")
    made = run("init", "--data-dir", str(directory / "from_flag"))
    assert made.returncode == 0, made.stderr
    assert "environment live, 3 partitions" in made.stdout
    assert (directory / "from_flag" / "ledger.db").exists()
    other = directory / "other.toml"
    other.write_text(f'data_dir = "{directory}/b"\nenv = "test"\n')
    made = run("init", "--config", str(other))
    assert "environment test, 3 partitions" in made.stdout, made.stderr


def test_one_file_serves_all_commands(directory: Path) -> None:
    """What only `serve` can be set to is no hindrance to `init`; what no command can be set to is a misspelling."""
    directory.mkdir()
    file = directory / "settings.toml"
    file.write_text(f'data_dir = "{directory}/d"\nport = 9000\nallowed-hosts = ["a.example"]\n')
    assert run("init", "--config", str(file)).returncode == 0
    for text, said in (("prot = 9000", "there is no setting prot"), ("port = ", "Invalid value")):
        file.write_text(text)
        ended = run("verify", "--config", str(file))
        assert ended.returncode == 1
        assert _is_one_sentence(ended.stderr, said), ended.stderr
    ended = run("verify", "--config", str(directory / "nothing"))
    assert _is_one_sentence(ended.stderr, f"{directory}/nothing: No such file"), ended.stderr


def test_help_is_quick_and_needs_no_server() -> None:
    """`creditgate --help` names the commands."""
    shown = run("--help")
    assert shown.returncode == 0
    assert all(command in shown.stdout for command in ("serve", "init", "apply", "verify"))


def _is_one_sentence(stderr: str, said: str) -> bool:
    lines = [line for line in stderr.splitlines() if not line.startswith("{")]  # log lines are JSON
    return len(lines) == 1 and lines[0].startswith("creditgate: ") and said in lines[0]
