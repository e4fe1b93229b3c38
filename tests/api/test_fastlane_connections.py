"""One connection of the fast lane through its life: pieces, pipelines, clients that are slow or gone, and the end."""

import fcntl
import signal
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from creditgate.api.calls import BODY_BYTES_MAX
from creditgate.api.door import BODY_SECONDS_MAX
from creditgate.server import KEEP_ALIVE_S
from tests.api.lanes import SECONDS_MAX, Lane, frozen, posted, read_answer, read_to_end
from tests.sidecar_process import SidecarProcess, wait_until

GONE = 50  # clients that leave in mid-flight
PIPELINED = 2_000
UNREAD_BYTES_MAX = 16 * 1024 * 1024  # the buffers of two sockets, and of one connection's protocol, and some


HASTY_KEEP_ALIVE_S = 1
HASTY = (
    f"from creditgate import server; server.KEEP_ALIVE_S = {HASTY_KEEP_ALIVE_S};"
    "from creditgate.cli import main; main()"
)


@pytest.fixture(scope="module")
def lane(demo: SidecarProcess) -> Lane:
    return Lane(demo, "lane1")


@pytest.fixture(scope="module")
def hasty() -> Iterator[Lane]:
    """A sidecar that keeps an idle connection for a second only, under whatever name it is called."""
    sidecar = SidecarProcess(arguments=["--demo", "--allowed-hosts", "*"], main=[sys.executable, "-c", HASTY])
    try:
        yield Lane(sidecar.start(), "hasty")
    finally:
        sidecar.close()


def request(verb: str, customer_id: str, *, value: int = 1, more: str = "", headers: bytes = b"") -> bytes:
    """Return one plain request, as a template; a `check` asks for so much, a `track` takes it."""
    name = "value" if verb == "track" else "required_balance"
    body = f'{{"customer_id":"{customer_id}","feature_id":"basic_messages","{name}":{value}{more}}}'
    return posted(f"/v1/balances.{verb}", body.encode(), headers=headers)


def new_customer(lane: Lane, customer_id: str) -> str:
    """Make a customer who has 5 credits, enough for 500 basic messages."""
    lane.sidecar.ask("customers.get_or_create", {"customer_id": customer_id})
    return customer_id


def remaining(lane: Lane, customer_id: str) -> float:
    asked = {"customer_id": customer_id, "feature_id": "basic_messages"}
    balance = lane.sidecar.ask("balances.check", asked)["balance"]
    return round(float(balance["remaining"]) * 100, 6)


def log_of(lane: Lane) -> str:
    return (lane.sidecar.directory / "log").read_text()


def test_split_at_every_byte(lane: Lane) -> None:
    """Wherever a network cuts two pipelined requests in two, both are understood, taken the fast way, and in order."""
    customer_id = new_customer(lane, "split")
    text = lane.requests(request("track", customer_id, value=0), request("check", customer_id, value=3))
    before = lane.fast_requests()
    whole = lane.says([text])
    for place in range(1, len(text)):
        assert lane.says([text[:place], text[place:]]) == whole, text[:place]
    assert whole.count(b"HTTP/1.1 200 OK") == 3
    assert lane.fast_requests() - before == 2 * len(text)


def test_byte_by_byte(lane: Lane) -> None:
    """A client that writes every byte on its own is served, too."""
    customer_id = new_customer(lane, "bytes")
    text = lane.requests(request("track", customer_id, value=0))
    answer = lane.says([text[place : place + 1] for place in range(len(text))])
    assert answer == lane.says([text])


