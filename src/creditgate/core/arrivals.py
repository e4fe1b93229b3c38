"""A customer who comes from another system, in our words: what the source says of one."""

from typing import NamedTuple

import msgspec

from creditgate.core.catalog import Feature, FeatureType, ItemPrice, Recurrence
from creditgate.core.customers import Customer, Flag


class Lot(msgspec.Struct, frozen=True):
    """One balance at the source, by the name that callers know it by there. `left_nanos` may be below zero.

    `rolled`: what rolled over from a balance of the feature before it in the list.
    """

    id: str
    feature_id: str
    included_nanos: int
    prepaid_nanos: int
    left_nanos: int
    unlimited: bool = False
    rolled: bool = False
    plan_id: str | None = None
    reset: Recurrence | None = None
    resets_at: int | None = None
    expires_at: int | None = None
    price: ItemPrice | None = None


class Holding(msgspec.Struct, frozen=True):
    """A plan that the customer is on at the source, or a one-off plan that was bought there (which has no id)."""

    plan_id: str
    started_at: int
    id: str | None = None
    period_start: int | None = None
    canceled_at: int | None = None
    expires_at: int | None = None
    quantity: int = 1


class Arrival(msgspec.Struct, frozen=True):
    """All that the source says of a customer. `lacks` is what it says and cannot be said here, in words."""

    customer: Customer
    holdings: tuple[Holding, ...] = ()
    lots: tuple[Lot, ...] = ()
    flags: tuple[Flag, ...] = ()
    lacks: tuple[str, ...] = ()


class Taken(NamedTuple):
    """The customer's document as the source has it; who owns what each plan gave, and the plans that are gone."""

    customer: Customer
    owners: dict[str, list[str]]
    closed: set[str]


def not_here(feature_id: str, feature: Feature | None) -> str:
    """Return in words why what the source has of a feature cannot be taken."""
    if feature is None:
        return f"feature {feature_id} is not in the catalog here"
    kind = "on or off" if feature.type is FeatureType.BOOLEAN else "metered"
    return f"feature {feature_id} is {kind} here, and not at the source"
