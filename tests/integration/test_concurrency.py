"""Many callers, two sidecars, one balance."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.sidecar_process import SidecarProcess, wait_until

CLIENTS = 64
CALLS_EACH = 4
PRICE_IN_CALLS = 50  # 5 credits at 0.10


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[SidecarProcess, SidecarProcess]]:
    """Two sidecars on one Valkey and one SQLite file, with the tutorial's catalog."""
    with closing(SidecarProcess(arguments=["--demo"]).start()) as first, closing(first.join()) as second:
        yield first, second


async def test_the_last_credit_is_spent_once(pair: tuple[SidecarProcess, SidecarProcess]) -> None:
    """64 clients through two sidecars spend 5 credits: 50 calls of 0.10 are accepted, no more, no fewer."""
    pair[0].ask("customers.get_or_create", {"customer_id": "crowd"})
    accepted = await _spend(pair, "crowd")
    assert accepted == PRICE_IN_CALLS
    balance = pair[1].ask("customers.get", {"customer_id": "crowd"})["balances"]["usd_credits"]
    assert (balance["remaining"], balance["usage"]) == (0, 5)
    wait_until(
        lambda: _rows_in_sql(pair[0], "crowd") == PRICE_IN_CALLS, what="every accepted call once in SQL"
    )
    assert pair[0].verify().returncode == 0


async def test_holds_are_put_right_by_whoever_comes(pair: tuple[SidecarProcess, SidecarProcess]) -> None:
    """64 clients hold on one sidecar and settle on the other, in every way: what is left is what was not used."""
    pair[0].ask("customers.get_or_create", {"customer_id": "holders"})
    pair[0].ask(
        "balances.create", {"customer_id": "holders", "feature_id": "basic_messages", "included_grant": 3000}
    )
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(headers=pair[0].headers, timeout=20, limits=limits) as client:
        used = sum(await asyncio.gather(*(_hold_and_settle(client, pair, n) for n in range(CLIENTS))))
    customer = pair[1].ask("customers.get", {"customer_id": "holders"})
    own, credits = (customer["balances"][name] for name in ("basic_messages", "usd_credits"))
    assert own["usage"] + credits["usage"] * 100 == pytest.approx(used, abs=1e-9)
    assert credits["usage"] == 0, "the feature's own units were enough"
    assert pair[0].verify().returncode == 0


async def test_a_customer_is_made_once(pair: tuple[SidecarProcess, SidecarProcess]) -> None:
    """32 callers who see a customer for the first time at once make one customer with one plan."""
    async with httpx.AsyncClient(headers=pair[0].headers, timeout=20) as client:
        answers = await asyncio.gather(
            *(
                client.post(f"{pair[n % 2].url}/v1/customers.get_or_create", json={"customer_id": "new"})
                for n in range(32)
            )
        )
    bodies = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(bodies) == 32, [answer.text for answer in answers if answer.status_code != 200]
    assert len({body["subscriptions"][0]["id"] for body in bodies}) == 1
    assert all(body["balances"]["usd_credits"]["granted"] == 5 for body in bodies)


async def _spend(pair: tuple[SidecarProcess, SidecarProcess], customer_id: str) -> int:
    body = {"customer_id": customer_id, "feature_id": "premium_messages", "send_event": True}

    async def client_calls(client: httpx.AsyncClient, number: int) -> int:
        accepted = 0
        for _ in range(CALLS_EACH):
            answer = await client.post(f"{pair[number % 2].url}/v1/balances.check", json=body)
            while answer.status_code == 202:  # undecided: ask again
                answer = await client.post(f"{pair[number % 2].url}/v1/balances.check", json=body)
            assert answer.status_code == 200, answer.text
            accepted += answer.json()["allowed"]
        return accepted

    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(headers=pair[0].headers, timeout=20, limits=limits) as client:
        return sum(await asyncio.gather(*(client_calls(client, number) for number in range(CLIENTS))))


async def _hold_and_settle(
    client: httpx.AsyncClient, pair: tuple[SidecarProcess, SidecarProcess], number: int
) -> int:
    """Hold 8 units a few times, and settle each at another number of units, or release it; returns what was used."""
    total = 0
    for call in range(CALLS_EACH):
        lock = {"lock_id": f"{number} {call}"}
        body = {"customer_id": "holders", "feature_id": "basic_messages", "required_balance": 8, "lock": lock}
        held = await _until_decided(client, f"{pair[number % 2].url}/v1/balances.check", body)
        assert held["allowed"], held
        used = (0, 3, 8, 11)[(number + call) % 4]
        end = {"lock_id": lock["lock_id"], "action": "confirm", "override_value": used}
        ended = await _until_decided(client, f"{pair[(number + 1) % 2].url}/v1/balances.finalize", end)
        assert ended == {"success": True}
        total += used
    return total


async def _until_decided(client: httpx.AsyncClient, url: str, body: Any) -> Any:
    """Send a call again with its key for as long as nobody knows what became of it."""
    while True:
        answer = await client.post(url, json=body, headers={"Idempotency-Key": f"{body.get('lock') or body}"})
        if answer.status_code not in (202, 503):
            return answer.json()


def _rows_in_sql(sidecar: SidecarProcess, customer_id: str) -> int:
    with sqlite3.connect(f"file:{sidecar.directory}/ledger.db?mode=ro", uri=True) as connection:
        query = "SELECT count(*) FROM journal_items WHERE customer_id = ? AND kind = 'use'"
        count: int = connection.execute(query, (customer_id,)).fetchone()[0]
    connection.close()
    return count
