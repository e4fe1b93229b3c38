"""A change of what a customer is and holds, as a value: worked out here, applied by one script.

A *step* moves one row. The amounts in steps are what a row starts or restarts with, never differences: what is left in
a row at that moment is known only to the script, which journals it as the difference it computed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from creditgate.core.amounts import NANOS
from creditgate.core.burn import ALL_ROWS_MAX, ROWS_MAX, in_burn_order, order_fields
from creditgate.core.controls import Gate, gates, overages, spend_limits, usage_alerts
from creditgate.core.customers import Customer, Flag, Limits, Record, Row, Terms
from creditgate.core.holds import rows_held
from creditgate.core.periods import boundary, period_at
from creditgate.errors import Conflict

ENTITY_GATES_MAX = 256  # each is a balance of its own


class Step(NamedTuple):
    """What happens to one row or gate; lua/lib/change.lua says what each action does."""

    action: str
    row_id: str
    amount_nanos: int = 0

    def on(self, balance_nanos: int) -> int | None:
        """Return what the step leaves in a row that holds so much; None: the row is gone."""
        match self.action:
            case "roll_in" | "shift":
                return balance_nanos + self.amount_nanos
            case "roll_out":
                return balance_nanos - self.amount_nanos
            case "cut":
                return min(balance_nanos, self.amount_nanos)
            case "close" | "drop":
                return None
        return self.amount_nanos


class Change(msgspec.Struct, frozen=True):
    """What one script call writes. None leaves the document or the terms; an order of '' removes the field.

    `is_exact`: it was worked out from balances, so it holds only if nothing was tracked since they were read.
    """

    due: int | None
    customer: Customer | None = None
    terms: Terms | None = None
    orders: dict[str, str] = {}
    steps: tuple[Step, ...] = ()
    is_exact: bool = False


def next_due(customer: Customer, terms: Terms) -> int | None:
    """Return the earliest instant at which something of the customer changes by itself."""
    instants = [row.resets_at for row in terms.rows] + [row.expires_at for row in terms.rows]
    instants += [flag.expires_at for flag in terms.flags]
    instants += [gate.resets_at for gate in terms.gates]
    instants += [subscription.expires_at for subscription in customer.subscriptions]
    instants += [scheduled.starts_at for scheduled in customer.scheduled]
    return min((instant for instant in instants if instant is not None), default=None)


def profile_change(record: Record, customer: Customer) -> Change:
    """Return the change that keeps a new document and leaves every row alone; gates follow the customer's controls."""
    before = record.customer
    if (customer.controls, customer.entities) != (before.controls, before.entities):
        return terms_change(record, record.terms.rows, record.terms.flags, (), customer)
    return Change(due=next_due(customer, record.terms), customer=customer)


def rows_change(
    record: Record | None,
    *,
    customer: Customer | None = None,
    opened: Iterable[Row] = (),
    flags: Iterable[Flag] = (),
    closed: Iterable[str] = (),
    kept: Iterable[Row] = (),
    steps: Iterable[Step] = (),
) -> Change:
    """Return the change that opens rows and adds flags, and closes those that belong to the `closed` owners.

    `kept` are rows of these that live on, as they then are; `steps` come after all others.
    Credits that were bought for good stay with the customer when their owner closes. Where one is opened and there
    would be too many (see `burn.py`), drained rows that never reset (and to which no hold may give back) give up their
    place; Conflict `too_many_balances` if that is not enough.
    """
    old = record.terms if record else Terms()
    closed, opened = set(closed), tuple(opened)
    changed = {row.id: row for row in kept}
    first_steps, rows = [], []
    for row in old.rows:
        if row.id in changed:
            continue
        if row.owner_id not in closed:
            rows.append(row)
        elif row.is_bought_for_good:
            rows.append(on_its_own(row))
        else:
            first_steps.append(Step("close", row.id))
    rows += changed.values()
    if record and opened:
        held = rows_held(record.holds)
        drained = [row for row in rows if row.id not in held and is_drained(row, record.balances[row.id])]
        for row in drained:
            if _overfull((*rows, *opened), of=row):
                rows.remove(row)
                first_steps.append(Step("drop", row.id))
    if opened:
        check_count((*rows, *opened))
    first_steps += [Step("open", row.id, row.granted_nanos) for row in opened]
    holder = customer or (record.customer if record else None)
    if holder is not None:
        first_steps += _taken_by_entities(holder, rows, opened)
    kept_flags = (flag for flag in old.flags if flag.owner_id not in closed)
    return terms_change(record, (*rows, *opened), (*kept_flags, *flags), (*first_steps, *steps), customer)


def _taken_by_entities(holder: Customer, rows: Iterable[Row], opened: Iterable[Row]) -> Iterator[Step]:
    """Entities that are there already take their units of the first row that their feature has."""
    owned = {row.feature_id for row in rows if row.entity_id is None}
    counts = Counter(entity.feature_id for entity in holder.entities)
    for row in opened:
        if row.entity_id is None and row.is_held and row.feature_id not in owned and counts[row.feature_id]:
            owned.add(row.feature_id)
            yield Step("shift", row.id, -counts[row.feature_id] * NANOS)


def _overfull(rows: Sequence[Row], *, of: Row) -> bool:
    """Say whether there are too many rows where this one is."""
    return len(rows) > ALL_ROWS_MAX or sum(row.entity_id == of.entity_id for row in rows) > ROWS_MAX


