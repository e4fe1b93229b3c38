"""What stands between a sidecar and its Redis, and can fail in every way a network or a server can, while it runs.

A mode says what happens to what goes through. It is changed at run time, also for connections that are open.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

import hiredis

PIECE_BYTES = 2**16
FAULT_SHARE = 0.2  # of the replies, in the modes that break some
LOOK_AGAIN_S = 0.002

# Redis answers these to a client that it does not serve yet, or no more.
GREETINGS = frozenset({b"AUTH", b"CLIENT", b"HELLO", b"SELECT", b"INFO"})


class Mode(Enum):
    """What the proxy does."""

    PASS = "pass on"
    DELAY = "delay replies"
    LOSE = "apply, lose the reply"
    HALF = "apply, cut the reply in half"
    HOLE = "black hole"
    RESET = "reset"
    ERROR = "answer an error"
    TWICE = "send scripts twice"  # what no network does: a bug that the oracle has to see


class RedisProxy:
    """Listens on a Unix socket and forwards to another."""

    def __init__(self, path: Path, target: str, dice: random.Random) -> None:
        self._path = path
        self._target = target
        self._dice = dice
        self._mode = Mode.PASS
        self._delay_s = 0.0
        self._error = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[_Link] = set()
        self.faults = 0

    @property
    def url(self) -> str:
        return f"unix://{self._path}"

    async def __aenter__(self) -> "RedisProxy":
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def failing(self, mode: Mode, *, delay_s: float = 0.0, error: str = "") -> Iterator[None]:
        """Be in a mode for a while; `delay_s` is for each reply, `error` is what is answered."""
        self._mode, self._delay_s, self._error = mode, delay_s, f"-{error}\r\n".encode()
        if mode is Mode.RESET:
            for link in self._links:
                link.abort()
        try:
            yield
        finally:
            self._mode = Mode.PASS

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = None
        try:
            if self._mode is Mode.RESET:
                self.faults += 1
                return
            server_in, server_out = await asyncio.open_unix_connection(self._target)
            link = _Link(client_in, client_out, server_in, server_out)
            self._links.add(link)
            replies = asyncio.create_task(self._reply(link))
            try:
                await self._request(link)
            finally:
                replies.cancel()
        except (OSError, asyncio.CancelledError):
            return  # the server is away, or the proxy ends
        finally:
            self._tasks.discard(task)
            if link is not None:
                self._links.discard(link)
                link.abort()
            client_out.transport.abort()

    async def _request(self, link: "_Link") -> None:
        while piece := await link.client_in.read(PIECE_BYTES):
            await self._through_the_hole()
            for command, raw in link.commands(piece):
                if self._mode is Mode.ERROR and command[0].upper() not in GREETINGS:
                    await link.answer(self._error)
                    self.faults += 1
                    continue
                link.send(raw)
                if self._mode is Mode.TWICE and command[0].upper() == b"EVALSHA":
                    self.faults += 1
                    link.send(raw, is_doubled=True)

    async def _reply(self, link: "_Link") -> None:
        with suppress(OSError):
            while piece := await link.server_in.read(PIECE_BYTES):
                if self._mode is Mode.DELAY:
                    self.faults += 1
                    await asyncio.sleep(self._delay_s)
                await self._through_the_hole()
                if self._mode in (Mode.LOSE, Mode.HALF) and self._dice.random() < FAULT_SHARE:
                    self.faults += 1
                    if self._mode is Mode.HALF:
                        link.client_out.write(piece[: len(piece) // 2])
                        await link.client_out.drain()
                    break
                if link.client_out.is_closing():
                    break
                link.client_out.write(link.kept(piece))
        link.client_out.close()
        link.server_out.close()

    async def _through_the_hole(self) -> None:
        while self._mode is Mode.HOLE:
            self.faults += 1
            await asyncio.sleep(0.05)


class _Link:
    """One client's connection and its server's, and how many replies are awaited."""

    def __init__(
        self,
        client_in: asyncio.StreamReader,
        client_out: asyncio.StreamWriter,
        server_in: asyncio.StreamReader,
        server_out: asyncio.StreamWriter,
    ) -> None:
        self.client_in, self.client_out = client_in, client_out
        self.server_in, self.server_out = server_in, server_out
        self._requests, self._replies = hiredis.Reader(), hiredis.Reader()
        self._sent = self._answered = 0
        self._doubled: set[int] = set()  # places of replies that the client does not wait for

    def commands(self, piece: bytes) -> Iterator[tuple[list[bytes], bytes]]:
        """Yield the commands that end in this piece, read and as they are sent."""
        self._requests.feed(piece)
        while (command := self._requests.gets()) is not False:
            yield command, hiredis.pack_command(tuple(command))

    def send(self, raw: bytes, *, is_doubled: bool = False) -> None:
        if self.server_out.is_closing():
            raise ConnectionResetError
        if is_doubled:
            self._doubled.add(self._sent)
        self._sent += 1
        self.server_out.write(raw)

    async def answer(self, line: bytes) -> None:
        """Answer instead of the server, after what it owes."""
        while self._answered < self._sent and not self.server_out.is_closing():  # noqa: ASYNC110 - the other direction counts
            await asyncio.sleep(LOOK_AGAIN_S)
        if self.client_out.is_closing():
            raise ConnectionResetError
        self.client_out.write(line)

    def kept(self, piece: bytes) -> bytes:
        """Count the replies in a piece, and return it without those that nobody waits for."""
        self._replies.feed(piece)
        replies: list[bytes] = []
        before = self._answered
        while (reply := self._replies.gets()) is not False:
            if self._answered not in self._doubled:
                replies.append(_packed(reply))
            self._answered += 1
        doubled = self._doubled and any(place in self._doubled for place in range(before, self._answered))
        return b"".join(replies) if doubled else piece

    def abort(self) -> None:
        self.client_out.transport.abort()
        self.server_out.transport.abort()


def _packed(reply: Any) -> bytes:
    match reply:
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(_packed, reply))
        case None:
            return b"$-1\r\n"
        case _:
            return b"-%b\r\n" % str(reply).encode()
