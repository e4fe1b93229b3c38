"""What each route accepts about customers, balances and events: one struct is the table of one route's parameters.

A parameter of type `NotYet` is one that Autumn has and this sidecar refuses. One that stands nowhere is ignored.
"""

from functools import cache
from typing import Any, Literal
from zoneinfo import available_timezones

import msgspec
from msgspec import UNSET, Raw, UnsetType

from creditgate.api.wire.controls import ControlsRequest
from creditgate.api.wire.fields import ABSENT, NotYet, Request, own_object
from creditgate.api.wire.holds import PROPERTIES_BYTES_MAX, LockRequest, wanted
from creditgate.api.wire.numbers import (
    INSTANT_MAX,
    WHOLE_MAX,
    amount,
    instant,
    kept,
    recurrence,
    rollover_of,
    whole,
)
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import Interval, Recurrence, Rollover
from creditgate.core.controls import NO_CONTROLS
from creditgate.core.customers import CustomerChanges
from creditgate.core.decisions import Mode
from creditgate.core.ids import check_caller_id
from creditgate.core.own import METADATA_BYTES_MAX
from creditgate.engine.entities import NewEntity
from creditgate.errors import InvalidInputs, InvalidRequest

LIMIT_MAX = 1000  # rows of one page

BALANCE_FEATURES = "balances.feature"
FLAG_FEATURES = "flags.feature"
ENTITIES = "entities"


class CustomerRequest(Request, frozen=True):
    """Whatever names a customer."""

    customer_id: str

    def __post_init__(self) -> None:
        check_caller_id(self.customer_id, field="customer_id")


class HolderRequest(CustomerRequest, frozen=True, kw_only=True):
    """Whatever names a customer, or one of its entities."""

    entity_id: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entity_id is not None:
            check_caller_id(self.entity_id, field="entity_id")


class EntityData(Request, frozen=True):
    """What is said of an entity beside a call, in case that there is none yet."""

    feature_id: str = ""
    name: str | None = None
    billing_controls: ControlsRequest | None = None

    def wanted(self, customer_id: str, entity_id: str) -> NewEntity:
        controls = self.billing_controls.controls() if self.billing_controls else NO_CONTROLS
        return NewEntity(customer_id, entity_id, self.feature_id, self.name, controls)


class MakingRequest(HolderRequest, frozen=True, kw_only=True):
    """What makes the entity that it names, if there is none and `entity_data` says what it is."""

    entity_data: EntityData | None = None

    def new_entity(self) -> NewEntity | None:
        """Return the entity to make, if there is none; InvalidInputs where it has no id."""
        return _new_entity(self.customer_id, self.entity_id, self.entity_data)


class CheckRequest(MakingRequest, frozen=True):
    """`balances.check`: whether the customer can afford so many units now."""

    feature_id: str = ""
    required_balance: Raw = ABSENT
    send_event: bool = False
    properties: Raw = ABSENT
    lock: LockRequest | None = None
    product_id: NotYet | None = None
    required_quantity: NotYet | None = None
    with_preview: NotYet | None = None
    skip_event: NotYet | None = None
    customer_data: NotYet | None = None
    expand: NotYet | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.feature_id:
            raise InvalidInputs("input: Must provide either product_id or feature_id")

    @property
    def takes(self) -> bool:
        """Whether it takes what it allows, for good or with a lock."""
        return self.send_event or wanted(self.lock) is not None

    def required_nanos(self) -> int:
        """Units of the feature; 1 unless it is said."""
        return amount(self.required_balance, field="required_balance", default=NANOS)

    def properties_text(self) -> str:
        return own_object(self.properties, field="properties", bytes_max=PROPERTIES_BYTES_MAX)


