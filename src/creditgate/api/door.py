"""Who comes in: the right host, no foreign web page, a known key, a version we speak, JSON of a sensible size.

Each check is a function of headers that raises `TurnedAway` where something is wrong.
"""

import asyncio
from collections.abc import Collection
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from creditgate.api.problems import TurnedAway, problem
from creditgate.api.public import PUBLIC
from creditgate.api.scopes import scopes_of
from creditgate.api.versions import NEWEST, ONE_SHAPE_SINCE, Version, parse_version
from creditgate.core.scopes import KeyScope
from creditgate.engine.access import Access, digest_of
from creditgate.engine.customer_tokens import PREFIX as TOKEN_PREFIX
from creditgate.engine.customer_tokens import CustomerTokens

BODY_SECONDS_MAX = 2.0  # a body comes at once or is held back on purpose
KEY_CHARACTERS_SHOWN = 15

_SCHEME = "Bearer "
_KNOWN_PREFIXES = ("cg_sk_", "am_sk_")


class HostCheck:
    """Answers only requests that name us: a page whose own name was pointed at us (DNS rebinding) gets 400."""

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str], env: str) -> None:
        self._app = app
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._env = env

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.names_us(Headers(scope=scope).getlist("host")):
            error = TurnedAway(400, "invalid_host", "The Host header does not name this server")
            answer = problem(error, status=error.status, env=self._env)
            response = Response(answer.body, answer.status, media_type="application/json")
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def names_us(self, hosts: list[str]) -> bool:
        return "*" in self._allowed or (len(hosts) == 1 and _without_port(hosts[0]) in self._allowed)


class Caller(NamedTuple):
    """Who calls: the digest of its API key, or of the key that minted its token, and whose token that is."""

    key: str
    customer_id: str | None = None


def check_origin(headers: Headers, allowed: Collection[str] = ()) -> None:
    """Refuse what a browser sends for a page of another origin, unless it is allowed; programs send neither header."""
    origin = headers.get("origin")
    if origin is not None and origin in allowed:
        return
    is_own = origin is None or origin.partition("://")[2] == headers.get("host")
    if not is_own or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise TurnedAway(403, "cross_site_request", "Requests from web pages of another origin are refused")


class Callers:
    """Lets in who has an API key that may make a call, or the token of a customer, also from allowed web pages."""

    def __init__(self, access: Access, tokens: CustomerTokens, allowed_origins: Collection[str]) -> None:
        self._access = access
        self._tokens = tokens
        self._allowed_origins = allowed_origins

    async def let_in(self, headers: Headers, call: str) -> Caller:
        """Return who makes a call; TurnedAway without a key or token that is for this call."""
        is_token = headers.get("authorization", "").startswith(_SCHEME + TOKEN_PREFIX)
        check_origin(headers, self._allowed_origins if is_token else ())
        return await (self._by_token if is_token else self._by_key)(headers, call)

    async def _by_key(self, headers: Headers, call: str) -> Caller:
        authorization = headers.get("authorization", "")
        secret = authorization.removeprefix(_SCHEME)
        if not authorization.startswith(_SCHEME) or not secret:
            raise _unauthorized("no_secret_key", "Secret key not found in Authorization header")
        digest = digest_of(secret)
        scope = await self._access.find(digest)
        if scope is not None:
            return Caller(_may(digest, scope, call))
        if not secret.startswith(_KNOWN_PREFIXES):
            raise _unauthorized("invalid_request", "Invalid authorization token prefix")
        raise _unauthorized("invalid_secret_key", f"Invalid secret key: {secret[:KEY_CHARACTERS_SHOWN]}****")

    async def _by_token(self, headers: Headers, call: str) -> Caller:
        if call not in PUBLIC:
            message = (
                f"Endpoint {call} not accessible via publishable key. Please try with a secret key instead."
            )
            raise _unauthorized("endpoint_not_public", message)
        token = self._tokens.read(headers["authorization"].removeprefix(_SCHEME))
        scope = await self._access.find(token.key) if token else None
        if token is None or scope is None:
            raise _unauthorized("invalid_publishable_key", "Invalid publishable key")
        return Caller(_may(token.key, scope, call), token.customer_id)


def check_version(headers: Headers) -> Version:
    """Return the `x-api-version`; without one, the newest is meant. One before 2.1 had other answers and is refused."""
    version = read_version(headers)
    if version < ONE_SHAPE_SINCE:
        raise TurnedAway(
            400,
            "invalid_api_version",
            f"API version {headers['x-api-version']} is not supported; the oldest is 2.1, so please update the SDK",
        )
    return version


def read_version(headers: Headers) -> Version:
    """Return the `x-api-version`, however old; refuse what is none."""
    text = headers.get("x-api-version")
    if text is None:
        return NEWEST
    version = parse_version(text)
    if version is None:
        raise TurnedAway(400, "invalid_api_version", f'"{text}" is not a valid API version')
    return version


async def read_body(request: Request, *, bytes_max: int) -> bytes:
    """Return the body; TurnedAway if it is not JSON by its type, too large, or slow to come."""
    body = await _bounded_body(request, bytes_max)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type != "application/json":
        raise TurnedAway(415, "unsupported_media_type", "Content-Type must be application/json")
    return body


def too_large(bytes_max: int) -> TurnedAway:
    return TurnedAway(413, "body_too_large", f"The body must have at most {bytes_max} bytes")


async def _bounded_body(request: Request, bytes_max: int) -> bytes:
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for part in request.stream():
                size += len(part)
                if size > bytes_max:
                    raise too_large(bytes_max)
                parts.append(part)
    except ClientDisconnect:
        raise TurnedAway(400, "invalid_inputs", "input: the body did not arrive in full") from None
    except TimeoutError:
        raise TurnedAway(
            408, "request_timeout", f"The body must be sent within {BODY_SECONDS_MAX:.0f} seconds"
        ) from None
    return b"".join(parts)


def _may(digest: str, scope: KeyScope, call: str) -> str:
    """Return the digest of a key that may make the call."""
    if scope not in scopes_of(call):
        raise TurnedAway(403, "insufficient_scopes", f"A key with scope {scope} may not do this")
    return digest


def _unauthorized(code: str, message: str) -> TurnedAway:
    return TurnedAway(401, code, message, {"WWW-Authenticate": "Bearer"})


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
