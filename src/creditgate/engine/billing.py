"""Attaching plans, at once when nothing is to be paid, else through a checkout that is completed once; cancelling them.

A checkout is part of the customer's document, so paying it and getting the plan are one change of one record.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from creditgate.core.attach import attach, switch_to
from creditgate.core.cancellation import CancelAction, cancellation, find_subscription
from creditgate.core.catalog import Catalog, Plan
from creditgate.core.changes import Change, profile_change
from creditgate.core.customers import AS_USUAL, AttachOptions, Checkout, Customer, Record
from creditgate.core.plans import Line, quote, totals
from creditgate.core.preview import Preview, paid_from, preview
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customers import Customers
from creditgate.engine.ids import mint
from creditgate.engine.keys import CallerKey
from creditgate.engine.writer import CustomerWriter
from creditgate.errors import InvalidRequest, NotFound
from creditgate.settings import Environment, Payments

CHECKOUT_TTL_S = 24 * 3_600
CHECKOUTS_MAX = 20  # kept for each customer, the newest; an older link says that it is gone

_VERB = "billing.attach"
_UPDATE = "billing.update"


class Offer(NamedTuple):
    """A checkout as its page shows it."""

    customer: Customer
    plan: Plan
    checkout: Checkout
    lines: tuple[Line, ...]


class Attached(NamedTuple):
    """Where to pay; None: nothing is left to pay and the plan is active."""

    payment_url: str | None
    is_replay: bool


class Previewed(NamedTuple):
    """What attaching would do, by which catalog, and whether it would have to be paid on a page first."""

    preview: Preview
    catalog: Catalog
    needs_checkout: bool


class Billing:
    """Plans and their payment for all customers of one environment."""

    def __init__(
        self,
        writer: CustomerWriter,
        customers: Customers,
        catalogs: Catalogs,
        *,
        environment: Environment,
        payments: Payments,
        signing_secret: str,
    ) -> None:
        self._writer = writer
        self._customers = customers
        self._catalogs = catalogs
        self._environment = environment
        self._payments = payments
        self._signer = URLSafeTimedSerializer(signing_secret, salt="checkout")

    async def attach(
        self,
        *,
        customer_id: str,
        plan_id: str,
        quantities: Mapping[str, int],
        version: int | None = None,
        options: AttachOptions = AS_USUAL,
        success_url: str | None,
        base_url: str,
        key: CallerKey | None,
        bought: Mapping[str, int] | None = None,
    ) -> Attached:
        """Give the customer a plan, or a place to pay for it; quantities in nanos by feature. Later is paid later.

        What the plan includes is counted in `quantities`, and comes on top of what is in `bought`.

        Raises NotFound, InvalidInputs, InvalidRequest, Conflict `plan_already_attached` or `too_many_balances`.
        """
        catalog = await self._catalogs.giving(plan_ids=[plan_id])
        plan = catalog.plan(plan_id, version)
        quantities = {**quantities, **totals(plan, bought or {})}
        total = sum(line.total_nanos for line in quote(plan, quantities))
        if await self._writer.is_replay(customer_id, _VERB, key):
            return await self._attached_before(customer_id, base_url, key)
        if total:
            record = await self._customers.get(customer_id)
            if paid_from(record.customer, catalog, plan, record.now, options) != record.now:
                total = 0
        if not self._needs_checkout(total):
            outcome = await self._writer.change(
                customer_id,
                lambda record: attach(
                    record, record.customer, catalog, plan, quantities, mint=mint, options=options
                ),
                verb=_VERB,
                catalog_version=catalog.version,
                key=key,
            )
            return Attached(None, outcome.is_replay)
        checkout = Checkout(
            id=mint("co"),
            plan_id=plan.id,
            plan_version=plan.version,
            total_nanos=total,
            created_at=0,
            quantities=dict(quantities),
            success_url=success_url,
            options=options,
            key=key.digest if key else None,
        )
        outcome = await self._writer.change(
            customer_id,
            lambda record: _with_checkout(record, checkout, catalog, plan),
            verb=_VERB,
            catalog_version=catalog.version,
            key=key,
        )
        if outcome.is_replay:
            return await self._attached_before(customer_id, base_url, key)
        return Attached(self._url(base_url, customer_id, checkout), is_replay=False)

    async def preview_attach(
        self,
        *,
        customer_id: str,
        plan_id: str,
        quantities: Mapping[str, int],
        version: int | None = None,
        options: AttachOptions = AS_USUAL,
    ) -> Previewed:
        """Return what attaching would cost and change; nothing is attached, and nothing is kept of it.

        Raises what attaching would raise.
        """
        catalog = await self._catalogs.having(lambda catalog: catalog.plan(plan_id, version))
        record = await self._customers.get(customer_id)
        plan = catalog.plan(plan_id, version)
        found = preview(record, catalog, plan, quantities, mint=mint, options=options)
        return Previewed(found, catalog, self._needs_checkout(found.now.total_nanos))

    async def update(
        self,
        *,
        customer_id: str,
        plan_id: str | None,
        subscription_id: str | None,
        entity_id: str | None = None,
        action: CancelAction,
        key: CallerKey | None,
    ) -> bool:
        """Cancel a plan, or take that back; returns whether this was a replay. What ends at once is over by then.

        Raises NotFound `customer_not_found` or `cus_product_not_found`, InvalidRequest for a cycle that does not end.
        """
        if await self._writer.is_replay(customer_id, _UPDATE, key):
            return True

        def work_out(record: Record) -> Change | None:
            named = find_subscription(
                record.customer, plan_id=plan_id, subscription_id=subscription_id, entity_id=entity_id
            )
            return cancellation(record, named, action)

        outcome = await self._writer.change(customer_id, work_out, verb=_UPDATE, key=key)
        await self._writer.forward(customer_id)
        return outcome.is_replay

    async def offer(self, token: str) -> Offer:
        """Return what a link offers.

        Raises NotFound `checkout_not_found` for a link that is not ours, InvalidRequest `checkout_expired`.
        """
        customer_id, checkout_id = self._read_token(token)
        record = await self._customers.get(customer_id)
        return await self._offer(record, checkout_id)

    async def pay(self, token: str) -> Offer:
        """Complete a checkout and attach its plan, exactly once: a paid one is returned as it is."""
        customer_id, checkout_id = self._read_token(token)
        offer = await self.offer(token)
        catalog = self._catalogs.current

        def complete(record: Record) -> Change | None:
            checkout = _find(record.customer, checkout_id)
            if checkout.paid_at is not None:
                return None
            paid = msgspec.structs.replace(checkout, paid_at=record.now)
            checkouts = tuple(paid if c.id == checkout_id else c for c in record.customer.checkouts)
            customer = msgspec.structs.replace(record.customer, checkouts=checkouts)
            options = checkout.options or AS_USUAL
            quantities = checkout.quantities
            return attach(record, customer, catalog, offer.plan, quantities, mint=mint, options=options)

        await self._writer.change(customer_id, complete, verb="checkout.pay", catalog_version=catalog.version)
        return await self.offer(token)

    def _needs_checkout(self, total_nanos: int) -> bool:
        """Say whether so much has to be paid on a page; InvalidRequest where there is none."""
        if total_nanos and self._environment is not Environment.TEST:
            raise InvalidRequest("No payment provider is configured", code="payments_not_configured")
        return total_nanos > 0 and self._payments is not Payments.INSTANT

    async def _offer(self, record: Record, checkout_id: str) -> Offer:
        checkout = _find(record.customer, checkout_id)
        plan = await self._catalogs.find_plan(checkout.plan_id, checkout.plan_version)
        return Offer(record.customer, plan, checkout, quote(plan, checkout.quantities))

    async def _attached_before(self, customer_id: str, base_url: str, key: CallerKey | None) -> Attached:
        record = await self._customers.get(customer_id)
        digest = key.digest if key else None
        checkout = next((c for c in record.customer.checkouts if c.key is not None and c.key == digest), None)
        return Attached(self._url(base_url, customer_id, checkout) if checkout else None, is_replay=True)

    def _url(self, base_url: str, customer_id: str, checkout: Checkout) -> str:
        return f"{base_url.rstrip('/')}/checkout/{self._signer.dumps([customer_id, checkout.id])}"

    def _read_token(self, token: str) -> tuple[str, str]:
        try:
            customer_id, checkout_id = self._signer.loads(token, max_age=CHECKOUT_TTL_S)
        except SignatureExpired:
            raise InvalidRequest("This checkout has expired", code="checkout_expired") from None
        except (BadSignature, ValueError, TypeError):
            raise _not_found() from None
        return customer_id, checkout_id


def _with_checkout(record: Record, checkout: Checkout, catalog: Catalog, plan: Plan) -> Change:
    switch_to(record.customer, catalog, plan, record.now, checkout.options or AS_USUAL)
    checkout = msgspec.structs.replace(checkout, created_at=record.now)
    checkouts = (*record.customer.checkouts, checkout)[-CHECKOUTS_MAX:]
    return profile_change(record, msgspec.structs.replace(record.customer, checkouts=checkouts))


def _find(customer: Customer, checkout_id: str) -> Checkout:
    checkout = next((c for c in customer.checkouts if c.id == checkout_id), None)
    if checkout is None:
        raise _not_found()
    return checkout


def _not_found() -> NotFound:
    return NotFound("This checkout does not exist", code="checkout_not_found")
