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
_STEP = re.compile(r"\.([^.\[]+)|\[")
_RECEIVED = {"str": "string", "int": "number", "float": "number", "bool": "boolean"}


def explain(error: msgspec.ValidationError, kind: Any) -> tuple[str, str]:
    """Return the place (`items[0].reset`, or '' for the whole) and the text: `must be a number (received string)`."""
    match = _MESSAGE.fullmatch(str(error))
    assert match is not None
    text, path = match["text"], match["path"] or ""
    if unknown := _UNKNOWN.fullmatch(text):
        struct = _type_at(kind, path)
        assert isinstance(struct, inspect.StructType)
        path, text = (
            f"{path}.{unknown[1]}",
            f"must be one of: {', '.join(f.encode_name for f in struct.fields)}",
        )
    elif missing := _MISSING.fullmatch(text):
        path = f"{path}.{missing[1]}"
        text = _expectation(_type_at(kind, path), "undefined")
    elif mismatch := _MISMATCH.fullmatch(text):
        text = _expectation(_type_at(kind, path), _RECEIVED.get(mismatch[1], mismatch[1]))
    elif text.startswith("Invalid enum value"):
        text = _expectation(_type_at(kind, path), "")
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
        case _:
            noun = "a number"
    return f"must be {noun} (received {received})"


def _type_at(kind: Any, path: str) -> inspect.Type:
    """Return the type that a request declares at a path like `.items[0].price`."""
    found = inspect.type_info(kind)
    for step in _STEP.finditer(path):
        if isinstance(found, inspect.StructType):
            found = next(field.type for field in found.fields if field.encode_name == step[1])
        elif isinstance(found, inspect.VarTupleType):
            found = found.item_type
        elif isinstance(found, inspect.DictType):
            found = found.value_type
        if isinstance(found, inspect.UnionType):
            found = next(part for part in found.types if not isinstance(part, inspect.NoneType))
    return found
