"""A proxy between a sidecar and Redis that can lose the reply to a command that took effect."""

import asyncio
from pathlib import Path


class FaultProxy:
    """Forwards one Unix socket to another. Faults are set for the next command that contains a word."""

    def __init__(self, path: Path, target: str) -> None:
        self.path = path
        self._target = target
        self._lose_reply_to: bytes | None = None
        self._hold_back: tuple[bytes, float] | None = None
        self.faults = 0

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def lose_reply_to(self, word: bytes) -> None:
        """Let the next command with this word through, then close the connection instead of replying."""
        self._lose_reply_to = word

    def hold_back(self, word: bytes, seconds: float) -> None:
        """Deliver the next command with this word late, though its sender has given up by then."""
        self._hold_back = (word, seconds)

    async def __aenter__(self) -> "FaultProxy":
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        self._tasks: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_in, server_out = await asyncio.open_unix_connection(self._target)
        pump = asyncio.create_task(_pump(server_in, client_out))
        self._tasks.add(pump)
        try:
            while data := await client_in.read(65536):
                if self._hold_back and self._hold_back[0] in data:
                    seconds, self._hold_back = self._hold_back[1], None
                    self.faults += 1
                    await asyncio.sleep(seconds)
                    server_out.write(data)
                elif self._lose_reply_to and self._lose_reply_to in data:
                    self._lose_reply_to = None
                    self.faults += 1
                    pump.cancel()
                    await asyncio.wait([pump])
                    server_out.write(data)
                    await server_in.read(65536)  # the reply: it took effect
                    break
                else:
                    server_out.write(data)
        finally:
            pump.cancel()
            server_out.close()
            client_out.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
