"""kill -9 or a pause in the middle of some thousand items: each is taken once, by whoever comes next."""

import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sidecar_process import SidecarProcess, wait_until

BATCHES = 4  # so many that they are not over before we have looked
BATCH_ITEMS = 1_000
ITEMS = BATCHES * BATCH_ITEMS
CUSTOMERS = 7
BEFORE_THE_KILL = 100
SECONDS_MAX = 90.0

pytestmark = pytest.mark.timeout(300)  # each waits several times, for SECONDS_MAX at most


@pytest.fixture
def sidecar() -> Iterator[SidecarProcess]:
    """A running sidecar with the tutorial's catalog and customers with enough to spend."""
    process = SidecarProcess(arguments=["--demo"]).start()
    for number in range(CUSTOMERS):
        process.ask("customers.get_or_create", {"customer_id": f"c{number}"})
    try:
        yield process
    finally:
        process.close()


def test_a_batch_survives_kill_9(sidecar: SidecarProcess) -> None:
    """Killed while it works, and killed again by the next one, the sidecar takes each item of the batches once."""
    batch_ids = _send(sidecar)
    for more in (1, 2):
        _wait_for(sidecar, more * BEFORE_THE_KILL)
        sidecar.kill()
        assert len(_taken(sidecar)) < ITEMS, "the batches were over before the kill: this test tests nothing"
        stopped = sidecar.verify()
        assert "batches of usage are still to be worked off" in stopped.stdout
        sidecar.start()
    _assert_each_item_once(sidecar, batch_ids)


def test_a_sidecar_that_was_paused_doubles_nothing(sidecar: SidecarProcess) -> None:
    """Paused in the middle of a batch, it finds when it wakes up that another sidecar has gone on, and lets it."""
    other = sidecar.join()
    try:
        batch_ids = _send(other)
        _wait_for(sidecar, BEFORE_THE_KILL)
        sidecar.signal(signal.SIGSTOP)
        taken = len(_taken(sidecar))
        assert taken < ITEMS / 2, "the batches were over before the pause: this test tests nothing"
        _wait_for(sidecar, taken + BEFORE_THE_KILL)
        sidecar.signal(signal.SIGCONT)
        _assert_each_item_once(other, batch_ids)
    finally:
        other.close()


def _send(sidecar: SidecarProcess) -> list[str]:
    items = [
        {"customer_id": f"c{number % CUSTOMERS}", "feature_id": "basic_messages", "value": 0.5}
        for number in range(BATCH_ITEMS)
    ]
    answers = [sidecar.call("balances.batch_track", items) for _ in range(BATCHES)]
    assert {answer.status_code for answer in answers} == {202}
    return [str(answer.headers["X-Creditgate-Batch"]) for answer in answers]


def _wait_for(sidecar: SidecarProcess, items: int) -> None:
    wait_until(lambda: len(_taken(sidecar)) >= items, what="some items taken", seconds=SECONDS_MAX)


def _assert_each_item_once(sidecar: SidecarProcess, batch_ids: list[str]) -> None:
    for batch_id in batch_ids:
        wait_until(
            lambda: _batch(sidecar, batch_id)["status"] == "done",  # noqa: B023 - it is asked in this turn
            what="the batch worked off",
            seconds=SECONDS_MAX,
        )
        assert _batch(sidecar, batch_id)["failures"] == []
    wait_until(lambda: len(_taken(sidecar)) >= ITEMS, what="every item in SQL", seconds=SECONDS_MAX)
    once = {f"{batch_id}.{number}": 1 for batch_id in batch_ids for number in range(BATCH_ITEMS)}
    assert Counter(_taken(sidecar)) == once
    proof = sidecar.verify()
    assert proof.returncode == 0, proof.stdout + proof.stderr
    assert "still to be worked off" not in proof.stdout
    for number in range(CUSTOMERS):
        used = sidecar.ask("customers.get", {"customer_id": f"c{number}"})["balances"]["usd_credits"]["usage"]
        assert used == pytest.approx(0.005 * BATCHES * len(range(number, BATCH_ITEMS, CUSTOMERS)))


def _batch(sidecar: SidecarProcess, batch_id: str) -> Any:
    (batch,) = sidecar.ask("balances.batch_list", {"batch_id": batch_id})["list"]
    return batch


def _taken(sidecar: SidecarProcess) -> list[str]:
    """The op ids of the items that are in SQL."""
    with sqlite3.connect(f"file:{sidecar.directory}/ledger.db?mode=ro", uri=True) as sql:
        rows = sql.execute("SELECT op_id FROM journal_items WHERE verb = 'track'").fetchall()
    return [row[0] for row in rows]
