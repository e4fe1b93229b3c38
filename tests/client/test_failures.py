"""Servers that answer badly, late or not at all: the client says that it does not know, and never "allowed"."""

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from creditgate import AsyncClient, Client, CreditgateError, Undecided
from creditgate.errors import InvalidInputs, Unavailable
from tests.client.faces import ask

DEADLINE_S = 1.0
SLACK_S = 5.0  # of a busy machine
TRACK: dict[str, Any] = {"customer_id": "ann", "feature_id": "messages"}
CHECKED = (
    b'{"allowed":true,"customer_id":"ann","required_balance":1,"balance":null,"flag":null,"a_new_field":[1]}'
)

# httpcore leaves a unix socket that could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def path() -> Iterator[Path]:
    """Where the bad server listens."""
    with tempfile.TemporaryDirectory(prefix="cgf") as directory:
        yield Path(directory) / "s"


@pytest.fixture(params=["async", "sync"])
async def client(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[AsyncClient | Client]:
    """Each client, with little patience."""
    url = f"unix://{path}"
    if request.param == "sync":
        with Client(url, secret_key="cg_sk_test_x", deadline_s=DEADLINE_S) as client:
            yield client
        gc.collect()
    else:
        async with AsyncClient(url, secret_key="cg_sk_test_x", deadline_s=DEADLINE_S) as async_client:
            yield async_client


@asynccontextmanager
async def serving(path: Path, answer: Answering) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Serve every request with the same function; yields the connections that were made."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
                )
                await reader.readexactly(int(length.partition(b":")[2]))
                await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield connections
    finally:
        server.close()
        for writer in connections:
            writer.close()


def saying(status: str, body: bytes, headers: str = "") -> Answering:
    """Answer with this status line and body."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)

    return answer


async def hanging_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(
    "answer",
    [
        saying("500 Internal Server Error", b"<html>"),
        saying("502 Bad Gateway", b""),
        saying("403 Forbidden", b"no"),
        saying("302 Found", b"", "Location: http://localhost/v1/balances.check\r\n"),
        saying("200 OK", b""),
        saying("200 OK", b"{}"),
        saying("200 OK", b"true"),
        saying("200 OK", b"\xff"),
        saying("200 OK", b"[" * 100_000),
        saying("200 OK", CHECKED.replace(b"true", b'"true"')),
        saying("200 OK", CHECKED.replace(b"true", b"1")),
        saying("200 OK", CHECKED[:-5]),
        saying("202 Accepted", CHECKED),
        saying("204 No Content", b""),
        hanging_up,
        silent,
    ],
    ids=range(16),
)
async def test_a_failure_is_never_allowed(
    client: AsyncClient | Client, path: Path, answer: Answering
) -> None:
    """Whatever stands between, or behind, a client: only a whole answer of the sidecar allows anything."""
    async with serving(path, answer):
        with pytest.raises(Undecided):
            await ask(client, "check", **TRACK)


async def test_a_whole_answer_is_taken_as_it_is(client: AsyncClient | Client, path: Path) -> None:
    """The answers above fail for what is wrong with them; and a newer sidecar may say more than the client knows."""
    async with serving(path, saying("200 OK", CHECKED)):
        assert (await ask(client, "check", **TRACK)).allowed


@pytest.mark.parametrize("answer", [silent, hanging_up, None], ids=["silent", "hanging up", "not there"])
async def test_the_deadline_holds(client: AsyncClient | Client, path: Path, answer: Answering | None) -> None:
    """A request of the application does not wait for a sidecar that is stuck, restarting or not there."""
    begun = time.monotonic()
    async with serving(path, answer or silent):
        if answer is None:
            path.unlink()
        with pytest.raises(Undecided) as caught:
            await ask(client, "track", **TRACK)
    assert time.monotonic() - begun < DEADLINE_S + SLACK_S
    assert caught.value.idempotency_key is not None


async def test_one_call_can_have_a_deadline_of_its_own(client: AsyncClient | Client, path: Path) -> None:
    """A background job may wait for a sidecar that is restarting, where a web page may not."""

    async def late() -> None:
        await asyncio.sleep(DEADLINE_S * 2)
        async with serving(path, saying("200 OK", CHECKED)):
            assert (await asking).allowed

    asking = asyncio.create_task(ask(client, "check", **TRACK, deadline_s=SLACK_S * 4))
    await late()


async def test_connections_are_kept(client: AsyncClient | Client, path: Path) -> None:
    """Ten calls one after the other need one connection."""
    async with serving(path, saying("200 OK", CHECKED)) as connections:
        for _ in range(10):
            await ask(client, "check", **TRACK)
        assert len(connections) == 1


async def test_a_fork_has_connections_of_its_own(path: Path) -> None:
    """Two processes on one connection would read each other's answers, and allow one customer what another has."""
    async with serving(path, saying("200 OK", CHECKED)) as connections:
        with Client(f"unix://{path}", secret_key="cg_sk_test_x") as client:
            await ask(client, "check", **TRACK)
            child = os.fork()
            if child == 0:
                os._exit(0 if client.check(**TRACK).allowed else 1)
            assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
            await ask(client, "check", **TRACK)
        assert len(connections) == 2


async def test_every_attempt_carries_the_same_key(client: AsyncClient | Client, path: Path) -> None:
    """A second attempt under another key would take twice."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    with pytest.raises(Undecided) as caught:
        await ask(client, "check", **TRACK, send_event=True)
    with pytest.raises(Undecided):
        await ask(client, "check", **TRACK, send_event=True)
    server.close()
    keys = [
        line.partition(b": ")[2].decode()
        for head in heads
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"idempotency-key")
    ]
    assert len(keys) == len(heads) >= 4
    assert len(set(keys)) == 2
    assert keys[0] == keys[1] == caught.value.idempotency_key


async def test_what_a_feature_allows_is_allowed(client: AsyncClient | Client, path: Path) -> None:
    """A check that could not be decided is allowed where the feature says so, in the sidecar's own words."""
    allowed = CHECKED[:-1] + b',"code":"undecided"}'
    async with serving(path, saying("202 Accepted", allowed)):
        assert (await ask(client, "check", **TRACK)).allowed


async def test_what_is_away_is_told_apart(client: AsyncClient | Client, path: Path) -> None:
    """A 503 that changed nothing is no unknown outcome, and a bug of the sidecar is its own error."""
    for status, code, kind in (
        ("503 Service Unavailable", "service_unavailable", Unavailable),
        ("503 Service Unavailable", "undecided", Undecided),
        ("429 Too Many Requests", "undecided", Undecided),
        ("500 Internal Server Error", "internal_error", CreditgateError),
    ):
        async with serving(path, saying(status, b'{"message":"m","code":"%s"}' % code.encode())):
            with pytest.raises(CreditgateError) as caught:
                await ask(client, "get_or_create", customer_id="ann")
            assert (type(caught.value), caught.value.code) == (kind, code)


@pytest.mark.parametrize("url", ["", "localhost:8787", "unix://relative", "ftp://host"])
def test_a_wrong_url_is_told_at_once(url: str) -> None:
    """A misspelled setting is found when the application starts, not with its first customer."""
    with pytest.raises(InvalidInputs):
        Client(url, secret_key="x")
