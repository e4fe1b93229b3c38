"""The structs of `wire/` as JSON Schema.

They mean more than their types say. An amount is raw text there, and a number here; a count or an instant is a float
there, since SDKs send `20.0`, and an integer here. A parameter that is not built is not here. What the words mean is in
`glossary.py`.
"""

from collections.abc import Iterator
from inspect import cleandoc

import msgspec
from msgspec import Raw, inspect

from creditgate.api.glossary import OWN_OBJECTS, REQUIRED, WORDS, Schema
from creditgate.api.wire.fields import Request

_SCHEMAS = "#/components/schemas/"
_AMOUNT: Schema = {"type": "number", "format": "decimal"}  # exact, never a double of ours
_PLAIN = (inspect.StrType, inspect.IntType, inspect.FloatType, inspect.BoolType)


def reference(kind: type[msgspec.Struct]) -> Schema:
    """Return what stands for a struct's schema elsewhere in the document."""
    return {"$ref": _SCHEMAS + kind.__name__}


def schemas_of(*kinds: type[msgspec.Struct]) -> Schema:
    """Return the schemas of these structs and of all that stand in them, by name."""
    waiting: list[type] = list(kinds)
    known: dict[str, type] = {}
    while waiting:
        kind = waiting.pop()
        assert known.setdefault(kind.__name__, kind) is kind, f"two structs are called {kind.__name__}"
        waiting += set(_structs_in(kind)) - set(known.values())
    return {name: _struct_schema(known[name]) for name in sorted(known)}


def _structs_in(kind: type) -> Iterator[type]:
    parts = [field.type for field in fields(kind)]
    while parts:
        match parts.pop():
            case inspect.StructType(cls=found):
                yield found
            case inspect.UnionType(types=types):
                parts += types
            case inspect.VarTupleType(item_type=inner) | inspect.DictType(value_type=inner):
                parts.append(inner)


def _struct_schema(kind: type) -> Schema:
    properties = {field.encode_name: _property(kind, field) for field in fields(kind)}
    schema: Schema = {"type": "object", "description": cleandoc(kind.__doc__ or ""), "properties": properties}
    names = required(kind)
    return schema | ({"required": names} if names else {})


def required(kind: type) -> list[str]:
    """Return the fields that are there: of an answer all but the unset ones, also those with a default."""
    is_request = issubclass(kind, Request)
    also = REQUIRED.get(kind.__name__, ())
    return [
        field.encode_name
        for field in fields(kind)
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


def fields(kind: type) -> list[inspect.Field]:
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
            return found.extra_json_schema or _schema(found.type)
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
