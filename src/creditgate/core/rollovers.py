"""What survives a reset: how much of a row rolls over, until when, and what the cap cuts off. Pure arithmetic.

However many periods were missed, the outcome is that of a reset at every boundary, in closed form. What expires does so
in batches: where more than 12 rollovers would be alive at once, some consecutive periods share one, which expires with
the last of them. Which periods those are follows from their numbers alone, so it does not matter when somebody looked.
"""

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from creditgate.core.amounts import AMOUNT_MAX
from creditgate.core.changes import Step, renewed
from creditgate.core.customers import Row
from creditgate.core.intervals import Interval, Recurrence
from creditgate.core.periods import boundary

OWN_MAX = 12
"""Alive at once of one row: a month's rollover is kept for itself for as long as a year."""

ROLLOVERS_MAX = 24
"""Of one row, with those that came with it from another plan, or from before it was given another anchor."""

_NEVER = 2**63
_MONTH_AT_MOST = {
    Interval.MINUTE: 31 * 24 * 60 + 60,  # a month in which the clock is put back
    Interval.HOUR: 31 * 24 + 1,
    Interval.DAY: 31,
    Interval.WEEK: 5,
}
_MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.SEMI_ANNUAL: 6, Interval.YEAR: 12}


@dataclass(eq=False)
class Rolled:
    """A rollover: `row` is the one that holds it, with what was in it `before`; None where it is new."""

    amount_nanos: int
    rolled_at: int
    expires_at: int | None
    row: Row | None = None
    before_nanos: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """The soonest to expire first, then the oldest."""
        return (_NEVER if self.expires_at is None else self.expires_at, self.rolled_at)

    @property
    def more_nanos(self) -> int:
        """What has come into the row that holds it; negative: what was cut off."""
        return self.amount_nanos - self.before_nanos

    def is_gone_by(self, instant: int) -> bool:
        return self.expires_at is not None and self.expires_at <= instant


class Renewal(NamedTuple):
    """A row that starts again: how much left each row to roll over, and all rollovers after that."""

    rolled_out: dict[str, int]
    rollovers: list[Rolled]


class Kept(NamedTuple):
    """The rows of all rollovers of a row, and the steps to them."""

    rows: list[Row]
    steps: list[Step]


def renewal(
    row: Row,
    balance_nanos: int,
    rollovers: Iterable[tuple[Row, int]],
    now: int,
    *,
    spared: Set[str] = frozenset(),
) -> Renewal:
    """Return what becomes of a row with a rollover whose reset is due, from the boundary that it stands at to `now`.

    A rollover that is empty ends at the first boundary, unless something rolls into it there or it is `spared`.
    """
    assert row.rollover is not None
    assert row.reset is not None
    assert row.anchor is not None
    last = renewed(row, now).period
    at = boundary(row.anchor, row.reset, last, row.zone)
    left = max(0, balance_nanos)
    held = [each for each in _held(rollovers) if not each.is_gone_by(at)]
    held = [each for each in held if left or each.amount_nanos or (each.row and each.row.id in spared)]
    home = None
    for new, has_what_was_left in _arrivals(row, left, last, at):
        rolled = _of_the_same_batch(held, new) if row.rollover.months is not None else None
        if rolled is None:
            held.append(new)
        else:
            rolled.amount_nanos = _at_most(rolled.amount_nanos + new.amount_nanos)
            rolled.rolled_at = min(rolled.rolled_at, new.rolled_at)
        home = (rolled or new) if has_what_was_left else home
    held = _capped(held, row.rollover.most(row.start_nanos))
    held = [each for each in held if not each.is_gone_by(now)]
    rolled_out = {}
    if home is not None and home in held:
        rolled_out[row.id] = min(left, max(0, home.more_nanos))
    return Renewal(rolled_out, _merged(held, rolled_out))


def kept(
    row: Row,
    renewed: Renewal,
    before: Iterable[tuple[Row, int]],
    mint: Callable[[str], str],
    *,
    spared: Set[str] = frozenset(),
) -> Kept:
    """Return the rollovers as rows of `row`, and the steps from the rows there were `before`.

    Those of them that are empty close, but for the `spared`.
    """
    steps = [Step("roll_out", row_id, amount) for row_id, amount in renewed.rolled_out.items() if amount]
    rows = []
    for rolled in renewed.rollovers:
        if rolled.row is None:
            rows.append(_rollover_row(row, rolled, mint("bal")))
            steps.append(Step("roll_in", rows[-1].id, rolled.amount_nanos))
        else:
            rows.append(_as_rollover_of(row, rolled.row, rolled.more_nanos))
            steps += _steps_to(rolled, rolled.row)
    there = {one.id for one in rows}
    for was, amount in before:
        if was.id in there:
            continue
        if was.id not in spared:
            steps.append(Step("close", was.id))
            continue
        rows.append(_as_rollover_of(row, was, -amount))
        if amount > renewed.rolled_out.get(was.id, 0):
            steps.append(Step("cut", was.id))
    return Kept(rows, steps)


