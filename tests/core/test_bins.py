"""Spans and bins against the calendar: no instant is in two bins or in none, whatever the clocks of a zone do."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditgate.core.bins import BINS_MAX, DAY_MS, HOUR_MS, Bins, BinSize, Cycle, Range, Span, span_of
from creditgate.core.catalog import Interval, Recurrence
from creditgate.errors import InvalidInputs

ZONES = (
    *("UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu"),
    *("Asia/Beirut", "America/Sao_Paulo", "Pacific/Apia", "Africa/Monrovia", "Pacific/Kiritimati"),
)
LATEST = int(datetime(2199, 1, 1, tzinfo=UTC).timestamp()) * 1000
LENGTHS = {BinSize.HOUR: 2_300, BinSize.DAY: 24 * 2_000, BinSize.WEEK: 24 * 900, BinSize.MONTH: 24 * 900}
MONTHLY = Recurrence(Interval.MONTH)


def at(*parts: int) -> int:
    """Unix ms of a moment in UTC."""
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1000  # type: ignore[misc,arg-type]


@given(data=st.data(), size=st.sampled_from(BinSize), zone=st.sampled_from(ZONES))
def test_every_instant_is_in_one_bin(data: st.DataObject, size: BinSize, zone: str) -> None:
    """The bins cover their span without a gap, begin where the zone's calendar says, and the units find them again."""
    start = data.draw(st.integers(0, LATEST))
    span = Span(start, start + data.draw(st.integers(1, LENGTHS[size] * HOUR_MS)))
    bins = Bins(span, size, zone)
    assert list(bins.starts) == sorted(set(bins.starts))
    assert bins.starts[0] <= span.start
    assert bins.starts[-1] < span.end
    edges = [*bins.starts, *(edge - 1 for edge in bins.starts[1:]), span.start, span.end - 1]
    for instant in [*edges, data.draw(st.integers(span.start, span.end - 1))]:
        expected = sum(begin <= instant for begin in bins.starts) - 1
        assert bins.index((instant - bins.starts[0]) // bins.unit) == expected
        if size is not BinSize.HOUR:
            assert _name(bins.starts[expected], size, zone) == _name(instant, size, zone)


def _name(instant: int, size: BinSize, zone: str) -> tuple[int, ...]:
    """The day, week or month that an instant lies in."""
    local = datetime.fromtimestamp(instant // 1000, ZoneInfo(zone))
    if size is BinSize.WEEK:
        return tuple(local.isocalendar())[:2]
    return (local.year, local.month) if size is BinSize.MONTH else (local.year, local.month, local.day)


def test_days_are_long_and_short_where_the_clock_is_put() -> None:
    """On the day that the clock goes forward a day has 23 hours, and 25 when it goes back."""
    bins = Bins(Span(at(2026, 3, 7, 12), at(2026, 3, 10)), BinSize.DAY, "America/New_York")
    assert [_hours(bins, n) for n in range(2)] == [24, 23]
    bins = Bins(Span(at(2026, 10, 31, 12), at(2026, 11, 3)), BinSize.DAY, "America/New_York")
    assert [_hours(bins, n) for n in range(2)] == [24, 25]


def _hours(bins: Bins, number: int) -> float:
    return (bins.starts[number + 1] - bins.starts[number]) / HOUR_MS


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    """A weekly report has the same weeks as the calendar on the wall."""
    weeks = Bins(Span(at(2026, 11, 25), at(2026, 12, 8)), BinSize.WEEK)
    assert weeks.starts == (at(2026, 11, 23), at(2026, 11, 30), at(2026, 12, 7))
    months = Bins(Span(at(2026, 11, 25), at(2027, 1, 1)), BinSize.MONTH)
    assert months.starts == (at(2026, 11, 1), at(2026, 12, 1))


def test_hours_are_those_of_utc() -> None:
    """Hours in a zone with half an hour of difference would be nobody's hours; Autumn's are UTC's, too."""
    bins = Bins(Span(at(2026, 11, 25, 10, 59), at(2026, 11, 25, 12)), BinSize.HOUR, "Asia/Kolkata")
    assert bins.starts == (at(2026, 11, 25, 10), at(2026, 11, 25, 11))


@pytest.mark.parametrize("size", BinSize)
def test_too_many_bins_are_refused(size: BinSize) -> None:
    """A question about two hundred years by the hour is refused before anything is counted."""
    limit = {BinSize.HOUR: HOUR_MS, BinSize.DAY: DAY_MS, BinSize.WEEK: 7 * DAY_MS, BinSize.MONTH: 31 * DAY_MS}
    with pytest.raises(InvalidInputs, match="shorter range"):
        Bins(Span(0, limit[size] * (BINS_MAX + 2)), size)


NOW = at(2026, 11, 24, 15)


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        (Range.DAY, NOW + 1 - DAY_MS, NOW + 1),
        (Range.QUARTER, NOW + 1 - 90 * DAY_MS, NOW + 1),
        (Range.CYCLE, at(2026, 10, 31), at(2026, 11, 30)),
        (Range.CYCLES, at(2026, 8, 31), at(2026, 11, 30)),
        (Range.LAST_CYCLE, at(2026, 9, 30), at(2026, 10, 31)),
    ],
)
def test_ranges(wanted: Range, start: int, end: int) -> None:
    """Cycles hang on their anchor as resets do: one that began on the 31st ends on the 30th, and not for good."""
    assert span_of(wanted, NOW, Cycle(at(2026, 1, 31), MONTHLY)) == (start, end)


def test_cycles_before_the_anchor() -> None:
    """A customer of today can ask for three cycles: the two before are simply empty."""
    assert span_of(Range.CYCLES, NOW, Cycle(NOW, MONTHLY)) == (at(2026, 9, 24, 15), at(2026, 12, 24, 15))


def test_ranges_without_a_cycle_are_months_of_days() -> None:
    """Whoever has no cycle, or everybody together, is shown 30 days for each."""
    end = NOW + 1
    assert span_of(Range.CYCLE, NOW, None) == (end - 30 * DAY_MS, end)
    assert span_of(Range.CYCLES, NOW, None) == (end - 90 * DAY_MS, end)
    assert span_of(Range.LAST_CYCLE, NOW, None) == (end - 60 * DAY_MS, end - 30 * DAY_MS)
