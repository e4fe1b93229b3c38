"""The connection to the record: which database a URL names, how its transactions begin, and what its failures mean.

Both databases give the same here. A write holds its locks from the start, so it is decided once; a read sees one
instant throughout; what cannot be reached is `LedgerUnavailable`, and what cannot be stored is `EntriesRefused`.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event, exc
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler

from creditgate.errors import CreditgateError, InvalidRequest, StartupError, Unavailable

# How long a writer of SQLite waits for another process's transaction. Ours last milliseconds; a backup or a person with
# a shell may hold the file longer.
SQLITE_BUSY_MS = 10_000
# What a connection to SQLite keeps in memory, and how long the WAL gets before it is folded in. An append changes a
# page of each of its customers: with SQLite's own 2 MB and 1,000 pages, many were read again in each flush, and written
# twice. Up to some 4,000 pages, the WAL's index has one table to look into.
SQLITE_CACHE_KIB = 8_000
SQLITE_WAL_PAGES = 4_000

# How long PostgreSQL may take to accept a connection; `connect_timeout` in the URL says otherwise.
CONNECT_SECONDS = 5
# Connections that are kept open. More threads at once get one each, up to ten more; the next waits this long.
POOL_SIZE = 8
POOL_WAIT_SECONDS = 10

# How long PostgreSQL waits for a writer that has begun and says nothing more, such as a process that was paused: then
# it takes everything back and lets the next one write. Longer than any work of ours between two statements.
WRITER_IDLE_MS = 10_000

# Instructions of SQLite between two looks at the clock, for statements whose time is limited: well under a millisecond.
SQLITE_STEPS = 10_000

_SQLITE_FILE_MODE = 0o600
_POSTGRESQL_NAMES = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_POSTGRESQL_IDENTITY = sqlalchemy.text(
    "SELECT pg_postmaster_start_time(), oid FROM pg_database WHERE datname = current_database()"
)
_CONFLICTS = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
_WRITES = "creditgate_writes"


class LedgerUnavailable(Unavailable):
    """The database cannot be reached, is locked or is full. Whether a write took effect may be unknown: ask again."""


class WriteConflict(LedgerUnavailable):
    """Another transaction was in the way (deadlock, serialization failure): nothing was stored, try again at once."""


class EntriesRefused(CreditgateError):
    """The database will never store these rows as they are; nothing of them was stored."""

    code = "entries_refused"


class TookTooLong(InvalidRequest):
    """The question would have to read too much of the history; a narrower one can be answered."""


class Database:
    """One database. Safe to use from several threads; each transaction takes a connection of its own."""

    def __init__(self, url: str) -> None:
        """Open `sqlite:///PATH` or `postgresql://...`; raises StartupError for any other URL or an unusable path.

        The SQLite file is made if it is not there, readable by its owner alone. No server is contacted yet.
        """
        parsed = _parse(url)
        if parsed.get_backend_name() == "sqlite":
            self._engine = _open_sqlite(parsed)
            self._reader = self._engine
        else:
            self._engine = _open_postgresql(parsed)
            self._reader = self._engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._writer = self._engine.execution_options(**{_WRITES: True})

    @contextmanager
    def reading(self, *, seconds_max: float | None = None) -> Iterator[Connection]:
        """Yield a connection that sees one instant; raises LedgerUnavailable.

        With `seconds_max`, a statement that takes longer in all is given up: TookTooLong.
        """
        with _reached(), self._reader.begin() as connection:
            if seconds_max is None:
                yield connection
            else:
                with _limited(connection, seconds_max):
                    yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection whose changes are committed together at the end, or not at all.

        Raises LedgerUnavailable, after which the commit may have happened, WriteConflict, after which it has not, or
        EntriesRefused.
        """
        with _reached(), _storable(), self._writer.begin() as connection:
            yield connection

    def copy_to(self, path: Path) -> None:
        """Write the whole database, as of one instant, into a new SQLite file; writers go on meanwhile.

        Raises StartupError for PostgreSQL, LedgerUnavailable if the file cannot be written.
        """
        if self._engine.dialect.name != "sqlite":
            raise StartupError("PostgreSQL has a backup of its own: use pg_dump.")
        _make_private(str(path))
        with _reached(), closing(self._engine.raw_connection()) as connection:
            try:
                connection.cursor().execute("VACUUM INTO ?", (str(path),))
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"the ledger's database cannot be copied: {error}") from error

    def identity(self) -> str:
        """Return what tells this database from every other one, whatever URL leads to it; raises LedgerUnavailable."""
        if self._engine.dialect.name == "sqlite":
            file = os.stat(str(self._engine.url.database))
            return f"{file.st_dev} {file.st_ino}"
        with self.reading() as connection:
            return " ".join(map(str, connection.execute(_POSTGRESQL_IDENTITY).one()))

    def close(self) -> None:
        """Close every connection that is not in use; the last one to a SQLite file folds its WAL into it."""
        self._engine.dispose()