def test_a_body_that_looks_like_requests(lane: Lane) -> None:
    """What stands in a body is never run: neither as part of it, nor when its end is where a request could begin."""
    victim, customer_id = new_customer(lane, "victim"), new_customer(lane, "smuggler")
    inner = request("track", victim, value=100)
    for path in ("/v1/balances.check", "/v1/balances.track", "/v1/features.list", "/v1/nowhere"):
        outer = posted(path, lane.requests(inner))
        before = lane.fast_requests()
        for text in (outer, outer + request("check", customer_id)):
            for place in (len(text) // 3, text.index(b"POST", 10), text.index(b"POST", 10) + 4):
                filled, cut = lane.requests(text), len(lane.requests(text[:place]))
                lane.says([filled[:cut], filled[cut:]])
        assert lane.fast_requests() - before == (9 if "balances" in path else 3)
    assert remaining(lane, victim) == 500


@pytest.mark.parametrize(
    "headers",
    [
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length : 4\r\n",
        b"X: y\nContent-Length: 4\r\n",
    ],
)
def test_lengths_that_disagree(lane: Lane, headers: bytes) -> None:
    """A proxy in front may believe the other length; what follows must not become a request of somebody else."""
    victim = new_customer(lane, "victim2")
    inner = lane.requests(request("track", victim, value=100))
    for smuggled in (inner, b"0\r\n\r\n" + inner):
        answer = lane.says([lane.requests(posted("/v1/balances.check", smuggled, headers=headers))])
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer
        assert answer.count(b"HTTP/1.1") == 1
    assert remaining(lane, victim) == 500


def test_pipelines_of_both_lanes_answer_in_order(lane: Lane) -> None:
    """Answers carry no name: one that overtakes another is taken for it."""
    customer_id = new_customer(lane, "order")
    slow = posted("/v1/events.list", b"{}")
    text = b"".join(
        request("track", customer_id, value=1)
        + (slow if number % 3 == 0 else b"")
        + request("check", customer_id, value=number)
        for number in range(1, 40)
    )
    with lane.connected() as connection:
        connection.sendall(lane.requests(text))
        rest = b""
        for number in range(1, 40):
            tracked, rest = read_answer(connection, rest)
            assert b'"remaining":%s' % _credits(500 - number) in tracked
            if number % 3 == 0:
                listed, rest = read_answer(connection, rest)
                assert b'"list":' in listed
            checked, rest = read_answer(connection, rest)
            assert b'"required_balance":%s,' % _credits(number) in checked
            assert b'"remaining":%s' % _credits(500 - number) in checked


def _credits(messages: int) -> bytes:
    return f"{messages / 100:g}".encode()


def test_a_long_pipeline_of_requests_that_are_answered_at_once(lane: Lane) -> None:
    """Refusals need no Redis, so each ends while the one before it is being ended: that must not pile up."""
    slow = posted("/v1/events.list", b"{}")
    with lane.connected() as connection:
        connection.sendall(lane.requests(slow, posted("/v1/check", b"{") * PIPELINED))
        rest = b""
        for _ in range(PIPELINED + 1):
            _, rest = read_answer(connection, rest)
    assert "Traceback" not in log_of(lane)


def test_connection_close(lane: Lane) -> None:
    """Who asks to close gets an answer that says so, and nothing that was sent behind it is run."""
    customer_id = new_customer(lane, "close")
    last = request("track", customer_id, headers=b"Connection: close\r\n")
    for text in (last, posted("/v1/check", b"{", headers=b"Connection: close\r\n")):
        with lane.connected() as connection:
            connection.sendall(lane.requests(text, request("track", customer_id) * 3))
            answer = read_to_end(connection)
        assert answer.count(b"HTTP/1.1") == 1
        assert b"\r\nconnection: close\r\n" in answer
    assert remaining(lane, customer_id) == 499


def test_a_body_that_does_not_come(lane: Lane) -> None:
    """A body that is held back costs a connection for two seconds, and the answer says why."""
    text = lane.requests(request("track", new_customer(lane, "held"), value=1))
    before, began = lane.fast_requests(), time.monotonic()
    with lane.connected() as connection:
        connection.sendall(text[:-5])
        answer, _ = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert BODY_SECONDS_MAX <= time.monotonic() - began < 5 * BODY_SECONDS_MAX
    assert lane.fast_requests() == before


def test_a_slow_body_is_whole(lane: Lane) -> None:
    """A body that comes slowly changes lanes on its way, and none of it is lost or doubled."""
    customer_id = new_customer(lane, "slow")
    text = lane.requests(request("track", customer_id, value=7))
    before = lane.fast_requests()
    with lane.connected() as connection:
        for piece in (text[:-20], text[-20:-9], text[-9:]):
            connection.sendall(piece)
            time.sleep(0.15)  # this is the slowness
        connection.sendall(lane.requests(request("check", customer_id)))
        tracked, rest = read_answer(connection)
        checked, _ = read_answer(connection, rest)
    assert b'"value":7' in tracked
    assert b'"remaining":4.93' in checked
    assert lane.fast_requests() - before == 1


def test_the_largest_body(lane: Lane) -> None:
    """The limit is the same in both lanes: one byte more is refused."""
    customer_id = new_customer(lane, "large")
    for length, status in ((BODY_BYTES_MAX, b"200"), (BODY_BYTES_MAX + 1, b"413")):
        filled = request("check", customer_id, more="@FILL")
        body = filled.partition(b"\r\n\r\n")[2].replace(b"@FILL", b"")
        body += b" " * (length - len(body))
        with lane.connected() as connection:
            connection.sendall(lane.requests(posted("/v1/balances.check", body)))
            answer, _ = read_answer(connection)
        assert answer.startswith(b"HTTP/1.1 " + status)


def test_clients_that_leave_in_mid_flight(lane: Lane) -> None:
    """A track whose caller is gone takes effect, once, and nothing of it stands in the log."""
    customer_id = new_customer(lane, "gone")
    taking = lane.requests(request("track", customer_id))
    before = lane.fast_requests()
    with ExitStack() as connections:
        opened = [connections.enter_context(lane.connected()) for _ in range(GONE)]
        with frozen(lane.sidecar.valkey_pid):
            for number, connection in enumerate(opened):
                connection.sendall(taking)
                if number % 2:  # half of them break the connection off
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    wait_until(lambda c=connection: _is_read(c), what="the request was read")
                connection.close()
    wait_until(lambda: lane.fast_requests() - before == GONE, what="all were read")
    wait_until(lambda: remaining(lane, customer_id) == 500 - GONE, what="all have taken effect")
    assert "Traceback" not in log_of(lane)


def _is_read(connection: socket.socket) -> bool:
    """Say whether the other side's kernel has all of it; a reset behind that leaves it readable."""
    return not struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]


