"""The OpenAPI 3.1 document, made from the routes' tables: which paths there are, what goes in and what comes out."""

from collections.abc import Mapping, Sequence
from inspect import cleandoc

from creditgate import __version__
from creditgate.api.calls import LegacyRoute, Verb
from creditgate.api.examples import EXAMPLES
from creditgate.api.glossary import Schema
from creditgate.api.problems import CHECKS, TRACKS
from creditgate.api.schemas import fields, reference, required, schemas_of
from creditgate.api.wire.answers import ErrorAnswer

_KEY = "secret_key"

_DESCRIPTION = """\
Checks and takes credits. Amounts are exact decimal numbers with up to 9 decimals, instants are Unix ms.
Parameters that are not listed are ignored, or refused with `invalid_request` if the Autumn API has them."""

_IDEMPOTENCY = "Idempotency-Key"
# Calls that may be sent again as they are, or whose items have keys of their own: they take no such key.
_REPEATABLE = (
    ".get",
    ".list",
    "_list",
    ".aggregate",
    ".get_or_create",
    ".statement",
    ".advance_test_clock",
    ".progress",
    ".batch",
    ".preview_attach",
    "customer",
    "customers",
)

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

_LEGACY, _OPERATIONS = "legacy", "operations"
_PARTS: Schema = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["ok", "unavailable"]},
        "parts": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["status", "parts"],
}
_ALIVE: Schema = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}


def document(verbs: Mapping[str, Verb], legacy: Sequence[LegacyRoute]) -> Schema:
    """Return the document of all that is answered but pages; what answers a version before 2.1 is not in it."""
    paths = {f"/v1/{name}": {"post": _operation(name, verb)} for name, verb in verbs.items()}
    paths |= {_legacy_path(route): {route.method.lower(): _legacy_operation(route)} for route in legacy}
    tables = (*verbs.values(), *(route.verb for route in legacy))
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
        "tags": [{"name": tag} for tag in (*sorted({_tag(name) for name in verbs}), _LEGACY, _OPERATIONS)],
        "paths": paths | _for_operators(),
        "components": {
            "schemas": schemas_of(
                ErrorAnswer, *(kind for verb in tables for kind in (*verb.requests, verb.answer))
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
    answers = {str(verb.status): "Done, or the answer."}
    if name in CHECKS:
        answers["202"] = "Undecided: allowed only if the feature says so."
    if name in TRACKS:
        answers["202"] = "Undecided: kept, and taken once Redis is back."
    errors = {"4XX": "Refused; nothing was changed."}
    if name not in (*CHECKS, *TRACKS):  # see problems.py
        errors["5XX"] = "Could not be done now; 503 says when to come again."
    return {
        "operationId": name.replace(".", "_"),
        "summary": name,
        "description": " ".join(cleandoc(request.__doc__ or "") for request in verb.requests),
        "tags": [_tag(name)],
        "parameters": [{"$ref": f"#/components/parameters/{header}"} for header in _headers(name)],
        "requestBody": _body(name, verb),
        "responses": {status: _content(text, _answer(verb)) for status, text in answers.items()}
        | {status: _content(text, reference(ErrorAnswer)) for status, text in errors.items()},
    }


def _legacy_operation(route: LegacyRoute) -> Schema:
    operation = _operation(route.name, route.verb)
    if route.method == "GET":
        del operation["requestBody"]
        operation["parameters"] += [_in_url(field.encode_name) for field in fields(route.verb.request)]
    return operation | {"operationId": f"legacy_{route.name}", "tags": [_LEGACY], "deprecated": True}


def _legacy_path(route: LegacyRoute) -> str:
    """Return the path as OpenAPI spells it: Starlette's says that a parameter may hold slashes."""
    return f"/v1/{route.path}".replace(":path}", "}")


def _in_url(name: str) -> Schema:
    if name == "customer_id":
        return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    names = {"type": "array", "items": {"type": "string"}}
    return {"name": name, "in": "query", "explode": False, "schema": names}


def _headers(name: str) -> list[str]:
    return [header for header in _HEADERS if header != _IDEMPOTENCY or not name.endswith(_REPEATABLE)]


def _body(name: str, verb: Verb) -> Schema:
    kinds = [reference(request) for request in verb.requests]
    schema: Schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if verb.items_max:
        schema = {"type": "array", "items": schema, "minItems": 1, "maxItems": verb.items_max}
    content: Schema = {"schema": schema}
    if name in EXAMPLES:
        content["example"] = EXAMPLES[name]
    return {"required": bool(required(verb.request)), "content": {"application/json": content}}


def _answer(verb: Verb) -> Schema:
    schema = reference(verb.answer)
    return {"type": "array", "items": schema} if verb.answers_each else schema


def _content(description: str, schema: Schema, media_type: str = "application/json") -> Schema:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _tag(name: str) -> str:
    return name.partition(".")[0]