def _parse(url: str) -> URL:
    """Read the URL; the message of the StartupError never repeats it, since it may hold a password."""
    try:
        parsed = sqlalchemy.make_url(url)
    except (exc.ArgumentError, ValueError):
        raise StartupError("--database: not a URL; say sqlite:///PATH or postgresql://HOST/NAME") from None
    if parsed.drivername in _POSTGRESQL_NAMES:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise StartupError("--database: say sqlite:///PATH or postgresql://HOST/NAME")
    if parsed.database in (None, "", ":memory:"):
        raise StartupError("--database: SQLite needs a file, sqlite:///PATH")
    return parsed.set(drivername="sqlite+pysqlite")


def _open_sqlite(url: URL) -> Engine:
    _make_private(str(url.database))
    engine = sqlalchemy.create_engine(
        url,
        hide_parameters=True,
        pool_size=POOL_SIZE,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_use_lifo=True,  # the one that wrote last knows the pages as they are; any other reads them again
    )
    engine.dialect.statement_compiler = _HintingCompiler
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _open_postgresql(url: URL) -> Engine:
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})
    try:
        engine = sqlalchemy.create_engine(
            url,
            hide_parameters=True,
            pool_size=POOL_SIZE,
            pool_timeout=POOL_WAIT_SECONDS,
            # A server that was restarted meanwhile costs a new connection, not a failed batch.
            pool_pre_ping=True,
        )
    except ModuleNotFoundError:
        raise StartupError(
            '--database: PostgreSQL needs a driver; run: pip install "creditgate[postgresql]"'
        ) from None
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _make_private(path: str) -> None:
    """Make the file before SQLite does, which would leave it readable by all; its WAL takes over the same mode."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _SQLITE_FILE_MODE)
        try:
            os.fchmod(descriptor, _SQLITE_FILE_MODE)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StartupError(f"--database: cannot open {path}: {error.strerror}") from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Set up one new connection of sqlite3.

    FULL: the stream is trimmed after the commit, so a commit that a power cut takes back would be lost for good.
    """
    # Python's driver would begin transactions by its own rules; `_begin_sqlite` says when instead.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")
    _turn_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {SQLITE_WAL_PAGES}")


def _turn_to_wal(connection: Any) -> None:
    """SQLite does not wait where two processes turn a new file to its WAL at once, whatever its time-out says."""
    ends_at = time.monotonic() + SQLITE_BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    """Begin as a writer at once if this is one.

    A transaction that reads first and then turns to writing fails without waiting when another wrote in between.
    """
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    """Let the server end a writer that is silent for too long: what it has locked, its successor waits for."""
    if connection.get_execution_options().get(_WRITES, False):
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {WRITER_IDLE_MS}")


class _HintingCompiler(SQLiteCompiler):
    """Writes `with_hint(table, "INDEXED BY ...", "sqlite")` into the statement; SQLAlchemy's own leaves it out."""

    def get_from_hint_text(self, table: object, text: str | None) -> str | None:
        return text


@contextmanager
def _limited(connection: Connection, seconds_max: float) -> Iterator[None]:
    """Give up whatever the connection is doing when the time is over."""
    ends_at = time.monotonic() + seconds_max
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        driver.set_progress_handler(lambda: time.monotonic() > ends_at, SQLITE_STEPS)
    else:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(seconds_max * 1000)}")
    try:
        yield
    except exc.OperationalError as error:
        if time.monotonic() < ends_at:
            raise
        raise TookTooLong(
            "This would read too much of the history; ask for a shorter range, or for one customer"
        ) from error
    finally:
        if isinstance(driver, sqlite3.Connection):
            driver.set_progress_handler(None, 0)


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError) as error:
        # An InternalError: the server has ended a silent transaction, or only reads since a failover.
        conflicts = getattr(getattr(error, "orig", None), "sqlstate", None) in _CONFLICTS
        kind = WriteConflict if conflicts else LedgerUnavailable
        raise kind(f"the ledger's database cannot be used: {_first_line(error)}") from error


@contextmanager
def _storable() -> Iterator[None]:
    try:
        yield
    except (exc.IntegrityError, exc.DataError, OverflowError, UnicodeError) as error:
        raise EntriesRefused(f"the ledger's database refuses the rows: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Return what the driver said, without the statement and the values that SQLAlchemy and PostgreSQL add below it."""
    said = getattr(error, "orig", None) or error
    return str(said).partition("\n")[0]
