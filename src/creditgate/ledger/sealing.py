"""The seals of the journal: an HMAC chain over the rows of a partition, so that who has no key can edit none unseen.

Each row is a link: `HMAC-SHA256(key, link before || row)`, in the order of the rows' identity. With each batch that is
appended the chain goes through the position, too, and what comes out is stored: the *seal* of all rows since the seal
before. A seal is checked from the stored one before it, so each range stands for itself: what was edited, added, taken
away or put elsewhere shows in its range, and a seal that was taken away in the next one.

The first seal of a partition says where the chain begins, and is signed for that; else the oldest could be taken away.

A row is sealed as the database stores it, in MessagePack: integers, text and nothing, the same from every database.
"""

import hmac
import stat
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from creditgate.core.journal import USAGE, StreamId
from creditgate.errors import StartupError
from creditgate.ledger.rows import Values
from creditgate.ledger.tables import journal_items

KEY_CHARACTERS_MIN = 32  # 16 bytes in hex
READ_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO

COLUMNS = tuple(journal_items.c.keys())
_MS, _COUNTER = COLUMNS.index("stream_ms"), COLUMNS.index("stream_counter")
_PINNED_AT, _KIND = COLUMNS.index("pinned_at"), COLUMNS.index("kind")
_VALUE, _OCCURRED_AT = COLUMNS.index("value_whole"), COLUMNS.index("occurred_at")
_EVENT_AT = COLUMNS.index("event_at")
_pack = msgspec.msgpack.Encoder().encode


class SealKeys:
    """The key that seals, and those that did before, each by its id. They are in no message and no repr."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """At least one; the first seals."""
        self._by_id = {sha256(b"creditgate seal key\0" + key).hexdigest()[:12]: key for key in secrets}
        self.current_id = next(iter(self._by_id))

    @property
    def current(self) -> bytes:
        return self._by_id[self.current_id]

    def get(self, key_id: str) -> bytes | None:
        """Return the key of this id, None if it is not here."""
        return self._by_id.get(key_id)


class Chain:
    """Goes through rows that are in order, link by link, from a state on."""

    def __init__(self, partition: str, state: bytes, rows: Iterator[Values], *, begins_ms: int = 0) -> None:
        """`begins_ms`: what was recorded before it has been pruned, and is no usage event any more."""
        self.go_on_from(state)
        self.items = 0
        self._partition = partition
        self._rows = rows
        self._begins_ms = begins_ms
        self._last: Values | None = None
        self._next = next(rows, None)

    def go_on_from(self, state: bytes) -> None:
        """Let the next link follow this state."""
        self.state = state

    @property
    def at(self) -> StreamId | None:
        """The stream id of the last row, None before the first."""
        return StreamId(self._last[_MS], self._last[_COUNTER]) if self._last is not None else None

    @property
    def is_at_end(self) -> bool:
        return self._next is None

    def through_rows(self, key: bytes, upto: StreamId) -> None:
        """Go through all rows up to a stream id, included."""
        while self._next is not None and (self._next[_MS], self._next[_COUNTER]) <= upto:
            self._through(key, self._next)

    def through_items(self, key: bytes, count: int) -> StreamId | None:
        """Go through so many rows; return the stream id of the last of them, None if there are no more."""
        if self._next is None:
            return None
        for _ in range(count):
            if self._next is not None:
                self._through(key, self._next)
        return self.at

    def seal(self, key: bytes, upto: StreamId) -> bytes:
        """Go through all rows up to a position, and through the position; return what its seal says."""
        self.through_rows(key, upto)
        self.state = hmac.digest(key, self.state + _pack(("seal", self._partition, *upto)), "sha256")
        return self.state

    def _through(self, key: bytes, row: Values) -> None:
        sealed = row if row[_MS] >= self._begins_ms else _as_appended(row)
        self.state = hmac.digest(key, self.state + _pack(sealed), "sha256")
        self.items += 1
        self._last = row
        self._next = next(self._rows, None)


def signature(key: bytes, partition: str, begins: StreamId, state: bytes) -> str:
    """Return what proves that the chain of a partition begins at this position, in this state."""
    return hmac.digest(key, _pack(("begins", partition, *begins, state)), "sha256").hex()


def first_state(key: bytes, partition: str, begins: StreamId) -> bytes:
    """Return the state of a chain in which there is nothing yet."""
    return hmac.digest(key, _pack(("first", partition, *begins)), "sha256")


def read_seal_keys(path: Path) -> SealKeys:
    """Return the keys in a file, one a line: the first seals, the others are of older seals.

    Raises StartupError if the file cannot be read, if others than its owner can, or if a key is too short.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(path.stat().st_mode) & READ_BY_OTHERS:
                raise StartupError(f"--seal-key-file: others may read {path}; run: chmod 600 {path}")
            lines = [line.strip() for line in file]
    except OSError as error:
        raise StartupError(f"--seal-key-file: cannot read {path}: {error.strerror}") from error
    keys = [line for line in lines if line]
    if not keys or min(map(len, keys)) < KEY_CHARACTERS_MIN:
        raise StartupError(
            f"--seal-key-file: {path} must hold a key of {KEY_CHARACTERS_MIN} characters or more, such as"
            " `openssl rand -hex 32` makes; older keys on lines after it."
        )
    return SealKeys(keys)


def _as_appended(row: Values) -> Values:
    """Return a row as it was before a prune, which lets it stay but be no usage event any more."""
    return (*row[:_EVENT_AT], _event_at(row), *row[_EVENT_AT + 1 :])


def _event_at(row: Values) -> int | None:
    """Return when the usage of a row happened, as `events.event_at` says it of an item."""
    if row[_KIND] not in USAGE or row[_VALUE] is None:
        return None
    at: int
    for at in (row[_OCCURRED_AT], row[_PINNED_AT], row[_MS]):
        if at is not None:
            return at
    raise AssertionError("unreachable")
