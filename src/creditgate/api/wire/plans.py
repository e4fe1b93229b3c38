"""Plans on the wire: what creating one may say, and how one is answered."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from creditgate.api.wire.controls import ControlsAnswer, ControlsRequest, controls_of
from creditgate.api.wire.fields import ABSENT, NotYet, Request, named, only_id
from creditgate.api.wire.numbers import WHOLE_MAX, kept, number, recurrence, rollover_of, whole
from creditgate.api.wire.requests import ResetRequest, metadata
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import (
    BillingInterval,
    BillingMethod,
    Catalog,
    FreeTrial,
    Interval,
    ItemPrice,
    Plan,
    PlanItem,
    PlanPrice,
    Recurrence,
    Rollover,
)
from creditgate.core.controls import BillingControls
from creditgate.core.ids import check_caller_id, check_catalog_id
from creditgate.errors import InvalidInputs, InvalidRequest


class PriceRequest(Request, frozen=True):
    """What the plan itself costs."""

    amount: Raw
    interval: BillingInterval
    interval_count: float = 1
    additional_currencies: NotYet | None = None

    def plan_price(self) -> PlanPrice:
        return PlanPrice(
            amount_nanos=kept(self.amount, field="price.amount"),
            recurrence=recurrence(self.interval, self.interval_count, field="price.interval_count"),
        )


class ItemPriceRequest(Request, frozen=True):
    """What a quantity costs, paid before it is used or after."""

    amount: Raw
    interval: BillingInterval
    billing_method: BillingMethod
    interval_count: float = 1
    billing_units: Raw = ABSENT
    max_purchase: Raw = ABSENT
    tiers: NotYet | None = None
    tier_behavior: NotYet | None = None
    additional_currencies: NotYet | None = None

    def item_price(self, place: str) -> ItemPrice:
        units = kept(self.billing_units, field=f"{place}.billing_units", default=NANOS)
        if units == 0:
            raise InvalidInputs(f"{place}.billing_units: must be > 0")
        return ItemPrice(
            amount_nanos=kept(self.amount, field=f"{place}.amount"),
            recurrence=recurrence(self.interval, self.interval_count, field=f"{place}.interval_count"),
            billing_units_nanos=units,
            billing_method=self.billing_method,
            max_purchase_nanos=self._max_purchase_nanos(place),
        )

    def _max_purchase_nanos(self, place: str) -> int | None:
        if bytes(self.max_purchase) in (b"", b"null"):
            return None
        if self.billing_method == "prepaid":
            raise InvalidRequest(f"{place}.max_purchase: is not supported yet for what is prepaid")
        return kept(self.max_purchase, field=f"{place}.max_purchase")


class RolloverRequest(Request, frozen=True):
    """What of an item survives its reset."""

    expiry_duration_type: Literal["month", "forever"]
    max: Raw = ABSENT
    max_percentage: Raw = ABSENT
    expiry_duration_length: float | None = None

    def rollover(self, place: str) -> Rollover:
        return rollover_of(
            self.expiry_duration_type,
            self.expiry_duration_length,
            self.max,
            self.max_percentage,
            place=place,
            length_name="expiry_duration_length",
        )


class ItemRequest(Request, frozen=True):
    """What the plan gives of one feature."""

    feature_id: str
    included: Raw = ABSENT
    reset: ResetRequest | None = None
    price: ItemPriceRequest | None = None
    unlimited: bool = False
    rollover: RolloverRequest | None = None
    pooled: bool = False
    threshold_billing: NotYet | None = None
    proration: NotYet | None = None
    expiry: NotYet | None = None
    feature_override: NotYet | None = None
    entity_feature_id: str | None = None

    def item(self, place: str) -> PlanItem:
        return PlanItem(
            feature_id=self.feature_id,
            included_nanos=kept(self.included, field=f"{place}.included"),
            reset=self.reset.recurrence(f"{place}.reset") if self.reset else None,
            price=self.price.item_price(f"{place}.price") if self.price else None,
            unlimited=self.unlimited,
            rollover=self.rollover.rollover(f"{place}.rollover") if self.rollover else None,
            entity_feature_id=self.entity_feature_id or None,
            pooled=self.pooled,
        )


class FreeTrialRequest(Request, frozen=True):
    """How long the plan is free at first."""

    duration_length: float
    duration_type: Literal["day", "month", "year"] = "month"
    card_required: bool = False
    on_end: Literal["bill", "revert"] = "bill"

    def trial(self) -> FreeTrial:
        length = recurrence(
            Interval(self.duration_type), self.duration_length, field="free_trial.duration_length"
        )
        return FreeTrial(length, self.card_required, reverts=self.on_end == "revert")


class PlanRequest(Request, frozen=True):
    """What both creating and updating a plan may say. There is no Stripe: `create_in_stripe` asks for nothing."""

    plan_id: str
    description: str | None = None
    group: str | None = None
    add_on: bool | None = None
    auto_enable: bool | None = None
    price: PriceRequest | UnsetType | None = UNSET
    items: tuple[ItemRequest, ...] | None = None
    metadata: Raw = ABSENT
    config: NotYet | None = None
    free_trial: FreeTrialRequest | UnsetType | None = UNSET
    licenses: NotYet | None = None
    billing_controls: ControlsRequest | None = None

    def fields(self) -> dict[str, Any]:
        """Return what was said, by the fields of `Plan`; a price of null is none."""
        said: dict[str, Any] = {
            "description": self.description,
            "group": self.group,
            "add_on": self.add_on,
            "auto_enable": self.auto_enable,
        }
        if self.items is not None:
            said["items"] = tuple(item.item(f"items[{place}]") for place, item in enumerate(self.items))
        if self.billing_controls is not None:
            said["controls"] = self.billing_controls.controls()
        if bytes(self.metadata) not in (b"", b"null"):
            said["metadata"] = metadata(self.metadata)
        said = {field: value for field, value in said.items() if value is not None}
        if self.free_trial is not UNSET:
            said["free_trial"] = self.free_trial.trial() if self.free_trial else None
        if self.price is not UNSET:
            said["price"] = self.price.plan_price() if self.price else None
        return said


class CreatePlanRequest(PlanRequest, frozen=True, kw_only=True):
    """`plans.create`: what a customer on it gets, and what it costs."""

    name: str

    def plan(self) -> Plan:
        """Return the plan as it was asked for; when it is created is for the engine to say."""
        plan_id = check_catalog_id(self.plan_id, field="plan_id")
        return Plan(id=plan_id, name=named(self.name), created_at=0, **self.fields())


class ForceVersion(NotYet):
    """A change of price or items always makes a version."""

    harmless = (True,)


class UpdatePlanRequest(PlanRequest, frozen=True):
    """`plans.update`: what is not said stays as it is. Other items or another price make a new version."""

    name: str | None = None
    archived: bool | None = None
    new_plan_id: str | None = None
    force_version: ForceVersion | None = None
    version: NotYet | None = None
    all_versions: NotYet | None = None
    disable_version: NotYet | None = None
    migration: NotYet | None = None
    base_plan_id: NotYet | None = None
    variants: NotYet | None = None
    update_variant_ids: NotYet | None = None
    update_license_parents: NotYet | None = None
    is_default: NotYet | None = None

    def changes(self) -> dict[str, Any]:
        """Return what is to be different, by the fields of `Plan`."""
        only_id(self.plan_id, self.new_plan_id, field="new_plan_id")
        said: dict[str, Any] = {} if self.archived is None else {"archived": self.archived}
        if self.name is not None:
            said["name"] = named(self.name)
        if self.billing_controls is not None:
            said["controls"] = self.billing_controls.said()
        return self.fields() | said


class GetPlanRequest(Request, frozen=True):
    """`plans.get`: the newest version unless one is named."""

    plan_id: str
    version: float | None = None

    def wanted_version(self) -> int | None:
        return None if self.version is None else whole(self.version, field="version", least=1, most=WHOLE_MAX)


class DeletePlanRequest(Request, frozen=True):
    """`plans.delete` of one that nobody has.

    A plan goes with all its versions, so `all_versions` may be said and changes nothing.
    """

    plan_id: str


class ListPlansRequest(Request, frozen=True):
    """`plans.list`: all of them. With a customer, each says what attaching it would do."""

    customer_id: str | None = None
    include_archived: bool = False
    all_versions: bool = False
    entity_id: str | None = None

    def __post_init__(self) -> None:
        if self.customer_id is not None:
            check_caller_id(self.customer_id, field="customer_id")
        if self.entity_id is not None:
            check_caller_id(self.entity_id, field="entity_id")
            if self.customer_id is None:
                raise InvalidInputs("entity_id: needs a customer_id")


class PriceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The plan's own price."""

    amount: Raw
    interval: Interval
    interval_count: int | UnsetType = UNSET


class ItemPriceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The price of a quantity."""

    amount: Raw
    interval: Interval
    interval_count: int | UnsetType = UNSET
    billing_units: Raw
    billing_method: str
    max_purchase: Raw | None


class IntervalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How often an item resets."""

    interval: Interval
    interval_count: int | UnsetType = UNSET


class PlanRolloverAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What of an item survives its reset."""

    max: Raw | None
    max_percentage: Raw | UnsetType = UNSET
    expiry_duration_type: str
    expiry_duration_length: int | UnsetType = UNSET


class ItemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan gives of one feature."""

    feature_id: str
    included: Raw
    unlimited: bool = False
    pooled: bool = False
    reset: IntervalAnswer | None
    price: ItemPriceAnswer | None
    rollover: PlanRolloverAnswer | UnsetType = UNSET
    entity_feature_id: str | UnsetType = UNSET


class Eligibility(msgspec.Struct, frozen=True, kw_only=True):
    """What attaching the plan would do for one customer."""

    attach_action: str
    status: str | UnsetType = UNSET
    canceling: bool | UnsetType = UNSET


class FreeTrialAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How long a plan is free at first."""

    duration_length: int
    duration_type: str
    card_required: bool
    on_end: str


class PlanAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A plan."""

    id: str
    name: str
    description: str | None
    group: str | None
    version: int
    add_on: bool
    auto_enable: bool
    price: PriceAnswer | None
    items: tuple[ItemAnswer, ...]
    created_at: int
    env: str
    archived: bool
    config: dict[str, bool]
    billing_controls: ControlsAnswer
    metadata: dict[str, Any]
    base_variant_id: str | None
    free_trial: FreeTrialAnswer | UnsetType = UNSET
    customer_eligibility: Eligibility | UnsetType = UNSET


