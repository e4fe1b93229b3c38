"""`Meter`: what is different from a client, since it holds Redis and SQL itself."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from creditgate import Meter, SyncMeter, Undecided, openings, operations
from creditgate.core.catalog import Feature, FeatureType
from creditgate.engine import demo as tutorial
from creditgate.errors import StartupError
from creditgate.settings import Environment, Settings
from tests.sidecar_process import SidecarProcess, wait_until

PREMIUM: dict[str, Any] = {"customer_id": "ann", "feature_id": "premium_messages"}


@pytest.fixture
async def settings(valkey_socket: str, redis: Any, tmp_path: Path) -> Settings:
    """Redis and SQL with the tutorial's catalog, and nobody who works on them."""
    settings = Settings(redis=f"unix://{valkey_socket}", database=f"sqlite:///{tmp_path}/ledger.db")
    assert settings.redis
    async with (
        openings.open_stores(settings, settings.redis, make=(Environment.TEST, 2)) as stores,
        openings.open_use_cases(settings, settings.redis, stores) as cases,
    ):
        await tutorial.load(cases.catalogs, cases.clock.now_ms())
    return settings


async def test_alone_it_does_everything_that_a_sidecar_does(settings: Settings) -> None:
    """An application without a sidecar keeps its history: what was taken is in SQL, and every balance adds up."""
    async with Meter(redis=settings.redis, database=settings.database) as meter:
        await meter.get_or_create(customer_id="ann")
        await meter.track(**PREMIUM, value=2)
    assert _uses(settings) == 1
    assert await _verified(settings)


async def test_without_background_it_leaves_the_rest_to_others(settings: Settings) -> None:
    """A short-lived worker neither flushes nor delivers; the journal waits in Redis for who does."""
    async with Meter(redis=settings.redis, database=settings.database, background=False) as meter:
        await meter.get_or_create(customer_id="ann")
        await meter.track(**PREMIUM, value=2)
    assert _uses(settings) == 0
    assert await _verified(settings)
    async with Meter(redis=settings.redis, database=settings.database):
        pass
    assert _uses(settings) == 1


async def test_a_change_of_the_catalog_reaches_it(settings: Settings) -> None:
    """What a sidecar is told about plans and features, the meters beside it answer by."""
    assert settings.redis
    async with (
        Meter(redis=settings.redis, database=settings.database, background=False) as meter,
        openings.open_stores(settings, settings.redis, make=None) as stores,
        openings.open_use_cases(settings, settings.redis, stores) as cases,
    ):
        await meter.get_or_create(customer_id="ann")
        await cases.catalogs.create_feature(Feature("images", "Images", FeatureType.METERED, consumable=True))
        assert not (await meter.check(customer_id="ann", feature_id="images")).allowed


async def test_a_sync_meter_works_under_a_running_loop_and_ends(settings: Settings) -> None:
    """It is entered and left from anywhere, a notebook included, from any thread, and leaves no thread behind."""
    before = threading.active_count()
    for _ in range(2):
        with Meter(redis=settings.redis, database=settings.database).sync() as meter:
            meter.get_or_create(customer_id="ann")
            tracked = await asyncio.gather(*(asyncio.to_thread(meter.track, **PREMIUM) for _ in range(8)))
            assert len({answer.balance.remaining for answer in tracked if answer.balance}) == 8
    wait_until(lambda: threading.active_count() <= before + 8, what="no thread of the meter")
    assert not [thread for thread in threading.enumerate() if thread.name == "creditgate"]


async def test_one_that_is_not_open_says_so(settings: Settings) -> None:
    """A forgotten `with` is an error at once, not a call that never ends; so is one after the end."""
    meter = Meter(redis=settings.redis, database=settings.database)
    closed = meter.sync()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not open"):
            await meter.check(**PREMIUM)
        with pytest.raises(RuntimeError, match="not open"):
            closed.check(**PREMIUM)
        with closed:
            pass


def test_a_sync_meter_that_was_forked_says_so(demo: SidecarProcess) -> None:
    """A thread does not survive a fork: the child is told, instead of waiting for it for ever."""
    with Meter(data_dir=demo.directory).sync() as meter:
        child = os.fork()
        if child == 0:
            os._exit(_code_of_child(meter))
        wait_until(
            lambda: os.waitpid(child, os.WNOHANG) == (child, 0), what="the child said that it is not open"
        )


