"""Features on the wire: what creating one may say, and how one is answered."""

import msgspec
from msgspec import UNSET, Raw, UnsetType

from creditgate.api.wire.fields import NotYet, Request, named
from creditgate.api.wire.numbers import kept, number
from creditgate.core.catalog import CreditCost, Feature, FeatureType
from creditgate.core.ids import check_caller_id, check_catalog_id
from creditgate.errors import InvalidInputs


class OnlyOne(NotYet):
    harmless = (1,)


class OnlySum(NotYet):
    harmless = ("sum",)


class CreditCostRequest(Request, frozen=True):
    """What one unit of a member costs."""

    metered_feature_id: str
    credit_cost: Raw
    billing_units: OnlyOne | None = None
    tiers: NotYet | None = None
    tier_behavior: NotYet | None = None
    dimensions: NotYet | None = None
    multipliers: NotYet | None = None

    def member(self, place: str) -> CreditCost:
        return CreditCost(
            check_catalog_id(self.metered_feature_id, field=f"{place}.metered_feature_id"),
            kept(self.credit_cost, field=f"{place}.credit_cost"),
        )


class Display(Request, frozen=True):
    """What one and what several of a feature are called."""

    singular: str
    plural: str


class CreateFeatureRequest(Request, frozen=True):
    """`features.create`."""

    feature_id: str
    name: str
    type: FeatureType
    consumable: bool | None = None
    credit_schema: tuple[CreditCostRequest, ...] = ()
    event_names: tuple[str, ...] = ()
    display: Display | None = None
    combine: OnlySum | None = None
    model_markups: NotYet | None = None
    default_markup: NotYet | None = None
    provider_markups: NotYet | None = None

    def feature(self) -> Feature:
        """Return the feature; InvalidInputs where the parts do not fit together."""
        for name in self.event_names:
            check_caller_id(name, field="event_names")
        if self.credit_schema and self.type is not FeatureType.CREDIT_SYSTEM:
            raise InvalidInputs("credit_schema: only a credit system has one")
        return Feature(
            id=check_catalog_id(self.feature_id, field="feature_id"),
            name=named(self.name),
            type=self.type,
            consumable=self._is_consumable(),
            event_names=self.event_names,
            credit_schema=tuple(
                cost.member(f"credit_schema[{place}]") for place, cost in enumerate(self.credit_schema)
            ),
            display=msgspec.structs.asdict(self.display) if self.display else None,
        )

    def _is_consumable(self) -> bool:
        if self.type is FeatureType.METERED:
            if self.consumable is None:
                raise InvalidInputs("consumable: Please specify whether the feature is consumable")
            return self.consumable
        is_credit_system = self.type is FeatureType.CREDIT_SYSTEM
        if self.consumable is not None and self.consumable != is_credit_system:
            raise InvalidInputs(f"consumable: must be {str(is_credit_system).lower()} for a {self.type}")
        return is_credit_system


class GetFeatureRequest(Request, frozen=True):
    """`features.get`."""

    feature_id: str


class ListFeaturesRequest(Request, frozen=True):
    """`features.list`, which takes nothing."""


class CreditCostAnswer(msgspec.Struct, frozen=True):
    """One member of a credit system."""

    metered_feature_id: str
    credit_cost: Raw


class FeatureAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A feature; only a credit system has `credit_schema`."""

    id: str
    name: str
    type: FeatureType
    consumable: bool
    credit_schema: tuple[CreditCostAnswer, ...] | UnsetType = UNSET
    event_names: tuple[str, ...]
    archived: bool
    display: dict[str, str] | UnsetType = UNSET


class FeatureList(msgspec.Struct, frozen=True):
    """`features.list`, in the order of creation."""

    list: tuple[FeatureAnswer, ...]


def feature_answer(feature: Feature) -> FeatureAnswer:
    costs = tuple(
        CreditCostAnswer(cost.feature_id, number(cost.cost_nanos)) for cost in feature.credit_schema
    )
    return FeatureAnswer(
        id=feature.id,
        name=feature.name,
        type=feature.type,
        consumable=feature.consumable,
        credit_schema=costs if feature.type is FeatureType.CREDIT_SYSTEM else UNSET,
        event_names=feature.event_names,
        archived=feature.archived,
        display=feature.display or UNSET,
    )
