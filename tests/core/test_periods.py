"""Periods: where they begin and end, with the `whenever` library as the second opinion."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from whenever import Instant

from creditgate.core.catalog import Interval, Recurrence
from creditgate.core.periods import boundary, period_at
from tests.core.words import DAY, DAY_MS, HOUR_MS, MONTH, YEAR

EXAMPLES = 300
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "America/Asuncion",
    "Africa/Cairo",
    "Antarctica/Troll",
)
CALENDAR = (
    Interval.DAY,
    Interval.WEEK,
    Interval.MONTH,
    Interval.QUARTER,
    Interval.SEMI_ANNUAL,
    Interval.YEAR,
)
INTERVALS = (Interval.MINUTE, Interval.HOUR, *CALENDAR)
MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.SEMI_ANNUAL: 6, Interval.YEAR: 12}


def ms(text: str) -> int:
    """An instant from ISO 8601."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def iso(instant: int, zone: str = "UTC") -> str:
    """An instant as people in the zone read it."""
    return (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=instant))
        .astimezone(ZoneInfo(zone))
        .isoformat()
    )


def oracle(anchor: int, recurrence: Recurrence, k: int, zone: str) -> int:
    """The same boundary by another library; a local time that does not exist, or exists twice, is its "compatible"."""
    start = Instant.from_timestamp(anchor, unit="millisecond").to_tz(zone)
    steps = k * recurrence.count
    if steps == 0:
        return anchor
    match recurrence.interval:
        case Interval.MINUTE:
            return start.add(minutes=steps).timestamp(unit="millisecond")
        case Interval.HOUR:
            return start.add(hours=steps).timestamp(unit="millisecond")
        case Interval.DAY:
            moved = start.to_plain().add(days=steps)
        case Interval.WEEK:
            moved = start.to_plain().add(weeks=steps)
        case interval:
            moved = start.to_plain().add(months=MONTHS[interval] * steps)
    # Not `add` on the zoned time: of two equal local times that takes the one with the anchor's offset.
    return moved.assume_tz(zone, disambiguation="compatible").timestamp(unit="millisecond")


first, last = ms("2000-01-01T00:00:00+00:00"), ms("2037-12-31T23:59:59+00:00")
month_ends = st.builds(
    lambda year, month, back, hour: ms(
        f"{year}-{month:02d}-{monthrange(year, month)[1] - back:02d}T{hour:02d}:30:00+00:00"
    ),
    st.integers(2000, 2037),
    st.integers(1, 12),
    st.integers(0, 3),
    st.integers(0, 23),
)
anchors = st.one_of(
    st.integers(first, last),
    month_ends,
    st.sampled_from(
        [
            ms("2024-02-29T12:00:00+00:00"),
            ms("2026-01-31T23:59:59.999+00:00"),
            ms("2026-12-31T23:30:00+00:00"),
            ms("2026-10-25T00:30:00+00:00"),  # 02:30 in Berlin, for the first time
            ms("2026-10-25T01:30:00+00:00"),  # 02:30 in Berlin, for the second
            ms("2026-03-29T00:59:59+00:00"),
            ms("2026-11-01T06:30:00+00:00"),  # 01:30 in New York, for the second time
        ]
    ),
)
recurrences = st.builds(Recurrence, st.sampled_from(INTERVALS), st.sampled_from([1, 1, 1, 2, 3, 5, 13]))
zones = st.sampled_from(ZONES)


@settings(max_examples=EXAMPLES * 3)
@given(anchor=anchors, recurrence=recurrences, k=st.integers(0, 400), zone=zones)
@example(ms("2026-10-25T01:30:00+00:00"), DAY, 0, "Europe/Berlin")
@example(ms("2022-10-30T01:30:00+00:00"), MONTH, 29, "Europe/Berlin")
@example(ms("2007-01-30T01:30:00+00:00"), MONTH, 189, "Antarctica/Troll")
@example(ms("2026-01-31T12:00:00+00:00"), MONTH, 1, "UTC")
def test_boundaries_are_those_of_the_calendar(anchor: int, recurrence: Recurrence, k: int, zone: str) -> None:
    """Every boundary is where another calendar library puts it, in every zone and over every change of the clock."""
    assert iso(boundary(anchor, recurrence, k, zone), zone) == iso(oracle(anchor, recurrence, k, zone), zone)


@settings(max_examples=EXAMPLES)
@given(anchor=anchors, recurrence=recurrences, zone=zones)
def test_boundaries_go_forward(anchor: int, recurrence: Recurrence, zone: str) -> None:
    """Each period begins at the anchor or later and ends after it begins; else a customer resets for ever, or never."""
    found = [boundary(anchor, recurrence, k, zone) for k in range(40)]
    assert found[0] == anchor
    assert all(earlier < later for earlier, later in pairwise(found))


@settings(max_examples=EXAMPLES)
@given(
    anchor=anchors,
    interval=st.sampled_from(sorted(MONTHS)),
    count=st.integers(1, 5),
    k=st.integers(0, 100),
    zone=zones,
)
def test_day_is_the_anchors_or_the_months_last(
    anchor: int, interval: Interval, count: int, k: int, zone: str
) -> None:
    """Monthly credits come on the anchor's day, or on the last of a month that is too short: never a month later."""
    start = datetime.fromisoformat(iso(anchor, zone))
    end = datetime.fromisoformat(iso(boundary(anchor, Recurrence(interval, count), k, zone), zone))
    months = start.year * 12 + start.month - 1 + MONTHS[interval] * count * k
    year, month = months // 12, months % 12 + 1
    assert (end.year, end.month, end.day) == (year, month, min(start.day, monthrange(year, month)[1]))


