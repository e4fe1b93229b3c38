"""Attaching plans on the wire, what that would do, and cancelling them."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Raw, UnsetType

from creditgate.api.wire.fields import ABSENT, NotYet, Request
from creditgate.api.wire.numbers import WHOLE_MAX, instant, kept, whole
from creditgate.api.wire.requests import HolderRequest
from creditgate.core.cancellation import CancelAction
from creditgate.core.customers import AttachOptions
from creditgate.core.multi_attach import PLANS_MAX
from creditgate.engine.billing import Named
from creditgate.errors import InvalidInputs, InvalidRequest

SUCCESS_URL_CHARACTERS_MAX = 2048


class OnlyIfRequired(NotYet):
    harmless = ("if_required",)


class FeatureQuantity(Request, frozen=True):
    """How much of a feature a plan is bought with, what it includes counted in."""

    feature_id: str
    quantity: Raw = ABSENT
    adjustable: NotYet | None = None


class NoTrial(NotYet):
    """A trial is the plan's own; null does without it."""


class CarryOver(Request, frozen=True):
    """What goes over from the plan that is replaced: of all features, or of those that are named."""

    enabled: bool
    feature_ids: tuple[str, ...] = ()

    def features(self) -> tuple[str, ...] | None:
        return self.feature_ids if self.enabled else None


class AttachRequest(HolderRequest, frozen=True):
    """`billing.attach`: put a customer, or an entity, on a plan, or say where to pay for it."""

    plan_id: str
    feature_quantities: tuple[FeatureQuantity, ...] = ()
    success_url: str | None = None
    redirect_mode: OnlyIfRequired | None = None
    version: float | None = None
    free_trial: NoTrial | UnsetType | None = UNSET
    customize: NotYet | None = None
    invoice_mode: NotYet | None = None
    proration_behavior: NotYet | None = None
    subscription_id: NotYet | None = None
    discounts: NotYet | None = None
    remove_discounts: NotYet | None = None
    new_billing_subscription: NotYet | None = None
    billing_cycle_anchor: NotYet | None = None
    plan_schedule: Literal["immediate", "end_of_cycle"] | None = None
    starts_at: float | None = None
    ends_at: float | None = None
    checkout_session_params: NotYet | None = None
    long_lived_checkout: NotYet | None = None
    custom_line_items: NotYet | None = None
    add_lines: NotYet | None = None
    remove_lines: NotYet | None = None
    processor_subscription_id: NotYet | None = None
    carry_over_balances: CarryOver | None = None
    carry_over_usages: CarryOver | None = None
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

    def wanted_version(self) -> int | None:
        return _version(self.version, field="version")

    def attach_options(self) -> AttachOptions:
        return AttachOptions(
            schedule=self.plan_schedule,
            starts_at=instant(self.starts_at, field="starts_at"),
            ends_at=instant(self.ends_at, field="ends_at"),
            carry_usages=self.carry_over_usages.features() if self.carry_over_usages else None,
            carry_balances=self.carry_over_balances.features() if self.carry_over_balances else None,
            no_trial=self.free_trial is None,
            entity_id=self.entity_id,
        )

    def quantities_nanos(self) -> dict[str, int]:
        """Units by feature id."""
        return quantities_nanos(self.feature_quantities, field="feature_quantities")


class PlanRequest(Request, frozen=True):
    """One of several plans that are attached together."""

    plan_id: str
    feature_quantities: tuple[FeatureQuantity, ...] = ()
    version: float | None = None
    customize: NotYet | None = None
    subscription_id: NotYet | None = None
    entity_id: NotYet | None = None

    def named(self, *, field: str) -> Named:
        return Named(
            self.plan_id,
            quantities_nanos(self.feature_quantities, field=f"{field}.feature_quantities"),
            _version(self.version, field=f"{field}.version"),
        )


