"""Loading and calling the Lua scripts.

A script is a file in lua/; `--- @include "lib/name"` is replaced by that file, once, and the whole is linked (see
`linking`). The wheel carries the folder as `creditgate/lua`, a checkout has it at the top. Scripts are called by their
hash; a server that forgot them (restart, failover, SCRIPT FLUSH) is given the source instead, which is safe because
nothing has run then.
"""

import hashlib
import re
import sys
from collections.abc import Awaitable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from creditgate.balances.linking import link

if TYPE_CHECKING:  # which itself sends scripts
    from creditgate.balances.hot_cluster import Hot

_INCLUDE = re.compile(r'^--- @include "([a-z_/]+)"$', re.MULTILINE)
_PACKAGED = Path(__file__).parent.parent / "lua"
_CHECKOUT = Path(__file__).parent.parent.parent.parent / "lua"

Argument = str | bytes | int


def lua_folder() -> Path:
    """Return the folder of the scripts: the one in the package if there is one, else the checkout's."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def script_names() -> list[str]:
    """Return the names of all scripts, sorted."""
    return sorted(path.stem for path in lua_folder().glob("*.lua"))


def load_source(name: str, *, folder: Path | None = None, whole: bool = False) -> str:
    """Return the source of a script with what it uses of its includes in place, linked.

    With `whole` they are there as they are, in order of first mention: the linter looks at all of them.

    Raises FileNotFoundError for a script or include that is missing, ValueError for one that includes itself.
    """
    folder = folder or lua_folder()
    source = _joined(folder, name, included=set(), path=())
    if whole:
        return source
    main = _INCLUDE.split((folder / f"{name}.lua").read_text(encoding="utf-8"))[-1].lstrip()
    return link(source.removesuffix(main), main)


class Script:
    """One script, called by hash."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def source(self) -> str:
        return load_source(self.name)

    @cached_property
    def sha(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def call(
        self,
        redis: "Redis | Hot",
        keys: Sequence[str],
        args: Sequence[Argument],
        begun: Awaitable[Any] | None = None,
    ) -> list[Any]:
        """Run the script; sends its source if the server, or the node of a cluster, does not know it.

        `begun` is what becomes of the same call, sent before.
        """
        reply: list[Any]
        try:
            reply = await (begun or redis.evalsha(self.sha, len(keys), *keys, *args))
        except NoScriptError:
            reply = await redis.eval(self.source, len(keys), *keys, *args)
        return reply


def _joined(folder: Path, name: str, included: set[str], path: tuple[str, ...]) -> str:
    if name in path:
        raise ValueError(f"{' includes '.join((*path, name))}: a script cannot include itself")

    def include(match: re.Match[str]) -> str:
        wanted = match[1]
        if wanted in included:
            return ""
        text = _joined(folder, wanted, included, (*path, name))
        included.add(wanted)
        return text.rstrip()

    return _INCLUDE.sub(include, (folder / f"{name}.lua").read_text(encoding="utf-8"))


def main() -> None:
    """Write every script with its includes in place into the folder named as the argument (for luacheck)."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name in script_names():
        (target / f"{name}.lua").write_text(load_source(name, whole=True), encoding="utf-8")


if __name__ == "__main__":
    main()
