"""Burn order: which row gives first. Worked out when rows change, kept in the record, only followed by the scripts."""

from collections.abc import Iterable

from creditgate.core.catalog import Interval
from creditgate.core.customers import Row

ROWS_MAX = 64

_NEVER = 2**63
_INTERVAL_RANK = {interval: rank for rank, interval in enumerate(list(Interval)[1:])}


def in_burn_order(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return the rows sorted: first to give first.

    Rows that reset before rows that do not, the shorter interval first, the earlier expiry first, plans before add-ons,
    rows that stop at zero before those that may go below it, then the oldest. That the own feature goes before a credit
    system is not here: it depends on the call.
    """
    return tuple(sorted(rows, key=_rank))


def order_fields(rows: tuple[Row, ...]) -> dict[str, str]:
    """Return, per feature, the order that the record keeps, with blanks between the rows.

    A row is `<position>:<row id>:<floor>:<ceiling>:<period>`; lua/lib/record.lua says what each means to a script.
    """
    orders: dict[str, list[str]] = {}
    for position, row in enumerate(rows):
        floor = "~" if row.may_go_negative else "0"
        period = "-" if row.resets_at is None else str(row.period)
        order = f"{position}:{row.id}:{floor}:{row.granted_nanos}:{period}"
        orders.setdefault(row.feature_id, []).append(order)
    return {feature_id: " ".join(order) for feature_id, order in orders.items()}


def _rank(row: Row) -> tuple[int, ...]:
    resets = row.reset is not None and row.reset.repeats
    return (
        0 if resets else 1,
        _INTERVAL_RANK[row.reset.interval] if resets and row.reset else 0,
        row.reset.count if resets and row.reset else 0,
        row.expires_at if row.expires_at is not None else _NEVER,
        1 if row.add_on else 0,
        1 if row.may_go_negative else 0,
        row.created_at,
    )
