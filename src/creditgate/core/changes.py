"""A change of what a customer is and holds, as a value: worked out here, applied by one script.

A *step* moves one row. The amounts in steps are what a row starts or restarts with, never differences: what is left in
a row at that moment is known only to the script, which journals it as the difference it computed.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from creditgate.core.burn import ROWS_MAX, in_burn_order, order_fields
from creditgate.core.customers import Customer, Flag, Record, Row, Terms
from creditgate.core.periods import boundary, period_at
from creditgate.errors import Conflict


class Step(NamedTuple):
    """`open` or `reset` a row to an amount; `close` it; `drop` it, which holds only while nothing is left in it."""

    action: str
    row_id: str
    amount_nanos: int = 0


class Change(msgspec.Struct, frozen=True):
    """What one script call writes. None leaves the document or the terms; an order of '' removes the field."""

    due: int | None
    customer: Customer | None = None
    terms: Terms | None = None
    orders: dict[str, str] = {}
    steps: tuple[Step, ...] = ()


def next_due(terms: Terms) -> int | None:
    """Return the earliest instant at which something of the customer changes by itself."""
    instants = [row.resets_at for row in terms.rows] + [row.expires_at for row in terms.rows]
    instants += [flag.expires_at for flag in terms.flags]
    return min((instant for instant in instants if instant is not None), default=None)


def profile_change(record: Record, customer: Customer) -> Change:
    """Return the change that keeps a new document and leaves every row alone."""
    return Change(due=next_due(record.terms), customer=customer)


def rows_change(
    record: Record | None,
    *,
    customer: Customer | None = None,
    opened: Iterable[Row] = (),
    flags: Iterable[Flag] = (),
    closed: Iterable[str] = (),
    released: Iterable[str] = (),
) -> Change:
    """Return the change that opens rows and adds flags, and closes those that belong to the `closed` owners.

    Rows of `released` owners stay with the customer but belong to no plan from now on. Where more than 64 rows would
    live, drained rows that never reset give up their place; Conflict `too_many_balances` if that is not enough.
    """
    old = record.terms if record else Terms()
    closed, released, opened = set(closed), set(released), tuple(opened)
    steps = [Step("close", row.id) for row in old.rows if row.owner_id in closed and row.id not in released]
    kept = [
        msgspec.structs.replace(row, owner_id=None, plan_id=None) if row.id in released else row
        for row in old.rows
        if row.owner_id not in closed or row.id in released
    ]
    if record and len(kept) + len(opened) > ROWS_MAX:
        drained = [row for row in kept if _is_drained(row, record.balances[row.id])]
        for row in drained[: len(kept) + len(opened) - ROWS_MAX]:
            kept.remove(row)
            steps.append(Step("drop", row.id))
    if len(kept) + len(opened) > ROWS_MAX:
        raise Conflict(f"A customer can hold at most {ROWS_MAX} balances", code="too_many_balances")
    steps += [Step("open", row.id, row.granted_nanos) for row in opened]
    kept_flags = tuple(flag for flag in old.flags if flag.owner_id not in closed)
    terms = Terms(in_burn_order((*kept, *opened)), (*kept_flags, *flags))
    return _change(old, terms, steps, customer)


def forward_change(record: Record) -> Change:
    """Return the change that brings a customer to `record.now`: expiries, then resets.

    However many periods were missed, a row resets once, into the period that holds now. At a reset the rows that are
    drained and never reset go.
    """
    now, steps, kept = record.now, [], []
    is_reset = any(row.resets_at is not None and row.resets_at <= now for row in record.terms.rows)
    for row in record.terms.rows:
        if row.expires_at is not None and row.expires_at <= now:
            steps.append(Step("close", row.id))
        elif row.resets_at is not None and row.resets_at <= now:
            steps.append(Step("reset", row.id, row.granted_nanos))
            kept.append(in_period_at(row, now))
        elif is_reset and _is_drained(row, record.balances[row.id]):
            steps.append(Step("drop", row.id))
        else:
            kept.append(row)
    flags = tuple(flag for flag in record.terms.flags if flag.expires_at is None or flag.expires_at > now)
    return _change(record.terms, Terms(in_burn_order(kept), flags), steps, None)


def in_period_at(row: Row, now: int) -> Row:
    """Return the row in the period that holds `now`; a row that does not repeat comes back unchanged."""
    if row.reset is None or not row.reset.repeats or row.anchor is None:
        return row
    period = max(row.period, period_at(row.anchor, row.reset, now))
    return msgspec.structs.replace(row, period=period, resets_at=boundary(row.anchor, row.reset, period + 1))


def _is_drained(row: Row, balance_nanos: int) -> bool:
    return balance_nanos == 0 and row.granted_nanos > 0 and row.resets_at is None and not row.may_go_negative


def _change(old: Terms, terms: Terms, steps: Iterable[Step], customer: Customer | None) -> Change:
    orders = {row.feature_id: "" for row in old.rows} | order_fields(terms.rows)
    return Change(due=next_due(terms), customer=customer, terms=terms, orders=orders, steps=tuple(steps))
