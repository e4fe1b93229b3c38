"""What is to be told to webhooks, and each delivery until it has succeeded."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

ID = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "outbox",
        *_identity(),
        sa.Column("customer_id", ID, nullable=False),
        sa.Column("alert_id", ID, nullable=False),
        sa.Column("alert", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "deliveries",
        sa.Column("endpoint", ID, primary_key=True),
        *_identity(),
        sa.Column("event_type", ID, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger),
        sa.Column("failed_at", sa.BigInteger),
        sa.Column("reason", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "deliveries_by_time",
        "deliveries",
        ["endpoint", "next_at", "stream_ms", "stream_counter", "partition", "item"],
    )


def _identity() -> list["sa.Column[object]"]:
    return [
        sa.Column("partition", ID, primary_key=True),
        sa.Column("stream_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("stream_counter", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("item", sa.Integer, primary_key=True, autoincrement=False),
    ]
