"""The webhooks of one environment: made, read, changed and deleted.

All of them are one document: what is deleted leaves nothing behind, and their number is checked where they are written.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from creditgate.balances.clock import RedisClock
from creditgate.balances.store import BalanceStore
from creditgate.core.decisions import Status
from creditgate.core.webhooks import SECRET_BYTES, Webhook, secret_of
from creditgate.engine.attempts import Attempts
from creditgate.engine.destinations import Destinations
from creditgate.engine.documents import DOCUMENT_ID, PUT_ROUNDS_MAX, SystemDocument
from creditgate.engine.ids import OpIds, mint
from creditgate.engine.keys import CallerKey
from creditgate.errors import Conflict, CreditgateError, NotFound, Undecided

WEBHOOKS_MAX = 20  # each event is sent to all of them, and each has a connection of its own

_TYPE = "webhook"

Webhooks = tuple[Webhook, ...]


class Wanted(NamedTuple):
    """What a caller says of a new webhook."""

    id: str
    url: str
    fields: Mapping[str, Any]


class Endpoints:
    """The webhooks, as the last change left them."""

    def __init__(
        self,
        store: BalanceStore,
        attempts: Attempts,
        op_ids: OpIds,
        clock: RedisClock,
        destinations: Destinations,
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._document = SystemDocument(store, attempts, op_ids, _TYPE)
        self._clock = clock
        self._destinations = destinations
        self._version = 0
        self._webhooks: Webhooks = ()

    async def list(self) -> Webhooks:
        """Return all webhooks, the oldest first."""
        version = await self._attempts.ask(lambda: self._store.documents_version(_TYPE))
        if version != self._version:
            version, documents = await self._attempts.ask(lambda: self._store.documents(_TYPE))
            self._webhooks = msgspec.json.decode(documents.get(DOCUMENT_ID, b"[]"), type=Webhooks)
            self._version = version
        return self._webhooks

    async def get(self, webhook_id: str) -> Webhook:
        """Return one; NotFound `webhook_not_found`."""
        return _named(await self.list(), webhook_id)

    async def create(self, wanted: Wanted, key: CallerKey | None = None) -> bool:
        """Make a webhook with a new secret; returns whether this was a replay.

        Raises what `Destinations.check` does, and Conflict `webhook_already_exists` or `too_many_webhooks`.
        """
        await self._destinations.check(wanted.url)
        now = self._clock.now_ms()
        webhook = Webhook(
            id=wanted.id,
            uid=mint("whk"),
            url=wanted.url,
            secret=secret_of(secrets.token_bytes(SECRET_BYTES)),
            created_at=now,
            updated_at=now,
            **wanted.fields,
        )
        return await self._change("webhooks.create", lambda webhooks: _with(webhooks, webhook), key)

    async def update(self, webhook_id: str, changes: Mapping[str, Any], key: CallerKey | None = None) -> bool:
        """Change fields of a webhook; returns whether this was a replay."""
        if "url" in changes:
            await self._destinations.check(changes["url"])
        now = self._clock.now_ms()

        def work_out(webhooks: Webhooks) -> Webhooks:
            found = _named(webhooks, webhook_id)
            changed = msgspec.structs.replace(found, updated_at=now, **changes)
            return tuple(changed if webhook is found else webhook for webhook in webhooks)

        return await self._change("webhooks.update", work_out, key)

    async def delete(self, webhook_id: str, key: CallerKey | None = None) -> bool:
        """Delete a webhook, and with it what waits for it; returns whether this was a replay."""

        def work_out(webhooks: Webhooks) -> Webhooks:
            found = _named(webhooks, webhook_id)
            return tuple(webhook for webhook in webhooks if webhook is not found)

        return await self._change("webhooks.delete", work_out, key)

    async def _change(
        self, verb: str, work_out: Callable[[Webhooks], Webhooks], key: CallerKey | None
    ) -> bool:
        for _ in range(PUT_ROUNDS_MAX):
            webhooks = await self.list()
            try:
                changed = work_out(webhooks)
            except CreditgateError:
                if await self._document.is_replay(verb, key):
                    return True
                raise
            status = await self._document.put(msgspec.json.encode(changed), self._version, verb, key)
            if status is not Status.MOVED_ON:
                return status is Status.REPLAYED
        raise Undecided("The webhooks are being changed by too many others at once; nothing was changed")


def _named(webhooks: Webhooks, webhook_id: str) -> Webhook:
    for webhook in webhooks:
        if webhook.id == webhook_id:
            return webhook
    raise NotFound(f"Webhook {webhook_id} not found", code="webhook_not_found")


def _with(webhooks: Webhooks, webhook: Webhook) -> Webhooks:
    if any(other.id == webhook.id for other in webhooks):
        raise Conflict(f"Webhook {webhook.id} already exists", code="webhook_already_exists")
    if len(webhooks) >= WEBHOOKS_MAX:
        raise Conflict(f"There are {WEBHOOKS_MAX} webhooks already", code="too_many_webhooks")
    return (*webhooks, webhook)
