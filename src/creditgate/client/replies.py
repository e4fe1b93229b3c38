"""What came back, read: a value where the sidecar answered, an exception for everything else.

Nothing here can turn a failure into "allowed": only a 200 whose body has the shape of the answer is one.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from creditgate.client.answers import Checked, Customer, Progress, Tracked
from creditgate.errors import (
    Conflict,
    CreditgateError,
    InsufficientBalance,
    InvalidInputs,
    InvalidRequest,
    KeyReused,
    NotFound,
    Unauthorized,
    Unavailable,
    Undecided,
)

Outcome: TypeAlias = Checked | Tracked | CreditgateError
Outcomes: TypeAlias = list[Outcome]
"""What became of the calls of a batch, in their order: of one that failed, the exception it would have raised."""

T = TypeVar("T")

_BY_CODE: Mapping[str, type[CreditgateError]] = {
    "undecided": Undecided,
    "invalid_inputs": InvalidInputs,
    "amount_out_of_range": InvalidInputs,
    "insufficient_balance": InsufficientBalance,
}
_BY_STATUS: Mapping[int, type[CreditgateError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: InvalidInputs,
    422: KeyReused,
    503: Unavailable,
}


# 202: it could not be decided. A check is allowed if its feature says so, and a track is kept until it can be.
_ANSWERED = (HTTPStatus.OK, HTTPStatus.ACCEPTED)


class Reply(NamedTuple):
    """What came back for one call."""

    status: int
    body: bytes
    is_replay: bool = False


class _Error(msgspec.Struct, frozen=True):
    message: str
    code: str


class _Fallback(msgspec.Struct, frozen=True):
    """What a check says that could not be decided."""

    allowed: bool
    code: str


_ALLOWED_ANYWAY = _Fallback(allowed=True, code="undecided")


class _Outcome(msgspec.Struct, frozen=True):
    status: int
    replayed: bool
    body: Raw


class _Success(msgspec.Struct, frozen=True):
    success: bool


def read_checked(reply: Reply) -> Checked:
    if reply.status == HTTPStatus.ACCEPTED and _read(reply, _Fallback) != _ALLOWED_ANYWAY:
        raise Undecided("The sidecar could not decide: Redis did not answer in time")
    checked = _read(reply, Checked)
    return msgspec.structs.replace(checked, is_replay=True) if reply.is_replay else checked


def read_tracked(reply: Reply) -> Tracked:
    tracked = _read(reply, Tracked)
    return msgspec.structs.replace(tracked, is_replay=True) if reply.is_replay else tracked


def read_progress(reply: Reply) -> Progress:
    return _read(reply, Progress)


def read_customer(reply: Reply) -> Customer:
    return _read(reply, Customer)


def read_nothing(reply: Reply) -> None:
    _read(reply, _Success)


def read_outcomes(
    reply: Reply, kinds: Sequence[Callable[[Reply], Checked | Tracked]], keys: Sequence[str | None]
) -> Outcomes:
    """Return what became of each call; `kinds` read them, `keys` are those that they were sent with."""
    found = _read(reply, list[_Outcome])
    if len(found) != len(kinds):
        raise _unreadable(reply)
    return [
        _outcome(Reply(outcome.status, bytes(outcome.body), outcome.replayed), read, key)
        for outcome, read, key in zip(found, kinds, keys, strict=True)
    ]


def _outcome(reply: Reply, read: Callable[[Reply], Checked | Tracked], key: str | None) -> Outcome:
    try:
        return read(reply)
    except Undecided as error:
        error.idempotency_key = key
        return error
    except CreditgateError as error:
        return error


def _read(reply: Reply, kind: type[T]) -> T:
    if reply.status not in _ANSWERED:
        raise _error(reply)
    try:
        value: T = _decoder(kind).decode(reply.body)  # type: ignore[arg-type]  # a type is hashable
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unreadable(reply) from None
    return value


def _error(reply: Reply) -> CreditgateError:
    """Return the error that was answered; whatever is not of the sidecar's own making leaves the call undecided."""
    try:
        error = _decoder(_Error).decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _unreadable(reply)
    kind = _BY_CODE.get(error.code) or _BY_STATUS.get(reply.status, CreditgateError)
    return kind(error.message, code=error.code)


def _unreadable(reply: Reply) -> Undecided:
    return Undecided(f"The answer, with status {reply.status}, is none of creditgate's")


@cache
def _decoder(kind: Hashable) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(kind)