class MultiAttachRequest(HolderRequest, frozen=True):
    """`billing.multi_attach`: put a customer on several plans in one step, or say where to pay for them together."""

    plans: tuple[PlanRequest, ...]
    success_url: str | None = None
    redirect_mode: OnlyIfRequired | None = None
    free_trial: NoTrial | UnsetType | None = UNSET
    starts_at: float | None = None
    currency: NotYet | None = None
    invoice_mode: NotYet | None = None
    discounts: NotYet | None = None
    billing_behavior: NotYet | None = None
    billing_cycle_anchor: Literal["now"] | None = None
    checkout_session_params: NotYet | None = None
    new_billing_subscription: NotYet | None = None
    enable_plan_immediately: NotYet | None = None
    customer_data: NotYet | None = None
    entity_data: NotYet | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.plans) <= PLANS_MAX:
            raise InvalidInputs(f"plans: must have 1 to {PLANS_MAX} items")
        if self.success_url is not None:
            check_success_url(self.success_url)

    def named(self) -> list[Named]:
        return [plan.named(field=f"plans[{number}]") for number, plan in enumerate(self.plans)]

    def attach_options(self) -> AttachOptions:
        return AttachOptions(
            starts_at=instant(self.starts_at, field="starts_at"),
            no_trial=self.free_trial is None,
            entity_id=self.entity_id,
            anchor_now=self.billing_cycle_anchor is not None,
        )


class PreviewAttachRequest(AttachRequest, frozen=True):
    """`billing.preview_attach`: what `billing.attach` is asked with."""


class UpdateBillingRequest(HolderRequest, frozen=True):
    """`billing.update`: a plan is cancelled, now or when its period is over, or goes on after all.

    Without a plan and a subscription, the paid plan that the customer is on is meant.
    """

    plan_id: str | None = None
    subscription_id: str | None = None
    cancel_action: CancelAction | None = None
    redirect_mode: OnlyIfRequired | None = None
    feature_quantities: NotYet | None = None
    version: NotYet | None = None
    free_trial: NotYet | None = None
    customize: NotYet | None = None
    invoice_mode: NotYet | None = None
    proration_behavior: NotYet | None = None
    discounts: NotYet | None = None
    remove_discounts: NotYet | None = None
    custom_line_items: NotYet | None = None
    add_lines: NotYet | None = None
    remove_lines: NotYet | None = None
    billing_cycle_anchor: NotYet | None = None
    no_billing_changes: NotYet | None = None
    refund_last_payment: NotYet | None = None
    subscription_params: NotYet | None = None
    recalculate_balances: NotYet | None = None
    carry_over_usages: NotYet | None = None
    license_quantities: NotYet | None = None

    def action(self) -> CancelAction:
        """Return what is to be done; InvalidRequest if nothing is said that can be."""
        if self.cancel_action is None:
            raise InvalidRequest(
                "cancel_action is missing; changing a plan in another way is not supported yet"
            )
        return self.cancel_action


class AttachAnswer(msgspec.Struct, frozen=True):
    """What was done about a customer's plans. Without a URL nothing is left to pay, and it has happened."""

    customer_id: str
    payment_url: str | None


def quantities_nanos(quantities: Sequence[FeatureQuantity], *, field: str) -> dict[str, int]:
    """Return units by feature id; InvalidInputs if a feature is listed twice in the field."""
    named = [quantity.feature_id for quantity in quantities]
    if len(set(named)) != len(named):
        raise InvalidInputs(f"{field}: a feature is listed twice")
    return dict(_quantities(quantities, field))


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


def _version(version: float | None, *, field: str) -> int | None:
    return None if version is None else whole(version, field=field, least=1, most=WHOLE_MAX)


def _quantities(quantities: Sequence[FeatureQuantity], field: str) -> Iterable[tuple[str, int]]:
    for number, quantity in enumerate(quantities):
        if bytes(quantity.quantity):
            yield quantity.feature_id, kept(quantity.quantity, field=f"{field}[{number}].quantity")
