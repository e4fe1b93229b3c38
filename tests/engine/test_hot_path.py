"""check and track on the hot path: without a task they answer as with one, and many of them share one write."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from redis import Redis

from creditgate import openings
from creditgate.api import calls as api_calls
from creditgate.api.versions import SPLIT
from creditgate.balances.hot_connection import WRITE_CALLS
from creditgate.balances.wire import Call, Wire
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Decision, Mode
from creditgate.engine import stepping
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.keys import CallerKey
from creditgate.engine.usage import Usage
from creditgate.errors import CreditgateError
from tests.balances.relay import Relay
from tests.conformance.drivers.in_process import InProcess
from tests.engine.instants import SOON_MS, passed

KEY = CallerKey("track:header", "again", "cd" * 8)

T = TypeVar("T")
Verb = Callable[[openings.UseCases, str], Coroutine[Any, Any, Decision]]


class Seen(NamedTuple):
    """What a caller sees of a decision, without what differs between two customers."""

    allowed: bool
    required_nanos: int
    remaining: list[int]
    moved: list[int]
    is_replay: bool


def check(cases: openings.UseCases, customer_id: str) -> Coroutine[Any, Any, Decision]:
    return cases.meter.check(Usage("check", customer_id, "premium_messages", None, 3 * NANOS, Mode.REJECT))


def check_too_much(cases: openings.UseCases, customer_id: str) -> Coroutine[Any, Any, Decision]:
    return cases.meter.check(Usage("check", customer_id, "premium_messages", None, 900 * NANOS, Mode.REJECT))


def check_unknown_feature(cases: openings.UseCases, customer_id: str) -> Coroutine[Any, Any, Decision]:
    return cases.meter.check(Usage("check", customer_id, "nothing", None, NANOS, Mode.REJECT))


def check_unknown_customer(cases: openings.UseCases, customer_id: str) -> Coroutine[Any, Any, Decision]:
    return cases.meter.check(Usage("check", "nobody", "premium_messages", None, NANOS, Mode.REJECT))


def track(cases: openings.UseCases, customer_id: str, **more: Any) -> Coroutine[Any, Any, Decision]:
    fields: dict[str, Any] = {"feature_id": "premium_messages", "value_nanos": NANOS, "mode": Mode.CAP} | more
    return cases.meter.track(Usage(verb="track", customer_id=customer_id, event_name=None, **fields))


def track_refused(cases: openings.UseCases, customer_id: str) -> Coroutine[Any, Any, Decision]:
    return track(cases, customer_id, value_nanos=900 * NANOS, mode=Mode.REJECT)


def track_with_a_key(cases: openings.UseCases, customer_id: str) -> Coroutine[Any, Any, Decision]:
    return track(cases, customer_id, key=KEY)


def track_out_of_range(cases: openings.UseCases, customer_id: str) -> Coroutine[Any, Any, Decision]:
    return track(cases, customer_id, value_nanos=10**40)


def track_unknown_feature(cases: openings.UseCases, customer_id: str) -> Coroutine[Any, Any, Decision]:
    return track(cases, customer_id, feature_id="nothing")


VERBS = (
    check,
    check_too_much,
    check_unknown_feature,
    check_unknown_customer,
    track,
    track_refused,
    track_with_a_key,
    track_out_of_range,
    track_unknown_feature,
)


def by_hand(work: Coroutine[Any, Any, Decision]) -> "asyncio.Future[Decision]":
    """Run it without a task."""
    ended: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()

    def done(decision: Decision | None, error: BaseException | None) -> None:
        if decision is not None:
            ended.set_result(decision)
        else:
            assert error is not None
            ended.set_exception(error)

    stepping.run(work, done)
    return ended


async def seen(work: Any) -> Seen | tuple[str, str]:
    """What the caller of it sees: the decision, or the error."""
    try:
        decision: Decision = await work
    except CreditgateError as error:
        return error.code, error.message
    return Seen(
        decision.allowed,
        decision.required_nanos,
        sorted(decision.balances.values()),
        [moved.delta_nanos for moved in decision.moved],
        decision.is_replay,
    )


@pytest.mark.parametrize("verb", VERBS)
async def test_it_answers_the_same_without_a_task(cases: openings.UseCases, verb: Verb) -> None:
    """Both lanes must give the same answer to the same call, also when it comes again."""
    for customer_id in ("ann", "bob"):
        await cases.customers.get_or_create(customer_id, Profile())
    for _ in range(2):
        assert await seen(by_hand(verb(cases, "ann"))) == await seen(verb(cases, "bob"))


@pytest.mark.parametrize("verb", [check, track])
async def test_a_customer_for_whom_something_is_due(cases: openings.UseCases, verb: Verb) -> None:
    """Who asks first after a boundary is stepped over it, which needs a task, and answered from after it."""
    customers = ("ann", "bob")
    soon = cases.clock.now_ms() + SOON_MS
    for customer_id in customers:
        await cases.customers.get_or_create(customer_id, Profile())
        await cases.customers.grant(Grant(customer_id, "premium_messages", 7 * NANOS, expires_at=soon))
    before = cases.metrics.forward_steps
    await passed(cases, soon)
    assert await seen(by_hand(verb(cases, "ann"))) == await seen(verb(cases, "bob"))
    assert cases.metrics.forward_steps == before + len(customers)


@pytest.mark.parametrize("verb", [check, track, track_with_a_key, track_refused])
async def test_no_task_is_made(cases: openings.UseCases, verb: Verb) -> None:
    """A task for each call costs as much as the call itself."""
    await cases.customers.get_or_create("ann", Profile())
    await track(cases, "ann")  # the connection is there
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
        made.append(repr(work))
        return asyncio.Task(work, loop=loop, **more)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(make)
    try:
        await by_hand(verb(cases, "ann"))
    finally:
        loop.set_task_factory(None)
    assert made == []


@pytest.mark.parametrize("name", ["check", "entitled", "track", "events"])
async def test_a_call_of_an_older_route_goes_at_once(cases: openings.UseCases, name: str) -> None:
    """It differs from the verb's in its path alone. In the words of an older version it takes a coroutine."""
    await cases.customers.get_or_create("ann", Profile())
    verb = InProcess(cases).legacy[name]
    body = b'{"customer_id":"ann","feature_id":"basic_messages","value":0,"customer_data":{}}'
    if name in ("check", "entitled"):
        body = body.replace(b'"value"', b'"required_balance"')
    called = api_calls.Call(body, (), "")
    answers = [await at_once(verb, called) for _ in range(3)]
    assert answers == [await verb.handler(called)] * 3
    rest = verb.begun(api_calls.Call(body, (), "", SPLIT), lambda *_: None)
    assert rest is not None
    assert len((await rest).body) < len(answers[0].body)


