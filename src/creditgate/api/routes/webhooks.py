"""Webhooks."""

from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb, caller_key
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.wire.answers import Success, encode
from creditgate.api.wire.fields import read
from creditgate.api.wire.webhooks import (
    CreateWebhookRequest,
    DeleteWebhookRequest,
    GetWebhookRequest,
    ListWebhooksRequest,
    UpdateWebhookRequest,
    WebhookAnswer,
    WebhookList,
    webhook_answer,
)
from creditgate.engine.endpoints import Endpoints, Wanted


class WebhookRoutes:
    """The verbs of webhooks."""

    def __init__(self, endpoints: Endpoints, keys: RepeatedKeys) -> None:
        self._endpoints = endpoints
        self._keys = keys

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "webhooks.create": Verb(self.create, CreateWebhookRequest, WebhookAnswer),
            "webhooks.get": Verb(self.get, GetWebhookRequest, WebhookAnswer),
            "webhooks.list": Verb(self.list_webhooks, ListWebhooksRequest, WebhookList),
            "webhooks.update": Verb(self.update, UpdateWebhookRequest, WebhookAnswer),
            "webhooks.delete": Verb(self.delete, DeleteWebhookRequest, Success),
        }

    async def create(self, call: Call) -> Answer:
        """The secret is told again to who repeats the call with its key: else a lost answer would lose it."""
        request = read(CreateWebhookRequest, call.body)
        wanted = Wanted(request.id, request.url, request.fields())
        key = caller_key("create_webhook", call, wanted)
        is_replay = await self._keys.once(key, self._endpoints.create(wanted, key))
        headers = self._keys.headers(key, is_replay)
        made = webhook_answer(await self._endpoints.get(request.id), with_secret=True)
        return Answer(encode(made), headers=headers)

    async def get(self, call: Call) -> Answer:
        request = read(GetWebhookRequest, call.body)
        return Answer(encode(webhook_answer(await self._endpoints.get(request.id))))

    async def list_webhooks(self, call: Call) -> Answer:
        read(ListWebhooksRequest, call.body)
        return Answer(encode(WebhookList(tuple(map(webhook_answer, await self._endpoints.list())))))

    async def update(self, call: Call) -> Answer:
        request = read(UpdateWebhookRequest, call.body)
        changes = request.changes()
        key = caller_key("update_webhook", call, request.id, changes)
        is_replay = await self._keys.once(key, self._endpoints.update(request.id, changes, key))
        headers = self._keys.headers(key, is_replay)
        return Answer(encode(webhook_answer(await self._endpoints.get(request.id))), headers=headers)

    async def delete(self, call: Call) -> Answer:
        webhook_id = read(DeleteWebhookRequest, call.body).id
        key = caller_key("delete_webhook", call, webhook_id)
        is_replay = await self._keys.once(key, self._endpoints.delete(webhook_id, key))
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))
