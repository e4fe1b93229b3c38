"""The journal's words: what one script call appends to the stream, and how it is read back.

An *entry* is one stream message, appended by the same script that made the change. It holds one call, or several of the
same customer. Its fields:

    c    customer id (absent on the system stream)
    u    the customer's uid, made when the customer was created
    n    the customer's sequence number after this entry; on the system stream the version of the type of document,
         or how many batches are open
    t    the pinned instant in ms, only for a customer whose clock is pinned
    k<i> the call whose first item is item i, as `Call` in JSON
    0..  the items, numbered; each is either `<kind> <row id> <delta> <raw after>` in nanos,
         `<kind>` alone (usage that moved nothing), or `put <type> <id> <document as JSON>`

Scripts write items and never read them; they pass `k<i>` through as it came. The identity of an item everywhere is
(partition, stream id, item number).
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from creditgate.errors import CreditgateError

SYSTEM_PARTITION = "sys"
GONE = "null"  # what is put of a document that is no more
BATCH = "batch"  # the type of the document that is a batch of usage, and then what became of it
SYSTEM_PAGE_MAX = 16  # entries of the system's journal that are held at a time: a batch is one, up to 2 MiB


class Kind(StrEnum):
    """What an item did to a row; `put` is a whole new document."""

    GRANT = "grant"
    USE = "use"
    REFUND = "refund"
    HOLD = "hold"
    UNHOLD = "unhold"
    EXPIRE = "expire"
    ROLL = "roll"
    FORGIVE = "forgive"
    CORRECT = "correct"
    PUT = "put"


USAGE = frozenset({Kind.USE, Kind.REFUND, Kind.HOLD, Kind.UNHOLD})
"""What a call that uses a feature may do; any of them may also move nothing."""


class PoisonEntry(CreditgateError):
    """A stream message that is not an entry of ours; it is set aside and counts as drift until it is resolved."""

    code = "poison_entry"


class StreamId(NamedTuple):
    """A Redis stream id: the millisecond it was appended, and a counter within it."""

    ms: int
    counter: int

    @classmethod
    def parse(cls, text: str) -> "StreamId":
        """Read `1795340847034-0`."""
        ms, _, counter = text.partition("-")
        return cls(int(ms), int(counter or 0))

    def __str__(self) -> str:
        return f"{self.ms}-{self.counter}"


ORIGIN = StreamId(0, 0)


class Call(msgspec.Struct, frozen=True, array_like=True):
    """One call of the API or the engine, as the journal remembers it.

    `value_nanos` and the fields after it are set for usage only. `key` and `fingerprint` are digests in hex of the
    caller's idempotency key (with its scope) and of the parameters.
    """

    verb: str
    op_id: str
    catalog_version: int
    key: str = ""
    fingerprint: str = ""
    feature_id: str = ""
    value_nanos: int | None = None
    occurred_at: int | None = None
    event_name: str = ""
    entity_id: str = ""
    properties: str = "{}"

    def of(self, op_id: str) -> "Call":
        """Return the same call with this op id."""
        return msgspec.structs.replace(self, op_id=op_id)


class Item(msgspec.Struct, frozen=True):
    """One change. `number` counts within the entry; `call` is set on the first item of each call."""

    number: int
    kind: str
    call: Call | None = None
    row_id: str | None = None
    delta_nanos: int | None = None
    after_nanos: int | None = None
    document_type: str | None = None
    document_id: str | None = None
    document: str | None = None

    @property
    def is_end(self) -> bool:
        """Say whether this is the end of a customer's history: the customer was deleted."""
        return self.document_type == "customer" and self.document == GONE


class Entry(msgspec.Struct, frozen=True):
    """One stream message, decoded."""

    partition: str
    stream_id: StreamId
    customer_id: str | None
    uid: str | None
    sequence: int
    pinned_at: int | None
    items: tuple[Item, ...]

    def op_id_of(self, key: str) -> str | None:
        """Return the op id of the call that had this caller's key, as its digest; None if none had."""
        return next((item.call.op_id for item in self.items if item.call and item.call.key == key), None)

    def items_of(self, op_id: str) -> Iterator[Item]:
        """Yield the items of one call; those of an event that several features count have one op id."""
        is_its = False
        for item in self.items:
            if item.call is not None:
                is_its = item.call.op_id == op_id
            if is_its:
                yield item


def page_size(partition: str, wanted: int) -> int:
    """Return how many entries of a partition to read at a time, where `wanted` would do for those of customers."""
    return min(wanted, SYSTEM_PAGE_MAX) if partition == SYSTEM_PARTITION else wanted


_KINDS = {str(kind): kind for kind in Kind}
_encode_call = msgspec.json.Encoder().encode
_decode_call = msgspec.json.Decoder(Call).decode


def encode_call(call: Call) -> bytes:
    """Return the text that a script appends unread as `k<i>`."""
    return _encode_call(call)


def decode_entry(partition: str, stream_id: StreamId, fields: Mapping[str, str]) -> Entry:
    """Read one stream message; raises PoisonEntry if it is not one of ours, with the reason."""
    try:
        count = sum(map(str.isdecimal, fields))
        if not count or not all(map(fields.__contains__, map(str, range(count)))):
            raise ValueError("items are missing or not numbered from 0")
        items = tuple([_decode_item(number, fields) for number in range(count)])
        if items[0].call is None:
            raise ValueError("the first item belongs to no call")
        return Entry(
            partition=partition,
            stream_id=stream_id,
            customer_id=fields.get("c"),
            uid=fields.get("u"),
            sequence=_integer(fields["n"]),
            pinned_at=_integer(fields["t"]) if "t" in fields else None,
            items=items,
        )
    except (KeyError, ValueError, RecursionError, msgspec.DecodeError) as error:
        raise PoisonEntry(f"entry {partition} {stream_id} cannot be read: {error!r}") from error


def _decode_item(number: int, fields: Mapping[str, str]) -> Item:
    call_text = fields.get(f"k{number}")
    call = _decode_call(call_text) if call_text is not None else None
    text = fields[str(number)]
    if text.startswith("put "):
        _, document_type, document_id, document = text.split(" ", 3)
        return Item(
            number,
            Kind.PUT,
            call,
            document_type=document_type,
            document_id=document_id,
            document=document,
        )
    kind, *balance = text.split(" ")
    if not balance and kind in USAGE:
        return Item(number, _KINDS[kind], call)
    row_id, delta, after = balance
    if not row_id:
        raise ValueError("an item names no row")
    return Item(number, _KINDS[kind], call, row_id, _integer(delta), _integer(after))


def _integer(text: str) -> int:
    """As a script writes it: `int` alone also reads blanks, underscores and the digits of other scripts."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text!r} is not an integer")
    return int(text)
