"""A customer's statement."""

from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb
from creditgate.api.wire.answers import encode
from creditgate.api.wire.fields import read
from creditgate.api.wire.statement import StatementAnswer, StatementRequest, statement_answer
from creditgate.engine.statement import Statements


class StatementRoutes:
    """The one verb that tells a customer's journal in words."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {"customers.statement": Verb(self.statement, StatementRequest, StatementAnswer)}

    async def statement(self, call: Call) -> Answer:
        request = read(StatementRequest, call.body)
        statement = await self._statements.of(
            request.customer_id, since=request.since_ms(), limit=request.rows()
        )
        return Answer(encode(statement_answer(request.customer_id, statement)))
