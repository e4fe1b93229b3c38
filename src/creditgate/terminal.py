"""What the commands of the command line share: how work is run, shows that it goes on, and fails."""

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

from creditgate.errors import CreditgateError


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