def check_count(rows: Sequence[Row]) -> None:
    """Conflict `too_many_balances` if a customer cannot have so many."""
    if max(Counter(row.entity_id for row in rows).values(), default=0) > ROWS_MAX:
        raise Conflict(
            f"A customer, and each of its entities, can hold at most {ROWS_MAX} balances",
            code="too_many_balances",
        )
    if len(rows) > ALL_ROWS_MAX:
        raise Conflict(
            f"A customer and its entities can hold at most {ALL_ROWS_MAX} balances together",
            code="too_many_balances",
        )


def terms_change(
    record: Record | None,
    rows: Iterable[Row],
    flags: Iterable[Flag],
    steps: Iterable[Step],
    customer: Customer | None,
) -> Change:
    """Return the change to these rows and flags by these steps, with a new document if one is given.

    The limits follow from the customer's controls: a gate that is new opens, one that is gone closes, one whose window
    has ended starts again, and where the limit is another one, what may still be used moves by the difference. Rows
    that are equal in burn order keep the order that they had; those that are new come after them.
    """
    holder = customer or (record.customer if record else None)
    assert holder is not None, "a customer who is new has a document"
    old, now = (record.terms, record.now) if record else (Terms(), holder.created_at)
    controls = holder.controls_by_source
    places = {row.id: place for place, row in enumerate(old.rows)}
    terms = Terms(
        rows=in_burn_order(sorted(rows, key=lambda row: places.get(row.id, len(places)))),
        flags=tuple(flags),
        gates=_gates(holder, old.gates, now),
        alerts=usage_alerts(controls.values()),
        spend_limits=spend_limits(controls.values()),
        overages=overages(controls.values()),
        entities=_limits_of_entities(holder),
    )
    before = order_fields(old, [entity.id for entity in record.customer.entities]) if record else {}
    orders = dict.fromkeys(before, "") | order_fields(terms, [entity.id for entity in holder.entities])
    return Change(
        due=next_due(holder, terms),
        customer=customer,
        terms=terms,
        orders=orders,
        steps=(*steps, *_gate_steps(old.gates, terms.gates)),
    )


def _gates(holder: Customer, old: tuple[Gate, ...], now: int) -> tuple[Gate, ...]:
    """Return the gates of the customer's controls, and of those of each entity; Conflict if there are too many."""
    anchor, zone = holder.cycle_anchor, holder.time_zone
    held = list(gates(holder.controls_by_source, old, anchor=anchor, zone=zone, now=now))
    for entity in holder.entities:
        controls = holder.controls_of(entity)
        held += gates(controls, old, anchor=anchor, zone=zone, now=now, entity_id=entity.id)
    if len(held) > ENTITY_GATES_MAX and any(gate.entity_id is not None for gate in held):
        raise Conflict(
            f"A customer and its entities can have at most {ENTITY_GATES_MAX} usage limits together",
            code="too_many_limits",
        )
    return tuple(held)


def _limits_of_entities(holder: Customer) -> dict[str, Limits]:
    found = {}
    for entity in holder.entities:
        own = list(holder.controls_of(entity).values())
        limits = Limits(
            usage_alerts(own),
            spend_limits(own),
            {
                feature_id: allowed
                for feature_id, allowed in overages([*holder.controls_by_source.values(), *own]).items()
                if any(feature_id in each.feature_ids for each in own)
            },
        )
        if limits != Limits():
            found[entity.id] = limits
    return found


def _gate_steps(old: Iterable[Gate], new: Iterable[Gate]) -> Iterator[Step]:
    before = {gate.id: gate for gate in old}
    for gate in new:
        was = before.pop(gate.id, None)
        if was is None:
            yield Step("open", gate.id, gate.limit_nanos)
        elif was.since != gate.since:
            yield Step("reset", gate.id, gate.limit_nanos)
        elif was.limit_nanos != gate.limit_nanos:
            yield Step("shift", gate.id, gate.limit_nanos - was.limit_nanos)
    yield from (Step("close", gate_id) for gate_id in before)


def in_period_at(row: Row, now: int) -> Row:
    """Return the row in the period that holds `now`; a row that does not repeat comes back unchanged."""
    if row.reset is None or not row.reset.repeats or row.anchor is None:
        return row
    period = max(row.period, period_at(row.anchor, row.reset, now, row.zone))
    resets_at = boundary(row.anchor, row.reset, period + 1, row.zone)
    return msgspec.structs.replace(row, period=period, resets_at=resets_at)


def renewed(row: Row, now: int) -> Row:
    """Return a row whose reset is due in the period after it, or the one that holds `now` if that is later.

    At least the next, whatever the calendar says: the time zone can have become another one within the period.
    """
    assert row.reset is not None
    assert row.anchor is not None
    period = max(row.period + 1, period_at(row.anchor, row.reset, now, row.zone))
    resets_at = boundary(row.anchor, row.reset, period + 1, row.zone)
    return msgspec.structs.replace(row, period=period, resets_at=resets_at, adjustment_nanos=0)


def on_its_own(row: Row) -> Row:
    """Return the row as one that belongs to the customer and to no plan."""
    return msgspec.structs.replace(row, owner_id=None, plan_id=None)


def is_drained(row: Row, balance_nanos: int) -> bool:
    """Say whether the row is used up for good."""
    if row.unlimited or row.may_go_negative or row.resets_at is not None:
        return False
    return balance_nanos == 0 and row.granted_nanos > 0
