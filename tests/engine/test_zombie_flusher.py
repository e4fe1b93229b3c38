"""A flusher that is stopped (SIGSTOP) in the middle of its work, and woken after its successor took over."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy
from redis.asyncio import Redis

from creditgate import openings, operations
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Mode
from creditgate.engine import demo
from creditgate.engine.customers import Profile
from creditgate.engine.usage import Usage
from creditgate.ledger.database import Database
from creditgate.settings import Environment, Settings

TRACKS = 20
SECONDS_MAX = 20.0

# Flushes until it is stopped for good, and stops itself the first time that it is at the place named. It says what
# became of each batch.
ZOMBIE = """
import asyncio, os, signal, sys, time
from pathlib import Path
from creditgate import background, openings, operations
from creditgate.ledger import database, store
from creditgate.settings import Settings

place, data_dir, redis, url = sys.argv[1:]
database.WRITER_IDLE_MS = 300
openings.FLUSH_LEASE_MS = 500
stops = [signal.SIGSTOP]
append, write = store.Ledger.append, store.listing.write

def stop():
    if stops:
        os.kill(os.getpid(), stops.pop())
        time.sleep(0.2)  # the signal may reach another thread first

def told_append(self, batches, **named):
    if place == "before":
        stop()
    try:
        append(self, batches, **named)
        print("stored", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
        raise

def stopping_write(*arguments):
    write(*arguments)
    if place == "in":
        stop()

store.Ledger.append, store.listing.write = told_append, stopping_write

async def main():
    settings = Settings(data_dir=Path(data_dir), redis=redis, database=url)
    async with openings.open_stores(settings, redis, make=None) as stores:
        async with openings.open_use_cases(settings, redis, stores) as cases:
            await cases.flusher.run()

asyncio.run(main())
"""


# Where it is stopped: before its transaction, or within. SQLite takes no lock from a process that is stopped.
PLACES = [("sqlite", "before"), ("postgresql", "before"), ("postgresql", "in")]


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, valkey_socket: str, redis: "Redis") -> Settings:
    """Settings of a sidecar on the empty Valkey, and on each database."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgresql").empty()
    return Settings(data_dir=tmp_path, redis=f"unix://{valkey_socket}", database=url)


@pytest.fixture
async def used(settings: Settings) -> AsyncIterator[openings.UseCases]:
    """A customer with some tracks, of which nothing is in SQL."""
    assert settings.redis is not None
    async with (
        openings.open_stores(settings, settings.redis, make=(Environment.TEST, 8)) as stores,
        openings.open_use_cases(settings, settings.redis, stores) as cases,
    ):
        await demo.load(cases.catalogs, cases.clock.now_ms())
        await cases.customers.get_or_create("ann", Profile())
        for _ in range(TRACKS):
            await cases.meter.track(Usage("track", "ann", "basic_messages", None, NANOS, Mode.CAP))
        yield cases


@pytest.mark.parametrize(("settings", "place"), PLACES, indirect=["settings"])
async def test_a_zombie_commits_nothing(used: openings.UseCases, settings: Settings, place: str) -> None:
    """Stopped before or within its transaction, it holds up nobody for long, and every row is there once."""
    assert settings.redis is not None
    arguments = [place, str(settings.data_dir), settings.redis, settings.database_url]
    zombie = subprocess.Popen([sys.executable, "-c", ZOMBIE, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        await asyncio.to_thread(_wait_stopped, zombie)
        deadline = time.monotonic() + SECONDS_MAX
        while not await used.flusher._lease.hold():
            assert time.monotonic() < deadline, "the successor does not get the lease"
            await asyncio.sleep(0.05)
        assert await used.flusher.flush_once() >= TRACKS
        os.kill(zombie.pid, signal.SIGCONT)
        assert zombie.stdout is not None
        said = (await asyncio.to_thread(zombie.stdout.readline)).strip()
    finally:
        zombie.kill()
        zombie.communicate()
    assert said == {"before": "PositionMoved", "in": "LedgerUnavailable"}[place]
    assert _uses(settings) == TRACKS
    async with operations.open_verifier(settings) as verifier:
        assert (await verifier.verify()).holds


def _wait_stopped(process: "subprocess.Popen[str]") -> None:
    found, status = os.waitpid(process.pid, os.WUNTRACED)
    assert found == process.pid
    assert os.WIFSTOPPED(status), "it ended before it came to the place"


def _uses(settings: Settings) -> int:
    database = Database(settings.database_url)
    with database.reading() as connection:
        statement = sqlalchemy.text("SELECT count(*) FROM journal_items WHERE kind = 'use'")
        count: int = connection.execute(statement).scalar_one()
    database.close()
    return count
