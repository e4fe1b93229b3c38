"""What survives a reset: how much of a row rolls over, until when, and what the cap cuts off. Pure arithmetic.

However many periods were missed, the outcome is that of a reset at every boundary; the work is bounded, since only the
last periods can matter under a cap or an expiry.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from creditgate.core.amounts import AMOUNT_MAX
from creditgate.core.changes import renewed
from creditgate.core.customers import Row
from creditgate.core.intervals import Interval, Recurrence
from creditgate.core.periods import boundary

ROLLOVERS_MAX = 24
"""Of one row. Beyond it, the two that expire soonest become one that expires with the later: nothing is lost early."""

_NEVER = 2**63


@dataclass
class Rolled:
    """What rolled over at one reset, or is left of it; `row` is None where it is new."""

    amount_nanos: int
    rolled_at: int
    expires_at: int | None
    row: Row | None = None

    def is_gone_by(self, instant: int) -> bool:
        return self.expires_at is not None and self.expires_at <= instant


class Renewal(NamedTuple):
    """A row that starts again: what of its balance rolled over, and all its rollovers after that."""

    rolled_out_nanos: int
    rollovers: list[Rolled]


def renewal(row: Row, balance_nanos: int, rollovers: Iterable[tuple[Row, int]], now: int) -> Renewal:
    """Return what becomes of a row with a rollover whose reset is due, from the boundary that it stands at to `now`."""
    assert row.rollover is not None
    assert row.reset is not None
    assert row.anchor is not None
    most = row.rollover.most(row.start_nanos)
    last = renewed(row, now).period
    held = [Rolled(left, kept.created_at, kept.expires_at, kept) for kept, left in rollovers]
    first = Rolled(max(0, balance_nanos), 0, None)
    for period in _periods_that_matter(row, most, last):
        at = boundary(row.anchor, row.reset, period, row.zone)
        rolled = first if period == row.period + 1 else Rolled(row.start_nanos, 0, None)
        rolled.rolled_at, rolled.expires_at = at, _expiry(row, at)
        held = [each for each in held if not each.is_gone_by(at)]
        held = capped([*held, rolled], most)
    if row.rollover.months is None and most is None and last > row.period + 1:
        missed = (last - row.period - 1) * row.start_nanos
        at = boundary(row.anchor, row.reset, last, row.zone)
        held = capped([*held, Rolled(min(missed, AMOUNT_MAX - 1), at, _expiry(row, at))], most)
    held = [each for each in held if not each.is_gone_by(now)]
    return Renewal(first.amount_nanos, _merged(held))


def rollover_row(row: Row, amount_nanos: int, rolled_at: int, expires_at: int | None, row_id: str) -> Row:
    """Return the row that holds what rolled over from another one."""
    return msgspec.structs.replace(
        row,
        id=row_id,
        created_at=rolled_at,
        included_nanos=amount_nanos,
        prepaid_nanos=0,
        adjustment_nanos=0,
        reset=None,
        anchor=None,
        period=0,
        resets_at=None,
        expires_at=expires_at,
        price=None,
        may_go_negative=False,
        rollover=None,
        rolled_from=row.id,
        external_id=None,
    )


def _periods_that_matter(row: Row, most: int | None, last: int) -> list[int]:
    """Return the periods whose beginning can have left a rollover that is still there: the first, and the last."""
    assert row.rollover is not None
    first = row.period + 1
    if row.start_nanos <= 0 or (most is None and row.rollover.months is None):
        return [first]
    since = first + 1
    if most is not None:
        since = max(since, last - most // row.start_nanos - 1)
    if row.rollover.months is not None:
        since = max(since, _first_alive(row, since, last))
    return [first, *range(since, last + 1)]


def _first_alive(row: Row, since: int, last: int) -> int:
    """Return the first period whose rollover has not expired at the beginning of the last one, by bisection."""
    assert row.reset is not None
    assert row.anchor is not None
    end = boundary(row.anchor, row.reset, last, row.zone)
    low, high = since, last
    while low < high:
        middle = (low + high) // 2
        expiry = _expiry(row, boundary(row.anchor, row.reset, middle, row.zone))
        if expiry is not None and expiry <= end:
            low = middle + 1
        else:
            high = middle
    return low


def _expiry(row: Row, at: int) -> int | None:
    """Return until when something is kept that rolls over at this instant: never longer than the row itself."""
    assert row.rollover is not None
    months = row.rollover.months
    after = None if months is None else boundary(at, Recurrence(Interval.MONTH, months), 1, row.zone)
    return min((instant for instant in (after, row.expires_at) if instant is not None), default=None)


def capped(rollovers: list[Rolled], most: int | None) -> list[Rolled]:
    """Cut off what is above the cap, from those that expire soonest; and leave out what is empty."""
    rollovers.sort(key=lambda each: (_NEVER if each.expires_at is None else each.expires_at, each.rolled_at))
    above = sum(each.amount_nanos for each in rollovers) - most if most is not None else 0
    for each in rollovers:
        cut = min(max(0, above), each.amount_nanos)
        each.amount_nanos -= cut
        above -= cut
    return [each for each in rollovers if each.amount_nanos > 0]


def _merged(rollovers: list[Rolled]) -> list[Rolled]:
    while len(rollovers) > ROLLOVERS_MAX:
        soonest, next_one, *others = rollovers
        both = soonest.amount_nanos + next_one.amount_nanos
        rollovers = [Rolled(both, next_one.rolled_at, next_one.expires_at), *others]
    return rollovers
