"""Burn order: which row gives first. Worked out when rows change, kept in the record, only followed by the scripts."""

from collections.abc import Iterable

from creditgate.core.catalog import Interval
from creditgate.core.customers import Row, Terms

ROWS_MAX = 64

_NEVER = 2**63
_INTERVAL_RANK = {interval: rank for rank, interval in enumerate(list(Interval)[1:])}


def in_burn_order(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return the rows sorted: first to give first.

    Unlimited rows, then what rolled over, soonest to expire first. Then rows that reset before rows that do not, the
    shorter interval first, the earlier expiry first, plans before add-ons, rows that stop at zero before those that may
    go below it, then the oldest. That the own feature goes before a credit system is not here: it depends on the call.
    """
    return tuple(sorted(rows, key=_rank))


def order_fields(terms: Terms) -> dict[str, str]:
    """Return, per feature, the words that the record keeps of its limits and rows: see lua/lib/record.lua."""
    orders: dict[str, list[str]] = {}
    features = {row.feature_id for row in terms.rows} | {gate.feature_id for gate in terms.gates}
    for alert in terms.alerts:
        granted = sum(row.granted_nanos for row in terms.rows if row.feature_id == alert.feature_id)
        if alert.feature_id in features:
            orders.setdefault(alert.feature_id, []).append(alert.word(granted))
    for feature_id, nanos in terms.spend_limits.items():
        if feature_id in features:
            orders.setdefault(feature_id, []).append(f"${nanos}")
    for gate in terms.gates:
        orders.setdefault(gate.feature_id, []).append(f"@{gate.id}:{gate.filter}:{gate.since}")
    for position, row in enumerate(terms.rows):
        ceiling = 0 if row.rolled_from is not None else row.granted_nanos
        period = "-" if row.resets_at is None else row.period + row.period_offset
        order = f"{position}:{row.id}:{_floor(row, terms)}:{ceiling}:{period}"
        orders.setdefault(row.feature_id, []).append(order)
    return {feature_id: " ".join(order) for feature_id, order in orders.items()}


def _floor(row: Row, terms: Terms) -> str:
    if row.unlimited:
        return "*"
    if row.rolled_from is not None:
        return "^"
    if not terms.may_go_below(row):
        return "0"
    if row.price is None and row.is_held and row.feature_id not in terms.overages:
        return "seat"
    if row.max_purchase_nanos is None or row.feature_id in terms.spend_limits:
        return "~"
    return str(-row.max_purchase_nanos)


def _rank(row: Row) -> tuple[int, ...]:
    expires_at = row.expires_at if row.expires_at is not None else _NEVER
    if row.unlimited:
        return (0, row.created_at)
    if row.rolled_from is not None:
        return (1, expires_at, row.created_at)
    resets = row.reset is not None and row.reset.repeats
    return (
        2 if resets else 3,
        _INTERVAL_RANK[row.reset.interval] if resets and row.reset else 0,
        row.reset.count if resets and row.reset else 0,
        expires_at,
        1 if row.add_on else 0,
        1 if row.may_go_negative else 0,
        row.created_at,
    )
