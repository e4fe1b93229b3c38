"""What is to be told to webhooks: alerts, stored with the items that they are, and their deliveries until each is done.

An alert becomes one delivery per endpoint in one transaction, and each delivery stays until it is recorded as done. So
a process that dies anywhere tells nothing less than it should, and at worst the same again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from creditgate.core.journal import Entry, Item, StreamId
from creditgate.ledger.database import Database
from creditgate.ledger.tables import deliveries, outbox

ALERT = "alert"  # the type of document that a script puts for what a call crossed


class ItemId(msgspec.Struct, frozen=True):
    """The identity of an item of the journal."""

    partition: str
    stream_id: StreamId
    item: int


class Alert(msgspec.Struct, frozen=True):
    """Something a call crossed; `text` is as the script wrote it, in JSON."""

    id: ItemId
    customer_id: str
    alert_id: str
    text: str


class Delivery(msgspec.Struct, frozen=True):
    """One event for one endpoint; `attempts` were made so far."""

    id: ItemId
    endpoint: str
    event_type: str
    body: str
    attempts: int


class Letter(msgspec.Struct, frozen=True):
    """An event as it will be delivered."""

    event_type: str
    body: str
    endpoints: Sequence[str]


class Backlog(msgspec.Struct, frozen=True):
    """How many deliveries are to be made, and how many were given up."""

    waiting: int
    dead: int


class Outbox:
    """The outbox of one ledger. Any method may raise LedgerUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def alerts(self, *, limit: int) -> list[Alert]:
        """Return the oldest alerts that were not handed on."""
        with self._database.reading() as connection:
            rows = connection.execute(_SELECT_ALERTS, {"limit": limit}).all()
        return [Alert(_id_of(row), row.customer_id, row.alert_id, row.alert) for row in rows]

    def hand_on(self, letters: Mapping[ItemId, Letter]) -> None:
        """Turn alerts into deliveries, due at once; one that somebody else has handed on is left out."""
        with self._database.writing() as connection:
            for item_id in sorted(letters, key=_age):
                letter = letters[item_id]
                if connection.execute(_DELETE_ALERT, _names(item_id)).rowcount and letter.endpoints:
                    connection.execute(_INSERT_DELIVERIES, list(_delivery_rows(item_id, letter)))

    def busy_endpoints(self, endpoints: Iterable[str], now_ms: int) -> list[str]:
        """Return those of the endpoints for which a delivery is due."""
        with self._database.reading() as connection:
            return [
                endpoint
                for endpoint in endpoints
                if connection.execute(_SELECT_DUE, {"of": endpoint, "now": now_ms, "limit": 1}).first()
            ]

    def due(self, endpoint: str, now_ms: int, *, limit: int) -> list[Delivery]:
        """Return what is due at an endpoint, the longest waiting first."""
        with self._database.reading() as connection:
            rows = connection.execute(_SELECT_DUE, {"of": endpoint, "now": now_ms, "limit": limit}).all()
        return [Delivery(_id_of(row), row.endpoint, row.event_type, row.body, row.attempts) for row in rows]

    def delivered(self, delivery: Delivery) -> None:
        """Forget a delivery that succeeded; nothing happens if it is gone."""
        with self._database.writing() as connection:
            connection.execute(_DELETE_DELIVERY, _names(delivery.id) | {"of": delivery.endpoint})

    def failed(self, delivery: Delivery, *, reason: str, now_ms: int, next_at: int | None) -> bool:
        """Count an attempt that failed, and say when the next one is due; None gives the delivery up.

        False, with nothing changed, if another process has counted an attempt meanwhile.
        """
        values = {
            "of": delivery.endpoint,
            "seen": delivery.attempts,
            "why": reason,
            "at": now_ms,
            "next": next_at,
        }
        with self._database.writing() as connection:
            return connection.execute(_COUNT_ATTEMPT, _names(delivery.id) | values).rowcount == 1

    def endpoints(self) -> set[str]:
        """Return every endpoint that has a delivery, dead letters included."""
        with self._database.reading() as connection:
            return set(connection.execute(_SELECT_ENDPOINTS).scalars())

    def forget(self, endpoints: Collection[str]) -> None:
        """Drop every delivery to these endpoints."""
        with self._database.writing() as connection:
            for endpoint in endpoints:
                connection.execute(_FORGET_ENDPOINT, {"of": endpoint})

    def forget_dead(self, before_ms: int) -> None:
        """Drop the dead letters whose last attempt was before an instant."""
        with self._database.writing() as connection:
            connection.execute(_FORGET_DEAD, {"before": before_ms})

    def backlog(self) -> Backlog:
        """Count what is left to do, and what was given up."""
        with self._database.reading() as connection:
            row = connection.execute(_COUNT).one()
        return Backlog(row.waiting, row.dead)