class PlanList(msgspec.Struct, frozen=True):
    """`plans.list`, in the order of creation."""

    list: tuple[PlanAnswer, ...]


def plan_answer(
    plan: Plan, catalog: Catalog, env: str, eligibility: Eligibility | UnsetType = UNSET
) -> PlanAnswer:
    return PlanAnswer(
        id=plan.id,
        name=plan.name,
        description=plan.description,
        group=plan.group or None,
        version=plan.version,
        add_on=plan.add_on,
        auto_enable=plan.auto_enable,
        price=_price_answer(plan.price) if plan.price else None,
        items=tuple(_item_answer(item, catalog) for item in plan.items),
        created_at=plan.created_at,
        env=env,
        archived=plan.archived,
        config={"ignore_past_due": False},
        billing_controls=controls_of(plan.controls or BillingControls(), "plan"),
        metadata=plan.metadata,
        base_variant_id=None,
        free_trial=_free_trial_answer(plan.free_trial) if plan.free_trial else UNSET,
        customer_eligibility=eligibility,
    )


def _free_trial_answer(trial: FreeTrial) -> FreeTrialAnswer:
    return FreeTrialAnswer(
        duration_length=trial.length.count,
        duration_type=trial.length.interval,
        card_required=trial.card_required,
        on_end="revert" if trial.reverts else "bill",
    )


def interval_count(recurrence: Recurrence) -> int | UnsetType:
    """Return the count as the wire says it: not at all where it is 1."""
    return recurrence.count if recurrence.count != 1 else UNSET


def _price_answer(price: PlanPrice) -> PriceAnswer:
    return PriceAnswer(
        amount=number(price.amount_nanos),
        interval=price.recurrence.interval,
        interval_count=interval_count(price.recurrence),
    )


def _item_answer(item: PlanItem, catalog: Catalog) -> ItemAnswer:
    reset = catalog.reset_of(item)
    return ItemAnswer(
        feature_id=item.feature_id,
        included=number(item.included_nanos),
        unlimited=item.unlimited,
        pooled=item.pooled,
        rollover=_rollover_answer(item.rollover) if item.rollover else UNSET,
        reset=IntervalAnswer(interval=reset.interval, interval_count=interval_count(reset))
        if reset
        else None,
        price=_item_price_answer(item.price) if item.price else None,
        entity_feature_id=item.entity_feature_id or UNSET,
    )


def _rollover_answer(rollover: Rollover) -> PlanRolloverAnswer:
    percentage = rollover.max_percentage_nanos
    return PlanRolloverAnswer(
        max=None if rollover.max_nanos is None else number(rollover.max_nanos),
        max_percentage=UNSET if percentage is None else number(percentage),
        expiry_duration_type="forever" if rollover.months is None else "month",
        expiry_duration_length=UNSET if rollover.months is None else rollover.months,
    )


def _item_price_answer(price: ItemPrice) -> ItemPriceAnswer:
    return ItemPriceAnswer(
        amount=number(price.amount_nanos),
        interval=price.recurrence.interval,
        interval_count=interval_count(price.recurrence),
        billing_units=number(price.billing_units_nanos),
        billing_method=price.billing_method,
        max_purchase=number(price.max_purchase_nanos) if price.max_purchase_nanos is not None else None,
    )
