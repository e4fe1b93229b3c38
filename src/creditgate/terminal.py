"""What the commands of the command line share: where the data is, how work is run, shows that it goes on, and fails."""

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import Parameter

from creditgate.errors import CreditgateError

DataDir = Annotated[Path, Parameter(help="Where the embedded servers keep their data, and where the key is.")]
RedisUrl = Annotated[
    str | None, Parameter(help="redis://, rediss:// or unix:// URL; without it, a Valkey of our own.")
]
DatabaseUrl = Annotated[
    str | None, Parameter(help="sqlite:/// or postgresql:// URL; without it, DATA_DIR/ledger.db.")
]
Prefix = Annotated[
    str, Parameter(help="What every key in Redis begins with; one prefix holds one environment.")
]

SealKeyFile = Annotated[
    Path | None,
    Parameter(help="A key, to seal the journal with and to check its seals; older keys below it."),
]


def unix_ms(instant: datetime) -> int:
    """Return an instant that was typed, in Unix ms; without a time zone it is meant in UTC."""
    return int(instant.replace(tzinfo=instant.tzinfo or UTC).timestamp() * 1000)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what the work returns; an error of ours ends the process with its sentence."""
    import uvloop  # here, since `creditgate --help` need not load it

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except CreditgateError as error:
        fail(error.message)


@contextmanager
def counter(what: str) -> Iterator[Callable[[int], None]]:
    """Show a number that grows on stderr, where somebody watches."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed} {task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=None)
        yield lambda number: shown.update(task, completed=number)


def fail(sentence: str) -> NoReturn:
    """End the process with one sentence on stderr, and 1."""
    print(f"creditgate: {sentence}", file=sys.stderr)
    sys.exit(1)


def check_origins(_type: object, origins: tuple[str, ...]) -> None:
    """Refuse what no browser sends as an origin; also `*`, since a page of anybody is allowed nothing."""
    for origin in origins:
        if re.fullmatch(r"https?://[a-z0-9.\[\]:-]+", origin) is None:
            raise ValueError(f"{origin} is no origin such as https://app.example")
