"""Features and plans."""

import time
from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from creditgate.api.calls import Answer, Call, Verb, caller_key
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import Success, encode
from creditgate.api.wire.customers import eligibility
from creditgate.api.wire.features import (
    CreateFeatureRequest,
    FeatureAnswer,
    FeatureList,
    ListFeaturesRequest,
    NamedFeatureRequest,
    UpdateFeatureRequest,
    feature_answer,
)
from creditgate.api.wire.fields import read
from creditgate.api.wire.plans import (
    CreatePlanRequest,
    DeletePlanRequest,
    GetPlanRequest,
    ListPlansRequest,
    PlanAnswer,
    PlanList,
    UpdatePlanRequest,
    plan_answer,
)
from creditgate.core.customers import Record
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.customers import Customers
from creditgate.engine.keys import CallerKey
from creditgate.errors import NotFound


class CatalogRoutes:
    """The verbs of features and plans."""

    def __init__(
        self, catalogs: Catalogs, customers: Customers, keys: RepeatedKeys, settings: ApiSettings
    ) -> None:
        self._catalogs = catalogs
        self._customers = customers
        self._keys = keys
        self._settings = settings

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "features.create": Verb(self.create_feature, CreateFeatureRequest, FeatureAnswer),
            "features.get": Verb(self.get_feature, NamedFeatureRequest, FeatureAnswer),
            "features.list": Verb(self.list_features, ListFeaturesRequest, FeatureList),
            "features.update": Verb(self.update_feature, UpdateFeatureRequest, FeatureAnswer),
            "features.delete": Verb(self.delete_feature, NamedFeatureRequest, Success),
            "plans.create": Verb(self.create_plan, CreatePlanRequest, PlanAnswer),
            "plans.get": Verb(self.get_plan, GetPlanRequest, PlanAnswer),
            "plans.list": Verb(self.list_plans, ListPlansRequest, PlanList),
            "plans.update": Verb(self.update_plan, UpdatePlanRequest, PlanAnswer),
            "plans.delete": Verb(self.delete_plan, DeletePlanRequest, Success),
        }

    async def create_feature(self, call: Call) -> Answer:
        feature = read(CreateFeatureRequest, call.body).feature()
        key = caller_key("create_feature", call, feature)
        is_replay = await self._keys.once(key, self._catalogs.create_feature(feature, key))
        return await self._written_feature(feature.id, key, is_replay)

    async def update_feature(self, call: Call) -> Answer:
        request = read(UpdateFeatureRequest, call.body)
        feature_id, changes = request.feature_id, request.changes()
        key = caller_key("update_feature", call, feature_id, changes)
        is_replay = await self._keys.once(key, self._catalogs.update_feature(feature_id, changes, key))
        return await self._written_feature(feature_id, key, is_replay)

    async def delete_feature(self, call: Call) -> Answer:
        feature_id = read(NamedFeatureRequest, call.body).feature_id
        key = caller_key("delete_feature", call, feature_id)
        is_replay = await self._keys.once(key, self._catalogs.delete_feature(feature_id, key))
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))

    async def get_feature(self, call: Call) -> Answer:
        request = read(NamedFeatureRequest, call.body)
        return Answer(encode(feature_answer(await self._catalogs.find_feature(request.feature_id))))

    async def list_features(self, call: Call) -> Answer:
        read(ListFeaturesRequest, call.body)
        features = self._catalogs.current.document.features
        return Answer(encode(FeatureList(tuple(feature_answer(feature) for feature in features))))

    async def create_plan(self, call: Call) -> Answer:
        plan = read(CreatePlanRequest, call.body).plan()
        key = caller_key("create_plan", call, plan)
        plan = msgspec.structs.replace(plan, created_at=_now_ms())
        is_replay = await self._keys.once(key, self._catalogs.create_plan(plan, key))
        return await self._written_plan(plan.id, key, is_replay)

    async def update_plan(self, call: Call) -> Answer:
        request = read(UpdatePlanRequest, call.body)
        plan_id, changes = request.plan_id, request.changes()
        key = caller_key("update_plan", call, plan_id, changes)
        is_replay = await self._keys.once(key, self._catalogs.update_plan(plan_id, changes, key))
        return await self._written_plan(plan_id, key, is_replay)

    async def delete_plan(self, call: Call) -> Answer:
        plan_id = read(DeletePlanRequest, call.body).plan_id
        key = caller_key("delete_plan", call, plan_id)
        is_replay = await self._keys.once(key, self._catalogs.delete_plan(plan_id, key))
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))

    async def get_plan(self, call: Call) -> Answer:
        request = read(GetPlanRequest, call.body)
        plan = await self._catalogs.find_plan(request.plan_id, request.wanted_version())
        return Answer(encode(plan_answer(plan, self._catalogs.current, self._settings.env_on_wire)))

    async def list_plans(self, call: Call) -> Answer:
        request = read(ListPlansRequest, call.body)
        record = await self._record_if_any(request.customer_id)
        catalog, env = self._catalogs.current, self._settings.env_on_wire
        answers = (
            plan_answer(
                version,
                catalog,
                env,
                eligibility(record.customer, catalog, version, record.now, request.entity_id)
                if record
                else UNSET,
            )
            for plan in catalog.document.plans
            if request.include_archived or not plan.archived
            for version in (catalog.versions(plan.id) if request.all_versions else (plan,))
        )
        return Answer(encode(PlanList(tuple(answers))))

    async def _written_feature(self, feature_id: str, key: CallerKey | None, is_replay: bool) -> Answer:
        """Answer with the feature as it is now."""
        feature = await self._catalogs.find_feature(feature_id)
        return Answer(encode(feature_answer(feature)), headers=self._keys.headers(key, is_replay))

    async def _written_plan(self, plan_id: str, key: CallerKey | None, is_replay: bool) -> Answer:
        """Answer with the plan as it is now."""
        plan = await self._catalogs.find_plan(plan_id)
        answer = plan_answer(plan, self._catalogs.current, self._settings.env_on_wire)
        return Answer(encode(answer), headers=self._keys.headers(key, is_replay))

    async def _record_if_any(self, customer_id: str | None) -> Record | None:
        """A page may list plans before it has made its customer, so an unknown one is no error."""
        try:
            return await self._customers.get(customer_id) if customer_id is not None else None
        except NotFound:
            return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
