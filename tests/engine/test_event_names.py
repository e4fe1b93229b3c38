"""An event that several features count: all of them in one step, told once, never in part."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from creditgate import openings, operations
from creditgate.core.amounts import NANOS, AmountOutOfRange
from creditgate.core.catalog import Feature, FeatureType
from creditgate.core.decisions import Decision, Mode
from creditgate.engine import demo
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.history import Event
from creditgate.engine.keys import CallerKey
from creditgate.engine.usage import Usage
from creditgate.errors import InvalidRequest, NotFound
from creditgate.settings import Settings
from tests.engine.fault_proxy import FaultProxy

BASIC, PREMIUM, IMAGES, CREDITS = "basic_messages", "premium_messages", "images", "usd_credits"
KEY = CallerKey("track", "aa", "bb")


@pytest.fixture
async def cases(
    settings: Settings, stores: openings.Stores, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[openings.UseCases]:
    """The use cases behind the proxy; `sent` counts for two features that share the credits, and for images."""
    monkeypatch.setattr(openings, "BATCH_LEASE_MS", 200)  # what a start waits before its first batch
    async with openings.open_use_cases(settings, proxy.url, stores) as opened:
        await demo.load(opened.catalogs, opened.clock.now_ms())
        for feature_id in (BASIC, PREMIUM):
            await opened.catalogs.update_feature(feature_id, {"event_names": ("sent",)})
        images = Feature(
            IMAGES, "Images", FeatureType.METERED, consumable=True, event_names=("sent", "drawn")
        )
        await opened.catalogs.create_feature(images)
        await opened.customers.get_or_create("ann", Profile())
        await opened.customers.grant(Grant("ann", IMAGES, 10 * NANOS))
        yield opened


async def test_every_feature_pays_and_none_answers_for_all(cases: openings.UseCases) -> None:
    """Two features draw on the credits, each at its cost, the third on its own; what each balance gave is told once."""
    decision = await _track(cases, 3)
    assert (decision.allowed, decision.pool) == (True, None)
    assert (decision.feature_id, decision.also) == (BASIC, (PREMIUM, IMAGES))
    assert [pool.feature_id for pool in decision.pools] == [BASIC, CREDITS, PREMIUM, IMAGES]
    assert _gave(decision) == {CREDITS: -33, IMAGES: -300}
    assert await _left(cases) == _shown(decision) == {CREDITS: 467, IMAGES: 700}


async def test_each_feature_has_an_event_of_its_own(cases: openings.UseCases, settings: Settings) -> None:
    """In the history and in sums each feature counts once, from the stream and from SQL, page by page."""
    await _track(cases, 3)
    for _ in range(2):
        whole = await _events(cases)
        assert [(event.feature_id, event.value_nanos) for event in whole] == [
            (feature_id, 3 * NANOS) for feature_id in (IMAGES, PREMIUM, BASIC)
        ]
        assert [[(row.feature_id, nanos) for row, nanos in event.deductions] for event in whole] == [
            [(IMAGES, 3 * NANOS)],
            [(CREDITS, 3 * NANOS // 10)],
            [(CREDITS, 3 * NANOS // 100)],
        ]
        assert await _events(cases, limit=1) == whole
        await cases.flusher.flush_once()
    async with operations.open_verifier(settings) as verifier:
        assert (await verifier.verify()).holds


async def test_a_lost_reply_is_one_effect(cases: openings.UseCases, proxy: FaultProxy) -> None:
    """An event whose reply was lost is taken once, of every feature, and answered with all that it took."""
    proxy.lose_reply_to(b"track")
    decision = await _track(cases, 3)
    assert proxy.faults == 1
    assert _gave(decision) == {CREDITS: -33, IMAGES: -300}
    assert await _left(cases) == _shown(decision) == {CREDITS: 467, IMAGES: 700}


@pytest.mark.parametrize("flushes", [False, True])
async def test_a_repeated_key_takes_nothing(cases: openings.UseCases, flushes: bool) -> None:
    """A client that repeats an event is told what the first one took, of every balance once."""
    first = await _track(cases, 3, key=KEY)
    if flushes:
        await cases.flusher.flush_once()
    again = await _track(cases, 3, key=KEY)
    assert (again.is_replay, again.moved, again.pool) == (True, first.moved, None)
    assert await _left(cases) == _shown(again) == {CREDITS: 467, IMAGES: 700}


async def test_all_or_none(cases: openings.UseCases) -> None:
    """What one feature costs too much of takes nothing of the others."""
    with pytest.raises(NotFound):
        await _track(cases, 1, customer_id="nobody")
    schema = cases.catalogs.current.feature(CREDITS).credit_schema
    dear = tuple(cost for cost in schema if cost.feature_id != PREMIUM)
    dear += tuple(type(cost)(cost.feature_id, 10**6 * NANOS) for cost in schema if cost.feature_id == PREMIUM)
    await cases.catalogs.update_feature(CREDITS, {"credit_schema": dear})
    with pytest.raises(AmountOutOfRange):
        await _track(cases, 10**8)
    assert await _left(cases) == {CREDITS: 500, IMAGES: 1000}
    assert await _events(cases) == []


async def test_what_fell_due_is_brought_up_first(cases: openings.UseCases) -> None:
    """After a month the credits are renewed before the event draws on them."""
    await _track(cases, 3)
    month_ms = 32 * 86_400_000
    await cases.customers.advance_test_clock("ann", (await cases.customers.get("ann")).now + month_ms)
    await _track(cases, 1)
    assert await _left(cases) == {CREDITS: 489, IMAGES: 600}


async def test_it_cannot_be_locked(cases: openings.UseCases) -> None:
    """A lock is of one feature: an event that several count takes nothing under a lock."""
    usage = Usage("hold", "ann", None, "sent", NANOS, Mode.CAP)
    with pytest.raises(InvalidRequest, match="several features"):
        await cases.holds.hold(usage, hold_id="lock", expires_at=None)
    one = Usage("hold", "ann", None, "drawn", NANOS, Mode.CAP)
    assert (await cases.holds.hold(one, hold_id="lock", expires_at=None)).allowed
    assert await _left(cases) == {CREDITS: 500, IMAGES: 900}


async def test_more_features_than_fit_are_refused(cases: openings.UseCases) -> None:
    """An event that too many features count is refused as a whole, with the bound in the message."""
    for number in range(17):
        feature = Feature(f"f{number}", "F", FeatureType.METERED, consumable=True, event_names=("crowd",))
        await cases.catalogs.create_feature(feature)
    with pytest.raises(InvalidRequest, match="more than 16 features"):
        await _track(cases, 1, event="crowd")
    await cases.catalogs.delete_feature("f0")
    assert (await _track(cases, 1, event="crowd")).allowed


async def test_in_a_batch(cases: openings.UseCases) -> None:
    """An item of a batch may be such an event; whoever finishes the batch after a crash finds it as one item."""
    opened = await cases.batches.open((_usage(3), _usage(1), _usage(1, event="nothing")))
    await cases.meter.track(_usage(3), op_id=f"{opened.batch_id}.0")
    async with asyncio.timeout(20):
        while await cases.batches.waiting():
            await cases.batch_worker.round()
            await asyncio.sleep(0.01)
    (batch,) = (await cases.batches.newest(limit=1)).batches
    assert batch.report is not None
    assert [failure.index for failure in batch.report.failures] == [2]
    assert await _left(cases) == {CREDITS: 456, IMAGES: 600}


async def test_decisions_are_counted_for_each_feature(cases: openings.UseCases) -> None:
    """The metrics tell how often each feature was used, whichever way."""
    await _track(cases, 3)
    decisions: dict[Any, int] = cases.metrics.decisions
    assert [decisions["track", name, "allowed"] for name in (BASIC, PREMIUM, IMAGES)] == [1, 1, 1]


def _usage(
    units: int, *, customer_id: str = "ann", event: str = "sent", key: CallerKey | None = None
) -> Usage:
    return Usage("track", customer_id, None, event, units * NANOS, Mode.CAP, key=key)


async def _track(cases: openings.UseCases, units: int, **named: Any) -> Decision:
    return await cases.meter.track(_usage(units, **named))


async def _left(cases: openings.UseCases) -> dict[str, int]:
    """What is left of each balance, in hundredths."""
    record = await cases.customers.get("ann")
    return {row.feature_id: record.balances[row.id] * 100 // NANOS for row in record.terms.rows}


def _shown(decision: Decision) -> dict[str, int]:
    rows = {row.id: row.feature_id for row in decision.terms.rows}
    return {rows[row_id]: amount * 100 // NANOS for row_id, amount in decision.balances.items()}


def _gave(decision: Decision) -> dict[str, int]:
    rows = {row.id: row.feature_id for row in decision.terms.rows}
    assert len({part.row_id for part in decision.moved}) == len(decision.moved)
    return {rows[part.row_id]: part.delta_nanos * 100 // NANOS for part in decision.moved}


async def _events(cases: openings.UseCases, limit: int = 10) -> list[Event]:
    """Every event, the newest first, read in pages of so many."""
    found: list[Event] = []
    cursor: str | None = ""
    while cursor is not None:
        events, cursor, _ = await cases.history.events(customer_id="ann", limit=limit, cursor=cursor)
        found += events
    return found
