"""The handlers of the routes, called in this process with the bodies that they would get, as the fast lane calls them.

There is no HTTP.
"""

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal

from creditgate.api.app import tables
from creditgate.api.calls import Answer as Handled
from creditgate.api.calls import Call as Request
from creditgate.api.problems import answer_to
from creditgate.api.settings import ApiSettings
from creditgate.errors import CreditgateError
from creditgate.openings import UseCases
from tests.conformance.drivers.protocol import Answer, Call


class InProcess:
    """A driver of use cases."""

    def __init__(self, cases: UseCases, *, refuses_repeated_keys: bool = False) -> None:
        settings = ApiSettings(
            env="test",
            idempotency="autumn" if refuses_repeated_keys else "replay",
            zero_member_rows=False,
        )
        self._env = settings.env_on_wire
        self._verbs, _ = tables(
            meter=cases.meter,
            holds=cases.holds,
            batches=cases.batches,
            customers=cases.customers,
            entities=cases.entities,
            customer_list=cases.customer_list,
            catalogs=cases.catalogs,
            billing=cases.billing,
            tokens=cases.tokens,
            history=cases.history,
            spans=cases.spans,
            aggregates=cases.aggregates,
            statements=cases.statements,
            endpoints=cases.endpoints,
            outage=cases.outage,
            settings=settings,
        )

    async def together(self, calls: Sequence[Call]) -> list[Answer]:
        return list(await asyncio.gather(*map(self._answer, calls)))

    async def _answer(self, call: Call) -> Answer:
        body = json.dumps(call.body).encode()
        keys = (call.header_key,) if call.header_key else ()
        try:
            answer = await self._handled(call.verb, Request(body, keys, "http://localhost"))
        except CreditgateError as error:
            answer = answer_to(error, verb=call.verb, body=body, env=self._env)
        return Answer(answer.status, json.loads(answer.body, parse_float=Decimal))

    async def _handled(self, name: str, request: Request) -> Handled:
        """Answer as the fast lane does: at once where that can be."""
        verb = self._verbs[name]
        ended: asyncio.Future[Handled] = asyncio.get_running_loop().create_future()

        def done(answer: Handled | None, error: BaseException | None) -> None:
            if answer is not None:
                ended.set_result(answer)
            else:
                assert error is not None
                ended.set_exception(error)

        if request.idempotency_keys or verb.at_once is None or not verb.at_once(request.body, done):
            return await verb.handler(request)
        return await ended
