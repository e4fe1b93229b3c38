"""The list of customers and of the plans they have, filled from the journal."""

import json
from collections import deque
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

ID = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
DOCUMENTS = """
    SELECT partition, customer_id, document FROM journal_items
    WHERE document_type = 'customer' AND customer_id IS NOT NULL
    ORDER BY partition, customer_id, stream_ms, stream_counter, item
"""
PAGE = 1_000


def upgrade() -> None:
    """Make both tables, and list whoever has not been deleted."""
    customers = op.create_table(
        "listed_customers",
        sa.Column("customer_id", ID, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("search_text", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    plans = op.create_table(
        "listed_plans",
        sa.Column("customer_id", ID, primary_key=True),
        sa.Column("plan_id", ID, primary_key=True),
        sa.Column("plan_version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("status", ID, primary_key=True),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    for page in _pages(connection):
        op.bulk_insert(customers, [_customer_row(customer_id, found) for customer_id, found in page])
        op.bulk_insert(plans, [row for customer_id, found in page for row in _plan_rows(customer_id, found)])
    op.create_index("listed_customers_by_creation", "listed_customers", ["created_at", "customer_id"])


def _pages(connection: sa.Connection) -> Iterator[list[tuple[str, Any]]]:
    """Yield the latest document of each customer, but for those who were deleted."""
    page = []
    documents = connection.execute(sa.text(DOCUMENTS), execution_options={"yield_per": PAGE})
    for (_, customer_id), versions in groupby(documents, key=lambda row: (row.partition, row.customer_id)):
        (latest,) = deque(versions, maxlen=1)
        found = json.loads(latest.document)
        if found is not None:
            page.append((customer_id, found))
        if len(page) == PAGE:
            yield page
            page = []
    yield page


def _customer_row(customer_id: str, found: Any) -> dict[str, Any]:
    text = "\n".join((customer_id, found.get("name") or "", found.get("email") or ""))
    return {
        "customer_id": customer_id,
        "created_at": found["created_at"],
        "search_text": text.casefold().replace("\x00", ""),
    }


def _plan_rows(customer_id: str, found: Any) -> list[dict[str, Any]]:
    held = {
        (plan["plan_id"], plan["plan_version"], status)
        for kind, status in (("subscriptions", "active"), ("scheduled", "scheduled"))
        for plan in found.get(kind, ())
    }
    return [
        {"customer_id": customer_id, "plan_id": plan_id, "plan_version": version, "status": status}
        for plan_id, version, status in sorted(held)
    ]
