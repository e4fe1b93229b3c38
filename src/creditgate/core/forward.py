"""What falls due by itself: plans end, the free plan of their group comes back, rows expire, rows start again.

At one instant in this order. However long nobody asked, the outcome is that of having stepped at every boundary.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from creditgate.core.catalog import Catalog, Plan
from creditgate.core.changes import (
    Change,
    Step,
    in_period_at,
    is_drained,
    next_due,
    on_its_own,
    renewed,
    terms_change,
)
from creditgate.core.customers import Customer, Flag, Record, Row, Scheduled, Subscription
from creditgate.core.holds import rows_held
from creditgate.core.plans import Mint, given_by, subscribed
from creditgate.core.rollovers import Kept, handed_on, kept, renewal


def forward_change(record: Record, catalog: Catalog, mint: Mint) -> Change:
    """Return the change that brings a customer to `record.now`.

    However many periods were missed, a row resets once, into the period that holds now; what rolls over is worked out
    in `rollovers.py`. At a reset the rows that are drained and never reset go, unless a hold may give back to them.
    What a plan gives that comes back, and what rolls over, is given even beyond 64 rows: nobody is asking who could be
    refused.
    """
    now = record.now
    ends = _ending(record)
    back = _started(record, ends, catalog, mint)
    rows = [row for row in _freed(record.terms.rows, ends) if row.id not in back.handed_on]
    rolling = {row.id for row in rows if row.rollover and _is_renewed(row, ends, now)}
    steps, held = list[Step](), list(back.rows)
    is_reset = any(row.period > 0 for row in back.rows)
    for row in rows:
        if row.rolled_from in rolling:
            continue  # with the row that it rolled over from
        end = _end(row, ends)
        if row.resets_at is not None and row.resets_at <= now and (end is None or row.resets_at < end):
            is_reset = True
        if end is not None and end <= now:
            steps.append(Step("close", row.id))
        elif row.resets_at is not None and row.resets_at <= now:
            survivors = _survivors(row, rows, record, mint) if row.id in rolling else Kept([], [])
            held += [renewed(row, now), *survivors.rows]
            steps += [*survivors.steps, Step("reset", row.id, row.start_nanos)]
        else:
            held.append(row)
    if is_reset:
        drained = _drained(held, steps, record)
        held = [row for row in held if row.id not in drained]
        steps += [Step("drop", row_id) for row_id in drained]
    flags = [flag for flag in record.terms.flags if flag.expires_at is None or flag.expires_at > now]
    flags = [flag for flag in flags if flag.owner_id not in ends]
    customer = back.customer if back.customer != record.customer else None
    return terms_change(record, held, (*flags, *back.flags), (*steps, *back.steps), customer)


def up_to_next_plan(record: Record) -> Record:
    """Return the record as of the first end or start of a plan that is overdue; unchanged if none is.

    What happens after it depends on what that plan gives: it is another step. So is what falls due before, since what
    rolls over under a plan that ends may go along to the next.
    """
    customer = record.customer
    instants = [s.expires_at for s in customer.subscriptions if s.expires_at is not None]
    instants += [s.starts_at for s in customer.scheduled]
    at = min((instant for instant in instants if instant <= record.now), default=None)
    if at is None:
        return record
    due = next_due(customer, record.terms)
    return replace(record, now=at - 1 if due is not None and due < at else at)


def plan_in_place_of(ended: Subscription, customer: Customer, catalog: Catalog) -> Plan | None:
    """Return the free plan that enables itself where this one has ended, None if there is none or another is active."""
    held = (s for s in customer.plans_of(None) if s.group == ended.group and not s.add_on)
    if ended.add_on or ended.entity_id is not None or any(held):
        return None
    plans = (plan for plan in catalog.auto_enabled() if plan.group == ended.group and not plan.add_on)
    plan = next(plans, None)
    return plan if plan is not None and plan.id != ended.plan_id else None


def _is_renewed(row: Row, ends: Mapping[str, int], now: int) -> bool:
    end = _end(row, ends)
    return row.resets_at is not None and row.resets_at <= now and (end is None or end > now)


def _drained(rows: list[Row], steps: list[Step], record: Record) -> list[str]:
    """Return the rows that no step touches, are used up, and to which no hold may give back."""
    spared = rows_held(record.holds) | {step.row_id for step in steps}
    return [
        row.id
        for row in rows
        if row.id not in spared and row.id in record.balances and is_drained(row, record.balances[row.id])
    ]


def _survivors(row: Row, rows: list[Row], record: Record, mint: Mint) -> Kept:
    """Return what rolls over from a row that starts again; what is empty goes, unless a hold may give back to it."""
    before = [(each, record.balances[each.id]) for each in rows if each.rolled_from == row.id]
    spared = rows_held(record.holds) - {each.id for each, _ in before if each.has_expired_by(record.now)}
    outcome = renewal(row, record.balances[row.id], before, record.now, spared=spared)
    return kept(row, outcome, before, mint, spared=spared)


class _Started(NamedTuple):
    """The customer's document once plans have ended and others started, and what those have given.

    `handed_on` are the ids of rollovers that go along; what remains of them is among the rows.
    """

    customer: Customer
    rows: tuple[Row, ...] = ()
    flags: tuple[Flag, ...] = ()
    steps: tuple[Step, ...] = ()
    handed_on: frozenset[str] = frozenset()


def _ending(record: Record) -> dict[str, int]:
    """Return when each subscription ends that is over by now: by itself, or because another one starts in its place."""
    now, customer = record.now, record.customer
    ends = {s.id: s.expires_at or now for s in customer.subscriptions if s.has_ended_by(now)}
    starting = {_place(s): s.starts_at for s in customer.scheduled if s.starts_at <= now and not s.add_on}
    replaced = {
        s.id: starting[_place(s)] for s in customer.subscriptions if _place(s) in starting and not s.add_on
    }
    return replaced | ends


def _place(held: Subscription | Scheduled) -> tuple[str, str | None]:
    """What only one plan can have: a group, of the customer or of an entity."""
    return held.group, held.entity_id


def _started(record: Record, ends: Mapping[str, int], catalog: Catalog, mint: Mint) -> _Started:
    """Return what starts as others end: what was scheduled, else the free plan of the group."""
    customer = record.customer
    over = [s for s in customer.subscriptions if s.id in ends]
    coming = [s for s in customer.scheduled if s.starts_at <= record.now]
    customer = replace(
        customer,
        subscriptions=tuple(s for s in customer.subscriptions if s.id not in ends),
        scheduled=tuple(s for s in customer.scheduled if s not in coming),
    )
    started = _Started(customer)
    for scheduled in coming:
        plan = catalog.plan(scheduled.plan_id, scheduled.plan_version)
        place = (plan.group, scheduled.entity_id)
        replaced = [s for s in over if _place(s) == place and not s.add_on and not plan.add_on]
        at, entity_id = scheduled.starts_at, scheduled.entity_id
        started = _with_plan(
            started, record, plan, scheduled.quantities, replaced, catalog, mint, at, entity_id
        )
    for ended in sorted(over, key=lambda subscription: ends[subscription.id]):
        free = plan_in_place_of(ended, started.customer, catalog)
        if free is not None:
            at = ends[ended.id]
            started = _with_plan(started, record, free, {}, [ended], catalog, mint, at, None)
    return started


def _with_plan(
    started: _Started,
    record: Record,
    plan: Plan,
    quantities: Mapping[str, int],
    replaced: list[Subscription],
    catalog: Catalog,
    mint: Mint,
    at: int,
    entity_id: str | None,
) -> _Started:
    subscription = subscribed(plan, anchor=at, now=at, mint=mint, entity_id=entity_id)
    given = given_by(
        plan,
        catalog,
        quantities,
        owner_id=subscription.id,
        anchor=at,
        now=at,
        mint=mint,
        zone=started.customer.time_zone,
        entity_id=entity_id,
        entities=started.customer.entities,
    )
    subscriptions = (*started.customer.subscriptions, subscription)
    in_use = [step for each in replaced for step in _still_in_use(record, each, given.rows)]
    along = [_rollovers_of(heir, record, replaced) for heir in given.rows if heir.rollover is not None]
    rows = [row for one in along for row in one.rows]
    opened = [Step("open", row.id, row.granted_nanos) for row in given.rows]
    return _Started(
        replace(started.customer, subscriptions=subscriptions),
        (*started.rows, *(in_period_at(row, record.now) for row in given.rows), *rows),
        (*started.flags, *given.flags),
        (*started.steps, *opened, *in_use, *(step for one in along for step in one.steps)),
        started.handed_on | {row.id for row in rows},
    )


def _rollovers_of(heir: Row, record: Record, replaced: list[Subscription]) -> Kept:
    """What rolled over under the plans that end goes along to a row that rolls over, too."""
    owners = {subscription.id for subscription in replaced}
    rows = [
        row
        for row in record.terms.rows
        if row.rolled_from is not None
        and row.owner_id in owners
        and (row.feature_id, row.entity_id) == (heir.feature_id, heir.entity_id)
    ]
    return handed_on(
        heir, [(row, record.balances[row.id]) for row in rows if not row.has_expired_by(record.now)]
    )


def _still_in_use(record: Record, ended: Subscription, opened: tuple[Row, ...]) -> list[Step]:
    """Seats that are taken stay taken: how many goes over to the row that is given in place of the old one."""
    in_use = Counter[tuple[str, str | None]]()
    for row in record.terms.rows:
        if row.owner_id == ended.id and row.is_held:
            in_use[row.feature_id, row.entity_id] += row.granted_nanos - record.balances[row.id]
    return [
        Step("correct", row.id, row.granted_nanos - in_use[row.feature_id, row.entity_id])
        for row in opened
        if row.is_held and in_use[row.feature_id, row.entity_id]
    ]


def _freed(rows: tuple[Row, ...], ends: Mapping[str, int]) -> list[Row]:
    return [on_its_own(row) if row.owner_id in ends and row.is_bought_for_good else row for row in rows]


def _end(row: Row, ends: Mapping[str, int]) -> int | None:
    """Return when the row closes: at its own expiry, or with the plan that gave it."""
    instants = (row.expires_at, ends.get(row.owner_id or ""))
    return min((instant for instant in instants if instant is not None), default=None)
