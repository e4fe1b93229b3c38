"""Webhooks on the wire."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from creditgate.api.wire.fields import Request
from creditgate.core.ids import check_catalog_id
from creditgate.core.webhooks import EventType, Webhook
from creditgate.errors import InvalidInputs

DESCRIPTION_CHARACTERS_MAX = 1000


class WebhookRequest(Request, frozen=True):
    """Whatever names a webhook: letters, digits, `_` and `-`."""

    id: str

    def __post_init__(self) -> None:
        check_catalog_id(self.id, field="id")


class WebhookFields(WebhookRequest, frozen=True, kw_only=True):
    """What both creating and updating a webhook may say."""

    events: tuple[EventType, ...] | None = None
    description: str | None = None
    disabled: bool | None = None

    def fields(self) -> dict[str, Any]:
        """Return what was said, by the fields of `Webhook`."""
        if self.events == ():
            raise InvalidInputs("events: must name at least one; leave it out to be told of everything")
        if len(self.description or "") > DESCRIPTION_CHARACTERS_MAX:
            raise InvalidInputs(f"description: must have at most {DESCRIPTION_CHARACTERS_MAX} characters")
        events = tuple(dict.fromkeys(self.events)) if self.events else None
        said = {"events": events, "description": self.description, "disabled": self.disabled}
        return {field: value for field, value in said.items() if value is not None}


class CreateWebhookRequest(WebhookFields, frozen=True, kw_only=True):
    """`webhooks.create`. Without `events` it is told of everything, also of what is added later."""

    url: str


class UpdateWebhookRequest(WebhookFields, frozen=True, kw_only=True):
    """`webhooks.update`: only what is said is changed."""

    url: str | None = None

    def changes(self) -> dict[str, Any]:
        return self.fields() | ({} if self.url is None else {"url": self.url})


class GetWebhookRequest(WebhookRequest, frozen=True):
    """`webhooks.get`."""


class DeleteWebhookRequest(WebhookRequest, frozen=True):
    """`webhooks.delete`."""


class ListWebhooksRequest(Request, frozen=True):
    """`webhooks.list`."""


class WebhookAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook. Its secret, `whsec_` and base64, is in the answer that makes it and in no other."""

    id: str
    url: str
    description: str | None
    events: tuple[EventType, ...]
    disabled: bool
    created_at: int
    updated_at: int
    secret: str | UnsetType = UNSET


class WebhookList(msgspec.Struct, frozen=True):
    """All webhooks, the oldest first."""

    list: tuple[WebhookAnswer, ...]


def webhook_answer(webhook: Webhook, *, with_secret: bool = False) -> WebhookAnswer:
    """Return a webhook as it stands on the wire."""
    return WebhookAnswer(
        id=webhook.id,
        url=webhook.url,
        description=webhook.description,
        events=webhook.event_types,
        disabled=webhook.disabled,
        created_at=webhook.created_at,
        updated_at=webhook.updated_at,
        secret=webhook.secret if with_secret else UNSET,
    )
