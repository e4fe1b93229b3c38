"""The catalog as somebody writes it down in TOML: from the text to features and plans, or to a sentence that helps.

    [features.usd_credits]
    type = "credit_system"
    costs = { basic_messages = "0.01" }

    [plans.free]
    auto_enable = true
    items = [{ feature = "usd_credits", included = "5", reset = "month" }]

Amounts are exact: numbers, or numbers in quotes. What is left out has the value that a create on the wire gives it.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import msgspec

from creditgate.core.amounts import NANOS, parse_kept
from creditgate.core.catalog import (
    INTERVAL_COUNT_MAX,
    BillingInterval,
    CreditCost,
    Feature,
    FeatureType,
    Interval,
    ItemPrice,
    Plan,
    PlanItem,
    PlanPrice,
    Recurrence,
)
from creditgate.core.ids import check_caller_id, check_catalog_id
from creditgate.core.own import METADATA_BYTES_MAX, compact_object, depth_of
from creditgate.core.shapes import explain
from creditgate.core.toml_lines import Place, line_of
from creditgate.errors import CreditgateError, InvalidInputs, StartupError

FILE_DEPTH_MAX = 100  # what can be read again; metadata may be less deep

T = TypeVar("T", bound="Table")


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


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a key that it does not have is an error, not ignored."""


class CountedInterval(Table, frozen=True):
    """Every so many intervals."""

    interval: Interval
    interval_count: int = 1


class PriceTable(Table, frozen=True):
    """What a plan costs; for an item, what each started pack of `billing_units` costs."""

    amount: Any
    interval: BillingInterval
    interval_count: int = 1
    billing_units: Any = None


class ItemTable(Table, frozen=True):
    """What a plan gives of one feature."""

    feature: str
    included: Any = 0
    reset: Interval | CountedInterval | None = None
    price: PriceTable | None = None


class DisplayTable(Table, frozen=True):
    """What one and what several of a feature are called."""

    singular: str
    plural: str


class FeatureTable(Table, frozen=True):
    """`[features.ID]`"""

    name: str | None = None
    type: FeatureType = FeatureType.METERED
    consumable: bool | None = None
    costs: dict[str, Any] = {}
    event_names: tuple[str, ...] = ()
    display: DisplayTable | None = None


class PlanTable(Table, frozen=True):
    """`[plans.ID]`"""

    name: str | None = None
    description: str | None = None
    group: str = ""
    add_on: bool = False
    auto_enable: bool = False
    price: PriceTable | None = None
    items: tuple[ItemTable, ...] = ()
    metadata: dict[str, Any] = {}


class CatalogTable(Table, frozen=True):
    """The whole file."""

    features: dict[str, Any] = {}
    plans: dict[str, Any] = {}


def read_catalog_file(text: str, name: str) -> CatalogFile:
    """Return what the file says; raises CatalogFileError."""
    tables = _tables(text, name)
    with _blamed(name, text, ()):
        whole = _read(tables, CatalogTable)
    features, plans = [], []
    for feature_id, table in whole.features.items():
        with _blamed(name, text, ("features", feature_id)):
            features.append(_feature(feature_id, _read(table, FeatureTable)))
    for plan_id, table in whole.plans.items():
        with _blamed(name, text, ("plans", plan_id)):
            plans.append(_plan(plan_id, _read(table, PlanTable)))
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


def _feature(feature_id: str, table: FeatureTable) -> Feature:
    for event_name in table.event_names:
        check_caller_id(event_name, field="event_names")
    consumable = table.consumable
    return Feature(
        id=check_catalog_id(feature_id, field="the id"),
        name=_name(feature_id, table.name),
        type=table.type,
        consumable=table.type is not FeatureType.BOOLEAN if consumable is None else consumable,
        event_names=table.event_names,
        credit_schema=tuple(
            CreditCost(member, _amount(cost, f"costs.{member}")) for member, cost in table.costs.items()
        ),
        display=msgspec.structs.asdict(table.display) if table.display else None,
    )


def _plan(plan_id: str, table: PlanTable) -> Plan:
    price = table.price
    if price is not None and price.billing_units is not None:
        raise InvalidInputs("price.billing_units: only an item is sold in packs")
    return Plan(
        id=check_catalog_id(plan_id, field="the id"),
        name=_name(plan_id, table.name),
        created_at=0,
        description=table.description,
        group=table.group,
        add_on=table.add_on,
        auto_enable=table.auto_enable,
        price=PlanPrice(_amount(price.amount, "price.amount"), _recurrence(price, "price"))
        if price
        else None,
        items=tuple(_item(item, f"items[{number}]") for number, item in enumerate(table.items)),
        metadata=_as_json(table.metadata),
    )


def _item(table: ItemTable, place: str) -> PlanItem:
    reset = table.reset
    if isinstance(reset, CountedInterval):
        recurrence: Recurrence | None = _recurrence(reset, f"{place}.reset")
    else:
        recurrence = Recurrence(reset) if reset else None
    return PlanItem(
        feature_id=table.feature,
        included_nanos=_amount(table.included, f"{place}.included"),
        reset=recurrence,
        price=_item_price(table.price, f"{place}.price") if table.price else None,
    )


def _item_price(table: PriceTable, place: str) -> ItemPrice:
    units = NANOS if table.billing_units is None else _amount(table.billing_units, f"{place}.billing_units")
    if units == 0:
        raise InvalidInputs(f"{place}.billing_units: must be > 0")
    return ItemPrice(_amount(table.amount, f"{place}.amount"), _recurrence(table, place), units)


def _recurrence(table: CountedInterval | PriceTable, place: str) -> Recurrence:
    if not 1 <= table.interval_count <= INTERVAL_COUNT_MAX:
        raise InvalidInputs(f"{place}.interval_count: must be between 1 and {INTERVAL_COUNT_MAX}")
    return Recurrence(Interval(table.interval), table.interval_count)


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _amount(value: object, field: str) -> int:
    """Return the nanos of a number, or of a number in quotes."""
    text = str(value)
    if isinstance(value, bool | dict | list) or _NUMBER.fullmatch(text) is None:
        raise InvalidInputs(f'{field}: must be a number, such as 5 or "0.01"')
    return parse_kept(text.encode("ascii"), field=field)


def _name(word_id: str, name: str | None) -> str:
    """Return the name; without one it is the id in words."""
    if name == "":
        raise InvalidInputs("name: cannot be empty")
    return name or re.sub("[_-]+", " ", word_id).strip().capitalize() or word_id


_JSON = msgspec.json.Encoder(decimal_format="number")


def _as_json(metadata: Mapping[str, Any]) -> dict[str, object]:
    """Return metadata as the wire would have brought it: it is the caller's own, and no amount."""
    text = compact_object(_JSON.encode(metadata), field="metadata", bytes_max=METADATA_BYTES_MAX)
    found: dict[str, object] = msgspec.json.decode(text)
    return found


# From here on: how a mistake becomes a sentence.

_LONG_NUMBER = re.compile(r"[0-9_]{1000,}|[eE][+-]?[0-9_]{18,}")
_AT_END = re.compile(r" \((?:at line (\d+), column \d+|at end of document)\)$")
_PREFIX = re.compile(r"(?P<path>[\w-]+(?:\[\d+\]|\.[\w-]+)*): (?P<text>.*)", re.DOTALL)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STEP = re.compile(r"\[(\d+)\]|([\w-]+)")

_KEY_OF_FIELD = {"feature_id": "feature", "credit_schema": "costs"}
"""What the wire and the code call it, and what it is called here."""


def _read(table: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        path, text = explain(error, kind)
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
