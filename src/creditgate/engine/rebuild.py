"""Another number of partitions for data that is there: the history is moved in SQL, and Redis is filled from it anew.

Nobody may work on the data meanwhile. If it is interrupted, nothing starts on half of it: either SQL is as it was, or
the epochs in Redis are no longer those of SQL, and the same command goes on from there.
"""

import asyncio
import secrets

import msgspec
from redis.asyncio import Redis

from creditgate.balances.keys import PARTITIONS_MAX, Keys
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.journal import SYSTEM_PARTITION, Call, Entry, Item, Kind, StreamId
from creditgate.engine.drain import check_alone
from creditgate.engine.flusher import FLUSH_LEASE_MS, Flusher
from creditgate.engine.ids import OpIds
from creditgate.engine.instance import SETTINGS, Instance
from creditgate.engine.lease import Lease
from creditgate.engine.verify_seals import verify_seals
from creditgate.errors import StartupError
from creditgate.ledger.store import Ledger

KEYS_PAGE = 1_000


async def repartition(
    redis: "Redis", keys: Keys, store: BalanceStore, ledger: Ledger, partitions: int
) -> Keys:
    """Move the data into so many partitions and empty Redis; returns the new keys. The caller reconciles then.

    Raises StartupError if the number makes no sense, or while a sidecar works on the data.
    """
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise StartupError(f"--partitions: must be from 1 to {PARTITIONS_MAX}.")
    await _flush(keys, store, JournalStream(redis, keys), ledger)
    sealed = await verify_seals(ledger, (SYSTEM_PARTITION, *keys.partitions))
    if sealed.differences:
        raise StartupError(f"The seals do not hold, so the data stays where it is: {sealed.differences[0]}.")
    version, instance = await asyncio.to_thread(_instance_in_sql, ledger)
    if instance.partitions != partitions:
        wanted = msgspec.structs.replace(instance, partitions=partitions)
        await asyncio.to_thread(_move, ledger, keys, Keys(partitions, keys.prefix), version + 1, wanted)
    await _empty(redis, keys)
    return Keys(partitions, keys.prefix)


async def _flush(keys: Keys, store: BalanceStore, stream: JournalStream, ledger: Ledger) -> None:
    lease = Lease(store, "flush", ttl_ms=FLUSH_LEASE_MS)
    flusher = Flusher(keys, stream, ledger, lease)
    await check_alone(lease)
    try:
        while True:
            if not await lease.hold():
                raise StartupError("A sidecar is working on this data; stop it first.")
            if not await flusher.flush_once():
                return
    finally:
        await lease.release()


def _move(ledger: Ledger, old: Keys, new: Keys, version: int, instance: Instance) -> None:
    def settings(after_ms: int) -> Entry:
        document = msgspec.json.encode(instance).decode()
        item = Item(
            0,
            Kind.PUT,
            Call(verb="rebuild", op_id=OpIds().next(), catalog_version=0),
            document_type=SETTINGS,
            document_id="-",
            document=document,
        )
        return Entry(SYSTEM_PARTITION, StreamId(after_ms, 0), None, None, version, None, (item,))

    epochs = {partition: secrets.token_hex(8) for partition in new.partitions}
    ledger.repartition(
        old.partitions, new.partitions, place=new.partition_of, epochs=epochs, settings=settings
    )


async def _empty(redis: "Redis", keys: Keys) -> None:
    found = []
    async for key in redis.scan_iter(match=keys.everything_pattern(), count=KEYS_PAGE):
        found.append(key)
        if len(found) == KEYS_PAGE:
            await redis.unlink(*found)
            found.clear()
    if found:
        await redis.unlink(*found)


def _instance_in_sql(ledger: Ledger) -> tuple[int, Instance]:
    documents = ledger.documents(SYSTEM_PARTITION, None)
    found = next((document for document in documents if document.type == SETTINGS), None)
    if found is None:
        raise StartupError("SQL does not hold the settings of this data yet; start the sidecar once.")
    return found.sequence, msgspec.json.decode(found.text, type=Instance)
