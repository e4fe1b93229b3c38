"""Setting a balance by hand: to an exact remainder or usage, by an amount, to another grant, reset or expiry.

What is to be exact is written as an absolute amount per row, so it holds whatever was tracked in between; what is to be
added is written as a difference.
"""

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from creditgate.core.catalog import Interval
from creditgate.core.changes import Change, Step, terms_change
from creditgate.core.customers import Record, Row
from creditgate.errors import InvalidInputs, InvalidRequest, NotFound


class BalanceFilter(msgspec.Struct, frozen=True):
    """Which rows of a customer are meant: of a feature, by the balance's id, by how often they reset, of an entity.

    Without an entity, those that calls for the customer draw on, or whichever is named by its id.
    """

    customer_id: str
    feature_id: str | None = None
    balance_id: str | None = None
    interval: Interval | None = None
    entity_id: str | None = None

    def means(self, row: Row) -> bool:
        """Say whether the row is one of them; a rollover goes with the row that it came from."""
        interval = row.reset.interval if row.reset else Interval.ONE_OFF
        return (
            row.rolled_from is None
            and self.feature_id in (None, row.feature_id)
            and self.balance_id in (None, row.public_id, row.id)
            and self.interval in (None, interval)
            and self._is_theirs(row)
        )

    def _is_theirs(self, row: Row) -> bool:
        if self.entity_id is not None:
            return row.entity_id == self.entity_id
        return self.balance_id is not None or row.gives_to(None)


class BalanceUpdate(msgspec.Struct, frozen=True):
    """What is to be different; None leaves it. Of `remaining`, `usage` and `add` at most one."""

    remaining_nanos: int | None = None
    usage_nanos: int | None = None
    add_nanos: int | None = None
    included_nanos: int | None = None
    next_reset_at: int | None = None
    expires_at: int | None = None


def balance_change(record: Record, wanted: BalanceFilter, update: BalanceUpdate) -> Change:
    """Return the change; NotFound `balance_not_found`, InvalidInputs or InvalidRequest where it makes no sense."""
    rows = named_rows(record, wanted)
    if rows[0].unlimited:
        raise InvalidRequest(f"The balance of {rows[0].feature_id} is unlimited")
    changed = {row.id: _with_times(row, update, record.now) for row in rows}
    if update.next_reset_at is not None and not any(row.resets_at is not None for row in rows):
        raise InvalidRequest("next_reset_at: the balance does not reset")
    steps: list[Step] = []
    if update.included_nanos is not None:
        first = changed[rows[0].id]
        more = update.included_nanos - first.included_nanos - first.adjustment_nanos
        changed[first.id] = replace(first, adjustment_nanos=first.adjustment_nanos + more)
        if update.remaining_nanos is None and update.usage_nanos is None:
            steps.append(Step("shift", first.id, more))
    held = _with_rollovers(record, rows)
    amounts = {row.id: record.balances[row.id] for row in held}
    if update.add_nanos is not None:
        steps.append(Step("shift", rows[0].id, update.add_nanos))
    elif update.remaining_nanos is not None:
        steps += _corrected(held, _with_remaining(held, amounts, update.remaining_nanos))
    elif update.usage_nanos is not None:
        granted = sum(changed.get(row.id, row).granted_nanos for row in held)
        steps += _corrected(held, _with_sum(held, amounts, granted - update.usage_nanos))
    kept = [changed.get(row.id, row) for row in record.terms.rows]
    return terms_change(record, kept, record.terms.flags, steps, None)


def removal(record: Record, wanted: BalanceFilter) -> Change:
    """Return the change that closes balances which stand alone; InvalidRequest for one that belongs to a plan."""
    rows = named_rows(record, wanted)
    for row in rows:
        if row.owner_id is not None:
            raise InvalidRequest(
                f"Balance {row.public_id} belongs to plan {row.plan_id}; cancel the plan instead"
            )
    gone = {row.id for row in _with_rollovers(record, rows)}
    kept = [row for row in record.terms.rows if row.id not in gone]
    steps = [Step("close", row_id) for row_id in sorted(gone)]
    return terms_change(record, kept, record.terms.flags, steps, None)


def named_rows(record: Record, wanted: BalanceFilter) -> list[Row]:
    """Return the rows that are meant, in burn order; NotFound `balance_not_found` if there is none."""
    rows = sorted(
        (row for row in record.terms.rows if wanted.means(row)), key=lambda row: row.entity_id is not None
    )
    if wanted.entity_id is not None:
        record.customer.entity(wanted.entity_id)
    if not rows:
        raise NotFound(f"Customer {wanted.customer_id} has no such balance", code="balance_not_found")
    return rows


def _with_rollovers(record: Record, rows: Iterable[Row]) -> list[Row]:
    ids = {row.id for row in rows}
    return [row for row in record.terms.rows if row.id in ids or row.rolled_from in ids]


def _with_times(row: Row, update: BalanceUpdate, now: int) -> Row:
    expires_at, next_reset_at = update.expires_at, update.next_reset_at
    if expires_at is not None:
        if row.resets_at is not None:
            raise InvalidRequest("expires_at: only a balance that does not reset can be given another expiry")
        if expires_at <= now:
            raise InvalidInputs("expires_at: must be in the future")
        row = replace(row, expires_at=expires_at)
    if next_reset_at is not None and row.resets_at is not None:
        if next_reset_at <= now or next_reset_at >= (row.expires_at or next_reset_at + 1):
            raise InvalidInputs("next_reset_at: must be in the future, and before expires_at")
        offset = row.period_offset + row.period + 1
        row = replace(row, anchor=next_reset_at, period=-1, resets_at=next_reset_at, period_offset=offset)
    return row


def _corrected(rows: list[Row], amounts: dict[str, int]) -> list[Step]:
    return [Step("correct", row.id, amounts[row.id]) for row in rows]


def _with_remaining(rows: list[Row], amounts: dict[str, int], wanted: int) -> dict[str, int]:
    """Return amounts that show exactly `wanted`: taken in burn order, or added to the first row not below zero."""
    visible = sum(max(0, amount) for amount in amounts.values())
    if wanted < visible:
        return _taken(rows, amounts, visible - wanted)[0]
    first = next((row for row in rows if amounts[row.id] >= 0 and row.rolled_from is None), None)
    if first is None:  # all are below zero, or have only rolled over
        first = next(row for row in rows if row.rolled_from is None)
        return amounts | {first.id: wanted - visible}
    return amounts | {first.id: amounts[first.id] + wanted - visible}


def _with_sum(rows: list[Row], amounts: dict[str, int], wanted: int) -> dict[str, int]:
    """Return amounts with exactly this sum: it may be below zero, or above what was granted."""
    more = wanted - sum(amounts.values())
    first = next(row for row in rows if row.rolled_from is None)
    if more < 0:
        amounts, more = _taken(rows, amounts, -more)
        return amounts | {first.id: amounts[first.id] - more}
    for row in rows:
        room = max(0, row.granted_nanos - amounts[row.id]) if row.rolled_from is None else 0
        amounts = amounts | {row.id: amounts[row.id] + min(room, more)}
        more -= min(room, more)
    return amounts | {first.id: amounts[first.id] + more}


def _taken(rows: list[Row], amounts: dict[str, int], more: int) -> tuple[dict[str, int], int]:
    """Return the amounts after taking so much in burn order down to zero, and what could not be taken."""
    left = dict(amounts)
    for row in rows:
        part = min(max(0, left[row.id]), more)
        left[row.id] -= part
        more -= part
    return left, more
