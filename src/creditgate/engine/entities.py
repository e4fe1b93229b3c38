"""Entities: what a customer's balances are shared out among, such as seats. Made, read, limited and deleted."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from creditgate.core.catalog_checks import check_controls, check_entity_feature
from creditgate.core.changes import Change, profile_change
from creditgate.core.controls import NO_CONTROLS, BillingControls
from creditgate.core.customers import Record
from creditgate.core.entities import Entity
from creditgate.core.entity_changes import creation, deletion, owners
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customers import Customers, Profile
from creditgate.engine.ids import mint
from creditgate.engine.keys import CallerKey
from creditgate.engine.writer import CustomerWriter
from creditgate.errors import Conflict

_CREATE = "entities.create"
_DELETE = "entities.delete"


class NewEntity(NamedTuple):
    """An entity as it is asked for."""

    customer_id: str
    id: str
    feature_id: str
    name: str | None = None
    controls: BillingControls = NO_CONTROLS


class Entities:
    """The entities of all customers of one environment."""

    def __init__(self, writer: CustomerWriter, customers: Customers, catalogs: Catalogs) -> None:
        self._writer = writer
        self._customers = customers
        self._catalogs = catalogs

    async def get(self, customer_id: str, entity_id: str) -> Record:
        """Return the record of the customer who has the entity; NotFound for the customer or the entity."""
        record = await self._customers.get(customer_id)
        record.customer.entity(entity_id)
        return record

    async def create(
        self, wanted: NewEntity, *, profile: Profile | None = None, key: CallerKey | None = None
    ) -> bool:
        """Make an entity, and with a profile its customer if there is none; returns whether this was a replay.

        Raises NotFound `customer_not_found` or `feature_not_found`, InvalidInputs for a feature that is used up, and
        what `core.entity_changes.creation` does.
        """
        catalog = self._catalogs.current
        if wanted.feature_id not in catalog.features:
            catalog = await self._catalogs.refresh()
        check_entity_feature(wanted.feature_id, catalog, field="feature_id")
        await self._catalogs.having(lambda catalog: check_controls(wanted.controls, catalog))
        await self._catalogs.giving(feature_ids=[wanted.feature_id])
        if profile is not None:
            await self._customers.get_or_create(wanted.customer_id, profile)
        if await self._writer.is_replay(wanted.customer_id, _CREATE, key):
            return True
        entity = Entity(wanted.id, wanted.feature_id, 0, wanted.name, wanted.controls)
        customer = (await self._customers.get(wanted.customer_id)).customer
        catalog = await self._catalogs.having(
            lambda catalog: [catalog.plan(owner.plan_id, owner.plan_version) for owner in owners(customer)]
        )
        outcome = await self._writer.change(
            wanted.customer_id,
            lambda record: creation(record, entity, catalog, mint),
            verb=_CREATE,
            catalog_version=catalog.version,
            key=key,
        )
        return outcome.is_replay

    async def get_or_create(self, wanted: NewEntity) -> None:
        """Make the entity unless it is there, whoever makes it."""
        record = await self._customers.get(wanted.customer_id)
        if any(entity.id == wanted.id for entity in record.customer.entities):
            return
        try:
            await self.create(wanted)
        except Conflict as error:
            if error.code != "entity_already_exists":
                raise

    async def update(
        self, customer_id: str, entity_id: str, said: Mapping[str, Any], key: CallerKey | None = None
    ) -> bool:
        """Replace the kinds of controls that are said; returns whether this was a replay.

        Raises NotFound for the customer, the entity or a feature that the controls name.
        """
        controls = msgspec.structs.replace(NO_CONTROLS, **said)
        await self._catalogs.having(lambda catalog: check_controls(controls, catalog))

        def work_out(record: Record) -> Change | None:
            entity = record.customer.entity(entity_id)
            changed = msgspec.structs.replace(
                entity, controls=msgspec.structs.replace(entity.controls, **said)
            )
            if changed == entity:
                return None
            entities = tuple(changed if each.id == entity_id else each for each in record.customer.entities)
            return profile_change(record, msgspec.structs.replace(record.customer, entities=entities))

        outcome = await self._writer.change(customer_id, work_out, verb="entities.update", key=key)
        return outcome.is_replay

    async def delete(self, customer_id: str, entity_id: str, key: CallerKey | None = None) -> bool:
        """Close what the entity holds, free its unit and forget it; returns whether this was a replay. NotFound."""
        if await self._writer.is_replay(customer_id, _DELETE, key):
            return True
        outcome = await self._writer.change(
            customer_id, lambda record: deletion(record, entity_id), verb=_DELETE, key=key
        )
        return outcome.is_replay
