"""The OpenAPI 3.1 document, made from the routes' tables: what the code reads and answers.

The structs of `wire/` mean more than their types say. An amount is raw text there, and a number here; a count or an
instant is a float there, since SDKs send `20.0`, and an integer here. A parameter that is not built is not here. What
the words mean is in `glossary.py`.
"""

from collections.abc import Iterator, Mapping
from inspect import cleandoc

import msgspec
from msgspec import Raw, inspect

from creditgate import __version__
from creditgate.api.calls import Verb
from creditgate.api.examples import EXAMPLES
from creditgate.api.glossary import OWN_OBJECTS, REQUIRED, WORDS, Schema
from creditgate.api.wire.answers import ErrorAnswer
from creditgate.api.wire.fields import Request

_SCHEMAS = "#/components/schemas/"
_AMOUNT: Schema = {"type": "number", "format": "decimal"}  # exact, never a double of ours
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

_PLAIN = (inspect.StrType, inspect.IntType, inspect.FloatType, inspect.BoolType)
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
            "schemas": _components(verbs),
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
        "responses": {status: _content(text, _reference(verb.answer)) for status, text in answers.items()}
        | {status: _content(text, _reference(ErrorAnswer)) for status, text in errors.items()},
    }


def _headers(name: str) -> list[str]:
    return [header for header in _HEADERS if header != _IDEMPOTENCY or not name.endswith(_REPEATABLE)]


def _body(name: str, request: type[Request]) -> Schema:
    content: Schema = {"schema": _reference(request)}
    if name in EXAMPLES:
        content["example"] = EXAMPLES[name]
    return {"required": bool(_required(request)), "content": {"application/json": content}}


def _content(description: str, schema: Schema, media_type: str = "application/json") -> Schema:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _reference(kind: type[msgspec.Struct]) -> Schema:
    return {"$ref": _SCHEMAS + kind.__name__}


def _components(verbs: Mapping[str, Verb]) -> Schema:
    """Return the schema of every struct that a route reads or answers, by name."""
    waiting: list[type] = [ErrorAnswer]
    waiting += [kind for verb in verbs.values() for kind in (verb.request, verb.answer)]
    known: dict[str, type] = {}
    while waiting:
        kind = waiting.pop()
        assert known.setdefault(kind.__name__, kind) is kind, f"two structs are called {kind.__name__}"
        waiting += set(_structs_in(kind)) - set(known.values())
    return {name: _struct_schema(known[name]) for name in sorted(known)}


def _structs_in(kind: type) -> Iterator[type]:
    parts = [field.type for field in _fields(kind)]
    while parts:
        match parts.pop():
            case inspect.StructType(cls=found):
                yield found
            case inspect.UnionType(types=types):
                parts += types
            case inspect.VarTupleType(item_type=inner) | inspect.DictType(value_type=inner):
                parts.append(inner)


def _struct_schema(kind: type) -> Schema:
    properties = {field.encode_name: _property(kind, field) for field in _fields(kind)}
    schema: Schema = {"type": "object", "description": cleandoc(kind.__doc__ or ""), "properties": properties}
    required = _required(kind)
    return schema | ({"required": required} if required else {})


def _required(kind: type) -> list[str]:
    """An answer has every field but the unset ones, also where the struct has a default."""
    is_request = issubclass(kind, Request)
    also = REQUIRED.get(kind.__name__, ())
    return [
        field.encode_name
        for field in _fields(kind)
        if field.required or field.encode_name in also or not (is_request or _may_be_unset(field))
    ]


def _property(kind: type, field: inspect.Field) -> Schema:
    """Return the schema of one field: its type, what the word means, and the limits and default of a parameter."""
    is_request, name = issubclass(kind, Request), field.encode_name
    schema = _schema(field.type)
    if name in OWN_OBJECTS and isinstance(field.type, inspect.RawType):
        schema = {"type": ["object", "null"] if is_request else "object"}
    word = WORDS.get(f"{kind.__name__}.{name}") or WORDS.get(name)
    if word is None:
        return schema | _default(field, is_request)
    limits = word.limits if is_request and "type" in schema else {}
    return schema | {"description": word.meaning} | limits | _default(field, is_request)


def _fields(kind: type) -> list[inspect.Field]:
    """Return the fields of a struct but for those that are not built."""
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return [field for field in found.fields if not _is_not_built(field.type)]


def _is_not_built(found: inspect.Type) -> bool:
    parts = found.types if isinstance(found, inspect.UnionType) else (found,)
    return any(isinstance(part, inspect.CustomType) for part in parts)


def _may_be_unset(field: inspect.Field) -> bool:
    return not field.required and field.default is field.default_factory is msgspec.NODEFAULT


def _default(field: inspect.Field, is_request: bool) -> Schema:
    """Return the default of a parameter where it says something: neither nothing nor empty."""
    silent = (None, msgspec.NODEFAULT, "", ())
    if not is_request or isinstance(field.default, Raw | msgspec.Struct) or field.default in silent:
        return {}
    return {"default": msgspec.to_builtins(field.default)}


def _schema(found: inspect.Type) -> Schema:
    match found:
        case inspect.StructType():
            return {"$ref": _SCHEMAS + found.cls.__name__}
        case inspect.Metadata():
            return _schema(found.type) | (found.extra_json_schema or {})
        case inspect.RawType():
            return _AMOUNT
        case inspect.StrType():
            return {"type": "string"}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType() | inspect.FloatType():
            return {"type": "integer"}
        case inspect.EnumType():
            return {"type": "string", "enum": [member.value for member in found.cls]}
        case inspect.LiteralType():
            return {"type": "string", "enum": list(found.values)}
        case inspect.VarTupleType():
            return {"type": "array", "items": _schema(found.item_type)}
        case inspect.DictType():
            return {"type": "object", "additionalProperties": _schema(found.value_type)}
        case inspect.UnionType():
            return _any_of(found)
        case inspect.AnyType():
            return {}
        case _:
            raise TypeError(f"no schema for {found}")


def _any_of(found: inspect.UnionType) -> Schema:
    """Return one schema that may also be null, where it is that simple, else the list."""
    parts = [part for part in found.types if not isinstance(part, inspect.NoneType)]
    is_nullable = len(parts) < len(found.types)
    if (
        all(isinstance(part, _PLAIN) for part in parts) and len(parts) > 2
    ):  # any value but a list or an object
        return {"type": ["string", "number", "boolean"]}
    only = _schema(parts[0])
    if len(parts) == 1 and is_nullable and "$ref" not in only:
        kind = {"type": [only["type"], "null"]} if "type" in only else {}
        choices = {"enum": [*only["enum"], None]} if "enum" in only else {}
        return only | kind | choices
    return {"anyOf": [*map(_schema, parts), *([{"type": "null"}] if is_nullable else [])]}


def _tag(name: str) -> str:
    return name.partition(".")[0]
