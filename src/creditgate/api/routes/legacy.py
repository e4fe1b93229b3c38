"""The routes that came before the verbs: `/v1/check`, `/v1/track`, `/v1/usage`, `/v1/customers`, `/v1/attach`.

They ask the verbs' own routes in older words. Where `x-api-version` is below 2.1 they answer in the shape of that
version, and a customer who is not there is made, with the plans that enable themselves.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from creditgate.api.calls import Answer, Call, LegacyRoute, Verb
from creditgate.api.routes.balances import BalanceRoutes
from creditgate.api.routes.billing import BillingRoutes
from creditgate.api.routes.customers import CustomerRoutes
from creditgate.api.routes.meter import BODIES_BYTES_MAX, MeterRoutes, Wanted, said
from creditgate.api.versions import BETA, LAST_WITH_A_LIST, ONE_SHAPE_SINCE, SPLIT
from creditgate.api.wire import answers_1_2, answers_2_0
from creditgate.api.wire.answers import CheckAnswer, Success, TrackAnswer, encode
from creditgate.api.wire.billing import AttachAnswer
from creditgate.api.wire.customers import CustomerAnswer
from creditgate.api.wire.fields import read
from creditgate.api.wire.legacy import (
    LegacyAttachRequest,
    LegacyCheckRequest,
    LegacyCustomerRequest,
    LegacyTrackRequest,
    SetUsageRequest,
)
from creditgate.api.wire.requests import CheckRequest, GetCustomerRequest, TrackRequest
from creditgate.core.customers import Record
from creditgate.core.decisions import Decision
from creditgate.core.remembered import Remembered
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customers import Customers, Profile
from creditgate.engine.stepping import Done
from creditgate.errors import InvalidRequest, NotFound

T = TypeVar("T")
Named = LegacyCheckRequest | LegacyTrackRequest | LegacyAttachRequest


class LegacyRoutes:
    """The older names and shapes of what the verbs do."""

    def __init__(
        self,
        meter_routes: MeterRoutes,
        customer_routes: CustomerRoutes,
        balance_routes: BalanceRoutes,
        billing_routes: BillingRoutes,
        customers: Customers,
        catalogs: Catalogs,
    ) -> None:
        self._meter_routes = meter_routes
        self._customer_routes = customer_routes
        self._balance_routes = balance_routes
        self._billing_routes = billing_routes
        self._customers = customers
        self._catalogs = catalogs
        self._checks = Remembered(self._read_check, BODIES_BYTES_MAX)
        self._tracks = Remembered(self._read_track, BODIES_BYTES_MAX)

    @property
    def table(self) -> tuple[LegacyRoute, ...]:
        check = Verb(self.check, LegacyCheckRequest, CheckAnswer, begin=self.begin_check)
        track = Verb(self.track, LegacyTrackRequest, TrackAnswer, begin=self.begin_track)
        return (
            LegacyRoute("POST", "check", "check", check),
            LegacyRoute("POST", "entitled", "entitled", check),
            LegacyRoute("POST", "track", "track", track),
            LegacyRoute("POST", "events", "events", track),
            LegacyRoute("POST", "usage", "usage", Verb(self.set_usage, SetUsageRequest, Success)),
            LegacyRoute("POST", "attach", "attach", Verb(self.attach, LegacyAttachRequest, AttachAnswer)),
            LegacyRoute(
                "POST",
                "customers",
                "customers",
                Verb(self.get_or_create, LegacyCustomerRequest, CustomerAnswer),
            ),
            LegacyRoute(
                "GET",
                "customers/{customer_id:path}",
                "customer",
                Verb(self.get_customer, GetCustomerRequest, CustomerAnswer),
            ),
        )

    def check(self, call: Call) -> Coroutine[Any, Any, Answer]:
        if call.version < ONE_SHAPE_SINCE:
            return self._older_check(call)
        return self._meter_routes.answer_check(said(self._checks, call.body), call)

    def begin_check(self, call: Call, done: Done[Answer]) -> Coroutine[Any, Any, Answer] | None:
        if call.version < ONE_SHAPE_SINCE:
            return self._older_check(call)
        wanted = said(self._checks, call.body)
        return self._meter_routes.begin_wanted_check(wanted, wanted.asker, call, done)

    def track(self, call: Call) -> Coroutine[Any, Any, Answer]:
        if call.version < ONE_SHAPE_SINCE:
            return self._older_track(call)
        return self._meter_routes.answer_track(said(self._tracks, call.body), call)

    def begin_track(self, call: Call, done: Done[Answer]) -> Coroutine[Any, Any, Answer] | None:
        if call.version < ONE_SHAPE_SINCE:
            return self._older_track(call)
        wanted = said(self._tracks, call.body)
        return self._meter_routes.begin_wanted_track(wanted, wanted.asker, call, done)

    def _read_check(self, body: bytes) -> Wanted[CheckRequest]:
        request = read(LegacyCheckRequest, body)
        _makes_nobody(request)
        return self._meter_routes.wanted_by_check(request)

    def _read_track(self, body: bytes) -> Wanted[TrackRequest]:
        request = read(LegacyTrackRequest, body)
        _makes_nobody(request)
        return self._meter_routes.wanted_by_track(request)

    async def _older_check(self, call: Call) -> Answer:
        request = read(LegacyCheckRequest, call.body)
        decision, headers = await self._for_customer(
            request,
            call,
            lambda: self._meter_routes.checked(self._meter_routes.wanted_by_check(request), call),
        )
        return Answer(self._check_answer(decision, request, call), headers=headers)

    async def _older_track(self, call: Call) -> Answer:
        request = read(LegacyTrackRequest, call.body).current(call.version)
        decision, headers = await self._for_customer(
            request,
            call,
            lambda: self._meter_routes.tracked(self._meter_routes.wanted_by_track(request), call),
        )
        return Answer(_track_answer(decision, request, call), headers=headers)

    async def set_usage(self, call: Call) -> Answer:
        return await self._balance_routes.updated(read(SetUsageRequest, call.body).current(), call)

    async def attach(self, call: Call) -> Answer:
        request = read(LegacyAttachRequest, call.body)
        bought = request.bought_nanos()
        attached, headers = await self._for_customer(
            request, call, lambda: self._billing_routes.attached(request, call, bought_nanos=bought)
        )
        plan, payment_url = await self._catalogs.find_plan(request.plan_id), attached.payment_url
        answer: object
        if call.version <= SPLIT:
            answer = answers_1_2.attach_0_2(plan, payment_url=payment_url)
        elif call.version < ONE_SHAPE_SINCE:
            answer = answers_1_2.attach(plan, customer_id=request.customer_id, payment_url=payment_url)
        else:
            answer = AttachAnswer(request.customer_id, payment_url)
        return Answer(encode(answer), headers=headers)

    async def get_or_create(self, call: Call) -> Answer:
        _check_customers(call)
        request = read(LegacyCustomerRequest, call.body).expanding(call.expand)
        return self._customer_answer(await self._customer_routes.made(request), request.expand, call)

    async def get_customer(self, call: Call) -> Answer:
        _check_customers(call)
        request = GetCustomerRequest(customer_id=call.customer_id, expand=call.expand)
        return self._customer_answer(await self._customers.get(request.customer_id), request.expand, call)

    async def _for_customer(self, request: Named, call: Call, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what is answered; below 2.1, a customer who is not there is made and it is asked once more.

        First asked and then made: a call that is refused for what it says makes nobody.
        """
        if call.version >= ONE_SHAPE_SINCE:
            _makes_nobody(request)
            return await ask()
        profile = _profile_in(request)
        try:
            return await ask()
        except NotFound as error:
            if error.code != "customer_not_found":
                raise
        await self._customers.get_or_create(request.customer_id, profile)
        return await ask()

    def _check_answer(self, decision: Decision, request: LegacyCheckRequest, call: Call) -> bytes:
        customer_id = request.customer_id
        if call.version <= SPLIT:
            return encode(answers_1_2.check_0_2(decision))
        if call.version <= BETA:
            return encode(
                answers_1_2.check(decision, customer_id=customer_id, catalog=self._catalogs.current)
            )
        return encode(answers_2_0.check(decision, customer_id=customer_id))

    def _customer_answer(self, record: Record, expand: tuple[str, ...], call: Call) -> Answer:
        newest, catalog = self._customer_routes.answer(record, expand), self._catalogs.current
        answer: object = newest
        if call.version <= LAST_WITH_A_LIST:
            answer = answers_1_2.customer_1_1(newest, record, catalog)
        elif call.version <= BETA:
            answer = answers_1_2.customer(newest, record, catalog)
        elif call.version < ONE_SHAPE_SINCE:
            answer = answers_2_0.customer(newest, record)
        return Answer(encode(answer))


def _track_answer(decision: Decision, request: LegacyTrackRequest, call: Call) -> bytes:
    customer_id, value_nanos, event_name = request.customer_id, request.value_nanos(), request.event_name
    if call.version <= SPLIT:
        return encode(Success())
    if call.version <= BETA:
        return encode(answers_1_2.track(decision, customer_id=customer_id, event_name=event_name))
    return encode(
        answers_2_0.track(decision, customer_id=customer_id, value_nanos=value_nanos, event_name=event_name)
    )


def _profile_in(request: Named) -> Profile:
    return request.customer_data.profile() if request.customer_data else Profile()


def _makes_nobody(request: Named) -> None:
    if _profile_in(request) != Profile():
        raise InvalidRequest(
            "customer_data: from API version 2.1 on, only POST /v1/customers makes a customer"
        )


def _check_customers(call: Call) -> None:
    if call.version <= SPLIT:
        raise InvalidRequest(
            "Customers were answered in parts up to API version 0.2, which is not supported; send 1.1 or later",
            code="invalid_api_version",
        )
