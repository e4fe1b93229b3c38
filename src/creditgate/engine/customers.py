"""Customers: made on first sight with the plans that enable themselves, read, changed, deleted, granted balances."""

from typing import Any

import msgspec

from creditgate.balances.clock import RedisClock
from creditgate.core.catalog import Catalog, Feature, FeatureType, Interval, Recurrence, Rollover
from creditgate.core.changes import Change, in_period_at, next_due, profile_change, rows_change
from creditgate.core.controls import NO_CONTROLS, BillingControls
from creditgate.core.customers import Customer, CustomerChanges, Record, Row
from creditgate.core.plans import new_customer
from creditgate.core.updates import BalanceFilter, BalanceUpdate, balance_change, removal
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.ids import mint
from creditgate.engine.keys import CallerKey
from creditgate.engine.writer import CustomerWriter
from creditgate.errors import Conflict, InvalidInputs, InvalidRequest, NotFound, Undecided
from creditgate.settings import Environment

CREATE_ROUNDS_MAX = 3
CLOCK_MAX = 4_102_444_800_000 * 2  # a test clock may go as far as the year 2230; beyond, calendars overflow


class Profile(msgspec.Struct, frozen=True):
    """What the caller says of a customer; None says nothing."""

    name: str | None = None
    email: str | None = None
    fingerprint: str | None = None
    stripe_id: str | None = None
    metadata: dict[str, Any] = {}
    send_email_receipts: bool | None = None
    auto_enable_plan_id: str | None = None
    controls: BillingControls | None = None
    time_zone: str | None = None


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """A balance given by itself, not by a plan. Amounts in nanos, instants in Unix ms."""

    customer_id: str
    feature_id: str
    included_nanos: int
    unlimited: bool = False
    reset: Recurrence | None = None
    rollover: Rollover | None = None
    expires_at: int | None = None
    next_reset_at: int | None = None
    balance_id: str | None = None
    entity_id: str | None = None


class Customers:
    """The customers of one environment."""

    def __init__(
        self, writer: CustomerWriter, catalogs: Catalogs, clock: RedisClock, environment: Environment
    ) -> None:
        self._writer = writer
        self._catalogs = catalogs
        self._clock = clock
        self._environment = environment

    async def get(self, customer_id: str) -> Record:
        """Return a customer's record with nothing overdue; NotFound `customer_not_found`."""
        record = await self._writer.read(customer_id)
        if record is None:
            raise NotFound(f"Customer {customer_id} not found", code="customer_not_found")
        return record

    async def get_or_create(self, customer_id: str, profile: Profile) -> Record:
        """Return a customer's record, made if it was not there: one customer, however many ask at once.

        An existing customer only has an empty name or email filled in, and the wish for receipts kept. Needs no
        idempotency key: to repeat it changes nothing.
        """
        for _ in range(CREATE_ROUNDS_MAX):
            record = await self._writer.read(customer_id)
            if record is not None:
                return await self._fill_in(record, profile)
            await self._create(customer_id, profile)
        raise Undecided("The customer could not be made; nothing was changed")

    async def update(self, customer_id: str, changes: CustomerChanges, key: CallerKey | None = None) -> bool:
        """Change a customer's profile, metadata and controls; returns whether this was a replay.

        Raises NotFound for the customer or a feature that the controls name, InvalidInputs for too much metadata.
        """
        controls = msgspec.structs.replace(NO_CONTROLS, **changes.controls)
        await self._catalogs.giving(feature_ids=sorted(controls.feature_ids))

        def work_out(record: Record) -> Change | None:
            updated = changes.applied_to(record.customer)
            return profile_change(record, updated) if updated != record.customer else None

        outcome = await self._writer.change(customer_id, work_out, verb="customers.update", key=key)
        return outcome.is_replay

    async def delete(self, customer_id: str, key: CallerKey | None = None) -> bool:
        """Close what the customer holds, and forget the customer; returns whether this was a replay.

        The journal keeps the history. Who is made again under this id is another customer. Raises NotFound.
        """
        return await self._writer.delete(customer_id, verb="customers.delete", key=key)

    async def advance_test_clock(self, customer_id: str, frozen_time: int) -> Record:
        """Pin the customer to a clock of its own, or move that clock on, and step over what falls due by then.

        Only in environment test; InvalidRequest for a time before the customer's present.
        """
        if self._environment is not Environment.TEST:
            raise InvalidRequest("Test clocks exist only in a test environment")
        if frozen_time > CLOCK_MAX:
            raise InvalidInputs("frozen_time: is too far in the future")

        def pin(record: Record) -> Change:
            if frozen_time < record.now:
                raise InvalidRequest(f"frozen_time: a clock only moves forward, and it is {record.now} now")
            return Change(due=next_due(record.customer, record.terms))

        await self._writer.change(customer_id, pin, verb="advance_test_clock", clock=frozen_time)
        return await self.get(customer_id)

    async def grant(self, grant: Grant, key: CallerKey | None = None) -> bool:
        """Give the customer a balance of its own; returns whether this was a replay.

        Raises NotFound, InvalidInputs, Conflict `balance_already_exists` or `too_many_balances`.
        """
        catalog = await self._catalogs.giving(feature_ids=[grant.feature_id])
        verb = "balances.create"
        if await self._writer.is_replay(grant.customer_id, verb, key):
            return True

        def work_out(record: Record) -> Change:
            return rows_change(record, opened=[_granted_row(grant, catalog, record)])

        outcome = await self._writer.change(
            grant.customer_id, work_out, verb=verb, catalog_version=catalog.version, key=key
        )
        return outcome.is_replay

    async def update_balance(
        self, wanted: BalanceFilter, update: BalanceUpdate, key: CallerKey | None = None
    ) -> bool:
        """Set a customer's balance; returns whether this was a replay. Raises what `core.updates` does."""
        outcome = await self._writer.change(
            wanted.customer_id,
            lambda record: balance_change(record, wanted, update),
            verb="balances.update",
            key=key,
        )
        return outcome.is_replay

    async def delete_balance(self, wanted: BalanceFilter, key: CallerKey | None = None) -> bool:
        """Close balances that stand alone; returns whether this was a replay. Raises what `core.updates` does."""
        if await self._writer.is_replay(wanted.customer_id, "balances.delete", key):
            return True
        outcome = await self._writer.change(
            wanted.customer_id, lambda record: removal(record, wanted), verb="balances.delete", key=key
        )
        return outcome.is_replay

    async def _create(self, customer_id: str, profile: Profile) -> None:
        catalog = await self._catalogs.refresh()
        plans = catalog.auto_enabled()
        if profile.auto_enable_plan_id is not None:
            chosen = catalog.plan(profile.auto_enable_plan_id)
            if chosen.archived:
                raise InvalidRequest(f"auto_enable_plan_id: {chosen.id} is archived")
            if not chosen.is_free:
                raise InvalidRequest(f"auto_enable_plan_id: {chosen.id} has a price")
            plans = (chosen, *(plan for plan in plans if plan.add_on or plan.group != chosen.group))
        limited = profile.controls.feature_ids if profile.controls else ()
        catalog = await self._catalogs.giving(
            plan_ids=[plan.id for plan in plans], feature_ids=sorted(limited)
        )
        now = self._clock.now_ms()
        customer = Customer(
            id=customer_id,
            created_at=now,
            name=profile.name,
            email=profile.email,
            fingerprint=profile.fingerprint,
            stripe_id=profile.stripe_id,
            send_email_receipts=bool(profile.send_email_receipts),
            metadata=profile.metadata,
            controls=profile.controls or NO_CONTROLS,
            time_zone=profile.time_zone or "UTC",
        )
        change = new_customer(customer, catalog, plans, now=now, mint=mint)
        await self._writer.create(customer_id, change, catalog_version=catalog.version)

    async def _fill_in(self, record: Record, profile: Profile) -> Record:
        if _filled_in(record.customer, profile) == record.customer:
            return record

        def work_out(record: Record) -> Change:
            return profile_change(record, _filled_in(record.customer, profile))

        await self._writer.change(record.customer.id, work_out, verb="customers.get_or_create")
        return await self.get(record.customer.id)


