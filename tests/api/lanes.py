"""The two lanes side by side: a sidecar as it is, and one on the same data whose every request goes through Starlette.

What is compared is the bytes that come back, so the client here is a socket.
"""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.sidecar_process import SidecarProcess

SECONDS_MAX = 20.0
SEGMENT_PAUSE_S = 0.002  # two writes without a pause arrive as one, and that one is split would not be tested

WITHOUT_FAST_LANE = [
    sys.executable,
    "-c",
    "from creditgate import server; server.fast_lane = lambda *_: 'httptools';"
    "from creditgate.cli import main; main()",
]

# What differs between any two calls, whatever the lane: the time, and ids that are made for each call.
_VARYING = re.compile(rb"(?<=\r\ndate: )[^\r]+|(?<=_at\":)\d{13}|(?<=\"bal_)[^\"]+|(?<=\"evt_)[^\"]+")


class Lane:
    """One sidecar, reached by sockets. `name` is part of the ids of its customers, so that each lane has its own."""

    def __init__(self, sidecar: SidecarProcess, name: str) -> None:
        self.sidecar = sidecar
        self.name = name
        address = urlsplit(sidecar.url)
        self.host = f"{address.hostname}:{address.port}"
        self.address = address.hostname or "", address.port or 0

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """Yield a connection that gives up after a while."""
        with socket.create_connection(self.address, timeout=SECONDS_MAX) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connection

    def requests(self, *templates: bytes) -> bytes:
        """Return the bytes of requests: `@KEY`, `@HOST` and `@LANE` become this lane's; none changes a length."""
        text = b"".join(templates).replace(b"@LANE", self.name.encode())
        return text.replace(b"@KEY", self.sidecar.key.encode()).replace(b"@HOST", self.host.encode())

    def says(self, pieces: Sequence[bytes]) -> bytes:
        """Send these bytes, in so many segments, and then ask to close; returns all that is answered, made alike."""
        with self.connected() as connection:
            with suppress(
                ConnectionError
            ):  # it may close before all is sent; what it said is there to be read
                for piece in pieces[:-1]:
                    connection.sendall(piece)
                    time.sleep(SEGMENT_PAUSE_S)
                connection.sendall(pieces[-1] + self.requests(GOODBYE))
            return self.alike(read_to_end(connection))

    def alike(self, answer: bytes) -> bytes:
        """Return an answer without what differs between any two calls."""
        answer = answer.replace(self.host.encode(), b"@HOST").replace(self.name.encode(), b"@LANE")
        return _VARYING.sub(b"~", answer)

    def fast_requests(self) -> int:
        """Return how many requests went through the fast lane so far."""
        return int(self.number("creditgate_fastlane_requests_total"))

    def number(self, name: str) -> float:
        """Return one of its numbers."""
        with self.connected() as connection:
            connection.sendall(
                self.requests(b"GET /metrics HTTP/1.1\r\nHost: @HOST\r\nConnection: close\r\n\r\n")
            )
            page = read_to_end(connection).decode()
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


GOODBYE = b"GET /healthz HTTP/1.1\r\nHost: @HOST\r\nConnection: close\r\n\r\n"


def read_to_end(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    parts = []
    with suppress(ConnectionResetError):  # it closed with bytes of ours unread
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def read_answer(connection: socket.socket, rest: bytes = b"") -> tuple[bytes, bytes]:
    """Return one answer, head and body, and what came behind it."""
    while b"\r\n\r\n" not in rest:
        part = connection.recv(65536)
        assert part, f"closed after {rest!r}"
        rest += part
    head, _, rest = rest.partition(b"\r\n\r\n")
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(rest) < length:
        part = connection.recv(65536)
        assert part, f"closed within the body of {head!r}"
        rest += part
    return head + b"\r\n\r\n" + rest[:length], rest[length:]


def posted(path: str, body: bytes, *, headers: bytes = b"") -> bytes:
    """Return one plain request, as a template."""
    return (
        b"POST %b HTTP/1.1\r\nHost: @HOST\r\nAuthorization: Bearer @KEY\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (path.encode(), headers, len(body), body)
    )


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for as long as this lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
