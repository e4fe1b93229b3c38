"""What the suite needs of whatever it is run against."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Call(NamedTuple):
    """One call in the words of the wire; `header_key` is an idempotency key, and `raw` what no client would send."""

    verb: str
    body: Mapping[str, Any]
    header_key: str | None = None
    raw: bool = False


class Answer(NamedTuple):
    """A status of HTTP and a body, whose numbers with a fraction are Decimals."""

    status: int
    body: Any


class Driver(Protocol):
    """One sidecar, in this process or not, for environment test, where everything is paid for at once."""

    async def together(self, calls: Sequence[Call]) -> list[Answer]:
        """Make calls at the same time; the answers come in the order of the calls."""
