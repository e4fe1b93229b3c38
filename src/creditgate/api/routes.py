"""The RPC routes: one small method for each verb, from a body to an answer. No web framework here."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec
from msgspec import UNSET

from creditgate.api.calls import NO_HEADERS, Answer, Call, caller_key, key_as_sent
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import Success, check_answer, encode, refusal_of, track_answer
from creditgate.api.wire.billing import AttachAnswer, AttachRequest
from creditgate.api.wire.customers import ClockAnswer, customer_answer, eligibility, events_answer
from creditgate.api.wire.features import (
    CreateFeatureRequest,
    FeatureList,
    GetFeatureRequest,
    ListFeaturesRequest,
    feature_answer,
)
from creditgate.api.wire.fields import read
from creditgate.api.wire.plans import (
    CreatePlanRequest,
    GetPlanRequest,
    ListPlansRequest,
    PlanList,
    plan_answer,
)
from creditgate.api.wire.requests import (
    AdvanceTestClockRequest,
    CheckRequest,
    GetCustomerRequest,
    GetOrCreateRequest,
    GrantRequest,
    ListEventsRequest,
    TrackRequest,
)
from creditgate.core.customers import Customer, Record
from creditgate.core.decisions import Mode
from creditgate.engine.billing import Billing
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customers import Customers, Grant, Profile
from creditgate.engine.history import History
from creditgate.engine.keys import CallerKey
from creditgate.engine.meter import Meter, Usage
from creditgate.errors import Conflict, InvalidInputs, InvalidRequest, KeyReused, NotFound

Handler = Callable[[Call], Awaitable[Answer]]
T = TypeVar("T")

CLOCK_SLACK_MS = 60_000  # how far a caller's clock may be ahead of ours

_REPLAYED: Mapping[str, str] = {"Idempotent-Replayed": "true"}


class Routes:
    """The verbs of the API over one environment's engine."""

    def __init__(
        self,
        *,
        meter: Meter,
        customers: Customers,
        catalogs: Catalogs,
        billing: Billing,
        history: History,
        settings: ApiSettings,
    ) -> None:
        self._meter = meter
        self._customers = customers
        self._catalogs = catalogs
        self._billing = billing
        self._history = history
        self._settings = settings

    @property
    def by_verb(self) -> Mapping[str, Handler]:
        """The handler of each path below /v1/, the busiest first."""
        return {
            "balances.check": self.check,
            "balances.track": self.track,
            "customers.get_or_create": self.get_or_create,
            "customers.get": self.get_customer,
            "customers.advance_test_clock": self.advance_test_clock,
            "balances.create": self.grant,
            "billing.attach": self.attach,
            "events.list": self.list_events,
            "features.create": self.create_feature,
            "features.get": self.get_feature,
            "features.list": self.list_features,
            "plans.create": self.create_plan,
            "plans.get": self.get_plan,
            "plans.list": self.list_plans,
        }

    async def check(self, call: Call) -> Answer:
        request = read(CheckRequest, call.body)
        usage = Usage(
            verb="check",
            customer_id=request.customer_id,
            feature_id=request.feature_id,
            event_name=None,
            value_nanos=request.required_nanos(),
            mode=Mode.REJECT,
            properties=request.properties_text(),
        )
        if request.send_event:
            return await self._check_and_take(usage, caller_key("check", call, usage))
        decision = await self._meter.check(
            customer_id=usage.customer_id, feature_id=request.feature_id, required_nanos=usage.value_nanos
        )
        return Answer(encode(check_answer(decision, customer_id=usage.customer_id, takes=False)))

    async def _check_and_take(self, usage: Usage, key: CallerKey | None) -> Answer:
        """A check with `send_event` is a track that takes all or nothing, answered as a check."""
        decision = await self._keyed(key, self._meter.track(msgspec.structs.replace(usage, key=key)))
        answer = check_answer(decision, customer_id=usage.customer_id, takes=True)
        return Answer(encode(answer), headers=self._replay_headers(key, decision.is_replay))

    async def track(self, call: Call) -> Answer:
        request = read(TrackRequest, call.body)
        occurred_at = request.occurred_at()
        self._check_past(occurred_at)
        usage = Usage(
            verb="track",
            customer_id=request.customer_id,
            feature_id=request.feature_id or None,
            event_name=request.event_name or None,
            value_nanos=request.value_nanos(),
            mode=request.overage_behavior,
            properties=request.properties_text(),
            occurred_at=occurred_at,
        )
        key = caller_key("track", call, usage, in_body=request.idempotency_key)
        decision = await self._keyed(key, self._meter.track(msgspec.structs.replace(usage, key=key)))
        if not decision.allowed:
            raise InvalidRequest(
                refusal_of(decision, value_nanos=usage.value_nanos), code="insufficient_balance"
            )
        answer = track_answer(
            decision,
            customer_id=usage.customer_id,
            value_nanos=usage.value_nanos,
            event_name=usage.event_name,
        )
        return Answer(encode(answer), headers=self._replay_headers(key, decision.is_replay))

    async def get_or_create(self, call: Call) -> Answer:
        request = read(GetOrCreateRequest, call.body)
        profile = Profile(
            name=request.name,
            email=request.email,
            fingerprint=request.fingerprint,
            stripe_id=request.stripe_id,
            metadata=request.own_metadata(),
            send_email_receipts=request.send_email_receipts,
            auto_enable_plan_id=request.auto_enable_plan_id,
        )
        record = await self._customers.get_or_create(request.customer_id, profile)
        return self._customer(record, request.expand)

    async def get_customer(self, call: Call) -> Answer:
        request = read(GetCustomerRequest, call.body)
        return self._customer(await self._customers.get(request.customer_id), request.expand)

    async def advance_test_clock(self, call: Call) -> Answer:
        request = read(AdvanceTestClockRequest, call.body)
        record = await self._customers.advance_test_clock(request.customer_id, request.frozen_ms())
        return Answer(encode(ClockAnswer(request.customer_id, record.now)))

    async def grant(self, call: Call) -> Answer:
        request = read(GrantRequest, call.body)
        grant = Grant(
            customer_id=request.customer_id,
            feature_id=request.feature_id,
            included_nanos=request.included_nanos(),
            reset=request.reset.recurrence("reset") if request.reset else None,
            expires_at=request.expires_ms(),
            next_reset_at=request.next_reset_ms(),
            balance_id=request.balance_id,
        )
        key = caller_key("grant", call, grant)
        is_replay = await self._keyed(key, self._customers.grant(grant, key))
        return Answer(encode(Success()), headers=self._replay_headers(key, is_replay))

    async def attach(self, call: Call) -> Answer:
        request = read(AttachRequest, call.body)
        quantities = request.quantities_nanos()
        key = caller_key(
            "attach", call, request.customer_id, request.plan_id, quantities, request.success_url
        )
        work = self._billing.attach(
            customer_id=request.customer_id,
            plan_id=request.plan_id,
            quantities=quantities,
            success_url=request.success_url,
            base_url=self._settings.public_url or call.base_url,
            key=key,
        )
        attached = await self._keyed(key, work)
        return Answer(
            encode(AttachAnswer(request.customer_id, attached.payment_url)),
            headers=self._replay_headers(key, attached.is_replay),
        )

    async def list_events(self, call: Call) -> Answer:
        request = read(ListEventsRequest, call.body)
        start, end = request.custom_range.bounds()
        page = await self._history.events(
            customer_id=request.customer_id,
            feature_ids=request.feature_ids(),
            start=start,
            end=end,
            limit=request.rows(),
            cursor=request.start_cursor,
        )
        return Answer(encode(events_answer(page)))

    async def create_feature(self, call: Call) -> Answer:
        feature = read(CreateFeatureRequest, call.body).feature()
        key = caller_key("create_feature", call, feature)
        is_replay = await self._keyed(key, self._catalogs.create_feature(feature, key))
        made = await self._catalogs.find_feature(feature.id)
        return Answer(encode(feature_answer(made)), headers=self._replay_headers(key, is_replay))

    async def get_feature(self, call: Call) -> Answer:
        request = read(GetFeatureRequest, call.body)
        return Answer(encode(feature_answer(await self._catalogs.find_feature(request.feature_id))))

    async def list_features(self, call: Call) -> Answer:
        read(ListFeaturesRequest, call.body)
        features = self._catalogs.current.document.features
        return Answer(encode(FeatureList(tuple(feature_answer(feature) for feature in features))))

    async def create_plan(self, call: Call) -> Answer:
        plan = read(CreatePlanRequest, call.body).plan()
        key = caller_key("create_plan", call, plan)
        plan = msgspec.structs.replace(plan, created_at=_now_ms())
        is_replay = await self._keyed(key, self._catalogs.create_plan(plan, key))
        made = await self._catalogs.find_plan(plan.id)
        answer = plan_answer(made, self._catalogs.current, self._settings.env_on_wire)
        return Answer(encode(answer), headers=self._replay_headers(key, is_replay))

    async def get_plan(self, call: Call) -> Answer:
        plan = await self._catalogs.find_plan(read(GetPlanRequest, call.body).plan_id)
        return Answer(encode(plan_answer(plan, self._catalogs.current, self._settings.env_on_wire)))

    async def list_plans(self, call: Call) -> Answer:
        request = read(ListPlansRequest, call.body)
        customer = await self._customer_if_any(request.customer_id)
        catalog, env = self._catalogs.current, self._settings.env_on_wire
        plans = (plan for plan in catalog.document.plans if request.include_archived or not plan.archived)
        answers = (
            plan_answer(plan, catalog, env, eligibility(customer, catalog, plan) if customer else UNSET)
            for plan in plans
        )
        return Answer(encode(PlanList(tuple(answers))))

    def _customer(self, record: Record, expand: tuple[str, ...]) -> Answer:
        answer = customer_answer(
            record,
            self._catalogs.current,
            env=self._settings.env_on_wire,
            expand=frozenset(expand),
            zero_member_rows=self._settings.zero_member_rows,
        )
        return Answer(encode(answer))

    async def _customer_if_any(self, customer_id: str | None) -> Customer | None:
        """A page may list plans before it has made its customer, so an unknown one is no error."""
        try:
            return (await self._customers.get(customer_id)).customer if customer_id is not None else None
        except NotFound:
            return None

    async def _keyed(self, key: CallerKey | None, work: Awaitable[T]) -> T:
        """Await what a key may stand for; to Autumn, a key that came before is a duplicate whatever it was for."""
        try:
            return await work
        except KeyReused:
            if key is None or not self._settings.refuses_repeated_keys:
                raise
            raise _duplicate(key) from None

    def _replay_headers(self, key: CallerKey | None, is_replay: bool) -> Mapping[str, str]:
        if not is_replay or key is None:
            return NO_HEADERS
        if self._settings.refuses_repeated_keys:
            raise _duplicate(key)
        return _REPLAYED

    def _check_past(self, timestamp: int | None) -> None:
        """In a test environment the customer's own clock may be ahead of ours."""
        if self._settings.env == "live" and (timestamp or 0) > _now_ms() + CLOCK_SLACK_MS:
            raise InvalidInputs("timestamp: cannot be in the future")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _duplicate(key: CallerKey) -> Conflict:
    message = f"Another request with idempotency key {key_as_sent(key)} has already been received"
    return Conflict(message, code="duplicate_idempotency_key")
