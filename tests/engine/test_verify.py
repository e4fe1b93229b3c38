"""`verify` says so when anything differs: each way in which the books could be wrong is made by hand, and found."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from creditgate import openings, operations
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Mode
from creditgate.engine.customers import Profile
from creditgate.engine.usage import Usage
from creditgate.engine.verify import Proof
from creditgate.settings import Settings

PROOFS = 5
Tamper = Callable[[openings.Stores, "Redis", sqlite3.Connection], Awaitable[None]]


@pytest.fixture
async def books(cases: openings.UseCases) -> openings.UseCases:
    """A customer whose history is partly in SQL and partly in the stream."""
    await cases.customers.get_or_create("ann", Profile())
    await _track(cases)
    await cases.flusher.flush_once()
    await _track(cases)
    return cases


async def test_untouched_books_hold(books: openings.UseCases, settings: Settings) -> None:
    """No false alarm: half in SQL, half in the stream, all of it proven."""
    proof = await _verify(settings)
    assert proof.holds, proof.differences
    assert (proof.customers, proof.entries) == (1, 3)


@pytest.mark.parametrize("flushes", [0b000, 0b001, 0b011, 0b111, 0b010, 0b100])
async def test_deleted_and_made_again(books: openings.UseCases, settings: Settings, flushes: int) -> None:
    """A customer who is gone is no difference, nor is one who came after, wherever the history of both lies."""
    for step in (_deleted, _made_again, _deleted):
        await step(books)
        if flushes & 1:
            await books.flusher.flush_once()
        flushes >>= 1
        proof = await _verify(settings)
        assert proof.holds, proof.differences
    await books.flusher.flush_once()
    proof = await _verify(settings)
    assert proof.holds, proof.differences
    assert (proof.customers, proof.entries) == (1, 7)


async def test_customers_come_and_go_meanwhile(cases: openings.UseCases, settings: Settings) -> None:
    """While customers are deleted and made again all the time, no proof finds fault with that."""
    names = [f"customer {number}" for number in range(4)]
    is_over = False

    async def live(customer_id: str) -> None:
        while not is_over:
            await cases.customers.get_or_create(customer_id, Profile())
            await _track(cases, customer_id)
            await cases.customers.delete(customer_id)

    async def flush() -> None:
        while not is_over:
            await cases.flusher.flush_once()

    lives = asyncio.gather(flush(), *(live(name) for name in names))
    proofs = [await _verify(settings) for _ in range(PROOFS)]
    is_over = True
    await lives
    proofs.append(await _verify(settings))
    assert [proof.differences for proof in proofs] == [()] * len(proofs)
    assert proofs[-1].customers == len(names)
    assert proofs[-1].entries > 3 * len(names)


async def _a_balance(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    key = stores.keys.record("ann")
    (field,) = [name for name in map(_text, await redis.hgetall(key)) if name.startswith("b:")]
    await redis.hset(key, field, "4990000000")


async def _a_record(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.delete(stores.keys.record("ann"))


async def _a_sequence(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.hincrby(stores.keys.record("ann"), "seq", 1)


async def _an_entry_in_the_stream(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.xtrim(stores.keys.journal(stores.keys.partition_of("ann")), maxlen=0, approximate=False)


async def _a_row_of_sql(_s: openings.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("DELETE FROM journal_items WHERE kind = 'use'")


async def _an_amount_in_sql(_s: openings.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE journal_items SET delta_nano = delta_nano + 1 WHERE kind = 'use'")


async def _a_copied_row(_s: openings.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE journal_items SET sequence = sequence - 1 WHERE kind = 'use'")


async def _an_older_record(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    key = stores.keys.record("ann")
    (field,) = [name for name in map(_text, await redis.hgetall(key)) if name.startswith("b:")]
    await redis.hset(key, mapping={field: "4990000000", "seq": "2"})


async def _a_document(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.hset(stores.keys.documents("catalog"), "-", '{"features":[],"plans":[]}')


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_a_balance, "the journal says 4.98, Redis has 4.99"),
        (_a_record, "the journal knows it, Redis does not"),
        (_a_sequence, "Redis is at entry 4, the journal at 3"),
        (_an_older_record, "Redis is at entry 2, the journal at 3"),
        (_an_entry_in_the_stream, "Redis is at entry 3, the journal at 2"),
        (_a_row_of_sql, "entry 2 is missing"),
        (_an_amount_in_sql, "is not 4.99"),
        (_a_copied_row, "entry 2 is missing"),
        (_a_document, "document catalog"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
async def test_what_was_tampered_with_is_found(
    books: openings.UseCases,
    stores: openings.Stores,
    settings: Settings,
    redis: "Redis",
    tamper: Tamper,
    said: str,
) -> None:
    """A difference of one nano, one entry or one document is found and put into words."""
    await _find(tamper, said, stores, settings, redis)


async def _the_deletion(_s: openings.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("DELETE FROM journal_items WHERE document = 'null'")


async def _what_it_took(_s: openings.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("DELETE FROM journal_items WHERE kind = 'expire'")


async def _the_end_of_a_hold(_s: openings.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("DELETE FROM journal_items WHERE document_type = 'hold' AND document = 'null'")


async def _an_amount_of_before(_s: openings.Stores, _r: "Redis", sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE journal_items SET delta_nano = delta_nano + 1 WHERE kind = 'use'")


async def _the_record_of_before(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    key = stores.keys.record("ann")
    for field, value in {"v": "1", "uid": "x", "seq": "3", "shape": "1", "due": "", "clock": ""}.items():
        await redis.hset(key, field, value)
    await redis.hset(key, mapping={"terms": "{}", "doc": '{"id":"ann","created_at":1}'})


@pytest.mark.parametrize("comes_again", [False, True])
@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_the_deletion, "the journal knows it, Redis does not"),
        (_what_it_took, "was deleted with 4.98 in row"),
        (_an_amount_of_before, "is not 4.99"),
        (_the_end_of_a_hold, "was deleted with hold two words open"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
async def test_the_books_of_the_deleted_are_closed(
    books: openings.UseCases,
    stores: openings.Stores,
    settings: Settings,
    redis: "Redis",
    comes_again: bool,
    tamper: Tamper,
    said: str,
) -> None:
    """A customer who is not in Redis was deleted, with every credit accounted for; whoever came after hides nothing."""
    usage = Usage("hold", "ann", "basic_messages", None, 7 * NANOS, Mode.REJECT)
    await books.holds.hold(usage, hold_id="two words", expires_at=None)
    await _deleted(books)
    await books.flusher.flush_once()
    if comes_again:
        await books.customers.get_or_create("ann", Profile())
    await _find(tamper, said, stores, settings, redis)


async def test_a_record_that_should_be_gone_is_found(
    books: openings.UseCases, stores: openings.Stores, settings: Settings, redis: "Redis"
) -> None:
    """A deleted customer whom Redis still has could go on spending."""
    key = stores.keys.record("ann")
    kept = await redis.dump(key)
    await _deleted(books)
    assert kept is not None
    await redis.restore(key, 0, kept)
    await _find(None, "Redis is at entry 3, the journal at 4", stores, settings, redis)
    await redis.delete(key)
    await _find(_the_record_of_before, "Redis is at entry 3, the journal at 0", stores, settings, redis)


async def _find(
    tamper: Tamper | None, said: str, stores: openings.Stores, settings: Settings, redis: "Redis"
) -> None:
    if tamper is not None:
        sql = sqlite3.connect(settings.data_dir / "ledger.db")
        await tamper(stores, redis, sql)
        sql.commit()
        sql.close()
    proof = await _verify(settings)
    assert not proof.holds
    assert any(said in difference for difference in proof.differences), proof.differences


async def _a_lost_hold(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    await redis.hdel(stores.keys.record("ann"), "h:two%20words")


async def _a_hold_of_nobody(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
    key = stores.keys.record("ann")
    await redis.hset(key, "h:other", await redis.hget(key, "h:two%20words"))


async def _a_receipt(stores: openings.Stores, redis: "Redis", _: sqlite3.Connection) -> None:
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
    books: openings.UseCases,
    stores: openings.Stores,
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


async def _deleted(cases: openings.UseCases) -> None:
    await cases.customers.delete("ann")


async def _made_again(cases: openings.UseCases) -> None:
    await cases.customers.get_or_create("ann", Profile())
    await _track(cases)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


async def _verify(settings: Settings) -> Proof:
    async with operations.open_verifier(settings) as verifier:
        return await verifier.verify()


async def _track(cases: openings.UseCases, customer_id: str = "ann") -> None:
    await cases.meter.track(Usage("track", customer_id, "basic_messages", None, NANOS, Mode.CAP))
