"""What is wrong with a value that has not the shape of its struct, in words."""

from enum import StrEnum
from typing import Any, Literal

import msgspec
import pytest

from creditgate.core.shapes import explain


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    number: float
    count: int = 1


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""
    flag: bool = False
    color: Color = Color.RED
    way: Literal["in", "out"] = "in"
    list: tuple[Inner, ...] = ()
    inner: Inner | None = None
    either: Color | Inner | None = None
    by_name: dict[str, Inner] = {}
    deep: tuple[tuple[Color | None, ...], ...] = ()


@pytest.mark.parametrize(
    ("value", "place", "text"),
    [
        ([], "", "must be an object (received array)"),
        ({"text": 1}, "text", "must be a string (received number)"),
        ({"text": 1.5}, "text", "must be a string (received number)"),
        ({"text": None}, "text", "must be a string (received null)"),
        ({"text": True}, "text", "must be a string (received boolean)"),
        ({"flag": "yes"}, "flag", "must be a boolean (received string)"),
        ({"color": "green"}, "color", "must be one of: red, blue"),
        ({"color": 1}, "color", "must be one of: red, blue"),
        ({"way": "up"}, "way", "must be one of: in, out"),
        ({"list": {}}, "list", "must be an array (received object)"),
        ({"list": [{"number": 1}, {}]}, "list[1].number", "must be a number (received undefined)"),
        ({"list": [{"number": "1"}]}, "list[0].number", "must be a number (received string)"),
        (
            {"list": [{"number": 1, "count": 1.5}]},
            "list[0].count",
            "must be a whole number (received number)",
        ),
        ({"inner": 1}, "inner", "must be an object (received number)"),
        ({"inner": {"number": []}}, "inner.number", "must be a number (received array)"),
        ({"either": "green"}, "either", "must be one of: red, blue"),
        ({"either": 1}, "either", "must be one of: red, blue"),
        ({"either": {"number": "1"}}, "either.number", "must be a number (received string)"),
        ({"either": {}}, "either.number", "must be a number (received undefined)"),
        (
            {"either": {"number": 1, "x": 1}},
            "either.x",
            "is no key here; the keys are number, count",
        ),
        ({"inner": {"number": 1, "a b": 1}}, "inner.a b", "is no key here; the keys are number, count"),
        ({"by_name": []}, "by_name", "must be an object (received array)"),
        ({"by_name": {"a": {"number": "1"}}}, "by_name[...].number", "must be a number (received string)"),
        ({"deep": [["red"], [None, "green"]]}, "deep[1][1]", "must be one of: red, blue"),
        ({"deep": [[], 1]}, "deep[1]", "must be an array (received number)"),
    ],
)
def test_each_mistake(value: Any, place: str, text: str) -> None:
    """A caller is told where and what, as a value of a field may have any of several shapes."""
    for read in (_converted, _decoded):
        with pytest.raises(msgspec.ValidationError) as refusal:
            read(value)
        assert explain(refusal.value, Outer) == (place, text)


def test_what_a_struct_itself_refuses() -> None:
    """A text that is not msgspec's goes through as it is."""
    assert explain(msgspec.ValidationError("is too much - at `$.text`"), Outer) == ("text", "is too much")
    assert explain(msgspec.ValidationError("is too\nmuch"), Outer) == ("", "is too\nmuch")


def _converted(value: Any) -> Outer:
    return msgspec.convert(value, Outer)


def _decoded(value: Any) -> Outer:
    return msgspec.json.decode(msgspec.json.encode(value), type=Outer)
