"""One effect for one call, whatever becomes of the reply."""

from collections.abc import AsyncIterator

import pytest

from creditgate import openings
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Mode
from creditgate.engine import demo
from creditgate.engine.customers import Profile
from creditgate.engine.usage import Usage
from creditgate.errors import Undecided
from creditgate.settings import Settings
from tests.engine.fault_proxy import FaultProxy

TRACK = Usage("track", "ann", "premium_messages", None, NANOS, Mode.CAP)


@pytest.fixture
async def cases(
    settings: Settings, stores: openings.Stores, proxy: FaultProxy
) -> AsyncIterator[openings.UseCases]:
    """The use cases behind the proxy, with a customer who has 5 credits."""
    async with openings.open_use_cases(settings, proxy.url, stores) as opened:
        await demo.load(opened.catalogs, opened.clock.now_ms())
        await opened.customers.get_or_create("ann", Profile())
        yield opened


async def test_a_lost_reply_is_one_effect(cases: openings.UseCases, proxy: FaultProxy) -> None:
    """A track whose reply was lost is taken once, and answered with what it took."""
    proxy.lose_reply_to(b"track")
    decision = await cases.meter.track(TRACK)
    assert proxy.faults == 1
    assert decision.allowed
    assert [moved.delta_nanos for moved in decision.moved] == [-NANOS // 10]
    assert await _remaining(cases) == 49 * NANOS // 10


async def test_a_lost_reply_is_found_in_sql_when_it_was_flushed(
    cases: openings.UseCases, proxy: FaultProxy
) -> None:
    """The flusher may have trimmed the entry before we look: then SQL has it, and it is not sent again."""
    proxy.lose_reply_to(b"track")
    original = cases.history._stream.find_op

    async def find_after_flush(*args: object, **named: object) -> object:
        await cases.flusher.flush_once()
        return await original(*args, **named)  # type: ignore[arg-type]

    cases.history._stream.find_op = find_after_flush  # type: ignore[method-assign,assignment]
    decision = await cases.meter.track(TRACK)
    assert [moved.delta_nanos for moved in decision.moved] == [-NANOS // 10]
    assert await _remaining(cases) == 49 * NANOS // 10


async def test_a_call_that_arrives_late_has_no_effect(cases: openings.UseCases, proxy: FaultProxy) -> None:
    """A first attempt that stalls past its not_after writes nothing; the second one is the only effect."""
    proxy.hold_back(b"track", 0.4)
    decision = await cases.meter.track(TRACK)
    assert proxy.faults == 1
    assert decision.allowed
    assert await _remaining(cases) == 49 * NANOS // 10


async def test_no_answer_in_time_is_undecided(
    cases: openings.UseCases, proxy: FaultProxy, stores: openings.Stores
) -> None:
    """While Redis cannot be reached, a call says that it does not know, within its deadline, and nothing is taken."""
    await proxy.__aexit__()
    with pytest.raises(Undecided):
        await cases.meter.track(TRACK)
    with pytest.raises(Undecided):
        await cases.meter.check(Usage("check", "ann", "premium_messages", None, NANOS, Mode.REJECT))


async def _remaining(cases: openings.UseCases) -> int:
    record = await cases.customers.get("ann")
    return sum(record.balances.values())
