"""The seals of the journal."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

ID = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "journal_seals",
        sa.Column("partition", ID, primary_key=True),
        sa.Column("stream_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("stream_counter", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("mac", ID, nullable=False),
        sa.Column("begins", ID),
        sqlite_with_rowid=False,
    )
