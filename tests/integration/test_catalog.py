"""The catalog between two sidecars: what one has answered, the other answers by; a sick one holds up nobody."""

import itertools
import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.sidecar_process import CALL_SECONDS_MAX, SidecarProcess, wait_until

FEATURE = {"name": "Feature", "type": "metered", "consumable": True}

_numbers = itertools.count()


@pytest.fixture
def pair() -> Iterator[tuple[SidecarProcess, SidecarProcess]]:
    """Two sidecars on one Valkey and one SQLite file, with the tutorial's catalog."""
    with closing(SidecarProcess(arguments=["--demo"]).start()) as first, closing(first.join()) as second:
        yield first, second


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rounds", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_what_one_answered_the_other_knows(pair: tuple[SidecarProcess, SidecarProcess], rounds: int) -> None:
    """A feature that was created, priced and erased through one sidecar is so on the other when the answer is there.

    Every time of so many: an application behind a load balancer would otherwise be refused, or charged by an old price,
    once in a while.
    """
    pair[0].ask("customers.get_or_create", {"customer_id": "ann"})
    clients = [
        httpx.Client(base_url=f"{sidecar.url}/v1", headers=sidecar.headers, timeout=CALL_SECONDS_MAX)
        for sidecar in pair
    ]
    with clients[0], clients[1]:
        for number in range(1, rounds + 1):
            one, other = clients if number % 2 else reversed(clients)
            named = {"feature_id": f"f{number}"}
            _ask(one, "features.create", named | FEATURE)
            assert _ask(other, "balances.check", {"customer_id": "ann"} | named)["allowed"] is False, number
            price = {"metered_feature_id": "basic_messages", "credit_cost": number}
            _ask(other, "features.update", {"feature_id": "usd_credits", "credit_schema": [price]})
            priced = _ask(one, "balances.check", {"customer_id": "ann", "feature_id": "basic_messages"})
            assert priced["required_balance"] == number
            _ask(one, "features.delete", named)
            assert other.post("/features.get", json=named).status_code == 404, number


@pytest.mark.parametrize("how", ["hangs", "died"])
def test_a_sick_sidecar_holds_up_nobody(pair: tuple[SidecarProcess, SidecarProcess], how: str) -> None:
    """A sidecar that hangs or was killed delays a change at most for a while, and after its heartbeat by nothing."""
    first, second = pair
    if how == "died":
        second.kill()
    else:
        second.signal(signal.SIGSTOP)
    _is_seen_by_all(first)  # or not: but it is answered
    wait_until(lambda: _is_seen_by_all(first), what="a change does not wait for the dead")
    if how == "hangs":
        second.signal(signal.SIGCONT)
        wait_until(lambda: _features(second) == _features(first), what="it knows what it missed")
        wait_until(lambda: _is_seen_by_all(first), what="a change reaches both")
        assert _features(second) == _features(first)


def _ask(client: httpx.Client, verb: str, body: object) -> Any:
    answer = client.post(f"/{verb}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _is_seen_by_all(sidecar: SidecarProcess) -> bool:
    """Make a change, and say whether all who live had seen it when it was answered.

    Not how long that took, which depends on the machine: who gives up waiting for another logs it.
    """
    before = _given_up(sidecar)
    sidecar.ask("features.create", {"feature_id": f"g{next(_numbers)}"} | FEATURE)
    return _given_up(sidecar) == before


def _given_up(sidecar: SidecarProcess) -> int:
    return (sidecar.directory / "log").read_text().count("catalog_not_seen_by_all")


def _features(sidecar: SidecarProcess) -> Any:
    """What a worker has read: unlike other verbs, a list never reads the catalog again."""
    return sidecar.ask("features.list")
