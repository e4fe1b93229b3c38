"""A world for each Lua test, and the laws that hold after it."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from creditgate.balances.clock import RedisClock
from tests.lua.harness import World


@pytest.fixture
async def world(redis: "Redis") -> AsyncIterator[World]:
    """An empty Valkey with its store. After the test: only known keys, and each record is the replay of its journal."""
    clock = RedisClock()
    await clock.read(redis)
    world = World(redis, clock)
    await world.begin()
    yield world
    await world.check_laws()
