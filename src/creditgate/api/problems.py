"""Every error as HTTP: one table from exception to status, and one place where a failure becomes an answer."""

from collections.abc import Mapping
from http import HTTPStatus

from creditgate.api.calls import NO_HEADERS, Answer
from creditgate.api.wire.answers import ErrorAnswer, encode, spooled_track, undecided_check
from creditgate.api.wire.fields import read
from creditgate.api.wire.legacy import LegacyCheckRequest
from creditgate.api.wire.requests import CheckRequest, TrackRequest
from creditgate.engine.spool import SpoolFull
from creditgate.errors import (
    Conflict,
    CreditgateError,
    InvalidInputs,
    InvalidRequest,
    KeyReused,
    NotFound,
    Unavailable,
    Undecided,
)
from creditgate.telemetry import logger

# The Python client of before 2.1 repeats by itself whatever was answered so, though it may have taken effect, unless it
# is told not to.
RETRY_AFTER: Mapping[str, str] = {"Retry-After": "1", "X-Should-Retry": "false"}

# The calls of which an SDK takes a 5xx for something else, under all their names: never answered one.
CHECKS: Mapping[str, type[CheckRequest]] = {
    "balances.check": CheckRequest,
    "check": LegacyCheckRequest,
    "entitled": LegacyCheckRequest,
}
TRACKS = ("balances.track", "track", "events")

_FALLBACK: Mapping[str, str] = {"X-Creditgate-Decision": "fallback"}

_STATUS: Mapping[type[CreditgateError], int] = {
    InvalidInputs: 400,
    InvalidRequest: 400,
    NotFound: 404,
    Conflict: 409,
    KeyReused: 422,
    Undecided: 503,
    Unavailable: 503,
    CreditgateError: 500,
}
_STATUS_OF_CODE: Mapping[str, int] = {"checkout_expired": 410, "too_many_batches": 429}

# The text of what nobody foresaw stays in the log: it may name what is none of the caller's business.
_BUG = CreditgateError("Something went wrong inside creditgate")

log = logger(__name__)


class TurnedAway(CreditgateError):
    """The request was turned away at the door, before anything looked at what it asks for."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.headers = headers


def status_of(error: CreditgateError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, TurnedAway):
        return error.status
    by_class = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    return _STATUS_OF_CODE.get(error.code, by_class)


def answer_to(error: BaseException | None, *, verb: str, body: bytes, env: str) -> Answer:
    """Return the answer to a call that failed, or was broken off by something inside; `body` is what was read of it.

    An SDK takes a 5xx on check for "allowed" and drops the usage of a track, so these two are answered as undecided
    instead: 202 and not allowed, and 429, which every SDK raises. Only where the spool is full, a track is refused.
    """
    if not isinstance(error, Exception):
        error = Undecided("The call was broken off")
    failure = error if isinstance(error, CreditgateError) else _BUG
    status = status_of(failure)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request_failed", verb=verb, exc_info=error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and verb in CHECKS:
        return undecided_answer(_readable(body, CHECKS[verb]))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and verb in TRACKS and not isinstance(failure, SpoolFull):
        failure, status = Undecided(failure.message), HTTPStatus.TOO_MANY_REQUESTS
    return problem(failure, status=status, env=env)


def problem(error: CreditgateError, *, status: int, env: str) -> Answer:
    """Return an error as it stands on the wire."""
    headers = error.headers if isinstance(error, TurnedAway) else NO_HEADERS
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers = RETRY_AFTER
    return Answer(encode(ErrorAnswer(error.message, error.code, env)), status, headers)


def undecided_answer(request: CheckRequest | None, *, allowed: bool = False) -> Answer:
    """Return the answer to a check that could not be decided; None is one that cannot be read."""
    asked = undecided_check(
        customer_id=request.customer_id if request else "",
        required_nanos=request.required_nanos() if request else 0,
        allowed=allowed,
    )
    return Answer(encode(asked), HTTPStatus.ACCEPTED, _FALLBACK)


def spooled_answer(request: TrackRequest) -> Answer:
    """Return the answer to a track that could not be decided and is kept: it is posted once Redis is back."""
    kept = spooled_track(
        customer_id=request.customer_id,
        entity_id=request.entity_id,
        value_nanos=request.value_nanos(),
        event_name=request.event_name,
    )
    return Answer(encode(kept), HTTPStatus.ACCEPTED, _FALLBACK)


def _readable(body: bytes, kind: type[CheckRequest]) -> CheckRequest | None:
    try:
        request = read(kind, body)
        request.required_nanos()
    except CreditgateError:
        return None
    return request
