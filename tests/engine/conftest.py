"""The engine of one sidecar in this process, on a real Valkey and a real SQLite file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from creditgate import openings
from creditgate.balances.hot_connection import HotConnection
from creditgate.engine import attempts, demo, drain
from creditgate.settings import Environment, Settings
from tests.engine.fault_proxy import FaultProxy


@pytest.fixture
def settings(tmp_path: Path, valkey_socket: str, redis: "Redis") -> Settings:
    """Settings of a sidecar on the empty Valkey and a database of its own."""
    return Settings(data_dir=tmp_path, redis=f"unix://{valkey_socket}")


@pytest.fixture
async def proxy(tmp_path: Path, valkey_socket: str) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the Valkey, for the use cases that are opened on its URL."""
    async with FaultProxy(tmp_path / "p", valkey_socket) as proxy:
        yield proxy


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[openings.Stores]:
    """Redis and SQL, opened as a sidecar does."""
    assert settings.redis is not None
    async with openings.open_stores(settings, settings.redis, make=(Environment.TEST, 8)) as opened:
        yield opened


@pytest.fixture
async def cases(settings: Settings, stores: openings.Stores) -> AsyncIterator[openings.UseCases]:
    """The use cases with the tutorial's catalog; nothing runs in the background."""
    assert settings.redis is not None
    async with openings.open_use_cases(settings, settings.redis, stores) as opened:
        await demo.load(opened.catalogs, opened.clock.now_ms())
        yield opened


@pytest.fixture
def soon_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that has to work alone is so sooner: a flush lease need not have been free for 2.5 s."""
    monkeypatch.setattr(drain, "QUIET_S", 0.1)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that wait longer: on a machine that stands still for a moment, each would be asked again by itself."""
    monkeypatch.setattr(attempts, "CALL_WINDOW_MS", 10_000)
    monkeypatch.setattr(HotConnection.__init__, "__kwdefaults__", {"window_s": 10.0, "merging": None})
