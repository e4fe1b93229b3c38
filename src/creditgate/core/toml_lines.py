"""Where things stand in a TOML text: an error of the catalog names the line that has to be changed.

`tomllib` keeps no positions. The text here has been read by it already, so this only follows keys and brackets and
need not know what is valid.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from typing import Any

Place = tuple[str | int, ...]
"""The keys that lead to a value, and numbers for elements of arrays: `("plans", "pro", "items", 0)`."""

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|#[^\n]*"
    r"|[\[\]{}=,\n]"
    r"""|[^\s\[\]{}=,#"']+""",
    re.DOTALL,
)


def line_of(text: str, place: Place) -> int:
    """Return the line on which the place stands, or the nearest thing around it."""
    lines = _Reader(text).lines
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


class _Reader:
    """Reads a text once; `lines` is then the first line of each table, key and element."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self._tokens = [
            (found[0], text.count("\n", 0, found.start()) + 1)
            for found in _TOKEN.finditer(text)
            if not found[0].startswith("#")
        ]
        self._at = 0
        self._elements: Counter[Place] = Counter()  # of each array of tables, so far
        table: Place = ()
        while self._at < len(self._tokens):
            if self._skips("\n"):
                continue
            if self._skips("["):
                table = self._header(is_element=self._skips("["))
            else:
                self._pair(table)

    def _header(self, *, is_element: bool) -> Place:
        line, keys = self._line, self._keys("]")
        if is_element:
            self._skips("]")
        place: Place = ()
        for key in keys:
            place += (key,)
            if place in self._elements and not (is_element and place == keys):
                place += (self._elements[place] - 1,)
        if is_element:
            self._elements[place] += 1
            place += (self._elements[place] - 1,)
        self._stands(place, line)
        return place

    def _pair(self, table: Place) -> None:
        line = self._line
        place = (*table, *self._keys("="))
        self._stands(place, line)
        self._value(place)

    def _value(self, place: Place) -> None:
        if self._skips("["):
            self._array(place)
        elif self._skips("{"):
            while not self._skips("}"):
                if not (self._skips(",") or self._skips("\n")):
                    self._pair(place)
        else:
            while self._at < len(self._tokens) and self._token not in (",", "]", "}", "\n"):
                self._at += 1  # several for a date and a time with a blank between

    def _array(self, place: Place) -> None:
        number = 0
        while not self._skips("]"):
            if self._skips(","):
                number += 1
            elif not self._skips("\n"):
                self._stands((*place, number), self._line)
                self._value((*place, number))

    def _keys(self, end: str) -> Place:
        """Read a dotted key up to `end`; tomllib itself says what its parts are."""
        text = ""
        while not self._skips(end):
            text += self._token
            self._at += 1
        keys: Place = ()
        found: Mapping[str, Any] | int = tomllib.loads(f"{text} = 0")
        while isinstance(found, Mapping):
            ((key, found),) = found.items()
            keys += (key,)
        return keys

    def _stands(self, place: Place, line: int) -> None:
        for end in range(1, len(place) + 1):
            self.lines.setdefault(place[:end], line)

    def _skips(self, token: str) -> bool:
        is_next = self._token == token
        self._at += is_next
        return is_next

    @property
    def _token(self) -> str:
        return self._tokens[self._at][0]

    @property
    def _line(self) -> int:
        return self._tokens[self._at][1]
