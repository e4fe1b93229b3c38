"""Burn order: which row gives first. Worked out when rows change, kept in the record, only followed by the scripts."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from creditgate.core.catalog import Interval
from creditgate.core.controls import Gate, UsageAlert
from creditgate.core.customers import Limits, Row, Terms
from creditgate.core.entities import pool_name

ROWS_MAX = 64
"""That a customer has of its own, and that any entity has."""

ALL_ROWS_MAX = 256
"""Of a customer and all its entities together: every call is answered with the terms of all."""

SECOND = 10_000  # as in lua/lib/rows.lua: positions from here on give only after those below

_NEVER = 2**63
_INTERVAL_RANK = {interval: rank for rank, interval in enumerate(list(Interval)[1:])}


def in_burn_order(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return the rows sorted: first to give first.

    Unlimited rows, then what rolled over, soonest to expire first. Then rows that reset before rows that do not, the
    shorter interval first, the earlier expiry first, plans before add-ons, rows that stop at zero before those that may
    go below it, then the oldest. That the own feature goes before a credit system is not here: it depends on the call.
    """
    return tuple(sorted(rows, key=_rank))


def order_fields(terms: Terms, entity_ids: Iterable[str] = ()) -> dict[str, str]:
    """Return, by the name of each pool, the words that the record keeps of its limits and rows; and a sign of each
    entity. See lua/lib/record.lua.
    """
    rows = [_Placed(position, row) for position, row in enumerate(terms.rows)]
    fields = _of_customer(terms, rows)
    theirs = {row.feature_id for row in terms.rows if row.entity_id is not None}
    for feature_id in theirs:
        fields[f"{feature_id}/"] = _words([], _of_entity(terms, rows, feature_id, None)) or _NOTHING
    for entity_id in entity_ids:
        fields[pool_name("", entity_id)] = _NOTHING
        own = {row.feature_id for row in terms.rows if row.entity_id == entity_id}
        gates = [gate for gate in terms.gates if gate.entity_id == entity_id]
        limits = terms.entities.get(entity_id, _NO_LIMITS)
        named = {gate.feature_id for gate in gates} | {alert.feature_id for alert in limits.alerts}
        for feature_id in own | named | limits.spend_limits.keys() | limits.overages.keys():
            placed = _of_entity(terms, rows, feature_id, entity_id)
            granted = sum(row.granted_nanos for row in terms.rows_of(feature_id, entity_id))
            first = _limits(feature_id, limits.alerts, granted, limits.spend_limits, gates)
            fields[pool_name(feature_id, entity_id)] = _words(first, placed) or _NOTHING
    return fields


_NOTHING = "-"  # a field with no row and no limit, which is there
_NO_LIMITS = Limits()


class _Placed(NamedTuple):
    """A row at its position among all."""

    position: int
    row: Row

    def word(self, floor: str, *, later: bool) -> str:
        row = self.row
        ceiling = 0 if row.rolled_from is not None else row.granted_nanos
        period = "-" if row.resets_at is None else row.period + row.period_offset
        position = self.position + SECOND if later else self.position
        return f"{position}:{row.id}:{floor}:{ceiling}:{period}"


def _of_customer(terms: Terms, rows: list[_Placed]) -> dict[str, str]:
    """What calls for the customer draw on. Rows out of their reach stand there only where a limit counts them."""
    fields: dict[str, str] = {}
    gates = [gate for gate in terms.gates if gate.entity_id is None]
    within = [placed.row.feature_id for placed in rows if placed.row.gives_to(None)]
    counted = {alert.feature_id for alert in terms.alerts} | terms.spend_limits.keys()
    theirs = [placed.row.feature_id for placed in rows if placed.row.feature_id in counted]
    for feature_id in dict.fromkeys([*within, *theirs, *(gate.feature_id for gate in gates)]):
        words = []
        for placed in rows:
            if placed.row.feature_id != feature_id:
                continue
            if placed.row.gives_to(None):
                later = placed.row.entity_id is not None
                words.append(placed.word(_floor(placed.row, terms, None), later=later))
            elif feature_id in counted:
                words.append(placed.word(_OUT_OF_REACH, later=True))
        granted = sum(placed.row.granted_nanos for placed in rows if placed.row.feature_id == feature_id)
        first = _limits(feature_id, terms.alerts, granted, terms.spend_limits, gates)
        fields[feature_id] = _words(first, words)
    return fields


_OUT_OF_REACH = "x"


def _of_entity(terms: Terms, rows: list[_Placed], feature_id: str, entity_id: str | None) -> list[str]:
    """What calls for an entity draw on; None: one that has no rows of the feature."""
    return [
        placed.word(_floor(placed.row, terms, entity_id), later=placed.row.entity_id is None)
        for placed in rows
        if placed.row.feature_id == feature_id and placed.row.entity_id in (None, entity_id)
    ]


def _limits(
    feature_id: str,
    alerts: Iterable[UsageAlert],
    granted_nanos: int,
    spend_limits: Mapping[str, int],
    gates: Iterable[Gate],
) -> list[str]:
    words = [alert.word(granted_nanos) for alert in alerts if alert.feature_id == feature_id]
    if feature_id in spend_limits:
        words.append(f"${spend_limits[feature_id]}")
    words += [f"@{gate.id}:{gate.filter}:{gate.since}" for gate in gates if gate.feature_id == feature_id]
    return words


def _words(limits: list[str], rows: list[str]) -> str:
    return " ".join([*limits, *rows])


def _floor(row: Row, terms: Terms, entity_id: str | None) -> str:
    if row.unlimited:
        return "*"
    if row.rolled_from is not None:
        return "^"
    if not terms.may_go_below(row, entity_id):
        return "0"
    if row.price is None and row.is_held and terms.overage(row.feature_id, entity_id) is None:
        return "seat"
    limits = terms.entities.get(entity_id, _NO_LIMITS) if entity_id is not None else _NO_LIMITS
    is_limited = row.feature_id in terms.spend_limits or row.feature_id in limits.spend_limits
    return "~" if row.max_purchase_nanos is None or is_limited else str(-row.max_purchase_nanos)


def _rank(row: Row) -> tuple[int | str, ...]:
    expires_at = row.expires_at if row.expires_at is not None else _NEVER
    last = (row.entity_id or "", row.created_at)
    if row.unlimited:
        return (0, *last)
    if row.rolled_from is not None:
        return (1, expires_at, *last)
    resets = row.reset is not None and row.reset.repeats
    return (
        2 if resets else 3,
        _INTERVAL_RANK[row.reset.interval] if resets and row.reset else 0,
        row.reset.count if resets and row.reset else 0,
        expires_at,
        1 if row.add_on else 0,
        1 if row.may_go_negative else 0,
        *last,
    )
