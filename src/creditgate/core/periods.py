"""Calendar arithmetic: where the periods of an anchor begin and end. Never chained: always `anchor + k` recurrences.

The day is clamped to the month's length, so that an anchor on the 31st gives 28 February and then 31 March. Days, weeks
and longer are steps on the calendar of the time zone; minutes and hours are exact spans. Instants are Unix ms.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from creditgate.core.intervals import Interval, Recurrence

_SPANS_MS = {Interval.MINUTE: 60_000, Interval.HOUR: 3_600_000}
_DAYS = {Interval.DAY: 1, Interval.WEEK: 7}
_MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.SEMI_ANNUAL: 6, Interval.YEAR: 12}
MEAN_MS = {
    **_SPANS_MS,
    **{interval: days * 86_400_000 for interval, days in _DAYS.items()},
    **{interval: months * 2_629_746_000 for interval, months in _MONTHS.items()},
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def boundary(anchor: int, recurrence: Recurrence, k: int, zone: str = "UTC") -> int:
    """Return the instant of the k-th boundary after the anchor (k = 0 is the anchor itself)."""
    steps = k * recurrence.count
    if steps == 0:
        return anchor
    span = _SPANS_MS.get(recurrence.interval)
    if span is not None:
        return anchor + steps * span
    tz = ZoneInfo(zone)
    local = (_EPOCH + timedelta(milliseconds=anchor)).astimezone(tz).replace(tzinfo=None)
    days = _DAYS.get(recurrence.interval)
    moved = (
        local + timedelta(days=steps * days)
        if days
        else _add_months(local, steps * _MONTHS[recurrence.interval])
    )
    # fold: where the anchor is the second of two equal local times, the boundaries are still the first of theirs
    instant = moved.replace(tzinfo=tz, fold=0).astimezone(UTC)
    return (instant - _EPOCH) // timedelta(milliseconds=1)


def period_at(anchor: int, recurrence: Recurrence, now: int, zone: str = "UTC") -> int:
    """Return the number k of the period that holds `now`: boundary(k) <= now < boundary(k + 1)."""
    k = max(0, (now - anchor) // (MEAN_MS[recurrence.interval] * recurrence.count) - 1)
    while boundary(anchor, recurrence, k + 1, zone) <= now:
        k += 1
    while k > 0 and boundary(anchor, recurrence, k, zone) > now:
        k -= 1
    return k


def _add_months(local: datetime, months: int) -> datetime:
    year, month0 = divmod(local.year * 12 + local.month - 1 + months, 12)
    day = min(local.day, monthrange(year, month0 + 1)[1])
    return local.replace(year=year, month=month0 + 1, day=day)
