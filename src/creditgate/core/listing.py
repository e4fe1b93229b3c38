"""The list of customers: what each is found by, and who is among those asked for.

Ids are compared by their bytes, which is the order of Python's strings too.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from creditgate.core.customers import Customer
from creditgate.core.journal import Entry


class Place(NamedTuple):
    """Where a customer stands in the list, the oldest first; where times are equal, by id."""

    created_at: int
    customer_id: str


class Listed(msgspec.Struct, frozen=True):
    """What a customer is found by: `text` is what is searched, `plans` are pairs of plan id and version."""

    place: Place
    text: str
    plans: frozenset[tuple[str, int]]


class PlanFilter(msgspec.Struct, frozen=True):
    """Who is on this plan, in one of these versions; without any, in whatever version."""

    plan_id: str
    versions: tuple[int, ...] = ()


class CustomerFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which customers are asked for. What is left out filters nothing.

    `text` stands anywhere in the id, the name or the email, whatever the case. `plans`: on one of them at least;
    `on_any_plan`: on any. `since` and `until` are included, Unix ms.
    """

    text: str = ""
    plans: tuple[PlanFilter, ...] = ()
    on_any_plan: bool = False
    since: int | None = None
    until: int | None = None


def listed(customer: Customer) -> Listed:
    """Return what a customer is found by."""
    return Listed(
        place=Place(customer.created_at, customer.id),
        text=folded("\n".join((customer.id, customer.name or "", customer.email or ""))),
        plans=frozenset((held.plan_id, held.plan_version) for held in customer.subscriptions),
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
        and (not wanted.on_any_plan or bool(found.plans))
        and (not wanted.plans or any(_is_on(found, plan) for plan in wanted.plans))
        and (wanted.since is None or at >= wanted.since)
        and (wanted.until is None or at <= wanted.until)
    )


def folded(text: str) -> str:
    """Return the text as it is searched: every database compares it alike.

    Without NUL, since a name may have one, and PostgreSQL stores none.
    """
    return text.casefold().replace("\x00", "")


def _is_on(found: Listed, plan: PlanFilter) -> bool:
    return any(
        plan_id == plan.plan_id and (not plan.versions or version in plan.versions)
        for plan_id, version in found.plans
    )