@pytest.fixture
async def relay(tmp_path: Path, valkey_socket: str) -> AsyncIterator[Relay]:
    """A relay in front of the Valkey."""
    async with Relay(valkey_socket, tmp_path / "r") as relay:
        yield relay


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each write to Redis had."""
    seen: list[int] = []
    write = Wire.write

    def counted(wire: Wire, calls: Iterable[Call]) -> None:
        calls = list(calls)
        seen.append(len(calls))
        write(wire, calls)

    monkeypatch.setattr(Wire, "write", counted)
    return seen


@pytest.mark.usefixtures("patient")
async def test_redis_begins_before_a_long_tick_is_over(cases: openings.UseCases, valkey_socket: str) -> None:
    """While we go through the calls of a tick it would have nothing to do, and then we would wait for it."""
    customers = [f"customer_{number}" for number in range(2 * WRITE_CALLS)]
    for customer_id in customers:
        await cases.customers.get_or_create(customer_id, Profile())
    await by_hand(track(cases, customers[0]))  # the catalog is there
    with Redis(unix_socket_path=valkey_socket) as redis:
        before = scripts_run(redis)

        def turn() -> tuple[int, list[asyncio.Future[Decision]]]:
            calls = [by_hand(track(cases, customer_id)) for customer_id in customers]
            until = time.monotonic() + 5  # in which the event loop does nothing else
            while (begun := scripts_run(redis) - before) < WRITE_CALLS and time.monotonic() < until:
                time.sleep(0.001)
            return begun, calls

        begun, calls = await in_one_turn(turn)
        await asyncio.gather(*calls)
        assert (begun, scripts_run(redis) - before) == (WRITE_CALLS, len(customers))


async def test_a_call_does_not_go_with_one_that_is_written(cases: openings.UseCases) -> None:
    """Another of its customer in the same tick, behind those that went before the tick was over, goes by itself."""
    customers = [f"customer_{number}" for number in range(WRITE_CALLS + 1)]
    for customer_id in customers:
        await cases.customers.get_or_create(customer_id, Profile())
    before = await by_hand(track(cases, customers[0]))
    calls = await in_one_turn(lambda: [by_hand(track(cases, one)) for one in [*customers, customers[0]]])
    *_, last = await asyncio.gather(*calls)
    assert sum(before.balances.values()) - sum(last.balances.values()) == 2 * -before.moved[0].delta_nanos


async def at_once(verb: api_calls.Verb, call: api_calls.Call) -> api_calls.Answer:
    """Return the answer to a call that begins without a coroutine."""
    ended: asyncio.Future[api_calls.Answer] = asyncio.get_running_loop().create_future()

    def done(answer: api_calls.Answer | None, _: BaseException | None) -> None:
        assert answer is not None
        ended.set_result(answer)

    assert verb.begun(call, done) is None
    return await ended


async def in_one_turn(work: Callable[[], T]) -> T:
    """Do work as the event loop's callbacks are done, outside of any task, and return what it returns."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    loop.call_soon(lambda: done.set_result(work()))
    return await done


