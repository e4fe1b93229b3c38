"""The list of customers: who is there now, when each was made, and what each can be found by.

It follows from the journal and is written in the transaction that appends the entries, so it is as far as the journal
is. `changes_in` and `matches` say the same of entries that SQL does not have yet.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    tuple_,
)

from creditgate.core.customers import Customer
from creditgate.core.journal import Entry
from creditgate.ledger.tables import listed_customers, listed_plans

_listed = listed_customers.c
_plans = listed_plans.c
_ORDER = (_listed.created_at, _listed.customer_id)

_DELETE_CUSTOMERS = delete(listed_customers).where(_listed.customer_id == bindparam("gone"))
_DELETE_PLANS = delete(listed_plans).where(_plans.customer_id == bindparam("gone"))
_INSERT_CUSTOMERS = insert(listed_customers)
_INSERT_PLANS = insert(listed_plans)


class Place(NamedTuple):
    """Where a customer stands in the list, the oldest first: ids in the order of their bytes where times are equal."""

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
        text=_folded("\n".join((customer.id, customer.name or "", customer.email or ""))),
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
    """Say whether a customer is among those asked for; SQL decides the same by `select_page`."""
    at = found.place.created_at
    return (
        _folded(wanted.text) in found.text
        and (not wanted.on_any_plan or bool(found.plans))
        and (not wanted.plans or any(_is_on(found, plan) for plan in wanted.plans))
        and (wanted.since is None or at >= wanted.since)
        and (wanted.until is None or at <= wanted.until)
    )


def write(connection: Connection, changes: Mapping[str, Listed | None]) -> None:
    """Bring the list up to these changes."""
    if not changes:
        return
    gone = [{"gone": customer_id} for customer_id in changes]
    connection.execute(_DELETE_CUSTOMERS, gone)
    connection.execute(_DELETE_PLANS, gone)
    there = [(customer_id, found) for customer_id, found in changes.items() if found is not None]
    customers = [
        {"customer_id": customer_id, "created_at": found.place.created_at, "search_text": found.text}
        for customer_id, found in there
    ]
    plans = [
        {"customer_id": customer_id, "plan_id": plan_id, "plan_version": version}
        for customer_id, found in there
        for plan_id, version in sorted(found.plans)
    ]
    if customers:
        connection.execute(_INSERT_CUSTOMERS, customers)
    if plans:
        connection.execute(_INSERT_PLANS, plans)


def select_page(
    wanted: CustomerFilter, *, after: Place | None, limit: int, newest_first: bool
) -> Select[Any]:
    """Return the statement for the places of one page, in order, that come after the place given."""
    conditions = _conditions(wanted)
    if after is not None:
        here = tuple_(*_ORDER)
        conditions.append(here < tuple(after) if newest_first else here > tuple(after))
    order = (column.desc() if newest_first else column.asc() for column in _ORDER)
    return select(*_ORDER).where(*conditions).order_by(*order).limit(limit)


def place_of(row: Row[Any]) -> Place:
    """Return the place in a row of `select_page`."""
    return Place(row.created_at, row.customer_id)


def _conditions(wanted: CustomerFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.text:
        conditions.append(_listed.search_text.contains(_folded(wanted.text), autoescape=True))
    if wanted.on_any_plan:
        conditions.append(exists().where(_plans.customer_id == _listed.customer_id))
    if wanted.plans:
        on_one = or_(*(_plan_condition(plan) for plan in wanted.plans))
        conditions.append(exists().where(_plans.customer_id == _listed.customer_id, on_one))
    if wanted.since is not None:
        conditions.append(_listed.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(_listed.created_at <= wanted.until)
    return conditions


def _plan_condition(plan: PlanFilter) -> ColumnElement[bool]:
    is_plan = _plans.plan_id == plan.plan_id
    return and_(is_plan, _plans.plan_version.in_(plan.versions)) if plan.versions else is_plan


def _is_on(found: Listed, plan: PlanFilter) -> bool:
    return any(
        plan_id == plan.plan_id and (not plan.versions or version in plan.versions)
        for plan_id, version in found.plans
    )


def _folded(text: str) -> str:
    """Both databases compare folded text alike. Without NUL: PostgreSQL stores none, and a name may have one."""
    return text.casefold().replace("\x00", "")
