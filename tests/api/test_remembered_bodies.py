"""Bodies that are remembered but for their key: whatever stands in one, it says what it would say when it is read."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from creditgate.api.routes import meter
from creditgate.api.routes.meter import Wanted, said
from creditgate.api.wire.fields import read
from creditgate.api.wire.requests import CheckRequest, TrackRequest
from creditgate.core.remembered import Remembered
from creditgate.errors import CreditgateError

USE = b'"customer_id":"ann","feature_id":"messages"'

# Each with the key that it says, None where it has none or is refused.
BODIES: list[tuple[bytes, str | None]] = [
    (b"{%b}" % USE, None),
    (b'{%b,"idempotency_key":"once"}' % USE, "once"),
    (b'{%b, "idempotency_key": "once"}' % USE, "once"),
    (b'{%b,\n "idempotency_key": "once"\n}' % USE, "once"),
    (b'{"idempotency_key":"once",%b}' % USE, "once"),
    (b'{"idempotency_key":"first",%b,"idempotency_key":"last"}' % USE, "last"),
    (b'{"idempotency_key":7,%b,"idempotency_key":"last"}' % USE, None),
    (b'{"idempotency\\u005fkey":7,%b,"idempotency_key":"last"}' % USE, None),
    (b'{"idempotency\\u005fkey":"first",%b,"idempotency_key":"last"}' % USE, "last"),
    (b'{%b,"idempotency_key":"a b"}' % USE, "a b"),
    (b'{%b,"idempotency_key":"a\\u0041"}' % USE, "aA"),
    (b'{%b,"idempotency_key":""}' % USE, ""),
    (b'{%b,"idempotency_key":null}' % USE, None),
    (b'{%b,"idempotency_key":"once"} ' % USE, "once"),
    (b'{%b,"idempotency_key":"once"}}' % USE, None),
    (b'{%b,,"idempotency_key":"once"}' % USE, None),
    (b'{%b,"properties":{"a":1,"idempotency_key":"once"}}' % USE, None),
    (b'{%b,"properties":{"a":1,"idempotency_key":"once"}' % USE, None),
    (b'{%b,"properties":["a","idempotency_key":"once"}' % USE, None),
    (b'{%b,"event_name":"x,"idempotency_key":"once"}' % USE, None),
    (b'{"idempotency_key":"once"}', None),
    (b'{,"idempotency_key":"once"}', None),
    (b',"idempotency_key":"once"}', None),
    (b'"idempotency_key"', None),
]


def read_track(body: bytes) -> Wanted[TrackRequest]:
    return wanted_of(read(TrackRequest, body))


def read_check(body: bytes) -> Wanted[CheckRequest]:
    return wanted_of(read(CheckRequest, body))


def wanted_of(request: Any) -> Wanted[Any]:
    return Wanted(request, usage=None, lock=None, new_entity=None)  # type: ignore[arg-type]  # made of the request


def outcome(ask: Any) -> Any:
    try:
        return ask()
    except CreditgateError as error:
        return error.code, error.message


@pytest.mark.parametrize(("body", "key"), BODIES, ids=repr)
def test_what_a_body_says(body: bytes, key: str | None) -> None:
    """The same as when it is read, the first time and when the rest is known."""
    for read_one in (read_track, read_check):
        remembered: Remembered[Wanted[Any]] = Remembered(read_one, 2**16)
        plain = outcome(lambda: read_one(body))  # noqa: B023  # called here
        for _ in range(3):
            assert outcome(lambda: said(remembered, body)) == plain  # noqa: B023
    assert (
        getattr(getattr(outcome(lambda: read_track(body)), "request", None), "idempotency_key", None) == key
    )


PIECES = st.sampled_from([b"{", b"}", b",", b'"', b"\\", b" ", b"idempotency_key", b":", b'"a"', USE, b"7"])


@given(st.lists(PIECES, max_size=12))
@example([b"{", USE, b',"idempotency_key":"a"}'])
def test_whatever_stands_in_a_body(pieces: list[bytes]) -> None:
    """Also what is no JSON, with what may be taken for a key at its end."""
    remembered: Remembered[Wanted[Any]] = Remembered(read_track, 2**16)
    remembered.of(b"{%b}" % USE)
    for end in (b"", b',"idempotency_key":"a"}'):
        body = b"".join(pieces) + end
        assert outcome(lambda: said(remembered, body)) == outcome(lambda: read_track(body))  # noqa: B023


def test_only_the_rest_is_remembered() -> None:
    """A key comes once: with it, each body would push out another that will come again."""
    remembered: Remembered[Wanted[Any]] = Remembered(read_track, 2**16)
    for number in range(100):
        body = json.dumps(
            {"customer_id": "ann", "feature_id": "m", "idempotency_key": f"key-{number}"}
        ).encode()
        assert said(remembered, body).request.idempotency_key == f"key-{number}"
    assert len(remembered) == 1
    long = json.dumps({"customer_id": "ann", "feature_id": "m" * meter.BODY_REMEMBERED_MAX}).encode()
    said(remembered, long)
    assert len(remembered) == 1
