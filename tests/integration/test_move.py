"""`creditgate move`: all of it, proven on both sides, or nothing that a sidecar would take for all of it."""

import shlex
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.balances.valkey_process import ValkeyProcess
from tests.sidecar_process import MAIN, SidecarProcess, run

pytestmark = pytest.mark.timeout(
    180
)  # a command waits for seconds to be sure that no sidecar works, and some run several

CUSTOMERS = 12

# Moves that stop for good at one place until they are killed: before the third page of the history is written, or
# before the second partition's customers are put into Redis.
STOPS_AT = """
import time
from creditgate.engine import move, reconciler
from creditgate.ledger.store import Ledger
move.ENTRIES_PAGE = 2
calls = 0
def counted(real, at):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == at:
            print("half way", flush=True)
            time.sleep(60)
        return real(*arguments, **named)
    return call
{patch}
from creditgate.cli import main
main()
"""
PATCHES = {
    "copying": "Ledger.append = counted(Ledger.append, 3)",
    "filling": "move.Reconciler._restore_customers = counted(move.Reconciler._restore_customers, 2)",
}


@pytest.fixture(params=["valkey", pytest.param("redis-server", marks=pytest.mark.slow)])
def target(request: pytest.FixtureRequest) -> Iterator[ValkeyProcess]:
    """Another server: of the kind that the sidecar embeds, or the machine's Redis."""
    on_path = shutil.which("redis-server")
    if request.param == "redis-server" and on_path is None:
        pytest.skip("redis-server is not installed")
    yield from _running(ValkeyProcess(Path(on_path) if request.param == "redis-server" and on_path else None))


@pytest.fixture
def valkey() -> Iterator[ValkeyProcess]:
    """Another server of the kind that the sidecar embeds."""
    yield from _running(ValkeyProcess())


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'there.db'}"
        return
    yield request.getfixturevalue("postgresql").empty()


@pytest.fixture(scope="module")
def made() -> Iterator[SidecarProcess]:
    """A sidecar with customers who have used something, stopped."""
    process = SidecarProcess(arguments=["--demo"]).start()
    for number in range(CUSTOMERS):
        process.ask("customers.get_or_create", {"customer_id": f"customer {number}"})
        process.ask(
            "balances.track",
            {"customer_id": f"customer {number}", "feature_id": "premium_messages", "value": number},
        )
    process.stop()
    try:
        yield process
    finally:
        process.close()


@pytest.fixture
def source(made: SidecarProcess, tmp_path: Path) -> Iterator[SidecarProcess]:
    """The same once more for each test, embedded, not running."""
    process = SidecarProcess(directory=Path(tempfile.mkdtemp(prefix="cgm")))
    shutil.copytree(
        made.directory, process.directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock")
    )
    process.owns_directory = True
    try:
        yield process
    finally:
        process.close()


def test_everything_is_there(source: SidecarProcess, target: ValkeyProcess, database: str) -> None:
    """Every answer on the new servers is that of the old ones, both sides are proven, and the new ones go on."""
    before = _answers(source.start())
    source.stop()
    moved = _move(source, target, database)
    assert shlex.join(["--redis", target.url, "--database", database]) in moved.stdout
    assert (
        source.verify().stdout
        == _verify(target, database).stdout
        == f"{moved.stdout.partition(':')[0]}, 0 differences\n"
    )
    there = _there(source, target, database)
    try:
        assert _answers(there.start()) == before
        there.ask("balances.track", {"customer_id": "customer 1", "feature_id": "basic_messages"})
        assert there.stop() == 0
        assert _verify(target, database).returncode == 0
    finally:
        there.close()


