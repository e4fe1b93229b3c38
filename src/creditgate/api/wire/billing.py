"""Attaching plans on the wire."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw

from creditgate.api.wire.fields import ABSENT, NotYet, Request
from creditgate.api.wire.numbers import kept
from creditgate.api.wire.requests import CustomerRequest
from creditgate.errors import InvalidInputs

SUCCESS_URL_CHARACTERS_MAX = 2048


class OnlyIfRequired(NotYet):
    harmless = ("if_required",)


class FeatureQuantity(Request, frozen=True):
    """How much of a feature a plan is bought with, what it includes counted in."""

    feature_id: str
    quantity: Raw = ABSENT
    adjustable: NotYet | None = None


class AttachRequest(CustomerRequest, frozen=True):
    """`billing.attach`: put a customer on a plan, or say where to pay for it."""

    plan_id: str
    feature_quantities: tuple[FeatureQuantity, ...] = ()
    success_url: str | None = None
    redirect_mode: OnlyIfRequired | None = None
    entity_id: NotYet | None = None
    version: NotYet | None = None
    free_trial: NotYet | None = None
    customize: NotYet | None = None
    invoice_mode: NotYet | None = None
    proration_behavior: NotYet | None = None
    subscription_id: NotYet | None = None
    discounts: NotYet | None = None
    remove_discounts: NotYet | None = None
    new_billing_subscription: NotYet | None = None
    billing_cycle_anchor: NotYet | None = None
    plan_schedule: NotYet | None = None
    starts_at: NotYet | None = None
    ends_at: NotYet | None = None
    checkout_session_params: NotYet | None = None
    long_lived_checkout: NotYet | None = None
    custom_line_items: NotYet | None = None
    add_lines: NotYet | None = None
    remove_lines: NotYet | None = None
    processor_subscription_id: NotYet | None = None
    carry_over_balances: NotYet | None = None
    carry_over_usages: NotYet | None = None
    license_quantities: NotYet | None = None
    metadata: NotYet | None = None
    no_billing_changes: NotYet | None = None
    enable_plan_immediately: NotYet | None = None
    tax: NotYet | None = None
    tax_rate_id: NotYet | None = None
    billing_details: NotYet | None = None
    currency: NotYet | None = None
    remove_plan_ids: NotYet | None = None
    customer_data: NotYet | None = None
    entity_data: NotYet | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.success_url is not None:
            check_success_url(self.success_url)

    def quantities_nanos(self) -> dict[str, int]:
        """Units by feature id."""
        named = [quantity.feature_id for quantity in self.feature_quantities]
        if len(set(named)) != len(named):
            raise InvalidInputs("feature_quantities: a feature is listed twice")
        return dict(_quantities(self.feature_quantities))


class AttachAnswer(msgspec.Struct, frozen=True):
    """`billing.attach`. Without a URL nothing is left to pay, and the plan is active."""

    customer_id: str
    payment_url: str | None


_AUTHORITY = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def check_success_url(url: str) -> None:
    """Refuse what a browser should not be sent to: the page links to it, and its origin goes into a header."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    is_web = parts.scheme in ("http", "https") and _AUTHORITY.fullmatch(parts.netloc) is not None
    if not is_web or not url.isprintable() or " " in url:
        raise InvalidInputs("success_url: must be an http or https URL")
    if len(url) > SUCCESS_URL_CHARACTERS_MAX:
        raise InvalidInputs(f"success_url: must have at most {SUCCESS_URL_CHARACTERS_MAX} characters")


def _quantities(quantities: Iterable[FeatureQuantity]) -> Iterable[tuple[str, int]]:
    for number, quantity in enumerate(quantities):
        if bytes(quantity.quantity):
            yield quantity.feature_id, kept(quantity.quantity, field=f"feature_quantities[{number}].quantity")
