"""Metering through the use cases in this process, on a real Valkey and a real SQLite file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from creditgate import server
from creditgate.settings import Environment, Payments, Settings
from tests.conformance.drivers.in_process import InProcess
from tests.conformance.metering import DriverFor, MeteringConformance

PARTITIONS = 8

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver_for(
    valkey_socket: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[DriverFor]:
    """Drivers of the use cases of one sidecar; nothing runs in the background."""
    directory: Path = tmp_path_factory.mktemp("metering")
    settings = Settings(data_dir=directory, redis=f"unix://{valkey_socket}", payments=Payments.INSTANT)
    assert settings.redis is not None
    async with Redis(unix_socket_path=valkey_socket) as redis:
        await redis.flushall()
    async with (
        server.open_stores(settings, settings.redis, make=(Environment.TEST, PARTITIONS)) as stores,
        server.open_use_cases(settings, settings.redis, stores) as cases,
    ):
        drivers = {
            mode: InProcess(cases, refuses_repeated_keys=mode == "autumn") for mode in ("replay", "autumn")
        }
        yield drivers.__getitem__


class TestInProcess(MeteringConformance):
    """Every case, in process."""
