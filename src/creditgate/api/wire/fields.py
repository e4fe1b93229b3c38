"""Kinds of request fields, and how a body is read into a request.

Amounts stay raw JSON text until `core.amounts` reads them, so that no float ever holds one. Counts and instants are
floats, since the Python SDK sends `20.0`, until `numbers.py` has seen that they are whole. What Autumn knows and this
sidecar does not do yet has the type `NotYet`: it is refused with 400, unless its value asks for nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import Raw

from creditgate.core.own import compact_object
from creditgate.core.shapes import explain
from creditgate.errors import CreditgateError, InvalidInputs, InvalidRequest

ABSENT = Raw()


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


def read_list(body: bytes, *, items_max: int) -> list[bytes]:
    """Return the items of a body that is an array, not read yet; InvalidInputs unless there are 1 to `items_max`."""
    with _must_be("an array"):
        items = msgspec.json.decode(body or b"null", type=list[Raw])
    if not 1 <= len(items) <= items_max:
        raise InvalidInputs(f"input: must have 1 to {items_max} items")
    return [bytes(item) for item in items]


def read_object(body: bytes) -> dict[str, Raw]:
    """Return the fields of a body that is an object, as they stand there; an empty body is `{}`."""
    with _must_be("an object"):
        body.decode("utf-8")
        return msgspec.json.decode(body or b"{}", type=dict[str, Raw])


@contextmanager
def placed(index: int) -> Iterator[None]:
    """Name the place of an item in whatever is wrong with it: `[3].value: must be a number (received string)`."""
    try:
        yield
    except CreditgateError as error:
        text = error.message.removeprefix("input")
        dot = "." if text == error.message else ""
        raise type(error)(f"[{index}]{dot}{text}", code=error.code) from None


def named(name: str) -> str:
    """Return the name of a feature or plan; InvalidInputs if there is none."""
    if not name:
        raise InvalidInputs("name: cannot be empty")
    return name


def only_id(current: str, wanted: str | None, *, field: str) -> None:
    """Refuse another id for a feature or plan: journals, customers and applications know it by this one."""
    if wanted not in (None, current):
        raise InvalidRequest(f"{field}: an id never changes; create {wanted} and archive {current}")


def own_object(token: Raw, *, field: str, bytes_max: int) -> str:
    """Return an object that is the caller's own affair as compact JSON text; `{}` where none was sent.

    Raises InvalidInputs as `core.own` does.
    """
    text = bytes(token)
    return compact_object(text, field=field, bytes_max=bytes_max) if text not in (b"", b"null") else "{}"


@contextmanager
def _must_be(shape: str) -> Iterator[None]:
    try:
        yield
    except msgspec.ValidationError:
        raise InvalidInputs(f"input: must be {shape}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInputs(f"input: {error}") from None


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


def _explain(error: msgspec.ValidationError, kind: Any) -> CreditgateError:
    """Return the error in Autumn's words: `value: must be a number (received string)`."""
    path, text = explain(error, kind)
    if isinstance(error.__cause__, _NotBuilt):
        return InvalidRequest(f"{path}{text} is not supported yet")
    return InvalidInputs(f"{path or 'input'}: {text}")
