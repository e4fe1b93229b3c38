"""A customer who comes from another system: what the source says, and the change that makes it so here.

The source decides. What was taken from it before and is gone there goes here too; what was given here by itself stays.
So a second run changes nothing, and a run after a change at the source corrects.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from creditgate.core.burn import ROWS_MAX, in_burn_order
from creditgate.core.catalog import Catalog, Feature, FeatureType, Interval, ItemPrice, Recurrence
from creditgate.core.changes import Change, Step, in_period_at, on_its_own, terms_change
from creditgate.core.customers import Customer, Flag, Purchase, Record, Row, Subscription, Terms
from creditgate.core.periods import boundary, period_at
from creditgate.core.plans import Mint, billing_cycle
from creditgate.errors import Conflict


class Lot(msgspec.Struct, frozen=True):
    """One balance at the source, by the name that callers know it by there. `left_nanos` may be below zero."""

    id: str
    feature_id: str
    included_nanos: int
    prepaid_nanos: int
    left_nanos: int
    plan_id: str | None = None
    reset: Recurrence | None = None
    resets_at: int | None = None
    expires_at: int | None = None
    price: ItemPrice | None = None


class Holding(msgspec.Struct, frozen=True):
    """A plan that the customer is on at the source, or a one-off plan that was bought there (which has no id)."""

    plan_id: str
    started_at: int
    id: str | None = None
    period_start: int | None = None
    canceled_at: int | None = None
    expires_at: int | None = None
    quantity: int = 1


class Arrival(msgspec.Struct, frozen=True):
    """All that the source says of a customer. `lacks` is what it says and cannot be said here, in words."""

    customer: Customer
    holdings: tuple[Holding, ...] = ()
    lots: tuple[Lot, ...] = ()
    flags: tuple[Flag, ...] = ()
    lacks: tuple[str, ...] = ()


class TakenOver(NamedTuple):
    """The change that takes a customer over, None if there is nothing to do; and what could not be taken."""

    change: Change | None
    lacks: tuple[str, ...]


def take_over(
    arrival: Arrival, record: Record | None, catalog: Catalog, *, now: int, mint: Mint
) -> TakenOver:
    """Return the change that makes the customer hold here what the source says, `record` being what is here.

    Raises Conflict `too_many_balances`.
    """
    plans = _Plans(arrival, record, catalog, mint)
    rows = _Rows(arrival, record, catalog, plans, now, mint)
    flags, without_feature = _flags(arrival, record, catalog, plans)
    lacks = tuple(dict.fromkeys((*arrival.lacks, *plans.lacks, *rows.lacks, *without_feature)))
    if len(rows.terms) > ROWS_MAX:
        raise Conflict(f"A customer can hold at most {ROWS_MAX} balances", code="too_many_balances")
    terms = Terms(in_burn_order(rows.terms), flags)
    if record is not None and not rows.steps and (plans.customer, terms) == (record.customer, record.terms):
        return TakenOver(None, lacks)
    return TakenOver(terms_change(record, terms, rows.steps, plans.customer), lacks)


class _Plans:
    """The customer's document with the plans that the source says; who owns what they give, and who is gone."""

    def __init__(self, arrival: Arrival, record: Record | None, catalog: Catalog, mint: Mint) -> None:
        self.lacks: list[str] = []
        self.owners: dict[str, list[str]] = {}
        customer = _profile(arrival.customer, record)
        subscriptions, purchases = [], []
        for holding in arrival.holdings:
            plan = catalog.plans.get(holding.plan_id)
            if plan is None:
                self.lacks.append(
                    f"plan {holding.plan_id} is not in the catalog here; its balances stand alone"
                )
            elif holding.id is None:
                purchases.append(_purchase(holding, customer, plan.version, mint))
                self.owners.setdefault(plan.id, []).append(purchases[-1].id)
            else:
                before = _subscribed(holding, customer)
                fresh = Subscription(
                    holding.id,
                    plan.id,
                    plan.version,
                    holding.started_at,
                    anchor=holding.period_start or holding.started_at,
                    group=plan.group,
                    add_on=plan.add_on,
                    auto_enable=plan.auto_enable,
                    recurrence=billing_cycle(plan),
                    quantity=holding.quantity,
                )
                ends = {"canceled_at": holding.canceled_at, "expires_at": holding.expires_at}
                subscriptions.append(replace(before or fresh, imported=True, **ends))
                self.owners.setdefault(plan.id, []).append(subscriptions[-1].id)
        groups = {s.group for s in subscriptions if not s.add_on}
        held = {s.id for s in subscriptions}
        others = [s for s in customer.subscriptions if s.id not in held]
        self.closed = {s.id for s in others if s.imported or (s.group in groups and not s.add_on)}
        bought = {p.id for p in purchases}
        self.customer = replace(
            customer,
            subscriptions=(*(s for s in others if s.id not in self.closed), *subscriptions),
            purchases=(*(p for p in customer.purchases if p.id not in bought and not p.imported), *purchases),
        )


