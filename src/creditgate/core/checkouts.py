"""Checkouts: plans offered for payment together, kept with the customer; each is paid once, for what it offered."""

from collections.abc import Sequence

from msgspec.structs import replace

from creditgate.core.attach import switch_to
from creditgate.core.catalog import Catalog
from creditgate.core.changes import Change, profile_change
from creditgate.core.customers import AS_USUAL, Checkout, Customer, Offered, Record
from creditgate.core.multi_attach import Wanted, multi_attach, paid_now
from creditgate.core.plans import Mint
from creditgate.errors import Conflict, NotFound

CHECKOUTS_MAX = 20  # kept for each customer, the newest; an older link says that it is gone


def offered(one: Wanted, total_nanos: int) -> Offered:
    """Return a plan as a checkout names it; `total_nanos` of it are paid now."""
    return Offered(one.plan.id, one.plan.version, total_nanos, dict(one.quantities))


def find_checkout(customer: Customer, checkout_id: str) -> Checkout:
    """Return one of the customer's checkouts; NotFound `checkout_not_found`."""
    found = next((checkout for checkout in customer.checkouts if checkout.id == checkout_id), None)
    if found is None:
        raise checkout_not_found()
    return found


def with_checkout(record: Record, checkout: Checkout, catalog: Catalog, wanted: Sequence[Wanted]) -> Change:
    """Return the change that keeps a new checkout of these plans; raises what attaching them would."""
    for one in wanted:
        switch_to(record.customer, catalog, one.plan, record.now, checkout.options or AS_USUAL)
    checkouts = (*record.customer.checkouts, replace(checkout, created_at=record.now))[-CHECKOUTS_MAX:]
    return profile_change(record, replace(record.customer, checkouts=checkouts))


def payment(
    record: Record, checkout_id: str, catalog: Catalog, wanted: Sequence[Wanted], mint: Mint
) -> Change | None:
    """Return the change that pays a checkout and attaches its plans, which are `wanted`; None if it is paid.

    Raises NotFound, Conflict `checkout_outdated` where paying would not buy what was offered, and what `attach` does.
    """
    checkout = find_checkout(record.customer, checkout_id)
    if checkout.paid_at is not None:
        return None
    options = checkout.options or AS_USUAL
    # Since the offer a trial may have been used, or another plan attached: then something else would be paid.
    totals_nanos = paid_now(record.customer, catalog, wanted, record.now, options)
    if totals_nanos != [plan.total_nanos for plan in checkout.plans]:
        message = "The customer's plans have changed since this checkout was made"
        raise Conflict(message, code="checkout_outdated")
    paid = replace(checkout, paid_at=record.now)
    checkouts = tuple(paid if each.id == checkout_id else each for each in record.customer.checkouts)
    customer = replace(record.customer, checkouts=checkouts)
    return multi_attach(record, customer, catalog, wanted, mint=mint, options=options)


def checkout_not_found() -> NotFound:
    """Return the error for a link that leads to nothing of ours."""
    return NotFound("This checkout does not exist", code="checkout_not_found")
