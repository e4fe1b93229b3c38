"""Where things stand in a TOML text, in every way that TOML lets one write them."""

import itertools
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditgate.core.toml_lines import Place, line_of

TEXT = """\
# A comment with [brackets] = and "quotes
top = 1

[features.a] # and behind a header
name = 'it''s = [x]'
"quoted.key" = "a # is no comment"
costs = { b = 1,
"c d" = 2 }

[features . "b.c"]
text = \"\"\"
[features.a]
name = "not here\\""
\"\"\"
raw = '''
[plans]
'''
at = 2026-01-01 10:00:00
dotted.deep.key = 3

[[plans.p.items]]
feature = "a"
[plans.p.items.price]
amount = 1

[[plans.p.items]]
reset = [
  { x = 1 }, # first

  { x = [2,
    3] },
]
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("top",), 2),
        (("features",), 4),
        (("features", "a"), 4),
        (("features", "a", "name"), 5),
        (("features", "a", "quoted.key"), 6),
        (("features", "a", "costs"), 7),
        (("features", "a", "costs", "b"), 7),
        (("features", "a", "costs", "c d"), 8),
        (("features", "b.c"), 10),
        (("features", "b.c", "text"), 11),
        (("features", "b.c", "raw"), 15),
        (("features", "b.c", "at"), 18),
        (("features", "b.c", "dotted"), 19),
        (("features", "b.c", "dotted", "deep", "key"), 19),
        (("plans",), 21),
        (("plans", "p", "items"), 21),
        (("plans", "p", "items", 0), 21),
        (("plans", "p", "items", 0, "feature"), 22),
        (("plans", "p", "items", 0, "price"), 23),
        (("plans", "p", "items", 0, "price", "amount"), 24),
        (("plans", "p", "items", 1), 26),
        (("plans", "p", "items", 1, "reset", 0, "x"), 28),
        (("plans", "p", "items", 1, "reset", 1), 30),
        (("plans", "p", "items", 1, "reset", 1, "x", 1), 31),
        # what is missing is blamed on the nearest thing around it
        (("plans", "p", "items", 0, "price", "interval"), 23),
        (("plans", "p", "items", 7, "feature"), 21),
        (("elsewhere",), 1),
        ((), 1),
    ],
)
def test_lines_of_a_text(place: Place, line: int) -> None:
    """An error points at the line where a value is written, whatever stands in strings and comments before it."""
    assert line_of(TEXT, place) == line


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "a = 1", "a = 1\r\nb = 2\r\n"])
def test_small_texts(text: str) -> None:
    """A text that hardly says anything has its lines too."""
    tomllib.loads(text)
    assert line_of(text, ("b",)) == (2 if "b" in text else 1)


KEYS = st.sampled_from(
    ["a", "b-1", "c_2", "3", '"d e"', "'f.g'", '"[h]"', '"i = #"', '"\\u006A"', '""', "'\"'"]
)
TREES = st.recursive(
    st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TREES, max_size=4), st.randoms(use_true_random=False))
def test_every_value_is_found(tree: dict[str, Any], random: Any) -> None:
    """However a text is laid out, the line of each value is the one where that value stands."""
    text = _Writer(lambda: random.random() < 0.5).text(tree)
    lines = text.split("\n")
    for place, number in _leaves(tomllib.loads(text)):
        assert f"<{number}>" in lines[line_of(text, place) - 1], (text, place)


class _Writer:
    """Writes a tree whose leaves are numbered strings, in one of the many ways to write it."""

    def __init__(self, toss: Callable[[], bool]) -> None:
        self._toss = toss
        self._numbers = itertools.count()

    def text(self, tree: dict[str, Any], path: str = "") -> str:
        """The pairs of a table first, then its tables under headers of their own."""
        pairs, tables = [], []
        for key, value in tree.items():
            full = f"{path}.{key}" if path else key
            if isinstance(value, dict) and self._toss():
                tables.append(f"[{full}] # [x]\n{self.text(value, full)}")
            elif (
                isinstance(value, list) and value and all(isinstance(v, dict) for v in value) and self._toss()
            ):
                tables += [f"[[ {full} ]]\n{self.text(element, full)}" for element in value]
            elif isinstance(value, dict) and value and self._toss():
                pairs += [f"{key} . {inner} = {self._value(part)}" for inner, part in value.items()]
            else:
                pairs.append(f"{key} = {self._value(value)}")
        return "\n".join([*pairs, *tables])

    def _value(self, value: Any) -> str:
        if isinstance(value, dict):
            return f"{{ {', '.join(f'{key} = {self._value(part)}' for key, part in value.items())} }}"
        if isinstance(value, list):
            gap = "\n  " if self._toss() else " "
            comma = "," if value and self._toss() else ""
            return f"[{gap}{f',{gap}'.join(map(self._value, value))}{comma}{gap}]"
        return f'"<{next(self._numbers)}> # , ["'


def _leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, int]]:
    if isinstance(value, str):
        yield place, int(value[1 : value.index(">")])
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in parts:
        yield from _leaves(part, (*place, step))
