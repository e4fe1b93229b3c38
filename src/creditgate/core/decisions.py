"""What a call is answered: statuses, decisions, and balances as their owner sees them.

A refusal is a value. The integers of `Status` are those of lua/lib/status.lua; where several apply, the smallest is
answered.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec

from creditgate.core.catalog import Pool
from creditgate.core.customers import Row, Terms


class Status(IntEnum):
    INVALID = -9
    TOO_LATE = -8
    ABSENT = -7
    UPGRADE = -6
    DUE = -5
    KEY_REUSED = -4
    REPLAYED = -3
    MOVED_ON = -2
    OUT_OF_RANGE = -1
    REFUSED = 0
    OK = 1


class Mode(StrEnum):
    """How a track treats what a customer cannot afford."""

    CAP = "cap"
    REJECT = "reject"
    OVERFLOW = "overflow"


class Moved(NamedTuple):
    """What one row gave (negative) or got back (positive), in nanos of the row's own unit."""

    row_id: str
    delta_nanos: int


class Balance(NamedTuple):
    """All rows of one feature together. Each row counts from zero up in `remaining_nanos`; `usage_nanos` is exact."""

    feature_id: str
    granted_nanos: int
    remaining_nanos: int
    usage_nanos: int
    next_reset_at: int | None
    rows: tuple[tuple[Row, int], ...]


class Decision(msgspec.Struct, frozen=True):
    """The answer to one check or track.

    `pool` is the one that answers (that gave, for a track), None where the customer has none; `required_nanos` is what
    the call needs of it, in the pool's unit. `pools` are all that were looked at.
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

    def balance(self, feature_id: str) -> Balance | None:
        """Return the customer's balance of the feature, None where there is no row of it."""
        return balance_of(feature_id, self.terms, self.balances)


def balance_of(feature_id: str, terms: Terms, balances: Mapping[str, int]) -> Balance | None:
    """Return the balance of one feature from the rows' terms and raw amounts, None where there is no row of it."""
    rows = tuple((row, balances[row.id]) for row in terms.rows if row.feature_id == feature_id)
    if not rows:
        return None
    granted = sum(row.granted_nanos for row, _ in rows)
    return Balance(
        feature_id=feature_id,
        granted_nanos=granted,
        remaining_nanos=sum(max(0, raw) for _, raw in rows),
        usage_nanos=granted - sum(raw for _, raw in rows),
        next_reset_at=min((row.resets_at for row, _ in rows if row.resets_at is not None), default=None),
        rows=rows,
    )
