"""How far the stream of each partition has been appended, and how a position is moved: from where it was read, only.

That is what makes an entry go into the record once: what is appended is stored in the transaction that moves the
position, so two who have read the same piece of a stream cannot both store it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, select, text, update

from creditgate.core.journal import StreamId
from creditgate.errors import CreditgateError
from creditgate.ledger.tables import stream_positions

_positions = stream_positions.c

_SELECT_ALL = select(stream_positions)
_SELECT_ONE = select(stream_positions).where(_positions.partition == bindparam("of"))
_ADOPT = text(
    "INSERT INTO stream_positions (partition, epoch, stream_ms, stream_counter)"
    " VALUES (:partition, :epoch, :ms, :counter) ON CONFLICT DO NOTHING"
)
_MOVE = (
    update(stream_positions)
    .where(
        _positions.partition == bindparam("of"),
        _positions.epoch == bindparam("from_epoch"),
        _positions.stream_ms == bindparam("from_ms"),
        _positions.stream_counter == bindparam("from_counter"),
    )
    .values(epoch=bindparam("to_epoch"), stream_ms=bindparam("to_ms"), stream_counter=bindparam("to_counter"))
)


class Position(msgspec.Struct, frozen=True):
    """How far the stream of a partition has been appended.

    `epoch` is the random name made with that stream and, after a dot, the fence: which server process it was
    reconciled with. Whoever read the stream before a fence commits nothing after it.
    """

    partition: str
    epoch: str
    stream_id: StreamId

    @property
    def journal(self) -> str:
        """The name of the stream."""
        return self.epoch.partition(".")[0]

    @property
    def fence(self) -> str:
        return self.epoch.partition(".")[2]


Move = tuple[Position, Position]
"""From where a position is expected, to where."""


class PositionMoved(CreditgateError):
    """Somebody else has moved the position of one of `partitions`; nothing was written. Begin again at `positions`."""

    code = "position_moved"

    def __init__(self, partitions: Sequence[str]) -> None:
        super().__init__(f"a position is no longer the one that was read, of: {', '.join(partitions)}")
        self.partitions = partitions


def read(connection: Connection) -> dict[str, Position]:
    """Return the position of every partition that was adopted, by partition."""
    return {row.partition: _position_of(row) for row in connection.execute(_SELECT_ALL)}


def adopt(connection: Connection, partition: str, epoch: str, stream_id: StreamId) -> Position:
    """Make the partition's position if it has none, and return the one it has."""
    values = {"partition": partition, "epoch": epoch, "ms": stream_id.ms, "counter": stream_id.counter}
    connection.execute(_ADOPT, values)
    return _position_of(connection.execute(_SELECT_ONE, {"of": partition}).one())


def move(connection: Connection, moves: Sequence[Move]) -> None:
    """Move positions, at least one, in one statement; raises PositionMoved if any is not where it was expected.

    In one order everywhere, so that two writers of PostgreSQL cannot wait for each other.
    """
    rows = [_row(*one) for one in sorted(moves, key=lambda one: one[0].partition)]
    moved = connection.execute(_MOVE, rows)
    if moved.rowcount != len(rows):
        raise PositionMoved([row["of"] for row in rows])


def _row(expected: Position, new: Position) -> dict[str, Any]:
    return {
        "of": expected.partition,
        "from_epoch": expected.epoch,
        "from_ms": expected.stream_id.ms,
        "from_counter": expected.stream_id.counter,
        "to_epoch": new.epoch,
        "to_ms": new.stream_id.ms,
        "to_counter": new.stream_id.counter,
    }


def _position_of(row: Row[Any]) -> Position:
    return Position(row.partition, row.epoch, StreamId(row.stream_ms, row.stream_counter))
