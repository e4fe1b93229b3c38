"""Where the history begins after a prune, and what each balance is carried forward from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

ID = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "history_begins",
        sa.Column("partition", ID, primary_key=True),
        sa.Column("stream_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "openings",
        sa.Column("partition", ID, primary_key=True),
        sa.Column("customer_id", ID, primary_key=True),
        sa.Column("uid", ID, primary_key=True),
        sa.Column("row_id", ID, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("stream_ms", sa.BigInteger, nullable=False),
        sa.Column("stream_counter", sa.BigInteger, nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("after_whole", sa.BigInteger, nullable=False),
        sa.Column("after_nano", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
