"""Coroutines run without a task, for calls that wait once: most of what a task costs is not needed for that.

What waits only for futures runs anywhere. What needs a task around it, because it uses `asyncio.timeout` or what does,
awaits `in_task()` before; from there on it has one, and it is the same coroutine.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")
Done = Callable[[T | None, BaseException | None], None]

_A_TASK = object()
_tasks: set[asyncio.Task[Any]] = set()  # the event loop itself does not keep them


def run(work: Coroutine[Any, Any, T], done: Done[T]) -> None:
    """Run a coroutine up to where it first waits, and go on as soon as that is there; `done` gets result or error.

    Must be called from the event loop. `done` is called once, perhaps before this returns, and must not raise.
    """
    if asyncio.current_task() is None:
        _go_on(work, done)
    else:  # that task is not the coroutine's
        asyncio.get_running_loop().call_soon(_go_on, work, done)


@coroutine
def in_task() -> Generator[Any, None, None]:
    """Return inside a task; await it where `asyncio.current_task()` must not be None."""
    if asyncio.current_task() is None:
        yield _A_TASK


def _go_on(work: Coroutine[Any, Any, T], done: Done[T]) -> None:
    """Step to where it waits next. What a future holds is not sent in: `Future.__await__` takes it out by itself."""
    try:
        waiting = work.send(None)
    except StopIteration as end:
        done(end.value, None)
    except BaseException as error:  # it belongs to whoever waits for the call
        done(None, error)
    else:
        if waiting is _A_TASK:
            _hand_over(work, done)
        elif isinstance(waiting, asyncio.Future):
            waiting._asyncio_future_blocking = False  # as a task does: it was seen
            waiting.add_done_callback(lambda _: _go_on(work, done))
        else:
            asyncio.get_running_loop().call_soon(_go_on, work, done)


def _hand_over(work: Coroutine[Any, Any, T], done: Done[T]) -> None:
    def ended(task: "asyncio.Task[T]") -> None:
        _tasks.discard(task)
        if task.cancelled():
            done(None, asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            done(None, error)
        else:
            done(task.result(), None)

    task = asyncio.get_running_loop().create_task(_rest(work))
    _tasks.add(task)
    task.add_done_callback(ended)


async def _rest(work: Coroutine[Any, Any, T]) -> T:
    return await _go_on_in_task(work)


@coroutine
def _go_on_in_task(work: Coroutine[Any, Any, T]) -> Generator[Any, None, T]:
    """Pass on what it waits for, and what it is woken with: `await` would refuse a coroutine that has begun."""
    failure: BaseException | None = None
    while True:
        try:
            waiting = work.send(None) if failure is None else work.throw(failure)
        except StopIteration as end:
            result: T = end.value
            return result
        failure = None
        try:
            yield waiting
        except BaseException as error:  # a cancellation is for the coroutine, too
            failure = error