class _Rows:
    """The rows that the customer then has, and the steps that lead there."""

    def __init__(
        self,
        arrival: Arrival,
        record: Record | None,
        catalog: Catalog,
        plans: _Plans,
        now: int,
        mint: Mint,
    ) -> None:
        self.lacks: list[str] = []
        self.terms: list[Row] = []
        self.steps: list[Step] = []
        others = {row.id: row for row in record.terms.rows} if record else {}
        balances: Mapping[str, int] = record.balances if record else {}
        number_of_plan: Counter[tuple[str | None, str]] = Counter()
        for lot in arrival.lots:
            feature = catalog.features.get(lot.feature_id)
            if feature is None or feature.type is FeatureType.BOOLEAN:
                self.lacks.append(_unknown(lot.feature_id, feature))
                continue
            if lot.expires_at is not None and lot.expires_at <= now:
                continue
            owners = plans.owners.get(lot.plan_id or "", [])
            number = number_of_plan[lot.plan_id, lot.feature_id]
            number_of_plan[lot.plan_id, lot.feature_id] += 1
            owner_id = owners[min(number, len(owners) - 1)] if owners else None
            before = _same(lot, owner_id, others.values())
            row = _row(lot, feature, before, plans.customer, owner_id, catalog, now, mint)
            self._add(*_in_present(row, lot.left_nanos, now), balances.get(row.id))
            others.pop(row.id, None)
        for row in others.values():
            self._keep_or_close(row, plans.closed)

    def _add(self, row: Row, left_nanos: int, balance_nanos: int | None) -> None:
        self.terms.append(row)
        if balance_nanos is None:
            self.steps.append(Step("open", row.id, row.granted_nanos))
            balance_nanos = row.granted_nanos
        if balance_nanos != left_nanos:
            self.steps.append(Step("correct", row.id, left_nanos))

    def _keep_or_close(self, row: Row, closed: set[str]) -> None:
        if row.imported or (row.owner_id in closed and not row.is_bought_for_good):
            self.steps.append(Step("close", row.id))
        else:
            self.terms.append(on_its_own(row) if row.owner_id in closed else row)


def _profile(said: Customer, record: Record | None) -> Customer:
    """What the source does not say of somebody who is here already stays as it is."""
    if record is None:
        return said
    here = record.customer
    return replace(
        here,
        name=said.name or here.name,
        email=said.email or here.email,
        fingerprint=said.fingerprint or here.fingerprint,
        stripe_id=said.stripe_id or here.stripe_id,
        send_email_receipts=said.send_email_receipts,
        metadata=said.metadata or here.metadata,
    )


def _subscribed(holding: Holding, customer: Customer) -> Subscription | None:
    """Return the subscription here that is this one: by its id, else the one to the same plan."""
    by_id = (s for s in customer.subscriptions if s.id == holding.id)
    by_plan = (s for s in customer.subscriptions if s.plan_id == holding.plan_id)
    return next(by_id, None) or next(by_plan, None)


def _purchase(holding: Holding, customer: Customer, version: int, mint: Mint) -> Purchase:
    for purchase in customer.purchases:
        if (purchase.plan_id, purchase.started_at) == (holding.plan_id, holding.started_at):
            return replace(purchase, quantity=holding.quantity, imported=True)
    return Purchase(
        mint("sub"), holding.plan_id, version, holding.started_at, holding.quantity, imported=True
    )


