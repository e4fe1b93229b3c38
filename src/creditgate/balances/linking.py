"""What a script becomes on its way to the server: the same text, but cheap to begin.

A server runs a script's text from its first line at each call, so that every function is made anew, whether the call
needs it or not: a third of the time of a track. So a script whose includes are in place is linked:

* A function whose name stands nowhere else is left out.
* A constant, `local NAME = 5` or a table of them like STATUS, is put where it is used: what is no variable need not be
  captured by each function that reads it.
* The functions of the includes are the fields of one table: each captures this one variable, instead of one for every
  function that it calls.
* Those marked `--- @usual` are made first, all others together when one of them is first called.

The script's own functions and all other statements stay as they are, in their order. Functions of an include begin and
end in the first column; the name of one that is local to its file is used for nothing else, which luacheck tells.
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

_USUAL = "--- @usual"
_TABLE = "LIB"
_LATER = """\
setmetatable({table}, {{ __index = function(_, name)
{functions}return rawget({table}, name)
end }})
"""
_FUNCTION = re.compile(
    r"^(?P<notes>(?:--[^\n]*\n)*)(?:local )?function (?P<name>[a-z_]+(?:\.[a-z_]+)?)"
    r"(?P<rest>\((?:[^\n]* end|.*?\nend))\n",
    re.MULTILINE | re.DOTALL,
)
_WORD = re.compile(r"\w+(?:\.\w+)*")
_COMMENT = re.compile(r"--[^\n]*")
_TOKEN = re.compile(
    r"--[^\n]*|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|\.\.|[.:]?[A-Za-z_]\w*(?:\.\w+)*(?: =(?!=))?"
)
_CONSTANT = re.compile(r"^local ([A-Z_]+) = (-?[\d.e]+|'[^'\n]*')(?: *--[^\n]*)?\n(?! )", re.MULTILINE)
_CONSTANTS = re.compile(r"^local ([A-Z_]+) = \{\n((?:  [A-Z_]+ = -?\d+,[^\n]*\n)+)\}\n", re.MULTILINE)
_LOCALS = re.compile(r"^local ([A-Za-z_, ]+?) =", re.MULTILINE)


class _Function(NamedTuple):
    field: str
    notes: str
    rest: str

    @property
    def text(self) -> str:
        return f"{self.field} = function{self.rest}"


def link(includes: str, main: str) -> str:
    """Return a script, linked: `includes` is its text up to the last include, joined in; `main` what comes after."""
    includes = without_unused(includes, main)
    names = _constants_of(includes)
    includes = _CONSTANTS.sub("", _CONSTANT.sub("", includes))
    found = list(_FUNCTION.finditer(includes))
    functions = {match["name"]: _function(match) for match in found}
    if len(functions) < len(found):
        raise ValueError(f"two functions of one name: {sorted(match['name'] for match in found)}")
    names |= {name: f"{_TABLE}.{function.field}" for name, function in functions.items()}
    statements, main = _renamed(_FUNCTION.sub("", includes), names), _renamed(main, names)
    return _with_table(statements, main, functions, names) if functions else statements + main


def without_unused(includes: str, main: str) -> str:
    """Return the includes without functions whose names stand nowhere else, in `main` neither."""
    functions = {function["name"]: function[0] for function in _FUNCTION.finditer(includes)}
    words = _words_of(includes) + _words_of(main)
    while unused := [
        name for name, text in functions.items() if words[name] == _words_of_function(text)[name]
    ]:
        for name in unused:
            text = functions.pop(name)
            includes = includes.replace(text, "")
            words -= _words_of_function(text)
    return includes


def _with_table(
    statements: str, main: str, functions: Mapping[str, _Function], names: Mapping[str, str]
) -> str:
    """Declare what the includes' functions capture, make the table, and run the includes' other statements."""
    for module in {name.partition(".")[0] for name in functions if "." in name}:
        if not re.search(rf"(?<![\w.]){module}[.\[]", _COMMENT.sub("", statements + main)):
            statements = re.sub(rf"^local {module} = \{{\}}\n", "", statements, flags=re.MULTILINE)
    captured = [_TABLE, *(match[1] for match in _LOCALS.finditer(statements))]
    made = [function._replace(rest=_renamed(function.rest, names)) for function in functions.values()]
    first = [one for one in made if _USUAL in one.notes]
    table = "".join(f"{one.notes}{one.text},\n" for one in first)
    later = "".join(f"{one.notes}{_TABLE}.{one.text}\n" for one in made if one not in first)
    if later:
        later = _LATER.format(table=_TABLE, functions=later)
    declared = f"local {', '.join(captured)}\n{_TABLE} = {{\n{table}}}\n{later}"
    return declared + _LOCALS.sub(r"\1 =", statements) + main


def _function(match: re.Match[str]) -> _Function:
    return _Function(match["name"].replace(".", "_"), match["notes"], match["rest"])


def _constants_of(source: str) -> dict[str, str]:
    constants = {match[1]: match[2] for match in _CONSTANT.finditer(source)}
    for table in _CONSTANTS.finditer(source):
        for line in table[2].splitlines():
            name, _, value = line.partition(" = ")
            constants[f"{table[1]}.{name.strip()}"] = value.partition(",")[0]
    return constants


def _renamed(source: str, names: Mapping[str, str]) -> str:
    """Replace each name where it is a variable: not in comments and texts, nor as the key of a table."""
    return _TOKEN.sub(lambda match: names.get(match[0], match[0]), source)


def _words_of(source: str) -> Counter[str]:
    return Counter(_WORD.findall(_COMMENT.sub("", source)))


_words_of_function = cache(_words_of)  # scripts have most of them in common
