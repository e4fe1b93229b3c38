"""The tables of the record: what one row is, how amounts and times are written, and which query each index is for.

An amount of the journal (an integer of nanos) is two integers, `_whole` and `_nano`, with
`amount = whole * 10^9 + nano` and |nano| < 10^9. Both carry the sign of the amount: -4.98 is (-4, -980000000) and
-0.02 is (0, -20000000). So each half fits 64 bits, is compared and summed as an integer on both databases (SQLite's
NUMERIC is a double), and SUM(whole) * 10^9 + SUM(nano) is the exact sum of the amounts.

Times are integers: Unix milliseconds. `migrations/` makes the same tables; a test holds the two together.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

# Ids are compared byte by byte, as SQLite does by itself. A PostgreSQL database may have another collation: slower, in
# an order of its own, and with indexes that break when the operating system's locale data is upgraded.
ID = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

# One row per item of the journal. The identity is the primary key and nothing else is unique: op ids and callers' keys
# may legally come again. SQLite keeps the rows in the key's own b-tree (no rowid), so that an append writes one tree
# less and one entry's items, or one partition's latest hour, lie side by side.
journal_items = Table(
    "journal_items",
    metadata,
    Column("partition", ID, primary_key=True),
    Column("stream_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("stream_counter", BigInteger, primary_key=True, autoincrement=False),
    Column("item", Integer, primary_key=True, autoincrement=False),
    # The entry, repeated on each of its items. The customer is absent on the system stream.
    Column("customer_id", ID),
    Column("uid", ID),
    Column("sequence", BigInteger, nullable=False),
    Column("pinned_at", BigInteger),
    # The change: an amount of a row, a whole document, or neither (usage that took nothing).
    Column("kind", ID, nullable=False),
    Column("row_id", ID),
    Column("delta_whole", BigInteger),
    Column("delta_nano", BigInteger),
    Column("after_whole", BigInteger),
    Column("after_nano", BigInteger),
    Column("document_type", ID),
    Column("document_id", ID),
    Column("document", Text),
    # The call, on the first item of each call only.
    Column("verb", ID),
    Column("op_id", ID),
    Column("catalog_version", BigInteger),
    Column("key", ID),
    Column("fingerprint", ID),
    Column("feature_id", ID),
    Column("value_whole", BigInteger),
    Column("value_nano", BigInteger),
    Column("occurred_at", BigInteger),
    Column("event_name", Text),
    Column("entity_id", ID),
    Column("properties", Text),
    # When the usage happened, on items that are a usage event only (see `events.event_at`).
    Column("event_at", BigInteger),
    sqlite_with_rowid=False,
)

# One index for the events of a customer by time, for all of a customer's items, and for which customers there are. It
# is the only place where an append scatters: each item lands on a page of its customer, so a second index by customer
# doubles what is written to disk, and `proof` sorts a customer's items instead of having one.
Index(
    "journal_items_of_customer",
    journal_items.c.partition,
    journal_items.c.customer_id,
    journal_items.c.event_at,
    journal_items.c.stream_ms,
    journal_items.c.stream_counter,
    journal_items.c.item,
)
# For the latest documents of a customer, or of none, and for the versions that one had. Documents are few.
Index(
    "journal_documents",
    journal_items.c.partition,
    journal_items.c.customer_id,
    journal_items.c.document_type,
    journal_items.c.document_id,
    journal_items.c.stream_ms,
    journal_items.c.stream_counter,
    journal_items.c.item,
    sqlite_where=journal_items.c.document_type.is_not(None),
    postgresql_where=journal_items.c.document_type.is_not(None),
)
# For the events of all customers. New ones go to its end, so it costs next to nothing.
Index(
    "journal_events_by_time",
    journal_items.c.event_at,
    journal_items.c.partition,
    journal_items.c.stream_ms,
    journal_items.c.stream_counter,
    journal_items.c.item,
    sqlite_where=journal_items.c.event_at.is_not(None),
    postgresql_where=journal_items.c.event_at.is_not(None),
)

# Who is there now, and the plans that each has or is to have: what `listing` makes of the documents. Without the
# partition, since an id is in one only.
listed_customers = Table(
    "listed_customers",
    metadata,
    Column("customer_id", ID, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    # Id, name and email, case folded.
    Column("search_text", Text, nullable=False),
    sqlite_with_rowid=False,
)
# A page of the list is a piece of it.
Index("listed_customers_by_creation", listed_customers.c.created_at, listed_customers.c.customer_id)
listed_plans = Table(
    "listed_plans",
    metadata,
    Column("customer_id", ID, primary_key=True),
    Column("plan_id", ID, primary_key=True),
    Column("plan_version", BigInteger, primary_key=True, autoincrement=False),
    Column("status", ID, primary_key=True),
    sqlite_with_rowid=False,
)

# How far each stream has been appended. A position means something only within its epoch: the random name that a
# stream got when it was made, and the fence that was put since (see `Position`).
stream_positions = Table(
    "stream_positions",
    metadata,
    Column("partition", ID, primary_key=True),
    Column("epoch", ID, nullable=False),
    Column("stream_ms", BigInteger, nullable=False),
    Column("stream_counter", BigInteger, nullable=False),
)

# What seals the items of a partition since the seal before, up to a position (see `sealing`). Only with a key.
journal_seals = Table(
    "journal_seals",
    metadata,
    Column("partition", ID, primary_key=True),
    Column("stream_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("stream_counter", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", ID, nullable=False),
    # In hex: the state of the chain, and on the first seal of a partition what proves that it is the first.
    Column("mac", ID, nullable=False),
    Column("begins", ID),
    sqlite_with_rowid=False,
)

# Where the history of a partition begins, once `pruning` has removed what was older.
history_begins = Table(
    "history_begins",
    metadata,
    Column("partition", ID, primary_key=True),
    Column("stream_ms", BigInteger, nullable=False),
)

# What each row is carried forward from: the last item before the beginning, which is still in `journal_items`. The row
# "" stands for the customer: the last item of all.
openings = Table(
    "openings",
    metadata,
    Column("partition", ID, primary_key=True),
    Column("customer_id", ID, primary_key=True),
    Column("uid", ID, primary_key=True),
    Column("row_id", ID, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("stream_ms", BigInteger, nullable=False),
    Column("stream_counter", BigInteger, nullable=False),
    Column("item", Integer, nullable=False),
    Column("after_whole", BigInteger, nullable=False),
    Column("after_nano", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Stream messages that are no entries of ours. Each counts as drift until somebody has resolved it.
poison_entries = Table(
    "poison_entries",
    metadata,
    Column("partition", ID, primary_key=True),
    Column("stream_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("stream_counter", BigInteger, primary_key=True, autoincrement=False),
    # The raw fields, a JSON object in ASCII.
    Column("fields", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

# The alerts of the journal that were not handed to the webhooks yet: stored with their items, gone with the deliveries
# that they become. The identity is that of the item.
outbox = Table(
    "outbox",
    metadata,
    Column("partition", ID, primary_key=True),
    Column("stream_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("stream_counter", BigInteger, primary_key=True, autoincrement=False),
    Column("item", Integer, primary_key=True, autoincrement=False),
    Column("customer_id", ID, nullable=False),
    Column("alert_id", ID, nullable=False),
    # As the script wrote it, in JSON.
    Column("alert", Text, nullable=False),
    sqlite_with_rowid=False,
)

# One event for one endpoint, until it was delivered. `next_at` is when the next attempt is due, absent for a dead
# letter: then `failed_at` and `reason` say when and why the last attempt failed.
deliveries = Table(
    "deliveries",
    metadata,
    Column("endpoint", ID, primary_key=True),
    Column("partition", ID, primary_key=True),
    Column("stream_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("stream_counter", BigInteger, primary_key=True, autoincrement=False),
    Column("item", Integer, primary_key=True, autoincrement=False),
    Column("event_type", ID, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("reason", Text),
    sqlite_with_rowid=False,
)
# For what is due at one endpoint, the longest waiting first.
Index(
    "deliveries_by_time",
    deliveries.c.endpoint,
    deliveries.c.next_at,
    deliveries.c.stream_ms,
    deliveries.c.stream_counter,
    deliveries.c.partition,
    deliveries.c.item,
)