def handed_on(heir: Row, rollovers: Iterable[tuple[Row, int]]) -> Kept:
    """Return what goes along when another row takes the place of one that ends: its cap holds from now on.

    Those that do not are closed with the row that they rolled over from.
    """
    assert heir.rollover is not None
    rows, steps = [], []
    for rolled in _capped(_held(rollovers), heir.rollover.most(heir.start_nanos)):
        assert rolled.row is not None
        rows.append(_as_rollover_of(heir, rolled.row, rolled.more_nanos))
        steps += _steps_to(rolled, rolled.row)
    return Kept(rows, steps)


def _steps_to(rolled: Rolled, row: Row) -> list[Step]:
    if rolled.more_nanos > 0:
        return [Step("roll_in", row.id, rolled.more_nanos)]
    return [Step("cut", row.id, rolled.amount_nanos)] if rolled.more_nanos else []


def _rollover_row(row: Row, rolled: Rolled, row_id: str) -> Row:
    return msgspec.structs.replace(
        row,
        id=row_id,
        created_at=rolled.rolled_at,
        included_nanos=rolled.amount_nanos,
        prepaid_nanos=0,
        adjustment_nanos=0,
        reset=None,
        anchor=None,
        period=0,
        period_offset=0,
        resets_at=None,
        expires_at=rolled.expires_at,
        price=None,
        may_go_negative=False,
        rollover=None,
        rolled_from=row.id,
        external_id=None,
    )


def _as_rollover_of(row: Row, rolled: Row, more_nanos: int) -> Row:
    """What is cut off was not used, so it is no longer granted."""
    return msgspec.structs.replace(
        rolled,
        included_nanos=rolled.included_nanos + more_nanos,
        rolled_from=row.id,
        plan_id=row.plan_id,
        owner_id=row.owner_id,
        add_on=row.add_on,
    )


def _held(rollovers: Iterable[tuple[Row, int]]) -> list[Rolled]:
    return [Rolled(left, kept.created_at, kept.expires_at, kept, left) for kept, left in rollovers]


def _arrivals(row: Row, left: int, last: int, at: int) -> Iterable[tuple[Rolled, bool]]:
    """Yield what rolled over at the boundaries up to `last` and is alive at its instant, the newest first; and whether
    what was left of the row is in it.
    """
    assert row.rollover is not None
    assert row.reset is not None
    assert row.anchor is not None
    first = row.period + 1
    if row.rollover.months is None:
        since = max(first, last - ROLLOVERS_MAX + 1)
        for period in range(last, since - 1, -1):
            amount = left + (since - first) * row.start_nanos if period == since else row.start_nanos
            rolled_at = boundary(row.anchor, row.reset, period, row.zone)
            yield Rolled(_at_most(amount), rolled_at, row.expires_at), period == since
        return
    size = _batch_size(row.reset, row.rollover.months)
    for batch in range(last // size, first // size - 1, -1):
        end = batch * size + size - 1
        expires_at = _expiry(row, boundary(row.anchor, row.reset, end, row.zone), row.rollover.months)
        if expires_at <= at:
            return
        missed = min(last, end) - max(first, batch * size - 1)
        is_first = batch * size <= first
        amount = missed * row.start_nanos + (left if is_first else 0)
        begins = first + (left == 0) if is_first else batch * size
        rolled_at = boundary(row.anchor, row.reset, begins, row.zone)
        yield Rolled(_at_most(amount), rolled_at, expires_at), is_first


def _of_the_same_batch(held: list[Rolled], new: Rolled) -> Rolled | None:
    return next((each for each in held if each.expires_at == new.expires_at), None)


def _batch_size(reset: Recurrence, months: int) -> int:
    """Return how many consecutive periods share a rollover, so that at most 12 are alive at once."""
    if reset.interval in _MONTHS:
        alive = -(-months // (_MONTHS[reset.interval] * reset.count))
    else:
        alive = -(-months * _MONTH_AT_MOST[reset.interval] // reset.count)
    return 1 if alive <= OWN_MAX else -(-alive // (OWN_MAX - 1))


def _expiry(row: Row, at: int, months: int) -> int:
    """Months after the boundary, but never after the row itself."""
    expires_at = boundary(at, Recurrence(Interval.MONTH, months), 1, row.zone)
    return expires_at if row.expires_at is None else min(expires_at, row.expires_at)


def _at_most(amount_nanos: int) -> int:
    return min(amount_nanos, AMOUNT_MAX - 1)


def _capped(rollovers: list[Rolled], most: int | None) -> list[Rolled]:
    """Cut off what is above the cap, from those that expire soonest; and leave out what is empty."""
    rollovers.sort(key=lambda each: each.order)
    above = sum(each.amount_nanos for each in rollovers) - most if most is not None else 0
    for each in rollovers:
        cut = min(max(0, above), each.amount_nanos)
        each.amount_nanos -= cut
        above -= cut
    return [each for each in rollovers if each.amount_nanos > 0]


def _merged(rollovers: list[Rolled], rolled_out: dict[str, int]) -> list[Rolled]:
    """Of too many, put the soonest to expire into the next one; `rolled_out` is told what leaves a row for that."""
    while len(rollovers) > ROLLOVERS_MAX:
        soonest, next_one, *others = rollovers
        next_one.amount_nanos = _at_most(next_one.amount_nanos + soonest.amount_nanos)
        if soonest.row is not None:
            rolled_out[soonest.row.id] = min(soonest.before_nanos, soonest.amount_nanos)
        rollovers = [next_one, *others]
    return rollovers
