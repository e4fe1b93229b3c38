"""`creditgate backup` and `creditgate restore`: what was answered before is in it, and half of one is nothing."""

import json
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from tests.sidecar_process import MAIN, SidecarProcess, run, wait_until

CLIENTS = 4

# A backup that stops in the middle, with the copy written and the manifest not, until it is killed.
STOPS_HALF_WAY = """
import sys, time
from creditgate.engine import backup
def stop(path):
    print("half way", flush=True)
    time.sleep(60)
backup._sha256 = stop
from creditgate.cli import main
main()
"""


@pytest.fixture
def sidecar() -> Iterator[SidecarProcess]:
    """A running sidecar with the tutorial's catalog, and Ann, who has used something."""
    process = SidecarProcess(arguments=["--demo"]).start()
    process.ask("customers.get_or_create", {"customer_id": "ann", "name": "Ann"})
    process.ask("balances.track", {"customer_id": "ann", "feature_id": "basic_messages", "value": 2})
    try:
        yield process
    finally:
        process.close()


def test_a_backup_under_load_has_all_that_was_answered_before(
    sidecar: SidecarProcess, tmp_path: Path
) -> None:
    """An operator who backs up a busy sidecar loses no call that was answered when the command began."""
    with _load(sidecar) as answered:
        wait_until(lambda: sum(answered) >= 50, what="some calls")
        before = sum(answered)
        made = _backup(sidecar, tmp_path / "backup")
    assert "environment test, 8 partitions" in made.stdout
    restored = _restore(tmp_path / "backup", tmp_path)
    try:
        balance = restored.start().ask("customers.get", {"customer_id": "busy"})["balances"]["usd_credits"]
        assert before <= balance["usage"] * 100 <= sum(answered)
        assert restored.verify().returncode == 0
    finally:
        restored.close()


def test_the_restored_answers_as_the_original_did(sidecar: SidecarProcess, tmp_path: Path) -> None:
    """Customers, catalog and key are those of the original, and it goes on from there."""
    before = _answers(sidecar)
    sidecar.stop()
    _backup(sidecar, tmp_path / "backup")  # with nothing running
    restored = _restore(tmp_path / "backup", tmp_path)
    assert restored.key == sidecar.key
    try:
        assert _answers(restored.start()) == before
        restored.ask("balances.track", {"customer_id": "ann", "feature_id": "basic_messages", "value": 1})
        assert restored.stop() == 0
        assert restored.verify().returncode == 0
    finally:
        restored.close()


@pytest.mark.slow
def test_a_restored_directory_needs_no_serve_first(sidecar: SidecarProcess, tmp_path: Path) -> None:
    """Who restores may verify, rebuild and back up at once; each finds the data."""
    sidecar.stop()
    _backup(sidecar, tmp_path / "backup")
    restored = _restore(tmp_path / "backup", tmp_path)
    rebuilt = run("rebuild", "--data-dir", str(restored.directory))
    assert rebuilt.stdout == "1 customers put back\n", rebuilt.stderr
    assert (
        run("rebuild", "--data-dir", str(restored.directory)).stdout == "Redis has everything that SQL has\n"
    )
    assert restored.verify().returncode == 0
    _backup(restored, tmp_path / "again")
    with (
        sqlite3.connect(tmp_path / "again" / "ledger.db") as copy,
        sqlite3.connect(tmp_path / "backup" / "ledger.db") as first,
    ):
        query = "SELECT * FROM journal_items ORDER BY partition, stream_ms, stream_counter, item"
        assert copy.execute(query).fetchall() == first.execute(query).fetchall()
    copy.close()
    first.close()


