"""A relay in front of a Valkey that can break: it counts what comes in one piece, and keeps, cuts or loses replies."""

import asyncio
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

PIECE_BYTES = 2**20


class Relay:
    """Listens on a Unix socket, or on a port of `host` (with TLS if there is a context)."""

    def __init__(
        self,
        target: str,
        path: Path | None = None,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target = target
        self._path = path
        self._host = host
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.pieces: list[bytes] = []  # what was read from clients, each as it came
        self.connections = 0
        self.reading = asyncio.Event()  # while it is not set, nothing that clients send is read
        self.replying = asyncio.Event()  # while it is not set, replies are kept
        self.bytes_of_reply_left: int | None = None  # after so many, the connection is cut
        self.reading.set()
        self.replying.set()

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def scripts(self) -> int:
        """How many calls of scripts have come."""
        return b"".join(self.pieces).count(b"EVALSHA")

    async def __aenter__(self) -> Self:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        else:
            self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.reading.set()
        self.replying.set()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close every connection now."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_in, server_out = await asyncio.open_unix_connection(self._target)
        replies = asyncio.create_task(self._reply(server_in, client_out))
        self._tasks.add(replies)
        self._writers.add(client_out)
        try:
            while piece := await self._read(client_in):
                self.pieces.append(piece)
                server_out.write(piece)
        except OSError:
            return
        finally:
            self._writers.discard(client_out)
            replies.cancel()
            server_out.close()
            client_out.transport.abort()

    async def _read(self, client_in: asyncio.StreamReader) -> bytes:
        await self.reading.wait()
        return await client_in.read(PIECE_BYTES)

    async def _reply(self, server_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        while piece := await server_in.read(PIECE_BYTES):
            await self.replying.wait()
            if self.bytes_of_reply_left is not None:
                client_out.write(piece[: self.bytes_of_reply_left])
                self.bytes_of_reply_left = None
                client_out.close()
                return
            client_out.write(piece)
