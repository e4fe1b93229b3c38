"""Attaching plans, at once when nothing is to be paid, else through a checkout that is completed once; cancelling them.

A checkout is part of the customer's document, so paying it and getting its plans are one change of one record.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from creditgate.core.cancellation import CancelAction, cancellation, find_subscription
from creditgate.core.catalog import Catalog
from creditgate.core.changes import Change
from creditgate.core.checkouts import checkout_not_found, find_checkout, offered, payment, with_checkout
from creditgate.core.customers import AS_USUAL, AttachOptions, Checkout, Customer, Record
from creditgate.core.multi_attach import Wanted, check_together, multi_attach, paid_now
from creditgate.core.plans import totals
from creditgate.core.preview import Preview, preview
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customers import Customers
from creditgate.engine.ids import mint
from creditgate.engine.keys import CallerKey
from creditgate.engine.writer import CustomerWriter
from creditgate.errors import InvalidRequest
from creditgate.settings import Environment, Payments

CHECKOUT_TTL_S = 24 * 3_600

_VERB = "billing.attach"
_MULTI = "billing.multi_attach"
_UPDATE = "billing.update"


class Offer(NamedTuple):
    """A checkout as its page shows it."""

    customer: Customer
    checkout: Checkout
    wanted: Sequence[Wanted]


class Named(NamedTuple):
    """A plan as it is asked for: quantities in nanos by feature, the newest version unless one is said."""

    plan_id: str
    quantities: Mapping[str, int] = {}
    version: int | None = None


class Attached(NamedTuple):
    """Where to pay; None: nothing is left to pay and the plans are active."""

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
        wanted = (Wanted(plan, {**quantities, **totals(plan, bought or {})}),)
        return await self._attach(_VERB, customer_id, catalog, wanted, options, success_url, base_url, key)

    async def multi_attach(
        self,
        *,
        customer_id: str,
        plans: Sequence[Named],
        options: AttachOptions = AS_USUAL,
        success_url: str | None,
        base_url: str,
        key: CallerKey | None,
    ) -> Attached:
        """Give the customer all of these plans in one step, or one place to pay for them; or none of them.

        Raises what `attach` does, and InvalidInputs for plans that exclude each other.
        """
        catalog = await self._catalogs.having(lambda catalog: _find_plans(catalog, plans))
        check_together(_find_plans(catalog, plans))
        catalog = await self._catalogs.giving(plan_ids=[named.plan_id for named in plans])
        wanted = _find_plans(catalog, plans)
        return await self._attach(_MULTI, customer_id, catalog, wanted, options, success_url, base_url, key)

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
        """Complete a checkout and attach its plans, exactly once: a paid one is returned as it is.

        Raises Conflict `checkout_outdated` where paying would not buy what was offered.
        """
        customer_id, checkout_id = self._read_token(token)
        offer = await self.offer(token)
        catalog = self._catalogs.current
        await self._writer.change(
            customer_id,
            lambda record: payment(record, checkout_id, catalog, offer.wanted, mint),
            verb="checkout.pay",
            catalog_version=catalog.version,
        )
        return await self.offer(token)

    async def _attach(
        self,
        verb: str,
        customer_id: str,
        catalog: Catalog,
        wanted: Sequence[Wanted],
        options: AttachOptions,
        success_url: str | None,
        base_url: str,
        key: CallerKey | None,
    ) -> Attached:
        totals_nanos = [one.total_nanos for one in wanted]
        if await self._writer.is_replay(customer_id, verb, key):
            return await self._attached_before(customer_id, base_url, key)
        if any(totals_nanos):
            record = await self._customers.get(customer_id)
            totals_nanos = paid_now(record.customer, catalog, wanted, record.now, options)
        checkout = None
        if self._needs_checkout(sum(totals_nanos)):
            checkout = Checkout(
                id=mint("co"),
                plans=tuple(map(offered, wanted, totals_nanos)),
                created_at=0,
                success_url=success_url,
                options=options,
                key=key.digest if key else None,
            )

        def work_out(record: Record) -> Change:
            if checkout is not None:
                return with_checkout(record, checkout, catalog, wanted)
            return multi_attach(record, record.customer, catalog, wanted, mint=mint, options=options)

        outcome = await self._writer.change(
            customer_id, work_out, verb=verb, catalog_version=catalog.version, key=key
        )
        if outcome.is_replay:
            return await self._attached_before(customer_id, base_url, key)
        return Attached(self._url(base_url, customer_id, checkout) if checkout else None, is_replay=False)

    def _needs_checkout(self, total_nanos: int) -> bool:
        """Say whether so much has to be paid on a page; InvalidRequest where there is none."""
        if total_nanos and self._environment is not Environment.TEST:
            raise InvalidRequest("No payment provider is configured", code="payments_not_configured")
        return total_nanos > 0 and self._payments is not Payments.INSTANT

    async def _offer(self, record: Record, checkout_id: str) -> Offer:
        checkout = find_checkout(record.customer, checkout_id)
        plans = [
            Named(offered.plan_id, offered.quantities, offered.plan_version) for offered in checkout.plans
        ]
        catalog = await self._catalogs.having(lambda catalog: _find_plans(catalog, plans))
        return Offer(record.customer, checkout, _find_plans(catalog, plans))

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
            raise checkout_not_found() from None
        return customer_id, checkout_id


def _find_plans(catalog: Catalog, plans: Sequence[Named]) -> list[Wanted]:
    return [Wanted(catalog.plan(named.plan_id, named.version), named.quantities) for named in plans]
