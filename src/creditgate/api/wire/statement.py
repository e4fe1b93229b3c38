"""A customer's statement on the wire."""

import msgspec
from msgspec import Raw

from creditgate.api.wire.numbers import instant, number, whole
from creditgate.api.wire.requests import CustomerRequest
from creditgate.engine.statement import LINES_MAX, Line, Statement


class StatementRequest(CustomerRequest, frozen=True):
    """`customers.statement`: what happened since an instant, the last `limit` lines of it."""

    since: float | None = None
    limit: float = LINES_MAX

    def since_ms(self) -> int | None:
        return instant(self.since, field="since")

    def rows(self) -> int:
        return whole(self.limit, field="limit", least=1, most=LINES_MAX)


class LineAnswer(msgspec.Struct, frozen=True):
    """`change` is signed; `remaining` is what the customer had of the feature after it."""

    timestamp: int
    description: str
    feature_id: str
    balance_id: str | None
    plan_id: str | None
    change: Raw
    remaining: Raw


class StatementAnswer(msgspec.Struct, frozen=True):
    """Oldest first; `has_earlier` says that lines before these were left out."""

    customer_id: str
    list: tuple[LineAnswer, ...]
    has_earlier: bool


def statement_answer(customer_id: str, statement: Statement) -> StatementAnswer:
    """Return a statement as it stands on the wire."""
    lines = tuple(_line(line) for line in statement.lines)
    return StatementAnswer(customer_id, lines, has_earlier=not statement.is_whole)


def _line(line: Line) -> LineAnswer:
    return LineAnswer(
        timestamp=line.at,
        description=line.text,
        feature_id=line.feature_id,
        balance_id=line.row.public_id if line.row else None,
        plan_id=line.row.plan_id if line.row else None,
        change=number(line.change_nanos),
        remaining=number(line.remaining_nanos),
    )
