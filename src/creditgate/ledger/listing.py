"""The list of customers in SQL: who is there now, when each was made, and what each can be found by.

It follows from the journal and is written in the transaction that appends the entries, so it is as far as the journal
is. What it finds is what `core/listing.py` says of the same customers.
"""

from collections.abc import Mapping
from typing import Any

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

from creditgate.core.listing import CustomerFilter, Listed, Place, PlanFilter, folded
from creditgate.ledger.tables import listed_customers, listed_plans

_listed = listed_customers.c
_plans = listed_plans.c
_ORDER = (_listed.created_at, _listed.customer_id)

_DELETE_CUSTOMERS = delete(listed_customers).where(_listed.customer_id == bindparam("gone"))
_DELETE_PLANS = delete(listed_plans).where(_plans.customer_id == bindparam("gone"))
_INSERT_CUSTOMERS = insert(listed_customers)
_INSERT_PLANS = insert(listed_plans)


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
        {
            "customer_id": customer_id,
            "plan_id": held.plan_id,
            "plan_version": held.version,
            "status": held.status,
        }
        for customer_id, found in there
        for held in sorted(found.plans)
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
        conditions.append(_listed.search_text.contains(folded(wanted.text), autoescape=True))
    if not wanted.asks_for_no_plan:
        has_one = exists().where(_plans.customer_id == _listed.customer_id)
        if wanted.plans:
            has_one = has_one.where(or_(*(_plan_condition(plan) for plan in wanted.plans)))
        if wanted.status is not None:
            has_one = has_one.where(_plans.status == wanted.status)
        conditions.append(has_one)
    if wanted.since is not None:
        conditions.append(_listed.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(_listed.created_at <= wanted.until)
    return conditions


def _plan_condition(plan: PlanFilter) -> ColumnElement[bool]:
    is_plan = _plans.plan_id == plan.plan_id
    return and_(is_plan, _plans.plan_version.in_(plan.versions)) if plan.versions else is_plan
