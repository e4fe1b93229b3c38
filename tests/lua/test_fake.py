"""The same scenarios on fakeredis: a second implementation of the commands, in this process, in milliseconds.

It proves nothing about a real server. It is here so that the scripts stay free of what only one server does.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from creditgate.balances.clock import RedisClock
from creditgate.core.decisions import Mode, Status
from tests.lua import test_track
from tests.lua.harness import DAY_MS, MONTH, T0, World, row

fakeredis = pytest.importorskip("fakeredis", reason="fakeredis is not installed")
pytest.importorskip("lupa.lua51", reason="fakeredis has no Lua 5.1 without lupa")


@pytest.fixture
async def fake() -> AsyncIterator[World]:
    """A world on fakeredis, and its laws after the test."""
    async with fakeredis.FakeAsyncRedis() as redis:
        clock = RedisClock()
        await clock.read(redis)
        world = World(redis, clock)
        await world.begin()
        yield world
        await world.check_laws()


@pytest.mark.parametrize("scenario", [pytest.param(s, id=s.promise) for s in test_track.SCENARIOS])
async def test_scenario(fake: World, scenario: test_track.Scenario) -> None:
    """What a real Valkey takes and gives back, another implementation does too."""
    await test_track.run(fake, scenario)


async def test_life_of_a_customer(fake: World) -> None:
    """Creation, use, a repeated key and a reset work on another implementation too."""
    await fake.create("ann", row("r", "messages", "5", resets=MONTH))
    call: dict[str, Any] = {"key": "aa", "fingerprint": "bb"}
    assert (await fake.track("ann", "messages", "2", mode=Mode.REJECT, **call)).status is Status.OK
    assert (await fake.track("ann", "messages", "2", mode=Mode.REJECT, **call)).status is Status.REPLAYED
    assert (await fake.check("ann", "messages", "4")).status is Status.REFUSED
    await fake.set_clock("ann", T0 + 31 * DAY_MS)
    assert (await fake.check("ann", "messages", "4")).status is Status.DUE
    assert (await fake.forward("ann")).status is Status.OK
    assert await fake.balances("ann") == {"r": "5"}
