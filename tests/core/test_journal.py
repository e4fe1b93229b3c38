"""The journal's words: what scripts write is read back, and what is not ours is set aside."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditgate.core.journal import (
    ORIGIN,
    Call,
    Entry,
    Item,
    Kind,
    PoisonEntry,
    StreamId,
    decode_entry,
    encode_call,
)

CALL = Call(
    "track",
    "op1",
    7,
    key="aa",
    fingerprint="bb",
    feature_id="messages",
    value_nanos=-5,
    properties='{"a": "b c"}',
)


def fields(*items: str, call: Call = CALL, **more: str) -> dict[str, str]:
    """The fields of an entry as a script appends them."""
    numbered = {str(number): item for number, item in enumerate(items)}
    return {"c": "ann", "u": "uid", "n": "3", "k0": encode_call(call).decode(), **numbered, **more}


def decoded(message: dict[str, str]) -> Entry:
    """Read a message; a lone surrogate stands for a byte that is no UTF-8."""
    raw = {name.encode(): value.encode(errors="surrogateescape") for name, value in message.items()}
    return decode_entry("p01", StreamId(1795340847034, 2), raw)


def test_entry_is_read_back() -> None:
    """Everything that a script wrote of a call reaches the history."""
    entry = decoded(fields("use bal_1 -5 10", "use bal_2 -9007199254740993 -1", t="1767225600000"))
    assert entry == Entry(
        partition="p01",
        stream_id=StreamId(1795340847034, 2),
        customer_id="ann",
        uid="uid",
        sequence=3,
        pinned_at=1767225600000,
        items=(
            Item(0, Kind.USE, CALL, "bal_1", -5, 10),
            Item(1, Kind.USE, None, "bal_2", -9007199254740993, -1),
        ),
    )


def test_use_that_took_nothing() -> None:
    """Usage without a balance is usage: it has a call and no amounts."""
    (item,) = decoded(fields("use")).items
    assert (item.kind, item.call, item.row_id, item.delta_nanos, item.after_nanos) == (
        Kind.USE,
        CALL,
        None,
        None,
        None,
    )


def test_documents_keep_their_blanks() -> None:
    """A document is everything after its id, whatever stands in it."""
    text = '{"name": "a  b\\n", "put x": "ü ☃"}'
    (item,) = decoded(fields(f"put customer - {text}")).items
    assert (item.kind, item.document_type, item.document_id, item.document) == (
        Kind.PUT,
        "customer",
        "-",
        text,
    )


def test_entry_of_the_system_has_no_customer() -> None:
    """What belongs to no customer has no id and no uid."""
    message = fields("put catalog - {}")
    del message["c"], message["u"]
    entry = decoded(message)
    assert (entry.customer_id, entry.uid, entry.pinned_at) == (None, None, None)


def test_several_calls_in_one_entry() -> None:
    """Calls that were merged are told apart by their first items."""
    second = Call("track", "op2", 7)
    entry = decoded(fields("use bal_1 -5 10", "use bal_1 -5 5", "use", k1=encode_call(second).decode()))
    assert [item.call for item in entry.items] == [CALL, second, None]


calls = st.builds(
    Call,
    verb=st.text(),
    op_id=st.text(),
    catalog_version=st.integers(0, 2**53),
    feature_id=st.text(),
    value_nanos=st.none() | st.integers(-(10**22), 10**22),
    occurred_at=st.none() | st.integers(0, 2**53),
    event_name=st.text(),
    entity_id=st.text(),
    properties=st.text(),
)


@given(call=calls)
def test_call_is_read_back(call: Call) -> None:
    """Whatever text a caller sends as properties or names comes back unchanged."""
    assert decoded(fields("use", call=call)).items[0].call == call


@given(call=calls)
def test_encoded_call_is_one_line(call: Call) -> None:
    """A call is printable JSON on one line, so that a stream can be read with any tool."""
    assert b"\n" not in encode_call(call)


POISON = {
    "nothing": {},
    "no items": {"c": "ann", "u": "uid", "n": "1", "k0": encode_call(CALL).decode()},
    "seed of a stream": {"seed": "1"},
    "no sequence": {name: value for name, value in fields("use").items() if name != "n"},
    "sequence that is no number": fields("use", n="x"),
    "no call": {name: value for name, value in fields("use").items() if name != "k0"},
    "call of the second item only": {
        **{n: v for n, v in fields("use", "use").items() if n != "k0"},
        "k1": encode_call(CALL).decode(),
    },
    "call that is no JSON": fields("use", k0="{"),
    "call that is another JSON": fields("use", k0='{"verb": "track"}'),
    "call without op id": fields("use", k0='["track"]'),
    "call nested without end": fields("use", k0="[" * 100_000),
    "call with too much nesting after it": fields(
        "use", k0='["track","op",1,"","","",null,null,"","","{}",' + "[" * 100_000
    ),
    "items not numbered from 0": {**fields(), "1": "use"},
    "item missing between": {**fields("use"), "2": "use"},
    "digits of another script": {**fields("use"), "\u0661": "use"},
    "unknown kind": fields("burn bal_1 1 2"),
    "unknown kind alone": fields("burn"),
    "empty item": fields(""),
    "kind without amounts": fields("use bal_1"),
    "amount missing": fields("use bal_1 5"),
    "amount too many": fields("use bal_1 5 6 7"),
    "row without id": fields("use  5 6"),
    "amount that is no integer": fields("use bal_1 1.5 2"),
    "amount with an underscore": fields("use bal_1 1_0 2"),
    "amount that is infinite": fields("use bal_1 inf 2"),
    "amount without end": fields("use bal_1 " + "9" * 5000 + " 2"),
    "put alone": fields("put"),
    "put without document": fields("put terms -"),
    "put without anything": fields("put "),
    "grant without a row": fields("grant"),
    "pinned at no number": fields("use", t="soon"),
    "customer that is no UTF-8": fields("use", c="ann\udcff"),
    "document that is no UTF-8": fields("put customer - \udcff"),
    "call that is no UTF-8": fields("use", k0='["track","\udcff",1]'),
    "integer with two signs": fields("use", n="--1"),
    "integer with blanks": fields("use", n=" 1"),
    "integer that is nothing": fields("use", n="-"),
}


@pytest.mark.parametrize("message", POISON.values(), ids=POISON)
def test_poison_is_set_aside(message: dict[str, str]) -> None:
    """What is not an entry is told apart with a reason: it neither stops the flusher nor slips into history."""
    with pytest.raises(PoisonEntry, match="p01 1795340847034-2") as refusal:
        decoded(message)
    assert refusal.value.code == "poison_entry"


@given(
    message=st.dictionaries(
        st.sampled_from(["c", "u", "n", "t", "k0", "k1", "0", "1", "2", "x"]), st.text(max_size=30)
    )
)
def test_any_message_is_an_entry_or_poison(message: dict[str, str]) -> None:
    """No message in a stream makes reading itself fail."""
    with suppress(PoisonEntry):
        assert decoded(message).items


@given(st.integers(0, 2**53), st.integers(0, 2**53))
def test_stream_ids_are_ordered_as_redis_orders_them(ms: int, counter: int) -> None:
    """A position is compared by time and counter, and written as Redis writes it."""
    stream_id = StreamId(ms, counter)
    assert StreamId.parse(str(stream_id)) == stream_id
    assert ORIGIN <= stream_id < StreamId(ms, counter + 1) < StreamId(ms + 1, 0)
    assert StreamId.parse(str(ms)) == StreamId(ms, 0)
