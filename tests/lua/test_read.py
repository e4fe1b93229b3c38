"""read.lua on a real Valkey: the whole record at one instant."""

import pytest

from creditgate.core.decisions import Status
from creditgate.errors import Unavailable
from tests.lua.harness import MONTH, T0, World, answer, row


async def test_read_is_what_was_written(world: World) -> None:
    """The engine works from exactly what the record holds, and reading changes nothing."""
    await world.create("ann b", row("a", "messages", "5", resets=MONTH), row("b", "credits", "0.000000001"))
    await world.track("ann b", "messages", "6")
    before = await world.everything()
    record = await world.record("ann b")
    assert record.now == T0
    assert (record.sequence, record.shape, record.customer.id) == (2, 1, "ann b")
    assert record.balances == {"a": 0, "b": 1}
    assert [r.id for r in record.terms.rows] == ["a", "b"]
    assert await world.everything() == before


async def test_real_time(world: World) -> None:
    """Without a pinned clock the time of a read is Redis's, not this machine's and not a caller's."""
    await world.create("ann", clock=None)
    before = await world.clock.read(world.redis)
    now = (await world.record("ann")).now
    assert before <= now <= await world.clock.read(world.redis)


async def test_unknown_layout_is_left_alone(world: World) -> None:
    """A record of a newer version is neither read wrongly nor written to by an older sidecar."""
    await world.create("ann", row("a", "messages", "5", resets=MONTH))
    key = world.keys.record("ann")
    await answer(world.redis.hset(key, "v", "2"))
    before = await world.everything()
    with pytest.raises(Unavailable, match="layout"):
        await world.record("ann")
    assert (await world.check("ann", "messages", "1")).status is Status.UPGRADE
    assert (await world.track("ann", "messages", "1")).status is Status.UPGRADE
    assert (await world.create("ann")).status is Status.UPGRADE
    assert await world.everything() == before
    await answer(world.redis.hset(key, "v", "1"))
