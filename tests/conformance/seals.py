"""What the seals must find on every database; inherited by one class for each, as `LedgerConformance` is."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from creditgate.core.amounts import NANOS
from creditgate.core.journal import ORIGIN, SYSTEM_PARTITION, Entry, StreamId
from creditgate.ledger import seals
from creditgate.ledger.appending import Batch, Poison
from creditgate.ledger.database import Database
from creditgate.ledger.positions import PositionMoved
from creditgate.ledger.sealing import COLUMNS, SealKeys
from creditgate.ledger.seals import JournalSealed, SealBroken
from creditgate.ledger.store import Ledger
from creditgate.ledger.tables import journal_items
from tests.conformance.ledger import EPOCH, FIRST, SECOND, T0, batch_of, entries, make_entry, put, track, use

KEYS = SealKeys([b"k" * 32])
NEWER = SealKeys([b"n" * 32, b"k" * 32])
BATCHES, ENTRIES = 5, 3  # of each
EDITED = T0 + 5  # an entry in the second batch, (T0 + 3, T0 + 6]
AT = f"partition = '{FIRST}' AND stream_ms = {EDITED}"
IDENTITY = ("partition", "stream_ms", "stream_counter", "item")
RANGE = f"the rows in ({T0 + 3}-0, {T0 + 6}-0] are not those that were sealed"
NEXT_RANGE = f"the rows in ({T0 + 3}-0, {T0 + 9}-0] are not those that were sealed"
OF_RANGE = f"partition = '{FIRST}' AND stream_ms > {T0 + 3} AND stream_ms <= {T0 + 6}"
LAST = T0 + BATCHES * ENTRIES
TAMPERED = {
    "a row is gone": (f"DELETE FROM journal_items WHERE {AT}", RANGE),
    "a row is elsewhere": (f"UPDATE journal_items SET stream_counter = 1 WHERE {AT}", RANGE),
    "two rows are in another order": (
        f"UPDATE journal_items SET item = 7 WHERE {AT} AND item = 0;"
        f"UPDATE journal_items SET item = 0 WHERE {AT} AND item = 1;"
        f"UPDATE journal_items SET item = 1 WHERE {AT} AND item = 7",
        RANGE,
    ),
    "a row is more": (
        f"INSERT INTO journal_items (partition, stream_ms, stream_counter, item, sequence, kind)"
        f" VALUES ('{FIRST}', {EDITED}, 0, 2, 5, 'use')",
        RANGE,
    ),
    "a range is gone with its seal": (
        f"DELETE FROM journal_items WHERE {OF_RANGE}; DELETE FROM journal_seals WHERE {OF_RANGE}",
        f"the rows in ({T0 + 3}-0, {T0 + 9}-0] are not",
    ),
    "a seal is another one": (f"UPDATE journal_seals SET mac = 'x' WHERE {OF_RANGE}", RANGE),
    "a seal has another key": (f"UPDATE journal_seals SET key_id = 'x' WHERE {OF_RANGE}", "not in the key file"),
    "the oldest are gone": (
        f"DELETE FROM journal_seals WHERE stream_ms < {T0 + 6}; DELETE FROM journal_items WHERE stream_ms < {T0 + 6}",
        f"the seals before {T0 + 6}-0 are missing",
    ),
    "another one is said to be the first": (
        f"UPDATE journal_seals SET begins = (SELECT min(begins) FROM journal_seals WHERE partition = '{FIRST}')"
        f" WHERE {OF_RANGE}; DELETE FROM journal_seals WHERE stream_ms < {T0 + 6}",
        f"the seals before {T0 + 6}-0 are missing",
    ),
    "all seals are gone": ("DELETE FROM journal_seals", "it has no seal"),
    "the last are gone": (
        f"DELETE FROM journal_items WHERE stream_ms > {T0 + 6}; DELETE FROM journal_seals WHERE stream_ms > {T0 + 6}",
        f"the last seal is {T0 + 6}-0, the position {LAST}-0",
    ),
    "the last seal is gone": (f"DELETE FROM journal_seals WHERE stream_ms = {LAST}", f"the position {LAST}-0"),
    "the position is another one": ("UPDATE stream_positions SET stream_counter = 1", f"the position {LAST}-1"),
    "the position is gone": ("DELETE FROM stream_positions", "the position None"),
    "a row follows": (
        f"INSERT INTO journal_items (partition, stream_ms, stream_counter, item, sequence, kind)"
        f" VALUES ('{FIRST}', {LAST + 1}, 0, 0, 9, 'use')",
        f"there are rows after the last seal, {LAST}-0",
    ),
}  # fmt: skip


class SealsConformance:
    """The promises of the seals."""

    @pytest.fixture
    def sealed(self, url: str) -> Iterator[Ledger]:
        """A ledger with a key, and five batches of three entries in one partition."""
        ledger = Ledger(url, KEYS)
        ledger.migrate()
        ledger.adopt(FIRST, EPOCH)
        assert ledger.begin_seals() == {FIRST: ORIGIN}
        for batch in batches_of(whole_history()):
            ledger.append([batch])
        yield ledger
        ledger.close()

    def test_what_is_untouched_is_as_it_was_sealed(self, sealed: Ledger) -> None:
        """No false alarm, on any page; and a chain that has begun does not begin again."""
        assert differences(sealed) == []
        assert sealed.begin_seals() == {}

    def test_every_edit_is_found_in_its_range(self, sealed: Ledger, database: Database) -> None:
        """No column of a row can be changed by who has no key, and the two seals between which it was are named."""
        for column in set(COLUMNS) - set(IDENTITY):
            for value in ("NULL", "'7'") if journal_items.c[column].nullable else ("'7'",):
                with tampered(
                    database, f"UPDATE journal_items SET {column} = {value} WHERE {AT} AND item = 0"
                ) as (connection, changed):
                    found = of_page(connection)
                    assert found == ([f"partition {FIRST}: {RANGE}"] if changed else []), column

    @pytest.mark.parametrize("name", TAMPERED)
    def test_what_was_tampered_with_is_found(self, sealed: Ledger, database: Database, name: str) -> None:
        """Rows and seals that are gone, more, elsewhere or cut off are found, and no other range is blamed."""
        statements, text = TAMPERED[name]
        with tampered(database, statements) as (connection, _):
            found, *others = of_page(connection)
            assert text in found
            assert len(others) == (
                name == "a seal is another one"
            )  # it is what the next range begins from, too

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(data=st.data())
    def test_any_entry_is_read_as_it_was_sealed(self, sealed: Ledger, data: st.DataObject) -> None:
        """Whatever an entry holds, the database gives back the very bytes that were sealed: no alarm is false."""
        after = sealed.adopt(FIRST, EPOCH).stream_id
        entry = data.draw(entries(stream_id=StreamId(after.ms + 1, 0)))
        sealed.append([batch_of([entry], after=after)])
        assert differences(sealed) == []

    def test_a_zombie_seals_nothing(self, sealed: Ledger) -> None:
        """A flusher that lost its lease leaves the chain as it is."""
        with pytest.raises(PositionMoved):
            sealed.append([batch_of([make_entry(99)], after=StreamId(T0 + 3, 0))])
        assert differences(sealed) == []

    def test_every_move_of_the_position_is_sealed_once(self, sealed: Ledger) -> None:
        """Messages that are set aside, or a batch that moves nothing, leave no gap and stop no flush."""
        at, next_at = StreamId(LAST, 0), StreamId(LAST + 1, 0)
        for batch in (
            Batch(FIRST, EPOCH, at, next_at, poison=[Poison(next_at, {"a": "b"}, "no entry")]),
            Batch(FIRST, EPOCH, next_at, next_at),
        ):
            sealed.append([batch])
            assert differences(sealed) == []

    def test_a_key_may_follow_another(self, sealed: Ledger, url: str) -> None:
        """After a rotation the old key is needed to check only, and without it that is said."""
        newer = Ledger(url, NEWER)
        newer.append([batch_of([make_entry(LAST - T0 + 1)], after=StreamId(LAST, 0))])
        assert differences(newer) == []
        alone = Ledger(url, SealKeys([b"n" * 32]))
        found = differences(alone)
        assert len(found) == 1 + BATCHES  # whose beginning it is cannot be said either
        assert KEYS.current_id in found[1]
        for ledger in (newer, alone):
            ledger.close()

    def test_seals_may_begin_late_and_go_on_with_the_key_alone(self, url: str) -> None:
        """Who turns them on has them from then on; a process without the key adds nothing that is not sealed."""
        plain, keyed = Ledger(url), Ledger(url, KEYS)
        plain.migrate()
        for partition in (FIRST, SYSTEM_PARTITION):
            plain.adopt(partition, EPOCH)
        plain.append([batch_of([make_entry(1)])])
        assert differences(keyed) == [f"partition {FIRST}: it has no seal"]
        assert keyed.begin_seals() == {FIRST: StreamId(T0 + 1, 0), SYSTEM_PARTITION: ORIGIN}
        assert differences(keyed) == []
        for refused in (
            lambda: plain.append([batch_of([make_entry(2)], after=StreamId(T0 + 1, 0))]),
            lambda: plain.prune_step(FIRST, T0),
        ):
            with pytest.raises(JournalSealed):
                refused()
        keyed.append([batch_of([make_entry(2)], after=StreamId(T0 + 1, 0))])
        assert differences(keyed) == []
        for ledger in (plain, keyed):
            ledger.close()

    @pytest.mark.parametrize("begins", [1, 4, 5, 9, LAST - T0])
    def test_a_prune_cuts_the_chain_anywhere(self, sealed: Ledger, url: str, begins: int) -> None:
        """The history may begin in the middle of what one seal holds; the rest is sealed as before, and goes on."""
        rotated = Ledger(url, NEWER)
        for ledger, at in ((sealed, begins), (rotated, begins + 1)):
            while ledger.prune_step(FIRST, T0 + at).items:
                assert differences(ledger) == []
        assert differences(rotated) == []
        rotated.append([batch_of([make_entry(LAST - T0 + 1)], after=StreamId(LAST, 0))])
        assert differences(rotated) == []
        rotated.close()

    def test_a_prune_removes_nothing_that_was_edited(self, sealed: Ledger, database: Database) -> None:
        """What is not as it was sealed is evidence: it stays, though its amounts add up."""
        with database.writing() as connection:
            connection.execute(
                sqlalchemy.text(f"UPDATE journal_items SET feature_id = 'x' WHERE {AT} AND item = 0")
            )
        with pytest.raises(SealBroken, match="not those that were sealed"):
            sealed.prune_step(FIRST, LAST)
        with database.reading() as connection:
            assert connection.execute(sqlalchemy.text(f"SELECT 1 FROM journal_items WHERE {AT}")).first()

    def test_other_partitions_are_sealed_anew(self, sealed: Ledger, database: Database) -> None:
        """Rows that a change of the partitions has renamed are sealed under their new names, and found edited there."""
        sealed.adopt(SYSTEM_PARTITION, EPOCH)
        sealed.begin_seals()
        sealed.repartition(
            (FIRST,),
            (FIRST, SECOND),
            place=lambda customer_id: SECOND,
            epochs={FIRST: "a", SECOND: "b"},
            settings=lambda ms: Entry(
                SYSTEM_PARTITION,
                StreamId(ms, 0),
                None,
                None,
                1,
                None,
                (put("settings", "-", "{}", call=track()),),
            ),
        )
        for partition in (SYSTEM_PARTITION, FIRST, SECOND):
            assert differences(sealed, partition) == []
        with tampered(database, "UPDATE journal_items SET sequence = 2 WHERE sequence = 3") as (
            connection,
            _,
        ):
            assert of_page(connection, SECOND) != []


def whole_history() -> list[Entry]:
    """Entries that add up; each with an item that is usage and one that is a document."""
    took = -NANOS
    return [
        make_entry(
            number,
            use("bal_1", took, took * number, call=track(f"op-{number}", occurred_at=T0 - number)),
            put("customer", "ada", f'{{"n":{number}}}', number=1),
            sequence=number,
        )
        for number in range(1, BATCHES * ENTRIES + 1)
    ]


def batches_of(history: list[Entry]) -> list[Batch]:
    """The history in batches of a few entries."""
    after, batches = ORIGIN, []
    for start in range(0, len(history), ENTRIES):
        batches.append(batch_of(history[start : start + ENTRIES], after=after))
        after = batches[-1].upto
    return batches


def differences(ledger: Ledger, partition: str = FIRST) -> list[str]:
    """What the seals of a partition say, from its first page to its last."""
    found: list[str] = []
    after = None
    while True:
        page = ledger.check_seals(partition, after)
        assert page is not None
        found += page.differences
        after = page.last
        if after is None:
            return found


def of_page(connection: Connection, partition: str = FIRST) -> list[str]:
    """The same, seen by one connection."""
    first = seals.check_page(connection, KEYS, partition, None)
    if first.last is None:
        return list(first.differences)
    return [*first.differences, *seals.check_page(connection, KEYS, partition, first.last).differences]


class TakeBack(Exception):
    """Rolls a transaction back."""


@contextmanager
def tampered(database: Database, statements: str) -> Iterator[tuple[Connection, bool]]:
    """Yield a connection that sees what these statements changed, and whether they changed a row; then take it back."""
    try:
        with database.writing() as connection:
            before = rows_of(connection)
            for statement in statements.split(";"):
                connection.execute(sqlalchemy.text(statement))
            yield connection, rows_of(connection) != before
            raise TakeBack
    except TakeBack:
        return


def rows_of(connection: Connection) -> list[tuple[object, ...]]:
    """Every row of items."""
    return sorted(map(tuple, connection.execute(sqlalchemy.text("SELECT * FROM journal_items"))), key=repr)
