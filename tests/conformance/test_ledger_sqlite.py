"""The ledger on SQLite: the suite, and what only a file can do wrong."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy
from sqlalchemy import event

from creditgate.core.journal import ORIGIN, StreamId
from creditgate.core.listing import CustomerFilter, Place
from creditgate.errors import StartupError
from creditgate.ledger import database as database_module
from creditgate.ledger.aggregates import GroupBy, Grouping, Question
from creditgate.ledger.database import Database, LedgerUnavailable
from creditgate.ledger.entries import PLACES_MAX
from creditgate.ledger.events import EventFilter
from creditgate.ledger.migrations import take_steps
from creditgate.ledger.store import Ledger
from tests.conformance.ledger import (
    EPOCH,
    FIRST,
    T0,
    LedgerConformance,
    append_all,
    batch_of,
    entry_at,
    make_entry,
    row_count,
    sum_of_deltas,
)
from tests.conformance.seals import SealsConformance

KILLS = 4
ENTRIES_PER_BATCH = 20
# Appends batches of entries 1, 2, 3 … behind the position that it finds, and says each position that was committed.
WRITER = f"""
import sys
from creditgate.ledger.store import Ledger
from tests.conformance.ledger import EPOCH, FIRST, T0, batch_of, make_entry
ledger = Ledger(sys.argv[1])
after = ledger.adopt(FIRST, EPOCH).stream_id
while True:
    start = max(after.ms - T0, 0) + 1
    batch = batch_of([make_entry(ms) for ms in range(start, start + {ENTRIES_PER_BATCH})], after=after)
    ledger.append([batch])
    after = batch.upto
    print(after.ms - T0, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database will be."""
    return tmp_path / "ledger.db"


@pytest.fixture
def url(path: Path) -> str:
    """A database that does not exist yet."""
    return f"sqlite:///{path}"


class TestSealsOnSQLite(SealsConformance):
    """The seals on a file."""

    @pytest.fixture
    def database(self, url: str) -> Iterator[Database]:
        """What is really in the tables."""
        database = Database(url)
        yield database
        database.close()


class TestLedgerOnSQLite(LedgerConformance):
    """The suite on a file."""

    def test_migrations_make_the_very_same_tables(
        self, ledger: Ledger, database: Database, tmp_path: Path
    ) -> None:
        """What Alembic does not compare, such as the condition of an index, is not lost in a migration either."""
        old = Database(f"sqlite:///{tmp_path / 'old.db'}")
        with old.writing() as connection:
            take_steps(connection)
            migrated = schema_of(connection)
        old.close()
        with database.reading() as connection:
            assert schema_of(connection) == migrated

    def test_the_files_are_private(self, ledger: Ledger, path: Path) -> None:
        """Nobody else on the machine can read what customers used."""
        append_all(ledger, [make_entry(1)])
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
        assert modes == dict.fromkeys(("ledger.db", "ledger.db-shm", "ledger.db-wal"), "0o600")

    def test_a_copy_has_everything_of_one_instant_and_is_private(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        """A backup is complete though others write, is readable by nobody else, and comes without side files."""
        append_all(ledger, [make_entry(ms) for ms in range(1, 50)])
        path = tmp_path / "copies" / "copy.db"
        path.parent.mkdir()
        ledger.copy_to(path)
        append_all(ledger, [make_entry(50)])
        assert [file.name for file in path.parent.iterdir()] == ["copy.db"]
        assert path.stat().st_mode & 0o777 == 0o600
        with closing(Ledger(f"sqlite:///{path}")) as copy:
            assert copy.positions()[FIRST].stream_id == StreamId(T0 + 49, 0)
            assert copy.entries(FIRST, ORIGIN, limit=100) == [make_entry(ms) for ms in range(1, 50)]

    def test_a_copy_never_overwrites(self, ledger: Ledger, path: Path) -> None:
        """A copy onto a file that holds something is refused, and that file stays as it is."""
        append_all(ledger, [make_entry(1)])
        with pytest.raises(LedgerUnavailable, match="cannot be copied"):
            ledger.copy_to(path)
        assert len(ledger.entries(FIRST, ORIGIN, limit=2)) == 1

    def test_a_file_that_others_could_read_is_made_private(self, path: Path, url: str) -> None:
        """A ledger that was restored from a backup with an open mode does not stay open."""
        path.touch(mode=0o644)
        Ledger(url).close()
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_commit_is_on_disk(self, database: Database) -> None:
        """The stream is trimmed after the commit, so a power cut right after it must not take it back."""
        with database.writing() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() > 0

    def test_who_wrote_last_writes_next(self, ledger: Ledger, database: Database) -> None:
        """A connection knows the pages as it wrote them; with one after the other, each flush would read them again."""
        with database.reading(), database.reading(), database.reading():
            pass
        writers = set()
        for _ in range(3):
            with database.writing() as connection:
                writers.add(id(connection.connection.driver_connection))
        assert len(writers) == 1

    def test_amounts_are_integers_in_the_file(self, ledger: Ledger, database: Database) -> None:
        """No amount or time is ever stored as a floating-point number."""
        append_all(ledger, [make_entry(1)])
        with database.reading() as connection:
            row = connection.execute(sqlalchemy.text("SELECT * FROM journal_items")).mappings().one()
            kinds = [f"typeof({column})" for column in row if re.search(r"_(whole|nano|ms|at)$", column)]
            types = connection.execute(sqlalchemy.text(f"SELECT {', '.join(kinds)} FROM journal_items")).one()
        assert len(types) == 10
        assert set(types) == {"integer", "null"}

    def test_a_locked_file_is_unavailable_and_not_an_error_of_ours(
        self, ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While a person holds the file with a shell, the flusher is told to come again, and readers go on."""
        monkeypatch.setattr(database_module, "SQLITE_BUSY_MS", 10)
        impatient = Ledger(f"sqlite:///{path}")
        with closing(sqlite3.connect(path, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerUnavailable, match="locked"):
                impatient.adopt(FIRST, EPOCH)
            assert impatient.positions() == {}
        impatient.adopt(FIRST, EPOCH)
        impatient.close()

    def test_readers_do_not_hold_up_the_writer(self, ledger: Ledger) -> None:
        """A long verify does not stop the flusher, and an append does not disturb a verify."""
        append_all(ledger, [make_entry(i) for i in range(1, 10)])
        proof = ledger.proof(FIRST, ["ada"])
        next(proof)
        append_all(ledger, [make_entry(10)])
        assert len(list(proof)) == 8

    def test_every_read_uses_an_index(self, ledger: Ledger) -> None:
        """A page of a long history costs what the page holds, and never a walk through everybody's."""
        append_all(ledger, [make_entry(1)])
        cursor = ledger.events(EventFilter(), limit=1)[0].cursor
        ada = EventFilter(customer=(FIRST, "ada"))
        by_customer = "journal_items_of_customer"
        reads: list[tuple[str, Callable[[], object]]] = [
            (
                "PRIMARY KEY (partition=? AND stream_ms=? AND stream_counter=?)",
                lambda: ledger.entries_at([(FIRST, StreamId(T0, n)) for n in range(PLACES_MAX)]),
            ),
            (
                "PRIMARY KEY (partition=? AND stream_ms>? AND stream_ms<?)",
                lambda: ledger.find_op(FIRST, "op", since_ms=1, until_ms=2),
            ),
            ("PRIMARY KEY (partition=? AND (", lambda: ledger.keys_since(FIRST, T0, limit=9)),
            ("PRIMARY KEY (partition=? AND (", lambda: list(ledger.customers_after(FIRST, StreamId(T0, 0)))),
            (
                f"{by_customer} (partition=? AND customer_id=? AND event_at",
                lambda: ledger.events(ada, limit=9),
            ),
            (
                f"{by_customer} (partition=? AND customer_id=? AND event_at>? AND (event_at,stream_ms,",
                lambda: ledger.events(ada, before=cursor, limit=9),
            ),
            ("journal_events_by_time (event_at", lambda: ledger.events(EventFilter(), limit=9)),
            (
                "journal_events_by_time (event_at>? AND (event_at,partition,stream_ms,",
                lambda: ledger.events(EventFilter(), before=cursor, limit=9),
            ),
            (
                f"{by_customer} (partition=? AND customer_id=? AND event_at>? AND event_at<?)",
                lambda: ledger.sums([usage_of(ada, by_row=True)]),
            ),
            (
                "deductions USING PRIMARY KEY (partition=? AND stream_ms=? AND stream_counter=? AND item>? AND item<?)",
                lambda: ledger.sums([usage_of(ada, by_row=True)]),
            ),
            (
                "journal_events_by_time (event_at>? AND event_at<?)",
                lambda: ledger.top_groups(usage_of(EventFilter()), by_count=False, limit=9),
            ),
            (f"{by_customer} (partition=? AND customer_id=?)", lambda: list(ledger.proof(FIRST, ["ada"]))),
            (
                f"{by_customer} (partition=? AND customer_id=?)",
                lambda: ledger.customer_states(FIRST, ["ada", "bob"]),
            ),
            (f"{by_customer} (partition=? AND customer_id>?)", lambda: ledger.customers(FIRST, limit=9)),
            (
                "journal_documents (partition=? AND customer_id=? AND document_type",
                lambda: ledger.documents(FIRST, None),
            ),
            (
                "journal_documents (partition=? AND customer_id=? AND document_type=?)",
                lambda: ledger.document_versions(FIRST, "ada", "terms"),
            ),
            (
                "journal_documents (partition=? AND customer_id=? AND document_type=? AND document_id=?)",
                lambda: ledger.latest_uid(FIRST, "ada"),
            ),
            (
                "journal_documents (partition=? AND customer_id=? AND document_type=? AND document_id=? AND",
                lambda: ledger.document_at(FIRST, "ada", "terms", StreamId(T0, 0)),
            ),
            (
                "deliveries_by_time (endpoint=? AND next_at<?)",
                lambda: ledger.outbox.due("one", T0, limit=9),
            ),
            (
                "journal_documents (partition=? AND customer_id=? AND document_type=? AND document_id=?)",
                lambda: ledger.newest_batches(batch_id="b", limit=9),
            ),
            (
                "journal_documents (partition=? AND customer_id=? AND document_type=? AND document_id<?)",
                lambda: ledger.newest_batches(before="b", limit=9),
            ),
            (
                "COVERING INDEX journal_documents (partition=? AND customer_id=? AND document_type=?)",
                ledger.open_batches,
            ),
            ("PRIMARY KEY (partition=? AND stream_ms>?", lambda: ledger.find_ops(FIRST, "b.", since_ms=1)),
        ]
        for expected, read in reads:
            with recorded_plans() as plans:
                read()
            steps = [step for plan in plans for step in plan]
            assert any(expected in step for step in steps), (expected, steps)
            assert not [step for step in steps if step.startswith("SCAN journal_items")], steps

    @pytest.mark.parametrize("newest_first", [True, False])
    def test_a_page_of_customers_is_a_piece_of_an_index(self, ledger: Ledger, newest_first: bool) -> None:
        """The list of a hundred thousand customers costs what the page holds: nothing is sorted."""
        for after, expected in ((None, "SCAN"), (Place(T0, "a"), "SEARCH")):
            with recorded_plans() as plans:
                ledger.listed(CustomerFilter(), after=after, limit=9, newest_first=newest_first)
            ((step,),) = plans
            assert step.startswith(f"{expected} listed_customers USING COVERING INDEX"), step

    def test_killed_anywhere_rows_and_position_agree(
        self, ledger: Ledger, database: Database, url: str
    ) -> None:
        """A sidecar killed with -9 in the middle of a flush loses nothing it committed and repeats nothing."""
        for kill in range(KILLS):
            said = kill_writer_after(url, commits=3 + kill)
            committed = ledger.positions()[FIRST].stream_id.ms - T0
            assert committed >= said
            assert committed % ENTRIES_PER_BATCH == 0
            assert row_count(database) == committed
            assert sum_of_deltas(database) == -20_000_000 * committed

    def test_a_write_cut_off_before_its_commit_leaves_nothing(self, ledger: Ledger, url: str) -> None:
        """The rows and the position that a dying process had written, but not committed, are gone together."""
        append_all(ledger, [make_entry(1)])
        dying = Ledger(url)
        batch = batch_of([make_entry(2)], after=StreamId(T0 + 1, 0))
        with pytest.raises(KeyboardInterrupt), interrupted_before_commit():
            dying.append([batch])
        dying.close()
        assert entry_at(ledger, FIRST, StreamId(T0 + 2, 0)) is None
        assert ledger.append([batch]) == 1

    def test_the_same_file_may_be_named_again_after_close(self, url: str) -> None:
        """A process that stops leaves one file with everything in it, so that copying it is a backup."""
        ledger = Ledger(url)
        ledger.migrate()
        append_all(ledger, [make_entry(1)])
        ledger.close()
        folder = Path(url.removeprefix("sqlite:///")).parent
        assert [file.name for file in folder.iterdir()] == ["ledger.db"]
        again = Ledger(url)
        assert entry_at(again, FIRST, StreamId(T0 + 1, 0)) == make_entry(1)
        again.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://root:secret@db/x",
        "sqlite:///no/such/dir/f",
    ],
)
def test_a_url_that_cannot_work_is_refused_in_one_sentence(url: str) -> None:
    """Whoever mistypes --database reads what to write instead, and no password in the log."""
    with pytest.raises(StartupError, match="--database") as raised:
        Ledger(url)
    assert "secret" not in raised.value.message


