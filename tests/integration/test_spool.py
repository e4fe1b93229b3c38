"""Redis is away: what is allowed is what the features say, and every use that was acknowledged is taken, once."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sidecar_process import SidecarProcess, run, wait_until

CALLS = 24
TRACK = {"feature_id": "basic_messages", "value": 1}


@pytest.fixture
def sidecar() -> Iterator[SidecarProcess]:
    """A running sidecar with the tutorial's catalog, two workers, and two customers."""
    process = SidecarProcess(arguments=["--demo", "--workers", "2"]).start()
    for customer_id in ("ann", "bob"):
        process.ask("customers.get_or_create", {"customer_id": customer_id})
    try:
        yield process
    finally:
        process.close()


def test_kill_9_with_a_full_spool(sidecar: SidecarProcess) -> None:
    """Uses kept during an outage outlive a kill -9 of everything, and what a client repeats by its key is one."""
    sidecar.ask("features.update", {"feature_id": "basic_messages", "on_unavailable": "allow"})
    limited = {"feature_id": "premium_messages", "on_unavailable": {"allow_up_to": 3}}
    assert sidecar.ask("features.update", limited)["on_unavailable"] == {"allow_up_to": 3}
    with _redis_stopped(sidecar), ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(lambda place: _track(sidecar, place), range(CALLS)))
        assert {answer.status_code for answer in kept} == {202}, {answer.text for answer in kept}
        assert kept[0].json() == {"customer_id": "ann", "value": 1, "balance": None, "deductions": []}
        again = _track(sidecar, 0)
        assert (again.status_code, again.headers["X-Creditgate-Decision"]) == (202, "fallback")
        taken = sidecar.call("balances.check", {"customer_id": "ann", **_feature(TRACK), "send_event": True})
        assert (taken.status_code, taken.json()["allowed"], taken.json()["code"]) == (202, True, "undecided")
        asked = [sidecar.call("balances.check", _premium(2)).json()["allowed"] for _ in range(4)]
        assert asked.count(True) in (1, 2)  # one for each worker that was asked
        assert not sidecar.call("balances.check", _premium(2) | {"lock": {"enabled": True}}).json()["allowed"]
        sidecar.kill()
    said = sidecar.verify()
    calls = CALLS + 2  # with the one that was repeated, which is found to be the same when it is posted
    assert f"{calls} uses that were kept during an outage wait in the spool" in said.stdout, said
    assert said.returncode == 0
    sidecar.start()
    wait_until(lambda: _uses(sidecar) == CALLS + 1, what="all uses are in SQL")
    wait_until(lambda: not _spooled(sidecar), what="the spool is empty")
    assert _track(sidecar, 0).headers["Idempotent-Replayed"] == "true"
    assert sidecar.verify().returncode == 0
    wait_until(lambda: _uses(sidecar) == CALLS + 1, what="no use is there twice")


@pytest.mark.slow
def test_a_backup_has_the_spool(sidecar: SidecarProcess, tmp_path: Path) -> None:
    """What was answered 202 and not posted when the backup was made is taken by the restored data, once."""
    with _redis_stopped(sidecar):
        assert {_track(sidecar, place).status_code for place in range(3)} == {202}
        sidecar.kill()
    backup, data = tmp_path / "backup", tmp_path / "data"
    made = run("backup", str(backup), "--data-dir", str(sidecar.directory))
    assert "and 3 uses that were kept during an outage" in made.stdout, made.stderr
    assert run("restore", str(backup), "--data-dir", str(data)).returncode == 0
    restored = SidecarProcess(directory=data)
    try:
        restored.start()
        wait_until(lambda: not _spooled(restored), what="the spool is empty")
        assert restored.stop() == 0
        assert _uses(restored) == 3
        assert restored.verify().returncode == 0
    finally:
        restored.close()


@pytest.mark.slow
def test_the_spool_is_full(sidecar: SidecarProcess) -> None:
    """What has no room is refused, in a way that says so; once Redis is back, the rest is posted without a restart."""
    sidecar.stop()
    sidecar.arguments += ["--spool-max-mb", "1"]
    sidecar.start()
    large = {"customer_id": "bob", **TRACK, "properties": {"note": "x" * 4000}}
    with _redis_stopped(sidecar), ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda _: sidecar.call("balances.track", large), range(320)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {202, 503}, {answer.text for answer in answers}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert (refused.json()["code"], refused.headers["Retry-After"]) == ("service_unavailable", "1")
    wait_until(lambda: not _spooled(sidecar), what="the spool is empty")
    wait_until(lambda: _uses(sidecar) == statuses.count(202), what="what was kept is in SQL")
    assert sidecar.verify().returncode == 0


def _track(sidecar: SidecarProcess, place: int) -> httpx.Response:
    body = {"customer_id": "ann" if place % 2 == 0 else "bob", **TRACK}
    return sidecar.call("balances.track", body, headers={"Idempotency-Key": f"key-{place}"})


def _feature(body: dict[str, Any]) -> dict[str, Any]:
    return {"feature_id": body["feature_id"]}


def _premium(units: int) -> dict[str, Any]:
    return {"customer_id": "ann", "feature_id": "premium_messages", "required_balance": units}


@contextmanager
def _redis_stopped(sidecar: SidecarProcess) -> Iterator[None]:
    redis = sidecar.valkey_pid
    os.kill(redis, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it has ended with its sidecar
            os.kill(redis, signal.SIGCONT)


def _spooled(sidecar: SidecarProcess) -> list[str]:
    return [path.name for path in (sidecar.directory / "spool").rglob("*.jsonl")]


def _uses(sidecar: SidecarProcess) -> int:
    with closing(sqlite3.connect(f"file:{sidecar.directory}/ledger.db?mode=ro", uri=True)) as ledger:
        count: int = ledger.execute(
            "SELECT count(DISTINCT op_id) FROM journal_items WHERE kind = 'use'"
        ).fetchone()[0]
    return count
