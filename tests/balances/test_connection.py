"""The connection of the hot path: whatever breaks, each call gets its own reply or the truth about what is known."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as SyncRedis
from redis._parsers.base import BaseParser
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from creditgate.balances import hot_connection
from creditgate.balances.connection import (
    NotWritten,
    ServerChanged,
    ServerGuard,
    guarded_client,
    server_id_of,
)
from creditgate.balances.hot_connection import HotConnection
from creditgate.balances.scripts import Script
from creditgate.balances.wire import SILENCE_MAX_S, error_of
from creditgate.errors import Unavailable
from tests.balances.relay import Relay

ECHO = "return ARGV[1]"
COUNT = "return redis.call('INCR', KEYS[1])"
PATIENT_S = 20.0
SHORT_S = 0.5  # a window that is waited for; long enough for one reply on a busy machine
CERTIFICATE = Path(__file__).parent / "tls" / "localhost.pem"

Open = Callable[..., HotConnection]


@pytest.fixture
async def guard(redis: "Redis") -> ServerGuard:
    """A guard for whom the Valkey is reconciled."""
    guard = ServerGuard()
    guard.reconciled = frozenset([await server_id_of(redis)])
    return guard


@pytest.fixture
async def relay(tmp_path: Path, valkey_socket: str) -> AsyncIterator[Relay]:
    """A relay in front of the Valkey."""
    async with Relay(valkey_socket, tmp_path / "r") as relay:
        yield relay


@pytest.fixture
async def opened(guard: ServerGuard, relay: Relay, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens connections through the relay, or to another URL; on a busy machine, only faults may run out of time."""
    connections: list[HotConnection] = []
    clients: list[Redis] = []

    def open_one(url: str = f"unix://{tmp_path / 'r'}", *, window_s: float = PATIENT_S) -> HotConnection:
        client = guarded_client(url, guard)
        clients.append(client)
        connections.append(HotConnection(client, guard, window_s=window_s))
        return connections[-1]

    yield open_one
    for connection in connections:
        await connection.aclose()
    for client in clients:
        await client.aclose()


@pytest.fixture
async def echo(redis: "Redis") -> str:
    """The hash of a script that gives back what it got."""
    return str(await redis.script_load(ECHO))


@pytest.fixture
async def count(redis: "Redis") -> str:
    """The hash of a script that counts up a key."""
    return str(await redis.script_load(COUNT))


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENT_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_each_call_gets_its_own_reply(opened: Open, echo: str) -> None:
    """Replies carry no name: one that went to another call would be a wrong balance for a customer."""
    connection = opened()

    async def ask(number: int) -> bool:
        await asyncio.sleep(number % 7 / 1000)
        text = f"{number}" * (number % 50 + 1)
        reply: bytes = await connection.evalsha(echo, 0, text)
        return reply.decode() == text

    assert all(await asyncio.gather(*(ask(number) for number in range(2000))))


async def test_what_is_written_goes_before_the_tick_is_over(
    opened: Open, valkey_socket: str, count: str
) -> None:
    """Redis works on it while we go on."""
    connection = opened(f"unix://{valkey_socket}")
    await connection.evalsha(count, 1, "n")
    call = connection.evalsha(count, 1, "n")
    connection._write()
    with SyncRedis(unix_socket_path=valkey_socket) as redis:
        until = time.monotonic() + 5  # in which the event loop does nothing else
        while redis.get("n") != b"2" and time.monotonic() < until:
            time.sleep(0.001)
        assert redis.get("n") == b"2"
    assert await call == 2


async def test_all_calls_of_one_tick_are_one_write(opened: Open, relay: Relay, echo: str) -> None:
    """A write for each call is most of what a call costs, here and in the server."""
    connection = opened()
    await connection.evalsha(echo, 0, "first")
    before = len(relay.pieces)
    await asyncio.gather(*(connection.evalsha(echo, 0, "x" * 300) for _ in range(64)))
    assert len(relay.pieces) - before == 1
    assert relay.scripts == 65
    assert relay.connections == 1