@pytest.mark.slow
@pytest.mark.parametrize("place", sorted(PATCHES))
def test_an_interrupted_move_starts_nothing_and_goes_on(
    source: SidecarProcess, valkey: ValkeyProcess, tmp_path: Path, place: str
) -> None:
    """Killed while it copies, no sidecar starts on the half; killed while it fills Redis, it starts on all of it.

    The same command completes either.
    """
    database = f"sqlite:///{tmp_path / 'there.db'}"
    code = STOPS_AT.replace("{patch}", PATCHES[place])
    command = [*MAIN[:2], code, *_move_words(source, valkey, database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "half way\n"
        killed.send_signal(signal.SIGKILL)
    if place == "copying":
        refused = run(
            "serve", "--port", "0", *_servers(valkey, database), "--data-dir", str(source.directory)
        )
        assert refused.returncode == 1
        assert "two different histories" in refused.stderr
    first = _move(source, valkey, database)
    again = _move(source, valkey, database)  # nothing is left to do
    assert again.stdout == first.stdout
    assert first.stdout.startswith(_verify(valkey, database).stdout.rpartition(", ")[0])


@pytest.mark.slow
def test_what_the_source_added_meanwhile_is_moved_by_a_second_run(
    source: SidecarProcess, valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """A rehearsal costs nothing: the old servers went on after it, and the move of the day brings the rest."""
    database = f"sqlite:///{tmp_path / 'there.db'}"
    _move(source, valkey, database)
    source.start()
    source.ask("customers.get_or_create", {"customer_id": "late"})
    source.ask("balances.track", {"customer_id": "customer 0", "feature_id": "basic_messages", "value": 7})
    before = _answers(source)
    source.stop()
    _move(source, valkey, database)
    there = _there(source, valkey, database)
    try:
        assert _answers(there.start()) == before
    finally:
        there.close()


@pytest.mark.slow
def test_a_sidecar_that_works_forbids_it(
    source: SidecarProcess, valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """While a sidecar works on either side nothing is moved, and it goes on undisturbed."""
    database = f"sqlite:///{tmp_path / 'there.db'}"
    source.start()
    _refused(source, valkey, database, "in use by another creditgate")
    beside = [f"--redis=unix://{source.directory}/valkey.sock"]
    _refused(source, valkey, database, "A sidecar is working on this data", *beside)
    source.stop()
    there = _there(source, valkey, database, "init")
    try:
        there.start()
        _refused(source, valkey, database, "A sidecar is working on this data")
        there.ask("customers.get_or_create", {"customer_id": "ann"})
    finally:
        there.close()


@pytest.mark.slow
def test_other_data_is_not_touched(source: SidecarProcess, valkey: ValkeyProcess, tmp_path: Path) -> None:
    """A Redis or a database that holds other data of creditgate stays as it is."""
    database, empty = f"sqlite:///{tmp_path / 'there.db'}", f"sqlite:///{tmp_path / 'empty.db'}"
    there = _there(source, valkey, database)
    there.start()
    there.ask("customers.get_or_create", {"customer_id": "ann"})
    there.stop()
    with valkey.client() as client:
        before = _lasting(client)
        _refused(source, valkey, database, "--to-redis holds other data")
        _refused(source, valkey, empty, "--to-redis holds other data")
        assert _lasting(client) == before
        client.flushall()
    _refused(source, valkey, database, "--to-database holds other data")
    with sqlite3.connect(tmp_path / "there.db") as connection:
        assert connection.execute("SELECT count(DISTINCT customer_id) FROM journal_items").fetchone() == (1,)
    connection.close()


def test_the_same_servers_are_refused(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """A move onto itself, wholly or in half, would leave two sidecars' worth of data on one history."""
    here = f"sqlite:///{tmp_path / 'here.db'}"
    place = [*_servers(valkey, here), "--data-dir", str(tmp_path / "d")]
    assert run("init", *place).returncode == 0
    (tmp_path / "link.db").symlink_to(tmp_path / "here.db")
    there, link = f"sqlite:///{tmp_path / 'there.db'}", f"sqlite:///{tmp_path / 'link.db'}"
    other = f"redis+{valkey.url}".removeprefix("redis+") + "?db=1"
    for to, said in (
        (["--to-redis", valkey.url, "--to-database", there], "--to-redis is where this data is already"),
        (["--to-redis", other, "--to-database", there], "--to-redis is where this data is already"),
        (
            ["--to-redis", valkey.url, "--to-prefix", "other", "--to-database", link],
            "--to-database is where this data is already",
        ),
    ):
        refused = run("move", *to, *place)
        assert (refused.returncode, said in refused.stderr) == (1, True), refused.stderr


@pytest.mark.slow
def test_another_prefix_of_the_same_server_is_another_place(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """A second environment on one Redis is moved to with --to-prefix, and the printed command names it."""
    here, there = f"sqlite:///{tmp_path / 'here.db'}", f"sqlite:///{tmp_path / 'there.db'}"
    sidecar = SidecarProcess(directory=tmp_path, arguments=_servers(valkey, here))
    sidecar.start()
    sidecar.ask("customers.get_or_create", {"customer_id": "ann"})
    sidecar.stop()
    to = ["--to-redis", valkey.url, "--to-prefix", "other", "--to-database", there]
    moved = run("move", *to, *_servers(valkey, here), "--data-dir", str(tmp_path))
    assert moved.returncode == 0, moved.stderr
    assert moved.stdout.endswith("--prefix other\n")
    for place in ([*_servers(valkey, here)], [*_servers(valkey, there), "--prefix", "other"]):
        proof = run("verify", *place, "--data-dir", str(tmp_path))
        assert proof.stdout.startswith("1 customers"), proof.stdout + proof.stderr


def _lasting(client: redis.Redis) -> dict[bytes | str, bytes | None]:
    """Return all that a server holds but its leases, which run out by themselves."""
    return {key: client.dump(key) for key in client.keys("*") if client.pttl(key) < 0}


def _running(server: ValkeyProcess) -> Iterator[ValkeyProcess]:
    try:
        server.start()
        yield server
    finally:
        server.close()


def _servers(redis: ValkeyProcess, database: str) -> list[str]:
    return ["--redis", redis.url, "--database", database]


def _there(
    source: SidecarProcess, redis: ValkeyProcess, database: str, directory: str = ""
) -> SidecarProcess:
    """The sidecar on the servers that were moved to, with the key of the source."""
    place = source.directory / directory
    place.mkdir(exist_ok=True)
    return SidecarProcess(directory=place, arguments=_servers(redis, database))


def _move_words(source: SidecarProcess, redis: ValkeyProcess, database: str) -> list[str]:
    to = ["--to-redis", redis.url, "--to-database", database]
    return ["move", *to, "--data-dir", str(source.directory)]


def _move(source: SidecarProcess, redis: ValkeyProcess, database: str) -> subprocess.CompletedProcess[str]:
    moved = run(*_move_words(source, redis, database))
    assert moved.returncode == 0, moved.stderr
    return moved


def _refused(source: SidecarProcess, redis: ValkeyProcess, database: str, said: str, *more: str) -> None:
    refused = run(*_move_words(source, redis, database), *more)
    assert (refused.returncode, said in refused.stderr) == (1, True), refused.stdout + refused.stderr


def _verify(redis: ValkeyProcess, database: str) -> subprocess.CompletedProcess[str]:
    return run("verify", *_servers(redis, database))


def _answers(sidecar: SidecarProcess) -> Any:
    customers = [
        sidecar.call("customers.get", {"customer_id": f"customer {number}"}).text
        for number in range(CUSTOMERS)
    ]
    return customers, sidecar.ask("plans.list"), sidecar.ask("features.list"), sidecar.ask("events.list")