def scripts_run(redis: Redis) -> int:
    """Return how many calls of scripts there were so far."""
    called: Any = redis.info("commandstats")
    return sum(called.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in ("evalsha", "eval"))


@pytest.mark.usefixtures("patient")
async def test_calls_of_unlike_customers_share_writes(cases: openings.UseCases, writes: list[int]) -> None:
    """Each write is a call of the system on both sides; a tick of 32 calls has four."""
    customers = [f"customer_{number}" for number in range(4 * WRITE_CALLS)]
    for customer_id in customers:
        await cases.customers.get_or_create(customer_id, Profile())
    await by_hand(track(cases, customers[0]))
    writes.clear()
    await asyncio.gather(*(by_hand(track(cases, customer_id)) for customer_id in customers))
    assert writes == [WRITE_CALLS] * 4


@pytest.mark.usefixtures("patient")
async def test_calls_of_one_tick_share_a_write(
    settings: Any,
    stores: openings.Stores,
    relay: Relay,
    tmp_path: Path,
    cases: openings.UseCases,
    writes: list[int],
) -> None:
    """At 64 calls at once, Redis is written to once, and those of one customer are one command."""
    customers = [f"customer_{number}" for number in range(2 * WRITE_CALLS)]
    for customer_id in customers:
        await cases.customers.get_or_create(customer_id, Profile())
    async with openings.open_use_cases(settings, f"unix://{tmp_path / 'r'}", stores) as behind:
        for _ in range(2):  # after the first, the server knows the script for several
            await asyncio.gather(*(by_hand(track(behind, customers[0])) for _ in range(2)))
        pieces, scripts = len(relay.pieces), relay.scripts
        writes.clear()
        calls = [by_hand((check, track)[number % 2](behind, customers[number // 4])) for number in range(64)]
        await asyncio.gather(*calls)
        assert relay.scripts - scripts == len(customers)
        assert len(relay.pieces) - pieces == 1
        assert writes == [len(customers)]
