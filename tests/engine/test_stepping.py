"""Coroutines that run without a task: what they return and raise is the same, wherever they go on."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from creditgate.engine import stepping

Work = Callable[[], Coroutine[Any, Any, str]]


async def at_once() -> str:
    return "at once"


async def after_a_future() -> str:
    waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(waiting.set_result, "woken")
    return await waiting


async def after_a_turn() -> str:
    await asyncio.sleep(0)
    return "a turn later"


async def in_a_task() -> str:
    first = await after_a_future()
    await stepping.in_task()
    await stepping.in_task()  # is there already
    async with asyncio.timeout(10):
        await asyncio.sleep(0)
        return first + await asyncio.to_thread(lambda: " in a thread")


async def out_of_time() -> str:
    await stepping.in_task()
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
    except TimeoutError:
        return "out of time"
    return "slept"


async def raising() -> str:
    raise LookupError("at once")


async def raising_later() -> str:
    await after_a_future()
    raise LookupError("later")


async def raising_in_a_task() -> str:
    await stepping.in_task()
    await asyncio.sleep(0)
    raise LookupError("in a task")


def by_hand(work: Coroutine[Any, Any, str]) -> Awaitable[str]:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def done(result: str | None, error: BaseException | None) -> None:
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result or "")

    stepping.run(work, done)
    return ended


@pytest.mark.parametrize("work", [at_once, after_a_future, after_a_turn, in_a_task, out_of_time])
async def test_it_returns_what_a_task_would(work: Work) -> None:
    """A hot call must be answered the same whether it waited, needed a task, or neither."""
    assert await by_hand(work()) == await work()


@pytest.mark.parametrize("work", [raising, raising_later, raising_in_a_task])
async def test_it_raises_what_a_task_would(work: Work) -> None:
    """An error has to reach whoever answers the call, or the caller waits for ever."""
    with pytest.raises(LookupError) as expected:
        await work()
    with pytest.raises(LookupError, match=str(expected.value)):
        await by_hand(work())


async def test_a_future_that_fails_or_is_cancelled_is_felt() -> None:
    """What a lost connection does to a call in flight must end the call."""
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait(waiting: "asyncio.Future[str]") -> str:
        return await waiting

    first, second = by_hand(wait(lost)), by_hand(wait(given_up))
    lost.set_exception(ConnectionResetError())
    given_up.cancel()
    with pytest.raises(ConnectionResetError):
        await first
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_no_task_is_made_where_none_is_needed() -> None:
    """That is what it is for."""
    before = asyncio.all_tasks()
    ended = by_hand(after_a_future())
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert await ended == "woken"
