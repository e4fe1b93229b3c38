"""Kinds of request fields, and how a body is read into a request.

Amounts stay raw JSON text until `core.amounts` reads them, so that no float ever holds one. Counts and instants are
floats, since the Python SDK sends `20.0`, until `numbers.py` has seen that they are whole. What Autumn knows and this
sidecar does not do yet has the type `NotYet`: it is refused with 400, unless its value asks for nothing.
"""

import re
from functools import cache
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import Raw, inspect

from creditgate.errors import CreditgateError, InvalidInputs, InvalidRequest

ABSENT = Raw()
DEPTH_MAX = 32


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A body, read. Fields that are not declared are ignored, as Autumn does."""


R = TypeVar("R", bound=Request)


class NotYet:
    """A parameter that is known and not built. `harmless` values ask for nothing, as the empty ones do."""

    harmless: ClassVar[tuple[object, ...]] = ()


class _NotBuilt(ValueError):
    pass


def read(kind: type[R], body: bytes) -> R:
    """Return the body as a request of this kind; an empty body is `{}`.

    Raises InvalidInputs with Autumn's words for what is malformed, InvalidRequest for what is not built.
    """
    try:
        body.decode("utf-8")  # msgspec skips what it need not understand, and would let bad UTF-8 pass there
        return _decoder(kind).decode(body or b"{}")  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise _explain(error, kind) from None
    except msgspec.DecodeError as error:
        raise InvalidInputs(f"input: {error}") from None
    except UnicodeDecodeError:
        raise InvalidInputs("input: must be UTF-8") from None
    except RecursionError:
        raise InvalidInputs("input: is nested too deeply") from None


def named(name: str) -> str:
    """Return the name of a feature or plan; InvalidInputs if there is none."""
    if not name:
        raise InvalidInputs("name: cannot be empty")
    return name


def own_object(token: Raw, *, field: str, bytes_max: int) -> str:
    """Return an object that is the caller's own affair as compact JSON text; `{}` where none was sent.

    Raises InvalidInputs if it is not an object, or too large, or so deep that somebody could not read it again.
    """
    text = bytes(token)
    if text in (b"", b"null"):
        return "{}"
    try:
        depth = _depth(msgspec.json.decode(text, type=dict[str, Any]))
    except (msgspec.DecodeError, RecursionError):
        raise InvalidInputs(f"{field}: must be an object of JSON values") from None
    compact = msgspec.json.format(text, indent=-1)
    if len(compact) > bytes_max or depth > DEPTH_MAX:
        raise InvalidInputs(f"{field}: must have at most {bytes_max} bytes and {DEPTH_MAX} levels")
    return compact.decode("utf-8")


def _depth(value: object) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(part) for part in parts), default=0)


@cache
def _decoder(kind: Any) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(kind, dec_hook=_refuse)


def _refuse(kind: type[NotYet], value: object) -> NotYet:
    """Read what is not built, where it asks for nothing; msgspec adds the path to the ValueError."""
    if _asks_for_nothing(value) or value in kind.harmless:
        return kind()
    raise _NotBuilt(f" {value}" if isinstance(value, str) else "")


def _asks_for_nothing(value: object) -> bool:
    """`{"enabled": false}` and `[]` change nothing wherever they stand."""
    if isinstance(value, dict):
        return all(_asks_for_nothing(part) for part in value.values())
    return value is None or value is False or value == "" or value == []


# msgspec's message, then where; and its words for JSON's types, which Autumn calls as JavaScript does.
_MESSAGE = re.compile(r"(?P<text>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_MISMATCH = re.compile(r"Expected `.*`, got `(.*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[")
_RECEIVED = {"str": "string", "int": "number", "float": "number", "bool": "boolean"}


def _explain(error: msgspec.ValidationError, kind: Any) -> CreditgateError:
    """Return the error in Autumn's words: `value: must be a number (received string)`."""
    match = _MESSAGE.fullmatch(str(error))
    assert match is not None
    text, path = match["text"], match["path"] or ""
    if isinstance(error.__cause__, _NotBuilt):
        return InvalidRequest(f"{path.lstrip('.')}{text} is not supported yet")
    if missing := _MISSING.fullmatch(text):
        path = f"{path}.{missing[1]}"
        text = _expectation(_type_at(kind, path), "undefined")
    elif mismatch := _MISMATCH.fullmatch(text):
        text = _expectation(_type_at(kind, path), _RECEIVED.get(mismatch[1], mismatch[1]))
    elif text.startswith("Invalid enum value"):
        text = _expectation(_type_at(kind, path), "")
    return InvalidInputs(f"{path.lstrip('.') or 'input'}: {text}")


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