@settings(max_examples=EXAMPLES)
@given(
    anchor=anchors,
    recurrence=recurrences,
    zone=zones,
    after=st.integers(0, 20 * 366 * DAY_MS),
    on_boundary=st.booleans(),
)
def test_period_holds_the_instant(
    anchor: int, recurrence: Recurrence, zone: str, after: int, *, on_boundary: bool
) -> None:
    """The period of an instant begins at or before it and ends after it, also exactly on a boundary and 1 ms before."""
    now = anchor + after
    k = period_at(anchor, recurrence, now, zone)
    if on_boundary:
        now = boundary(anchor, recurrence, k + 1, zone)
        assert period_at(anchor, recurrence, now, zone) == k + 1
        assert period_at(anchor, recurrence, now - 1, zone) == k
        k += 1
    assert boundary(anchor, recurrence, k, zone) <= now < boundary(anchor, recurrence, k + 1, zone)


def test_before_the_anchor_is_the_first_period() -> None:
    """A clock that stands before the anchor does not make negative periods."""
    assert period_at(last, MONTH, first) == 0


def test_month_ends_are_anchored_and_not_chained() -> None:
    """A customer of the 31st gets 28 February and then 31 March: the day does not drift to the 28th for ever."""
    anchor = ms("2026-01-31T10:00:00+00:00")
    assert [iso(boundary(anchor, MONTH, k))[:10] for k in range(5)] == [
        "2026-01-31",
        "2026-02-28",
        "2026-03-31",
        "2026-04-30",
        "2026-05-31",
    ]


def test_leap_day() -> None:
    """Who began on 29 February renews on the 28th in common years, and on the 29th again in leap years."""
    anchor = ms("2024-02-29T00:00:00+00:00")
    assert [iso(boundary(anchor, YEAR, k))[:10] for k in range(5)] == [
        "2024-02-29",
        "2025-02-28",
        "2026-02-28",
        "2027-02-28",
        "2028-02-29",
    ]


def test_year_end() -> None:
    """The boundary after December is in January of the next year."""
    anchor = ms("2026-12-31T23:59:59.999+00:00")
    assert iso(boundary(anchor, MONTH, 1)) == "2027-01-31T23:59:59.999000+00:00"
    assert iso(boundary(anchor, Recurrence(Interval.QUARTER), 1)) == "2027-03-31T23:59:59.999000+00:00"
    assert iso(boundary(anchor, Recurrence(Interval.SEMI_ANNUAL), 1)) == "2027-06-30T23:59:59.999000+00:00"


def test_clock_change_moves_days_and_not_hours() -> None:
    """A day is until the same time tomorrow, be it 23 or 25 hours; an hour is an hour."""
    berlin = "Europe/Berlin"
    spring, autumn = ms("2026-03-28T12:00:00+01:00"), ms("2026-10-24T12:00:00+02:00")
    assert boundary(spring, DAY, 1, berlin) - spring == 23 * HOUR_MS
    assert boundary(autumn, DAY, 1, berlin) - autumn == 25 * HOUR_MS
    assert boundary(spring, Recurrence(Interval.HOUR, 24), 1, berlin) - spring == 24 * HOUR_MS
    assert boundary(spring, DAY, 1) - spring == DAY_MS


def test_time_that_does_not_exist_is_the_next_that_does() -> None:
    """A boundary in the hour that spring skips comes after it, once."""
    anchor = ms("2026-03-28T02:30:00+01:00")
    assert iso(boundary(anchor, DAY, 1, "Europe/Berlin"), "Europe/Berlin") == "2026-03-29T03:30:00+02:00"
    assert iso(boundary(anchor, DAY, 2, "Europe/Berlin"), "Europe/Berlin") == "2026-03-30T02:30:00+02:00"


def test_day_that_a_zone_skipped_is_a_period_of_no_length() -> None:
    """Samoa had no 30 December 2011: nobody is in that day, and the periods around it meet."""
    anchor = ms("2011-12-28T10:00:00-10:00")
    ends = [boundary(anchor, DAY, k, "Pacific/Apia") for k in range(5)]
    assert ends[2] == ends[3]
    assert [later - earlier for earlier, later in pairwise(ends)] == [
        DAY_MS,
        DAY_MS,
        0,
        DAY_MS,
    ]
    assert period_at(anchor, DAY, ends[2], "Pacific/Apia") == 3
    assert period_at(anchor, DAY, ends[2] - 1, "Pacific/Apia") == 1


@pytest.mark.parametrize("interval", [i for i in Interval if i is not Interval.ONE_OFF])
def test_count_multiplies(interval: Interval) -> None:
    """Every three weeks is every third weekly boundary."""
    anchor = ms("2026-01-31T10:00:00+00:00")
    assert [boundary(anchor, Recurrence(interval, 3), k) for k in range(5)] == [
        boundary(anchor, Recurrence(interval), 3 * k) for k in range(5)
    ]
