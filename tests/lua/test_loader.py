"""Scripts as a source tree: includes are joined right, every script loads, and no key is made outside `keys.py`."""

import re
from pathlib import Path

import pytest
from redis.asyncio import Redis

from creditgate.balances import keys as keys_module
from creditgate.balances.scripts import Script, load_source, lua_folder, main, script_names

INCLUDE = re.compile(r"^\s*---\s*@include\b", re.MULTILINE)
SOURCE = Path(keys_module.__file__).parents[1]


def write(folder: Path, **files: str) -> None:
    """Make a folder of scripts; `__` in a name is the folder separator."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.lua"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_include_stands_where_it_was_named(tmp_path: Path) -> None:
    """An included file is where the line was, with what it includes before it: a local must exist before its use."""
    write(
        tmp_path,
        a='-- head\n--- @include "lib/b"\nreturn b\n',
        lib__b='--- @include "lib/c"\nlocal b = c\n',
        lib__c="local c = 1\n",
    )
    assert load_source("a", folder=tmp_path) == "-- head\nlocal c = 1\nlocal b = c\nreturn b\n"


def test_repeated_include_is_joined_once(tmp_path: Path) -> None:
    """A file that two others need is in the script once: a second copy would start with fresh state."""
    write(
        tmp_path,
        a='--- @include "lib/b"\n--- @include "lib/c"\n--- @include "lib/b"\nreturn 1\n',
        lib__b='--- @include "lib/c"\nlocal b = 2\n',
        lib__c="local c = 3\n",
    )
    source = load_source("a", folder=tmp_path)
    assert source.count("local b") == source.count("local c") == 1
    assert source.index("local c") < source.index("local b")


async def test_linked_script_answers_as_the_files_say(redis: "Redis", tmp_path: Path) -> None:
    """Names are put elsewhere only where they are variables; a function that is not usual is there when called."""
    write(
        tmp_path,
        a='--- @include "lib/b"\nreturn { b.twice(PAIR), b.rare(3), b.known.half, KIND.NO, b.text(NAME) }\n',
        lib__b=(
            "local PAIR = 2 -- how many\nlocal NAME = 'half'\nlocal KIND = {\n  NO = -1, -- none\n  YES = 1,\n}\n"
            "local b = { known = {} }\nlocal seen = 40\n"
            "--- @usual\n-- The half.\nlocal function half(x) return x / PAIR end\n"
            "function b.unused() return PAIR end\n"
            "--- @usual\nfunction b.twice(x) return half(x) * PAIR * PAIR end\n"
            "-- Rare.\nlocal function hidden(x) return x + seen end\n\n"
            "function b.rare(x)\n  return hidden(x)\nend\n"
            "function b.text(x) return 'half PAIR '..x end\n\n"
            "b.known = { half = half(8), PAIR = 1 }\n"
        ),
    )
    source = load_source("a", folder=tmp_path)
    assert await redis.eval(source, 0) == [4, 43, 4, -1, b"half PAIR half"]
    assert await redis.eval(load_source("a", folder=tmp_path, whole=True), 0) == await redis.eval(source, 0)
    assert "unused" not in source
    assert "local PAIR" not in source
    assert (
        source.index("b_twice = ")
        < source.index("setmetatable")
        < source.index("LIB.hidden = ")
        < source.index("LIB.b_rare = ")
    )


def test_two_functions_of_one_name_are_not_linked(tmp_path: Path) -> None:
    """In the files the later one hides the earlier; in one table it would replace it."""
    one = "local function same() return 1 end\nfunction {}.call() return same() end\n"
    write(tmp_path, a='--- @include "lib/b"\n--- @include "lib/c"\nreturn b.call() + c.call()\n')
    write(tmp_path, lib__b="local b = {}\n" + one.format("b"), lib__c="local c = {}\n" + one.format("c"))
    with pytest.raises(ValueError, match="two functions of one name"):
        load_source("a", folder=tmp_path)


@pytest.mark.parametrize("name", ["a", "lib/b"])
def test_missing_include_is_an_error(tmp_path: Path, name: str) -> None:
    """A script or a part that is not there stops the start, not the first customer's call."""
    write(tmp_path, top=f'--- @include "{name}"\nreturn 1\n')
    with pytest.raises(FileNotFoundError):
        load_source("top", folder=tmp_path)


