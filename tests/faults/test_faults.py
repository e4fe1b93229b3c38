"""Faults of processes under load, and more on demand; `make faults` tries all of them, one at a time, for longer."""

import random
import time

import pytest

from tests.faults.catalog import FAULTS
from tests.faults.trial import Fault, try_faults

SEED = 7
REST_S = 0.3

BEHIND_THE_PROXY = (
    "replies are lost",
    "replies are cut in half",
    "connections are reset",
    "Redis answers after 1 s",
    "Redis says READONLY",
    "SCRIPT FLUSH",
    "kill -9 Redis of your own",
)
PROCESSES = (
    "kill -9 a worker",
    "pause a worker",
    "pause embedded Valkey",
    "kill -9 embedded Valkey",
    "kill -9 the background process",
    "kill -9 everything, start again",
)
PAUSES = ("pause the background process", "pause the supervisor")


@pytest.mark.parametrize(
    ("names", "seconds"),
    [
        (PROCESSES, 0),
        pytest.param(BEHIND_THE_PROXY, 0, marks=pytest.mark.slow),
        pytest.param((*PROCESSES, *PAUSES), 120, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
    ids=["of processes", "of Redis", "of processes, for two minutes"],
)
async def test_every_call_has_one_effect_at_most_and_an_acknowledged_one_has_it(
    names: tuple[str, ...], seconds: float
) -> None:
    """After one fault after the other, the books have what callers were told, and `verify` finds no difference."""
    print(f"seed {SEED}")
    until = time.monotonic() + seconds
    outcome = await try_faults(named(names), random.Random(SEED), rest_s=REST_S, until=until)
    assert outcome.is_good, outcome
    assert outcome.acknowledged > max(120, 10 * seconds)
    assert len(outcome.recovery_s) >= len(names)
    assert max(outcome.recovery_s) < 15


def named(names: tuple[str, ...]) -> list[Fault]:
    """Return the faults of these names, in this order."""
    by_name = {fault.name: fault for fault in FAULTS}
    return [by_name[name] for name in names]
