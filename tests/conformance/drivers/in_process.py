"""The handlers of the routes, called in this process with the bodies that they would get, as the fast lane calls them.

There is no HTTP.
"""

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal

from creditgate.api.app import tables
from creditgate.api.calls import Call as Request
from creditgate.api.calls import answer
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
        self._verbs, legacy = tables(
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
        self.legacy = {route.name: route.verb for route in legacy}

    async def together(self, calls: Sequence[Call]) -> list[Answer]:
        return list(await asyncio.gather(*map(self._answer, calls)))

    async def _answer(self, call: Call) -> Answer:
        body = json.dumps(call.body).encode()
        keys = (call.header_key,) if call.header_key else ()
        try:
            found = await answer(self._verbs[call.verb], Request(body, keys, "http://localhost"))
        except CreditgateError as error:
            found = answer_to(error, verb=call.verb, body=body, env=self._env)
        return Answer(found.status, json.loads(found.body, parse_float=Decimal))