def insert_alerts(connection: Connection, entries: Iterable[Entry]) -> None:
    """Store the alerts of entries, in the transaction that stores their items."""
    rows = [
        _alert_row(entry, item)
        for entry in entries
        for item in entry.items
        if item.document_type == ALERT and entry.customer_id is not None
    ]
    if rows:
        connection.execute(_INSERT_ALERTS, rows)


_alerts, _letters = outbox.c, deliveries.c

_INSERT_ALERTS = insert(outbox)
_SELECT_ALERTS = (
    select(outbox)
    .order_by(_alerts.stream_ms, _alerts.stream_counter, _alerts.partition, _alerts.item)
    .limit(bindparam("limit"))
)
_DELETE_ALERT = delete(outbox).where(
    _alerts.partition == bindparam("of_partition"),
    _alerts.stream_ms == bindparam("of_ms"),
    _alerts.stream_counter == bindparam("of_counter"),
    _alerts.item == bindparam("of_item"),
)
_INSERT_DELIVERIES = insert(deliveries)
_SELECT_DUE = (
    select(deliveries)
    .where(_letters.endpoint == bindparam("of"), _letters.next_at <= bindparam("now"))
    .order_by(
        _letters.next_at, _letters.stream_ms, _letters.stream_counter, _letters.partition, _letters.item
    )
    .limit(bindparam("limit"))
)
_THIS_DELIVERY = (
    _letters.endpoint == bindparam("of"),
    _letters.partition == bindparam("of_partition"),
    _letters.stream_ms == bindparam("of_ms"),
    _letters.stream_counter == bindparam("of_counter"),
    _letters.item == bindparam("of_item"),
)
_DELETE_DELIVERY = delete(deliveries).where(*_THIS_DELIVERY)
_COUNT_ATTEMPT = (
    update(deliveries)
    .where(*_THIS_DELIVERY, _letters.attempts == bindparam("seen"))
    .values(
        attempts=_letters.attempts + 1,
        next_at=bindparam("next"),
        failed_at=bindparam("at"),
        reason=bindparam("why"),
    )
)
_SELECT_ENDPOINTS = select(_letters.endpoint).distinct()
_FORGET_ENDPOINT = delete(deliveries).where(_letters.endpoint == bindparam("of"))
_FORGET_DEAD = delete(deliveries).where(_letters.next_at.is_(None), _letters.failed_at < bindparam("before"))
_COUNT = select(
    func.count(_letters.next_at).label("waiting"),
    (func.count() - func.count(_letters.next_at)).label("dead"),
).select_from(deliveries)


def _alert_row(entry: Entry, item: Item) -> dict[str, Any]:
    return {
        "partition": entry.partition,
        "stream_ms": entry.stream_id.ms,
        "stream_counter": entry.stream_id.counter,
        "item": item.number,
        "customer_id": entry.customer_id,
        "alert_id": item.document_id,
        "alert": item.document,
    }


def _delivery_rows(item_id: ItemId, letter: Letter) -> Iterator[dict[str, Any]]:
    for endpoint in letter.endpoints:
        yield {
            "endpoint": endpoint,
            "partition": item_id.partition,
            "stream_ms": item_id.stream_id.ms,
            "stream_counter": item_id.stream_id.counter,
            "item": item_id.item,
            "event_type": letter.event_type,
            "body": letter.body,
            "attempts": 0,
            "next_at": item_id.stream_id.ms,  # so that what waits is in the order in which it happened
        }


def _age(item_id: ItemId) -> tuple[StreamId, str, int]:
    return item_id.stream_id, item_id.partition, item_id.item


def _names(item_id: ItemId) -> dict[str, Any]:
    return {
        "of_partition": item_id.partition,
        "of_ms": item_id.stream_id.ms,
        "of_counter": item_id.stream_id.counter,
        "of_item": item_id.item,
    }


def _id_of(row: Row[Any]) -> ItemId:
    return ItemId(row.partition, StreamId(row.stream_ms, row.stream_counter), row.item)
