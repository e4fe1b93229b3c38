"""What attaching a plan would cost and change, on the wire."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from creditgate.api.wire.numbers import number
from creditgate.core.amounts import NANOS, format_amount
from creditgate.core.catalog import Catalog, Plan
from creditgate.core.preview import Charge, Due, Ended, Preview
from creditgate.engine.billing import Previewed

CURRENCY = "usd"


class PeriodAnswer(msgspec.Struct, frozen=True):
    """What a line is paid for."""

    start: int
    end: int


class ChargeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One line of what is to be paid."""

    display_name: str
    description: str
    subtotal: Raw
    total: Raw
    plan_id: str
    feature_id: str | None
    quantity: Raw
    discounts: tuple[Any, ...] = ()
    period: PeriodAnswer | UnsetType = UNSET


class QuantityAnswer(msgspec.Struct, frozen=True):
    """How much of a feature a plan is bought with, what it includes counted in."""

    feature_id: str
    quantity: Raw


class PlanChangeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that would come or go; one without `effective_at` at once."""

    plan_id: str
    feature_quantities: tuple[QuantityAnswer, ...]
    effective_at: int | None = None
    canceled_at: int | None = None
    expires_at: int | None = None


class NextCycleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What would be charged the next time."""

    starts_at: int
    subtotal: Raw
    total: Raw
    line_items: tuple[ChargeAnswer, ...]
    usage_line_items: tuple[Any, ...] = ()


class PreviewAttachAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`billing.preview_attach`. Amounts in the currency's major unit."""

    customer_id: str
    line_items: tuple[ChargeAnswer, ...]
    subtotal: Raw
    total: Raw
    currency: str = CURRENCY
    incoming: tuple[PlanChangeAnswer, ...]
    outgoing: tuple[PlanChangeAnswer, ...]
    redirect_to_checkout: bool
    checkout_type: str | None
    resets_usage: bool
    next_cycle: NextCycleAnswer | UnsetType = UNSET


def preview_answer(previewed: Previewed, *, customer_id: str) -> PreviewAttachAnswer:
    """Return a preview as it stands on the wire; the page to pay on is the server's own, not Stripe's."""
    found, catalog, needs_checkout = previewed
    incoming = PlanChangeAnswer(
        plan_id=found.plan.id,
        feature_quantities=_quantities(found.quantities),
        effective_at=found.starts_at if found.starts_at > found.now.at else None,
        expires_at=found.expires_at,
    )
    return PreviewAttachAnswer(
        customer_id=customer_id,
        line_items=_lines(found.now, found.plan, catalog),
        subtotal=number(found.now.total_nanos),
        total=number(found.now.total_nanos),
        incoming=(incoming,),
        outgoing=(_outgoing(found.ended, found),) if found.ended else (),
        redirect_to_checkout=needs_checkout,
        checkout_type="autumn_checkout" if needs_checkout else None,
        resets_usage=found.resets_usage,
        next_cycle=_next_cycle(found.next, found.plan, catalog) if found.next else UNSET,
    )


def _outgoing(ended: Ended, found: Preview) -> PlanChangeAnswer:
    return PlanChangeAnswer(
        plan_id=ended.subscription.plan_id,
        feature_quantities=_quantities(ended.quantities),
        effective_at=found.starts_at,
        canceled_at=ended.subscription.canceled_at or found.now.at,
        expires_at=found.starts_at,
    )


def _next_cycle(due: Due, plan: Plan, catalog: Catalog) -> NextCycleAnswer:
    return NextCycleAnswer(
        starts_at=due.at,
        subtotal=number(due.total_nanos),
        total=number(due.total_nanos),
        line_items=_lines(due, plan, catalog),
    )


def _lines(due: Due, plan: Plan, catalog: Catalog) -> tuple[ChargeAnswer, ...]:
    return tuple(_line(charge, plan, catalog) for charge in due.charges)


def _line(charge: Charge, plan: Plan, catalog: Catalog) -> ChargeAnswer:
    line, span = charge
    name, what = plan.name, "base price"
    if line.feature_id is not None:
        name = catalog.feature(line.feature_id).name
        what = f"{format_amount(line.quantity_nanos)} {name}"
    return ChargeAnswer(
        display_name=name,
        description=f"{plan.name} - {what}",
        subtotal=number(line.total_nanos),
        total=number(line.total_nanos),
        plan_id=plan.id,
        feature_id=line.feature_id,
        quantity=number(line.quantity_nanos if line.feature_id is not None else NANOS),
        period=PeriodAnswer(span.start, span.end) if span else UNSET,
    )


def _quantities(quantities: Mapping[str, int]) -> tuple[QuantityAnswer, ...]:
    return tuple(QuantityAnswer(feature_id, number(nanos)) for feature_id, nanos in quantities.items())
