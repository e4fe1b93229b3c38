"""kill -9 under load: of the sidecar, of one of its processes, and of its Valkey."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import Iterator

import httpx
import pytest

from tests.sidecar_process import SidecarProcess, is_alive, wait_until
from tests.telemetry.scraping import scrape

CLIENTS = 16
CALLS_BEFORE_THE_KILL = 200


@pytest.fixture
def sidecar() -> Iterator[SidecarProcess]:
    """A running sidecar with the tutorial's catalog, two workers, and a customer with enough to spend."""
    process = SidecarProcess(arguments=["--demo", "--workers", "2"]).start()
    process.ask("customers.get_or_create", {"customer_id": "busy"})
    process.ask(
        "balances.create",
        {"customer_id": "busy", "feature_id": "usd_credits", "included_grant": 100000},
    )
    try:
        yield process
    finally:
        process.close()


async def test_kill_9_of_the_sidecar_loses_nothing_acknowledged(sidecar: SidecarProcess) -> None:
    """Every call that was answered before the sidecar was killed is in SQL once, after the next start."""
    valkey = sidecar.valkey_pid
    acknowledged = await _load(sidecar, sidecar.kill)
    assert len(acknowledged) >= CALLS_BEFORE_THE_KILL
    wait_until(lambda: not is_alive(valkey), what="Valkey has ended")
    sidecar.start()
    _assert_the_books_hold(sidecar, acknowledged)


async def test_kill_9_of_valkey_loses_nothing_acknowledged(sidecar: SidecarProcess) -> None:
    """Every call that was answered is in SQL once, though Valkey was killed and brought back under load."""
    acknowledged = await _load(sidecar, sidecar.kill_valkey)
    assert len(acknowledged) >= CALLS_BEFORE_THE_KILL
    wait_until(lambda: _is_ready(sidecar), what="ready again")
    _assert_the_books_hold(sidecar, acknowledged)


async def test_kill_9_of_one_process_loses_nothing_acknowledged(sidecar: SidecarProcess) -> None:
    """A worker, then the background process with its Valkey, are killed under load: others take their places."""
    before = sidecar.pids
    taken = []

    def disturb() -> None:
        first, second = sidecar.worker_pids
        _taken(sidecar)  # what each has said, it has kept
        os.kill(first, signal.SIGKILL)
        taken.append(_taken(sidecar))  # by the other one
        wait_until(lambda: len(set(sidecar.worker_pids) - {first, second}) == 1, what="another worker")
        valkey = sidecar.valkey_pid
        os.kill(sidecar.background_pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(valkey), what="Valkey has ended")
        wait_until(lambda: _is_ready(sidecar), what="ready again")
        taken.append(_taken(sidecar))

    acknowledged = await _load(sidecar, disturb)
    assert len(sidecar.pids) == len(before)
    assert sidecar.pids[0] == before[0]
    _assert_the_books_hold(sidecar, acknowledged)
    assert taken == sorted(taken), "a counter fell"
    assert _taken(sidecar) > 0.9 * len(_ids_in_sql(sidecar)), "what the dead have counted is forgotten"
    assert sidecar.stop() == 0


async def test_sigterm_answers_what_is_in_flight_and_flushes(sidecar: SidecarProcess) -> None:
    """A stop under load answers or refuses each call, ends with code 0, and leaves SQL complete."""
    codes = []
    acknowledged = await _load(sidecar, lambda: codes.append(sidecar.stop()))
    assert codes == [0]
    assert _ids_in_sql(sidecar) >= acknowledged
    assert sidecar.verify().returncode == 0


def _is_ready(sidecar: SidecarProcess) -> bool:
    return httpx.get(f"{sidecar.url}/readyz").status_code == 200


def _taken(sidecar: SidecarProcess) -> float:
    """Return how many tracks were allowed, as the sidecar counts them."""
    labels = {"verb": "track", "feature": "basic_messages", "outcome": "allowed"}
    return scrape(sidecar).value("creditgate_decisions_total", **labels) or 0


def _assert_the_books_hold(sidecar: SidecarProcess, acknowledged: set[str]) -> None:
    wait_until(lambda: _ids_in_sql(sidecar) >= acknowledged, what="every acknowledged call in SQL")
    proof = sidecar.verify()
    assert proof.returncode == 0, proof.stdout + proof.stderr
    ids = _all_ids_in_sql(sidecar)
    assert len(ids) == len(set(ids)), "a call was counted twice"


async def _load(sidecar: SidecarProcess, disturb: object) -> set[str]:
    """Track with ids of our own from many clients, disturb in the middle, return the ids that were acknowledged."""
    acknowledged: set[str] = set()
    stop, enough = asyncio.Event(), asyncio.Event()

    async def client_calls(client: httpx.AsyncClient, number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            call_id = f"{number}-{count}"
            body = {
                "customer_id": "busy",
                "feature_id": "basic_messages",
                "properties": {"call": call_id},
            }
            try:
                answer = await client.post(f"{sidecar.url}/v1/balances.track", json=body)
            except httpx.TransportError:
                await asyncio.sleep(0.01)
                continue
            if answer.status_code in (200, 202):  # 202: it is spooled
                acknowledged.add(call_id)
                if len(acknowledged) >= CALLS_BEFORE_THE_KILL:
                    enough.set()
            else:
                assert answer.status_code == 429, answer.text

    async with httpx.AsyncClient(headers=sidecar.headers, timeout=20) as client:
        clients = [asyncio.create_task(client_calls(client, number)) for number in range(CLIENTS)]
        async with asyncio.timeout(30):
            await enough.wait()
        assert callable(disturb)
        await asyncio.to_thread(disturb)
        await asyncio.sleep(1.0)
        stop.set()
        await asyncio.gather(*clients)
    return acknowledged


def _ids_in_sql(sidecar: SidecarProcess) -> set[str]:
    return set(_all_ids_in_sql(sidecar))


def _all_ids_in_sql(sidecar: SidecarProcess) -> list[str]:
    connection = sqlite3.connect(f"file:{sidecar.directory}/ledger.db?mode=ro", uri=True)
    query = "SELECT json_extract(properties, '$.call') FROM journal_items WHERE verb = 'track'"
    rows = [row[0] for row in connection.execute(query)]
    connection.close()
    return rows
