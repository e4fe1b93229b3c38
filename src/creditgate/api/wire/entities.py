"""Entities on the wire: what a customer's balances are shared out among."""

from collections.abc import Set as AbstractSet

import msgspec

from creditgate.api.wire.answers import BalanceAnswer, FlagAnswer
from creditgate.api.wire.controls import ControlsAnswer, ControlsRequest, entity_controls_answer
from creditgate.api.wire.customers import (
    PurchaseAnswer,
    SubscriptionAnswer,
    balance_answers,
    flag_answers,
    purchase_answers,
    subscription_answers,
)
from creditgate.api.wire.fields import NotYet
from creditgate.api.wire.legacy import CustomerData
from creditgate.api.wire.numbers import whole
from creditgate.api.wire.requests import LIMIT_MAX, CustomerRequest, EntityData, position
from creditgate.core.catalog import Catalog
from creditgate.core.customers import Record
from creditgate.core.entities import Entity
from creditgate.core.ids import check_caller_id
from creditgate.engine.entities import NewEntity


class EntityRequest(CustomerRequest, frozen=True):
    """Whatever names an entity. Its id is known only together with that of its customer."""

    entity_id: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_caller_id(self.entity_id, field="entity_id")


class CreateEntityRequest(EntityRequest, frozen=True):
    """`entities.create`: takes one unit of its feature. With `customer_data`, a customer who is not there is made."""

    feature_id: str
    name: str | None = None
    billing_controls: ControlsRequest | None = None
    customer_data: CustomerData | None = None

    def wanted(self) -> NewEntity:
        data = EntityData(feature_id=self.feature_id, name=self.name, billing_controls=self.billing_controls)
        return data.wanted(self.customer_id, self.entity_id)


class GetEntityRequest(EntityRequest, frozen=True):
    """`entities.get`: an entity with what it can draw on."""

    expand: NotYet | None = None


class UpdateEntityRequest(EntityRequest, frozen=True, kw_only=True):
    """`entities.update`. Of billing controls each kind that is named is replaced."""

    billing_controls: ControlsRequest


class DeleteEntityRequest(EntityRequest, frozen=True):
    """`entities.delete`: its unit is free again, and what it holds is gone."""


class ListEntitiesRequest(CustomerRequest, frozen=True):
    """`entities.list`: those of one customer, in the order in which they were made."""

    start_cursor: str = ""
    limit: float = 50
    search: str | None = None
    plans: NotYet | None = None
    subscription_status: NotYet | None = None
    processors: NotYet | None = None

    def page_of(self, entities: tuple[Entity, ...]) -> tuple[tuple[Entity, ...], str | None]:
        """Return one page of those that are asked for, and where the next begins."""
        text = (self.search or "").casefold()
        found = [entity for entity in entities if text in f"{entity.id} {entity.name or ''}".casefold()]
        first = position(self.start_cursor)
        end = first + whole(self.limit, field="limit", least=1, most=LIMIT_MAX)
        return tuple(found[first:end]), str(end) if end < len(found) else None


class EntityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An entity. Plans, balances and flags are its own and, with the scope or source `customer`, the customer's."""

    id: str
    name: str | None
    customer_id: str
    feature_id: str
    created_at: int
    env: str
    subscriptions: tuple[SubscriptionAnswer, ...]
    purchases: tuple[PurchaseAnswer, ...]
    balances: dict[str, BalanceAnswer]
    flags: dict[str, FlagAnswer]
    billing_controls: ControlsAnswer


class EntityList(msgspec.Struct, frozen=True):
    """`entities.list`."""

    list: tuple[EntityAnswer, ...]
    next_cursor: str | None


def entity_answer(
    record: Record, entity: Entity, catalog: Catalog, *, env: str, expand: AbstractSet[str] = frozenset()
) -> EntityAnswer:
    theirs = (None, entity.id)
    return EntityAnswer(
        id=entity.id,
        name=entity.name,
        customer_id=record.customer.id,
        feature_id=entity.feature_id,
        created_at=entity.created_at,
        env=env,
        subscriptions=subscription_answers(record, theirs),
        purchases=purchase_answers(record, theirs),
        balances=balance_answers(record, catalog, expand=expand, entity_id=entity.id),
        flags=flag_answers(record, catalog, expand=expand, entity_id=entity.id),
        billing_controls=entity_controls_answer(record, entity),
    )
