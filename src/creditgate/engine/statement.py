"""A customer's statement: the journal in words, with the balance after each line. Where did my credits go?"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from creditgate.balances.keys import Keys
from creditgate.balances.stream import JournalStream
from creditgate.core.amounts import format_amount
from creditgate.core.controls import GATE_PREFIX
from creditgate.core.customers import Row, Terms
from creditgate.core.journal import ORIGIN, Call, Entry, Item, Kind
from creditgate.engine.finals import EXPIRE
from creditgate.errors import NotFound
from creditgate.ledger.store import Ledger

LINES_MAX = 1_000
UNSAID = Call(verb="", op_id="", catalog_version=0)


class Line(NamedTuple):
    """One change of one row. `remaining_nanos` is what the customer has of the feature after it, as the wire counts it.

    A use that took nothing names the feature that was used and has no row.
    """

    at: int
    text: str
    feature_id: str
    row: Row | None
    change_nanos: int
    remaining_nanos: int


class Statement(NamedTuple):
    """The last lines, oldest first; `is_whole` unless earlier ones were left out."""

    lines: tuple[Line, ...]
    is_whole: bool


class Statements:
    """Statements of all customers of one environment."""

    def __init__(self, keys: Keys, stream: JournalStream, ledger: Ledger) -> None:
        self._keys = keys
        self._stream = stream
        self._ledger = ledger

    async def of(self, customer_id: str, *, since: int | None = None, limit: int = LINES_MAX) -> Statement:
        """Return what happened since an instant (Unix ms); NotFound if the journal does not know the customer."""
        partition = self._keys.partition_of(customer_id)
        tail = [e async for e in self._stream.tail(partition, ORIGIN) if e.customer_id == customer_id]
        return await asyncio.to_thread(self._read, customer_id, tail, since or 0, limit)

    def _read(self, customer_id: str, tail: list[Entry], since: int, limit: int) -> Statement:
        partition = self._keys.partition_of(customer_id)
        while True:
            carried = self._ledger.carried(partition, customer_id)
            history = self._ledger.history(partition, customer_id)
            told = self._tell(customer_id, _united(history, tail), carried, since, limit)
            if self._ledger.carried(partition, customer_id) == carried:
                return told  # else a prune has removed meanwhile what was being told

    def _tell(
        self, customer_id: str, entries: Iterable[Entry], carried: dict[str, int], since: int, limit: int
    ) -> Statement:
        teller = Teller()
        lines: deque[Line] = deque(maxlen=limit)
        count, is_whole = 0, True
        for entry in entries:
            if (
                entry.sequence == 1
            ):  # a customer who was deleted and made again: the statement is of the new life
                teller, count, is_whole = Teller(), 0, True
                lines.clear()
            told = teller.tell(entry)
            if entry.sequence <= carried.get(entry.uid or "", 0):
                is_whole = False  # what a prune has left says what there was, and not how it came about
            elif _time(entry) >= since:
                lines.extend(told)
                count += len(told)
        if not teller.has_told:
            raise NotFound(f"Customer {customer_id} not found", code="customer_not_found")
        return Statement(tuple(lines), is_whole=is_whole and count <= limit)


class Teller:
    """Puts a customer's entries into words, one after the other; remembers the rows and what is in them."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._raw: dict[str, int] = {}
        self.has_told = False

    def tell(self, entry: Entry) -> list[Line]:
        """Return the lines of one entry."""
        self.has_told = True
        for item in entry.items:
            if item.document_type == "terms" and item.document is not None:
                self._rows |= {row.id: row for row in msgspec.json.decode(item.document, type=Terms).rows}
        lines, call = [], UNSAID
        for item in entry.items:
            call = item.call or call
            if item.kind != Kind.PUT and not (item.row_id or "").startswith(GATE_PREFIX):
                lines.append(self._line(_time(entry), item, call))
        return lines

    def _line(self, at: int, item: Item, call: Call) -> Line:
        row = self._rows.get(item.row_id or "")
        if item.row_id is not None:
            self._raw[item.row_id] = item.after_nanos or 0
        feature_id = row.feature_id if row else call.feature_id
        rows = (r for r in self._rows.values() if r.feature_id == feature_id)
        remaining = sum(max(0, self._raw.get(r.id, 0)) for r in rows)
        return Line(at, _text(item, call, row), feature_id, row, item.delta_nanos or 0, remaining)


def _united(stored: Iterable[Entry], tail: Iterable[Entry]) -> Iterator[Entry]:
    """The stored entries, then those of the tail that are not among them; both are in order."""
    last = ORIGIN
    for entry in stored:
        last = entry.stream_id
        yield entry
    yield from (entry for entry in tail if entry.stream_id > last)


def _time(entry: Entry) -> int:
    return entry.pinned_at if entry.pinned_at is not None else entry.stream_id.ms


def _text(item: Item, call: Call, row: Row | None) -> str:
    source = f" ({row.plan_id})" if row is not None and row.plan_id else ""
    used = f"{format_amount(abs(call.value_nanos or 0))} {call.feature_id}"
    match item.kind:
        case Kind.HOLD:
            return f"held {used}"
        case Kind.UNHOLD:
            done = "took back" if (item.delta_nanos or 0) < 0 else "released"
            return f"{done} {used}" + (" (the hold expired)" if call.verb == EXPIRE else "")
        case Kind.USE:
            return f"used {used}"
        case Kind.REFUND:
            return f"given back {used}"
        case Kind.GRANT:
            return ("renewed" if call.verb == "forward" else "granted") + source
        case Kind.ROLL:
            return ("rolled over to here" if (item.delta_nanos or 0) > 0 else "rolled over") + source
        case Kind.EXPIRE:
            return ("expired" if call.verb == "forward" else "ended") + source
        case Kind.FORGIVE:
            return f"what was below zero is forgiven{source}"
    return f"{item.kind}{source}"
