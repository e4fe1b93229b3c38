"""The ledger room: the record of everything that changed, in SQL, on SQLite and on PostgreSQL.

Owns the tables and their migrations, the one transaction that appends a batch and moves the stream's position, and
the queries over the past. Does not own whether something is allowed, what the stream holds beyond the position, or
what a document means: the room stores and returns the journal's words as they came.

`store.Ledger` is the door, `appending` the transaction; `tables` says what a row is.
"""
