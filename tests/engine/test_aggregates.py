"""Usage added up: what was just tracked is in it, nothing is in it twice, and no nano is lost on the way."""

from typing import Any

import pytest

from creditgate import openings
from creditgate.core.amounts import NANOS
from creditgate.core.bins import DAY_MS, HOUR_MS, BinSize, Range, Span
from creditgate.core.decisions import Mode
from creditgate.engine.aggregates import Aggregate, Asked
from creditgate.engine.customers import Profile
from creditgate.engine.tables import Share, UsageTotal
from creditgate.engine.usage import Usage
from creditgate.errors import InvalidInputs, NotFound
from creditgate.ledger.aggregates import OTHER, GroupBy, Grouping

T0 = 1_764_547_200_000  # 2025-12-01T00:00:00Z, long ago: bins that have not begun are not shown
BASIC, PREMIUM = "basic_messages", "premium_messages"
MODEL = Grouping(GroupBy.PROPERTY, "model")
WEEK = Span(T0, T0 + 7 * DAY_MS)


@pytest.fixture
async def cases(cases: openings.UseCases) -> openings.UseCases:
    """The use cases with two customers of 5 credits."""
    await cases.customers.get_or_create("ann", Profile())
    await cases.customers.get_or_create("bob", Profile())
    return cases


