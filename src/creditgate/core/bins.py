"""Spans of time to look back on, and their division into bins. Instants are Unix ms; a span includes its start only.

Days, weeks (from Monday) and months are those of a time zone. Hours are those of UTC, as in the Autumn API.
"""

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from math import gcd
from typing import NamedTuple
from zoneinfo import ZoneInfo

from creditgate.core.catalog import Recurrence
from creditgate.core.periods import boundary, period_at
from creditgate.errors import InvalidInputs

BINS_MAX = 2_400  # 100 days by the hour; one answer has all of them, also those without usage
DAY_MS = 86_400_000
HOUR_MS = 3_600_000


class BinSize(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Range(StrEnum):
    """Spans that end now, and the customer's cycles: the current, the last three with it, the one before."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    QUARTER = "90d"
    LAST_CYCLE = "last_cycle"
    CYCLE = "1bc"
    CYCLES = "3bc"


class Cycle(NamedTuple):
    """What starts again and again: a billing period, or that of a balance."""

    anchor: int
    recurrence: Recurrence
    zone: str = "UTC"


class Span(NamedTuple):
    start: int
    end: int


_DAYS = {Range.DAY: 1, Range.WEEK: 7, Range.MONTH: 30, Range.QUARTER: 90}
# The cycles of a range, counted from the current one: from the first, up to and without the last.
_CYCLES = {Range.LAST_CYCLE: (-1, 0), Range.CYCLE: (0, 1), Range.CYCLES: (-2, 1)}
_DAYS_OF_A_CYCLE = 30  # where the customer has none
_LEAST_MS = {
    BinSize.HOUR: HOUR_MS,
    BinSize.DAY: 22 * HOUR_MS,
    BinSize.WEEK: 6 * DAY_MS,
    BinSize.MONTH: 27 * DAY_MS,
}


def span_of(wanted: Range, now: int, cycle: Cycle | None) -> Span:
    """Return the span that a range means now; what happens at this very millisecond belongs to it."""
    if wanted in _DAYS:
        return Span(now + 1 - _DAYS[wanted] * DAY_MS, now + 1)
    first, last = _CYCLES[wanted]
    if cycle is None:
        end = now + 1 + (last - 1) * _DAYS_OF_A_CYCLE * DAY_MS
        return Span(end - (last - first) * _DAYS_OF_A_CYCLE * DAY_MS, end)
    current = period_at(cycle.anchor, cycle.recurrence, now, cycle.zone)
    start, end = (boundary(cycle.anchor, cycle.recurrence, current + k, cycle.zone) for k in (first, last))
    return Span(start, end)


class Bins:
    """The bins that a span touches: `starts` of each, the first at or before the start of the span."""

    def __init__(self, span: Span, size: BinSize, zone: str = "UTC") -> None:
        """Raises InvalidInputs if there would be more than BINS_MAX."""
        if (span.end - span.start) // _LEAST_MS[size] > BINS_MAX:
            raise InvalidInputs(f"bin_size: at most {BINS_MAX} bins of {size}; ask for a shorter range")
        self.starts = tuple(_starts(span, size, ZoneInfo(zone)))

    @property
    def unit(self) -> int:
        """The largest number of ms so that, counted in it from the first bin, every bin starts at a whole number."""
        return gcd(*(start - self.starts[0] for start in self.starts)) or 2**53

    def index(self, units: int) -> int:
        """Return which bin so many units after the start of the first lie in."""
        return bisect_right(self.starts, self.starts[0] + units * self.unit) - 1

    def __len__(self) -> int:
        return len(self.starts)


def _starts(span: Span, size: BinSize, zone: ZoneInfo) -> list[int]:
    if size is BinSize.HOUR:
        return list(range(span.start - span.start % HOUR_MS, span.end, HOUR_MS))
    day = datetime.fromtimestamp(span.start // 1000, zone).date()
    if size is BinSize.WEEK:
        day -= timedelta(days=day.weekday())
    elif size is BinSize.MONTH:
        day = day.replace(day=1)
    starts: list[int] = []
    while (start := _midnight(day, zone)) < span.end:
        if not starts or start > starts[-1]:  # Samoa had no 30 December in 2011
            starts.append(start)
        day = _next(day, size)
    return starts


def _next(day: date, size: BinSize) -> date:
    if size is BinSize.MONTH:
        return (day.replace(day=28) + timedelta(days=4)).replace(day=1)
    return day + timedelta(days=7 if size is BinSize.WEEK else 1)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """Return the first instant of a day. Where midnight is skipped, that is when the clock was put forward."""
    local = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(local.astimezone(UTC).timestamp()) * 1000
