"""How far the stream of each partition has been appended, and how a position is moved: from where it was read, only.

That is what makes an entry go into the record once: what is appended is stored in the transaction that moves the
position, so two who have read the same piece of a stream cannot both store it.
"""

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


class PositionMoved(CreditgateError):
    """Somebody else has moved the position of `partition`; nothing was written. Start again from `positions`."""

    code = "position_moved"

    def __init__(self, partition: str) -> None:
        super().__init__(f"the position of partition {partition} is no longer the one that was read")
        self.partition = partition


def read(connection: Connection) -> dict[str, Position]:
    """Return the position of every partition that was adopted, by partition."""
    return {row.partition: _position_of(row) for row in connection.execute(_SELECT_ALL)}


def adopt(connection: Connection, partition: str, epoch: str, stream_id: StreamId) -> Position:
    """Make the partition's position if it has none, and return the one it has."""
    values = {"partition": partition, "epoch": epoch, "ms": stream_id.ms, "counter": stream_id.counter}
    connection.execute(_ADOPT, values)
    return _position_of(connection.execute(_SELECT_ONE, {"of": partition}).one())


def move(connection: Connection, expected: Position, *, epoch: str, stream_id: StreamId) -> None:
    """Move a position from the expected place to another; raises PositionMoved if it is not there."""
    moved = connection.execute(
        _MOVE,
        {
            "of": expected.partition,
            "from_epoch": expected.epoch,
            "from_ms": expected.stream_id.ms,
            "from_counter": expected.stream_id.counter,
            "to_epoch": epoch,
            "to_ms": stream_id.ms,
            "to_counter": stream_id.counter,
        },
    )
    if moved.rowcount != 1:
        raise PositionMoved(expected.partition)


def _position_of(row: Row[Any]) -> Position:
    return Position(row.partition, row.epoch, StreamId(row.stream_ms, row.stream_counter))
