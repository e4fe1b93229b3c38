"""The OpenAPI 3.1 document of the routes, made from their tables: what the code reads and answers.

The structs of `wire/` mean more than their types say. An amount is raw text there, and a number here; a count or an
instant is a float there, since SDKs send `20.0`, and an integer here. A parameter that is not built is not here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, inspect

from creditgate import __version__
from creditgate.api.calls import LegacyRoute, Verb
from creditgate.api.problems import CHECKS, TRACKS
from creditgate.api.wire.answers import ErrorAnswer
from creditgate.api.wire.fields import NotYet, Request

Schema = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_AMOUNT: Schema = {"type": "number", "format": "decimal"}  # exact, never a double of ours
_KEY = "secret_key"
_LEGACY = "legacy"

_DESCRIPTION = """\
Checks and takes credits. Amounts are exact decimal numbers with up to 9 decimals, instants are Unix ms.
Parameters that are not listed are ignored, or refused with `invalid_request` if the Autumn API has them."""

_HEADERS: Schema = {
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes a call that changes something happen once within 24 hours, however often it is sent.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    },
    "x-api-version": {
        "name": "x-api-version",
        "in": "header",
        "description": "2.1 or later; the newest if it is not sent.",
        "schema": {"type": "string", "examples": ["2.4.0"]},
    },
}


def document(verbs: Mapping[str, Verb], legacy: Sequence[LegacyRoute]) -> Schema:
    """Return the document for these routes; what answers a version before 2.1 is not in it."""
    paths = {f"/v1/{name}": {"post": _operation(name, verb)} for name, verb in verbs.items()}
    paths |= {_legacy_path(route): {route.method.lower(): _legacy_operation(route)} for route in legacy}
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
        "tags": [{"name": tag} for tag in (*sorted({_tag(name) for name in verbs}), _LEGACY)],
        "paths": paths,
        "components": {
            "schemas": _components([*verbs.values(), *(route.verb for route in legacy)]),
            "parameters": _HEADERS,
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(name: str, verb: Verb) -> Schema:
    answers = ["200", "202"] if name in CHECKS else ["200"]
    errors = ["4XX"] if name in (*CHECKS, *TRACKS) else ["4XX", "5XX"]
    return {
        "operationId": name.replace(".", "_"),
        "summary": name,
        "description": verb.request.__doc__,
        "tags": [_tag(name)],
        "parameters": [{"$ref": f"#/components/parameters/{header}"} for header in _HEADERS],
        "requestBody": {
            "required": any(field.required for field in _fields(verb.request)),
            "content": _json(verb.request),
        },
        "responses": {
            **{
                status: _response("Undecided" if status == "202" else "OK", verb.answer) for status in answers
            },
            **{status: _response("Error", ErrorAnswer) for status in errors},
        },
    }


def _legacy_operation(route: LegacyRoute) -> Schema:
    operation = _operation(route.name, route.verb)
    if route.method == "GET":
        del operation["requestBody"]
        operation["parameters"] += [_in_url(field.encode_name) for field in _fields(route.verb.request)]
    return operation | {"operationId": f"legacy_{route.name}", "tags": [_LEGACY], "deprecated": True}


def _legacy_path(route: LegacyRoute) -> str:
    """Return the path as OpenAPI spells it: Starlette's says that a parameter may hold slashes."""
    return f"/v1/{route.path}".replace(":path}", "}")


def _in_url(name: str) -> Schema:
    if name == "customer_id":
        return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    names = {"type": "array", "items": {"type": "string"}}
    return {"name": name, "in": "query", "explode": False, "schema": names}


def _response(description: str, answer: type[msgspec.Struct]) -> Schema:
    return {"description": description, "content": _json(answer)}


def _json(kind: type[msgspec.Struct]) -> Schema:
    return {"application/json": {"schema": {"$ref": _SCHEMAS + kind.__name__}}}


def _components(verbs: Iterable[Verb]) -> Schema:
    """Return the schema of every struct that a route reads or answers, by name."""
    waiting: list[type] = [ErrorAnswer]
    waiting += [kind for verb in verbs for kind in (verb.request, verb.answer)]
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
    fields = _fields(kind)
    is_request = issubclass(kind, Request)
    # An answer has every field but the unset ones, also where the struct has a default.
    required = [f.encode_name for f in fields if f.required or not (is_request or _may_be_unset(f))]
    schema: Schema = {
        "type": "object",
        "description": kind.__doc__,
        "properties": {f.encode_name: _schema(f.type) | _default(f, is_request) for f in fields},
    }
    return schema | ({"required": required} if required else {})


def _fields(kind: type) -> list[inspect.Field]:
    """Return the fields of a struct but for those that are not built."""
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return [field for field in found.fields if not _is_not_built(field.type)]


def _is_not_built(found: inspect.Type) -> bool:
    """Say whether no value of it asks for anything: one with a harmless value is worth knowing."""
    parts = found.types if isinstance(found, inspect.UnionType) else (found,)
    return any(isinstance(part, inspect.CustomType) and not _harmless(part) for part in parts)


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
        case inspect.CustomType():
            return {"enum": list(_harmless(found))}
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
    only = _schema(parts[0])
    if len(parts) == 1 and is_nullable and "$ref" not in only:
        kind = {"type": [only["type"], "null"]} if "type" in only else {}
        choices = {"enum": [*only["enum"], None]} if "enum" in only else {}
        return only | kind | choices
    return {"anyOf": [*map(_schema, parts), *([{"type": "null"}] if is_nullable else [])]}


def _harmless(found: inspect.CustomType) -> tuple[object, ...]:
    assert issubclass(found.cls, NotYet)
    return found.cls.harmless


def _tag(name: str) -> str:
    return name.partition(".")[0]
