"""The ledger on PostgreSQL: the suite, on a real server."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import event

from creditgate.errors import StartupError
from creditgate.ledger.database import Database, EntriesRefused, LedgerUnavailable
from creditgate.ledger.migrations import take_steps
from creditgate.ledger.store import Ledger
from tests.conformance.ledger import (
    EPOCH,
    FIRST,
    SECOND,
    LedgerConformance,
    append_all,
    batch_of,
    make_entry,
    row_count,
)
from tests.conformance.seals import SealsConformance
from tests.postgresql import PostgreSQLServer

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
    FROM information_schema.columns WHERE table_schema = 'public'
"""
INDEXES = """
    SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""
COLLATIONS_OF_INDEXES = """
    SELECT DISTINCT collations.collname
    FROM pg_index AS indexes
    JOIN pg_class AS tables ON tables.oid = indexes.indrelid
    JOIN pg_attribute AS columns ON columns.attrelid = tables.oid AND columns.attnum = ANY (indexes.indkey)
    JOIN pg_collation AS collations ON collations.oid = columns.attcollation
    WHERE tables.relnamespace = 'public'::regnamespace AND tables.relname <> 'alembic_version'
"""


@pytest.fixture
def url(postgresql: PostgreSQLServer) -> str:
    """An empty database."""
    return postgresql.empty()


class TestSealsOnPostgreSQL(SealsConformance):
    """The seals on a server."""

    @pytest.fixture
    def database(self, url: str) -> Iterator[Database]:
        """What is really in the tables."""
        database = Database(url)
        yield database
        database.close()


class TestLedgerOnPostgreSQL(LedgerConformance):
    """The suite on a server."""

    def test_migrations_make_the_very_same_tables(
        self, ledger: Ledger, database: Database, postgresql: PostgreSQLServer
    ) -> None:
        """What Alembic does not compare, such as collations and the condition of an index, is not lost either."""
        with database.reading() as connection:
            made = schema_of(connection)
        postgresql.empty()
        with database.writing() as connection:
            take_steps(connection)
            assert schema_of(connection) == made

    def test_no_index_depends_on_the_locale(self, ledger: Ledger, database: Database) -> None:
        """An upgrade of the operating system's locale data cannot make a customer's history unfindable."""
        with database.reading() as connection:
            assert connection.execute(sqlalchemy.text(COLLATIONS_OF_INDEXES)).scalars().all() == ["C"]

    def test_a_proof_is_not_fetched_at_once(self, ledger: Ledger) -> None:
        """A customer with ten million items is verified without ten million rows in memory."""
        append_all(ledger, [make_entry(1)])
        cursors: list[Any] = []

        def record(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            cursors.append(cursor)

        event.listen(sqlalchemy.Engine, "before_cursor_execute", record)
        try:
            assert len(list(ledger.proof(FIRST, ["ada"]))) == 1
        finally:
            event.remove(sqlalchemy.Engine, "before_cursor_execute", record)
        assert type(cursors[-1]) is psycopg.ServerCursor

    def test_a_copy_into_a_file_is_refused(self, ledger: Ledger, tmp_path: Path) -> None:
        """Who asks for a file of a PostgreSQL database is told of pg_dump, and nothing is written."""
        with pytest.raises(StartupError, match="pg_dump"):
            ledger.copy_to(tmp_path / "copy.db")
        assert list(tmp_path.iterdir()) == []

    def test_the_short_name_of_the_url_works_too(self, ledger: Ledger, url: str) -> None:
        """The URL that a hosting platform hands out, `postgres://`, starts the sidecar as it is."""
        short = Ledger(url.replace("postgresql://", "postgres://"))
        assert short.positions() == {}
        short.close()

    def test_a_server_that_hung_up_meanwhile_costs_no_batch(
        self, ledger: Ledger, postgresql: PostgreSQLServer
    ) -> None:
        """A restart of the server between two flushes is not even seen."""
        append_all(ledger, [make_entry(1)])
        postgresql.hang_up()
        append_all(ledger, [make_entry(2)])

    def test_a_connection_lost_in_the_middle_is_unavailable(
        self, ledger: Ledger, database: Database, postgresql: PostgreSQLServer
    ) -> None:
        """A connection that breaks in a transaction is told as such, and the flusher comes again."""

        def lose_the_connection() -> None:
            with database.writing() as connection:
                connection.execute(sqlalchemy.text("SELECT 1"))
                postgresql.hang_up()

        with pytest.raises(LedgerUnavailable):
            lose_the_connection()
        ledger.adopt(FIRST, EPOCH)

    def test_text_that_postgresql_cannot_hold_is_refused(self, ledger: Ledger, database: Database) -> None:
        """An entry with a NUL is set aside like any that the database refuses; the connection goes on."""
        ledger.adopt(FIRST, EPOCH)
        with pytest.raises(EntriesRefused):
            ledger.append([batch_of([make_entry(1), make_entry(2, customer="a\0b")])])
        assert row_count(database) == 0
        append_all(ledger, [make_entry(1)])

    def test_a_deadlock_costs_a_batch_nothing(self, ledger: Ledger, postgresql: PostgreSQLServer) -> None:
        """Where PostgreSQL ends the append to free another transaction, the append is made again at once."""
        partitions = (FIRST, SECOND)
        for partition in partitions:
            ledger.adopt(partition, EPOCH)
        batches = [batch_of([make_entry(1, partition=partition)]) for partition in partitions]
        lock = "SELECT * FROM stream_positions WHERE partition = %s FOR UPDATE"
        with ThreadPoolExecutor(1) as pool, postgresql.admin() as watcher:
            with psycopg.connect(postgresql.url) as other:
                other.execute(lock, (SECOND,))
                append = pool.submit(ledger.append, batches)
                while watcher.execute(WAITING).fetchone() != (1,):
                    assert not append.done()
                other.execute(
                    lock, (FIRST,)
                )  # now each waits for the other, and the append has waited longer
            assert append.result() == 2
            deadlocks = (
                "SELECT pg_stat_get_db_deadlocks(oid) FROM pg_database WHERE datname = current_database()"
            )
            ledger.close()  # the server counts when a connection ends, or ten seconds later
            while watcher.execute(deadlocks).fetchone() == (0,):
                time.sleep(0.01)

    def test_a_server_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        """A sidecar that starts before its database is told so by an error of ours."""
        ledger = Ledger(f"postgresql://postgres@/ledger?host={tmp_path}")
        with pytest.raises(LedgerUnavailable):
            ledger.positions()
        ledger.close()


def schema_of(connection: sqlalchemy.Connection) -> list[tuple[Any, ...]]:
    """Every column and every index of our tables, as the server describes them."""
    found = [*connection.execute(sqlalchemy.text(COLUMNS)), *connection.execute(sqlalchemy.text(INDEXES))]
    return sorted(tuple(map(str, row)) for row in found)
