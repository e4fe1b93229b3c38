"""Metering through the use cases in this process: on the Valkey that a sidecar embeds and on the machine's Redis, with
one partition and with 64, there by the merged script also where a call is alone. What each has left behind is proven at
the end.
"""

import shutil
from collections.abc import AsyncIterator
from functools import partialmethod
from pathlib import Path

import pytest
import pytest_asyncio

from creditgate import openings, operations
from creditgate.balances.hot_connection import HotConnection
from creditgate.balances.store import BalanceStore
from creditgate.engine import attempts
from creditgate.settings import Environment, Payments, Settings
from tests.balances.valkey_process import ValkeyProcess
from tests.conformance.drivers.in_process import InProcess
from tests.conformance.metering import DriverFor, MeteringConformance

PATIENCE_S = 5

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[("valkey", 1), ("valkey", 64), ("redis", 1), ("redis", 64)]
)
async def driver_for(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[DriverFor]:
    """Drivers of the use cases of one sidecar; nothing runs in the background."""
    kind, partitions = request.param
    redis_server = shutil.which("redis-server")
    if kind == "redis" and redis_server is None:
        pytest.skip("redis-server is not installed")
    merging = BalanceStore.merging()._replace(merges_one=partitions > 1)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(BalanceStore, "merging", lambda: merging)
    # On a busy machine hundreds of calls at once may miss their window, and none of the cases is about time.
    monkeypatch.setattr(attempts, "CALL_WINDOW_MS", PATIENCE_S * 1000)
    monkeypatch.setattr(attempts, "DEADLINE_S", 2 * PATIENCE_S)
    monkeypatch.setattr(HotConnection, "__init__", partialmethod(HotConnection.__init__, window_s=PATIENCE_S))
    process = ValkeyProcess(Path(redis_server) if kind == "redis" and redis_server else None)
    try:
        process.start()
        directory = tmp_path_factory.mktemp("metering")
        settings = Settings(data_dir=directory, redis=process.url, payments=Payments.INSTANT)
        async with (
            openings.open_stores(settings, process.url, make=(Environment.TEST, partitions)) as stores,
            openings.open_use_cases(settings, process.url, stores) as cases,
        ):
            drivers = {
                mode: InProcess(cases, refuses_repeated_keys=mode == "autumn")
                for mode in ("replay", "autumn")
            }
            yield drivers.__getitem__
        async with operations.open_verifier(settings) as verifier:
            proof = await verifier.verify(lambda _: None)
        assert proof.holds, proof.differences
        assert proof.entries > proof.customers > 0
    finally:
        monkeypatch.undo()
        process.close()


class TestInProcess(MeteringConformance):
    """Every case, in process."""