def _code_of_child(meter: SyncMeter) -> int:
    try:
        meter.check(**PREMIUM)
    except RuntimeError as error:
        return 0 if "fork" in str(error) else 2
    return 1


async def test_without_redis_nothing_is_allowed(demo: SidecarProcess) -> None:
    """In process as over HTTP: an outage is an error that carries the key to try again with."""
    demo.ask("customers.get_or_create", {"customer_id": "ann"})
    async with Meter(data_dir=demo.directory, background=False) as meter:
        valkey = demo.valkey_pid
        os.kill(valkey, signal.SIGSTOP)
        try:
            with pytest.raises(Undecided):
                await meter.check(**PREMIUM)
            begun = time.monotonic()
            with pytest.raises(Undecided) as caught:
                await meter.track(**PREMIUM, value=2, deadline_s=0.1)
            assert time.monotonic() - begun < 5
        finally:
            os.kill(valkey, signal.SIGCONT)
        key = caught.value.idempotency_key
        again = [await meter.track(**PREMIUM, value=2, idempotency_key=key, deadline_s=20) for _ in range(2)]
        assert again[1].is_replay
        usage = demo.ask("customers.get", {"customer_id": "ann"})["balances"]["usd_credits"]["usage"]
        assert usage == pytest.approx(0.2)
    assert demo.verify().returncode == 0


@pytest.mark.parametrize("is_configured", [False, True], ids=["", "with structlog of its own"])
def test_logs_go_where_the_application_wants_them(demo: SidecarProcess, is_configured: bool) -> None:
    """Stdout is the application's, and so is the way in which it logs; secrets do not pass."""
    code = f"""
import logging, structlog
from creditgate import Meter
from creditgate.telemetry import logger
logging.basicConfig(format="app: %(name)s %(levelname)s %(message)s")
if {is_configured}:
    structlog.configure(processors=[lambda *_: "its own"], logger_factory=structlog.stdlib.LoggerFactory())
with Meter(data_dir={str(demo.directory)!r}).sync():
    logger("creditgate.engine").warning("tick_failed", reason="redis://user:hidden@host")
    logger("creditgate.engine").info("not asked for")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=40
    )
    said = "its own" if is_configured else "event='tick_failed' reason='redis://user:[redacted]@host'"
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert ended.stderr.splitlines()[0] == f"app: creditgate.engine WARNING {said}"
    assert len(ended.stderr.splitlines()) == 1


async def test_what_cannot_be_opened_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    """A wrong setting neither makes new data nor meets half of the old; the application does not start."""
    redis, database = settings.redis, settings.database
    for fields, said in (
        ({}, "Name the data_dir"),
        ({"redis": redis}, "Name both"),
        ({"database": database}, "Name both"),
        ({"data_dir": tmp_path, "redis": redis, "database": database}, "Name the data_dir"),
        ({"data_dir": tmp_path / "none"}, "No sidecar runs on"),
        ({"redis": redis, "database": f"sqlite:///{tmp_path}/new.db", "prefix": "other"}, "There is no data"),
        ({"redis": f"unix://{tmp_path}/none", "database": database}, "does not answer"),
        ({"redis": "nonsense", "database": database}, "not a URL"),
    ):
        made: dict[str, Any] = fields
        with pytest.raises(StartupError, match=said):
            async with Meter(**made):
                pass
        with pytest.raises(StartupError, match=said), Meter(**made).sync():
            pass
    assert not (tmp_path / "none").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "creditgate"]


def _uses(settings: Settings) -> int:
    """How many uses SQL has."""
    assert settings.database is not None
    with closing(sqlite3.connect(settings.database.removeprefix("sqlite:///"))) as ledger:
        count: int = ledger.execute("SELECT count(*) FROM journal_items WHERE kind = 'use'").fetchone()[0]
    return count


async def _verified(settings: Settings) -> bool:
    async with operations.open_verifier(settings) as verifier:
        return (await verifier.verify(lambda _: None)).holds
