"""The door of the fast lane: it lets in a plain check or track, in one pass over the headers, and runs its handler.

Everything else is left to the Starlette lane, whose door (`door.py`) knows every other case and says what is wrong.
So this door never turns anybody away, and what it lets in `door.py` would let in, too.
"""

from collections.abc import Callable, Mapping

import msgspec
from starlette.datastructures import Headers
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from creditgate.api.calls import Answer, Call, Verb
from creditgate.api.problems import TurnedAway, answer_to
from creditgate.api.versions import NEWEST, Version
from creditgate.core.scopes import KeyScope
from creditgate.engine import stepping
from creditgate.engine.access import Access, digest_of
from creditgate.engine.stepping import Done

HEADERS_MAX = 64  # nobody who only wants to know a balance sends more
BODY_BYTES_MAX = HIGH_WATER_LIMIT  # uvicorn reads no more until somebody takes it, and here nobody does

# What the fast lane reads. Whoever sends one of them twice means something that the Starlette lane may interpret.
_READ = frozenset(
    (
        b"host",
        b"authorization",
        b"content-type",
        b"content-length",
        b"connection",
        b"x-api-version",
        b"idempotency-key",
    )
)
# What makes a request more than a POST of some JSON, and what a browser sends for a page.
_NOT_PLAIN = frozenset(
    (
        b"expect",
        b"transfer-encoding",
        b"content-encoding",
        b"trailer",
        b"upgrade",
        b"http2-settings",
        b"origin",
        b"sec-fetch-site",
    )
)
_CONNECTION = frozenset((None, b"keep-alive", b"Keep-Alive", b"close", b"Close"))
_SCHEME = b"Bearer "


class HotCall(msgspec.Struct, frozen=True):
    """Where a path leads. `speaks` returns the version that a request is in, or turns it away."""

    name: str
    verb: Verb
    speaks: Callable[[Headers], Version]
    scopes: frozenset[KeyScope]  # of the keys that may make it


class Admitted(msgspec.Struct, frozen=True):
    """A request that was let in, but for its body."""

    call: HotCall
    idempotency_keys: tuple[str, ...]
    base_url: str
    version: Version
    body_bytes: int
    key: str  # the API key's digest


class FastDoor:
    """`calls` are the hot ones, by their paths; `names_us` says whether these Host headers name this server."""

    def __init__(
        self, calls: Mapping[str, HotCall], access: Access, *, names_us: Callable[[list[str]], bool], env: str
    ) -> None:
        self._calls = calls
        self._access = access
        self._names_us = names_us
        self._env = env

    def admit(self, scope: HTTPScope) -> Admitted | None:
        """Let in a request that is plain and all right; None for every other."""
        call = self._calls.get(scope["path"])
        if (
            call is None
            or scope["method"] != "POST"
            or scope["query_string"]
            or scope["http_version"] != "1.1"
        ):
            return None
        headers = _plain(scope)
        if headers is None or b"host" not in headers or headers.get(b"connection") not in _CONNECTION:
            return None
        host = headers[b"host"].decode("latin-1")
        version = _version(call, headers.get(b"x-api-version"))
        api_key = self._known(headers.get(b"authorization", b""), call)
        if (
            version is None
            or api_key is None
            or not _is_small_json(headers, min(call.verb.body_bytes_max, BODY_BYTES_MAX))
            or not self._names_us([host])
        ):
            return None
        key = headers.get(b"idempotency-key")
        return Admitted(
            call=call,
            idempotency_keys=() if key is None else (key.decode("latin-1"),),
            base_url=f"{scope['scheme']}://{host}",
            version=version,
            body_bytes=int(headers[b"content-length"]),
            key=api_key,
        )

    def still_admits(self, request: Admitted) -> bool:
        """Say whether the same head, sent again, is let in again: only keys come and go."""
        return self._access.scopes.get(request.key) in request.call.scopes

    def answer(self, request: Admitted, body: bytes, done: Done[Answer]) -> None:
        """Have the same handler answer that does in the Starlette lane; it fails with the same errors.

        `done` gets the answer or the error, once, perhaps before this returns. Raises what is wrong with the body.
        """
        call = Call(body, request.idempotency_keys, request.base_url, request.version)
        rest = request.call.verb.begun(call, done)
        if rest is not None:
            stepping.run(rest, done)

    def failure(self, request: Admitted, body: bytes, error: BaseException) -> Answer:
        """Return the answer to a call that failed: the same words, too."""
        return answer_to(error, verb=request.call.name, body=body, env=self._env)

    def _known(self, authorization: bytes, call: HotCall) -> str | None:
        """Return the digest of the API key, None where there is none that is known, or that may not make this call."""
        if not authorization.startswith(_SCHEME):
            return None
        key = digest_of(authorization[len(_SCHEME) :].decode("latin-1"))
        return key if self._access.scopes.get(key) in call.scopes else None


def _plain(scope: HTTPScope) -> dict[bytes, bytes] | None:
    """Return the headers that we read; None if there is one that is not plain, one twice, or too many."""
    read: dict[bytes, bytes] = {}
    count = 0
    for name, value in scope["headers"]:
        count += 1
        if name in _READ:
            if name in read:
                return None
            read[name] = value
        elif name in _NOT_PLAIN:
            return None
    return read if count <= HEADERS_MAX else None


def _is_small_json(headers: dict[bytes, bytes], bytes_max: int) -> bool:
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or len(length) > len(str(bytes_max)) or not 0 < int(length) <= bytes_max:
        return False
    content_type = headers.get(b"content-type", b"")
    return content_type == b"application/json" or content_type.lower().startswith(b"application/json;")


def _version(call: HotCall, text: bytes | None) -> Version | None:
    if text is None:
        return NEWEST
    try:
        return call.speaks(Headers(raw=[(b"x-api-version", text)]))
    except TurnedAway:
        return None
