"""What attaching a plan would cost and change, worked out as attaching works it out, and then thrown away."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from creditgate.core.attach import attach, switch_to
from creditgate.core.catalog import Catalog, Plan, Recurrence
from creditgate.core.customers import AS_USUAL, AttachOptions, Customer, Record, Subscription
from creditgate.core.periods import boundary, period_at
from creditgate.core.plans import Line, Mint, cycle_anchor, quote, trial_end


class Span(NamedTuple):
    """From one instant to another, Unix ms."""

    start: int
    end: int


class Charge(NamedTuple):
    """What one line of a quote is paid for; None: once and for good."""

    line: Line
    span: Span | None


class Due(NamedTuple):
    """What is paid at one instant."""

    at: int
    charges: tuple[Charge, ...]

    @property
    def total_nanos(self) -> int:
        return sum(charge.line.total_nanos for charge in self.charges)


class Ended(NamedTuple):
    """The subscription that would end, and the quantities it was bought with, in nanos by feature."""

    subscription: Subscription
    quantities: Mapping[str, int]


class Preview(NamedTuple):
    """What would be paid now, and what next if anything; when the plan starts and ends, and which one would end for it.

    `quantities` are totals in nanos by feature.
    """

    plan: Plan
    now: Due
    next: Due | None
    starts_at: int
    expires_at: int | None
    quantities: Mapping[str, int]
    ended: Ended | None
    resets_usage: bool


def paid_from(
    customer: Customer, catalog: Catalog, plan: Plan, now: int, options: AttachOptions = AS_USUAL
) -> int | None:
    """Return since when the plan would have to be paid: now, once it starts, or once its trial is over.

    None if never: it goes on as it was paid, or ends with its trial. Raises what `switch_to` does.
    """
    replaced, starts_at = switch_to(customer, catalog, plan, now, options)
    if replaced is not None and replaced.plan_id == plan.id:
        return None
    trial_ends_at = None if options.no_trial or starts_at > now else trial_end(customer, plan, now)
    if trial_ends_at is None:
        return starts_at
    return None if plan.free_trial is not None and plan.free_trial.reverts else trial_ends_at


def preview(
    record: Record,
    catalog: Catalog,
    plan: Plan,
    quantities: Mapping[str, int],
    *,
    mint: Mint,
    options: AttachOptions = AS_USUAL,
) -> Preview:
    """Return what attaching the plan at `record.now` would cost and change; raises what attaching it would raise."""
    change = attach(record, record.customer, catalog, plan, quantities, mint=mint, options=options)
    assert change.customer is not None
    replaced, starts_at = switch_to(record.customer, catalog, plan, record.now, options)
    lines = [line for line in quote(plan, quantities) if line.feature_id is None or line.quantity_nanos]
    now, then = _dues(record, catalog, plan, lines, replaced, options)
    expires_at = _expiry(record.customer, change.customer, options)
    included = {item.feature_id: item.included_nanos for item in plan.items if item.is_prepaid}
    goes = replaced if replaced is not None and replaced.plan_id != plan.id else None
    return Preview(
        plan=plan,
        now=now,
        next=then if then and (expires_at is None or then.at < expires_at) else None,
        starts_at=starts_at,
        expires_at=expires_at,
        quantities={
            line.feature_id: included[line.feature_id] + line.quantity_nanos
            for line in lines
            if line.feature_id
        },
        ended=Ended(goes, _bought_with(goes, record)) if goes else None,
        resets_usage=goes is not None and starts_at <= record.now and options.carry_usages is None,
    )


def _dues(
    record: Record,
    catalog: Catalog,
    plan: Plan,
    lines: list[Line],
    replaced: Subscription | None,
    options: AttachOptions,
) -> tuple[Due, Due | None]:
    """Return what is paid now and what next."""
    nothing, at = Due(record.now, ()), paid_from(record.customer, catalog, plan, record.now, options)
    if at is None or not lines:
        return nothing, None
    if at > record.now:
        return nothing, _due_at(plan, lines, at, at)
    anchor = record.now if options.anchor_now else cycle_anchor(plan, replaced, record.now)
    return _due_at(plan, lines, anchor, record.now), _next_due(plan, lines, anchor, record.now)


def _expiry(before: Customer, after: Customer, options: AttachOptions) -> int | None:
    """Return when the plan that is new would end again by itself."""
    known = {held.id for held in before.subscriptions}
    new = next((held for held in after.subscriptions if held.id not in known), None)
    return new.expires_at if new else options.ends_at


def _due_at(plan: Plan, lines: Iterable[Line], anchor: int, at: int) -> Due:
    """Return all lines, paid at this instant for what is left of their periods."""
    charges = []
    for line in lines:
        recurrence = _recurrence(plan, line)
        span = None
        if recurrence.repeats:
            span = Span(at, boundary(anchor, recurrence, period_at(anchor, recurrence, at) + 1))
        charges.append(Charge(line, span))
    return Due(at, tuple(charges))


def _next_due(plan: Plan, lines: Iterable[Line], anchor: int, now: int) -> Due | None:
    """Return the lines that are paid at the next instant at which any is; None if none repeats."""
    spans = {}
    for line in lines:
        recurrence = _recurrence(plan, line)
        if recurrence.repeats:
            period = period_at(anchor, recurrence, now) + 1
            spans[line] = Span(boundary(anchor, recurrence, period), boundary(anchor, recurrence, period + 1))
    if not spans:
        return None
    at = min(span.start for span in spans.values())
    return Due(at, tuple(Charge(line, span) for line, span in spans.items() if span.start == at))


def _recurrence(plan: Plan, line: Line) -> Recurrence:
    prices = [item.price for item in plan.items if item.is_prepaid and item.feature_id == line.feature_id]
    price = prices[0] if line.feature_id is not None else plan.price
    assert price is not None, "a line is of something that has a price"
    return price.recurrence


def _bought_with(subscription: Subscription, record: Record) -> Mapping[str, int]:
    return {
        row.feature_id: row.start_nanos
        for row in record.terms.rows
        if row.owner_id == subscription.id and row.prepaid_nanos
    }
