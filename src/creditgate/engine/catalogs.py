"""The catalog that every call is answered with: read once, kept in memory, replaced when its version moves on.

A worker that does not know a feature or plan reads the catalog again before it says so. Every worker is woken by each
change, and a change is answered when all have read it (see workers.py).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from redis.exceptions import RedisError

from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.catalog import Catalog, CatalogDocument, Feature, Plan
from creditgate.core.catalog_changes import FileChanges, changes_by
from creditgate.core.catalog_edits import (
    with_feature,
    with_feature_changed,
    with_given,
    with_plan,
    with_plan_changed,
    without_feature,
    without_plan,
)
from creditgate.core.catalog_file import CatalogFile
from creditgate.core.decisions import Status
from creditgate.core.journal import SYSTEM_PARTITION
from creditgate.engine.attempts import Attempts
from creditgate.engine.documents import DOCUMENT_ID, PUT_ROUNDS_MAX, SystemDocument
from creditgate.engine.ids import OpIds
from creditgate.engine.keys import CallerKey
from creditgate.engine.stepping import in_task
from creditgate.engine.workers import HEARTBEAT_TICK_MS, Workers
from creditgate.errors import CreditgateError, NotFound, Undecided
from creditgate.telemetry import logger

ANNOUNCING_S = 5.0  # at the start of a worker, which nobody waits for yet

_TYPE = "catalog"

log = logger(__name__)


class Catalogs:
    """The current catalog of one environment."""

    def __init__(
        self,
        store: BalanceStore,
        stream: JournalStream,
        attempts: Attempts,
        op_ids: OpIds,
        workers: Workers,
    ) -> None:
        self._store = store
        self._stream = stream
        self._attempts = attempts
        self._workers = workers
        self._document = SystemDocument(store, attempts, op_ids, _TYPE)
        self._current = Catalog(0, CatalogDocument())

    @property
    def current(self) -> Catalog:
        """The catalog as this worker knows it; one call uses one version throughout."""
        return self._current

    async def refresh(self) -> Catalog:
        """Read the catalog again if its version moved on, and return it."""
        await in_task()
        version = await self._attempts.ask_version(
            lambda: self._store.documents_version(_TYPE), known=self._current.version
        )
        if version != self._current.version:
            version, documents = await self._attempts.ask(lambda: self._store.documents(_TYPE))
            document = msgspec.json.decode(documents.get(DOCUMENT_ID, b"{}"), type=CatalogDocument)
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

    async def find_plan(self, plan_id: str, version: int | None = None) -> Plan:
        """Return a plan, the newest version unless one is named; NotFound `product_not_found`."""
        return (await self.having(lambda catalog: catalog.plan(plan_id, version))).plan(plan_id, version)

    async def create_feature(self, feature: Feature, key: CallerKey | None = None) -> bool:
        """Add a feature; returns whether this was a replay. Raises what `with_feature` does, and KeyReused."""
        return await self._change("features.create", lambda catalog: with_feature(catalog, feature), key)

    async def create_plan(self, plan: Plan, key: CallerKey | None = None) -> bool:
        """Add a plan; returns whether this was a replay. Raises what `with_plan` does, and KeyReused."""
        return await self._change("plans.create", lambda catalog: with_plan(catalog, plan), key)

    async def update_feature(
        self, feature_id: str, changes: Mapping[str, Any], key: CallerKey | None = None
    ) -> bool:
        """Change fields of a feature; returns whether this was a replay."""
        return await self._change(
            "features.update", lambda catalog: with_feature_changed(catalog, feature_id, changes), key
        )

    async def update_plan(
        self, plan_id: str, changes: Mapping[str, Any], key: CallerKey | None = None
    ) -> bool:
        """Change fields of a plan; returns whether this was a replay. Customers keep the version that they have."""
        return await self._change(
            "plans.update", lambda catalog: with_plan_changed(catalog, plan_id, changes), key
        )

    async def delete_feature(self, feature_id: str, key: CallerKey | None = None) -> bool:
        """Erase a feature that nothing uses; returns whether this was a replay."""
        return await self._change(
            "features.delete", lambda catalog: without_feature(catalog, feature_id), key
        )

    async def delete_plan(self, plan_id: str, key: CallerKey | None = None) -> bool:
        """Erase a plan, or archive it if it was given to a customer; returns whether this was a replay."""
        return await self._change("plans.delete", lambda catalog: without_plan(catalog, plan_id), key)

    async def apply(self, file: CatalogFile, *, now_ms: int, prune: bool = False) -> FileChanges:
        """Make the catalog what the file says, in one step or not at all; returns what that changed.

        Where nothing changes, nothing is written. Raises CatalogFileError.
        """
        found = None

        def work_out(catalog: Catalog) -> CatalogDocument:
            nonlocal found
            found = changes_by(file, catalog, prune=prune, now=now_ms)
            return found.document

        await self._change("catalog.apply", work_out, None)
        assert found is not None
        return found

    async def giving(self, *, plan_ids: Sequence[str] = (), feature_ids: Sequence[str] = ()) -> Catalog:
        """Return a catalog in which these are marked as given: to be called before a customer is given one.

        The mark is made once in the life of a plan or feature. It comes first, so whatever a customer holds can never
        be erased, whoever deletes what at the same time. NotFound if one is not there.
        """

        def named(catalog: Catalog) -> list[Plan | Feature]:
            return [*map(catalog.plan, plan_ids), *map(catalog.feature, feature_ids)]

        if not all(one.given for one in named(await self.having(named))):
            await self._put("catalog.give", lambda catalog: with_given(catalog, plan_ids, feature_ids), None)
        return self._current

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Keep up with every change, for as long as this worker answers calls. At the start, a slow Redis has time."""
        give_up_at = asyncio.get_running_loop().time() + ANNOUNCING_S
        while True:
            try:
                await self._keep_up()
                break
            except (CreditgateError, RedisError, OSError):
                if asyncio.get_running_loop().time() > give_up_at:
                    raise
            await asyncio.sleep(HEARTBEAT_TICK_MS / 1000)
        stopping = asyncio.Event()
        following = asyncio.create_task(self._follow(stopping))
        try:
            yield
        finally:
            stopping.set()
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            await self._workers.leave()

    async def _follow(self, stopping: asyncio.Event) -> None:
        """Follow until `stopping` is set. To be cancelled is not enough: before Python 3.12, `asyncio.wait_for`, in
        which redis-py sends, loses a cancellation that comes as the sending ends.
        """
        while not stopping.is_set():
            try:
                seen = await self._stream.last_id(SYSTEM_PARTITION)
                await self._keep_up()
                await self._stream.wait(SYSTEM_PARTITION, seen, timeout_ms=HEARTBEAT_TICK_MS)
            except (CreditgateError, RedisError, OSError) as error:
                log.warning("catalog_not_followed", reason=str(error))
                await asyncio.sleep(HEARTBEAT_TICK_MS / 1000)

    async def _keep_up(self) -> None:
        """Read the catalog if it moved on. This worker announces itself first: from then on, a change waits for it."""
        known = self._current.version
        await self._workers.announce(known)
        if (await self.refresh()).version != known:
            await self._workers.announce(self._current.version)

    async def _change(
        self, verb: str, work_out: Callable[[Catalog], CatalogDocument], key: CallerKey | None
    ) -> bool:
        is_replay = await self._put(verb, work_out, key)
        await self._workers.wait_for(self._current.version)
        return is_replay

    async def _put(
        self, verb: str, work_out: Callable[[Catalog], CatalogDocument], key: CallerKey | None
    ) -> bool:
        for _ in range(PUT_ROUNDS_MAX):
            catalog = await self.refresh()
            try:
                document = work_out(catalog)
            except CreditgateError:
                if await self._document.is_replay(verb, key):
                    return True
                raise
            if document == catalog.document and key is None:
                return False
            version = catalog.version
            encoded = msgspec.json.encode(document)
            status = await self._document.put(encoded, version, verb, key, catalog_version=version + 1)
            if status is not Status.MOVED_ON:
                await self.refresh()
                return status is Status.REPLAYED
        raise Undecided("The catalog is being changed by too many others at once; nothing was changed")
