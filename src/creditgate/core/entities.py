"""Entities: what a customer's balances are shared out among, such as seats or workspaces.

An entity may have rows of its own: *slots* of items that a plan of the customer gives to each entity, the rows of plans
that are attached to it, and grants. A call for an entity draws on these and then on the customer's own rows, never on
those of another entity. A call for the customer draws on the customer's own rows and then on the slots, in the order of
the entities' ids, and never on the rows of an entity's plans and grants.
"""

import msgspec

from creditgate.core.controls import NO_CONTROLS, BillingControls
from creditgate.core.ids import decoded, encoded

ENTITIES_MAX = 256
"""Of one customer: they stand in the customer's document, which travels with every change of it."""


class Entity(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entity. While it is there, it takes one unit of `feature_id`."""

    id: str
    feature_id: str
    created_at: int
    name: str | None = None
    controls: BillingControls = NO_CONTROLS


def pool_name(feature_id: str, entity_id: str | None) -> str:
    """Return what a call draws on of a feature, for an entity or for the customer, as scripts and holds know it."""
    return feature_id if entity_id is None else f"{feature_id}/{encoded(entity_id)}"


def split_pool(name: str) -> tuple[str, str | None]:
    """Return feature and entity of a name that `pool_name` made."""
    feature_id, slash, entity = name.partition("/")
    return feature_id, decoded(entity) if slash else None
