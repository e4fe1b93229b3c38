"""A short soak in every run of the suite; `python -m tests.faults.soak` goes on for as long as it is asked to."""

import pytest

from tests.faults.soak import Soak

SEED = 7


@pytest.mark.parametrize(
    ("seconds", "every_s"), [(12, 0.5), pytest.param(120, 2, marks=pytest.mark.slow)], ids=["short", "long"]
)
async def test_each_use_is_taken_once_whatever_happens(seconds: float, every_s: float) -> None:
    outcome = await Soak(seed=SEED).run(seconds=seconds, every_s=every_s)
    assert outcome.is_good, outcome
    assert outcome.acknowledged > 100 * seconds / 10
    assert outcome.recoveries
