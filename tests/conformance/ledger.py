"""What every database of the ledger must do: one suite, run by a test module for each.

A module subclasses `LedgerConformance` and gives the fixture `url`: the URL of an empty database. Entries are made by
`make_entry`, or by the strategy `entries` where every shape of them must survive.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import msgspec
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from creditgate.core.amounts import INPUT_MAX, NANOS
from creditgate.core.customers import Customer, Scheduled, Subscription
from creditgate.core.journal import ORIGIN, SYSTEM_PARTITION, Call, Entry, Item, Kind, StreamId
from creditgate.core.listing import CustomerFilter, Place, PlanFilter, changes_in, matches
from creditgate.errors import StartupError
from creditgate.ledger import store
from creditgate.ledger.aggregates import GroupBy, Grouping, Question, Sum, sums_of
from creditgate.ledger.appending import Batch, Poison
from creditgate.ledger.batches import StoredBatch
from creditgate.ledger.customers import Document, KeyUse, RowState
from creditgate.ledger.database import Database, EntriesRefused, TookTooLong
from creditgate.ledger.entries import PLACES_MAX
from creditgate.ledger.events import Event, EventCursor, EventFilter, events_of, property_text
from creditgate.ledger.inserting import PIECE_ROWS
from creditgate.ledger.migrations import HEAD, take_steps
from creditgate.ledger.outbox import Alert, Backlog, Delivery, ItemId, Letter
from creditgate.ledger.positions import Position, PositionMoved
from creditgate.ledger.store import Ledger
from creditgate.ledger.tables import metadata

EPOCH = "epoch-1"
T0 = 1_795_340_847_034  # Unix ms
FIRST, SECOND = "00", "01"  # two partitions
LARGEST = 10**15 * NANOS + 999_999_999  # beyond what a balance may reach, with all nine decimals
PROPERTIES = (
    "{}",
    '{"model":"gpt-4","n":5,"flag":true,"none":null}',
    '{"model":"","n":-0.5,"flag":false,"list":[1,"a"]}',
    '{"model":"5","request":{"region":"eu \\u00fc"}}',
    '{"model":{"a":1},"request":"eu"}',
    '{"model":"\u00fc","request":{"region":"it\'s"},"n":"5"}',
)
OTHER_OPS = ("bat_1", "bat_10.0", "bat_2.0", "BAT_1.0", "bat_1/0", "at_1.0")  # none begins with `bat_1.`
EDGES = (0, 1, -1, NANOS - 1, 1 - NANOS, NANOS, -NANOS, -20_000_000, 2**53 + 1, LARGEST, -LARGEST)


# Entries


def use(row_id: str, delta: int, after: int, *, number: int = 0, call: Call | None = None) -> Item:
    """An item that moves a row."""
    kind = Kind.USE if delta <= 0 else Kind.REFUND
    return Item(number, kind, call, row_id=row_id, delta_nanos=delta, after_nanos=after)


def put(
    document_type: str, document_id: str, text: str, *, number: int = 0, call: Call | None = None
) -> Item:
    """An item that puts a document."""
    return Item(number, Kind.PUT, call, document_type=document_type, document_id=document_id, document=text)


def track(
    op_id: str = "op", *, value: int = NANOS, occurred_at: int | None = None, feature: str = "messages"
) -> Call:
    """A call that is a usage event."""
    return Call("track", op_id, 1, feature_id=feature, value_nanos=value, occurred_at=occurred_at)


def make_entry(
    ms: int,
    *items: Item,
    partition: str = FIRST,
    customer: str | None = "ada",
    uid: str | None = "uid-1",
    sequence: int = 1,
    pinned_at: int | None = None,
) -> Entry:
    """An entry `ms` milliseconds after T0; without items, one usage that took 0.02 of the row `bal_1`."""
    stream_id = StreamId(T0 + ms, 0)
    items = items or (use("bal_1", -20_000_000, -20_000_000 * ms, call=track(f"op-{ms}")),)
    return Entry(partition, stream_id, customer, uid, sequence, pinned_at, items)


def batch_of(entries: Sequence[Entry], *, after: StreamId = ORIGIN, epoch: str = EPOCH) -> Batch:
    """A batch that begins at `after` and ends with the last entry."""
    return Batch(entries[0].partition, epoch, after, entries[-1].stream_id, entries)


def entry_at(ledger: Ledger, partition: str, stream_id: StreamId) -> Entry | None:
    """The entry that stands there."""
    return ledger.entries_at([(partition, stream_id)]).get((partition, stream_id))


def append_all(ledger: Ledger, entries: Sequence[Entry]) -> None:
    """Append entries, given in the order of their stream ids, behind what their partitions hold already."""
    for partition in sorted({entry.partition for entry in entries}):
        position = ledger.adopt(partition, EPOCH)
        of_partition = [entry for entry in entries if entry.partition == partition]
        ledger.append([batch_of(of_partition, after=position.stream_id)])


ALERT_TEXT = '{"feature_id":"messages","limit_type":"included"}'


def alert_entry(ms: int, *, partition: str = FIRST) -> Entry:
    """A track that took the last of a balance."""
    took = use("bal_1", -1, 0, call=track(f"op-{ms}"))
    return make_entry(ms, took, put("alert", "included.messages", ALERT_TEXT, number=1), partition=partition)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
amounts = st.sampled_from(EDGES) | st.integers(-LARGEST, LARGEST)
instants = st.integers(0, 2**53)
calls = st.builds(
    Call,
    verb=names,
    op_id=names,
    catalog_version=st.integers(0, 2**53),
    key=texts,
    fingerprint=texts,
    feature_id=texts,
    value_nanos=st.none() | amounts,
    occurred_at=st.none() | instants,
    event_name=texts,
    entity_id=texts,
    properties=st.dictionaries(texts, st.integers() | texts, max_size=3).map(json.dumps),
)
moves = st.builds(
    Item,
    number=st.just(0),
    kind=st.sampled_from([kind for kind in Kind if kind is not Kind.PUT]),
    row_id=names,
    delta_nanos=amounts,
    after_nanos=amounts,
)
puts = st.builds(
    Item, number=st.just(0), kind=st.just(Kind.PUT), document_type=names, document_id=names, document=texts
)
empties = st.builds(Item, number=st.just(0), kind=st.just(Kind.USE))


@st.composite
def item_lists(draw: st.DrawFn) -> tuple[Item, ...]:
    """Items numbered from 0, of which the first and some others begin a call."""
    shapes = draw(st.lists(moves | puts | empties, min_size=1, max_size=5))
    items = []
    for number, shape in enumerate(shapes):
        call = draw(calls) if number == 0 else draw(st.none() | calls)
        items.append(
            Item(
                number,
                shape.kind,
                call,
                row_id=shape.row_id,
                delta_nanos=shape.delta_nanos,
                after_nanos=shape.after_nanos,
                document_type=shape.document_type,
                document_id=shape.document_id,
                document=shape.document,
            )
        )
    return tuple(items)


@st.composite
def entries(draw: st.DrawFn, *, stream_id: StreamId) -> Entry:
    """Any entry that the journal's decoder can return, under this stream id."""
    return Entry(
        partition=FIRST,
        stream_id=stream_id,
        customer_id=draw(st.none() | names),
        uid=draw(st.none() | names),
        sequence=draw(st.integers(0, 2**53)),
        pinned_at=draw(st.none() | instants),
        items=draw(item_lists()),
    )


# The suite


