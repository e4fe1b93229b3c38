"""`creditgate serve --workers 2`: two processes that answer as one."""

import os
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.api.lanes import frozen
from tests.sidecar_process import SidecarProcess, run, wait_until
from tests.telemetry.scraping import Page, page_of, scrape

TRACKED = {"verb": "track", "feature": "basic_messages", "outcome": "allowed"}


@pytest.fixture(scope="module")
def sidecar() -> Iterator[SidecarProcess]:
    """A sidecar with two workers, on TCP and on `gate.sock` in its directory."""
    with tempfile.TemporaryDirectory(prefix="cgw") as path:
        arguments = ["--demo", "--workers", "2", "--unix-socket", f"{path}/d/gate.sock"]
        directory = Path(path) / "d"
        directory.mkdir(mode=0o700)
        process = SidecarProcess(directory=directory, arguments=arguments)
        try:
            process.start()
            process.ask("customers.get_or_create", {"customer_id": "ann"})
            yield process
        finally:
            process.close()


def test_both_workers_answer_and_are_counted_together(sidecar: SidecarProcess) -> None:
    """Each worker takes connections of both sockets; whichever is scraped tells what both have counted."""
    body = {"customer_id": "ann", "feature_id": "basic_messages", "value": 1}
    before = scrape(sidecar)
    pages: list[Page] = []
    for hung in sidecar.worker_pids:  # so that the other one must answer
        transport = httpx.HTTPTransport(uds=str(sidecar.directory / "gate.sock"))
        with (
            httpx.Client(base_url=sidecar.url, headers=sidecar.headers) as over_tcp,
            httpx.Client(
                base_url="http://localhost", headers=sidecar.headers, transport=transport
            ) as over_unix,
        ):
            with frozen(hung):
                for client in (over_tcp, over_unix):
                    assert client.post("/v1/balances.track", json=body).status_code == 200
                    assert client.get("/readyz").status_code == 200
            pages.append(page_of(over_tcp.get("/metrics")))
    for number, page in enumerate(pages, start=1):
        assert _grown(before, page, "creditgate_decisions_total", **TRACKED) == 2 * number
        timed = {"verb": "track", "le": "+Inf"}
        assert _grown(before, page, "creditgate_decision_duration_seconds_bucket", **timed) == 2 * number
    flushed = "creditgate_flush_entries_total"  # which only the background process counts
    wait_until(lambda: _grown(before, scrape(sidecar), flushed) >= 4, what="the flusher's numbers")


def test_a_worker_that_ends_by_itself_is_replaced_and_the_socket_stays(sidecar: SidecarProcess) -> None:
    """Nobody is refused while a worker is away, even the last: connections wait for the next one."""
    for pid in (workers := sidecar.worker_pids):
        os.kill(pid, signal.SIGKILL)
    transport = httpx.HTTPTransport(uds=str(sidecar.directory / "gate.sock"))
    with httpx.Client(transport=transport, timeout=20) as client:
        assert client.get("http://localhost/healthz").status_code == 200
    assert httpx.get(f"{sidecar.url}/healthz", timeout=20).status_code == 200
    wait_until(lambda: len(set(sidecar.worker_pids) - set(workers)) == 2, what="two new workers")


def test_what_the_background_process_left_is_in_sql_when_we_have_ended(sidecar: SidecarProcess) -> None:
    """Killed a moment before SIGTERM, with entries that it has not flushed: another one flushes them first."""
    used = "SELECT count(*) FROM journal_items WHERE op_id IS NOT NULL AND feature_id = 'basic_messages'"
    os.kill(sidecar.background_pid, signal.SIGSTOP)
    before = _count(sidecar, used)
    for _ in range(3):
        sidecar.ask("balances.track", {"customer_id": "ann", "feature_id": "basic_messages", "value": 1})
    assert _count(sidecar, used) == before
    os.kill(sidecar.background_pid, signal.SIGKILL)
    assert sidecar.stop() == 0
    assert _count(sidecar, used) == before + 3, (sidecar.directory / "log").read_text()
    sidecar.start()


def test_signals_to_every_process_end_it_in_order(sidecar: SidecarProcess) -> None:
    """A service manager, or Ctrl-C, sends its signal to all: the supervisor's order counts, and nothing is left."""
    pids, valkey = sidecar.pids, sidecar.valkey_pid
    for number in (signal.SIGINT, signal.SIGTERM):
        for pid in pids[1:]:
            os.kill(pid, number)  # is for the supervisor to hear, and changes nothing
    sidecar.ask("customers.get", {"customer_id": "ann"})
    assert sidecar.stop() == 0
    assert not [pid for pid in (*pids, valkey) if Path(f"/proc/{pid}").exists()]
    assert not (sidecar.directory / "gate.sock").exists()
    assert "Traceback" not in (sidecar.directory / "log").read_text()


def test_everything_in_one_process(sidecar: SidecarProcess) -> None:
    """With no workers, the one process answers and works in the background; the data is the same."""
    sidecar.arguments = ["--workers", "0"]
    sidecar.start()
    assert len(sidecar.pids) == 1
    sidecar.ask("balances.track", {"customer_id": "ann", "feature_id": "basic_messages"})
    assert sidecar.stop() == 0
    assert sidecar.verify().returncode == 0


def test_a_number_that_is_none() -> None:
    """A slip of the keyboard forks nothing."""
    for number in ("-1", "1000"):
        ended = run("serve", "--workers", number)
        assert ended.returncode == 2
        assert "--workers" in ended.stderr


def _count(sidecar: SidecarProcess, query: str) -> int:
    with closing(sqlite3.connect(sidecar.directory / "ledger.db")) as sql:
        return int(sql.execute(query).fetchone()[0])


def _grown(before: Page, after: Page, sample: str, **labels: str) -> float:
    return (after.value(sample, **labels) or 0) - (before.value(sample, **labels) or 0)
