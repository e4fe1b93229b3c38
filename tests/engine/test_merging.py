"""Calls of one customer that go to Redis as one: each keeps its own answer, its own history and its own fate."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from creditgate import openings, operations
from creditgate.balances.merging import CALLS_MAX
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Decision, Mode
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.keys import CallerKey
from creditgate.engine.usage import Usage
from creditgate.errors import CreditgateError, KeyReused, Undecided
from creditgate.settings import Settings
from tests.balances.relay import Relay
from tests.engine.fault_proxy import FaultProxy

OCCURRED_AT = 1_700_000_000_000
Answered = Decision | BaseException


@pytest.fixture
async def relay(tmp_path: Path, valkey_socket: str) -> AsyncIterator[Relay]:
    """A relay in front of the Valkey."""
    async with Relay(valkey_socket, tmp_path / "r") as relay:
        yield relay


@pytest.fixture
async def made(cases: openings.UseCases) -> openings.UseCases:
    """A customer with 1005 credits, and the merged script known to the server."""
    await cases.customers.get_or_create("ann", Profile())
    await cases.customers.grant(Grant("ann", "usd_credits", 1_000 * NANOS))
    return cases


def usage(number: int = 1, **more: object) -> Usage:
    fields: dict[str, object] = {"mode": Mode.CAP, "value_nanos": number * NANOS} | more
    return Usage("track", "ann", "premium_messages", None, **fields)  # type: ignore[arg-type]


def key(text: str, fingerprint: str = "aa") -> CallerKey:
    return CallerKey("track:header", text, fingerprint)


async def at_once(cases: openings.UseCases, usages: Sequence[Usage]) -> list[Answered]:
    return await asyncio.gather(*map(cases.meter.track, usages), return_exceptions=True)


def moved(decision: Answered) -> list[int]:
    assert isinstance(decision, Decision), decision
    return [part.delta_nanos for part in decision.moved]


async def remaining(cases: openings.UseCases) -> int:
    return sum((await cases.customers.get("ann")).balances.values())


async def test_each_call_is_its_own_in_the_history(made: openings.UseCases, settings: Settings) -> None:
    """Whether still in the stream or in SQL: a line, an event, a key and a proof for each, as if it had come alone."""
    usages = [
        usage(
            number,
            properties=f'{{"model":"m{number % 3}"}}',
            occurred_at=OCCURRED_AT + number,
            key=key(f"k{number}"),
        )
        for number in range(1, 41)
    ]
    answers = await at_once(made, usages)
    entries = await made.history.tail_of("ann")
    assert sum(item.call is not None for item in entries[-1].items) == len(usages)
    assert [sum(moved(answer)) for answer in answers] == [-number * NANOS // 10 for number in range(1, 41)]

    for flushed in (False, True):
        if flushed:
            await made.flusher.flush_once()
            assert not await made.history.tail_of("ann")
        page = await made.history.events(customer_id="ann", limit=100)
        assert [(event.timestamp, event.value_nanos, event.properties) for event in page.events] == [
            (one.occurred_at, one.value_nanos, one.properties) for one in reversed(usages)
        ]
        assert [[-taken for _, taken in event.deductions] for event in page.events] == [
            moved(answer) for answer in reversed(answers)
        ]
        assert len({event.id for event in page.events}) == len(usages)
        few = await made.history.events(customer_id="ann", properties=(("model", "m0"),), limit=5)
        assert [event.value_nanos // NANOS for event in few.events] == [39, 36, 33, 30, 27]
        lines = (await made.statements.of("ann", since=0, limit=100)).lines
        changes = [nanos for answer in answers for nanos in moved(answer)]
        assert [line.change_nanos for line in lines][-len(changes) :] == changes
        assert lines[-1].remaining_nanos == await remaining(made)
        again = await at_once(made, usages)
        assert [moved(answer) for answer in again] == [moved(answer) for answer in answers]
        assert all(isinstance(answer, Decision) and answer.is_replay for answer in again)
        others = await at_once(made, [usage(number, key=key(f"k{number}", "bb")) for number in (1, 2, 3)])
        assert [type(answer) for answer in others] == [KeyReused] * 3
    await made.flusher.flush_once()
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify(lambda _: None)
    assert proof.holds, proof.differences


async def test_no_more_go_together_than_the_script_takes(
    settings: Settings, stores: openings.Stores, made: openings.UseCases, relay: Relay, tmp_path: Path
) -> None:
    """What is over goes in the next script, also where the calls are large; who has left is not sent."""
    async with openings.open_use_cases(settings, f"unix://{tmp_path / 'r'}", stores) as behind:
        for number in (1, 2):  # so that the server knows both scripts
            await at_once(behind, [usage()] * number)
        for usages, scripts in (
            ([usage()] * CALLS_MAX, 1),
            ([usage()] * (2 * CALLS_MAX + 1), 3),
            ([usage(properties=f'{{"text":"{"x" * 4_000}"}}')] * 20, 2),
            ([usage()], 1),
        ):
            before, left = relay.scripts, await remaining(made)
            await at_once(behind, usages)
            assert relay.scripts - before == scripts
            assert await remaining(made) == left - len(usages) * NANOS // 10
        left = await remaining(made)
        tasks = [asyncio.ensure_future(behind.meter.track(usage())) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks[:2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer).__name__ for answer in answers] == ["CancelledError"] * 2 + ["Decision"] * 3
        assert await remaining(made) == left - 3 * NANOS // 10


async def test_what_is_refused_alone_is_refused_alone(made: openings.UseCases) -> None:
    """A call that is refused, is nonsense, or names nobody harms none of those that it goes with."""
    usages = [
        usage(),
        usage(100_000, mode=Mode.REJECT),
        usage(entity_id="nobody"),
        usage(key=key("k")),
        usage(2, key=key("k", "bb")),
        usage(key=key("k")),
        usage(2),
    ]
    answers = await at_once(made, usages)
    said = [
        answer.code if isinstance(answer, CreditgateError) else getattr(answer, "allowed", answer)
        for answer in answers
    ]
    assert said == [True, False, "entity_not_found", True, "idempotency_key_reused", True, True]
    assert [moved(answers[number]) for number in (0, 3, 5, 6)] == [
        [-NANOS // 10],
        [-NANOS // 10],
        [-NANOS // 10],
        [-NANOS // 5],
    ]


async def test_a_lost_reply_is_looked_up_for_each(
    settings: Settings, stores: openings.Stores, made: openings.UseCases, proxy: FaultProxy
) -> None:
    """Each is found by its own op id, and answered with what it took itself; none is taken twice."""
    async with openings.open_use_cases(settings, proxy.url, stores) as behind:
        await at_once(behind, [usage(), usage()])
        before = await remaining(made)
        proxy.lose_reply_to(b"EVALSHA")
        answers = await at_once(behind, [usage(number) for number in range(1, 6)])
        assert proxy.faults == 1
        assert [moved(answer) for answer in answers] == [[-number * NANOS // 10] for number in range(1, 6)]
        assert await remaining(made) == before - 15 * NANOS // 10


async def test_what_arrives_late_is_sent_again_by_each(
    settings: Settings, stores: openings.Stores, made: openings.UseCases, proxy: FaultProxy
) -> None:
    """A merge that stalls past its calls' not_after writes nothing; the second attempt of each is its only effect."""
    async with openings.open_use_cases(settings, proxy.url, stores) as behind:
        await at_once(behind, [usage(), usage()])
        before = await remaining(made)
        proxy.hold_back(b"EVALSHA", 0.5)
        answers = await at_once(behind, [usage(number) for number in range(1, 6)])
        assert proxy.faults == 1
        assert [moved(answer) for answer in answers] == [[-number * NANOS // 10] for number in range(1, 6)]
        assert await remaining(made) == before - 15 * NANOS // 10


async def test_redis_away_is_undecided_for_each(
    settings: Settings, stores: openings.Stores, made: openings.UseCases, proxy: FaultProxy
) -> None:
    """A merge that cannot be sent, or gets an error, fails each of its calls as it would alone."""
    async with openings.open_use_cases(settings, proxy.url, stores) as behind:
        await at_once(behind, [usage(), usage()])
        await proxy.__aexit__()
        answers = await at_once(behind, [usage()] * 5)
        assert [isinstance(answer, Undecided) for answer in answers] == [True] * 5
