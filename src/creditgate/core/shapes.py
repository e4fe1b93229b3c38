"""What is wrong with a value that has not the shape of its struct: where, and in the words that Autumn has for it."""

import re
from typing import Any

import msgspec
from msgspec import inspect

# msgspec's message, then where; and its words for JSON's types, which Autumn calls as JavaScript does.
_MESSAGE = re.compile(r"(?P<text>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_MISMATCH = re.compile(r"Expected `.*`, got `(.*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[[^\]]*\]")
_RECEIVED = {"str": "string", "int": "number", "float": "number", "decimal": "number", "bool": "boolean"}


def explain(error: msgspec.ValidationError, kind: Any) -> tuple[str, str]:
    """Return the place (`items[0].reset`, or '' for the whole) and the text: `must be a number (received string)`."""
    match = _MESSAGE.fullmatch(str(error))
    assert match is not None
    text, path = match["text"], match["path"] or ""
    if unknown := _UNKNOWN.fullmatch(text):
        (struct,) = (part for part in _types_at(kind, path) if isinstance(part, inspect.StructType))
        path = f"{path}.{unknown[1]}"
        text = f"is no key here; the keys are {', '.join(field.encode_name for field in struct.fields)}"
    elif missing := _MISSING.fullmatch(text):
        path = f"{path}.{missing[1]}"
        text = _expectation(_types_at(kind, path)[0], "undefined")
    elif mismatch := _MISMATCH.fullmatch(text):
        text = _expectation(_types_at(kind, path)[0], _RECEIVED.get(mismatch[1], mismatch[1]))
    elif text.startswith("Invalid enum value"):
        text = _expectation(_types_at(kind, path)[0], "")
    return path.lstrip("."), text


def _expectation(expected: inspect.Type, received: str) -> str:
    match expected:
        case inspect.EnumType():
            return f"must be one of: {', '.join(member.value for member in expected.cls)}"
        case inspect.LiteralType():
            return f"must be one of: {', '.join(map(str, expected.values))}"
        case inspect.StrType():
            noun = "a string"
        case inspect.BoolType():
            noun = "a boolean"
        case inspect.StructType() | inspect.DictType():
            noun = "an object"
        case inspect.VarTupleType():
            noun = "an array"
        case inspect.IntType():
            noun = "a whole number"
        case _:
            noun = "a number"
    return f"must be {noun} (received {received})"


def _types_at(kind: Any, path: str) -> tuple[inspect.Type, ...]:
    """Return what a struct declares that a value at a path like `.items[0].price` may be, if it is not null."""
    types = _alternatives(inspect.type_info(kind))
    for step in _STEP.finditer(path):
        types = next(_alternatives(inner) for part in types if (inner := _inside(part, step[1])) is not None)
    return types


def _alternatives(found: inspect.Type) -> tuple[inspect.Type, ...]:
    parts = found.types if isinstance(found, inspect.UnionType) else (found,)
    return tuple(part for part in parts if not isinstance(part, inspect.NoneType))


def _inside(found: inspect.Type, name: str | None) -> inspect.Type | None:
    """Return the type of a field, or of an element where there is no name; None where there is no such thing."""
    match found:
        case inspect.StructType():
            return next((field.type for field in found.fields if field.encode_name == name), None)
        case inspect.VarTupleType():
            return found.item_type
        case inspect.DictType():
            return found.value_type
    return None
