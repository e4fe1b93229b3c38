"""How rows of items get into SQL: SQLite is given them by an INSERT of its driver, PostgreSQL by a COPY.

SQLAlchemy would look at each value of each row first, which takes as long as the rest; integers and texts are what
the drivers take as they are.

A COPY takes a quarter of the time of the driver's INSERTs for a full batch, and is no slower for a few rows. It goes
into the table itself. By way of a staging table and `ON CONFLICT DO NOTHING` it was a fifth slower for a full batch,
slower than the INSERTs for a few rows, and a row that is there already, which the position lets happen only to data
that somebody has changed by hand, would be passed over in silence. Here it is refused, on both databases.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, exc

from creditgate.ledger.rows import Values
from creditgate.ledger.tables import journal_items

_INTO = f"{journal_items.name} ({', '.join(journal_items.c.keys())})"
_INSERT = f"INSERT INTO {_INTO} VALUES ({', '.join('?' * len(journal_items.c))})"  # noqa: S608
_COPY = f"COPY {_INTO} FROM STDIN"


def insert_items(connection: Connection, rows: Sequence[Values]) -> None:
    """Store rows of `journal_items`, at least one."""
    if connection.dialect.name == "postgresql":
        _copy(connection, rows)
    else:
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