async def test_what_was_just_tracked_is_counted_once(
    cases: openings.UseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an event is in the stream, in SQL, or goes from one to the other while we look, it counts once."""
    for number in range(4):
        await _track(cases, "ann", BASIC, number + 1, day=number % 2)
        if number == 1:
            await cases.flusher.flush_once()
    expected = [4, 6, 0, 0, 0, 0, 0]
    assert _values(await _ask(cases)) == expected

    tail_of = cases.history.tail_of

    async def then_flush(customer_id: str | None) -> Any:
        tail = await tail_of(customer_id)
        assert await cases.flusher.flush_once() == 2
        return tail

    with monkeypatch.context() as patched:
        patched.setattr(cases.history, "tail_of", then_flush)
        assert _values(await _ask(cases)) == expected
    assert _values(await _ask(cases)) == expected


@pytest.mark.parametrize("flushes", [False, True])
async def test_totals_are_of_all_bins_and_every_feature(cases: openings.UseCases, flushes: bool) -> None:
    """What was asked for is in the answer, with 0 where nothing was used, and other features are not."""
    await _track(cases, "ann", BASIC, 0.000000001, day=0)
    await _track(cases, "ann", BASIC, -3, day=2)
    await _track(cases, "ann", PREMIUM, 1, day=2)
    await _track(cases, "bob", BASIC, 5, day=2)
    if flushes:
        await cases.flusher.flush_once()
    found = await _ask(cases, feature_ids=(BASIC, "nothing"))
    assert found.totals == {BASIC: UsageTotal(1 - 3 * NANOS, 2), "nothing": UsageTotal(0, 0)}
    assert found.bins[2].values == {BASIC: -3 * NANOS, "nothing": 0}
    assert found.taken is None
    everybody = await _ask(cases, customer_id=None)
    assert everybody.totals == {BASIC: UsageTotal(2 * NANOS + 1, 3)}
    counted = await _ask(cases, counts=True)
    assert _values(counted) == [1, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("flushed", [0, 3, 99])
async def test_groups(cases: openings.UseCases, flushed: int) -> None:
    """The largest groups stand apart in every bin, the others together, and no event is left out of its bin's value."""
    events = [("a", 1, 0), ("b", 5, 0), ("c", 2, 1), ("a", 9, 1), ("d", 1, 1), (None, 4, 1), ("b", 1, 2)]
    for number, (model, units, day) in enumerate(events):
        if number == flushed:
            await cases.flusher.flush_once()
        await _track(cases, "ann", BASIC, units, day=day, model=model)
    if flushed > len(events):
        await cases.flusher.flush_once()
    found = await _ask(cases, grouping=MODEL, groups_max=2)
    assert _values(found)[:3] == [6, 16, 1]
    groups = [bin_.groups[BASIC] for bin_ in found.bins[:3] if bin_.groups]
    assert [list(group) for group in groups] == [["a", "b", OTHER]] * 3
    assert [[value // NANOS for value in group.values()] for group in groups] == [
        [1, 5, 0],
        [9, 0, 3],
        [0, 1, 0],
    ]
    by_customer = await _ask(cases, customer_id=None, grouping=Grouping(GroupBy.CUSTOMER))
    assert by_customer.bins[0].groups == {BASIC: {"ann": 6 * NANOS}}
    assert _values(await _ask(cases, properties=(("model", "a"),)))[:3] == [1, 9, 0]


@pytest.mark.parametrize("flushes", [False, True])
async def test_deductions_are_by_balance(cases: openings.UseCases, flushes: bool) -> None:
    """What was used of two features is shown by the balance that paid, exact and with today's price."""
    await _track(cases, "ann", BASIC, 7, day=0)
    await _track(cases, "ann", PREMIUM, 3, day=0)
    await _track(cases, "ann", PREMIUM, 1000, day=1)  # more than there is: what was taken counts
    if flushes:
        await cases.flusher.flush_once()
    found = await _ask(cases, feature_ids=(BASIC, PREMIUM), deductions=True, by_source=True)
    assert found.taken is not None
    first, second = found.taken
    assert (first.start, first.nanos, first.events) == (T0, 370_000_000, 2)
    assert (first.row.plan_id, first.row.feature_id, first.is_credit) == ("free", "usd_credits", True)
    assert first.cost_nanos is None
    assert first.groups == {
        BASIC: Share(70_000_000, 10_000_000),
        PREMIUM: Share(300_000_000, 100_000_000),
    }
    assert (second.start, second.nanos) == (T0 + DAY_MS, 4_630_000_000)
    one = await _ask(cases, feature_ids=(BASIC,), deductions=True)
    assert one.taken is not None
    assert [(taken.nanos, taken.cost_nanos, taken.groups) for taken in one.taken] == [
        (70_000_000, 10_000_000, {})
    ]


async def test_ranges_are_the_customers(cases: openings.UseCases) -> None:
    """With a clock of its own, a customer's 24 hours and cycles are where that clock is, and bins end there."""
    record = await cases.customers.get("ann")
    (row,) = record.terms.rows
    assert row.resets_at is not None
    await cases.customers.advance_test_clock("ann", row.resets_at + 5 * HOUR_MS)
    await cases.meter.track(_usage("ann", BASIC, 3))
    await cases.customers.advance_test_clock("ann", row.resets_at + 7 * HOUR_MS)
    day = await _ask(cases, span=None, range=Range.DAY, size=BinSize.HOUR)
    assert (len(day.bins), day.totals[BASIC].events) == (25, 1)
    assert sum(_values(day)) == 3
    cycle = await _ask(cases, span=None, range=Range.CYCLE)
    assert cycle.bins[0].start <= row.resets_at < cycle.bins[0].start + DAY_MS
    assert (len(cycle.bins), cycle.totals[BASIC].events) == (1 + _crosses_midnight(row.resets_at), 1)
    assert (await _ask(cases, span=None, range=Range.LAST_CYCLE)).totals[BASIC].events == 0
    assert (await _ask(cases, span=None, range=Range.CYCLES)).totals[BASIC].events == 1
    with_zone = await _ask(cases, span=None, range=Range.DAY, zone="Asia/Kolkata")
    assert {bin_.start % DAY_MS for bin_ in with_zone.bins} == {18.5 * HOUR_MS}


def _crosses_midnight(instant: int) -> int:
    return int((instant % DAY_MS) + 7 * HOUR_MS >= DAY_MS)


async def test_what_is_refused(cases: openings.UseCases) -> None:
    """A stranger is not found, and an answer that nobody could read is not made."""
    with pytest.raises(NotFound):
        await _ask(cases, customer_id="nobody")
    year = Span(T0, T0 + 365 * DAY_MS)
    with pytest.raises(InvalidInputs, match="less at a time"):
        await _ask(cases, span=year, grouping=MODEL, groups_max=250)


async def test_pages_of_a_range(cases: openings.UseCases) -> None:
    """A list of events takes the same filters as the sums."""
    for number in range(3):
        await _track(cases, "ann", BASIC, 1, day=number, model="ab"[number % 2])
    page = await cases.history.events(customer_id="ann", properties=(("model", "a"),), limit=1)
    assert [event.timestamp for event in page.events] == [T0 + 2 * DAY_MS]
    assert page.next_cursor is not None
    rest = await cases.history.events(
        customer_id="ann", properties=(("model", "a"),), limit=5, cursor=page.next_cursor
    )
    assert [event.timestamp for event in rest.events] == [T0]
    assert rest.next_cursor is None


def _usage(
    customer_id: str, feature_id: str, units: float, *, at: int | None = None, text: str = "{}"
) -> Usage:
    nanos = round(units * NANOS)
    return Usage("track", customer_id, feature_id, None, nanos, Mode.CAP, properties=text, occurred_at=at)


async def _track(
    cases: openings.UseCases,
    customer_id: str,
    feature_id: str,
    units: float,
    *,
    day: int,
    model: str | None = None,
) -> None:
    text = f'{{"model":"{model}"}}' if model else "{}"
    await cases.meter.track(_usage(customer_id, feature_id, units, at=T0 + day * DAY_MS, text=text))


async def _ask(cases: openings.UseCases, **changes: Any) -> Aggregate:
    asked = Asked(feature_ids=(BASIC,), customer_id="ann", span=WEEK)
    return await cases.aggregates.aggregate(asked._replace(**changes))


def _values(found: Aggregate) -> list[int]:
    return [bin_.values[BASIC] // NANOS for bin_ in found.bins]