class LedgerConformance:
    """The promises of the ledger. Inherited by one class per database."""

    @pytest.fixture
    def ledger(self, url: str) -> Iterator[Ledger]:
        """A migrated, empty ledger."""
        ledger = Ledger(url)
        ledger.migrate()
        yield ledger
        ledger.close()

    @pytest.fixture
    def database(self, url: str) -> Iterator[Database]:
        """The same database seen from outside, to look at what is really in the tables."""
        database = Database(url)
        yield database
        database.close()

    # Migrations

    def test_migrations_make_the_tables_that_the_code_expects(self, database: Database) -> None:
        """A new installation and an upgraded one have the same tables; else one of them fails at the first flush."""
        with database.writing() as connection:
            take_steps(connection)
            assert connection.scalars(sqlalchemy.text("SELECT version_num FROM alembic_version")).all() == [
                HEAD
            ]
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def test_migrating_again_changes_nothing(self, ledger: Ledger) -> None:
        """Every start migrates, so a restart must leave the record as it was."""
        append_all(ledger, [make_entry(1)])
        ledger.migrate()
        assert entry_at(ledger, FIRST, StreamId(T0 + 1, 0)) is not None

    def test_many_processes_may_migrate_at_once(self, url: str) -> None:
        """Sidecars that are started together on one empty database all come up."""
        ledgers = [Ledger(url) for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(Ledger.migrate, ledgers))
        for ledger in ledgers:
            assert ledger.positions() == {}
            ledger.close()

    def test_an_older_record_gets_its_list_of_customers(self, ledger: Ledger, database: Database) -> None:
        """Whoever upgrades finds the customers of before in the list, as if it had always been kept."""
        append_all(ledger, lives_of_customers())
        filters = (
            CustomerFilter(),
            CustomerFilter(text="ann"),
            CustomerFilter(plans=(PlanFilter("pro", (2,)),)),
            CustomerFilter(status="scheduled"),
        )
        kept = [everything_listed(ledger, wanted) for wanted in filters]
        with database.writing() as connection:
            for table in (
                "listed_customers",
                "listed_plans",
                "outbox",
                "deliveries",
                "history_begins",
                "openings",
                "journal_seals",
            ):
                connection.execute(sqlalchemy.text(f"DROP TABLE {table}"))
            connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '0001'"))
        ledger.migrate()
        assert [everything_listed(ledger, wanted) for wanted in filters] == kept
        assert all(kept)

    def test_a_newer_schema_is_refused(self, ledger: Ledger, database: Database) -> None:
        """An older release that is started by mistake on a newer database says so and touches nothing."""
        with database.writing() as connection:
            connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(StartupError, match="newer creditgate"):
            ledger.migrate()

    # Positions

    def test_a_partition_is_adopted_once(self, ledger: Ledger) -> None:
        """A sidecar that starts with another epoch sees the position there is, and does not overwrite it."""
        first = ledger.adopt(FIRST, EPOCH, StreamId(5, 1))
        assert ledger.adopt(FIRST, "epoch-2") == first == Position(FIRST, EPOCH, StreamId(5, 1))
        assert ledger.positions() == {FIRST: first}

    def test_a_fence_needs_the_position_that_was_read(self, ledger: Ledger) -> None:
        """Two sidecars that reconcile at once see each other's fences; the stream keeps its name and its place."""
        read = ledger.adopt(FIRST, EPOCH, StreamId(7, 0))
        fenced = ledger.put_fence(read, "one")
        with pytest.raises(PositionMoved):
            ledger.put_fence(read, "two")
        assert ledger.positions() == {FIRST: fenced}
        again = ledger.put_fence(fenced, "two")
        assert (again.journal, again.fence, again.stream_id) == (EPOCH, "two", StreamId(7, 0))

    def test_nothing_read_before_a_fence_is_stored_after_it(self, ledger: Ledger) -> None:
        """A flush that was under way while Redis lost what it had read does not bring back what was put right."""
        read = ledger.adopt(FIRST, EPOCH)
        fenced = ledger.put_fence(read, "one")
        with pytest.raises(PositionMoved):
            ledger.append([Batch(FIRST, read.epoch, read.stream_id, StreamId(9, 0))])
        ledger.append([Batch(FIRST, fenced.epoch, fenced.stream_id, StreamId(9, 0))])

    # The outbox

    def test_an_alert_goes_into_the_outbox_with_its_item(self, ledger: Ledger) -> None:
        """What a call crossed is told exactly when the call is kept; other documents are nobody's news."""
        append_all(ledger, [alert_entry(1), make_entry(2, put("terms", "-", "{}", call=track()))])
        assert ledger.outbox.alerts(limit=9) == [
            Alert(ItemId(FIRST, StreamId(T0 + 1, 0), 1), "ada", "included.messages", ALERT_TEXT)
        ]

    def test_an_alert_is_stored_once(self, ledger: Ledger) -> None:
        """A flusher that did not hear of its commit, or lost its lease, tells nobody twice."""
        ledger.adopt(FIRST, EPOCH)
        batch = batch_of([alert_entry(1)])
        ledger.append([batch])
        with pytest.raises(PositionMoved):
            ledger.append([batch])
        assert len(ledger.outbox.alerts(limit=9)) == 1

    def test_a_refused_batch_leaves_no_alert(self, ledger: Ledger) -> None:
        """Nobody is told of a call that is not in the record."""
        ledger.adopt(FIRST, EPOCH)
        too_large = make_entry(2, use("bal_1", 10**30, 0, call=track()))
        with pytest.raises(EntriesRefused):
            ledger.append([batch_of([alert_entry(1), too_large])])
        assert ledger.outbox.alerts(limit=9) == []

    def test_a_history_that_is_copied_is_no_news(self, ledger: Ledger) -> None:
        """Moving the data to another database does not send years of alerts once more."""
        ledger.adopt(FIRST, EPOCH)
        ledger.append([batch_of([alert_entry(1)])], is_news=False)
        assert ledger.outbox.alerts(limit=9) == []

    def test_alerts_come_oldest_first_whatever_their_partition(self, ledger: Ledger) -> None:
        """Receivers hear of things in the order in which they happened."""
        append_all(ledger, [alert_entry(2), alert_entry(1, partition=SECOND), alert_entry(3)])
        found = [alert.id.stream_id.ms - T0 for alert in ledger.outbox.alerts(limit=2)]
        assert found == [1, 2]

    def test_an_alert_becomes_one_delivery_per_endpoint_once(self, ledger: Ledger) -> None:
        """Two processes that hand on the same alert at once make no delivery twice."""
        append_all(ledger, [alert_entry(1)])
        (alert,) = ledger.outbox.alerts(limit=9)
        letters = {alert.id: Letter("some.event", "{}", ("one", "two"))}
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(ledger.outbox.hand_on, [letters] * 4))
        assert ledger.outbox.alerts(limit=9) == []
        assert ledger.outbox.endpoints() == {"one", "two"}
        assert ledger.outbox.due("one", T0 + 1, limit=9) == [Delivery(alert.id, "one", "some.event", "{}", 0)]
        assert ledger.outbox.due("one", T0, limit=9) == []
        assert ledger.outbox.busy_endpoints(["three", "two"], T0 + 1) == ["two"]

    def test_an_alert_that_nobody_wants_is_gone(self, ledger: Ledger) -> None:
        """Without webhooks the outbox does not grow."""
        append_all(ledger, [alert_entry(1)])
        (alert,) = ledger.outbox.alerts(limit=9)
        ledger.outbox.hand_on({alert.id: Letter("some.event", "{}", ())})
        assert (ledger.outbox.alerts(limit=9), ledger.outbox.backlog()) == ([], Backlog(0, 0))

    def test_a_failed_delivery_waits_and_at_last_is_dead(self, ledger: Ledger) -> None:
        """The next attempt is in the database, so a restart neither forgets nor hurries it."""
        (first,) = self._delivery(ledger)
        assert ledger.outbox.failed(first, reason="500", now_ms=T0 + 5, next_at=T0 + 50)
        assert not ledger.outbox.failed(first, reason="500", now_ms=T0 + 5, next_at=T0 + 99)
        assert ledger.outbox.due("one", T0 + 49, limit=9) == []
        (second,) = ledger.outbox.due("one", T0 + 50, limit=9)
        assert second.attempts == 1
        assert ledger.outbox.failed(second, reason="500", now_ms=T0 + 60, next_at=None)
        assert ledger.outbox.due("one", T0 + 10**9, limit=9) == []
        assert ledger.outbox.backlog() == Backlog(waiting=0, dead=1)
        ledger.outbox.forget_dead(T0 + 60)
        assert ledger.outbox.backlog().dead == 1
        ledger.outbox.forget_dead(T0 + 61)
        assert ledger.outbox.backlog().dead == 0

    def test_a_delivery_that_succeeded_or_whose_endpoint_went_is_gone(self, ledger: Ledger) -> None:
        """Nothing is delivered again, and nothing to an endpoint that was deleted."""
        (delivery,) = self._delivery(ledger, endpoints=("one", "two"))
        ledger.outbox.delivered(delivery)
        assert ledger.outbox.backlog() == Backlog(waiting=1, dead=0)
        ledger.outbox.forget(["two"])
        assert ledger.outbox.backlog() == Backlog(waiting=0, dead=0)

    def test_a_document_as_it_was_at_an_entry(self, ledger: Ledger) -> None:
        """An alert is told with the terms that it was seen under, not with those of today."""
        append_all(ledger, [make_entry(ms, put("terms", "-", str(ms), call=track())) for ms in (1, 3)])
        found = [ledger.document_at(FIRST, "ada", "terms", StreamId(T0 + ms, 0)) for ms in range(5)]
        assert found == [None, "1", "1", "3", "3"]

    def _delivery(self, ledger: Ledger, endpoints: tuple[str, ...] = ("one",)) -> list[Delivery]:
        append_all(ledger, [alert_entry(1)])
        (alert,) = ledger.outbox.alerts(limit=9)
        ledger.outbox.hand_on({alert.id: Letter("some.event", "{}", endpoints)})
        return ledger.outbox.due("one", T0 + 1, limit=9)

    # The append

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(data=st.data())
    def test_what_is_appended_is_read_back_equal(self, ledger: Ledger, data: st.DataObject) -> None:
        """Every field of every item survives, so a rebuild or a replayed answer has exactly what Redis had."""
        position = ledger.adopt(FIRST, EPOCH)
        stream_id = StreamId(position.stream_id.ms + 1, data.draw(st.integers(0, 9)))
        entry = data.draw(entries(stream_id=stream_id))
        ledger.append([batch_of([entry], after=position.stream_id)])
        assert entry_at(ledger, FIRST, stream_id) == entry

    def test_what_is_appended_in_pieces_is_all_there(self, ledger: Ledger) -> None:
        """Who appends may let others run in between; it is one transaction all the same."""
        entries = [make_entry(ms) for ms in range(1, 2 * PIECE_ROWS + 2)]
        position = ledger.adopt(FIRST, EPOCH)
        seen: list[Entry | None] = []

        def pause() -> None:
            seen.append(entry_at(ledger, FIRST, entries[0].stream_id))

        ledger.append([batch_of(entries, after=position.stream_id)], pause=pause)
        assert set(seen) == {None}
        assert [entry_at(ledger, FIRST, entry.stream_id) for entry in entries] == entries

    @pytest.mark.parametrize("nanos", EDGES)
    def test_amounts_are_kept_to_the_last_nano(self, ledger: Ledger, nanos: int) -> None:
        """A balance beyond what a double can hold comes back as it was, with its sign, and with 0 before the point."""
        entry = make_entry(1, use("bal_1", nanos, -nanos, call=track(value=nanos)))
        append_all(ledger, [entry])
        assert entry_at(ledger, FIRST, entry.stream_id) == entry

    def test_amounts_are_summed_exactly_in_sql(self, ledger: Ledger, database: Database) -> None:
        """A report that sums a million deductions inside the database is not a fraction of a credit off."""
        deltas = [*EDGES, LARGEST, LARGEST, -1, 1, 1]
        items = [use("bal_1", delta, 0, number=number) for number, delta in enumerate(deltas)]
        append_all(ledger, [make_entry(1, use("bal_0", 0, 0, call=track())), make_entry(2, *items)])
        with database.reading() as connection:
            sums = connection.execute(
                sqlalchemy.text(
                    "SELECT SUM(delta_whole) AS whole, SUM(delta_nano) AS nano FROM journal_items"
                )
            ).one()
        assert int(sums.whole) * NANOS + int(sums.nano) == sum(deltas)

    def test_the_position_moves_with_the_rows(self, ledger: Ledger, database: Database) -> None:
        """A flusher that restarts goes on after the last row that is there: none is lost and none comes twice."""
        append_all(ledger, [make_entry(1), make_entry(2)])
        assert ledger.positions()[FIRST].stream_id == StreamId(T0 + 2, 0)
        assert row_count(database) == 2

    def test_the_position_moves_past_what_leaves_no_rows(self, ledger: Ledger, database: Database) -> None:
        """Messages that were deleted from a stream, or set aside, do not hold up those behind them."""
        ledger.adopt(FIRST, EPOCH)
        ledger.append([Batch(FIRST, EPOCH, ORIGIN, StreamId(T0, 0))])
        assert ledger.positions()[FIRST].stream_id == StreamId(T0, 0)
        assert row_count(database) == 0

    def test_a_failing_row_leaves_nothing_behind(self, ledger: Ledger, database: Database) -> None:
        """A batch that fails in the middle is as if it had never been tried, in all its partitions."""
        for partition in (FIRST, SECOND):
            ledger.adopt(partition, EPOCH)
        before = ledger.positions()
        too_large = make_entry(2, use("bal_1", 10**30, 0, call=track()), partition=SECOND)
        good = make_entry(1)
        with pytest.raises(EntriesRefused):
            ledger.append([batch_of([good]), batch_of([too_large])])
        assert ledger.positions() == before
        assert row_count(database) == 0
        assert ledger.append([batch_of([good])]) == 1

    @pytest.mark.parametrize("after", [ORIGIN, StreamId(T0 + 1, 0), StreamId(T0 + 2, 0), StreamId(T0 + 2, 2)])
    def test_a_zombie_commits_nothing(self, ledger: Ledger, database: Database, after: StreamId) -> None:
        """A flusher that was paused while another took over cannot write old rows again when it wakes."""
        position = ledger.adopt(FIRST, EPOCH, StreamId(T0 + 2, 1))
        with pytest.raises(PositionMoved) as raised:
            ledger.append([batch_of([make_entry(3)], after=after)])
        assert raised.value.partitions == [FIRST]
        assert ledger.positions() == {FIRST: position}
        assert row_count(database) == 0

    def test_the_same_batch_twice_counts_once(self, ledger: Ledger, database: Database) -> None:
        """A flusher that did not hear that its commit went through tries again, and nothing is counted twice."""
        ledger.adopt(FIRST, EPOCH)
        batch = batch_of([make_entry(1), make_entry(2)])
        assert ledger.append([batch]) == 2
        with pytest.raises(PositionMoved):
            ledger.append([batch])
        assert row_count(database) == 2
        assert sum_of_deltas(database) == -40_000_000

    def test_a_row_that_is_there_already_is_refused(self, ledger: Ledger, database: Database) -> None:
        """If somebody moved a position back by hand, what comes again is told, and neither doubled nor passed over."""
        append_all(ledger, [make_entry(1)])
        with database.writing() as connection:
            connection.execute(sqlalchemy.text("UPDATE stream_positions SET stream_ms = 0"))
        with pytest.raises(EntriesRefused):
            ledger.append([batch_of([make_entry(1), make_entry(2)])])
        assert row_count(database) == 1

    def test_one_stale_partition_stops_the_whole_batch(self, ledger: Ledger, database: Database) -> None:
        """Whoever lost one partition lost its lease, and must not go on writing the others."""
        append_all(ledger, [make_entry(1)])
        ledger.adopt(SECOND, EPOCH)
        with pytest.raises(PositionMoved):
            ledger.append([batch_of([make_entry(1, partition=SECOND)]), batch_of([make_entry(1)])])
        assert row_count(database) == 1
        assert ledger.positions()[SECOND].stream_id == ORIGIN

    def test_another_epoch_commits_nothing(self, ledger: Ledger, database: Database) -> None:
        """Entries of a stream that was lost and made anew are not taken for the old stream's."""
        ledger.adopt(FIRST, EPOCH)
        with pytest.raises(PositionMoved):
            ledger.append([batch_of([make_entry(1)], epoch="epoch-2")])
        assert row_count(database) == 0

    def test_a_partition_nobody_adopted_commits_nothing(self, ledger: Ledger, database: Database) -> None:
        """Rows without a position would be read from the stream and written again."""
        with pytest.raises(PositionMoved):
            ledger.append([batch_of([make_entry(1)])])
        assert row_count(database) == 0

    def test_two_threads_with_one_batch_write_it_once(self, ledger: Ledger, database: Database) -> None:
        """Two flushers that believe they hold the lease count every deduction once, and exactly one is told so."""
        ledger.adopt(FIRST, EPOCH)
        expected, after, winners = 0, ORIGIN, 0
        for number in range(10):
            batch = batch_of([make_entry(1 + 20 * number + i) for i in range(20)], after=after)
            winners += sum(tried_at_once(ledger, [batch], [batch]))
            expected, after = expected + 20, batch.upto
        assert winners == 10
        assert row_count(database) == expected
        assert sum_of_deltas(database) == -20_000_000 * expected

    def test_two_threads_with_crossing_partitions_do_not_deadlock(self, ledger: Ledger) -> None:
        """Two writers that name the same partitions in another order do not wait for each other for ever."""
        partitions = [f"{number:02d}" for number in range(8)]
        for partition in partitions:
            ledger.adopt(partition, EPOCH)
        after = ORIGIN
        for ms in range(1, 31):
            batches = [
                batch_of([make_entry(ms, partition=partition)], after=after) for partition in partitions
            ]
            after = batches[0].upto
            assert sorted(tried_at_once(ledger, batches, batches[::-1])) == [False, True]

    def test_entries_outside_their_batch_are_refused(self, ledger: Ledger, database: Database) -> None:
        """A row beyond the position that is committed with it would come from the stream a second time."""
        ledger.adopt(FIRST, EPOCH)
        entry = make_entry(5)
        wrong = [
            Batch(FIRST, EPOCH, ORIGIN, StreamId(T0 + 4, 0), [entry]),
            Batch(FIRST, EPOCH, entry.stream_id, StreamId(T0 + 9, 0), [entry]),
            Batch(SECOND, EPOCH, ORIGIN, entry.stream_id, [entry]),
            Batch(FIRST, EPOCH, ORIGIN, StreamId(T0, 0), poison=[Poison(entry.stream_id, {}, "?")]),
        ]
        for batch in wrong:
            with pytest.raises(ValueError, match=r"is not in|is in a batch of"):
                ledger.append([batch])
        assert row_count(database) == 0

    def test_poison_is_kept_as_it_came(self, ledger: Ledger, database: Database) -> None:
        """A message that nobody could read is still there to be looked at, whatever bytes it held."""
        ledger.adopt(FIRST, EPOCH)
        fields = {"c": "nul \x00 half \udc80 \N{SNOWMAN}", "0": "use"}
        poison = Poison(StreamId(T0, 3), fields, "no sequence number")
        ledger.append([Batch(FIRST, EPOCH, ORIGIN, StreamId(T0 + 1, 0), [make_entry(1)], [poison])])
        with database.reading() as connection:
            row = connection.execute(sqlalchemy.text("SELECT * FROM poison_entries")).one()
        assert (row.partition, row.stream_ms, row.stream_counter) == (FIRST, T0, 3)
        assert (json.loads(row.fields), row.reason) == (fields, "no sequence number")
        assert ledger.poison_count() == 1

    # Looking things up

    def test_an_entry_that_is_not_there_is_none(self, ledger: Ledger) -> None:
        """Whether an unknown call took effect is decided by what is found, so nothing must be found by mistake."""
        append_all(ledger, [make_entry(1)])
        assert entry_at(ledger, FIRST, StreamId(T0 + 1, 1)) is None
        assert entry_at(ledger, SECOND, StreamId(T0 + 1, 0)) is None

    @pytest.mark.parametrize("count", [2, 8, 9, PLACES_MAX])
    def test_entries_are_found_together(self, ledger: Ledger, count: int) -> None:
        """Each with all its items and no one else's, whoever else is asked for beside it."""
        items = use("bal_1", -1, 5, call=track()), use("bal_2", -2, 6, number=1)
        made = [make_entry(number, *items) for number in range(1, count)]
        append_all(ledger, made)
        places = [(FIRST, entry.stream_id) for entry in made]
        found = ledger.entries_at([*reversed(places), (SECOND, made[0].stream_id)])
        assert found == dict(zip(places, made, strict=True))

    def test_pages_of_entries_meet_each_once_in_order(self, ledger: Ledger) -> None:
        """A history that is copied page by page arrives whole, each entry with all its items."""
        late = make_entry(5)
        same_ms = [
            Entry(FIRST, StreamId(T0 + 3, counter), "ada", "uid-1", counter, None, late.items)
            for counter in range(3)
        ]
        two = make_entry(2, use("a", -1, 1, call=track("x")), use("a", -1, 0, number=1))
        everything = [make_entry(1), two, *same_ms, make_entry(4, customer=None), late]
        append_all(ledger, [*everything, make_entry(1, partition=SECOND)])
        found: list[Entry] = []
        while page := ledger.entries(FIRST, found[-1].stream_id if found else ORIGIN, limit=2):
            assert len(page) <= 2
            found += page
        assert found == everything

    def test_an_op_is_found_within_its_span_only(self, ledger: Ledger) -> None:
        """A call whose answer was lost is found and not sent again, also when several were merged into one entry."""
        merged = make_entry(5, use("a", -1, 1, call=track("x")), use("a", -1, 0, number=1, call=track("y")))
        append_all(ledger, [make_entry(1), merged, make_entry(9)])
        at = merged.stream_id
        assert ledger.find_op(FIRST, "y", since_ms=T0, until_ms=T0 + 100) == at
        assert ledger.find_op(FIRST, "y", since_ms=at.ms, until_ms=at.ms) == at
        assert ledger.find_op(FIRST, "y", since_ms=T0, until_ms=at.ms - 1) is None
        assert ledger.find_op(FIRST, "y", since_ms=at.ms + 1, until_ms=T0 + 100) is None
        assert ledger.find_op(SECOND, "y", since_ms=T0, until_ms=T0 + 100) is None
        assert ledger.find_op(FIRST, "z", since_ms=T0, until_ms=T0 + 100) is None

    def test_ops_of_a_batch_are_found_by_how_they_begin(self, ledger: Ledger) -> None:
        """Whoever takes over a batch learns which of its items took effect, and takes no other's for them."""
        merged = make_entry(
            5, use("a", -1, 1, call=track("bat_1.0")), use("a", -1, 0, number=1, call=track("bat_1.10"))
        )
        others = [make_entry(6 + i, use("a", -1, 0, call=track(op))) for i, op in enumerate(OTHER_OPS)]
        append_all(ledger, [make_entry(1, use("a", -1, 2, call=track("bat_1.9"))), merged, *others])
        append_all(ledger, [make_entry(5, use("a", -1, 0, call=track("bat_1.7")), partition=SECOND)])
        assert ledger.find_ops(FIRST, "bat_1.", since_ms=T0) == {"bat_1.9", "bat_1.0", "bat_1.10"}
        assert ledger.find_ops(FIRST, "bat_1.", since_ms=T0 + 5) == {"bat_1.0", "bat_1.10"}
        assert ledger.find_ops(FIRST, "bat_1.", since_ms=T0 + 6) == set()
        assert ledger.find_ops(SECOND, "bat_1.", since_ms=T0) == {"bat_1.7"}

    def test_batches_are_open_until_their_second_document(self, ledger: Ledger) -> None:
        """After Redis lost everything, exactly the batches that were not worked off are worked off."""
        call = Call("batch_track", "op", 0)

        def system(ms: int, *items: Item) -> Entry:
            return make_entry(ms, *items, partition=SYSTEM_PARTITION, customer=None, uid=None)

        append_all(
            ledger,
            [
                system(1, put("batch", "b1", "[1]", call=call)),
                system(2, put("batch", "b2", "[2]", call=call), put("catalog", "-", "{}", number=1)),
                system(3, put("batch", "b1", "{}", call=call)),
                system(4, put("batch", "b0", "[0]", call=call)),
            ],
        )
        append_all(ledger, [make_entry(5, put("batch", "not one", "{}", call=call))])
        opened = {"b2": StreamId(T0 + 2, 0), "b0": StreamId(T0 + 4, 0)}
        assert ledger.open_batches() == opened
        closed = StoredBatch("b1", StreamId(T0 + 1, 0), StreamId(T0 + 3, 0), "{}")
        newest = [StoredBatch("b2", opened["b2"]), closed, StoredBatch("b0", opened["b0"])]
        assert ledger.newest_batches(limit=9) == newest
        assert ledger.newest_batches(limit=1) == newest[:1]
        assert ledger.newest_batches(before="b2", limit=1) == newest[1:2]
        assert ledger.newest_batches(before="b1", limit=9) == newest[2:]
        assert ledger.newest_batches(batch_id="b1", limit=9) == [closed]
        assert ledger.newest_batches(batch_id="b9", limit=9) == []
        assert [document.type for document in ledger.documents(SYSTEM_PARTITION, None)] == ["catalog"]

    def test_keys_since_gives_every_use_of_a_key(self, ledger: Ledger) -> None:
        """After Redis is rebuilt, an idempotency key that was used today still replays instead of charging again."""
        keyed = Call("track", "op", 1, key="k1", fingerprint="f1", value_nanos=1)
        other = Call("attach", "op2", 1, key="k2", fingerprint="f2")
        append_all(
            ledger,
            [
                make_entry(1, use("a", -1, 0, call=keyed)),
                make_entry(
                    5, use("a", -1, 0, call=track()), put("customer", "ada", "{}", number=1, call=other)
                ),
                make_entry(6, use("a", -1, 0, call=keyed), customer=None, uid=None),
                make_entry(7),
            ],
        )
        since = [
            KeyUse("ada", "uid-1", "k2", "f2", StreamId(T0 + 5, 0), 1),
            KeyUse(None, None, "k1", "f1", StreamId(T0 + 6, 0), 0),
        ]
        assert ledger.keys_since(FIRST, T0 + 2, limit=9) == since
        assert ledger.keys_since(FIRST, T0 + 2, limit=1) == since[:1]
        assert ledger.keys_since(FIRST, T0 + 2, after=since[0], limit=1) == since[1:]
        assert ledger.keys_since(FIRST, T0 + 2, after=since[1], limit=1) == []
        assert len(ledger.keys_since(FIRST, T0 + 1, limit=9)) == 3
        assert ledger.keys_since(SECOND, 0, limit=9) == []

    # Events

    def test_an_event_has_the_deductions_of_its_call(self, ledger: Ledger) -> None:
        """Calls that were merged into one entry are shown as separate events, each with what it took itself."""
        spill = [use("a", -2, 0, call=track("x", value=5)), use("b", -3, 7, number=1)]
        nothing = [Item(2, Kind.USE, track("y"))]
        given_back = [use("b", 4, 11, number=3, call=track("z", value=-4))]
        entry = make_entry(1, *spill, *nothing, *given_back)
        append_all(ledger, [entry])
        page = ledger.events(EventFilter(customer=(FIRST, "ada")), limit=10)
        assert [(event.call.op_id, event.deductions) for event in page] == [
            ("z", tuple(given_back)),
            ("y", ()),
            ("x", tuple(spill)),
        ]
        assert page == events_of(entry)[::-1]

    def test_only_usage_is_an_event(self, ledger: Ledger) -> None:
        """Grants, resets and documents are in the statement of a customer, never in the list of usage."""
        grant = Item(0, Kind.GRANT, Call("grant", "op", 1), row_id="a", delta_nanos=5, after_nanos=5)
        booked = use("a", -1, 0, call=Call("correct", "op", 1))
        kept = put("hold", "lock", "null", call=Call("settle", "op", 1))
        items = [grant, booked, kept, put("customer", "ada", "{}", call=Call("update", "op", 1))]
        append_all(ledger, [make_entry(i, item) for i, item in enumerate(items, 1)])
        assert ledger.events(EventFilter(), limit=10) == []

    def test_holds_are_events(self, ledger: Ledger) -> None:
        """What was held, and what came back or was used beyond it, adds up to the usage, also where no row moved."""
        hold = Item(0, Kind.HOLD, track("held", value=8), row_id="a", delta_nanos=-8, after_nanos=0)
        unhold = Item(0, Kind.UNHOLD, track("less", value=-3), row_id="a", delta_nanos=3, after_nanos=3)
        nothing = Item(0, Kind.UNHOLD, track("nothing", value=-1))
        append_all(ledger, [make_entry(i, item) for i, item in enumerate([hold, unhold, nothing], 1)])
        page = ledger.events(EventFilter(), limit=10)
        assert [event.call.value_nanos for event in page] == [-1, -3, 8]
        assert [len(event.deductions) for event in page] == [0, 1, 1]

    def test_a_document_that_is_gone_is_not_kept(self, ledger: Ledger) -> None:
        """A customer with a million settled holds is read back with the open ones only."""
        texts = ["{}", "null", "{}", "null", "{}"]
        append_all(
            ledger,
            [make_entry(i, put("hold", f"h{i % 2}", text)) for i, text in enumerate(texts, 1)],
        )
        (state,) = ledger.customer_states(FIRST, ["ada"])
        assert [(document.id, document.text) for document in state.documents] == [("h1", "{}")]

    def test_an_event_happened_when_the_caller_says(self, ledger: Ledger) -> None:
        """Usage that is reported late stands at its own time; a pinned customer's at the pinned clock."""
        said = make_entry(1, use("a", -1, 0, call=track("said", occurred_at=0)), pinned_at=T0 + 500)
        pinned = make_entry(2, use("a", -1, 0, call=track("pinned")), pinned_at=T0 + 500)
        plain = make_entry(3, use("a", -1, 0, call=track("plain")))
        append_all(ledger, [said, pinned, plain])
        page = ledger.events(EventFilter(customer=(FIRST, "ada")), limit=10)
        assert [(event.call.op_id, event.cursor.event_at) for event in page] == [
            ("pinned", T0 + 500),
            ("plain", T0 + 3),
            ("said", 0),
        ]

    def test_pages_of_events_meet_each_once(self, ledger: Ledger) -> None:
        """Somebody who exports usage page by page gets no event twice and misses none, while new ones arrive."""
        append_all(ledger, scattered_entries())
        expected = all_events(ledger, EventFilter())
        pages = paged(ledger, EventFilter(), limit=3, arriving=1_000)
        assert pages == expected
        assert pages == sorted(pages, key=lambda event: event.cursor, reverse=True)
        assert len({event.cursor for event in pages}) == len(pages) == 24

    @pytest.mark.parametrize("customer", ["ada", "bob"])
    def test_pages_of_one_customer_meet_each_once(self, ledger: Ledger, customer: str) -> None:
        """The same for one customer's page of usage, among others whose events have the same times."""
        append_all(ledger, scattered_entries())
        wanted = EventFilter(customer=(FIRST, customer))
        expected = [event for event in all_events(ledger, EventFilter()) if event.customer_id == customer]
        assert expected
        assert paged(ledger, wanted, limit=2, arriving=2_000) == expected

    def test_events_are_filtered(self, ledger: Ledger) -> None:
        """A report of one feature, one entity or one day holds what belongs to it and nothing else."""
        seat = Call("track", "seat", 1, feature_id="images", value_nanos=1, entity_id="seat_1")
        append_all(
            ledger,
            [
                make_entry(1, use("a", -1, 0, call=track("m"))),
                make_entry(2, use("a", -1, 0, call=seat)),
                make_entry(3, use("a", -1, 0, call=track("t", feature="tokens")), customer="bob"),
            ],
        )

        def ops(wanted: EventFilter) -> list[str]:
            return [event.call.op_id for event in ledger.events(wanted, limit=10)]

        assert ops(EventFilter()) == ["t", "seat", "m"]
        assert ops(EventFilter(customer=(FIRST, "ada"))) == ["seat", "m"]
        assert ops(EventFilter(feature_ids=["images", "tokens"])) == ["t", "seat"]
        assert ops(EventFilter(entity_id="seat_1")) == ["seat"]
        assert ops(EventFilter(start_at=T0 + 2, end_at=T0 + 3)) == ["seat"]
        assert ops(EventFilter(customer=(FIRST, "ada"), end_at=T0 + 2)) == ["m"]

    @pytest.mark.parametrize("place", ["model", "request.region", "nothing", "n", "flag", "none", "list"])
    def test_sql_reads_a_property_as_python_does(self, ledger: Ledger, place: str) -> None:
        """An event is in the same group, and passes the same filter, in the stream and a moment later in SQL."""
        append_all(ledger, [_told(ms, properties) for ms, properties in enumerate(PROPERTIES, 1)])
        for text in {property_text(properties, place) for properties in PROPERTIES}:
            if text is None:
                continue
            wanted = EventFilter(properties=[(place, text)])
            found = ledger.events(wanted, limit=99)
            assert found
            assert found == [event for event in all_events(ledger, EventFilter()) if wanted.matches(event)]

    @pytest.mark.parametrize("by_row", [False, True])
    @pytest.mark.parametrize(
        "grouping",
        [None, *(Grouping(by, "model" if by is GroupBy.PROPERTY else "") for by in GroupBy)],
        ids=lambda grouping: grouping.by if grouping else "alone",
    )
    def test_sums_are_those_of_the_events(
        self, ledger: Ledger, grouping: Grouping | None, by_row: bool
    ) -> None:
        """What a report adds up in the database is to the nano what its events add up to, merged entries included."""
        append_all(ledger, usage_entries())
        everything = all_events(ledger, EventFilter())
        for wanted in (
            EventFilter(),
            EventFilter(customer=(FIRST, "ada")),
            EventFilter(feature_ids=["images"], start_at=T0 + 3, end_at=T0 + 20),
            EventFilter(customer=(FIRST, "bob"), properties=[("model", "m1")]),
        ):
            question = Question(wanted=wanted, origin=T0, unit=7, grouping=grouping, by_row=by_row)
            expected = summed(
                one for event in everything for one in sums_of(event, question, ["m1", "ada", "seat_1"])
            )
            sums = ledger.sums([question], groups=["m1", "ada", "seat_1"])
            assert summed(sums.of[0]) == expected
            assert sums.upto[FIRST] == StreamId(T0 + 25, 0)

    def test_sums_are_exact_beyond_64_bits(self, ledger: Ledger) -> None:
        """A thousand of the largest amounts are added without an overflow, and without losing the last nano."""
        value = INPUT_MAX
        entries = [make_entry(ms, use("a", LARGEST, 0, call=track(value=value))) for ms in range(1, 1_001)]
        append_all(ledger, [*entries, make_entry(2_000, use("a", 1, 0, call=track(value=-1)))])
        question = Question(wanted=EventFilter(), origin=T0, unit=2**53)
        by_row = msgspec.structs.replace(question, by_row=True)
        (one,), (other,) = ledger.sums([question, by_row]).of
        assert one == Sum(0, "messages", None, None, 1_000 * value - 1, 1_001)
        assert other == Sum(0, "messages", None, "a", 1_000 * LARGEST + 1, 1_001)

    def test_the_groups_with_most_usage_come_first(self, ledger: Ledger) -> None:
        """A chart shows the ten largest groups, by what was used or by how often, and none that is not named."""
        shares = {"m1": [5, 5], "m2": [9], "m3": [10**9 * NANOS], "m4": [-7], "": [99], "m5": [9]}
        values = [(name, value) for name, values in shares.items() for value in values]
        append_all(
            ledger,
            [
                *(_told(ms, f'{{"model":"{name}"}}', value) for ms, (name, value) in enumerate(values, 1)),
                _told(50, "{}", 99),
            ],
        )
        question = Question(
            wanted=EventFilter(), origin=T0, unit=1, grouping=Grouping(GroupBy.PROPERTY, "model")
        )
        assert ledger.top_groups(question, by_count=False, limit=9) == ["m3", "m1", "m2", "m5", "m4"]
        assert ledger.top_groups(question, by_count=True, limit=3) == ["m1", "m2", "m3"]

    def test_a_question_that_takes_too_long_is_given_up(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A report over everything cannot keep the database busy for minutes; the next one is answered as ever."""
        append_all(ledger, [make_entry(ms) for ms in range(1, 4_000)])
        question = Question(wanted=EventFilter(), origin=T0, unit=1)
        with monkeypatch.context() as patched:
            patched.setattr(store, "QUESTION_SECONDS_MAX", 0.001)
            with pytest.raises(TookTooLong):
                ledger.sums([question])
        assert len(ledger.sums([question]).of[0]) == 3_999

    # A customer's state

    def test_the_latest_document_wins(self, ledger: Ledger) -> None:
        """A rebuild puts back the last version of a document, also when one entry put it twice."""
        call = Call("put", "op", 1)
        append_all(
            ledger,
            [
                make_entry(1, put("catalog", "main", "v1", call=call), customer=None, uid=None),
                make_entry(
                    2,
                    put("catalog", "main", "v2", call=call),
                    put("key", "k", "secret", number=1),
                    put("catalog", "main", "v3", number=2),
                    customer=None,
                    uid=None,
                    sequence=2,
                ),
                make_entry(3, put("customer", "ada", "{}", call=call)),
            ],
        )
        at = StreamId(T0 + 2, 0)
        assert ledger.documents(FIRST, None) == [
            Document("catalog", "main", "v3", 2, at),
            Document("key", "k", "secret", 2, at),
        ]
        assert [document.text for document in ledger.documents(FIRST, "ada")] == ["{}"]
        assert ledger.documents(FIRST, "nobody") == []
        assert ledger.document_versions(FIRST, None, "catalog") == [
            (StreamId(T0 + 1, 0), "v1"),
            (at, "v2"),
            (at, "v3"),
        ]

    def test_a_customer_is_rebuilt_from_the_last_items(self, ledger: Ledger) -> None:
        """Redis is filled again with the amounts and terms as of one sequence number, closed rows included."""
        expire = Item(1, Kind.EXPIRE, row_id="closed", delta_nanos=-5, after_nanos=0)
        append_all(
            ledger,
            [
                make_entry(1, put("customer", "ada", "{}", call=track()), use("closed", 5, 5, number=1)),
                make_entry(2, use("bal_1", -1, -1, call=track()), expire, sequence=2, pinned_at=T0),
                make_entry(3, use("bal_1", -1, -2, call=track()), use("bal_1", -1, -3, number=1), sequence=3),
                make_entry(4, use("bal_1", -1, -9, call=track()), customer="bob", sequence=8),
            ],
        )
        state, bob = ledger.customer_states(FIRST, ["ada", "nobody", "bob"])
        assert (bob.customer_id, bob.sequence, bob.documents) == ("bob", 8, ())
        assert bob.rows == (RowState("bal_1", Kind.USE, -9, 8),)
        assert (state.uid, state.sequence, state.stream_id, state.pinned_at) == (
            "uid-1",
            3,
            StreamId(T0 + 3, 0),
            None,
        )
        assert state.documents == (Document("customer", "ada", "{}", 1, StreamId(T0 + 1, 0)),)
        assert state.rows == (
            RowState("bal_1", Kind.USE, -3, 3),
            RowState("closed", Kind.EXPIRE, 0, 2),
        )
        assert ledger.customer_states(FIRST, ["nobody"]) == []
        assert ledger.customer_states(SECOND, ["ada"]) == []

    def test_a_customer_made_again_starts_empty(self, ledger: Ledger) -> None:
        """Whoever takes the id of a deleted customer gets none of the old balances and documents."""
        call = Call("put", "op", 1)
        append_all(
            ledger,
            [
                make_entry(
                    1, put("customer", "ada", "old", call=call), put("entity", "seat", "old", number=1)
                ),
                make_entry(2, use("old", -1, 9, call=track()), sequence=2),
                make_entry(3, put("customer", "ada", "new", call=call), uid="uid-2", sequence=1),
                make_entry(4, use("new", -1, 4, call=track()), uid="uid-2", sequence=2),
            ],
        )
        (state,) = ledger.customer_states(FIRST, ["ada"])
        assert (state.uid, [row.row_id for row in state.rows]) == ("uid-2", ["new"])
        assert [document.text for document in state.documents] == ["new"]
        assert list(state.documents) == ledger.documents(FIRST, "ada")
        assert [item.uid for item in ledger.proof(FIRST, ["ada"])] == ["uid-1"] * 3 + ["uid-2"] * 2

    def test_each_life_of_a_customer_has_its_own_events_and_an_end(self, ledger: Ledger) -> None:
        """Whoever takes the id of a deleted customer is not shown what that one used, and the books of both close."""
        call = Call("customers.delete", "op", 1)
        append_all(
            ledger,
            [
                made_as(1, Customer("ada", T0)),
                make_entry(2, use("old", -1, 9, call=track("old")), sequence=2),
                make_entry(3, put("customer", "-", "null", call=call), sequence=3),
                made_as(4, Customer("ada", T0 + 4), uid="uid-2"),
                make_entry(5, use("new", -1, 4, call=track("new")), uid="uid-2", sequence=2),
            ],
        )

        def ops(uid: str | None) -> list[str]:
            wanted = EventFilter(customer=(FIRST, "ada"), uid=uid)
            return [event.call.op_id for event in ledger.events(wanted, limit=9)]

        assert (ops("uid-1"), ops("uid-2"), ops(None)) == (["old"], ["new"], ["new", "old"])
        assert ledger.latest_uid(FIRST, "ada") == "uid-2"
        assert ledger.latest_uid(FIRST, "nobody") is None
        assert [item.is_end for item in ledger.proof(FIRST, ["ada"])] == [False, False, True, False, False]

    # All customers

    def test_customers_are_paged_by_their_bytes(self, ledger: Ledger) -> None:
        """Verify and rebuild reach every customer once, whatever language their ids are in."""
        ids = ["a", "B", "ä", "\N{GRINNING FACE}", "a b", "Z" * 256, "%", "user/1"]
        some = [make_entry(i, customer=name) for i, name in enumerate(ids, 1)]
        append_all(ledger, [*some, make_entry(90, customer=None), make_entry(91), make_entry(92)])
        append_all(ledger, [make_entry(1, customer="elsewhere", partition=SECOND)])
        pages: list[str] = []
        while page := ledger.customers(FIRST, after=pages[-1] if pages else None, limit=2):
            pages += page
        assert pages == sorted([*ids, "ada"], key=str.encode)

    def test_the_list_is_of_those_who_are_there_now(self, ledger: Ledger) -> None:
        """A customer who was deleted is not shown to anybody again; one who was made again is shown once, as new."""
        append_all(ledger, lives_of_customers())
        assert everything_listed(ledger) == [
            Place(T0 + 9, "gone and back"),
            Place(T0 + 3, "changed"),
            Place(T0 + 3, "ann"),
        ]
        assert everything_listed(ledger, newest_first=False) == everything_listed(ledger)[::-1]
        append_all(ledger, [make_entry(99, put("customer", "-", "null", call=Call("delete", "op", 1)))])
        append_all(ledger, [make_entry(100, put("customer", "-", "{}", call=Call("?", "op", 1)))])
        assert len(everything_listed(ledger)) == 3

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize("limit", [1, 3, 100])
    def test_pages_of_customers_meet_each_once(self, ledger: Ledger, newest_first: bool, limit: int) -> None:
        """Somebody who walks through all customers meets each once, though many were made in the same millisecond."""
        names = ["a", "B", "\xe4", "\N{GRINNING FACE}", "a b", "Z" * 256, "%", "user/1"]
        made = [created(n + 1, name, at=T0 + n // 3) for n, name in enumerate(names)]
        append_all(ledger, made)
        expected = sorted((T0 + n // 3, name.encode()) for n, name in enumerate(names))
        met: list[Place] = []
        while page := ledger.listed(
            CustomerFilter(), after=met[-1] if met else None, limit=limit, newest_first=newest_first
        ):
            assert len(page) <= limit
            met += page
        found = [(place.created_at, place.customer_id.encode()) for place in met]
        assert found == (expected[::-1] if newest_first else expected)

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(data=st.data())
    def test_the_list_is_filtered_as_its_words_say(self, ledger: Ledger, data: st.DataObject) -> None:
        """SQL finds the very customers that `matches` finds among those whom SQL does not have yet."""
        position = ledger.adopt(FIRST, EPOCH).stream_id
        customers = data.draw(st.lists(customer_documents, min_size=1, max_size=4))
        first = max(position.ms - T0, 0) + 1
        entries = [
            made_as(first + n, replace(customer, id=f"{customer.id}{n}"))
            for n, customer in enumerate(customers)
        ]
        ledger.append([batch_of(entries, after=position)])
        wanted = data.draw(customer_filters)
        all_found = everything_listed(ledger, wanted)
        here = {found.place: found for found in changes_in(entries).values() if found is not None}
        for place, found in here.items():
            assert (place in all_found) == matches(found, wanted), (found, wanted)

    @pytest.mark.parametrize(
        ("name", "text", "is_found"),
        [
            ("Ann Lee", "N L", True),
            ("Stra\xdfe", "STRASSE", True),
            ("\xc9MILE", "\xe9mile", True),
            ("100%", "0%", True),
            ("100 x", "0%", False),
            ("a_b", "A_B", True),
            ("axb", "a_b", False),
            ("back\\slash", "k\\s", True),
            ("it's", "'", True),
            ("nul\x00led", "nulled", True),
        ],
    )
    def test_a_search_means_what_it_says(self, ledger: Ledger, name: str, text: str, is_found: bool) -> None:
        """No sign in a search is a wildcard, case is ignored in every language, and no name stops the flusher."""
        append_all(ledger, [made_as(1, Customer("c-1", T0, name=name, email="x@example.com"))])
        assert bool(everything_listed(ledger, CustomerFilter(text=text))) is is_found

    def test_a_list_that_fails_leaves_no_rows(self, ledger: Ledger, database: Database) -> None:
        """The list and the journal are one transaction: neither is ahead of the other."""
        ledger.adopt(FIRST, EPOCH)
        too_large = make_entry(2, use("bal_1", 10**30, 0, call=track()))
        with pytest.raises(EntriesRefused):
            ledger.append([batch_of([created(1, "ann", at=T0), too_large])])
        assert everything_listed(ledger) == []

    def test_customers_after_a_position_are_those_that_redis_may_have_lost(self, ledger: Ledger) -> None:
        """When Redis comes back older than SQL, exactly the customers who changed since are put right."""
        changed = [("ada", 1), ("bob", 2), ("ada", 3), ("cid", 4), ("ada", 5)]
        append_all(ledger, [make_entry(ms, customer=name) for name, ms in changed])
        append_all(ledger, [make_entry(9, partition=SECOND, customer="dan"), make_entry(10, customer=None)])
        assert list(ledger.customers_after(FIRST, StreamId(T0 + 2, 0))) == ["ada", "cid"]
        assert list(ledger.customers_after(FIRST, StreamId(T0 + 5, 0))) == []

    def test_proof_has_every_item_in_order(self, ledger: Ledger) -> None:
        """Verify replays a history from its first item to its last; one left out would look like drift, or hide it."""
        late = make_entry(3, use("a", -2, 7, call=track(occurred_at=T0 - 999)), sequence=3)
        both = make_entry(
            2, use("a", -1, 9, call=track()), put("customer", "ada", "{}", number=1), sequence=2
        )
        append_all(ledger, [make_entry(1, use("a", 10, 10, call=track())), both, late])
        append_all(ledger, [make_entry(4, customer="bob"), make_entry(5, customer="cid")])
        items = list(ledger.proof(FIRST, ["bob", "nobody", "ada"]))
        assert [
            (i.customer_id, i.sequence, i.item, i.row_id, i.delta_nanos, i.after_nanos) for i in items
        ] == [
            ("bob", 1, 0, "bal_1", -20_000_000, -80_000_000),
            ("ada", 1, 0, "a", 10, 10),
            ("ada", 2, 0, "a", -1, 9),
            ("ada", 2, 1, None, None, None),
            ("ada", 3, 0, "a", -2, 7),
        ]
        assert [item.stream_id.ms - T0 for item in items] == [4, 1, 2, 2, 3]

    def test_a_read_sees_one_instant(self, ledger: Ledger, database: Database) -> None:
        """A customer is not rebuilt with the amounts of one moment and the documents of a later one."""
        append_all(ledger, [make_entry(1)])
        statement = sqlalchemy.text("SELECT COUNT(*) FROM journal_items")
        with database.reading() as connection:
            before = connection.execute(statement).scalar_one()
            append_all(ledger, [make_entry(2)])
            assert connection.execute(statement).scalar_one() == before == 1
        assert row_count(database) == 2

    def test_proof_sees_one_instant(self, ledger: Ledger) -> None:
        """A history that grows while it is verified is not half old and half new."""
        append_all(ledger, [make_entry(i, sequence=i) for i in range(1, 2_101)])
        proof = ledger.proof(FIRST, ["ada"])
        seen = [next(proof)]
        append_all(ledger, [make_entry(2_101, sequence=2_101)])
        seen += proof
        assert [item.sequence for item in seen] == list(range(1, 2_101))

    def test_a_proof_that_is_not_finished_can_be_closed(self, ledger: Ledger) -> None:
        """Verify stops at the first drift it cannot explain, and the flusher still gets its connection."""
        append_all(ledger, [make_entry(i) for i in range(1, 50)])
        for _ in range(20):
            proof = ledger.proof(FIRST, ["ada"])
            next(proof)
            assert hasattr(proof, "close")
            proof.close()
        append_all(ledger, [make_entry(50)])


# Customers


def made_as(ms: int, customer: Customer, *, sequence: int = 1, uid: str = "uid-1") -> Entry:
    """An entry that makes a customer, or keeps another version of one."""
    document = msgspec.json.encode(customer).decode()
    item = put("customer", "-", document, call=Call("create", f"op-{ms}", 1))
    return make_entry(ms, item, customer=customer.id, uid=uid, sequence=sequence)


def created(ms: int, customer_id: str, *, at: int) -> Entry:
    """An entry that makes a customer of whom only the id is known."""
    return made_as(ms, Customer(customer_id, at))


def lives_of_customers() -> list[Entry]:
    """One who stays, one who changes, one who is deleted, and one who is deleted and made again."""
    pro, later = Subscription("sub_1", "pro", 2, T0, T0), Scheduled("sub_2", "free", 1, T0, T0 + 9)
    gone = put("customer", "-", "null", call=Call("delete", "op", 1))
    return [
        created(1, "ann", at=T0 + 3),
        made_as(2, Customer("changed", T0 + 3, name="Old")),
        made_as(
            3,
            Customer("changed", T0 + 3, name="Joanna", subscriptions=(pro,), scheduled=(later,)),
            sequence=2,
        ),
        created(4, "gone", at=T0),
        make_entry(5, gone, customer="gone", sequence=2),
        made_as(6, Customer("gone and back", T0 + 4, name="Anna", subscriptions=(pro,))),
        make_entry(7, gone, customer="gone and back", sequence=2),
        made_as(8, Customer("gone and back", T0 + 9), uid="uid-2"),
    ]


words = st.text(st.sampled_from("aA\xdfs%_\\ \x00\u0130\u0131i"), max_size=4)
customer_documents = st.builds(
    Customer,
    id=st.text(st.sampled_from("aB%_"), min_size=1, max_size=3),
    created_at=st.integers(T0, T0 + 3),
    name=st.none() | words,
    email=st.none() | words,
    subscriptions=st.lists(
        st.builds(
            Subscription,
            id=st.just("sub"),
            plan_id=st.sampled_from(["free", "pro", "pro_2"]),
            plan_version=st.integers(1, 3),
            started_at=st.just(T0),
            anchor=st.just(T0),
        ),
        max_size=2,
    ).map(tuple),
    scheduled=st.lists(
        st.builds(
            Scheduled,
            id=st.just("sub"),
            plan_id=st.sampled_from(["free", "pro"]),
            plan_version=st.integers(1, 3),
            created_at=st.just(T0),
            starts_at=st.just(T0),
        ),
        max_size=1,
    ).map(tuple),
)
customer_filters = st.builds(
    CustomerFilter,
    text=words,
    plans=st.lists(
        st.builds(
            PlanFilter,
            st.sampled_from(["free", "pro", "nothing"]),
            st.lists(st.integers(1, 3), max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    status=st.sampled_from([None, "active", "scheduled"]),
    since=st.none() | st.integers(T0 - 1, T0 + 4),
    until=st.none() | st.integers(T0 - 1, T0 + 4),
)


def everything_listed(
    ledger: Ledger, wanted: CustomerFilter | None = None, *, newest_first: bool = True
) -> list[Place]:
    """The places of all customers on one page."""
    return ledger.listed(wanted or CustomerFilter(), limit=1_000, newest_first=newest_first)


# Looking from outside


def row_count(database: Database) -> int:
    """The number of items in the record."""
    with database.reading() as connection:
        return int(connection.execute(sqlalchemy.text("SELECT COUNT(*) FROM journal_items")).scalar_one())


def sum_of_deltas(database: Database) -> int:
    """The sum of all deltas in nanos, summed by the database."""
    statement = "SELECT SUM(delta_whole), SUM(delta_nano) FROM journal_items"
    with database.reading() as connection:
        whole, nano = connection.execute(sqlalchemy.text(statement)).one()
    return int(whole) * NANOS + int(nano)


def tried(ledger: Ledger, batches: Sequence[Batch], barrier: Barrier) -> bool:
    """Whether the append went through; False if a position had moved."""
    barrier.wait()
    try:
        ledger.append(batches)
    except PositionMoved:
        return False
    return True


def tried_at_once(ledger: Ledger, *appends: Sequence[Batch]) -> list[bool]:
    """Append each from a thread of its own at the same moment; whether they went through, in order."""
    barrier = Barrier(len(appends))
    with ThreadPoolExecutor(len(appends)) as threads:
        tries = [threads.submit(tried, ledger, batches, barrier) for batches in appends]
    return [attempt.result() for attempt in tries]


def _told(ms: int, properties: str, value: int = NANOS, **more: Any) -> Entry:
    """An entry of one usage with these properties."""
    call = Call("track", f"op-{ms}", 1, feature_id="messages", value_nanos=value, properties=properties)
    return make_entry(ms, use("bal_1", -value, 0, call=call), **more)


def usage_entries() -> list[Entry]:
    """Usage of two customers and three features, merged entries among them, with properties and deductions."""
    entries = []
    for ms in range(1, 26):
        model = ('{"model":"m1"}', '{"model":"m2"}', "{}", '{"model":""}', '{"model":null}')[ms % 5]
        calls = [
            Call(
                "track",
                f"op-{ms}-{number}",
                1,
                feature_id=("messages", "images", "tokens")[(ms + number) % 3],
                value_nanos=EDGES[(ms + number) % 6] * (ms + 1),
                occurred_at=T0 + (ms * 13) % 40 if ms % 4 == 0 else None,
                entity_id="seat_1" if ms % 3 == 0 else "",
                properties=model,
            )
            for number in range(1 + ms % 2)
        ]
        items: list[Item] = []
        for call in calls:
            for part in range(ms % 3):
                first = call if part == 0 else None
                items.append(use(f"bal_{part}", -ms * NANOS - part, 0, number=len(items), call=first))
            if ms % 3 == 0:
                items.append(Item(len(items), Kind.USE, call))
        if ms % 7 == 0:
            items.append(put("terms", "-", "{}", number=len(items), call=Call("attach", "op", 1)))
            items.append(use("bal_9", 5, 5, number=len(items)))
        entries.append(make_entry(ms, *items, customer=("ada", "bob")[ms % 2]))
    return entries


def summed(sums: Iterable[Sum]) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Sums by what they are of: the amount and how many events."""
    found: dict[tuple[Any, ...], tuple[int, int]] = {}
    for one in sums:
        name = (one.units, one.feature_id, one.group, one.row_id)
        nanos, events = found.get(name, (0, 0))
        found[name] = (nanos + one.nanos, events + one.events)
    return found


def scattered_entries() -> list[Entry]:
    """Twelve entries of two customers with two events each, at times that repeat and run against the stream."""
    made = []
    for ms in range(1, 13):
        items = [
            use("a", -1, 0, number=number, call=track(f"{ms}-{number}", occurred_at=T0 - ms // 4))
            for number in range(2)
        ]
        partition, customer = (SECOND, "cid") if ms % 3 == 0 else (FIRST, ("ada", "bob")[ms % 2])
        made.append(make_entry(ms, *items, customer=customer, partition=partition))
    return made


def all_events(ledger: Ledger, wanted: EventFilter) -> list[Event]:
    """Every event on one page."""
    return ledger.events(wanted, limit=1_000)


def paged(ledger: Ledger, wanted: EventFilter, *, limit: int, arriving: int) -> list[Event]:
    """Every event that following the pages meets, while a new one arrives before each page but the first."""
    met: list[Event] = []
    before: EventCursor | None = None
    while page := ledger.events(wanted, before=before, limit=limit):
        met += page
        before = page[-1].cursor
        arriving += 1
        append_all(ledger, [make_entry(arriving)])
    return met