async def test_what_was_written_may_have_taken_effect(
    opened: Open, relay: Relay, count: str, redis: "Redis"
) -> None:
    """A connection lost after the server has worked: it must not be said that nothing happened, nor be sent again."""
    connection = opened()
    await connection.evalsha(count, 1, "n")
    relay.replying.clear()
    lost = connection.evalsha(count, 1, "n")
    await until(lambda: relay.scripts == 2)
    await asyncio.sleep(0.05)
    assert await redis.get("n") == b"2"
    relay.cut()
    with pytest.raises(RedisConnectionError) as error:
        await lost
    assert not isinstance(error.value, NotWritten)
    relay.replying.set()
    assert await connection.evalsha(count, 1, "n") == 3


async def test_half_a_reply_is_none(opened: Open, relay: Relay, echo: str) -> None:
    """A reply that breaks off is no reply, and what came of it is not taken for the beginning of the next."""
    connection = opened()
    await connection.evalsha(echo, 0, "first")
    relay.bytes_of_reply_left = 300
    both = [connection.evalsha(echo, 0, "a" * 200), connection.evalsha(echo, 0, "b" * 200)]
    answers = await asyncio.gather(*both, return_exceptions=True)
    assert answers[0] == b"a" * 200
    assert isinstance(answers[1], RedisConnectionError)
    assert await connection.evalsha(echo, 0, "next") == b"next"
    assert relay.connections == 2


async def test_a_reply_that_comes_too_late_is_nobodys(opened: Open, relay: Relay, echo: str) -> None:
    """The call has failed by then; the reply must not become that of the call behind it."""
    connection = opened(window_s=SHORT_S)
    await connection.evalsha(echo, 0, "first")
    relay.replying.clear()
    with pytest.raises(RedisTimeoutError):
        await connection.evalsha(echo, 0, "late")
    following = connection.evalsha(echo, 0, "following")
    relay.replying.set()
    assert await following == b"following"
    assert relay.connections == 1


async def test_a_silent_connection_is_given_up(opened: Open, relay: Relay, echo: str) -> None:
    """A machine that vanished closes nothing: without this, every call for minutes would go to nobody."""
    connection = opened(window_s=SHORT_S)
    await connection.evalsha(echo, 0, "first")
    relay.replying.clear()
    with pytest.raises(RedisTimeoutError):
        await connection.evalsha(echo, 0, "lost")
    began = time.monotonic()
    await until(lambda: relay.connections >= 2)
    assert time.monotonic() - began > SILENCE_MAX_S / 2
    relay.replying.set()
    assert await connection.evalsha(echo, 0, "again") == b"again"


async def test_what_was_never_sent_has_no_effect(opened: Open, tmp_path: Path, echo: str) -> None:
    """Nobody listens: the call ends in its window, and may be sent again without a look into the journal."""
    connection = opened(f"unix://{tmp_path / 'nobody'}", window_s=SHORT_S)
    with pytest.raises(NotWritten):
        await connection.evalsha(echo, 0, "x")


async def test_calls_wait_for_the_connection(
    opened: Open, tmp_path: Path, valkey_socket: str, echo: str
) -> None:
    """A server that is back within a call's window costs no call."""
    connection = opened(f"unix://{tmp_path / 'later'}")
    waiting = connection.evalsha(echo, 0, "x")
    await asyncio.sleep(0.05)  # some tries have failed by then
    async with Relay(valkey_socket, tmp_path / "later"):
        assert await waiting == b"x"


async def test_it_comes_back_by_itself(opened: Open, relay: Relay, echo: str) -> None:
    """The next call after a loss should find a connection, not make one."""
    connection = opened()
    await connection.evalsha(echo, 0, "first")
    relay.cut()
    await until(lambda: relay.connections == 2)
    assert await connection.evalsha(echo, 0, "next") == b"next"
    assert relay.connections == 2


async def test_another_server_gets_no_script(
    opened: Open, guard: ServerGuard, relay: Relay, echo: str
) -> None:
    """A server that was not reconciled may be older than SQL: a call there would be decided by old balances."""
    reconciled, guard.reconciled = guard.reconciled, frozenset(["another"])
    connection = opened()
    with pytest.raises(ServerChanged):
        await connection.evalsha(echo, 0, "x")
    assert relay.scripts == 0
    guard.reconciled = reconciled
    assert await connection.evalsha(echo, 0, "x") == b"x"


