"""What a call is answered: statuses, decisions, and balances as their owner sees them.

A refusal is a value. The integers of `Status` are those of lua/lib/status.lua; where several apply, the smallest is
answered.
"""

from collections.abc import Iterable, Iterator, Mapping
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


def balance_of(
    feature_id: str, terms: Terms, balances: Mapping[str, int], entity_id: str | None = None
) -> Balance | None:
    """Return what calls for an entity, or for the customer, can draw on of a feature, from the rows' raw amounts.

    None where there is no row of it.
    """
    return _together(feature_id, terms.rows_of(feature_id, entity_id), terms, balances, entity_id)


def _together(
    feature_id: str,
    rows: Iterable[Row],
    terms: Terms,
    balances: Mapping[str, int],
    entity_id: str | None,
) -> Balance | None:
    held = tuple((row, balances[row.id]) for row in rows)
    if not held:
        return None
    unlimited = tuple((row, raw) for row, raw in held if row.unlimited)
    if unlimited:
        usage = -sum(raw for _, raw in unlimited)
        return Balance(feature_id, usage_nanos=usage, unlimited=True, rows=unlimited[:1])
    granted = sum(row.granted_nanos for row, _ in held)
    return Balance(
        feature_id=feature_id,
        granted_nanos=granted,
        remaining_nanos=sum(max(0, raw) for _, raw in held),
        usage_nanos=granted - sum(raw for _, raw in held),
        next_reset_at=min((row.resets_at for row, _ in held if row.resets_at is not None), default=None),
        overage_allowed=any(terms.may_go_below(row, entity_id) for row, _ in held),
        rows=tuple((row, raw) for row, raw in held if row.rolled_from is None),
        rollovers=tuple((row, raw) for row, raw in held if row.rolled_from is not None),
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
        balance = _together(feature_id, rows, terms, balances, entity_id)
        if balance is not None:
            yield balance
