"""Attaching plans, what that would do, and cancelling them."""

from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb, caller_key
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import encode
from creditgate.api.wire.billing import (
    AttachAnswer,
    AttachRequest,
    MultiAttachRequest,
    PreviewAttachRequest,
    UpdateBillingRequest,
)
from creditgate.api.wire.fields import read
from creditgate.api.wire.preview import PreviewAttachAnswer, preview_answer
from creditgate.engine.billing import Attached, Billing


class BillingRoutes:
    """The verbs of billing."""

    def __init__(self, billing: Billing, keys: RepeatedKeys, settings: ApiSettings) -> None:
        self._billing = billing
        self._keys = keys
        self._settings = settings

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "billing.attach": Verb(self.attach, AttachRequest, AttachAnswer),
            "billing.multi_attach": Verb(self.multi_attach, MultiAttachRequest, AttachAnswer),
            "billing.preview_attach": Verb(self.preview_attach, PreviewAttachRequest, PreviewAttachAnswer),
            "billing.update": Verb(self.update, UpdateBillingRequest, AttachAnswer),
        }

    async def attach(self, call: Call) -> Answer:
        request = read(AttachRequest, call.body)
        attached, headers = await self.attached(request, call)
        return Answer(encode(AttachAnswer(request.customer_id, attached.payment_url)), headers=headers)

    async def attached(
        self, request: AttachRequest, call: Call, *, bought_nanos: Mapping[str, int] | None = None
    ) -> tuple[Attached, Mapping[str, str]]:
        """Return where to pay, and the headers of the answer. `bought_nanos`: see `Billing.attach`."""
        quantities = request.quantities_nanos()
        version, options = request.wanted_version(), request.attach_options()
        key = caller_key(
            "attach",
            call,
            request.customer_id,
            request.plan_id,
            quantities,
            bought_nanos,
            request.success_url,
            version,
            options,
        )
        work = self._billing.attach(
            customer_id=request.customer_id,
            plan_id=request.plan_id,
            quantities=quantities,
            version=version,
            options=options,
            bought=bought_nanos,
            success_url=request.success_url,
            base_url=self._settings.public_url or call.base_url,
            key=key,
        )
        attached = await self._keys.once(key, work)
        return attached, self._keys.headers(key, attached.is_replay)

    async def multi_attach(self, call: Call) -> Answer:
        request = read(MultiAttachRequest, call.body)
        customer_id, plans, options = request.customer_id, request.named(), request.attach_options()
        key = caller_key("multi_attach", call, customer_id, plans, request.success_url, options)
        work = self._billing.multi_attach(
            customer_id=customer_id,
            plans=plans,
            options=options,
            success_url=request.success_url,
            base_url=self._settings.public_url or call.base_url,
            key=key,
        )
        attached = await self._keys.once(key, work)
        headers = self._keys.headers(key, attached.is_replay)
        return Answer(encode(AttachAnswer(customer_id, attached.payment_url)), headers=headers)

    async def preview_attach(self, call: Call) -> Answer:
        request = read(PreviewAttachRequest, call.body)
        previewed = await self._billing.preview_attach(
            customer_id=request.customer_id,
            plan_id=request.plan_id,
            quantities=request.quantities_nanos(),
            version=request.wanted_version(),
            options=request.attach_options(),
        )
        return Answer(encode(preview_answer(previewed, customer_id=request.customer_id)))

    async def update(self, call: Call) -> Answer:
        request = read(UpdateBillingRequest, call.body)
        customer_id, action = request.customer_id, request.action()
        key = caller_key(
            "update_billing",
            call,
            customer_id,
            request.plan_id,
            request.subscription_id,
            action,
            *([request.entity_id] if request.entity_id else []),
        )
        work = self._billing.update(
            customer_id=customer_id,
            plan_id=request.plan_id,
            subscription_id=request.subscription_id,
            entity_id=request.entity_id,
            action=action,
            key=key,
        )
        headers = self._keys.headers(key, await self._keys.once(key, work))
        return Answer(encode(AttachAnswer(customer_id, payment_url=None)), headers=headers)