@pytest.mark.slow
def test_a_backup_that_was_killed_is_no_backup(sidecar: SidecarProcess, tmp_path: Path) -> None:
    """Killed in the middle, the name that was asked for is not there, and what is there is refused by `restore`."""
    target = tmp_path / "backup"
    command = [*MAIN[:2], STOPS_HALF_WAY, "backup", str(target), "--data-dir", str(sidecar.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "half way\n"
        killed.send_signal(signal.SIGKILL)
    assert not target.exists()
    (rest,) = tmp_path.iterdir()
    assert "partial" in rest.name
    refused = run("restore", str(rest), "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert "is not a backup, or one that was interrupted" in refused.stderr
    assert not (tmp_path / "data").exists()
    _backup(sidecar, target)  # the same name, once more
    assert sidecar.verify().returncode == 0


@pytest.mark.parametrize("damage", ["shorter", "other", "missing", "key"])
def test_a_damaged_backup_is_refused(sidecar: SidecarProcess, tmp_path: Path, damage: str) -> None:
    """A file that was cut off, changed or lost on the way to the other machine is found before anything is made."""
    _backup(sidecar, tmp_path / "backup")
    ledger = tmp_path / "backup" / "ledger.db"
    if damage == "missing":
        ledger.unlink()
    elif damage == "shorter":
        with ledger.open("r+b") as file:
            file.truncate(ledger.stat().st_size - 4096)
    elif damage == "other":
        with ledger.open("r+b") as file:
            file.seek(2000)
            file.write(b"x")
    else:
        (tmp_path / "backup" / "secret_key").write_text("cg_sk_test_other\n")
    refused = run("restore", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]


def test_nothing_is_overwritten(sidecar: SidecarProcess, tmp_path: Path) -> None:
    """Neither an older backup nor a data directory in use gives way to a new one."""
    _backup(sidecar, tmp_path / "backup")
    before = (tmp_path / "backup" / "manifest.json").read_bytes()
    again = run("backup", str(tmp_path / "backup"), "--data-dir", str(sidecar.directory))
    assert (again.returncode, "is not empty" in again.stderr) == (1, True)
    over = run("restore", str(tmp_path / "backup"), "--data-dir", str(sidecar.directory))
    assert (over.returncode, "is not empty" in over.stderr) == (1, True)
    assert (tmp_path / "backup" / "manifest.json").read_bytes() == before
    assert sidecar.verify().returncode == 0


def test_a_backup_is_for_its_owner_alone_and_says_what_it_is(sidecar: SidecarProcess, tmp_path: Path) -> None:
    """It holds customers and a key, so nobody else may read it; and a person can see what it is of."""
    _backup(sidecar, tmp_path / "backup")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "backup").iterdir()}
    assert modes == {"ledger.db": 0o600, "secret_key": 0o600, "manifest.json": 0o600}
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    manifest = json.loads((tmp_path / "backup" / "manifest.json").read_text())
    assert (manifest["environment"], manifest["partitions"]) == ("test", 8)
    assert len(manifest["positions"]) == 9


@pytest.mark.slow
def test_a_directory_without_data_is_said_and_not_made(tmp_path: Path) -> None:
    """A mistyped --data-dir starts no server in a new directory; it is one sentence."""
    for command in (["backup", str(tmp_path / "b")], ["verify"], ["rebuild"], ["statement", "ann"]):
        ended = run(*command, "--data-dir", str(tmp_path / "typo"))
        assert ended.returncode == 1
        said = f"There is no data of creditgate in {tmp_path / 'typo'}; `creditgate init` makes it."
        assert ended.stderr == f"creditgate: {said}\n"
        assert not (tmp_path / "typo").exists()


def test_an_odd_directory_is_found_beside_its_sidecar(tmp_path: Path) -> None:
    """A data directory with `%41`, `?` or `#` in its name is joined, not mistaken for another one."""
    directory = tmp_path / "a%41 ?#b"
    directory.mkdir()
    sidecar = SidecarProcess(directory=directory).start()
    try:
        assert sidecar.verify().returncode == 0
        _backup(sidecar, tmp_path / "backup")
    finally:
        sidecar.close()


class _load:
    """Clients that track for the customer `busy` until the end; a list of how many calls each had answered."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        sidecar.ask("customers.get_or_create", {"customer_id": "busy"})
        body = {"customer_id": "busy", "feature_id": "usd_credits", "included_grant": 1_000_000}
        sidecar.ask("balances.create", body)
        self._sidecar = sidecar
        self._stop = Event()
        self._answered = [0] * CLIENTS
        self._threads = [Thread(target=self._calls, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> list[int]:
        for thread in self._threads:
            thread.start()
        return self._answered

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _calls(self, number: int) -> None:
        body = {"customer_id": "busy", "feature_id": "basic_messages"}
        with httpx.Client(headers=self._sidecar.headers, timeout=20) as client:
            while not self._stop.is_set():
                answer = client.post(f"{self._sidecar.url}/v1/balances.track", json=body)
                self._answered[number] += answer.status_code == 200


def _backup(sidecar: SidecarProcess, target: Path) -> subprocess.CompletedProcess[str]:
    made = run("backup", str(target), "--data-dir", str(sidecar.directory))
    assert made.returncode == 0, made.stderr
    return made


def _restore(backup: Path, tmp_path: Path) -> SidecarProcess:
    """The sidecar of a new data directory, which is not started yet."""
    directory = tmp_path / "restored"
    made = run("restore", str(backup), "--data-dir", str(directory))
    assert made.returncode == 0, made.stderr
    assert made.stdout.endswith(f"creditgate serve --data-dir {directory}\n")
    return SidecarProcess(directory=directory)


def _answers(sidecar: SidecarProcess) -> Any:
    ann = sidecar.ask("customers.get", {"customer_id": "ann", "expand": ["balances.feature"]})
    return ann, sidecar.ask("plans.list"), sidecar.ask("features.list"), sidecar.ask("events.list")
