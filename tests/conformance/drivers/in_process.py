"""The use cases, called in this process. What they return is written in the words of the wire; there is no HTTP."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from creditgate.api.calls import Call as Headers
from creditgate.api.calls import caller_key
from creditgate.api.problems import status_of
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.wire.answers import Success, check_answer, encode, track_answer
from creditgate.api.wire.balances import (
    BalanceList,
    DeleteBalanceRequest,
    ListBalancesRequest,
    UpdateBalanceRequest,
    balance_list,
)
from creditgate.api.wire.billing import AttachAnswer, AttachRequest, UpdateBillingRequest
from creditgate.api.wire.customers import ClockAnswer, customer_answer
from creditgate.api.wire.entities import (
    CreateEntityRequest,
    DeleteEntityRequest,
    EntityAnswer,
    EntityList,
    EntityRequest,
    GetEntityRequest,
    ListEntitiesRequest,
    UpdateEntityRequest,
    entity_answer,
)
from creditgate.api.wire.events import ListEventsRequest, events_answer
from creditgate.api.wire.features import CreateFeatureRequest
from creditgate.api.wire.fields import read
from creditgate.api.wire.holds import FinalizeRequest, LockRequest, wanted
from creditgate.api.wire.plans import CreatePlanRequest, UpdatePlanRequest
from creditgate.api.wire.requests import (
    AdvanceTestClockRequest,
    CheckRequest,
    CustomerRequest,
    GetOrCreateRequest,
    GrantRequest,
    MakingRequest,
    TrackRequest,
    UpdateCustomerRequest,
)
from creditgate.core.customers import Record
from creditgate.core.decisions import Decision, Mode
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.meter import Usage, refusal
from creditgate.errors import CreditgateError, NotFound
from creditgate.server import UseCases
from tests.conformance.drivers.protocol import Answer, Call


class InProcess:
    """A driver of use cases."""

    def __init__(self, cases: UseCases, *, refuses_repeated_keys: bool = False) -> None:
        self._cases = cases
        self._keys = RepeatedKeys(refuses=refuses_repeated_keys)
        self._verbs: Mapping[str, Callable[[bytes, Headers], Awaitable[Any]]] = {
            "features.create": self._create_feature,
            "plans.create": self._create_plan,
            "plans.update": self._update_plan,
            "customers.get_or_create": self._get_or_create,
            "customers.get": self._get,
            "customers.update": self._update,
            "customers.advance_test_clock": self._advance,
            "balances.create": self._grant,
            "balances.update": self._update_balance,
            "balances.delete": self._delete_balance,
            "balances.list": self._balances,
            "balances.check": self._check,
            "balances.track": self._track,
            "balances.finalize": self._finalize,
            "billing.attach": self._attach,
            "billing.update": self._cancel,
            "entities.create": self._create_entity,
            "entities.get": self._entity,
            "entities.list": self._entities,
            "entities.update": self._update_entity,
            "entities.delete": self._delete_entity,
            "events.list": self._events,
        }

    async def together(self, calls: Sequence[Call]) -> list[Answer]:
        return list(await asyncio.gather(*map(self._answer, calls)))

    async def _answer(self, call: Call) -> Answer:
        body = json.dumps(call.body).encode()
        headers = Headers(body, (call.header_key,) if call.header_key else (), "http://localhost")
        try:
            answer = await self._verbs[call.verb](body, headers)
        except CreditgateError as error:
            return Answer(status_of(error), {"message": error.message, "code": error.code})
        return Answer(200, json.loads(encode(answer), parse_float=Decimal))

    # The catalog

    async def _create_feature(self, body: bytes, _: Headers) -> Success:
        await self._cases.catalogs.create_feature(read(CreateFeatureRequest, body).feature())
        return Success()

    async def _create_plan(self, body: bytes, _: Headers) -> Success:
        await self._cases.catalogs.create_plan(read(CreatePlanRequest, body).plan())
        return Success()

    async def _update_plan(self, body: bytes, _: Headers) -> Success:
        request = read(UpdatePlanRequest, body)
        await self._cases.catalogs.update_plan(request.plan_id, request.changes())
        return Success()

    # Customers

    async def _get_or_create(self, body: bytes, _: Headers) -> Any:
        request = read(GetOrCreateRequest, body)
        profile = Profile(
            name=request.name,
            auto_enable_plan_id=request.auto_enable_plan_id,
            controls=request.billing_controls.controls() if request.billing_controls else None,
            time_zone=request.zone(),
        )
        return self._customer(await self._cases.customers.get_or_create(request.customer_id, profile))

    async def _get(self, body: bytes, _: Headers) -> Any:
        return self._customer(await self._cases.customers.get(read(CustomerRequest, body).customer_id))

    async def _update(self, body: bytes, _: Headers) -> Any:
        request = read(UpdateCustomerRequest, body)
        await self._cases.customers.update(request.customer_id, request.changes())
        return self._customer(await self._cases.customers.get(request.customer_id))

    async def _advance(self, body: bytes, _: Headers) -> ClockAnswer:
        request = read(AdvanceTestClockRequest, body)
        record = await self._cases.customers.advance_test_clock(request.customer_id, request.frozen_ms())
        return ClockAnswer(request.customer_id, record.now)

    async def _grant(self, body: bytes, _: Headers) -> Success:
        request = read(GrantRequest, body)
        grant = Grant(
            customer_id=request.customer_id,
            feature_id=request.feature_id,
            included_nanos=request.included_nanos(),
            unlimited=request.unlimited,
            reset=request.reset.recurrence("reset") if request.reset else None,
            rollover=request.rollover.rollover() if request.rollover else None,
            expires_at=request.expires_ms(),
            next_reset_at=request.next_reset_ms(),
            balance_id=request.balance_id,
            entity_id=request.entity_id,
        )
        await self._cases.customers.grant(grant)
        return Success()

    async def _update_balance(self, body: bytes, _: Headers) -> Success:
        request = read(UpdateBalanceRequest, body)
        await self._cases.customers.update_balance(request.wanted(), request.update())
        return Success()

    async def _delete_balance(self, body: bytes, _: Headers) -> Success:
        await self._cases.customers.delete_balance(read(DeleteBalanceRequest, body).wanted())
        return Success()

    async def _balances(self, body: bytes, _: Headers) -> BalanceList:
        request = read(ListBalancesRequest, body)
        return balance_list(await self._cases.customers.get(request.customer_id), request)

    async def _attach(self, body: bytes, _: Headers) -> AttachAnswer:
        request = read(AttachRequest, body)
        attached = await self._cases.billing.attach(
            customer_id=request.customer_id,
            plan_id=request.plan_id,
            quantities=request.quantities_nanos(),
            version=request.wanted_version(),
            options=request.attach_options(),
            success_url=None,
            base_url="http://localhost",
            key=None,
        )
        return AttachAnswer(request.customer_id, attached.payment_url)

    async def _cancel(self, body: bytes, _: Headers) -> AttachAnswer:
        request = read(UpdateBillingRequest, body)
        await self._cases.billing.update(
            customer_id=request.customer_id,
            plan_id=request.plan_id,
            subscription_id=request.subscription_id,
            entity_id=request.entity_id,
            action=request.action(),
            key=None,
        )
        return AttachAnswer(request.customer_id, None)

    # Entities

    async def _create_entity(self, body: bytes, _: Headers) -> EntityAnswer:
        request = read(CreateEntityRequest, body)
        await self._cases.entities.create(request.wanted())
        return await self._answered(request)

    async def _entity(self, body: bytes, _: Headers) -> EntityAnswer:
        return await self._answered(read(GetEntityRequest, body))

    async def _entities(self, body: bytes, _: Headers) -> EntityList:
        request = read(ListEntitiesRequest, body)
        record = await self._cases.customers.get(request.customer_id)
        page, next_cursor = request.page_of(record.customer.entities)
        catalog = self._cases.catalogs.current
        answers = (entity_answer(record, entity, catalog, env="sandbox") for entity in page)
        return EntityList(tuple(answers), next_cursor)

    async def _update_entity(self, body: bytes, _: Headers) -> EntityAnswer:
        request = read(UpdateEntityRequest, body)
        said = request.billing_controls.said()
        await self._cases.entities.update(request.customer_id, request.entity_id, said)
        return await self._answered(request)

    async def _delete_entity(self, body: bytes, _: Headers) -> Success:
        request = read(DeleteEntityRequest, body)
        await self._cases.entities.delete(request.customer_id, request.entity_id)
        return Success()

    async def _answered(self, request: EntityRequest) -> EntityAnswer:
        record = await self._cases.entities.get(request.customer_id, request.entity_id)
        entity = record.customer.entity(request.entity_id)
        return entity_answer(record, entity, self._cases.catalogs.current, env="sandbox")

    async def _with_entity(self, request: MakingRequest, ask: Callable[[], Awaitable[Decision]]) -> Decision:
        new = request.new_entity()
        try:
            return await ask()
        except NotFound as error:
            if new is None or error.code != "entity_not_found":
                raise
        await self._cases.entities.get_or_create(new)
        return await ask()

    def _customer(self, record: Record) -> Any:
        return customer_answer(
            record,
            self._cases.catalogs.current,
            env="sandbox",
            expand=frozenset(),
            zero_member_rows=False,
        )

    # Use

    async def _check(self, body: bytes, headers: Headers) -> Any:
        request = read(CheckRequest, body)
        if not request.takes:
            decision = await self._with_entity(
                request,
                lambda: self._cases.meter.check(
                    customer_id=request.customer_id,
                    feature_id=request.feature_id,
                    required_nanos=request.required_nanos(),
                    properties=request.properties_text(),
                    entity_id=request.entity_id,
                ),
            )
            return check_answer(decision, customer_id=request.customer_id, takes=False)
        usage = Usage(
            verb="check",
            customer_id=request.customer_id,
            feature_id=request.feature_id,
            event_name=None,
            value_nanos=request.required_nanos(),
            mode=Mode.REJECT,
            properties=request.properties_text(),
            entity_id=request.entity_id,
        )
        decision = await self._with_entity(
            request, lambda: self._take(usage, wanted(request.lock), headers, None)
        )
        return check_answer(decision, customer_id=request.customer_id, takes=True)

    async def _track(self, body: bytes, headers: Headers) -> Any:
        request = read(TrackRequest, body)
        usage = Usage(
            verb="track",
            customer_id=request.customer_id,
            feature_id=request.feature_id or None,
            event_name=request.event_name or None,
            value_nanos=request.value_nanos(),
            mode=request.overage_behavior,
            properties=request.properties_text(),
            occurred_at=request.occurred_at(),
            entity_id=request.entity_id,
        )
        decision = await self._with_entity(
            request, lambda: self._take(usage, wanted(request.lock), headers, request.idempotency_key)
        )
        if not decision.allowed:
            raise refusal(decision, usage)
        return track_answer(
            decision,
            customer_id=usage.customer_id,
            value_nanos=usage.value_nanos,
            event_name=usage.event_name,
        )

    async def _take(
        self, usage: Usage, lock: LockRequest | None, headers: Headers, key_in_body: str | None
    ) -> Decision:
        key = caller_key(usage.verb, headers, usage, in_body=key_in_body)
        usage = msgspec.structs.replace(usage, key=key)
        if lock is None:
            taking = self._cases.meter.track(usage)
        else:
            usage = msgspec.structs.replace(usage, verb="hold", mode=lock.mode(usage.mode))
            taking = self._cases.holds.hold(usage, hold_id=lock.lock_id, expires_at=lock.expires_ms())
        decision = await self._keys.once(key, taking)
        self._keys.headers(key, decision.is_replay)
        return decision

    async def _finalize(self, body: bytes, _: Headers) -> Success:
        request = read(FinalizeRequest, body)
        await self._cases.holds.finalize(
            request.lock_id, request.final_nanos(), properties=request.properties_text()
        )
        return Success()

    async def _events(self, body: bytes, _: Headers) -> Any:
        request = read(ListEventsRequest, body)
        start, end = request.bounds()
        page = await self._cases.history.events(
            customer_id=request.customer_id,
            entity_id=request.entity_id,
            feature_ids=request.feature_ids(),
            properties=request.properties(),
            start=start,
            end=end,
            limit=request.rows(),
            cursor=request.start_cursor,
        )
        return events_answer(page)
