"""How rows of items get into SQL: SQLite is given them by an INSERT of its driver, PostgreSQL by a COPY.

SQLAlchemy would look at each value of each row first, which takes as long as the rest; integers and texts are what
the drivers take as they are.

A None costs Python's driver of SQLite as much as four integers, and half of a row is nothing. So there is an INSERT for
each of the usual kinds of rows that names only what such a row has. That of plain usage, whose caller says no more than
who and what, has the same five texts in it: to bind them is a tenth of what such a row costs. One bound text of JSON
for all rows (`json_each`) took four times as long as binding them.

A COPY takes a quarter of the time of the driver's INSERTs for a full batch, and is no slower for a few rows. It goes
into the table itself. By way of a staging table and `ON CONFLICT DO NOTHING` it was a fifth slower for a full batch,
slower than the INSERTs for a few rows, and a row that is there already, which the position lets happen only to data
that somebody has changed by hand, would be passed over in silence. Here it is refused, on both databases.
"""

from collections.abc import Callable, Sequence
from itertools import compress
from operator import itemgetter, not_
from typing import Any

from sqlalchemy import Connection, exc

from creditgate.ledger.rows import Values
from creditgate.ledger.tables import journal_items

_COLUMNS = tuple(journal_items.c.keys())
_COPY = f"COPY {journal_items.name} ({', '.join(_COLUMNS)}) FROM STDIN"


class _Insert:
    """An INSERT for rows that have nothing in some columns, which it does not name, and the same texts in others."""

    def __init__(self, *empty: str, **same: str) -> None:
        bound = [column for column in _COLUMNS if column not in empty and column not in same]
        texts = [f"'{text}'" for text in same.values()]
        self.statement = (
            f"INSERT INTO {journal_items.name} ({', '.join([*bound, *same])})"  # noqa: S608
            f" VALUES ({', '.join(['?'] * len(bound) + texts)})"
        )
        self.values = itemgetter(*map(_COLUMNS.index, bound))
        self._others = itemgetter(*map(_COLUMNS.index, (*empty, *same)))
        self._usual = (*(None,) * len(empty), *same.values())

    def fits(self, rows: Sequence[Values]) -> list[bool]:
        return [values == self._usual for values in map(self._others, rows)]


_CHANGE = ("row_id", "delta_whole", "delta_nano", "after_whole", "after_nano")
_DOCUMENT = ("document_type", "document_id", "document")
_CALL = _COLUMNS[_COLUMNS.index("verb") :]

_PLAIN = {"key": "", "fingerprint": "", "event_name": "", "entity_id": "", "properties": "{}"}

# For usage, plain and other, for what else its call moved, and for documents. Anything else is bound in full.
_INSERTS = (
    _Insert(*_DOCUMENT, "pinned_at", "occurred_at", **_PLAIN),
    _Insert(*_DOCUMENT, "pinned_at", "occurred_at"),
    _Insert(*_DOCUMENT, "pinned_at", *_CALL),
    _Insert(*_CHANGE, "pinned_at", *_CALL),
)
_INSERT = f"INSERT INTO {journal_items.name} VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608


PIECE_ROWS = 48  # of SQLite, between two pauses: some 0.3 ms


def insert_items(
    connection: Connection, rows: Sequence[Values], pause: Callable[[], None] | None = None
) -> None:
    """Store rows of `journal_items`, at least one. `pause` is called after each piece that this process works on."""
    if connection.dialect.name == "postgresql":
        _copy(connection, rows)
        return
    piece_rows = PIECE_ROWS if pause else len(rows)
    for begin in range(0, len(rows), piece_rows):
        _insert(connection, rows[begin : begin + piece_rows])
        if pause:
            pause()


def _insert(connection: Connection, rows: Sequence[Values]) -> None:
    for insert in _INSERTS:
        fits = insert.fits(rows)
        if fitting := list(map(insert.values, compress(rows, fits))):
            connection.exec_driver_sql(insert.statement, fitting)
            rows = list(compress(rows, map(not_, fits)))
    if rows:
        connection.exec_driver_sql(_INSERT, list(rows))


def _copy(connection: Connection, rows: Sequence[Values]) -> None:
    driver: Any = connection.connection.driver_connection
    errors: Any = connection.dialect.loaded_dbapi
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            for row in rows:
                copy.write_row(row)
    except errors.Error as error:
        # SQLAlchemy does not see a COPY; its errors tell what can be tried again from what never will be stored.
        raise exc.DBAPIError.instance(
            _COPY, None, error, errors.Error, hide_parameters=True, dialect=connection.dialect
        ) from error