def test_circular_include_is_an_error(tmp_path: Path) -> None:
    """A circle of includes is named and refused instead of being cut somewhere."""
    write(
        tmp_path,
        a='--- @include "lib/b"\n',
        lib__b='--- @include "lib/c"\n',
        lib__c='--- @include "lib/b"\n',
        alone='--- @include "alone"\n',
    )
    with pytest.raises(ValueError, match="lib/b includes lib/c includes lib/b"):
        load_source("a", folder=tmp_path)
    with pytest.raises(ValueError, match="alone includes alone"):
        load_source("alone", folder=tmp_path)


def test_no_include_is_left_unread() -> None:
    """A directive that the loader does not understand would be a comment in production, and its functions nil."""
    for name in script_names():
        assert not INCLUDE.search(load_source(name)), name


def test_joined_scripts_are_written_for_the_linter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The linter sees every script with all that stands in its includes."""
    monkeypatch.setattr("sys.argv", ["scripts", str(tmp_path / "out")])
    main()
    assert {path.stem: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        name: load_source(name, whole=True) for name in script_names()
    }


async def test_every_script_loads_on_a_real_server(redis: "Redis") -> None:
    """Every script compiles on the server under the hash that we call it by; else every call costs two round trips."""
    assert {"track", "check", "change", "forward", "put", "read"} <= set(script_names())
    for name in script_names():
        script = Script(name)
        assert await redis.script_load(script.source) == script.sha


def code_of(path: Path) -> str:
    """A Lua file without its comments."""
    return re.sub(r"--.*", "", path.read_text())


def test_no_script_builds_a_key() -> None:
    """Every key a script touches was declared to the server: a key made in Lua breaks on a cluster."""
    key_names = re.compile(r"KEYS\[[^\]]+\]|[A-Z_]+|key|record_key|due_key|stream")
    for path in sorted(lua_folder().rglob("*.lua")):
        code = code_of(path)
        assert "cg:" not in code, path
        assert not re.search(r"\{(?:p|sys)", code), path
        for command, key in re.findall(
            r"redis\.p?call\(\s*'(XINFO', 'STREAM|\w+)'\s*(?:,\s*([^,)]+))?", code
        ):
            if command != "TIME":
                assert key_names.fullmatch(key.strip()), f"{path.name}: {command} {key}"
        for names, values in re.findall(r"local ([A-Z_, ]+) = ([^\n]*KEYS\[[^\n]*)", code):
            for _, value in zip(names.split(","), values.split(","), strict=True):
                assert re.fullmatch(r"\s*(KEYS\[\d\]|\d)", value), f"{path.name}: {value}"


def test_no_script_uses_what_rounds_amounts() -> None:
    """`tostring` and JSON in Lua keep 14 digits: one of them on the way of an amount and small charges vanish."""
    for path in sorted(lua_folder().rglob("*.lua")):
        assert not re.search(r"\b(tostring|cjson|cmsgpack|struct|bit|os|math\.random)\b", code_of(path)), path


def test_no_script_trims_a_journal() -> None:
    """An entry leaves the stream only after SQL has it: a script that trims loses history."""
    for path in sorted(lua_folder().rglob("*.lua")):
        assert not re.search(r"(?i)\b(maxlen|minid|xtrim|xdel)\b", code_of(path)), path


def test_only_one_module_has_key_literals() -> None:
    """All key names are in keys.py, where hash tags and encoding are right."""
    literal = re.compile(r"""["'][^"'\n]*(?:\{\{|\{sys\}|\{p\d\d\}|\bcg:)""")
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name != "keys.py":
            code = re.sub(r'"""[\s\S]*?"""', "", path.read_text())
            assert not [line for line in code.splitlines() if literal.search(line) and ":" in line], path
