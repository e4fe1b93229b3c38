"""What a call is answered: statuses, decisions, and balances as their owner sees them.

A refusal is a value. The integers of `Status` are those of lua/lib/status.lua; where several apply, the smallest is
answered.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec

from creditgate.core.catalog import Pool
from creditgate.core.customers import Row, Terms
from creditgate.core.holds import Held


class Status(IntEnum):
    INVALID = -13
    TOO_LATE = -12
    ABSENT = -11
    UPGRADE = -10
    DUE = -9
    NO_ENTITY = -8
    KEY_REUSED = -7
    REPLAYED = -6
    MOVED_ON = -5
    EXISTS = -4
    MISTIMED = -3
    TOO_MANY = -2
    OUT_OF_RANGE = -1
    REFUSED = 0
    OK = 1


status_of = {int(status): status for status in Status}.__getitem__
"""Return the status of this number, as `Status` would; it is asked for with every call."""


class Mode(StrEnum):
    """How a track treats what a customer cannot afford."""

    CAP = "cap"
    REJECT = "reject"
    OVERFLOW = "overflow"


class Moved(msgspec.Struct, frozen=True, gc=False):
    """What one row gave (negative) or got back (positive), in nanos of the row's own unit."""

    row_id: str
    delta_nanos: int


class Balance(NamedTuple):
    """All rows of one feature together. Each row counts from zero up in `remaining_nanos`; `usage_nanos` is exact.

    `rows` are pairs of a row and what is in it, and so are `rollovers`. Of an unlimited balance only the usage counts.
    """

    feature_id: str
    granted_nanos: int = 0
    remaining_nanos: int = 0
    usage_nanos: int = 0
    next_reset_at: int | None = None
    unlimited: bool = False
    overage_allowed: bool = False
    rows: tuple[tuple[Row, int], ...] = ()
    rollovers: tuple[tuple[Row, int], ...] = ()


class Decision(msgspec.Struct, frozen=True):
    """The answer to one check, track or hold.

    `pool` is the one that answers (that gave, for a track), None where the customer has none; `required_nanos` is what
    the call needs of it, in the pool's unit. `pools` are all that were looked at. `held` is the hold that was made.
    Of an event that counts for several features, `also` are the others; no pool answers for them all. `entity_id`:
    whom it was for.
    """

    allowed: bool
    feature_id: str
    pools: tuple[Pool, ...]
    pool: Pool | None
    required_nanos: int
    terms: Terms
    balances: Mapping[str, int]
    moved: tuple[Moved, ...] = ()
    is_replay: bool = False
    held: Held | None = None
    also: tuple[str, ...] = ()
    entity_id: str | None = None

    def balance(self, feature_id: str) -> Balance | None:
        """Return the balance of the feature that the call could draw on, None where there is no row of it."""
        return balance_of(feature_id, self.terms, self.balances, self.entity_id)

    def standing(self, feature_id: str) -> "Standing":
        """Return what of the feature's balance follows from the terms alone."""
        return _standing_of(feature_id, self.terms, self.entity_id)


def balance_of(
    feature_id: str, terms: Terms, balances: Mapping[str, int], entity_id: str | None = None
) -> Balance | None:
    """Return what calls for an entity, or for the customer, can draw on of a feature, from the rows' raw amounts.

    None where there is no row of it.
    """
    return _balance(_standing_of(feature_id, terms, entity_id), balances)


class Standing(NamedTuple):
    """What of a balance follows from the terms alone. Of an unlimited one, `rows` are all that are unlimited."""

    feature_id: str
    granted_nanos: int
    next_reset_at: int | None
    unlimited: bool
    overage_allowed: bool
    rows: tuple[Row, ...]
    rollovers: tuple[Row, ...]
    granted: tuple[tuple[str, int], ...]
    """The rows' ids, and what each was granted."""

    def amounts(self, balances: Mapping[str, int]) -> list[int]:
        """Return what of the balance a call may change: `remaining_nanos` and `usage_nanos` of the whole, of each row
        what is left and what is used, and what is left of each rollover.
        """
        remaining, usage = 0, self.granted_nanos
        amounts = [remaining, usage]
        for row_id, granted_nanos in self.granted:
            raw = balances[row_id]
            usage -= raw
            left = raw if raw > 0 else 0
            remaining += left
            amounts += (left, granted_nanos - raw)
        for row in self.rollovers:
            raw = balances[row.id]
            usage -= raw
            remaining += max(0, raw)
            amounts.append(raw)
        if self.unlimited:  # only the first is shown
            return [0, usage, *amounts[2:4]]
        amounts[0:2] = remaining, usage
        return amounts


def _standing_of(feature_id: str, terms: Terms, entity_id: str | None) -> Standing:
    standing: Standing | None = terms.derived.get((_standing_of, feature_id, entity_id))
    if standing is None:
        standing = _standing(feature_id, terms.rows_of(feature_id, entity_id), terms, entity_id)
        terms.derive((_standing_of, feature_id, entity_id), standing)
    return standing


def _standing(feature_id: str, rows: Sequence[Row], terms: Terms, entity_id: str | None) -> Standing:
    if unlimited := tuple(row for row in rows if row.unlimited):
        granted = tuple((row.id, row.granted_nanos) for row in unlimited)
        return Standing(feature_id, 0, None, True, False, unlimited, (), granted)
    shown = tuple(row for row in rows if row.rolled_from is None)
    return Standing(
        feature_id=feature_id,
        granted_nanos=sum(row.granted_nanos for row in rows),
        next_reset_at=min((row.resets_at for row in rows if row.resets_at is not None), default=None),
        unlimited=False,
        overage_allowed=any(terms.may_go_below(row, entity_id) for row in rows),
        rows=shown,
        rollovers=tuple(row for row in rows if row.rolled_from is not None),
        granted=tuple((row.id, row.granted_nanos) for row in shown),
    )


def _balance(standing: Standing, balances: Mapping[str, int]) -> Balance | None:
    """Return the balance with these raw amounts; None where there is no row."""
    if not standing.rows and not standing.rollovers:
        return None
    rows = tuple([(row, balances[row.id]) for row in standing.rows])
    if standing.unlimited:
        usage = -sum(raw for _, raw in rows)
        return Balance(standing.feature_id, usage_nanos=usage, unlimited=True, rows=rows[:1])
    rollovers = tuple([(row, balances[row.id]) for row in standing.rollovers])
    remaining, left = 0, 0
    for _, raw in rows + rollovers:
        remaining += max(0, raw)
        left += raw
    return Balance(
        feature_id=standing.feature_id,
        granted_nanos=standing.granted_nanos,
        remaining_nanos=remaining,
        usage_nanos=standing.granted_nanos - left,
        next_reset_at=standing.next_reset_at,
        overage_allowed=standing.overage_allowed,
        rows=rows,
        rollovers=rollovers,
    )


def balances_of(terms: Terms, balances: Mapping[str, int], entity_id: str | None = None) -> Iterator[Balance]:
    """Yield the balance of every feature: what an entity can draw on, or all that there is of the customer."""
    for feature_id in dict.fromkeys(row.feature_id for row in terms.rows):
        rows = sorted(
            (row for row in terms.rows if row.feature_id == feature_id),
            key=lambda row: row.entity_id is not None,
        )
        if entity_id is not None:
            rows = list(terms.rows_of(feature_id, entity_id))
        balance = _balance(_standing(feature_id, rows, terms, entity_id), balances)
        if balance is not None:
            yield balance
