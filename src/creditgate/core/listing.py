"""The list of customers: what each is found by, and who is among those asked for.

Ids are compared by their bytes, which is the order of Python's strings too.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec

from creditgate.core.customers import Customer
from creditgate.core.journal import Entry


class Place(NamedTuple):
    """Where a customer stands in the list, the oldest first; where times are equal, by id."""

    created_at: int
    customer_id: str


Status = Literal["active", "scheduled"]
"""Of a plan: the customer is on it, or it is to come."""


class HeldPlan(NamedTuple):
    """A plan that a customer has."""

    plan_id: str
    version: int
    status: Status


class Listed(msgspec.Struct, frozen=True):
    """What a customer is found by: `text` is what is searched."""

    place: Place
    text: str
    plans: frozenset[HeldPlan]


class PlanFilter(msgspec.Struct, frozen=True):
    """Who has this plan, in one of these versions; without any, in whatever version."""

    plan_id: str
    versions: tuple[int, ...] = ()


class CustomerFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which customers are asked for. What is left out filters nothing.

    `text` stands anywhere in the id, the name or the email, whatever the case. Of `plans` the customer has one at
    least, and it has that `status`; without `plans`, any plan. `since` and `until` are included, Unix ms.
    """

    text: str = ""
    plans: tuple[PlanFilter, ...] = ()
    status: Status | None = None
    since: int | None = None
    until: int | None = None

    @property
    def asks_for_no_plan(self) -> bool:
        return not self.plans and self.status is None


def listed(customer: Customer) -> Listed:
    """Return what a customer is found by."""
    return Listed(
        place=Place(customer.created_at, customer.id),
        text=folded("\n".join((customer.id, customer.name or "", customer.email or ""))),
        plans=frozenset(_plans_of(customer)),
    )


def changes_in(entries: Iterable[Entry]) -> dict[str, Listed | None]:
    """Return what the entries, in order, make of the customers whose documents they put: None where one is deleted."""
    changes: dict[str, Listed | None] = {}
    for entry in entries:
        for item in entry.items:
            if entry.customer_id is None or item.document_type != "customer" or item.document is None:
                continue
            try:
                customer = msgspec.json.decode(item.document, type=Customer | None)
            except msgspec.DecodeError:
                continue  # what is no customer cannot be listed; the journal keeps it as it came
            changes[entry.customer_id] = listed(customer) if customer is not None else None
    return changes


def matches(found: Listed, wanted: CustomerFilter) -> bool:
    """Say whether a customer is among those asked for; SQL decides the same, see `ledger/listing.py`."""
    at = found.place.created_at
    return (
        folded(wanted.text) in found.text
        and (wanted.asks_for_no_plan or any(_is_one_of(held, wanted) for held in found.plans))
        and (wanted.since is None or at >= wanted.since)
        and (wanted.until is None or at <= wanted.until)
    )


def folded(text: str) -> str:
    """Return the text as it is searched: every database compares it alike.

    Without NUL, since a name may have one, and PostgreSQL stores none.
    """
    return text.casefold().replace("\x00", "")


def _plans_of(customer: Customer) -> Iterator[HeldPlan]:
    for held in customer.subscriptions:
        yield HeldPlan(held.plan_id, held.plan_version, "active")
    for coming in customer.scheduled:
        yield HeldPlan(coming.plan_id, coming.plan_version, "scheduled")


def _is_one_of(held: HeldPlan, wanted: CustomerFilter) -> bool:
    is_named = not wanted.plans or any(
        held.plan_id == plan.plan_id and (not plan.versions or held.version in plan.versions)
        for plan in wanted.plans
    )
    return is_named and wanted.status in (None, held.status)
