"""Batches of usage: kept at once, worked off exactly once, whoever does it and whoever dies meanwhile."""

import asyncio
import sqlite3
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from creditgate import openings, operations
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Decision, Mode
from creditgate.engine import batch_worker, batches
from creditgate.engine.attempts import CLOCK_MARGIN_MS
from creditgate.engine.batches import Batch, Failure, Opened, Report
from creditgate.engine.customers import Profile
from creditgate.engine.keys import CallerKey
from creditgate.engine.usage import Usage
from creditgate.errors import Conflict, KeyReused, Undecided
from creditgate.settings import Settings

LEASE_MS = 200
DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that a test can wait for."""
    monkeypatch.setattr(openings, "BATCH_LEASE_MS", LEASE_MS)
    monkeypatch.setattr(batch_worker, "RETRY_MS", 1)


@pytest.fixture
async def cases(cases: openings.UseCases) -> openings.UseCases:
    """The use cases with two customers of 5 credits."""
    await cases.customers.get_or_create("ann", Profile())
    await cases.customers.get_or_create("bob", Profile())
    return cases


async def test_a_batch_takes_nothing_until_it_is_worked_off(
    cases: openings.UseCases, settings: Settings
) -> None:
    """What was sent is kept before it is answered, and visible as waiting; then each item is taken once."""
    opened = await cases.batches.open((_use("ann"), _use("bob", 2), _use("ann", 3)))
    assert await _remaining(cases) == {"ann": 500, "bob": 500}
    assert (await _batch(cases, opened)).closed_at is None
    assert (await _verified(settings)).open_batches == 1

    await _work(cases)
    assert await _remaining(cases) == {"ann": 460, "bob": 480}
    batch = await _batch(cases, opened)
    assert batch.closed_at is not None
    assert batch.report == Report(3)
    assert await _ops(cases, settings) == {f"{opened.batch_id}.{i}": 1 for i in range(3)}
    proof = await _verified(settings)
    assert (proof.holds, proof.open_batches) == (True, 0), proof.differences


async def test_what_fails_is_listed_and_stops_nobody_else(cases: openings.UseCases) -> None:
    """An unknown customer, feature or event, a refusal and a reused key are each named by their place."""
    other = CallerKey("track:body", "k", "bb")
    opened = await cases.batches.open(
        (
            _use("nobody"),
            _use("ann", feature="nothing"),
            Usage("track", "ann", None, "nothing", NANOS, Mode.CAP),
            _use("ann", 1000, mode=Mode.REJECT),
            _use("ann", 1, key=CallerKey("track:body", "k", "aa")),
            _use("ann", 2, key=other),
            _use("ann", 10**12),
            _use("bob", 1),
        )
    )
    await _work(cases)
    report = await _report(cases, opened)
    assert [(failure.index, failure.customer_id, failure.code) for failure in report.failures] == [
        (0, "nobody", "customer_not_found"),
        (1, "ann", "feature_not_found"),
        (2, "ann", "invalid_request"),
        (3, "ann", "insufficient_balance"),
        (5, "ann", "idempotency_key_reused"),
    ]
    assert report.failures[0] == Failure(0, "nobody", "customer_not_found", "Customer nobody not found")
    assert report.failures[3].message == "Insufficient balance to deduct 1000 from feature premium_messages"
    assert await _remaining(cases) == {"ann": 0, "bob": 490}


async def test_the_items_of_a_customer_go_in_their_order(cases: openings.UseCases) -> None:
    """First taken, then given back is not the same as first given back: a batch means what it says."""
    await cases.batches.open((_use("ann", -10), _use("ann", 50), _use("ann", -10), _use("ann", 5)))
    await _work(cases)
    page = await cases.history.events(
        customer_id="ann", feature_ids=(), start=None, end=None, limit=10, cursor=""
    )
    assert [event.value_nanos // NANOS for event in page.events] == [5, -10, 50, -10]
    assert (await _remaining(cases))["ann"] == 50


async def test_an_items_key_is_one_effect_with_a_track_of_that_key(cases: openings.UseCases) -> None:
    """A caller who tries again by batch what may have been taken by a track, or twice in a batch, pays once."""
    key = CallerKey("track:body", "order 7", "ff")
    await cases.meter.track(_use("ann", 1, key=key))
    opened = await cases.batches.open((_use("ann", 1, key=key), _use("bob", 1, key=key)) * 2)
    await _work(cases)
    assert (await _report(cases, opened)).failures == ()
    assert await _remaining(cases) == {"ann": 490, "bob": 490}


async def test_a_repeated_key_of_a_batch_keeps_one_batch(cases: openings.UseCases) -> None:
    """A caller who lost the answer sends the batch again and is told of the first one."""
    key = CallerKey("batch_track:header", "k", "aa")
    first = await cases.batches.open((_use("ann"),), key)
    again = await cases.batches.open((_use("ann"),), key)
    assert (again.batch_id, again.is_replay) == (first.batch_id, True)
    with pytest.raises(KeyReused):
        await cases.batches.open((_use("bob"),), CallerKey("batch_track:header", "k", "bb"))
    await _work(cases)
    assert await _remaining(cases) == {"ann": 490, "bob": 500}


async def test_too_many_open_batches_are_refused(
    cases: openings.UseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody works the batches off, callers are told to wait before Redis is full of them."""
    monkeypatch.setattr(batches, "OPEN_MAX", 2)
    for _ in range(2):
        await cases.batches.open((_use("ann"),))
    with pytest.raises(Conflict) as refused:
        await cases.batches.open((_use("ann"),))
    assert refused.value.code == "too_many_batches"
    await _work(cases)
    await cases.batches.open((_use("ann"),))


