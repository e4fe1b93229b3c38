"""Balances set, deleted and listed by hand."""

from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb, caller_key
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.wire.answers import Success, encode
from creditgate.api.wire.balances import (
    BalanceList,
    DeleteBalanceRequest,
    ListBalancesRequest,
    UpdateBalanceRequest,
    balance_list,
)
from creditgate.api.wire.fields import read
from creditgate.engine.customers import Customers


class BalanceRoutes:
    """The verbs of balances that are not about usage."""

    def __init__(self, customers: Customers, keys: RepeatedKeys) -> None:
        self._customers = customers
        self._keys = keys

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "balances.update": Verb(self.update, UpdateBalanceRequest, Success),
            "balances.delete": Verb(self.delete, DeleteBalanceRequest, Success),
            "balances.list": Verb(self.list_balances, ListBalancesRequest, BalanceList),
        }

    async def update(self, call: Call) -> Answer:
        return await self.updated(read(UpdateBalanceRequest, call.body), call)

    async def updated(self, request: UpdateBalanceRequest, call: Call) -> Answer:
        wanted, update = request.wanted(), request.update()
        key = caller_key("update_balance", call, wanted, update)
        is_replay = await self._keys.once(key, self._customers.update_balance(wanted, update, key))
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))

    async def delete(self, call: Call) -> Answer:
        wanted = read(DeleteBalanceRequest, call.body).wanted()
        key = caller_key("delete_balance", call, wanted)
        is_replay = await self._keys.once(key, self._customers.delete_balance(wanted, key))
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))

    async def list_balances(self, call: Call) -> Answer:
        request = read(ListBalancesRequest, call.body)
        return Answer(encode(balance_list(await self._customers.get(request.customer_id), request)))
