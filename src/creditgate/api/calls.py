"""One RPC call as the routes see it, and its answer: no web framework in either."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec

from creditgate.api.versions import NEWEST, Version
from creditgate.api.wire.fields import Request
from creditgate.core.ids import check_caller_id
from creditgate.engine.keys import CallerKey
from creditgate.engine.stepping import Done
from creditgate.errors import InvalidInputs

NO_HEADERS: Mapping[str, str] = {}
BODY_BYTES_MAX = 64 * 1024


class Call(msgspec.Struct, frozen=True, gc=False):
    """What came in. `base_url` is where the caller reached us, such as `http://127.0.0.1:8787`.

    `customer_id` and `expand` are what the URL says; only those of the legacy routes say anything.
    `key` is the digest of the API key, where the call came by Starlette's door.
    """

    body: bytes
    idempotency_keys: tuple[str, ...]
    base_url: str
    version: Version = NEWEST
    customer_id: str = ""
    expand: tuple[str, ...] = ()
    key: str = ""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What goes out: JSON, but for the status and what stands in headers."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = NO_HEADERS


Handler = Callable[[Call], Coroutine[Any, Any, Answer]]

Begin = Callable[[Call, Done[Answer]], Coroutine[Any, Any, Answer] | None]
"""Begins to answer; where that takes a coroutine it is returned, and answers instead."""


class Verb(NamedTuple):
    """One row of the routes' tables: who answers, what it is asked with, what it answers.

    With `items_max`, the body is an array of so many requests at most, each of this kind or of `or_request`;
    with `answers_each`, the answer is an array with one answer for each. `begin` answers as the handler does, sooner.
    """

    handler: Handler
    request: type[Request]
    answer: type[msgspec.Struct]
    status: int = 200
    body_bytes_max: int = BODY_BYTES_MAX
    items_max: int = 0
    or_request: type[Request] | None = None
    answers_each: bool = False
    begin: Begin | None = None

    def begun(self, call: Call, done: Done[Answer]) -> Coroutine[Any, Any, Answer] | None:
        """As `Begin`, of any verb. Raises what is wrong with the call."""
        return self.handler(call) if self.begin is None else self.begin(call, done)

    @property
    def requests(self) -> tuple[type[Request], ...]:
        return (self.request,) if self.or_request is None else (self.request, self.or_request)


async def answer(verb: Verb, call: Call) -> Answer:
    """Have a call answered: at once where that can be, else by the handler. Raises what is wrong with it.

    Who stops waiting does not stop a call that was begun at once: it is brought to its end.
    """
    ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    rest = verb.begun(call, partial(_end, ended))
    return await (ended if rest is None else rest)


def _end(ended: "asyncio.Future[Answer]", answer: Answer | None, error: BaseException | None) -> None:
    if ended.done():
        return
    if answer is not None:
        ended.set_result(answer)
    else:
        assert error is not None
        ended.set_exception(error)


class LegacyRoute(NamedTuple):
    """One row of the table of the routes that came before the verbs. The `name` is that of the call in logs."""

    method: str
    path: str
    name: str
    verb: Verb


def caller_key(verb: str, call: Call, *params: object, in_body: str | None = None) -> CallerKey | None:
    """Return the call's idempotency key, from the header or the body; None if it has none.

    `params` are what the call was understood to ask for, so that `2` and `2.0` are one call.
    """
    return caller_key_of(verb, call, lambda: fingerprint_of(*params), in_body=in_body)


def caller_key_of(
    verb: str, call: Call, fingerprint: Callable[[], str], *, in_body: str | None = None
) -> CallerKey | None:
    """As `caller_key`, where the fingerprint of the parameters may be known already.

    Autumn would claim a key in each place; one is enough to make a call happen once, and two are refused.
    """
    if not call.idempotency_keys and in_body is None:
        return None
    keys = [(f"{verb}:header", text) for text in call.idempotency_keys]
    if in_body is not None:
        keys.append((f"{verb}:body", in_body))
    if len(keys) > 1:
        raise InvalidInputs("idempotency_key: must be sent once, in the header or in the body")
    for scope, text in keys:
        return CallerKey(scope, check_caller_id(text, field="idempotency_key"), fingerprint())
    return None


def key_as_sent(key: CallerKey) -> str:
    """Return the key as Autumn's messages show it: one from a body carries its verb."""
    verb, _, place = key.scope.partition(":")
    return f"{verb}:{key.text}" if place == "body" else key.text


def fingerprint_of(*params: object) -> str:
    """Return what tells whether two calls ask for the same."""
    return hashlib.blake2b(msgspec.json.encode(params), digest_size=16).hexdigest()
