"""Metering through HTTP, by the official Python client, against a sidecar in a process of its own."""

from collections.abc import Iterator

import pytest

from tests.conformance.drivers.over_http import OverHttp
from tests.conformance.metering import DriverFor, MeteringConformance
from tests.sidecar_process import SidecarProcess

# The first run installs the client.
pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def driver_for() -> Iterator[DriverFor]:
    """Drivers of two sidecars, one for each way to answer a repeated key."""
    sidecars = {
        mode: SidecarProcess(arguments=["--payments", "instant", "--idempotency", mode])
        for mode in ("replay", "autumn")
    }
    drivers: dict[str, OverHttp] = {}
    try:
        for mode, sidecar in sidecars.items():
            drivers[mode] = OverHttp(sidecar.start())
        yield drivers.__getitem__
        for driver in drivers.values():
            driver.close()
    finally:
        for sidecar in sidecars.values():
            sidecar.close()


class TestOverHttp(MeteringConformance):
    """Every case, over HTTP."""
