"""`balances.batch` on the wire: checks and tracks in one body, and one answer for each."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from creditgate.api.wire.fields import Request, read
from creditgate.api.wire.requests import CheckRequest, TrackRequest

_KINDS = ("CheckAnswer", "TrackAnswer", "ErrorAnswer")
_ANY_ANSWER = {"anyOf": [{"$ref": f"#/components/schemas/{kind}"} for kind in _KINDS]}


class BatchedVerb(Request, frozen=True):
    """What one item of a batch is."""

    verb: Literal["check", "track"]


class BatchedCheck(CheckRequest, frozen=True, kw_only=True):
    """A `balances.check` in a batch. Its `idempotency_key` is that of a check with the key in its header."""

    verb: Literal["check"]
    idempotency_key: str | None = None


class BatchedTrack(TrackRequest, frozen=True, kw_only=True):
    """A `balances.track` in a batch. Its `idempotency_key` is that of a track with the key in its body."""

    verb: Literal["track"]


class BatchedAnswer(msgspec.Struct, frozen=True):
    """What an item would have been answered as a call of its own."""

    status: int
    replayed: bool
    body: Annotated[Raw, Meta(extra_json_schema=_ANY_ANSWER)]


def read_item(body: bytes) -> BatchedCheck | BatchedTrack:
    """Return one item; raises as `fields.read` does."""
    if read(BatchedVerb, body).verb == "check":
        return read(BatchedCheck, body)
    return read(BatchedTrack, body)