def usage_of(wanted: EventFilter, *, by_row: bool = False) -> Question:
    """A question about usage in some span."""
    wanted = msgspec.structs.replace(wanted, start_at=T0, end_at=T0 + 10)
    return Question(
        wanted=wanted, origin=T0, unit=1, grouping=Grouping(GroupBy.PROPERTY, "model"), by_row=by_row
    )


def schema_of(connection: sqlalchemy.Connection) -> dict[str, str]:
    """The statement that made each table and index, by name, spaces aside."""
    rows = connection.execute(sqlalchemy.text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    return {row.name: " ".join(row.sql.split()) for row in rows}


def kill_writer_after(url: str, *, commits: int) -> int:
    """Start a process that appends batch after batch, kill it, and return the last position it had told."""
    command = [sys.executable, "-c", WRITER, url]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | child_path()
    ) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(commits)]
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout.readlines()
        return max(int(line) for line in told if line.endswith("\n"))


def child_path() -> dict[str, str]:
    """The environment in which a child finds what this process found."""
    return {"PYTHONPATH": os.pathsep.join(sys.path)}


@contextmanager
def recorded_plans() -> Iterator[list[list[str]]]:
    """Collect the query plan of every SELECT that any engine runs meanwhile."""
    plans: list[list[str]] = []

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            plans.append([row[3] for row in rows])

    event.listen(sqlalchemy.Engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(sqlalchemy.Engine, "before_cursor_execute", explain)


@contextmanager
def interrupted_before_commit() -> Iterator[None]:
    """Raise in the moment between the last statement of a transaction and its commit."""

    def interrupt(_connection: Any) -> None:
        raise KeyboardInterrupt

    event.listen(sqlalchemy.Engine, "commit", interrupt)
    try:
        yield
    finally:
        event.remove(sqlalchemy.Engine, "commit", interrupt)
