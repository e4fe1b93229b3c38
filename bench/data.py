"""Data to measure on: customers under a prefix of their own in a Redis, made by the product's own code."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
from redis.asyncio import Redis

from bench.commands import FEATURE, SCRIPTS, Calls, Recorder
from creditgate import openings
from creditgate.balances.calls import text_of
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore
from creditgate.core.amounts import NANOS
from creditgate.core.customers import Record
from creditgate.core.journal import StreamId
from creditgate.engine import demo
from creditgate.engine.customers import Grant, Profile
from creditgate.settings import Environment, Settings, sqlite_url

CUSTOMERS = 1_000
PARTITIONS = 8
VALUE = "0.01"
FILL_AT_ONCE = 1_000
_FIRST = "customer_first"


def settings_of(redis_url: str, directory: Path, prefix: str) -> Settings:
    """Return where the data of a prefix is."""
    return Settings(redis=redis_url, database=sqlite_url(directory / f"{prefix}.db"), prefix=prefix)


def customer_ids(count: int = CUSTOMERS) -> list[str]:
    """Return the ids of the customers that everything here has."""
    return [f"customer_{number}" for number in range(count)]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[openings.Stores, openings.UseCases]]:
    """Yield the data, made if it is not there, with the tutorial's catalog; nothing is flushed meanwhile."""
    assert settings.redis is not None
    async with (
        openings.open_stores(settings, settings.redis, make=(Environment.TEST, PARTITIONS)) as stores,
        openings.open_use_cases(settings, settings.redis, stores) as cases,
    ):
        await demo.load(cases.catalogs, cases.clock.now_ms())
        yield stores, cases


async def make(settings: Settings, *, customers: int) -> None:
    """Make the customers, as calls of the API make them: in Redis and in SQL."""
    async with opened(settings) as (_, cases):
        for customer_id in customer_ids(customers):
            await cases.customers.get_or_create(customer_id, Profile())
        while await cases.flusher.flush_once():
            pass


async def calls(settings: Settings) -> Calls:
    """Return the calls on this data, with their scripts loaded."""
    async with opened(settings) as (stores, cases):
        for script in SCRIPTS:
            await stores.redis.script_load(script.source)
        return Calls(stores.keys, await cases.catalogs.refresh(), cases.clock)


async def fill(settings: Settings, *, customers: int, rows: int) -> None:
    """Make many customers with so many balances each, in Redis alone.

    The first is made by the engine; the others get its record as a rebuild puts records back (lua/restore.lua).
    """
    async with opened(settings) as (stores, cases):
        await cases.customers.get_or_create(_FIRST, Profile())
        for _ in range(rows - 1):
            await cases.customers.grant(Grant(_FIRST, "usd_credits", NANOS))
        record = await BalanceStore(stores.redis, stores.keys, cases.clock).read(customer_id=_FIRST)
        assert record is not None
        await stores.redis.script_load(BalanceStore._restore.source)
        ends = {partition: await _end(stores, partition) for partition in stores.keys.partitions}
        names = customer_ids(customers)
        for first in range(0, customers, FILL_AT_ONCE):
            recorder = Recorder()
            store = BalanceStore(cast("Redis", recorder), stores.keys, cases.clock)
            for name in names[first : first + FILL_AT_ONCE]:
                await _restore(store, record, name, ends[stores.keys.partition_of(name)])
            await recorder.send(stores.redis)


async def _end(stores: openings.Stores, partition: str) -> StreamId:
    found = await stores.redis.xinfo_stream(stores.keys.journal(partition))
    return StreamId.parse(text_of(found["last-generated-id"]))


async def _restore(store: BalanceStore, record: Record, customer_id: str, stood_at: StreamId) -> None:
    customer = msgspec.structs.replace(record.customer, id=customer_id)
    await store.restore(
        stood_at=stood_at,
        customer_id=customer_id,
        uid=record.uid,
        sequence=record.sequence,
        clock=record.clock,
        customer=customer,
        terms=record.terms,
        holds={},
        balances=record.balances,
    )


def http_requests(port: int, key: str, path: str, bodies: Sequence[str]) -> Iterator[bytes]:
    """Yield requests with the headers that the official clients send."""
    for body in bodies:
        yield (
            f"POST /v1/{path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\naccept: application/json\r\nuser-agent: bench\r\n"
            f"x-api-version: 2.3.0\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()


def body_of(verb: str, customer_id: str) -> str:
    """Return the body of a check or track."""
    amount = f'"required_balance":{VALUE}' if verb == "check" else f'"value":{VALUE}'
    return f'{{"customer_id":"{customer_id}","feature_id":"{FEATURE}",{amount}}}'


def batch_of(verb: str, customer_ids: Sequence[str]) -> str:
    """Return the body of a batch of checks or tracks, one for each customer."""
    items = [f'{{"verb":"{verb}",{body_of(verb, customer_id)[1:]}' for customer_id in customer_ids]
    return f"[{','.join(items)}]"


def journals(keys: Keys) -> list[str]:
    """Return the streams of a prefix."""
    return [keys.journal(partition) for partition in keys.partitions]
