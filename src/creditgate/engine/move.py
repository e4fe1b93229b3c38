"""Moving the data to other servers: the history entry by entry, then Redis filled from it, then both sides proven.

Nobody may work on the data meanwhile. If it is interrupted, the same command goes on where it stopped, and until then
no sidecar starts on the half of it: the journal in the target's Redis bears a name that the target's SQL does not know.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from redis.asyncio import Redis

from creditgate.balances.clock import RedisClock
from creditgate.balances.cluster import server_ids
from creditgate.balances.connection import ServerGuard
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.journal import SYSTEM_PARTITION, page_size
from creditgate.engine.drain import check_alone, drained, flushing, last_ids
from creditgate.engine.flusher import FLUSH_LEASE_MS, Flusher
from creditgate.engine.instance import Instance, read_instance
from creditgate.engine.lease import Lease
from creditgate.engine.reconciler import Reconciler
from creditgate.engine.verify import Proof, Verifier
from creditgate.errors import StartupError
from creditgate.ledger.appending import Batch
from creditgate.ledger.positions import Position
from creditgate.ledger.store import Ledger

ENTRIES_PAGE = 1_000  # of one partition in one transaction
MOVING = "moving"  # the name of the target's system journal until everything has arrived

Counter = Callable[[str], AbstractContextManager[Callable[[int], None]]]


class Side:
    """Redis and SQL of one environment, where it is or where it goes."""

    def __init__(self, redis: "Redis", keys: Keys, ledger: Ledger) -> None:
        self.redis = redis
        self.keys = keys
        self.ledger = ledger
        self.store = BalanceStore(redis, keys, RedisClock())
        self.stream = JournalStream(redis, keys)

    def flush_lease(self) -> Lease:
        """Return a lease that keeps every sidecar from flushing while it is held."""
        return Lease(self.store, "flush", ttl_ms=FLUSH_LEASE_MS)

    async def prove(self, counter: Counter) -> Proof:
        """Verify the books of this side."""
        with counter("customers checked") as count:
            return await Verifier(self.redis, self.keys, self.store, self.stream, self.ledger).verify(count)


async def move(source: Side, target: Side, instance: Instance, counter: Counter) -> Proof:
    """Copy everything to the target, and return the proof of it; the source stays as it is.

    Raises StartupError while a sidecar works on either side, if the books of the source do not hold, or if the target
    holds anything but the beginning of the same history. `counter` shows a number that grows.
    """
    lease = source.flush_lease()
    await _check_apart(source, target)
    await check_alone(lease, target.flush_lease())
    async with flushing(Flusher(source.keys, source.stream, source.ledger, lease)):
        await drained(source.keys, source.stream, source.ledger)
        positions = await asyncio.to_thread(source.ledger.positions)
        await _check_target(target, instance, positions)
        before = await source.prove(counter)
        if not before.holds:
            raise StartupError(
                "The books of this data do not hold, so it stays where it is: see creditgate verify."
            )
        await target.stream.rename(SYSTEM_PARTITION, MOVING)
        with counter("entries copied") as count:
            await _copy(source.ledger, target.ledger, positions, count)
        await target.stream.rename(SYSTEM_PARTITION, positions[SYSTEM_PARTITION].journal)
        with counter("customers put into Redis") as count:
            await Reconciler(
                target.redis, target.keys, RedisClock(), target.ledger, ServerGuard(), count
            ).run()
        after = await target.prove(counter)
        now_at = await last_ids(source.keys, source.stream)
    if any(now_at[name] > position.stream_id for name, position in positions.items()):
        raise StartupError("A sidecar has worked on this data meanwhile: stop it, then move what it added.")
    if not after.holds or (after.customers, after.entries) != (before.customers, before.entries):
        raise StartupError("The copy is not what the data is: see creditgate verify, there and here.")
    return after


async def _check_apart(source: Side, target: Side) -> None:
    """Raise StartupError if the target is the source, wholly or in half."""
    there, here = await server_ids(target.redis), await server_ids(source.redis)
    if set(there.values()) & set(here.values()) and source.keys.prefix == target.keys.prefix:
        raise StartupError("--to-redis is where this data is already; --to-prefix would set it apart.")
    if await asyncio.to_thread(source.ledger.identity) == await asyncio.to_thread(target.ledger.identity):
        raise StartupError(
            "--to-database is where this data is already. To change Redis alone, start the sidecar with another"
            " --redis: it is filled from SQL."
        )


async def _check_target(target: Side, instance: Instance, positions: dict[str, Position]) -> None:
    """Raise StartupError if the target holds what is not the beginning of the same history."""
    found = await read_instance(target.redis, target.keys.prefix)
    epochs = {name: await target.stream.epoch(name) for name in positions}
    if found not in (None, instance) or any(
        epochs[name] not in (None, MOVING, position.journal) for name, position in positions.items()
    ):
        raise StartupError(
            "--to-redis holds other data of creditgate; name another server, or a --to-prefix."
        )
    for name, position in (await asyncio.to_thread(target.ledger.positions)).items():
        if name not in positions or positions[name].journal != position.journal:
            raise StartupError("--to-database holds other data of creditgate; name an empty database.")
        if position.stream_id > positions[name].stream_id:
            raise StartupError("--to-database is ahead of this data: a sidecar works on it already.")


async def _copy(
    source: Ledger, target: Ledger, positions: dict[str, Position], count: Callable[[int], None]
) -> None:
    """Append to the target what it does not have, page by page; the system first, for it says what the data is."""
    copied = 0
    for goal in sorted(positions.values(), key=lambda position: position.partition != SYSTEM_PARTITION):
        begun = await asyncio.to_thread(target.adopt, goal.partition, goal.journal)
        await asyncio.to_thread(target.begin_seals)
        at = begun.stream_id
        while at < goal.stream_id:
            limit = page_size(goal.partition, ENTRIES_PAGE)
            entries = await asyncio.to_thread(source.entries, goal.partition, at, limit=limit)
            upto = entries[-1].stream_id if len(entries) == limit else goal.stream_id
            page = Batch(goal.partition, begun.epoch, at, upto, entries)
            await asyncio.to_thread(target.append, [page], is_news=False)
            at, copied = upto, copied + len(entries)
            count(copied)
        await asyncio.to_thread(source.copy_openings, goal.partition, target)