async def test_a_server_that_is_reconciled_anew_is_greeted_anew(
    opened: Open, guard: ServerGuard, relay: Relay, echo: str
) -> None:
    """While another server becomes the one that counts, calls must not go on to the old one over an open connection."""
    connection = opened()
    await connection.evalsha(echo, 0, "first")
    reconciled, guard.reconciled = guard.reconciled, frozenset()
    with pytest.raises(ServerChanged):
        await connection.evalsha(echo, 0, "x")
    assert relay.scripts == 1
    guard.reconciled = reconciled
    assert await connection.evalsha(echo, 0, "x") == b"x"


async def test_more_calls_than_can_be_answered_are_refused(
    opened: Open, relay: Relay, echo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bound, a slow Redis would let calls pile up until the process has no memory left."""
    monkeypatch.setattr(hot_connection, "CALLS_MAX", 10)
    connection = opened()
    await connection.evalsha(echo, 0, "first")
    relay.replying.clear()
    in_flight = [connection.evalsha(echo, 0, "x") for _ in range(5)]
    await until(lambda: relay.scripts == 6)
    queued = [connection.evalsha(echo, 0, "x") for _ in range(5)]
    with pytest.raises(Unavailable):
        connection.evalsha(echo, 0, "too many")
    relay.replying.set()
    assert await asyncio.gather(*in_flight, *queued) == [b"x"] * 10
    assert await connection.evalsha(echo, 0, "fits again") == b"fits again"


async def test_a_server_that_does_not_read_is_not_written_to(
    opened: Open, relay: Relay, echo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server does not take stays in the queue, which has a bound, and goes out when it reads again."""
    monkeypatch.setattr(hot_connection, "QUEUED_BYTES_MAX", 3 * 2**20)
    connection = opened()
    await connection.evalsha(echo, 0, "first")
    relay.reading.clear()
    large = "x" * 2**20
    calls = [connection.evalsha(echo, 0, "one more, which the relay reads before it stops")]
    await until(lambda: relay.scripts == 2)
    calls += [connection.evalsha(echo, 0, large)]
    await until(lambda: connection._wire is not None and connection._wire.is_paused)
    calls += [connection.evalsha(echo, 0, large) for _ in range(2)]
    await asyncio.sleep(0)
    assert len(connection._queued) == 2
    with pytest.raises(Unavailable):
        connection.evalsha(echo, 0, large)
    relay.reading.set()
    assert [len(reply) for reply in (await asyncio.gather(*calls))[1:]] == [2**20] * 3


async def test_what_waits_longer_than_its_window_is_not_sent_then(
    opened: Open, relay: Relay, count: str
) -> None:
    """A call that its caller was told has no effect must never leave the queue afterwards."""
    connection = opened(window_s=SHORT_S)
    await connection.evalsha(count, 1, "n")
    relay.reading.clear()
    calls = [connection.evalsha(count, 1, "n", "a piece that the relay reads before it stops")]
    await until(lambda: relay.scripts == 2)
    calls += [connection.evalsha(count, 1, "n", "x" * 2**20)]
    await until(lambda: connection._wire is not None and connection._wire.is_paused)
    with pytest.raises(NotWritten):
        await connection.evalsha(count, 1, "n")
    relay.reading.set()
    assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [
        int,
        RedisTimeoutError,
    ]
    assert await connection.evalsha(count, 1, "n") == 4


async def test_who_has_left_harms_nobody(opened: Open, relay: Relay, count: str, echo: str) -> None:
    """A client that hangs up, or a caller with a bug, must not break the connection that all others share."""
    connection = opened()
    await connection.evalsha(count, 1, "n")
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
    before, during, raising, last = (
        connection.evalsha(count, 1, "n"),
        connection.evalsha(echo, 0, "during"),
        connection.evalsha(echo, 0, "raising"),
        connection.evalsha(echo, 0, "last"),
    )
    before.cancel()  # is not written any more
    raising.add_done_callback(lambda _: 1 / 0)
    relay.replying.clear()
    await until(lambda: relay.scripts == 4)
    during.cancel()  # is already on its way
    relay.replying.set()
    assert await last == b"last"
    assert await raising == b"raising"
    assert [type(problem["exception"]) for problem in problems] == [ZeroDivisionError]
    assert await connection.evalsha(count, 1, "n") == 2
    assert relay.connections == 1


async def test_a_reply_that_nobody_asked_for_ends_the_connection(
    opened: Open, relay: Relay, echo: str
) -> None:
    """From then on nobody knows whose reply is whose."""
    connection = opened()
    await connection.evalsha(echo, 0, "first")
    next(iter(relay._writers)).write(b"+OK\r\n")
    await until(lambda: relay.connections == 2)
    assert await connection.evalsha(echo, 0, "next") == b"next"


async def test_what_waits_at_the_end_is_told(opened: Open, relay: Relay, echo: str) -> None:
    """Whoever waits while the sidecar stops gets an answer."""
    connection = opened()
    await connection.evalsha(echo, 0, "first")
    relay.replying.clear()
    in_flight = connection.evalsha(echo, 0, "x")
    await until(lambda: relay.scripts == 2)
    queued = connection.evalsha(echo, 0, "x")
    await connection.aclose()
    with pytest.raises(NotWritten):
        await queued
    with pytest.raises(RedisConnectionError):
        await in_flight
    with pytest.raises(Unavailable):
        connection.evalsha(echo, 0, "x")


async def test_a_script_that_the_server_forgot_is_loaded(opened: Open, redis: "Redis") -> None:
    """After a failover the first call works: the script was refused before it wrote, so it may be sent again."""
    script, connection = Script("lease"), opened()
    await redis.script_flush()
    with pytest.raises(NoScriptError):
        await connection.evalsha(script.sha, 1, "lease", "me", 1000, "")
    reply = await script.call(connection, ["lease"], ["me", 1000, ""])
    assert reply[0] == 1
    assert await redis.get("lease") == b"me"


REFUSALS = (
    "ERR unknown command",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair",
    "NOPERM this user has no permissions",
    "NOSCRIPT No matching script.",
    "MASTERDOWN Link with MASTER is down",
    "NOREPLICAS Not enough good replicas to write.",
    "MOVED 3999 127.0.0.1:6381",
    "ASK 3999 :6381",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN The cluster is down",
    "CROSSSLOT Keys in request don't hash to the same slot",
)


@pytest.mark.parametrize("text", REFUSALS)
def test_errors_are_those_of_redis_py(text: str) -> None:
    """What a refusal means was worked out for redis-py's errors; both lanes must tell callers the same."""
    assert type(error_of(text)) is type(BaseParser.parse_error(text))  # type: ignore[no-untyped-call]


async def test_an_error_harms_only_its_call(opened: Open, redis: "Redis", count: str) -> None:
    """A refusal is the answer to one call; those before and behind it are answered."""
    connection = opened()
    await redis.set("text", "x")
    calls = [connection.evalsha(count, 1, key) for key in ("n", "text", "n")]
    first, wrong, last = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, last) == (1, 2)
    assert isinstance(wrong, ResponseError)
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            await connection.evalsha(count, 1, "n")
    finally:
        await redis.config_set("maxmemory", 0)


