"""The catalog as somebody writes it down in TOML: from the text to features and plans, or to a sentence that helps.

    [features.usd_credits]
    type = "credit_system"
    costs = { basic_messages = "0.01" }

    [plans.free]
    auto_enable = true
    items = [{ feature = "usd_credits", included = "5", reset = "month" }]

`catalog_tables.py` has the keys of each table.
"""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import msgspec

from creditgate.core.catalog import Feature, Plan
from creditgate.core.catalog_tables import CatalogTable, FeatureTable, PlanTable, Table
from creditgate.core.own import depth_of
from creditgate.core.shapes import explain
from creditgate.core.toml_lines import Place, line_of
from creditgate.errors import CreditgateError, InvalidInputs, StartupError

FILE_DEPTH_MAX = 100  # what can be read again; metadata may be less deep

T = TypeVar("T", bound=Table)


class CatalogFileError(StartupError):
    """The file cannot be applied; the message names the file, the line and what to change there."""

    code = "invalid_catalog_file"


class CatalogFile(NamedTuple):
    """A file as it was read. `text` is kept to name a line where something does not fit the catalog."""

    name: str
    text: str
    features: tuple[Feature, ...]
    plans: tuple[Plan, ...]

    @contextmanager
    def blamed(self, *place: str | int) -> Iterator[None]:
        """Turn what is refused inside into an error that names the line of the place."""
        with _blamed(self.name, self.text, place):
            yield


def read_catalog_file(text: str, name: str) -> CatalogFile:
    """Return what the file says; raises CatalogFileError."""
    tables = _tables(text, name)
    with _blamed(name, text, ()):
        whole = _read(tables, CatalogTable)
    features, plans = [], []
    for feature_id, table in whole.features.items():
        with _blamed(name, text, ("features", feature_id)):
            features.append(_read(table, FeatureTable).feature(feature_id))
    for plan_id, table in whole.plans.items():
        with _blamed(name, text, ("plans", plan_id)):
            plans.append(_read(table, PlanTable).plan(plan_id))
    return CatalogFile(name, text, tuple(features), tuple(plans))


def _tables(text: str, name: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
        if depth_of(tables) <= FILE_DEPTH_MAX:
            return tables
    except tomllib.TOMLDecodeError as error:
        raise CatalogFileError(_syntax_error(error, text, name)) from None
    except (ValueError, ArithmeticError):  # int and Decimal have limits of their own, far above ours
        raise CatalogFileError(f"{name}:{_line_of_long_number(text)}: a number is too long") from None
    except RecursionError:
        pass
    raise CatalogFileError(f"{name}: tables or arrays are nested too deeply")


# From here on: how a mistake becomes a sentence.

_LONG_NUMBER = re.compile(r"[0-9_]{1000,}|[eE][+-]?[0-9_]{18,}")
_AT_END = re.compile(r" \((?:at line (\d+), column \d+|at end of document)\)$")
_PREFIX = re.compile(r"(?P<path>[\w-]+(?:\[\d+\]|\.[\w-]+)*): (?P<text>.*)", re.DOTALL)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STEP = re.compile(r"\[(\d+)\]|([\w-]+)")

_KEY_OF_FIELD = {
    "feature_id": "feature",
    "entity_feature_id": "entity_feature",
    "credit_schema": "costs",
}
"""What the wire and the code call it, and what it is called here."""


def _read(table: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        path, text = explain(error, kind)
        path = path.partition("[...]")[0]  # msgspec does not say which of the keys that may have any name
        text = text.replace("an object", "a table").replace(" (received undefined)", ", and is missing")
        raise InvalidInputs(f"{path}: {text}" if path else text) from None


@contextmanager
def _blamed(name: str, text: str, place: Place) -> Iterator[None]:
    try:
        yield
    except CatalogFileError:
        raise
    except CreditgateError as error:
        match = _PREFIX.fullmatch(error.message)
        steps = _STEP.findall(match["path"]) if match else []
        inner = tuple(int(number) if number else _KEY_OF_FIELD.get(key, key) for number, key in steps)
        told = match["text"] if match else error.message
        where = _path((*place, *inner))
        message = f"{name}:{line_of(text, (*place, *inner))}: {where + ': ' if where else ''}{told}"
        raise CatalogFileError(message) from None


def _path(place: Place) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in place)[1:]


def _key(key: str) -> str:
    """Return a key as it stands in the file: bare, or in quotes."""
    return key if _BARE_KEY.fullmatch(key) else msgspec.json.encode(key).decode()


def _syntax_error(error: tomllib.TOMLDecodeError, text: str, name: str) -> str:
    message = str(error)
    match = _AT_END.search(message)
    line = int(match[1]) if match and match[1] else text.rstrip().count("\n") + 1
    return f"{name}:{line}: {_AT_END.sub('', message)}"


def _line_of_long_number(text: str) -> int:
    found = _LONG_NUMBER.search(text)
    return text.count("\n", 0, found.start()) + 1 if found else 1