def _same(lot: Lot, owner_id: str | None, rows: Iterable[Row]) -> Row | None:
    """Return the row here that is this balance: by its name, else what the same plan gave here of the feature."""
    rows = tuple(rows)
    by_name = (row for row in rows if row.public_id == lot.id)
    by_owner = (
        row
        for row in rows
        if owner_id is not None
        and not row.imported
        and (row.owner_id, row.feature_id) == (owner_id, lot.feature_id)
    )
    return next(by_name, None) or next(by_owner, None)


def _row(
    lot: Lot,
    feature: Feature,
    before: Row | None,
    customer: Customer,
    owner_id: str | None,
    catalog: Catalog,
    now: int,
    mint: Mint,
) -> Row:
    row = Row(
        id=before.id if before else mint("bal"),
        external_id=lot.id,
        feature_id=feature.id,
        created_at=before.created_at if before else now,
        included_nanos=lot.included_nanos,
        prepaid_nanos=lot.prepaid_nanos,
        plan_id=lot.plan_id if owner_id else None,
        owner_id=owner_id,
        reset=(lot.reset or Recurrence(Interval.ONE_OFF)) if feature.consumable else None,
        expires_at=lot.expires_at,
        price=lot.price,
        add_on=owner_id is not None and catalog.plan(lot.plan_id or "").add_on,
        may_go_negative=not feature.consumable and lot.price is None,
        imported=True,
    )
    if row.reset is None or not row.reset.repeats or lot.resets_at is None:
        return row
    started = (s.started_at for s in customer.subscriptions if s.id == owner_id)
    anchors = (*((before.anchor,) if before else ()), *started, customer.created_at)
    anchor, period = _period_that_ends(lot.resets_at, row.reset, anchors)
    return replace(row, anchor=anchor, period=period, resets_at=lot.resets_at)


def _period_that_ends(instant: int, reset: Recurrence, anchors: Iterable[int | None]) -> tuple[int, int]:
    """Return an anchor and the number of its period that ends then: the first that fits, else the instant itself.

    An anchor on the 31st is found again, though its period may end on the 28th.
    """
    for anchor in anchors:
        if anchor is not None and anchor <= instant:
            number = period_at(anchor, reset, instant)
            if boundary(anchor, reset, number) == instant:
                return anchor, number - 1
    return instant, -1


def _in_present(row: Row, left_nanos: int, now: int) -> tuple[Row, int]:
    """Return the row and what is left in it now: a period that has ended by then starts again, as it would there."""
    if row.resets_at is None or row.resets_at > now:
        return row, left_nanos
    return in_period_at(row, now), row.granted_nanos


def _flags(
    arrival: Arrival, record: Record | None, catalog: Catalog, plans: _Plans
) -> tuple[tuple[Flag, ...], list[str]]:
    """Return the on/off features that the customer then has, and what could not be taken."""
    taken: dict[str, Flag] = {}
    lacks = []
    for flag in arrival.flags:
        feature = catalog.features.get(flag.feature_id)
        if feature is None or feature.type is not FeatureType.BOOLEAN:
            lacks.append(_unknown(flag.feature_id, feature))
            continue
        owners = plans.owners.get(flag.plan_id or "", [])
        owner_id = owners[0] if owners else None
        plan_id = flag.plan_id if owner_id else None
        taken[flag.feature_id] = replace(flag, plan_id=plan_id, owner_id=owner_id, imported=True)
    here = record.terms.flags if record else ()
    kept = (
        flag
        for flag in here
        if not flag.imported and flag.owner_id not in plans.closed and flag.feature_id not in taken
    )
    return (*kept, *taken.values()), lacks


def _unknown(feature_id: str, feature: Feature | None) -> str:
    if feature is None:
        return f"feature {feature_id} is not in the catalog here"
    kind = "on or off" if feature.type is FeatureType.BOOLEAN else "metered"
    return f"feature {feature_id} is {kind} here, and not at the source"