def _filled_in(customer: Customer, profile: Profile) -> Customer:
    receipts = profile.send_email_receipts
    return msgspec.structs.replace(
        customer,
        name=customer.name or profile.name,
        email=customer.email or profile.email,
        send_email_receipts=customer.send_email_receipts if receipts is None else receipts,
    )


def _granted_row(grant: Grant, catalog: Catalog, record: Record) -> Row:
    feature = catalog.feature(grant.feature_id)
    if feature.type is FeatureType.BOOLEAN:
        raise InvalidInputs(f"feature_id: {feature.id} is on or off; it has no balance")
    if grant.balance_id is not None and any(row.public_id == grant.balance_id for row in record.terms.rows):
        raise Conflict(f"Balance {grant.balance_id} already exists", code="balance_already_exists")
    if grant.entity_id is not None:
        record.customer.entity(grant.entity_id)
    _check_times(grant, feature.consumable, record.now)
    row = _row(grant, feature, record)
    if grant.rollover is not None and row.expires_at is not None and row.expires_at <= (row.resets_at or 0):
        raise InvalidInputs("expires_at: must be after the next reset, or nothing would roll over")
    return row


def _row(grant: Grant, feature: Feature, record: Record) -> Row:
    row = Row(
        id=mint("bal"),
        external_id=grant.balance_id,
        feature_id=feature.id,
        created_at=record.now,
        included_nanos=grant.included_nanos,
        reset=(grant.reset or Recurrence(Interval.ONE_OFF))
        if feature.consumable and not grant.unlimited
        else None,
        anchor=record.now,
        expires_at=grant.expires_at,
        may_go_negative=not feature.consumable,
        unlimited=grant.unlimited,
        rollover=grant.rollover,
        zone=record.customer.time_zone,
        entity_id=grant.entity_id,
    )
    if grant.next_reset_at is not None:  # the first period is the one that ends there
        return msgspec.structs.replace(
            row, anchor=grant.next_reset_at, period=-1, resets_at=grant.next_reset_at
        )
    return in_period_at(row, record.now)


def _check_times(grant: Grant, consumable: bool, now: int) -> None:
    repeats = grant.reset is not None and grant.reset.repeats
    if grant.rollover is not None and (not repeats or grant.unlimited):
        raise InvalidInputs("rollover: needs a reset")
    if repeats and not consumable:
        raise InvalidInputs(f"reset: {grant.feature_id} is not consumable, so it cannot reset")
    if grant.expires_at is not None and grant.expires_at <= now:
        raise InvalidInputs("expires_at: must be in the future")
    if grant.next_reset_at is None:
        return
    if not repeats:
        raise InvalidInputs("next_reset_at: needs a reset")
    if grant.next_reset_at <= now:
        raise InvalidInputs("next_reset_at: must be in the future")
    if grant.expires_at is not None and grant.next_reset_at >= grant.expires_at:
        raise InvalidInputs("next_reset_at: must be before expires_at")
