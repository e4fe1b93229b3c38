"""The fast lane on a real uvicorn, with decisions that the test makes itself: at once, later, or never.

Which of them a decision is depends on Redis; the connection must be right with each.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import uvicorn
from starlette.responses import Response

from creditgate.api import fastlane
from creditgate.api.calls import Answer, Verb
from creditgate.api.door import check_version
from creditgate.api.fastdoor import Admitted, FastDoor, HotCall
from creditgate.api.fastlane import FastLane, fast_lane
from creditgate.api.wire.answers import CheckAnswer
from creditgate.api.wire.requests import CheckRequest
from creditgate.engine import stepping
from creditgate.engine.stepping import Done
from creditgate.telemetry.metrics import Metrics

SECONDS_MAX = 10.0
PIPELINED = 3_000
HASTY_KEEP_ALIVE_S = 0.1
KEEP_ALIVE_S = 0.6  # of which a pause of a busy machine does not take three quarters
UNREAD = 5_000
LARGE = 16 * 2**20  # more than the sockets' buffers take
ANSWER_BYTES = 20_000  # so that all together are more than the sockets' buffers take
WRITE_BUFFER_MAX = 256 * 1024  # far below all answers, above the transport's mark for "enough"
WAITING_MAX = 3_000  # what is read at once may be 256 KiB, about 1,600 of these requests


class Doorman(FastDoor):
    """Lets in POST /, and answers as `decide` does: without a task, unless that asks for one."""

    def __init__(self, decide: Callable[[bytes], Awaitable[Answer]]) -> None:
        async def handler(_: Any) -> Answer:
            raise AssertionError("never asked: the answer is made below")

        verb = Verb(handler, CheckRequest, CheckAnswer)
        call = HotCall("balances.check", verb, check_version, frozenset(("gate",)))
        access = Mock()
        access.scopes.get.return_value = "gate"
        super().__init__({"/": call}, access, names_us=lambda _: True, env="sandbox")
        self.decide = decide
        self.keys: list[tuple[str, ...]] = []  # of the requests, in their order

    def answer(self, request: Admitted, body: bytes, done: Done[Answer]) -> None:
        self.keys.append(request.idempotency_keys)

        async def decided() -> Answer:
            return await self.decide(body)

        stepping.run(decided(), done)


@asynccontextmanager
async def serving(
    decide: Callable[[bytes], Awaitable[Answer]], *, keep_alive_s: float = 30
) -> AsyncIterator[uvicorn.Server]:
    """Yield a server that is shut down at the end, which has to end by itself."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        answer = await decide((await receive())["body"])
        response = Response(answer.body, answer.status, answer.headers, media_type="application/json")
        await response(scope, receive, send)

    config = uvicorn.Config(
        app,
        port=0,
        http=fast_lane(Doorman(decide), Metrics()),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive_s,  # type: ignore[arg-type]  # which the event loop takes as well
        timeout_graceful_shutdown=int(SECONDS_MAX),
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    try:
        yield server
    finally:
        server.should_exit = True
        async with asyncio.timeout(SECONDS_MAX / 2):
            await serving


def the_connection(server: uvicorn.Server) -> FastLane:
    """Return the one connection that the server has."""
    (protocol,) = server.server_state.connections
    assert isinstance(protocol, FastLane)
    return protocol


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 - it is others who make it true
            await asyncio.sleep(0.001)


@asynccontextmanager
async def connected(
    server: uvicorn.Server,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield a connection to the server."""
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()


def posted(body: bytes, *, headers: bytes = b"") -> bytes:
    return (
        b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body)
    )


async def echo(body: bytes) -> Answer:
    return Answer(body)


async def test_answers_that_are_there_at_once_do_not_pile_up() -> None:
    """Each ends within the one before: thousands in a pipeline would go deeper than Python can."""
    first = asyncio.get_running_loop().create_future()

    async def decide(body: bytes) -> Answer:
        if body == b"first":
            await first
        return Answer(body)

    async with serving(decide) as server, connected(server) as (reader, writer):
        bodies = [b"first", *(b"%d" % number for number in range(PIPELINED))]
        writer.write(b"".join(map(posted, bodies)))
        await until(lambda: len(server.server_state.connections) == 1)
        await until(lambda: len(the_connection(server).pipeline) > PIPELINED / 3)
        first.set_result(None)
        for body in bodies:
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readexactly(len(body)) == body


async def test_nothing_is_decided_behind_a_close() -> None:
    """Its answer could not be told any more, so the caller would take it for lost and ask again."""
    decided = []

    async def decide(body: bytes) -> Answer:
        decided.append(body)
        return Answer(body)

    async with serving(decide) as server, connected(server) as (reader, writer):
        writer.write(posted(b"last", headers=b"Connection: close\r\n") + posted(b"too late") * 3)
        answer = await reader.read()
        assert answer.endswith(b"\r\nconnection: close\r\n\r\nlast")
    assert decided == [b"last"]


async def test_nothing_is_decided_behind_the_last_answer_of_a_shutdown() -> None:
    """What came along with the end of the last request finds the connection closed, though the parser reads on."""
    decided = []

    async def decide(body: bytes) -> Answer:
        decided.append(body)
        return Answer(body)

    async with serving(decide) as server, connected(server) as (reader, writer):
        writer.write(posted(b"last")[:-4])
        await until(lambda: bool(server.server_state.connections) and bool(the_connection(server).cycle))
        the_connection(server).shutdown()  # as uvicorn does when it ends
        writer.write(b"last" + posted(b"too late") * 3)
        answer = await reader.read()
        assert answer.endswith(b"\r\nconnection: close\r\n\r\nlast")
    assert decided == [b"last"]


async def test_a_shutdown_waits_for_what_was_begun() -> None:
    """Its connections to Redis are closed then, and a decision would stop half way; also when the caller has left."""
    begun, may_end, decided = asyncio.Event(), asyncio.Event(), []

    async def decide(body: bytes) -> Answer:
        begun.set()
        await may_end.wait()
        decided.append(body)
        return Answer(body)

    async with serving(decide) as server, connected(server) as (_, writer):
        writer.write(posted(b"begun"))
        await begun.wait()
        protocol = the_connection(server)
        writer.close()
        await until(protocol.transport.is_closing)
        server.should_exit = True
        await until(lambda: not server.servers[0].is_serving())
        await asyncio.sleep(0.3)  # longer than a shutdown that does not wait
        assert server.server_state.connections == {protocol}
        may_end.set()
    assert decided == [b"begun"]


async def test_who_does_not_read_is_not_read() -> None:
    """A client that asks on and on and reads nothing would fill the memory, with its answers or with its requests."""
    waiting_max, decided = 0, 0

    async def decide(body: bytes) -> Answer:
        nonlocal waiting_max, decided
        decided += 1
        waiting_max = max(waiting_max, len(the_connection(server).pipeline))
        await asyncio.sleep(0)
        return Answer(body + b" " * ANSWER_BYTES)

    async with serving(decide) as server, connected(server) as (reader, writer):
        writer.write(posted(b"x") * UNREAD)
        await until(lambda: bool(server.server_state.connections))
        protocol = the_connection(server)
        await until(lambda: protocol.flow.write_paused)
        await asyncio.sleep(0.3)  # long enough to go on, if it did
        assert protocol.transport.get_write_buffer_size() < WRITE_BUFFER_MAX
        assert decided < UNREAD
        for _ in range(UNREAD):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1 + ANSWER_BYTES)
    assert 0 < waiting_max < WAITING_MAX


async def test_the_time_of_an_idle_connection_ends_with_the_next_request() -> None:
    """One that came along with a request that was answered at once must not be cut off."""

    async def decide(body: bytes) -> Answer:
        if body == b"takes longer":
            await asyncio.sleep(3 * HASTY_KEEP_ALIVE_S)
        return Answer(body)

    async with (
        serving(decide, keep_alive_s=HASTY_KEEP_ALIVE_S) as server,
        connected(server) as (reader, writer),
    ):
        writer.write(posted(b"at once") + posted(b"takes longer"))
        assert (await reader.read()).endswith(b"takes longer")


async def test_what_is_broken_off_inside_is_answered() -> None:
    """A connection is never left without an answer, whatever became of the decision."""

    async def decide(_: bytes) -> Answer:
        raise asyncio.CancelledError

    async with serving(decide) as server, connected(server) as (reader, writer):
        writer.write(
            posted(b'{"customer_id":"ann","feature_id":"messages"}', headers=b"Connection: close\r\n")
        )
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert b'"code":"undecided"' in answer


async def test_a_head_that_was_read_is_not_read_again() -> None:
    """Only where the request is alone and whole; whatever else comes is the parser's, and in order."""
    async with serving(echo) as server, connected(server) as (reader, writer):

        async def said(*pieces: bytes, answers: list[bytes]) -> None:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.01)  # so that it is read alone
            for body in answers:
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(len(body)) == body

        await said(posted(b"1"), answers=[b"1"])
        protocol = the_connection(server)
        (head,) = protocol.heads
        parser, protocol.parser = protocol.parser, Mock()
        await said(posted(b"2"), answers=[b"2"])
        assert not protocol.parser.feed_data.called
        protocol.parser = parser

        await said(posted(b"3") + posted(b"4"), posted(b"5"), answers=[b"3", b"4", b"5"])
        await said(head, b"6", posted(b"7"), answers=[b"6", b"7"])
        await said(head + b"8POST / HT", posted(b"9")[len(b"POST / HT") :], answers=[b"8", b"9"])
        await said(posted(b"10"), b"\r\n" + posted(b"11"), posted(b"12"), answers=[b"10", b"11", b"12"])
        access = protocol.door._access
        access.scopes.get.return_value = None  # type: ignore[attr-defined]  # a Mock: the key is gone
        protocol.parser = Mock(wraps=protocol.parser)
        await said(posted(b"4"), answers=[b"4"])
        assert protocol.parser.feed_data.called


async def test_a_head_with_another_key_is_not_read_again() -> None:
    """What is known of a head is known without the line of its key; a line that can be read in two ways is read."""

    def keyed(line: bytes) -> bytes:
        return posted(b"1", headers=line)

    async with serving(echo) as server, connected(server) as (reader, writer):

        async def needs_parser(request: bytes) -> bool:
            protocol = the_connection(server)
            protocol.parser = Mock(wraps=protocol.parser)
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n1")
            was_fed = bool(protocol.parser.feed_data.called)
            protocol.parser = protocol.parser._mock_wraps
            return was_fed

        writer.write(posted(b"1"))
        await reader.readuntil(b"\r\n\r\n1")
        for line, is_fed in (
            (b"Idempotency-Key: a\r\n", False),
            (b"idempotency-key: b-2.c:d\r\n", False),
            (b"Idempotency-Key: a\r\n", False),
            (b"", False),
            (b"IDEMPOTENCY-KEY: c\r\n", True),
            (b"Idempotency-Key:d\r\n", True),
            (b"Idempotency-Key: e \r\n", True),
            (b"Idempotency-Key: \xc3\xa4\r\n", True),
            (b"IDEMPOTENCY-KEY: c\r\n", True),
        ):
            assert await needs_parser(keyed(line)) == is_fed, line
        protocol = the_connection(server)
        assert len(protocol.heads) == 1
        keys = protocol.door.keys  # type: ignore[attr-defined]  # a Doorman
        assert [key for each in keys[1:] for key in each] == [
            "a",
            "b-2.c:d",
            "a",
            "c",
            "d",
            "e ",  # so says the parser
            "\xc3\xa4",
            "c",
        ]
        count = len(keys)
        writer.write(
            keyed(b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n")
        )  # which Starlette answers, as far as it can
        await reader.readuntil(b"\r\n\r\n1")
        assert len(keys) == count


async def test_the_first_head_may_have_a_key() -> None:
    async with serving(echo) as server, connected(server) as (reader, writer):
        for line in (b"Idempotency-Key: a\r\n", b"Idempotency-Key: b\r\n", b""):
            writer.write(posted(b"1", headers=line))
            await reader.readuntil(b"\r\n\r\n1")
        assert len(the_connection(server).heads) == 1
        assert the_connection(server).door.keys == [("a",), ("b",), ()]  # type: ignore[attr-defined]  # a Doorman


async def test_a_large_head_is_not_remembered() -> None:
    """There is room for many heads, so none may be large: whoever sends another each time fills no memory."""
    async with serving(echo) as server, connected(server) as (reader, writer):
        for length in (
            fastlane.HEAD_REMEMBERED_MAX // 2,
            fastlane.HEAD_REMEMBERED_MAX,
            2 * fastlane.HEAD_REMEMBERED_MAX,
        ):
            writer.write(posted(b"1", headers=b"X-Large: %b\r\n" % (b"x" * length)))
            await reader.readuntil(b"\r\n\r\n1")
        assert len(the_connection(server).heads) == 1


async def test_who_does_not_read_has_no_turn_either() -> None:
    """What comes while an answer waits to be read is for Starlette, whose answers wait with it."""

    async def decide(body: bytes) -> Answer:
        return Answer(b"x" * LARGE if body == b"large" else body)

    async with serving(decide) as server, connected(server) as (reader, writer):
        for body in (b"first", b"again"):  # of the same length, so that the second needs no parser
            writer.write(posted(body))
            await reader.readuntil(body)
        protocol = the_connection(server)
        writer.write(posted(b"large"))
        await until(lambda: protocol.flow.write_paused)
        fast = protocol.metrics.fast_requests
        writer.write(posted(b"after"))
        await asyncio.sleep(0.05)
        assert protocol.metrics.fast_requests == fast
        for answer in (b"x" * LARGE, b"after"):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(answer)) == answer


async def test_a_close_is_never_remembered() -> None:
    async with serving(echo) as server:
        for _ in range(2):
            async with connected(server) as (reader, writer):
                writer.write(posted(b"last", headers=b"Connection: close\r\n"))
                assert b"connection: close" in await reader.read()


async def test_a_shutdown_waits_for_a_request_that_needed_no_parser() -> None:
    waiting = asyncio.get_running_loop().create_future()

    async def decide(body: bytes) -> Answer:
        if body == b"2":
            await waiting
        return Answer(body)

    async with serving(decide) as server, connected(server) as (reader, writer):
        writer.write(posted(b"1"))
        await reader.readuntil(b"\r\n\r\n1")
        writer.write(posted(b"2"))
        await until(lambda: the_connection(server)._under_way is not None)
        server.should_exit = True
        await until(lambda: the_connection(server).cycle.keep_alive is False)
        waiting.set_result(None)
        answer = await reader.read()
        assert b"connection: close" in answer
        assert answer.endswith(b"2")


async def test_what_needs_no_parser_keeps_a_connection_as_alive() -> None:
    """Its timer is not set anew for each request, and must count from the last one all the same."""
    async with (
        serving(echo, keep_alive_s=KEEP_ALIVE_S) as server,
        connected(server) as (reader, writer),
    ):
        for _ in range(5):
            writer.write(posted(b"1"))
            await reader.readuntil(b"\r\n\r\n1")
            await asyncio.sleep(KEEP_ALIVE_S / 4)
        async with asyncio.timeout(SECONDS_MAX):
            assert await reader.read() == b""
