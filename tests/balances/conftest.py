"""What talks to sockets itself is tested on both event loops: that of Python, and the one that a sidecar runs on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the loops on which a test runs."""
    return LOOPS if item.path.name == "test_connection.py" else {"asyncio": asyncio.new_event_loop}
