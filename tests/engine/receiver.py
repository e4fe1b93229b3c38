"""A receiver of webhooks on loopback: a real HTTP server that keeps what it is sent and answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from standardwebhooks.webhooks import Webhook as Verifier


class Message(NamedTuple):
    """One request as it came."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def told(self) -> Any:
        return msgspec.json.decode(self.body)

    def verified(self, secret: str) -> Any:
        """Return what is told, if the signature is right for the official library."""
        return Verifier(secret).verify(self.body, self.headers)


class Receiver:
    """`answer` says how each request is answered, given how many came before: raw bytes, or None for never."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.answer: Callable[[int], bytes | None] = lambda _: answer(204)
        self.port = 0
        self._closing = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?a=1"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Receiver"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._closing.set()
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            raw = self.answer(len(self.messages))
            self.messages.append(Message(first.split(" ")[1], headers, body))
            if raw is None:
                await self._closing.wait()
            else:
                writer.write(raw)
                await writer.drain()
        finally:
            writer.close()


def answer(status: int, *headers: str) -> bytes:
    """An answer without a body."""
    lines = [f"HTTP/1.1 {status} Said", "Content-Length: 0", *headers]
    return "\r\n".join([*lines, "", ""]).encode()