def test_a_client_that_does_not_read(lane: Lane) -> None:
    """Who asks without end and reads no answer is not read any more, and gets all its answers when it reads again."""
    customer_id = new_customer(lane, "deaf")
    padding = f',"properties":{{"padding":"{"x" * 4000}"}}'
    text = lane.requests(request("check", customer_id, more=padding))
    with lane.connected() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1.0)
        sent = 0
        with suppress(TimeoutError):
            while sent < UNREAD_BYTES_MAX:
                sent += connection.send(text[sent % len(text) :])
        assert sent < UNREAD_BYTES_MAX
        connection.settimeout(SECONDS_MAX)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES_MAX)
        rest = b""
        finishing = threading.Thread(target=connection.sendall, args=(text[sent % len(text) :],))
        finishing.start()
        for _ in range(sent // len(text) + 1):
            answer, rest = read_answer(connection, rest)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        finishing.join()
        assert not rest


def test_a_connection_serves_many_requests(lane: Lane) -> None:
    """Nothing is said about the connection as long as it stays."""
    text = lane.requests(request("check", new_customer(lane, "alive")))
    with lane.connected() as connection:
        for _ in range(100):
            connection.sendall(text)
            answer, rest = read_answer(connection)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"connection:" not in answer
            assert not rest


def test_keep_alive(hasty: Lane) -> None:
    """The time after which an idle connection is closed begins anew with each answer, and not before it."""
    text = hasty.requests(request("check", new_customer(hasty, "alive")))
    with hasty.connected() as connection:
        for _ in range(4):
            connection.sendall(text)
            read_answer(connection)
            time.sleep(0.3 * HASTY_KEEP_ALIVE_S)  # idle, but not for long enough
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - began < KEEP_ALIVE_S / 2


def test_no_host_where_any_will_do(hasty: Lane) -> None:
    """Behind a proxy every name is ours, so one that is missing is no failure of ours either."""
    text = hasty.requests(request("check", new_customer(hasty, "hostless"))).replace(b"Host: ", b"Hosts: ")
    with hasty.connected() as connection:
        connection.sendall(text)
        answer, _ = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("said", [b"", b"\r\n", b"P", b"POST / HTTP/1.1\r\nHost:", b"x" * 70])
@pytest.mark.parametrize("is_first", [True, False])
def test_heads_that_drip(hasty: Lane, said: bytes, is_first: bool) -> None:
    """Thousands of connections that never get to their point would use up the sockets: each has its time."""
    with hasty.connected() as connection:
        if not is_first:
            connection.sendall(hasty.requests(request("check", new_customer(hasty, "alive"))))
            read_answer(connection)
        began = time.monotonic()
        connection.settimeout(0.05)
        answer = None
        while answer is None:
            assert time.monotonic() - began < KEEP_ALIVE_S / 2
            with suppress(ConnectionError):
                connection.sendall(said[:1])
            said = said[1:] or said[:1]
            with suppress(TimeoutError):
                answer = connection.recv(4096)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_a_head_without_end(lane: Lane) -> None:
    """Headers are kept in memory until they are complete, so there is an end to them."""
    with lane.connected() as connection:
        sent = 0
        with suppress(ConnectionError):
            connection.sendall(b"POST /v1/check HTTP/1.1\r\nX: ")
            while sent < UNREAD_BYTES_MAX:
                sent += connection.send(b"x" * 10_000)
        assert sent < UNREAD_BYTES_MAX
        assert b"too large" in read_to_end(connection)


@pytest.mark.parametrize("is_there", [True, False], ids=["client waits", "client left"])
def test_shutdown_answers_what_is_in_flight(is_there: bool) -> None:
    """A deployment loses no call: what was begun is decided and answered, and then the process ends well."""
    sidecar = SidecarProcess(arguments=["--demo"])
    try:
        lane = Lane(sidecar.start(), "lane1")
        taking = lane.requests(request("track", new_customer(lane, "last"), value=5))
        process = sidecar.process
        assert process is not None
        with lane.connected() as connection, lane.connected() as idle:
            with frozen(sidecar.valkey_pid):
                connection.sendall(taking)
                wait_until(lambda: _is_read(connection), what="the request was read")
                if not is_there:
                    connection.close()
                process.send_signal(signal.SIGTERM)
                assert read_to_end(idle) == b""  # it shuts down by now
            if is_there:
                answer = read_to_end(connection)
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"\r\nconnection: close\r\n" in answer
        assert sidecar.ended() == 0
        assert "Traceback" not in log_of(lane)
        lane = Lane(sidecar.start(), "lane1")
        assert remaining(lane, "last") == 495
    finally:
        sidecar.close()