async def test_whoever_takes_over_sends_only_what_is_missing(
    cases: openings.UseCases, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sidecar that died in the middle of a batch, with part of it in SQL and part in the stream, is finished."""
    opened = await cases.batches.open(tuple(_use("ann") for _ in range(10)))
    await _work(cases, dies_after=4, monkeypatch=monkeypatch)
    await cases.flusher.flush_once()
    assert (await _remaining(cases))["ann"] == 460
    await _work_again(settings, dies_after=3, monkeypatch=monkeypatch)
    assert (await _remaining(cases))["ann"] == 430
    await _work_again(settings)
    assert (await _remaining(cases))["ann"] == 400
    assert await _ops(cases, settings) == {f"{opened.batch_id}.{i}": 1 for i in range(10)}
    assert (await _verified(settings)).holds


async def test_a_lease_lost_for_a_moment_doubles_nothing(
    cases: openings.UseCases,
    settings: Settings,
    redis: "Redis",
    stores: openings.Stores,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two sidecars that both believe to be the one that works never take an item twice."""
    original = cases.meter._store.track

    async def slow(**named: Any) -> Any:
        await asyncio.sleep(LEASE_MS / 1000 / 5)  # on its way, the lease may be lost
        return await original(**named)

    monkeypatch.setattr(cases.meter._store, "track", slow)
    opened = await cases.batches.open(tuple(_use(name) for name in ("ann", "bob") * 40))
    async with openings.open_use_cases(settings, settings.redis or "", stores) as other:

        async def lose_the_lease() -> None:
            while await cases.batches.waiting():
                await asyncio.sleep(LEASE_MS / 1000 * 1.3)
                await redis.delete(stores.keys.lease("batches"))

        async with asyncio.TaskGroup() as together:
            together.create_task(_work(cases))
            together.create_task(_work(other))
            together.create_task(lose_the_lease())
    assert await _ops(cases, settings) == {f"{opened.batch_id}.{i}": 1 for i in range(80)}
    assert await _remaining(cases) == {"ann": 100, "bob": 100}
    assert (await _verified(settings)).holds


async def test_a_call_of_an_earlier_holder_has_no_effect(
    cases: openings.UseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was paused past the end of its lease, and then goes on, is refused by Redis."""
    await cases.batches.open((_use("ann"),))
    lease = cases.batch_worker._lease
    assert await lease.hold()
    sent = lease.within(10**14)
    assert sent == lease._held_at + LEASE_MS
    await asyncio.sleep(LEASE_MS / 1000 * 1.5)
    with pytest.raises(Undecided):
        await cases.meter.track(_use("ann"), op_id="late", within=lambda not_after: min(not_after, sent))
    assert (await _remaining(cases))["ann"] == 500


async def test_a_customer_who_cannot_be_decided_holds_up_nobody_else(
    cases: openings.UseCases, settings: Settings, redis: "Redis", stores: openings.Stores
) -> None:
    """A record of a layout from the future keeps its items waiting, while all others, and later batches, are done."""
    await redis.hset(stores.keys.record("ann"), "v", "9")
    stuck = await cases.batches.open((_use("ann"), _use("bob"), _use("ann")))
    later = await cases.batches.open((_use("bob"),))
    await _until(cases, lambda open_ids: open_ids == {stuck.batch_id})
    assert (await _batch(cases, later)).closed_at is not None
    assert await _ops(cases, settings) == {f"{stuck.batch_id}.1": 1, f"{later.batch_id}.0": 1}
    await redis.hset(stores.keys.record("ann"), "v", "1")
    await _work(cases)
    assert await _remaining(cases) == {"ann": 480, "bob": 480}


async def test_a_bug_at_one_item_keeps_no_batch_open(
    cases: openings.UseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What crashes each time is listed as failed; where it crashes after its effect, the journal says it was taken."""
    track = cases.meter.track

    async def crash(usage: Usage, **how: Any) -> Decision:
        decision = await track(usage, **how)
        if usage.customer_id == "bob":
            raise TypeError("a bug after the effect")
        return decision

    async def taking(usage: Usage, taking: Any = cases.meter._taking) -> Any:
        if usage.value_nanos == 7 * NANOS:
            raise TypeError("a bug before the effect")
        return await taking(usage)

    monkeypatch.setattr(cases.meter, "track", crash)
    monkeypatch.setattr(cases.meter, "_taking", taking)
    opened = await cases.batches.open((_use("ann", 7), _use("bob", 1), _use("ann", 1)))
    with capture_logs() as logs:
        await _work(cases)
    assert [entry["index"] for entry in logs if entry["event"] == "batch_item_crashed"].count(0) == 3
    report = await _report(cases, opened)
    assert [(failure.index, failure.code) for failure in report.failures] == [(0, "internal_error")]
    assert await _remaining(cases) == {"ann": 490, "bob": 490}


async def test_an_item_is_found_though_the_clock_of_redis_was_set_back(
    cases: openings.UseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our estimate was ahead when the batch was begun; what was taken then is not taken again."""
    track, ahead_ms = cases.meter.track, CLOCK_MARGIN_MS + 1_000
    crashes = iter([TypeError("a bug after the effect")])

    async def crash(usage: Usage, **how: Any) -> Decision:
        decision = await track(usage, **how)
        for error in crashes:
            cases.clock.correct(cases.clock.now_ms() - ahead_ms)
            raise error
        return decision

    monkeypatch.setattr(cases.meter, "track", crash)
    monkeypatch.setattr(cases.batch_worker._lease, "within", lambda not_after: not_after)  # it is short here
    await cases.batches.open((_use("bob"),))
    cases.clock.correct(cases.clock.now_ms() + ahead_ms)
    await _work(cases)
    assert await _remaining(cases) == {"ann": 500, "bob": 490}


async def test_open_batches_survive_the_loss_of_redis(
    cases: openings.UseCases, settings: Settings, redis: "Redis"
) -> None:
    """After FLUSHALL the batches that were not worked off are open again, and no others."""
    done = await cases.batches.open((_use("ann"),))
    await _work(cases)
    opened = await cases.batches.open((_use("ann", 2), _use("bob", 3)))
    await cases.flusher.flush_once()
    await redis.flushall()
    await _work_again(settings)
    assert (await _batch(cases, opened)).closed_at is not None
    assert await _ops(cases, settings) == {
        f"{done.batch_id}.0": 1,
        f"{opened.batch_id}.0": 1,
        f"{opened.batch_id}.1": 1,
    }
    assert (await _verified(settings)).holds


async def test_verify_finds_a_batch_that_was_forgotten(
    cases: openings.UseCases, settings: Settings, redis: "Redis", stores: openings.Stores
) -> None:
    """A batch that the journal opened and Redis does not know would never be worked off: it is a difference."""
    opened = await cases.batches.open((_use("ann"),))
    await redis.hdel(stores.keys.batches(), opened.batch_id)
    for flush in (False, True):
        if flush:
            await cases.flusher.flush_once()
        proof = await _verified(settings)
        assert proof.differences == (f"batch {opened.batch_id}: Redis and the journal differ",)


async def test_verify_says_when_nobody_works(
    cases: openings.UseCases, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that has been open for long is usage that nobody has taken yet."""
    monkeypatch.setattr("creditgate.engine.verify.OVERDUE_MS", -60_000)
    opened = await cases.batches.open((_use("ann"),))
    proof = await _verified(settings)
    assert not proof.holds
    assert opened.batch_id in proof.differences[0]


async def test_the_list_of_batches(cases: openings.UseCases) -> None:
    """Open and closed, in the stream, in SQL and half in each: the newest first, each once, page by page."""
    first = await cases.batches.open((_use("ann"),))
    await _work(cases)
    second = await cases.batches.open((_use("nobody"), _use("bob")))
    await cases.flusher.flush_once()
    await _work(cases)
    third = await cases.batches.open((_use("ann"),))
    pages: list[Batch] = []
    cursor = ""
    for _ in range(3):
        page = await cases.batches.newest(limit=1, cursor=cursor)
        pages += page.batches
        cursor = page.next_cursor or ""
    assert cursor == ""
    assert [batch.id for batch in pages] == [third.batch_id, second.batch_id, first.batch_id]
    assert [batch.closed_at is None for batch in pages] == [True, False, False]
    assert pages[0].report is None
    assert pages[1].report is not None
    assert [failure.index for failure in pages[1].report.failures] == [0]
    assert pages[1].closed_at is not None
    assert pages[1].opened_at < pages[1].closed_at
    again = await cases.batches.newest(limit=9)
    await cases.flusher.flush_once()
    assert await cases.batches.newest(limit=9) == again
    assert list(again.batches) == pages


def _use(
    customer_id: str,
    units: int = 1,
    *,
    feature: str = "premium_messages",
    mode: Mode = Mode.CAP,
    key: CallerKey | None = None,
) -> Usage:
    return Usage("track", customer_id, feature, None, units * NANOS, mode, key=key)


async def _batch(cases: openings.UseCases, opened: Opened) -> Batch:
    (batch,) = (await cases.batches.newest(limit=1, batch_id=opened.batch_id)).batches
    return batch


async def _report(cases: openings.UseCases, opened: Opened) -> Report:
    report = (await _batch(cases, opened)).report
    assert report is not None
    return report


async def _work(
    cases: openings.UseCases, *, dies_after: int | None = None, monkeypatch: pytest.MonkeyPatch | None = None
) -> None:
    """Work until nothing is open, or until so many calls were sent: then the worker is gone without a word."""
    if dies_after is None:
        await _until(cases, lambda open_ids: not open_ids)
        return
    original, calls = cases.meter.track, Counter[str]()

    async def track(*args: Any, **named: Any) -> Decision:
        calls["sent"] += 1
        if calls["sent"] > dies_after:
            raise asyncio.CancelledError
        return await original(*args, **named)

    assert monkeypatch is not None
    with monkeypatch.context() as patched:
        patched.setattr(cases.meter, "track", track)
        with pytest.raises(asyncio.CancelledError):
            await _until(cases, lambda _: False)


async def _work_again(
    settings: Settings, *, dies_after: int | None = None, monkeypatch: pytest.MonkeyPatch | None = None
) -> None:
    """The same by another sidecar."""
    assert settings.redis is not None
    async with (
        openings.open_stores(settings, settings.redis, make=None) as stores,
        openings.open_use_cases(settings, settings.redis, stores) as cases,
    ):
        await cases.catalogs.refresh()
        await _work(cases, dies_after=dies_after, monkeypatch=monkeypatch)


async def _until(cases: openings.UseCases, is_enough: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_enough((await cases.batches.waiting()).keys()):
            await cases.batch_worker.round()
            await asyncio.sleep(0.01)


async def _remaining(cases: openings.UseCases) -> dict[str, int]:
    """What is left to each of the two, in cents."""
    found = {}
    for name in ("ann", "bob"):
        record = await cases.customers.get(name)
        found[name] = sum(record.balances.values()) * 100 // NANOS
    return found


async def _ops(cases: openings.UseCases, settings: Settings) -> dict[str, int]:
    """How often each item of a batch stands in SQL, once everything is there."""
    while await cases.flusher.flush_once():
        continue
    with sqlite3.connect(settings.data_dir / "ledger.db") as sql:
        rows = sql.execute("SELECT op_id FROM journal_items WHERE op_id LIKE 'bat%'").fetchall()
    return dict(Counter(row[0] for row in rows))


async def _verified(settings: Settings) -> Any:
    async with operations.open_verifier(settings) as verifier:
        return await verifier.verify()
