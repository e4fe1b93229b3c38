"""Calls that are sent again with their key: each is told what it moved then, wherever its entry is by now."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from creditgate import openings
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Decision, Mode
from creditgate.core.journal import StreamId
from creditgate.engine import entry_reader, prune
from creditgate.engine.customers import Profile
from creditgate.engine.entry_reader import EntryReader
from creditgate.engine.keys import CallerKey
from creditgate.engine.usage import Usage, UsageUndecided
from creditgate.ledger.database import LedgerUnavailable
from creditgate.ledger.entries import PLACES_MAX, EntryPlace
from creditgate.settings import Settings
from tests.engine.fault_proxy import FaultProxy

CALLS = PLACES_MAX + 6
CUSTOMERS = ("ann", "bob", "cem")


def usages(verb: str = "track") -> list[Usage]:
    """Calls of several customers, which differ in what they take."""
    return [
        Usage(
            verb,
            CUSTOMERS[number % len(CUSTOMERS)],
            "basic_messages",
            None,
            number * NANOS // 1_000,
            Mode.CAP,
            key=CallerKey(f"{verb}:header", f"k{number}", "aa"),
        )
        for number in range(1, CALLS + 1)
    ]


async def sent(cases: openings.UseCases, wanted: Sequence[Usage]) -> list[Decision]:
    return await asyncio.gather(*(cases.meter.track(usage) for usage in wanted))


def moved(answers: Sequence[Decision]) -> list[list[tuple[str, int]]]:
    return [[(part.row_id, part.delta_nanos) for part in answer.moved] for answer in answers]


@pytest.fixture
async def made(cases: openings.UseCases) -> openings.UseCases:
    """Customers of several partitions."""
    for customer_id in CUSTOMERS:
        await cases.customers.get_or_create(customer_id, Profile())
    return cases


@pytest.mark.parametrize("verb", ["track", "check"])
async def test_a_storm_is_answered_as_the_first_time(made: openings.UseCases, verb: str) -> None:
    """From the stream, from SQL, and where it is half here and half there; balances are those of now."""
    wanted = usages(verb)
    first = await sent(made, wanted[: CALLS // 2])
    await made.flusher.flush_once()
    first += await sent(made, wanted[CALLS // 2 :])
    assert all(moved(first))
    for _ in ("half", "all"):
        again = await sent(made, wanted)
        assert all(answer.is_replay and answer.allowed for answer in again)
        assert moved(again) == moved(first)
        now = {name: (await made.customers.get(name)).balances for name in CUSTOMERS}
        for usage, answer in zip(wanted, again, strict=True):
            assert answer.balances.items() <= now[usage.customer_id].items()
        await made.flusher.flush_once()
    assert not [entry for name in CUSTOMERS for entry in await made.history.tail_of(name)]
    assert moved(await sent(made, wanted)) == moved(first)


async def test_who_is_made_again_replays_nothing(made: openings.UseCases) -> None:
    """The key of a deleted customer is new for who comes after; and then it is that call's."""
    (usage,) = usages()[:1]
    await sent(made, [usage])
    await made.customers.delete("bob")
    await made.customers.get_or_create("bob", Profile())
    (first,) = await sent(made, [usage])
    assert not first.is_replay
    for _ in ("stream", "SQL"):
        (again,) = await sent(made, [usage])
        assert again.is_replay
        assert moved([again]) == moved([first]) != [[]]
        await made.flusher.flush_once()


@pytest.mark.usefixtures("soon_alone")
async def test_an_entry_that_was_pruned_moved_nothing(
    made: openings.UseCases, stores: openings.Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still a replay without an effect, though nobody can say any more what it took."""
    monkeypatch.setattr(prune, "RETAINED_MS", 0)
    wanted, *later = (
        usages()[:2],
        usages()[3:5],
        usages()[6:8],
    )  # what each row had before the last stays in SQL
    await sent(made, wanted)
    for those in later:
        await asyncio.sleep(0.005)
        await sent(made, those)
    await made.flusher.flush_once()
    before = {name: (await made.customers.get(name)).balances for name in CUSTOMERS}
    await prune.prune(stores.redis, stores.keys, stores.ledger, made.clock.now_ms(), lambda _: None)
    again = await sent(made, wanted)
    assert [(answer.is_replay, answer.moved) for answer in again] == [(True, ())] * 2
    assert {name: (await made.customers.get(name)).balances for name in CUSTOMERS} == before


async def test_a_read_without_an_answer_leaves_it_undecided(
    settings: Settings, stores: openings.Stores, made: openings.UseCases, proxy: FaultProxy
) -> None:
    """Nobody is told that nothing was moved because Redis did not say what was; the next retry is told."""
    (usage,) = usages()[:1]
    first = await sent(made, [usage])
    async with openings.open_use_cases(settings, proxy.url, stores) as cases:
        proxy.lose_reply_to(b"XRANGE")
        with pytest.raises(UsageUndecided):
            await cases.meter.track(usage)
        assert proxy.faults == 1
        assert moved(await sent(cases, [usage])) == moved(first)


async def test_no_read_answers_what_was_asked_for_after_it_began(
    made: openings.UseCases, stores: openings.Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that left the stream while a read was under way is found by the next one, for all who wait."""
    loop, read, reads = asyncio.get_running_loop(), stores.ledger.entries_at, 0
    await sent(made, usages()[:1])
    tail = await made.history.tail_of("bob")
    place: EntryPlace = (tail[-1].partition, tail[-1].stream_id)
    reader = EntryReader(stores.ledger)
    others: list[asyncio.Task[object]] = []

    def read_and_ask_again(places: Sequence[EntryPlace]) -> object:
        nonlocal reads
        reads += 1
        found = read(places)
        if reads == 1:
            asyncio.run_coroutine_threadsafe(flush_and_ask(), loop).result()
        return found

    async def flush_and_ask() -> None:
        await made.flusher.flush_once()
        others.extend(asyncio.create_task(reader.at(place)) for _ in range(3))
        others[0].cancel()
        await asyncio.sleep(0)

    monkeypatch.setattr(stores.ledger, "entries_at", read_and_ask_again)
    assert await reader.at(place) is None
    assert await asyncio.gather(*others[1:]) == [tail[-1]] * 2
    assert reads == 2


@pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "silent"])
async def test_sql_that_cannot_be_read_fails_those_who_wait(
    stores: openings.Stores, monkeypatch: pytest.MonkeyPatch, is_silent: bool
) -> None:
    """Each gets an error of its own, all at once if SQL says nothing, and the next one is read for again."""
    reader, place = EntryReader(stores.ledger), ("p00", StreamId(1, 0))
    monkeypatch.setattr(entry_reader, "DEADLINE_S", 0.1)
    is_over, reads = threading.Event(), []

    def away(places: Sequence[EntryPlace]) -> None:
        reads.append(len(places))
        if is_silent:
            is_over.wait(10)
        raise LedgerUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(stores.ledger, "entries_at", away)
        many = (reader.at(("p00", StreamId(1, number))) for number in range(2 * PLACES_MAX))
        failed = await asyncio.gather(*many, return_exceptions=True)
    assert reads == [PLACES_MAX] * (1 if is_silent else 2)
    assert {type(error) for error in failed} == {LedgerUnavailable}
    assert len({id(error) for error in failed}) == len(failed)
    monkeypatch.undo()
    assert await reader.at(place) is None
    is_over.set()