class UsageRequest(MakingRequest, frozen=True):
    """What was used."""

    feature_id: str | None = None
    event_name: str | None = None
    value: Raw = ABSENT
    properties: Raw = ABSENT
    timestamp: float | None = None
    overage_behavior: Mode = Mode.CAP
    idempotency_key: str | None = None
    skip_event: NotYet | None = None
    customer_data: NotYet | None = None
    expand: NotYet | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.feature_id) == bool(self.event_name):
            raise InvalidInputs("input: Either feature_id or event_name must be provided")
        if self.event_name and self.overage_behavior is Mode.REJECT:
            raise InvalidRequest('overage_behavior "reject" is not supported with event_name; use feature_id')

    def value_nanos(self) -> int:
        """Units of the feature; 1 unless it is said, negative to give back."""
        return amount(self.value, field="value", default=NANOS)

    def occurred_at(self) -> int | None:
        return instant(self.timestamp, field="timestamp")

    def properties_text(self) -> str:
        return own_object(self.properties, field="properties", bytes_max=PROPERTIES_BYTES_MAX)


class TrackRequest(UsageRequest, frozen=True):
    """`balances.track`: take what was used. `async` may be said and changes nothing: the answer has the balance."""

    lock: LockRequest | None = None


class BatchItem(UsageRequest, frozen=True):
    """One item of `balances.batch_track`: a track, with an `idempotency_key` of its own if it has one."""

    lock: NotYet | None = None
    entity_data: NotYet | None = None  # type: ignore[assignment]


class ExpandingRequest(CustomerRequest, frozen=True):
    """What is answered with a customer."""

    expand: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.expand:
            if name not in (BALANCE_FEATURES, FLAG_FEATURES, ENTITIES):
                raise InvalidRequest(f"expand {name} is not supported yet")


class GetCustomerRequest(ExpandingRequest, frozen=True):
    """`customers.get`: a customer with balances and plans, as of now."""


class GetOrCreateRequest(ExpandingRequest, frozen=True):
    """`customers.get_or_create`: the customer, made with the plans that enable themselves if it was not there; and an
    entity, where `entity_data` says what it is.

    There is no Stripe behind it, so `create_in_stripe` asks for nothing.
    """

    name: str | None = None
    email: str | None = None
    fingerprint: str | None = None
    metadata: Raw = ABSENT
    stripe_id: str | None = None
    send_email_receipts: bool | None = None
    auto_enable_plan_id: str | None = None
    time_zone: str | None = None
    currency: NotYet | None = None
    billing_controls: ControlsRequest | None = None
    billing_details: NotYet | None = None
    config: NotYet | None = None
    processors: NotYet | None = None
    entity_id: str | None = None
    entity_data: EntityData | None = None
    with_autumn_id: NotYet | None = None
    internal_options: NotYet | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entity_id is not None:
            check_caller_id(self.entity_id, field="entity_id")

    def new_entity(self) -> NewEntity | None:
        """Return the entity to make with the customer, if there is none."""
        return _new_entity(self.customer_id, self.entity_id, self.entity_data)

    def own_metadata(self) -> dict[str, Any]:
        return metadata(self.metadata)

    def zone(self) -> str | None:
        return time_zone(self.time_zone)


class UpdateCustomerRequest(CustomerRequest, frozen=True):
    """`customers.update`. What is not said stays as it is; metadata is merged, and a null takes its name out.

    Of billing controls each kind that is named is replaced.
    """

    name: str | UnsetType | None = UNSET
    email: str | UnsetType | None = UNSET
    fingerprint: str | UnsetType | None = UNSET
    stripe_id: str | UnsetType | None = UNSET
    send_email_receipts: bool | None = None
    metadata: Raw = ABSENT
    billing_controls: ControlsRequest | None = None
    new_customer_id: NotYet | None = None
    time_zone: NotYet | None = None
    currency: NotYet | None = None
    billing_details: NotYet | None = None
    config: NotYet | None = None
    processors: NotYet | None = None

    def changes(self) -> CustomerChanges:
        """Return what is to be different."""
        said: dict[str, Any] = {
            "name": self.name,
            "email": self.email,
            "fingerprint": self.fingerprint,
            "stripe_id": self.stripe_id,
        }
        if self.send_email_receipts is not None:
            said["send_email_receipts"] = self.send_email_receipts
        return CustomerChanges(
            fields={field: value for field, value in said.items() if value is not UNSET},
            metadata=metadata(self.metadata),
            controls=self.billing_controls.said() if self.billing_controls else {},
        )


