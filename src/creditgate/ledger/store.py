"""`Ledger`, the door of the room: append what the streams hold, exactly once, and answer from the record.

The methods open the transactions; the statements, and what their rows mean, are the business of the modules beside.

The methods block: the engine calls them through `asyncio.to_thread`, from as many threads as it likes. Everything that
a method returns is complete, except the iterators: those hold a connection and one instant of the
database until they are exhausted or closed, and are consumed within one thread.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Select

from creditgate.core.journal import ORIGIN, Entry, StreamId
from creditgate.core.listing import CustomerFilter, Place
from creditgate.ledger import (
    aggregates,
    appending,
    customers,
    entries,
    events,
    listing,
    migrations,
    positions,
    pruning,
    repartition,
    seals,
)
from creditgate.ledger.aggregates import Question, Sums
from creditgate.ledger.appending import Batch
from creditgate.ledger.batches import StoredBatch, newest_batches, open_batches
from creditgate.ledger.customers import CustomerState, Document, KeyUse, ProofItem
from creditgate.ledger.database import Database
from creditgate.ledger.entries import EntryPlace
from creditgate.ledger.events import Event, EventCursor, EventFilter
from creditgate.ledger.outbox import Outbox
from creditgate.ledger.positions import Position
from creditgate.ledger.rows import entries_of
from creditgate.ledger.sealing import SealKeys

# Rows that an iterator fetches at a time: a bound on memory, large enough that fetching costs little.
FETCH_ROWS = 1_000
# How long one question about usage may keep the database busy: some millions of events.
QUESTION_SECONDS_MAX = 10.0


class Ledger:
    """The record in one database. Any method may raise LedgerUnavailable."""

    def __init__(self, url: str, seal_keys: SealKeys | None = None) -> None:
        """Open `sqlite:///PATH` or `postgresql://...`; raises StartupError if the URL or the path is unusable.

        With `seal_keys`, what is appended is sealed. Without, a journal that is sealed is not appended to.
        """
        self._database = Database(url)
        self._seal_keys = seal_keys
        self.outbox = Outbox(self._database)

    def migrate(self) -> None:
        """Bring the tables to this version; several processes may do so at once.

        Raises StartupError if a newer creditgate has already changed them.
        """
        with self._database.writing() as connection:
            migrations.upgrade(connection)

    def close(self) -> None:
        """Close the connections. Iterators that are still open keep theirs until they are closed."""
        self._database.close()

    def copy_to(self, path: Path) -> None:
        """Write everything, as of one instant, into a new SQLite file for its owner alone; others go on meanwhile.

        Raises StartupError for PostgreSQL, which has tools of its own.
        """
        self._database.copy_to(path)

    def identity(self) -> str:
        """Return what tells this database from every other one, whatever URL leads to it."""
        return self._database.identity()

    def positions(self) -> dict[str, Position]:
        """Return the position of every partition that was adopted, by partition."""
        with self._database.reading() as connection:
            return positions.read(connection)

    def repartition(
        self,
        old: tuple[str, ...],
        new: tuple[str, ...],
        *,
        place: Callable[[str], str],
        epochs: dict[str, str],
        settings: Callable[[int], Entry],
    ) -> None:
        """Put the whole history into other partitions, all of it or nothing; see `ledger/repartition.py`."""
        with self._database.writing() as connection:
            repartition.repartition(
                connection,
                old=old,
                new=new,
                place=place,
                epochs=epochs,
                settings=settings,
                seal_keys=self._seal_keys,
            )

    def adopt(self, partition: str, epoch: str, stream_id: StreamId = ORIGIN) -> Position:
        """Make the partition's position if it has none, and return the one it has: the caller compares the epochs."""
        with self._database.writing() as connection:
            return positions.adopt(connection, partition, epoch, stream_id)

    def put_fence(self, expected: Position, fence: str) -> Position:
        """Fence the position of a partition, where it is, and return it: what was read of the stream before is refused.

        Raises PositionMoved if the position is no longer the expected one.
        """
        fenced = Position(expected.partition, f"{expected.journal}.{fence}", expected.stream_id)
        with self._database.writing() as connection:
            positions.move(connection, [(expected, fenced)])
        return fenced

    def append(
        self, batches: Sequence[Batch], *, is_news: bool = True, pause: Callable[[], None] | None = None
    ) -> int:
        """Store all batches and move their positions, in one transaction; return the number of rows of items.

        Alerts among them go into the outbox too, unless this is no news but a history that was told elsewhere. `pause`
        is called between pieces of the work that take well under a millisecond.
        Raises, with nothing stored: PositionMoved if any position is not where its batch begins, so that a flusher
        that lost its lease commits nothing; JournalSealed without the key that sealed what is there; EntriesRefused if
        the database can never store one of the rows;
        ValueError for a batch with an entry outside it; WriteConflict after CONFLICT_TRIES. After any other
        LedgerUnavailable the batches may be stored: read `positions` before the next try.
        """
        return appending.append(self._database, self._seal_keys, batches, is_news=is_news, pause=pause)

    def begin_seals(self) -> dict[str, StreamId]:
        """Let the seals of every partition that has none begin at its position; return where. None do without a key."""
        if self._seal_keys is None:
            return {}
        with self._database.writing() as connection:
            return seals.begin_missing(connection, self._seal_keys)

    def check_seals(self, partition: str, after: seals.Seal | None = None) -> seals.Checked | None:
        """Check the next page of seals of a partition, after the last one of the page before; None without a key."""
        if self._seal_keys is None:
            return None
        with self._database.reading() as connection:
            return seals.check_page(connection, self._seal_keys, partition, after)

    def begins_at(self, partition: str | None = None) -> int:
        """Return from when on no usage of a partition, or of any, was removed: Unix ms of its record; 0: none was."""
        with self._database.reading() as connection:
            return pruning.begins_at(connection, partition)

    def carried(self, partition: str, customer_id: str) -> dict[str, int]:
        """Return up to which entry the usage of a customer was removed, by uid."""
        with self._database.reading() as connection:
            found = pruning.carried_sequences(connection, partition, [customer_id])
        return {uid: sequence for (_, uid), sequence in found.items()}

    def prune_step(self, partition: str, before_ms: int) -> pruning.Pruned:
        """Remove some of what was recorded before an instant; again until it begins there. See `ledger/pruning.py`.

        Raises NotProven, SealBroken, JournalSealed without the key; after LedgerUnavailable the step may have happened,
        and the next one goes on.
        """
        with self._database.writing() as connection:
            if self._seal_keys is None:
                seals.check_unsealed(connection)
            return pruning.prune_step(connection, partition, before_ms, self._seal_keys)

    def copy_openings(self, partition: str, target: "Ledger") -> None:
        """Make the history of a partition begin in the target where it does here; its entries are there already."""
        with self._database.reading() as connection:
            begins_ms = pruning.begins_at(connection, partition)
            rows = pruning.read_openings(connection, partition)
        if begins_ms:
            with target._database.writing() as connection:
                pruning.write_openings(connection, partition, begins_ms, rows)

    def entries_at(self, places: Sequence[EntryPlace]) -> dict[EntryPlace, Entry]:
        """Return the entries that stand at these places, equal to those that were appended; the others are left out.

        From one to PLACES_MAX places.
        """
        with self._database.reading() as connection:
            rows = connection.execute(*entries.select_at(places)).all()
        return {(entry.partition, entry.stream_id): entry for entry in entries_of(rows)}

    def entries(self, partition: str, after: StreamId, *, limit: int) -> list[Entry]:
        """Return the next entries of a partition after a stream id, oldest first; fewer than `limit`: no more."""
        statement = entries.select_after(partition, after)
        with self._database.reading() as connection, _streamed(connection, statement) as rows:
            return list(islice(entries_of(rows), limit))

    def find_op(self, partition: str, op_id: str, *, since_ms: int, until_ms: int) -> StreamId | None:
        """Return the first entry with a call of this op id, appended from `since_ms` to `until_ms`, both included.

        Reads every item of the span: keep it to the minutes in which the call can have arrived.
        """
        statement = entries.select_op(partition, op_id, since_ms=since_ms, until_ms=until_ms)
        with self._database.reading() as connection:
            row = connection.execute(statement).first()
        return StreamId(row.stream_ms, row.stream_counter) if row is not None else None

    def find_ops(self, partition: str, prefix: str, *, since_ms: int) -> set[str]:
        """Return every op id that begins so, of calls in entries appended at `since_ms` or later.

        Reads every item since then, as `find_op` does.
        """
        return set(self._ids(entries.select_ops(partition, prefix, since_ms=since_ms)))

    def events(self, wanted: EventFilter, *, before: EventCursor | None = None, limit: int) -> list[Event]:
        """Return one page of usage events, newest first, that lie before the cursor of the last one seen.

        Following the pages meets each event once, also while new ones arrive. Fewer than `limit`: there are no more.
        Raises TookTooLong where a filter finds too little among too much.
        """
        with self._database.reading(seconds_max=QUESTION_SECONDS_MAX) as connection:
            dialect = connection.dialect.name
            page = events.select_page(wanted, before=before, limit=limit, dialect=dialect)
            cursors = [events.cursor_of(row) for row in connection.execute(page)]
            rows = connection.execute(events.select_entries(page)).all()
        found = {event.cursor: event for entry in entries_of(rows) for event in events.events_of(entry)}
        return [found[cursor] for cursor in cursors]

    def top_groups(self, question: Question, *, by_count: bool, limit: int) -> list[str]:
        """Return the groups of the question with most usage, the largest first; raises TookTooLong."""
        with self._database.reading(seconds_max=QUESTION_SECONDS_MAX) as connection:
            dialect = connection.dialect.name
            statement = aggregates.select_top_groups(
                question, by_count=by_count, limit=limit, dialect=dialect
            )
            return list(connection.execute(statement).scalars())

    def sums(self, questions: Sequence[Question], *, groups: Collection[str] = ()) -> Sums:
        """Return what the events of each question add up to, all as of one instant; raises TookTooLong.

        Of a grouping, `groups` stand apart and the others together, as OTHER.
        """
        with self._database.reading(seconds_max=QUESTION_SECONDS_MAX) as connection:
            stood_at = positions.read(connection)
            found = []
            for question in questions:
                statement = aggregates.select_sums(question, groups, connection.dialect.name)
                found.append(tuple(map(aggregates.sum_of, connection.execute(statement))))
        return Sums({name: position.stream_id for name, position in stood_at.items()}, tuple(found))

    def documents(self, partition: str, customer_id: str | None) -> list[Document]:
        """Return the latest document of each (type, id) of a customer; None: those of no customer."""
        if customer_id is not None:
            return [d for state in self.customer_states(partition, [customer_id]) for d in state.documents]
        with self._database.reading() as connection:
            rows = connection.execute(customers.select_latest_documents(partition, None))
            return [customers.document_of(row) for row in rows]

    def document_versions(
        self, partition: str, customer_id: str | None, document_type: str
    ) -> list[tuple[StreamId, str]]:
        """Return every document of a type that was put for a customer, whatever the uid, oldest first."""
        statement = customers.select_document_versions(partition, customer_id, document_type)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [(StreamId(row.stream_ms, row.stream_counter), row.document) for row in rows]

    def document_at(
        self, partition: str, customer_id: str, document_type: str, stream_id: StreamId
    ) -> str | None:
        """Return the last document of a type that was put for a customer up to an entry; None if there was none."""
        statement = customers.select_document_at(partition, customer_id, document_type, stream_id)
        with self._database.reading() as connection:
            return connection.execute(statement).scalars().first()

    def open_batches(self) -> dict[str, StreamId]:
        """Return the batches of usage that were not closed, each with the entry that opened it."""
        with self._database.reading() as connection:
            return open_batches(connection)

    def newest_batches(
        self, *, before: str | None = None, batch_id: str | None = None, limit: int
    ) -> list[StoredBatch]:
        """Return one page of batches of usage, the newest first, that are older than one; or the one with this id."""
        with self._database.reading() as connection:
            return newest_batches(connection, before=before, batch_id=batch_id, limit=limit)

    def customer_states(self, partition: str, customer_ids: Collection[str]) -> list[CustomerState]:
        """Return what is needed to build the records of these customers again; nobody who was never there."""
        with self._database.reading() as connection:
            items = connection.execute(customers.select_latest_items(partition, customer_ids)).all()
            documents = connection.execute(customers.select_latest_documents(partition, customer_ids)).all()
        found = customers.states_of(items, documents)
        return [found[customer_id] for customer_id in customer_ids if customer_id in found]

    def latest_uid(self, partition: str, customer_id: str) -> str | None:
        """Return the uid of the customer, or of the last one who had this id; None if nobody ever had it."""
        with self._database.reading() as connection:
            return connection.execute(customers.select_latest_uid(partition, customer_id)).scalar()

    def customers(self, partition: str, *, after: str | None = None, limit: int) -> list[str]:
        """Return one page of the ids of a partition's customers, in the order of their bytes, after the last seen."""
        return self._ids(customers.select_customers(partition, after=after, limit=limit))

    def listed(
        self, wanted: CustomerFilter, *, after: Place | None = None, limit: int, newest_first: bool = True
    ) -> list[Place]:
        """Return one page of the customers who are there now, by when they were made, after the last one seen.

        Fewer than `limit`: there are no more.
        """
        page = listing.select_page(wanted, after=after, limit=limit, newest_first=newest_first)
        with self._database.reading() as connection:
            return [listing.place_of(row) for row in connection.execute(page)]

    def known(self, partition: str, customer_ids: Collection[str]) -> set[str]:
        """Return those of the ids that the partition's history names."""
        return set(self._ids(customers.select_known(partition, customer_ids)))

    def customers_after(self, partition: str, stream_id: StreamId) -> Iterator[str]:
        """Yield the ids of the customers who have items after the stream id, each once."""
        seen: set[str] = set()
        statement = customers.select_customers_after(partition, stream_id)
        with self._database.reading() as connection, _streamed(connection, statement) as rows:
            for row in rows:
                if row.customer_id not in seen:
                    seen.add(row.customer_id)
                    yield row.customer_id

    def keys_since(
        self, partition: str, since_ms: int, *, after: KeyUse | None = None, limit: int
    ) -> list[KeyUse]:
        """Return one page of the uses of idempotency keys in entries since `since_ms`, oldest first, after the last."""
        statement = customers.select_keys(partition, since_ms, after=after, limit=limit)
        with self._database.reading() as connection:
            return [customers.key_use_of(row) for row in connection.execute(statement)]

    def proof(self, partition: str, customer_ids: Sequence[str]) -> Iterator[ProofItem]:
        """Yield every item of the customers, one customer after the other as they were asked for, oldest first.

        Memory is bounded however long a history is. Ask for a page of customers at a time: while an iterator is
        open, SQLite cannot shorten its WAL.
        """
        with self._database.reading() as connection:
            carried = pruning.carried_sequences(connection, partition, customer_ids)
            for customer_id in customer_ids:
                whose = {"of": partition, "customer": customer_id}
                with _streamed(connection, customers.SELECT_PROOF, whose) as rows:
                    yield from (customers.proof_item_of(row, carried) for row in rows)

    def history(self, partition: str, customer_id: str) -> Iterator[Entry]:
        """Yield a customer's entries, all uids, oldest first. Memory is bounded however long the history is."""
        with self._database.reading() as connection:
            yield from entries_of(_streamed(connection, customers.select_history(partition, customer_id)))

    def poison_count(self) -> int:
        """Return the number of messages that were set aside and not resolved: each is drift."""
        with self._database.reading() as connection:
            return appending.count_poison(connection)

    def _ids(self, statement: Select[Any]) -> list[str]:
        with self._database.reading() as connection:
            return list(connection.execute(statement).scalars())


def _streamed(
    connection: Connection, statement: Select[Any], parameters: Mapping[str, Any] | None = None
) -> CursorResult[Any]:
    """Return the rows of a statement as they are read, without holding them all; to be closed."""
    return connection.execution_options(yield_per=FETCH_ROWS).execute(statement, parameters)
