"""What the legacy routes accept: the current request of the same call, and the older spellings of its parts.

Of two spellings of one thing only one may be said, or both alike where they are names.
"""

import re

import msgspec
from msgspec import Raw

from creditgate.api.versions import BETA, Version
from creditgate.api.wire.balances import UpdateBalanceRequest
from creditgate.api.wire.billing import AttachRequest, FeatureQuantity, quantities_nanos
from creditgate.api.wire.controls import ControlsRequest
from creditgate.api.wire.fields import ABSENT, NotYet, Request
from creditgate.api.wire.numbers import amount
from creditgate.api.wire.requests import (
    CheckRequest,
    GetOrCreateRequest,
    HolderRequest,
    TrackRequest,
    metadata,
)
from creditgate.core.amounts import parse_amount
from creditgate.core.ids import check_caller_id
from creditgate.engine.customers import Profile
from creditgate.errors import InvalidInputs, InvalidRequest

_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class CustomerData(Request, frozen=True):
    """What is said of a customer beside a call, in case that there is none yet."""

    name: str | None = None
    email: str | None = None
    fingerprint: str | None = None
    metadata: Raw = ABSENT
    stripe_id: str | None = None
    send_email_receipts: bool | None = None
    auto_enable_plan_id: str | None = None
    billing_controls: ControlsRequest | None = None
    disable_default: NotYet | None = None

    def profile(self) -> Profile:
        return Profile(
            name=self.name,
            email=self.email,
            fingerprint=self.fingerprint,
            stripe_id=self.stripe_id,
            metadata=metadata(self.metadata),
            send_email_receipts=self.send_email_receipts,
            auto_enable_plan_id=self.auto_enable_plan_id,
            controls=self.billing_controls.controls() if self.billing_controls else None,
        )


class LegacyCustomerRequest(GetOrCreateRequest, frozen=True):
    """`POST /v1/customers`: get or create, by `id` or `customer_id`."""

    id: str | None = None
    customer_id: str = ""
    disable_default: NotYet | None = None

    def __post_init__(self) -> None:
        if self.id is not None:
            check_caller_id(self.id, field="id")
        _settle(self, "customer_id", id=self.id)
        super().__post_init__()

    def expanding(self, expand: tuple[str, ...]) -> "LegacyCustomerRequest":
        """Return the request with what its URL asks to be expanded."""
        return msgspec.structs.replace(self, expand=(*self.expand, *expand))


# The current requests refuse `customer_data`; hence the ignored assignments below.


class LegacyCheckRequest(CheckRequest, frozen=True):
    """`POST /v1/check` and `POST /v1/entitled`."""

    required_quantity: Raw = ABSENT  # type: ignore[assignment]
    customer_data: CustomerData | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        if bytes(self.required_balance) and bytes(self.required_quantity):
            raise InvalidInputs("input: Provide either required_balance or required_quantity")

    def required_nanos(self) -> int:
        if bytes(self.required_quantity):
            return amount(self.required_quantity, field="required_quantity", default=0)
        return super().required_nanos()


class LegacyTrackRequest(TrackRequest, frozen=True):
    """`POST /v1/track` and `POST /v1/events`. Up to version 1.4 the value may stand among the properties."""

    customer_data: CustomerData | None = None  # type: ignore[assignment]

    def current(self, version: Version) -> "LegacyTrackRequest":
        """Return the request with its value where it stands today."""
        if version > BETA or bytes(self.value):
            return self
        properties: dict[str, Raw] = msgspec.json.decode(self.properties_text(), type=dict[str, Raw])
        if "value" not in properties:
            return self
        value = _number_in(properties.pop("value"))
        return msgspec.structs.replace(self, value=value, properties=Raw(msgspec.json.encode(properties)))


class SetUsageRequest(HolderRequest, frozen=True):
    """`POST /v1/usage`: how much of a feature is used, not how much more."""

    feature_id: str
    value: Raw
    customer_data: NotYet | None = None

    def current(self) -> UpdateBalanceRequest:
        parse_amount(bytes(self.value), field="value")
        return UpdateBalanceRequest(
            customer_id=self.customer_id,
            entity_id=self.entity_id,
            feature_id=self.feature_id,
            usage=self.value,
        )


class LegacyAttachRequest(AttachRequest, frozen=True):
    """`POST /v1/attach`. The quantity of an option is bought on top of what the plan includes."""

    plan_id: str = ""
    product_id: str | None = None
    product_ids: tuple[str, ...] | None = None
    options: tuple[FeatureQuantity, ...] | None = None
    customer_data: CustomerData | None = None  # type: ignore[assignment]
    enable_product_immediately: NotYet | None = None
    finalize_invoice: NotYet | None = None
    force_checkout: NotYet | None = None
    invoice: NotYet | None = None
    invoice_only: NotYet | None = None
    is_custom: NotYet | None = None
    items: NotYet | None = None
    reward: NotYet | None = None
    setup_payment: NotYet | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.product_ids is not None and len(self.product_ids) != 1:
            raise InvalidRequest("product_ids: only one product at a time is supported")
        only = self.product_ids[0] if self.product_ids else None
        _settle(self, "plan_id", product_id=self.product_id, product_ids=only)
        if self.options and self.feature_quantities:
            raise InvalidInputs("input: Provide either feature_quantities or options")

    def bought_nanos(self) -> dict[str, int]:
        """Units by feature id, without what the plan includes."""
        return quantities_nanos(self.options or (), field="options")


def _settle(request: Request, field: str, **spellings: str | None) -> None:
    """Give the field the value that was said, in one spelling or alike in several."""
    names = {**spellings, field: getattr(request, field)}
    said = {name: text for name, text in names.items() if text}
    if not said:
        raise InvalidInputs(f"input: {' or '.join(names)} must be provided")
    text, *others = set(said.values())
    if others:
        raise InvalidInputs(f"input: {' and '.join(said)} name different things")
    msgspec.structs.force_setattr(request, field, text)


def _number_in(token: Raw) -> Raw:
    """Return a number token, also where it was sent as a string, as many an application did."""
    text = bytes(token)
    if text.startswith(b'"'):
        text = msgspec.json.decode(text, type=str).encode("utf-8")
        if _NUMBER.fullmatch(text) is None:
            raise InvalidInputs("properties.value: must be a number (received string)")
    parse_amount(text, field="properties.value")
    return Raw(text)
