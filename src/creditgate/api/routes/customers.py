"""Customers, one and all, their clocks, and balances given to them."""

import asyncio
from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb, caller_key
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import Success, encode
from creditgate.api.wire.customer_list import CustomersAnswer, ListCustomersRequest, SortOrder
from creditgate.api.wire.customers import ClockAnswer, CustomerAnswer, customer_answer
from creditgate.api.wire.fields import read
from creditgate.api.wire.requests import (
    AdvanceTestClockRequest,
    DeleteCustomerRequest,
    GetCustomerRequest,
    GetOrCreateRequest,
    GrantRequest,
    UpdateCustomerRequest,
)
from creditgate.core.customers import Record
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customer_list import CustomerList
from creditgate.engine.customers import Customers, Grant, Profile
from creditgate.engine.entities import Entities

ANSWERS_AT_ONCE = 20  # worked out before other calls get their turn: a few milliseconds


class CustomerRoutes:
    """The verbs of customers."""

    def __init__(
        self,
        customers: Customers,
        entities: Entities,
        customer_list: CustomerList,
        catalogs: Catalogs,
        keys: RepeatedKeys,
        settings: ApiSettings,
    ) -> None:
        self._customers = customers
        self._entities = entities
        self._customer_list = customer_list
        self._catalogs = catalogs
        self._keys = keys
        self._settings = settings

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "customers.get_or_create": Verb(self.get_or_create, GetOrCreateRequest, CustomerAnswer),
            "customers.get": Verb(self.get_customer, GetCustomerRequest, CustomerAnswer),
            "customers.list": Verb(self.list_customers, ListCustomersRequest, CustomersAnswer),
            "customers.update": Verb(self.update_customer, UpdateCustomerRequest, CustomerAnswer),
            "customers.delete": Verb(self.delete_customer, DeleteCustomerRequest, Success),
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
        new = request.new_entity()
        record = await self._customers.get_or_create(request.customer_id, profile)
        if new is None or any(entity.id == new.id for entity in record.customer.entities):
            return record
        await self._entities.get_or_create(new)
        return await self._customers.get(request.customer_id)

    async def get_customer(self, call: Call) -> Answer:
        request = read(GetCustomerRequest, call.body)
        return self._customer(await self._customers.get(request.customer_id), request.expand)

    async def list_customers(self, call: Call) -> Answer:
        request = read(ListCustomersRequest, call.body)
        page = await self._customer_list.page(
            request.filter(),
            limit=request.rows(),
            cursor=request.start_cursor,
            newest_first=request.sort_order is SortOrder.DESC,
        )
        answers: list[CustomerAnswer] = []
        for start in range(0, len(page.records), ANSWERS_AT_ONCE):
            answers += [self.answer(record) for record in page.records[start : start + ANSWERS_AT_ONCE]]
            await asyncio.sleep(0)
        return Answer(encode(CustomersAnswer(tuple(answers), page.next_cursor)))

    async def update_customer(self, call: Call) -> Answer:
        request = read(UpdateCustomerRequest, call.body)
        customer_id, changes = request.customer_id, request.changes()
        key = caller_key("update_customer", call, customer_id, changes)
        work = self._customers.update(customer_id, changes, key)
        headers = self._keys.headers(key, await self._keys.once(key, work))
        return Answer(encode(self.answer(await self._customers.get(customer_id))), headers=headers)

    async def delete_customer(self, call: Call) -> Answer:
        customer_id = read(DeleteCustomerRequest, call.body).customer_id
        key = caller_key("delete_customer", call, customer_id)
        is_replay = await self._keys.once(key, self._customers.delete(customer_id, key))
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))

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
            entity_id=request.entity_id,
        )
        key = caller_key("grant", call, grant)
        is_replay = await self._keys.once(key, self._customers.grant(grant, key))
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))

    def answer(self, record: Record, expand: tuple[str, ...] = ()) -> CustomerAnswer:
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