async def test_it_goes_where_the_url_says(
    opened: Open, valkey_socket: str, redis: "Redis", echo: str
) -> None:
    """User, password, database and name hold for this connection as for those of redis-py."""
    await redis.acl_setuser("gate", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
    try:
        async with Relay(valkey_socket) as relay:
            connection = opened(f"redis://gate:secret@127.0.0.1:{relay.port}/3")
            await connection.eval("redis.call('SET', KEYS[1], '1')", 1, "there")
            ours = [one for one in await redis.client_list() if one["user"] == "gate"]
            assert [(one["name"], one["db"]) for one in ours] == [("creditgate", "3")]
            wrong = opened(f"redis://gate:wrong@127.0.0.1:{relay.port}/3", window_s=SHORT_S)
            with pytest.raises(NotWritten):
                await wrong.eval("return 1", 0)
    finally:
        await redis.acl_deluser("gate")


async def test_it_speaks_tls(opened: Open, valkey_socket: str, echo: str) -> None:
    """A hosted Redis is reached with TLS; a certificate that nobody vouches for is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # of the relay that is hung up on
    async with Relay(valkey_socket, tls=context) as relay:
        trusting = opened(f"rediss://localhost:{relay.port}?ssl_ca_certs={CERTIFICATE}")
        assert await trusting.evalsha(echo, 0, "x") == b"x"
        with pytest.raises(NotWritten):
            await opened(f"rediss://localhost:{relay.port}", window_s=SHORT_S).evalsha(echo, 0, "x")
