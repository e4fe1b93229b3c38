"""Attaching several plans in one step: what is paid for them now, and the one change that gives them all."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from creditgate.core.attach import after, attach, together
from creditgate.core.catalog import Catalog, Plan
from creditgate.core.changes import Change
from creditgate.core.customers import AS_USUAL, AttachOptions, Customer, Record
from creditgate.core.plans import Mint, quote
from creditgate.core.preview import paid_from
from creditgate.errors import InvalidInputs

PLANS_MAX = 16  # in one call: each gives rows, and a customer can hold 64


class Wanted(NamedTuple):
    """A plan to attach, with totals of what it sells in nanos by feature: what it includes is counted in."""

    plan: Plan
    quantities: Mapping[str, int]

    @property
    def total_nanos(self) -> int:
        """What it costs; raises what `quote` does."""
        return sum(line.total_nanos for line in quote(self.plan, self.quantities))


def check_together(wanted: Sequence[Wanted]) -> None:
    """Refuse plans of which one would replace or repeat another: which of them counts would be a guess."""
    places: dict[tuple[str, bool], str] = {}
    for plan, _ in wanted:
        if plan.is_one_off:
            continue
        place = (plan.id if plan.add_on else plan.group, plan.add_on)
        if place in places:
            other = places[place]
            both = "is listed twice" if other == plan.id else f"and {other} are of the same group"
            raise InvalidInputs(f"plans: {plan.id} {both}")
        places[place] = plan.id


def paid_now(
    customer: Customer,
    catalog: Catalog,
    wanted: Sequence[Wanted],
    now: int,
    options: AttachOptions = AS_USUAL,
) -> list[int]:
    """Return what has to be paid now for each plan, in nanos; what is paid later or never is 0.

    Raises what attaching them would raise.
    """
    return [
        one.total_nanos if paid_from(customer, catalog, one.plan, now, options) == now else 0
        for one in wanted
    ]


def multi_attach(
    record: Record,
    customer: Customer,
    catalog: Catalog,
    wanted: Sequence[Wanted],
    *,
    mint: Mint,
    options: AttachOptions = AS_USUAL,
) -> Change:
    """Return the one change that gives the customer all of the plans, at least one; raises what `attach` does.

    `customer` is the document to keep, as for `attach`.
    """
    first, *others = wanted
    change = attach(record, customer, catalog, first.plan, first.quantities, mint=mint, options=options)
    for plan, quantities in others:
        record = after(record, change)
        following = attach(record, record.customer, catalog, plan, quantities, mint=mint, options=options)
        change = together(change, following)
    return change
