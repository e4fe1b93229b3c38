"""The catalog between two sidecars: what one has answered, the other answers by; a sick one holds up nobody."""

import itertools
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from creditgate.engine.workers import SEEN_TIMEOUT_S
from tests.sidecar_process import CALL_SECONDS_MAX, SidecarProcess, wait_until

FEATURE = {"name": "Feature", "type": "metered", "consumable": True}
SLACK_S = 5.0  # of a busy machine, for one change that waits for nobody

_numbers = itertools.count()


@pytest.fixture
def pair() -> Iterator[tuple[SidecarProcess, SidecarProcess]]:
    """Two sidecars on one Valkey and one SQLite file, with the tutorial's catalog."""
    first = SidecarProcess(arguments=["--demo"]).start()
    with closing(first):
        second = first.join()
        with closing(second):
            yield first, second


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rounds", [200, pytest.param(1000, marks=pytest.mark.slow)])
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
    """A sidecar that hangs or was killed delays a change by a second at most, and after its heartbeat by nothing."""
    first, second = pair
    if how == "died":
        second.kill()
    else:
        second.signal(signal.SIGSTOP)
    assert _seconds_to_create(first) < SEEN_TIMEOUT_S + SLACK_S
    wait_until(lambda: _seconds_to_create(first) < SLACK_S, what="a change does not wait for the dead")
    if how == "hangs":
        second.signal(signal.SIGCONT)
        wait_until(lambda: _features(second) == _features(first), what="it knows what it missed")
        assert _seconds_to_create(first) < SLACK_S
        assert _features(second) == _features(first)


def _ask(client: httpx.Client, verb: str, body: object) -> Any:
    answer = client.post(f"/{verb}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _seconds_to_create(sidecar: SidecarProcess) -> float:
    began = time.monotonic()
    sidecar.ask("features.create", {"feature_id": f"g{next(_numbers)}"} | FEATURE)
    return time.monotonic() - began


def _features(sidecar: SidecarProcess) -> Any:
    """What a worker has read: unlike other verbs, a list never reads the catalog again."""
    return sidecar.ask("features.list")
