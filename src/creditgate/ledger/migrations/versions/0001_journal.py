"""The journal's items, the positions of the streams, and the messages set aside."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

ID = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the first three tables."""
    _create_journal_items()
    _create_indexes()
    _create_stream_positions()
    _create_poison_entries()


def _create_journal_items() -> None:
    op.create_table(
        "journal_items",
        sa.Column("partition", ID, primary_key=True),
        sa.Column("stream_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("stream_counter", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("item", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("customer_id", ID),
        sa.Column("uid", ID),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("pinned_at", sa.BigInteger),
        sa.Column("kind", ID, nullable=False),
        sa.Column("row_id", ID),
        sa.Column("delta_whole", sa.BigInteger),
        sa.Column("delta_nano", sa.BigInteger),
        sa.Column("after_whole", sa.BigInteger),
        sa.Column("after_nano", sa.BigInteger),
        sa.Column("document_type", ID),
        sa.Column("document_id", ID),
        sa.Column("document", sa.Text),
        sa.Column("verb", ID),
        sa.Column("op_id", ID),
        sa.Column("catalog_version", sa.BigInteger),
        sa.Column("key", ID),
        sa.Column("fingerprint", ID),
        sa.Column("feature_id", ID),
        sa.Column("value_whole", sa.BigInteger),
        sa.Column("value_nano", sa.BigInteger),
        sa.Column("occurred_at", sa.BigInteger),
        sa.Column("event_name", sa.Text),
        sa.Column("entity_id", ID),
        sa.Column("properties", sa.Text),
        sa.Column("event_at", sa.BigInteger),
        sqlite_with_rowid=False,
    )


def _create_indexes() -> None:
    is_document = sa.text("document_type IS NOT NULL")
    is_event = sa.text("event_at IS NOT NULL")
    op.create_index(
        "journal_items_of_customer",
        "journal_items",
        ["partition", "customer_id", "event_at", "stream_ms", "stream_counter", "item"],
    )
    op.create_index(
        "journal_documents",
        "journal_items",
        [
            "partition",
            "customer_id",
            "document_type",
            "document_id",
            "stream_ms",
            "stream_counter",
            "item",
        ],
        sqlite_where=is_document,
        postgresql_where=is_document,
    )
    op.create_index(
        "journal_events_by_time",
        "journal_items",
        ["event_at", "partition", "stream_ms", "stream_counter", "item"],
        sqlite_where=is_event,
        postgresql_where=is_event,
    )


def _create_stream_positions() -> None:
    op.create_table(
        "stream_positions",
        sa.Column("partition", ID, primary_key=True),
        sa.Column("epoch", ID, nullable=False),
        sa.Column("stream_ms", sa.BigInteger, nullable=False),
        sa.Column("stream_counter", sa.BigInteger, nullable=False),
    )


def _create_poison_entries() -> None:
    op.create_table(
        "poison_entries",
        sa.Column("partition", ID, primary_key=True),
        sa.Column("stream_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("stream_counter", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
