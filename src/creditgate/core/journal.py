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
from functools import lru_cache
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


# An entry is a tree, and a flush holds thousands: `gc=False` lets Python look for no cycles among them.


class Call(msgspec.Struct, frozen=True, array_like=True, gc=False):
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

    def keyed(self, key: str, fingerprint: str) -> "Call":
        """Return the same call with a caller's key, by its digests."""
        return msgspec.structs.replace(self, key=key, fingerprint=fingerprint)


class Item(msgspec.Struct, frozen=True, gc=False):
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


class Entry(msgspec.Struct, frozen=True, gc=False):
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


_KINDS = {kind.encode(): kind.value for kind in Kind}
_USAGE = frozenset(kind.encode() for kind in USAGE)
_PUT = Kind.PUT.encode()
_encode_call = msgspec.json.Encoder().encode
_decode_call = msgspec.json.Decoder(Call).decode


def encode_call(call: Call) -> bytes:
    """Return the text that a script appends unread as `k<i>`."""
    return _encode_call(call)


def decode_entry(partition: str, stream_id: StreamId, fields: Mapping[bytes, bytes]) -> Entry:
    """Read one stream message; raises PoisonEntry if it is not one of ours, with the reason."""
    try:
        items = tuple([_decode_item(place, fields) for place in _places(tuple(fields))])
        if items[0].call is None:
            raise ValueError("the first item belongs to no call")
        customer_id, uid, pinned_at = fields.get(b"c"), fields.get(b"u"), fields.get(b"t")
        return Entry(
            partition,
            stream_id,
            customer_id.decode() if customer_id is not None else None,
            uid.decode() if uid is not None else None,
            _integer(fields[b"n"]),
            _integer(pinned_at) if pinned_at is not None else None,
            items,
        )
    except (KeyError, ValueError, RecursionError, msgspec.DecodeError) as error:
        raise PoisonEntry(f"entry {partition} {stream_id} cannot be read: {error!r}") from error


class _Place(NamedTuple):
    """Where an item is in its message: the names of the fields of its text and of the call that begins with it."""

    number: int
    text: bytes
    call: bytes


@lru_cache(maxsize=256)
def _places(names: tuple[bytes, ...]) -> tuple[_Place, ...]:
    """Return the places of the items in a message with fields of these names; most messages have the same ones."""
    count = sum(name.decode().isdecimal() for name in names)
    places = tuple(_Place(number, b"%d" % number, b"k%d" % number) for number in range(count))
    if not places or not {place.text for place in places}.issubset(names):
        raise ValueError("items are missing or not numbered from 0")
    return places


def _decode_item(place: _Place, fields: Mapping[bytes, bytes]) -> Item:
    number, name, call_name = place
    call_text = fields.get(call_name)
    call = _decode_call(call_text) if call_text is not None else None
    kind, *rest = fields[name].split(b" ", 3)
    if not rest and kind in _USAGE:
        return Item(number, _KINDS[kind], call)
    one, two, three = rest
    if kind == _PUT:
        return Item(
            number,
            Kind.PUT,
            call,
            document_type=one.decode(),
            document_id=two.decode(),
            document=three.decode(),
        )
    if not one:
        raise ValueError("an item names no row")
    return Item(number, _KINDS[kind], call, one.decode(), _integer(two), _integer(three))


def _integer(text: bytes) -> int:
    """As a script writes it: `int` alone also reads blanks and underscores."""
    if not (text.isdigit() or text.removeprefix(b"-").isdigit()):
        raise ValueError(f"{text!r} is not an integer")
    return int(text)
