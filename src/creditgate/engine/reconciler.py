"""Redis against SQL, before the first call to a server that we have not seen before.

Redis can come back older than SQL: it lost the last second of its log, a failover lost what was not replicated, a
backup was restored, or it is empty. Whatever SQL has beyond the stream is put back into the records, and the stream is
told to go on after SQL's position; else entries with smaller ids would come, and never be read.

Before a look at what SQL has, its position is fenced: a flush in flight may hold entries that the server has lost. If
they were committed after it, SQL would have deductions that no record has, under numbers that are then used again.

In a cluster, a primary that is new (restarted, or a replica until now) has all partitions looked at, wherever they
are; then the primaries that were there before that look count as reconciled, and no others. A slot that moves between
two of them takes its data along. The partitions of a node that is away wait for it, and those of the others do not.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.balances.clock import RedisClock
from creditgate.balances.cluster import place_of, server_ids
from creditgate.balances.connection import ServerGuard
from creditgate.balances.holds import POINTER_TTL_MS, Pointer
from creditgate.balances.keys import Keys, decoded
from creditgate.balances.store import BalanceStore, KeptKey, Unknown
from creditgate.balances.stream import JournalStream
from creditgate.core.customers import Customer, Terms
from creditgate.core.holds import HOLD, Hold, decode_hold
from creditgate.core.journal import ORIGIN, SYSTEM_PARTITION, StreamId
from creditgate.errors import StartupError, Unavailable
from creditgate.ledger.customers import CustomerState
from creditgate.ledger.positions import Position, PositionMoved
from creditgate.ledger.store import Ledger
from creditgate.telemetry import logger

CUSTOMERS_PAGE = 500
RESTORES_AT_ONCE = 32
KEYS_PAGE = 1_000
LOOK_AGAIN_S = 0.02  # after a look at servers that did not all answer
KEY_TTL_MS = 24 * 3_600_000

log = logger(__name__)

Progress = Callable[[int], None]


def _silent(_customers: int) -> None:
    """Nobody watches."""


class Reconciler:
    """Compares Redis with SQL once for each server. Its own connections are not guarded: it opens the guard."""

    def __init__(
        self,
        redis: "Redis",
        keys: Keys,
        clock: RedisClock,
        ledger: Ledger,
        guard: ServerGuard,
        progress: Progress = _silent,
    ) -> None:
        """`progress` is told how many customers were put back since the start."""
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._ledger = ledger
        self._guard = guard
        self._store = BalanceStore(redis, keys, clock)
        self._stream = JournalStream(redis, keys)
        self._one_at_a_time = asyncio.Lock()
        # On the monotonic clock: when the last look began that found everybody, and when one failed, and why.
        self._looked_at = 0.0
        self._failed_at = 0.0
        self._failure = ""
        self._progress = progress
        self.customers_restored = 0
        self.rounds = 0  # how often it was found out what a server has

    @property
    def is_done(self) -> bool:
        """False until the servers that answer have been reconciled, and again once one has lost everything."""
        return bool(self._guard.reconciled)

    async def watch(self) -> None:
        """Notice that a server lost its data without a restart (FLUSHALL), and reconcile.

        For a call that does not find what it looks for. Every partition counts: another process may have begun to put
        them back, one after the other.
        """
        if self.is_done and not await self._stream.are_whole((SYSTEM_PARTITION, *self._keys.partitions)):
            self._guard.reconciled = frozenset()
        if not self.is_done:
            await self.run()

    async def follow(self) -> None:
        """Notice also that another server process answers, in a cluster also that slots moved: what calls notice in
        a process that has some.
        """
        await self.watch()
        await self.run()

    async def run(self) -> None:
        """Make sure that the servers that answer have all that SQL has; raises Unavailable if one does not answer."""
        asked_at = time.monotonic()
        async with self._one_at_a_time:
            if self._looked_at > asked_at:
                return  # whoever had the lock began to look after we asked
            now = time.monotonic()
            if now < self._failed_at + LOOK_AGAIN_S:
                raise Unavailable(self._failure)  # or calls that wait would do nothing else than look
            try:
                await self._look()
                self._looked_at = now
            except Unavailable as error:
                self._failed_at, self._failure = time.monotonic(), error.message
                raise

    async def _look(self) -> None:
        try:
            servers = await server_ids(self._redis)
            present = frozenset(server_id for server_id in servers.values() if server_id is not None)
            if not self.is_done or not present <= self._guard.reconciled:
                await self._reconcile_all(servers)
                self.rounds += 1
                self._guard.reconciled = present
        except (RedisError, OSError, Unknown) as error:
            raise Unavailable(f"Redis does not answer: {error}") from error
        away = [address for address, server_id in servers.items() if server_id is None]
        if away:
            raise Unavailable(f"A node of the cluster does not answer: {', '.join(away)}")

    async def _reconcile_all(self, servers: Mapping[str, str | None]) -> None:
        await self._clock.read(self._redis)
        for partition in (SYSTEM_PARTITION, *self._keys.partitions):
            server_id = servers.get(place_of(self._redis, self._keys.journal(partition)))
            if server_id is not None:
                await self._reconcile(partition, server_id)

    async def _reconcile(self, partition: str, server_id: str) -> None:
        while True:
            try:
                last, position = await self._fenced(partition, server_id)
                break
            except PositionMoved:  # by a flush, or by another sidecar: look again, at what it made of it
                continue
        if last < position.stream_id:
            restored = await self._restore(partition, last)
            await self._stream.advance(partition, position.stream_id)
            log.warning(
                "redis_was_behind_sql", partition=partition, was_at=str(last), customers_restored=restored
            )
        await self._stream.begin(partition, position.journal)  # last: a journal with a name is whole

    async def _fenced(self, partition: str, server_id: str) -> tuple[StreamId, Position]:
        """Return where the stream and SQL stand, once nothing that was read of the stream before can reach SQL.

        Whoever comes later to a server that has lost nothing finds its fence, and stops no flush. Raises PositionMoved.
        """
        journal = await self._stream.epoch(partition)
        position = (await asyncio.to_thread(self._ledger.positions)).get(partition)
        if position is None:
            if journal is not None and not await self._stream.is_whole(partition):
                raise StartupError(
                    "The history of what is in Redis begins in another SQL database than this one, which is new: "
                    "name that one with --database."
                )
            journal = await self._stream.begin(partition, secrets.token_hex(8))
            position = await asyncio.to_thread(self._ledger.adopt, partition, journal)
        if journal is not None and journal != position.journal:
            raise StartupError(
                f"Redis and the SQL database hold two different histories of partition {partition}."
            )
        last = await self._stream.last_id(partition)
        is_same_server = position.fence.partition("-")[0] == server_id
        if journal is None or last < position.stream_id or not is_same_server:
            fence = f"{server_id}-{secrets.token_hex(4)}"
            position = await asyncio.to_thread(self._ledger.put_fence, position, fence)
        return last, position

    async def _restore(self, partition: str, last: StreamId) -> int:
        if partition == SYSTEM_PARTITION:
            await self._restore_documents()
            batches = await asyncio.to_thread(self._ledger.open_batches)
            await self._store.restore_batches(batches, stood_at=last)
            count = 0
        else:
            count = await self._restore_customers(partition, last)
        await self._restore_keys(partition)
        return count

    async def _restore_keys(self, partition: str) -> None:
        since_ms, last = self._clock.now_ms() - KEY_TTL_MS, None
        while page := await asyncio.to_thread(
            self._ledger.keys_since, partition, since_ms, after=last, limit=KEYS_PAGE
        ):
            uses = [
                KeptKey(use.customer_id, use.uid or "-", use.key, use.fingerprint, use.stream_id)
                for use in page
            ]
            await self._store.restore_keys(uses)
            last = page[-1]

    async def _restore_customers(self, partition: str, last: StreamId) -> int:
        count = 0
        async for page in self._customers_after(partition, last):
            states = await asyncio.to_thread(self._ledger.customer_states, partition, page)
            for first in range(0, len(states), RESTORES_AT_ONCE):
                some = states[first : first + RESTORES_AT_ONCE]
                await asyncio.gather(*(self._restore_customer(state, last) for state in some))
            count += len(page)
            self.customers_restored += len(states)
            self._progress(self.customers_restored)
        return count

    async def _customers_after(self, partition: str, last: StreamId) -> AsyncIterator[list[str]]:
        """Yield pages of those who have entries after it. Of an empty Redis that is everybody, who are not kept in
        memory; else only the ids of those whose entries were lost are.
        """
        if last == ORIGIN:
            after = None
            while page := await asyncio.to_thread(
                self._ledger.customers, partition, after=after, limit=CUSTOMERS_PAGE
            ):
                yield page
                after = page[-1]
            return
        customer_ids = await asyncio.to_thread(lambda: list(self._ledger.customers_after(partition, last)))
        for start in range(0, len(customer_ids), CUSTOMERS_PAGE):
            yield customer_ids[start : start + CUSTOMERS_PAGE]

    async def _restore_customer(self, state: CustomerState, stood_at: StreamId) -> None:
        documents = {document.type: document.text for document in state.documents}
        customer = (
            msgspec.json.decode(documents["customer"], type=Customer) if "customer" in documents else None
        )
        terms = msgspec.json.decode(documents["terms"], type=Terms) if customer else Terms()
        holds = _open_holds(state)
        amounts = {row.row_id: row.after_nanos for row in state.rows}
        for hold_id, hold in holds.items():
            pointer = Pointer(hold.op_id, state.customer_id, POINTER_TTL_MS)
            await self._store.restore_pointer(hold_id=hold_id, pointer=pointer)
        await self._store.restore(
            stood_at=stood_at,
            customer_id=state.customer_id,
            uid=state.uid or "",
            sequence=state.sequence,
            clock=state.pinned_at,
            customer=customer,
            terms=terms,
            holds=holds,
            balances={held_id: amounts[held_id] for held_id in terms.held_ids},
        )

    async def _restore_documents(self) -> None:
        for document_type, (version, documents) in (await asyncio.to_thread(self._system_documents)).items():
            await self._store.restore_documents(document_type, version, documents)

    def _system_documents(self) -> dict[str, tuple[int, dict[str, str]]]:
        found: dict[str, tuple[int, dict[str, str]]] = {}
        for document in self._ledger.documents(SYSTEM_PARTITION, None):
            version, documents = found.get(document.type, (0, {}))
            documents[document.id] = document.text
            found[document.type] = (max(version, document.sequence), documents)
        return found


def _open_holds(state: CustomerState) -> dict[str, Hold]:
    return {decoded(d.id): decode_hold(d.text) for d in state.documents if d.type == HOLD}
