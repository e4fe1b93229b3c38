"""Entities of customers."""

from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb, caller_key
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import Success, encode
from creditgate.api.wire.entities import (
    CreateEntityRequest,
    DeleteEntityRequest,
    EntityAnswer,
    EntityList,
    EntityRequest,
    GetEntityRequest,
    ListEntitiesRequest,
    UpdateEntityRequest,
    entity_answer,
)
from creditgate.api.wire.fields import read
from creditgate.core.customers import Record
from creditgate.core.entities import Entity
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customers import Customers
from creditgate.engine.entities import Entities


class EntityRoutes:
    """The verbs of entities."""

    def __init__(
        self,
        entities: Entities,
        customers: Customers,
        catalogs: Catalogs,
        keys: RepeatedKeys,
        settings: ApiSettings,
    ) -> None:
        self._entities = entities
        self._customers = customers
        self._catalogs = catalogs
        self._keys = keys
        self._settings = settings

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "entities.create": Verb(self.create, CreateEntityRequest, EntityAnswer),
            "entities.get": Verb(self.get, GetEntityRequest, EntityAnswer),
            "entities.list": Verb(self.list_entities, ListEntitiesRequest, EntityList),
            "entities.update": Verb(self.update, UpdateEntityRequest, EntityAnswer),
            "entities.delete": Verb(self.delete, DeleteEntityRequest, Success),
        }

    async def create(self, call: Call) -> Answer:
        request = read(CreateEntityRequest, call.body)
        wanted = request.wanted()
        profile = request.customer_data.profile() if request.customer_data else None
        key = caller_key("create_entity", call, wanted, profile)
        is_replay = await self._keys.once(key, self._entities.create(wanted, profile=profile, key=key))
        return await self._entity(request, self._keys.headers(key, is_replay))

    async def get(self, call: Call) -> Answer:
        return await self._entity(read(GetEntityRequest, call.body), {})

    async def list_entities(self, call: Call) -> Answer:
        request = read(ListEntitiesRequest, call.body)
        record = await self._customers.get(request.customer_id)
        page, next_cursor = request.page_of(record.customer.entities)
        answers = tuple(self._answer(record, entity) for entity in page)
        return Answer(encode(EntityList(answers, next_cursor)))

    async def update(self, call: Call) -> Answer:
        request = read(UpdateEntityRequest, call.body)
        said = request.billing_controls.said()
        key = caller_key("update_entity", call, request.customer_id, request.entity_id, said)
        work = self._entities.update(request.customer_id, request.entity_id, said, key)
        return await self._entity(request, self._keys.headers(key, await self._keys.once(key, work)))

    async def delete(self, call: Call) -> Answer:
        request = read(DeleteEntityRequest, call.body)
        key = caller_key("delete_entity", call, request.customer_id, request.entity_id)
        work = self._entities.delete(request.customer_id, request.entity_id, key)
        is_replay = await self._keys.once(key, work)
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))

    async def _entity(self, request: EntityRequest, headers: Mapping[str, str]) -> Answer:
        record = await self._entities.get(request.customer_id, request.entity_id)
        entity = record.customer.entity(request.entity_id)
        return Answer(encode(self._answer(record, entity)), headers=headers)

    def _answer(self, record: Record, entity: Entity) -> EntityAnswer:
        return entity_answer(record, entity, self._catalogs.current, env=self._settings.env_on_wire)
