"""The counters of all processes of one sidecar: whichever is scraped asks the others what they have counted.

Each answers on a unix socket of its own in a directory that all of them know. What it says it also keeps in a file
there, once a second besides, and whoever takes its place after its death goes on from that: a sum never falls. Lost is
what was counted in the last second before a kill -9.

Counting itself is not shared. Numbers in memory that all processes see, as prometheus_client's own multi-process mode
has them, would cost each call several microseconds more.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from creditgate.telemetry.exposition import Counted, counted, summed
from creditgate.telemetry.metrics import Metrics

ANSWER_TIMEOUT_S = 0.25  # one that hangs is counted with what it kept last
KEEP_TICK_S = 1.0


class Siblings:
    """This process among those of its sidecar. `place` is its name there, and that of whoever comes after it."""

    def __init__(self, directory: Path, place: str, metrics: Metrics) -> None:
        self._directory = directory
        self._file = directory / place
        self._metrics = metrics
        self._before = _kept(self._file)

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Tell the others what they ask for, until the end."""
        socket = self._file.with_suffix(".sock")
        socket.unlink(missing_ok=True)  # of whoever was here before
        server = await asyncio.start_unix_server(self._answer, socket)
        keeping = asyncio.create_task(self._keep_on())
        try:
            yield
        finally:
            keeping.cancel()
            server.close()
            self._keep()

    async def others(self) -> list[Counted]:
        """Return what was counted by the others, by those before them, and by those before us."""
        self._keep()  # our own numbers are about to be told
        sockets = sorted(self._directory.glob("*.sock"))
        asked = (_ask(socket) for socket in sockets if socket.stem != self._file.name)
        return [self._before, *await asyncio.gather(*asked)]

    def _keep(self) -> bytes:
        """Keep what this process and those before it have counted, and return it."""
        told = msgspec.msgpack.encode(summed([self._before, counted(self._metrics)]))
        new = self._file.with_suffix(".new")
        with suppress(OSError):  # a full disk: should this process die, its successor goes on from less
            new.write_bytes(told)
            new.replace(self._file)
        return told

    async def _keep_on(self) -> None:
        while True:
            await asyncio.sleep(KEEP_TICK_S)
            self._keep()

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._keep())
        writer.close()


async def _ask(socket: Path) -> Counted:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            told = await reader.read()
            writer.close()
            return _decoded(told)
    except (OSError, TimeoutError, msgspec.DecodeError):  # it hangs, or died just now
        return _kept(socket.with_suffix(""))


def _kept(file: Path) -> Counted:
    return _decoded(file.read_bytes()) if file.exists() else {}


def _decoded(told: bytes) -> Counted:
    return msgspec.msgpack.decode(told, type=Counted)
