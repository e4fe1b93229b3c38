"""`verify` says so when anything differs: each way in which the books could be wrong is made by hand, and found."""

import sqlite3
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from creditgate import server
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Mode
from creditgate.engine.customers import Profile
from creditgate.engine.meter import Usage
from creditgate.engine.verify import Proof
from creditgate.settings import Settings

Tamper = Callable[[server.Stores, "Redis", sqlite3.Connection], Awaitable[None]]


@pytest.fixture
async def books(cases: server.UseCases) -> server.UseCases:
    """A customer whose history is partly in SQL and partly in the stream."""
    await cases.customers.get_or_create("ann", Profile())
    await _track(cases)
    await cases.flusher.flush_once()
    await _track(cases)
    return cases


async def test_untouched_books_hold(books: server.UseCases, settings: Settings) -> None:
    """No false alarm: half in SQL, half in the stream, all of it proven."""
    proof = await _verify(settings)
    assert proof.holds, proof.differences
    assert (proof.customers, proof.entries) == (1, 3)


async def _a_balance(stores: server.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    key = stores.keys.record("ann")
    (field,) = [name for name in map(_text, await redis.hgetall(key)) if name.startswith("b:")]
    await redis.hset(key, field, "4990000000")


async def _a_record(stores: server.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.delete(stores.keys.record("ann"))


async def _a_sequence(stores: server.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.hincrby(stores.keys.record("ann"), "seq", 1)


async def _an_entry_in_the_stream(stores: server.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.xtrim(stores.keys.journal(stores.keys.partition_of("ann")), maxlen=0, approximate=False)


async def _a_row_of_sql(_s: server.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("DELETE FROM journal_items WHERE kind = 'use'")


async def _an_amount_in_sql(_s: server.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE journal_items SET delta_nano = delta_nano + 1 WHERE kind = 'use'")


async def _a_copied_row(_s: server.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE journal_items SET sequence = sequence - 1 WHERE kind = 'use'")


async def _a_document(stores: server.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.hset(stores.keys.documents("catalog"), "-", '{"features":[],"plans":[]}')


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_a_balance, "the journal says 4.98, Redis has 4.99"),
        (_a_record, "the journal knows it, Redis does not"),
        (_a_sequence, "Redis is at entry 4, the journal at 3"),
        (_an_entry_in_the_stream, "Redis is at entry 3, the journal at 2"),
        (_a_row_of_sql, "entry 2 is missing"),
        (_an_amount_in_sql, "is not 4.99"),
        (_a_copied_row, "entry 2 is missing"),
        (_a_document, "document catalog"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
async def test_what_was_tampered_with_is_found(
    books: server.UseCases,
    stores: server.Stores,
    settings: Settings,
    redis: "Redis",
    tamper: Tamper,
    said: str,
) -> None:
    """A difference of one nano, one entry or one document is found and put into words."""
    sql = sqlite3.connect(settings.data_dir / "ledger.db")
    await tamper(stores, redis, sql)
    sql.commit()
    sql.close()
    proof = await _verify(settings)
    assert not proof.holds
    assert any(said in difference for difference in proof.differences), proof.differences


async def _a_lost_hold(stores: server.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.hdel(stores.keys.record("ann"), "h:two%20words")


async def _a_hold_of_nobody(stores: server.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    key = stores.keys.record("ann")
    await redis.hset(key, "h:other", await redis.hget(key, "h:two%20words"))


async def _a_receipt(stores: server.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    key = stores.keys.record("ann")
    receipt = _text(await redis.hget(key, "h:two%20words") or "")
    await redis.hset(key, "h:two%20words", receipt.replace("-70000000", "-70000001"))


@pytest.mark.parametrize("is_in_sql", [False, True])
@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_a_lost_hold, "hold two words is open in the journal, but not in Redis"),
        (_a_hold_of_nobody, "hold other is open in Redis, but not in the journal"),
        (_a_receipt, "hold two words: Redis has another receipt than the journal"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
async def test_holds_are_proven_too(
    books: server.UseCases,
    stores: server.Stores,
    settings: Settings,
    redis: "Redis",
    tamper: Tamper,
    said: str,
    *,
    is_in_sql: bool,
) -> None:
    """What a hold will give back is part of the books: a receipt that is not the journal's is found."""
    usage = Usage("hold", "ann", "basic_messages", None, 7 * NANOS, Mode.REJECT)
    for hold_id in ("two words", "settled"):
        await books.holds.hold(usage, hold_id=hold_id, expires_at=None)
    await books.holds.finalize("settled", 3 * NANOS)
    if is_in_sql:
        await books.flusher.flush_once()
    assert (await _verify(settings)).holds
    sql = sqlite3.connect(settings.data_dir / "ledger.db")
    await tamper(stores, redis, sql)
    sql.close()
    proof = await _verify(settings)
    assert not proof.holds
    assert any(said in difference for difference in proof.differences), proof.differences


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


async def _verify(settings: Settings) -> Proof:
    async with server.open_verifier(settings) as verifier:
        return await verifier.verify()


async def _track(cases: server.UseCases) -> None:
    await cases.meter.track(Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP))
