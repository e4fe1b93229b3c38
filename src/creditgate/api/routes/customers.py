"""Customers, their clocks, and balances given to them."""

from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb, caller_key
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import Success, encode
from creditgate.api.wire.customers import ClockAnswer, CustomerAnswer, customer_answer
from creditgate.api.wire.fields import read
from creditgate.api.wire.requests import (
    AdvanceTestClockRequest,
    GetCustomerRequest,
    GetOrCreateRequest,
    GrantRequest,
)
from creditgate.core.customers import Record
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customers import Customers, Grant, Profile


class CustomerRoutes:
    """The verbs of customers."""

    def __init__(
        self, customers: Customers, catalogs: Catalogs, keys: RepeatedKeys, settings: ApiSettings
    ) -> None:
        self._customers = customers
        self._catalogs = catalogs
        self._keys = keys
        self._settings = settings

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "customers.get_or_create": Verb(self.get_or_create, GetOrCreateRequest, CustomerAnswer),
            "customers.get": Verb(self.get_customer, GetCustomerRequest, CustomerAnswer),
            "customers.advance_test_clock": Verb(
                self.advance_test_clock, AdvanceTestClockRequest, ClockAnswer
            ),
            "balances.create": Verb(self.grant, GrantRequest, Success),
        }

    async def get_or_create(self, call: Call) -> Answer:
        request = read(GetOrCreateRequest, call.body)
        return self._customer(await self.made(request), request.expand)

    async def made(self, request: GetOrCreateRequest) -> Record:
        """Return the record of the customer, who is made if there is none."""
        profile = Profile(
            name=request.name,
            email=request.email,
            fingerprint=request.fingerprint,
            stripe_id=request.stripe_id,
            metadata=request.own_metadata(),
            send_email_receipts=request.send_email_receipts,
            auto_enable_plan_id=request.auto_enable_plan_id,
            controls=request.billing_controls.controls() if request.billing_controls else None,
            time_zone=request.zone(),
        )
        return await self._customers.get_or_create(request.customer_id, profile)

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
            unlimited=request.unlimited,
            reset=request.reset.recurrence("reset") if request.reset else None,
            rollover=request.rollover.rollover() if request.rollover else None,
            expires_at=request.expires_ms(),
            next_reset_at=request.next_reset_ms(),
            balance_id=request.balance_id,
        )
        key = caller_key("grant", call, grant)
        is_replay = await self._keys.once(key, self._customers.grant(grant, key))
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))

    def answer(self, record: Record, expand: tuple[str, ...]) -> CustomerAnswer:
        """Return a customer in the newest shape."""
        return customer_answer(
            record,
            self._catalogs.current,
            env=self._settings.env_on_wire,
            expand=frozenset(expand),
            zero_member_rows=self._settings.zero_member_rows,
        )

    def _customer(self, record: Record, expand: tuple[str, ...]) -> Answer:
        return Answer(encode(self.answer(record, expand)))
