"""The catalog that every call is answered with: read once, kept in memory, replaced when its version moves on.

A worker that does not know a feature or plan reads the catalog again before it says so; every worker looks for a new
version each REFRESH_TICK_S.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from creditgate.balances.store import BalanceStore
from creditgate.core.catalog import Catalog, CatalogDocument, Feature, Plan
from creditgate.core.decisions import Status
from creditgate.core.journal import SYSTEM_PARTITION, Call
from creditgate.engine.attempts import Applied, Attempts
from creditgate.engine.ids import OpIds
from creditgate.engine.keys import NEVER, CallerKey, key_reused
from creditgate.errors import CreditgateError, NotFound, Undecided

REFRESH_TICK_S = 0.5
PUT_ROUNDS_MAX = 8  # rounds lost to other writers of the catalog before we give up

_TYPE, _ID = "catalog", "-"


class Catalogs:
    """The current catalog of one environment."""

    def __init__(self, store: BalanceStore, attempts: Attempts, op_ids: OpIds) -> None:
        self._store = store
        self._attempts = attempts
        self._op_ids = op_ids
        self._current = Catalog(0, CatalogDocument())

    @property
    def current(self) -> Catalog:
        """The catalog as this worker knows it; one call uses one version throughout."""
        return self._current

    async def refresh(self) -> Catalog:
        """Read the catalog again if its version moved on, and return it."""
        version = await self._attempts.ask(lambda: self._store.documents_version(_TYPE))
        if version != self._current.version:
            version, documents = await self._attempts.ask(lambda: self._store.documents(_TYPE))
            document = msgspec.json.decode(documents.get(_ID, b"{}"), type=CatalogDocument)
            self._current = Catalog(version, document)
        return self._current

    async def having(self, ask: Callable[[Catalog], Any]) -> Catalog:
        """Return a catalog of which `ask` does not raise NotFound; reads the catalog again before it gives up."""
        try:
            ask(self._current)
        except NotFound:
            ask(await self.refresh())
        return self._current

    async def find_feature(self, feature_id: str) -> Feature:
        """Return a feature; NotFound `feature_not_found`."""
        return (await self.having(lambda catalog: catalog.feature(feature_id))).feature(feature_id)

    async def find_plan(self, plan_id: str) -> Plan:
        """Return a plan; NotFound `product_not_found`."""
        return (await self.having(lambda catalog: catalog.plan(plan_id))).plan(plan_id)

    async def create_feature(self, feature: Feature, key: CallerKey | None = None) -> bool:
        """Add a feature; returns whether this was a replay.

        Raises Conflict `duplicate_feature_id`, InvalidRequest `invalid_feature`.
        """
        return await self._put(lambda catalog: catalog.with_feature(feature), "features.create", key)

    async def create_plan(self, plan: Plan, key: CallerKey | None = None) -> bool:
        """Add a plan; returns whether this was a replay.

        Raises InvalidRequest `product_already_exists`, InvalidInputs for items that make no sense.
        """
        return await self._put(lambda catalog: catalog.with_plan(plan), "plans.create", key)

    async def _put(
        self, work_out: Callable[[Catalog], CatalogDocument], verb: str, key: CallerKey | None
    ) -> bool:
        for _ in range(PUT_ROUNDS_MAX):
            catalog = await self.refresh()
            try:
                document = work_out(catalog)
            except CreditgateError:
                if await self._write(b"-", NEVER, verb, key) is Status.REPLAYED:
                    return True
                raise
            status = await self._write(msgspec.json.encode(document), catalog.version, verb, key)
            if status is not Status.MOVED_ON:
                await self.refresh()
                return status is Status.REPLAYED
        raise Undecided("The catalog is being changed by too many others at once; nothing was changed")

    async def _write(self, document: bytes, version: int, verb: str, key: CallerKey | None) -> Status:
        call = Call(
            verb=verb,
            op_id=self._op_ids.next(),
            catalog_version=version + 1,
            key=key.digest if key else "",
            fingerprint=key.fingerprint if key else "",
        )
        written = await self._attempts.write(
            SYSTEM_PARTITION,
            call.op_id,
            lambda not_after: self._store.put(
                not_after=not_after,
                call=call,
                document_type=_TYPE,
                document_id=_ID,
                expected_version=version,
                document=document,
            ),
        )
        if isinstance(written, Applied):
            return Status.OK
        if written.status is Status.KEY_REUSED:
            raise key_reused(key)
        return written.status