class DeleteCustomerRequest(CustomerRequest, frozen=True):
    """`customers.delete`."""

    delete_in_stripe: NotYet | None = None


class AdvanceTestClockRequest(CustomerRequest, frozen=True):
    """`customers.advance_test_clock`: let time pass for one customer, in a test environment."""

    frozen_time: float

    def frozen_ms(self) -> int:
        return whole(self.frozen_time, field="frozen_time", least=0, most=INSTANT_MAX)


class ResetRequest(Request, frozen=True):
    """How often something starts again."""

    interval: Interval
    interval_count: float = 1

    def recurrence(self, field: str) -> Recurrence:
        return recurrence(self.interval, self.interval_count, field=f"{field}.interval_count")


class GrantRolloverRequest(Request, frozen=True):
    """What of a grant survives its reset."""

    length: float
    duration: Literal["month", "forever"] = "month"
    max: Raw = ABSENT
    max_percentage: Raw = ABSENT

    def rollover(self) -> Rollover:
        return rollover_of(
            self.duration, self.length, self.max, self.max_percentage, place="rollover", length_name="length"
        )


class GrantRequest(HolderRequest, frozen=True):
    """`balances.create`: give a customer, or an entity, a balance that no plan gives."""

    feature_id: str
    included_grant: Raw = ABSENT
    reset: ResetRequest | None = None
    expires_at: float | None = None
    next_reset_at: float | None = None
    balance_id: str | None = None
    unlimited: bool = False
    rollover: GrantRolloverRequest | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balance_id is not None:
            check_caller_id(self.balance_id, field="balance_id")

    def included_nanos(self) -> int:
        is_said = bytes(self.included_grant) not in (b"", b"null")
        if is_said == self.unlimited:
            raise InvalidInputs("input: Must provide either included_grant or unlimited")
        if self.unlimited:
            return 0
        return kept(self.included_grant, field="included_grant")

    def expires_ms(self) -> int | None:
        return instant(self.expires_at, field="expires_at")

    def next_reset_ms(self) -> int | None:
        return instant(self.next_reset_at, field="next_reset_at")


def _new_entity(customer_id: str, entity_id: str | None, data: EntityData | None) -> NewEntity | None:
    if data is None or data == EntityData():
        return None
    if entity_id is None:
        raise InvalidInputs("entity_data: needs an entity_id")
    if not data.feature_id:
        raise InvalidInputs("entity_data.feature_id: says what the entity is, and cannot be left out")
    return data.wanted(customer_id, entity_id)


def position(cursor: str) -> int:
    """Return the position in a list that a cursor stands for."""
    if not cursor:
        return 0
    if not cursor.isascii() or not cursor.isdecimal():
        raise InvalidInputs("start_cursor: is not a cursor that was given")
    return min(int(cursor[:16]), WHOLE_MAX)


def metadata(token: Raw) -> dict[str, Any]:
    """Return the metadata of a customer or plan; InvalidInputs above 16 KiB."""
    text = own_object(token, field="metadata", bytes_max=METADATA_BYTES_MAX)
    return msgspec.json.decode(text, type=dict[str, Any])


def time_zone(name: str | None, *, field: str = "time_zone") -> str | None:
    """Return the name of a time zone as it was said; InvalidInputs if it is none of the IANA database."""
    if name is not None and name not in _zones():
        raise InvalidInputs(f"{field}: must be an IANA time zone such as Europe/Berlin")
    return name


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
