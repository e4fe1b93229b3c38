"""How often something happens again: the words for it. Where the boundaries lie is the business of `periods.py`."""

from enum import StrEnum

import msgspec

INTERVAL_COUNT_MAX = 120  # keeps every boundary within the calendar


class Interval(StrEnum):
    """How often something happens again; `one_off` is never."""

    ONE_OFF = "one_off"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    SEMI_ANNUAL = "semi_annual"
    YEAR = "year"


class Recurrence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every `count` intervals."""

    interval: Interval
    count: int = 1

    @property
    def repeats(self) -> bool:
        return self.interval is not Interval.ONE_OFF
