"""What each process of a sidecar does, and `serve`, which starts them.

- The *supervisor* is the process that was started: it binds the sockets, forks the others and ends them
  (`supervisor.py`).
- The *background process* has the embedded Valkey, and does what one process does for all: it brings Redis up to SQL,
  flushes the journal, sweeps, works off batches, posts the spool, delivers webhooks. So none of that takes time from
  a call.
- Each *worker* answers calls, on the listening sockets that all workers share.

With no workers at all, one process does everything.
"""

import asyncio
import gc
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import NamedTuple

import uvloop

from creditgate.background import auditing, background_work, posting, retaining, upkeep
from creditgate.balances.store import BalanceStore
from creditgate.core.catalog_file import CatalogFile
from creditgate.engine import demo
from creditgate.engine.instance import PARTITIONS, Instance
from creditgate.listening import listening_sockets
from creditgate.openings import (
    Stores,
    UseCases,
    embedded_redis,
    open_stores,
    open_use_cases,
)
from creditgate.server import answer_calls
from creditgate.settings import Environment, Settings
from creditgate.supervisor import SIGNALS, STOP_SECONDS_MAX, Line, Place, supervising
from creditgate.telemetry import logger
from creditgate.telemetry.siblings import Siblings

log = logger(__name__)

# Calls leave no cycles behind, and to look for some after each 700 objects would be a tenth of their time.
GARBAGE_THRESHOLDS = (20_000, 20, 20)

Announce = Callable[[str, Path], None]


class First(NamedTuple):
    """What is done at the start of the sidecar, before the first call is answered."""

    catalog: CatalogFile | None = None
    load_demo: bool = False


def serve(settings: Settings, first: First, announce: Announce) -> None:
    """Run the sidecar until SIGTERM or SIGINT. `announce` is told the base URL and the key file when it answers.

    Raises StartupError, in one sentence, where it cannot start.
    """
    BalanceStore.merging()  # the scripts of calls are linked here, and so once for all processes
    # What was imported stays. A full collection that looked through it would hold up calls for 60 ms, and give each
    # forked process a copy of it.
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    with listening_sockets(
        settings.host, settings.port, settings.unix_socket, open_to_network=settings.open_to_network
    ) as sockets:
        base_url = f"http://{settings.host}:{sockets[0].getsockname()[1]}"

        def answers() -> None:
            announce(base_url, settings.key_file)

        if settings.workers == 0:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_do_everything(settings, first, sockets, answers))
        else:
            _supervise(settings, first, sockets, answers)


def _supervise(
    settings: Settings, first: First, sockets: list[socket.socket], answers: Callable[[], None]
) -> None:
    with (
        TemporaryDirectory(prefix="creditgate-", ignore_cleanup_errors=True) as directory,
        supervising() as supervisor,
    ):
        numbers = Path(directory)
        background = Place("background", partial(_work_in_background, settings, first, numbers))
        workers: list[Place] = []
        try:
            if (started := supervisor.start([background])) is None:
                return
            background.work = partial(_work_in_background, settings, First(), numbers)
            [redis_url] = started
            workers = [
                Place(name, partial(_answer_calls, settings, redis_url, sockets, numbers, name))
                for name in (f"worker-{number}" for number in range(1, settings.workers + 1))
            ]
            if supervisor.start(workers) is not None:
                answers()
                supervisor.watch()
        finally:
            supervisor.end(workers, seconds_max=STOP_SECONDS_MAX)
            # What they wrote last has to reach SQL, even if who does that was killed a moment ago.
            if workers:
                supervisor.revive(background, seconds_max=STOP_SECONDS_MAX)
            supervisor.end([background], seconds_max=None)  # nobody hurries the last flush


async def _work_in_background(settings: Settings, first: First, numbers: Path, line: Line) -> None:
    line.orphaned = partial(rmtree, numbers, ignore_errors=True)
    async with AsyncExitStack() as opened:
        redis_url = await opened.enter_async_context(embedded_redis(settings))
        stores, cases = await _opened(opened, settings, redis_url)
        siblings = Siblings(numbers, "background", cases.metrics)
        await opened.enter_async_context(siblings.answering())
        await opened.enter_async_context(background_work(cases, stores.redis))
        await opened.enter_async_context(auditing(settings, stores, cases))
        await opened.enter_async_context(retaining(settings, stores))
        await opened.enter_async_context(posting(cases))
        await _begin(settings, first, stores, cases)
        line.ready(redis_url)
        await line.stopped()


async def _answer_calls(
    settings: Settings, redis_url: str, sockets: list[socket.socket], numbers: Path, name: str, line: Line
) -> None:
    async with AsyncExitStack() as opened:
        stores, cases = await _opened(opened, settings, redis_url, is_made=True)
        await cases.access.follow()  # so that callers are known, too, if Redis is away from now on
        siblings = Siblings(numbers, name, cases.metrics)
        await opened.enter_async_context(siblings.answering())
        await opened.enter_async_context(upkeep(cases, stores.redis))
        await answer_calls(
            settings,
            stores,
            cases,
            sockets,
            siblings=siblings,
            started=line.ready,
            stopped=line.stopped,
        )


async def _do_everything(
    settings: Settings, first: First, sockets: list[socket.socket], answers: Callable[[], None]
) -> None:
    async with AsyncExitStack() as opened:
        redis_url = await opened.enter_async_context(embedded_redis(settings))
        stores, cases = await _opened(opened, settings, redis_url)
        await opened.enter_async_context(background_work(cases, stores.redis))
        await opened.enter_async_context(retaining(settings, stores))
        await opened.enter_async_context(posting(cases))
        await _begin(settings, first, stores, cases)
        stopping = asyncio.Event()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await answer_calls(
            settings, stores, cases, sockets, siblings=None, started=answers, stopped=stopping.wait
        )


async def _opened(
    opened: AsyncExitStack, settings: Settings, redis_url: str, *, is_made: bool = False
) -> tuple[Stores, UseCases]:
    """Return the stores and use cases; `is_made`: another process of this sidecar has made and migrated the data."""
    make = None if is_made else (Environment.TEST, PARTITIONS)
    stores = await opened.enter_async_context(
        open_stores(settings, redis_url, make=make, migrate=not is_made)
    )
    return stores, await opened.enter_async_context(open_use_cases(settings, redis_url, stores))


async def _begin(settings: Settings, first: First, stores: Stores, cases: UseCases) -> None:
    """Do what comes before the first call."""
    await _write_first_key(settings, stores.instance, cases)
    if first.catalog is not None:
        applied = await cases.catalogs.apply(first.catalog, now_ms=cases.clock.now_ms())
        for change in applied.changes:
            log.info("catalog_changed", file=first.catalog.name, change=str(change))
    if first.load_demo:
        await demo.load(cases.catalogs, cases.clock.now_ms())


async def _write_first_key(settings: Settings, instance: Instance, cases: UseCases) -> None:
    """Make the first API key of new data and keep it in the data directory."""
    secret = await cases.access.first_key(instance.environment, cases.clock.now_ms())
    if secret is not None:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(settings.key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
