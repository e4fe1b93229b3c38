"""The OpenAPI 3.1 document, made from the routes' tables: which paths there are, what goes in and what comes out."""

from collections.abc import Mapping
from inspect import cleandoc

from creditgate import __version__
from creditgate.api.calls import Verb
from creditgate.api.examples import EXAMPLES
from creditgate.api.glossary import Schema
from creditgate.api.schemas import reference, required, schemas_of
from creditgate.api.wire.answers import ErrorAnswer
from creditgate.api.wire.fields import Request

_KEY = "secret_key"
_CHECK, _TRACK = "balances.check", "balances.track"  # never answered 5xx, see problems.py

_DESCRIPTION = """\
Checks and takes credits. Amounts are exact decimal numbers with up to 9 decimals, instants are Unix ms.
Parameters that are not listed are ignored, or refused with `invalid_request` if the Autumn API has them."""

_IDEMPOTENCY = "Idempotency-Key"
# Verbs that may be sent again as they are: they take no such key.
_REPEATABLE = (".get", ".list", ".get_or_create", ".statement", ".advance_test_clock")

_HEADERS: Schema = {
    _IDEMPOTENCY: {
        "name": _IDEMPOTENCY,
        "in": "header",
        "description": "Of your own, up to 256 bytes: the call happens once within 24 hours, however often it is sent.",
        "schema": {"type": "string"},
    },
    "x-api-version": {
        "name": "x-api-version",
        "in": "header",
        "description": "2.1 or later; the newest if it is not sent.",
        "schema": {"type": "string", "examples": ["2.4.0"]},
    },
}

_OPERATIONS = "operations"
_PARTS: Schema = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["ok", "unavailable"]},
        "parts": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["status", "parts"],
}
_ALIVE: Schema = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}


def document(verbs: Mapping[str, Verb]) -> Schema:
    """Return the document for these verbs, and what is there for operators."""
    tags = sorted({_tag(name) for name in verbs})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "creditgate",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{_KEY: []}],
        "tags": [{"name": tag} for tag in (*tags, _OPERATIONS)],
        "paths": {f"/v1/{name}": {"post": _operation(name, verb)} for name, verb in verbs.items()}
        | _for_operators(),
        "components": {
            "schemas": schemas_of(
                ErrorAnswer, *(kind for verb in verbs.values() for kind in (verb.request, verb.answer))
            ),
            "parameters": _HEADERS,
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _for_operators() -> Schema:
    """Return the paths that need no key."""
    ready, not_ready = ("Every part answers.", "A part is away; it is named.")
    return {
        "/healthz": _open("Says that the process lives.", {"200": _content("It does.", _ALIVE)}),
        "/readyz": _open(
            "Names each part: Redis and SQL.",
            {"200": _content(ready, _PARTS), "503": _content(not_ready, _PARTS)},
        ),
        "/metrics": _open(
            "Numbers for Prometheus.",
            {"200": _content("Its text format, or OpenMetrics by Accept.", {"type": "string"}, "text/plain")},
        ),
    }


def _open(summary: str, responses: Schema) -> Schema:
    return {"get": {"summary": summary, "tags": [_OPERATIONS], "security": [], "responses": responses}}


def _operation(name: str, verb: Verb) -> Schema:
    answers = {"200": "Done, or the answer."} | ({"202": "Undecided: not allowed."} if name == _CHECK else {})
    errors = {"4XX": "Refused; nothing was changed."}
    if name not in (_CHECK, _TRACK):
        errors["5XX"] = "Could not be done now; 503 says when to come again."
    return {
        "operationId": name.replace(".", "_"),
        "summary": name,
        "description": cleandoc(verb.request.__doc__ or ""),
        "tags": [_tag(name)],
        "parameters": [{"$ref": f"#/components/parameters/{header}"} for header in _headers(name)],
        "requestBody": _body(name, verb.request),
        "responses": {status: _content(text, reference(verb.answer)) for status, text in answers.items()}
        | {status: _content(text, reference(ErrorAnswer)) for status, text in errors.items()},
    }


def _headers(name: str) -> list[str]:
    return [header for header in _HEADERS if header != _IDEMPOTENCY or not name.endswith(_REPEATABLE)]


def _body(name: str, request: type[Request]) -> Schema:
    content: Schema = {"schema": reference(request)}
    if name in EXAMPLES:
        content["example"] = EXAMPLES[name]
    return {"required": bool(required(request)), "content": {"application/json": content}}


def _content(description: str, schema: Schema, media_type: str = "application/json") -> Schema:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _tag(name: str) -> str:
    return name.partition(".")[0]
