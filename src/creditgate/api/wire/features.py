"""Features on the wire: what creating one may say, and how one is answered."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from creditgate.api.wire.fields import NotYet, Request, named, only_id
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


class AllowUpToRequest(Request, frozen=True):
    """So many units of each customer in one outage."""

    allow_up_to: Raw

    def nanos(self) -> int:
        return kept(self.allow_up_to, field="on_unavailable.allow_up_to")


class FeatureRequest(Request, frozen=True):
    """What both creating and updating a feature may say."""

    feature_id: str
    consumable: bool | None = None
    credit_schema: tuple[CreditCostRequest, ...] | None = None
    event_names: tuple[str, ...] | None = None
    display: Display | None = None
    combine: OnlySum | None = None
    model_markups: NotYet | None = None
    default_markup: NotYet | None = None
    provider_markups: NotYet | None = None
    on_unavailable: Literal["deny", "allow"] | AllowUpToRequest | None = None

    def fields(self) -> dict[str, Any]:
        """Return what was said, by the fields of `Feature`."""
        said: dict[str, Any] = {"consumable": self.consumable, "event_names": self.event_names}
        for name in self.event_names or ():
            check_caller_id(name, field="event_names")
        if self.credit_schema is not None:
            said["credit_schema"] = tuple(
                cost.member(f"credit_schema[{place}]") for place, cost in enumerate(self.credit_schema)
            )
        if self.display is not None:
            said["display"] = msgspec.structs.asdict(self.display)
        return {field: value for field, value in said.items() if value is not None} | self._fallback()

    def _fallback(self) -> dict[str, Any]:
        said = self.on_unavailable
        if said is None:
            return {}
        if isinstance(said, AllowUpToRequest):
            return {"fallback_nanos": said.nanos()}
        return {"fallback_nanos": None if said == "allow" else 0}


class CreateFeatureRequest(FeatureRequest, frozen=True, kw_only=True):
    """`features.create`: something to meter, an on/off feature, or a credit system."""

    name: str
    type: FeatureType

    def feature(self) -> Feature:
        """Return the feature; InvalidInputs where the parts do not fit together."""
        said = self.fields() | {"consumable": self._is_consumable()}
        feature_id = check_catalog_id(self.feature_id, field="feature_id")
        return Feature(id=feature_id, name=named(self.name), type=self.type, **said)

    def _is_consumable(self) -> bool:
        if self.type is FeatureType.METERED:
            if self.consumable is None:
                raise InvalidInputs("consumable: Please specify whether the feature is consumable")
            return self.consumable
        return self.type is FeatureType.CREDIT_SYSTEM if self.consumable is None else self.consumable


class UpdateFeatureRequest(FeatureRequest, frozen=True):
    """`features.update`: what is not said stays as it is."""

    name: str | None = None
    type: FeatureType | None = None
    archived: bool | None = None
    new_feature_id: str | None = None

    def changes(self) -> dict[str, Any]:
        """Return what is to be different, by the fields of `Feature`."""
        only_id(self.feature_id, self.new_feature_id, field="new_feature_id")
        said: dict[str, Any] = {"type": self.type, "archived": self.archived}
        if self.name is not None:
            said["name"] = named(self.name)
        return self.fields() | {field: value for field, value in said.items() if value is not None}


class NamedFeatureRequest(Request, frozen=True):
    """`features.get`, and `features.delete` of one that nothing uses."""

    feature_id: str


class ListFeaturesRequest(Request, frozen=True):
    """`features.list`: all of them; takes nothing."""


class CreditCostAnswer(msgspec.Struct, frozen=True):
    """One member of a credit system."""

    metered_feature_id: str
    credit_cost: Raw


class AllowUpToAnswer(msgspec.Struct, frozen=True):
    """So many units of each customer in one outage."""

    allow_up_to: Raw


class FeatureAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A feature; only a credit system has `credit_schema`. Without `on_unavailable` it is `deny`."""

    id: str
    name: str
    type: FeatureType
    consumable: bool
    credit_schema: tuple[CreditCostAnswer, ...] | UnsetType = UNSET
    event_names: tuple[str, ...]
    archived: bool
    display: dict[str, str] | UnsetType = UNSET
    on_unavailable: Literal["allow"] | AllowUpToAnswer | UnsetType = UNSET


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
        on_unavailable=_on_unavailable(feature),
    )


def _on_unavailable(feature: Feature) -> Literal["allow"] | AllowUpToAnswer | UnsetType:
    if feature.fallback_nanos is None:
        return "allow"
    return AllowUpToAnswer(number(feature.fallback_nanos)) if feature.fallback_nanos else UNSET
