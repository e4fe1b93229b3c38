"""The fast lane: a plain check or track is decided and answered from uvicorn's parser, without ASGI and without a task.

Uvicorn's protocol reads the bytes, keeps the order of pipelined requests and the time-outs, and makes a cycle for each
request, which has its headers and its body. Here a cycle's turn is caught (`_start_asgi_task`): one that the door lets
in is decided once its body is complete, by the handler of its route, and answered from the callback. Any other goes on
to Starlette, as does one whose body keeps us waiting: it is the same cycle, with the bytes it has, so no byte can get
from one request into another.

A client says the same head again and again, but for the idempotency key. One that was let in is remembered by its bytes
without that line, so the next request that comes alone, whole and with the same head needs no parser and no cycle: the
parser, between two requests as it is, would make the same of it. A `_Turn` stands where uvicorn has its cycle
meanwhile, and others queue behind it as behind one.

One request of a connection is decided at a time, in order: a track may be what the check behind it asks about.
"""

import asyncio
import re
from typing import Any, ClassVar

import uvicorn
from msgspec.structs import replace
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from creditgate.api.calls import Answer
from creditgate.api.connections import LimitedConnection
from creditgate.api.fastdoor import Admitted, FastDoor
from creditgate.telemetry import logger
from creditgate.telemetry.metrics import Metrics

MADE_FOR = "0.54."  # the uvicorn whose inside we know; it has promised nothing about it
BODY_PATIENCE_S = 0.05  # clients send headers and body in two writes, but at once
HEADS_MAX = 1024  # remembered by a process: clients are few, and differ in little but the length of the body
HEAD_REMEMBERED_MAX = 4096  # bytes: that of an SDK has some hundreds

_END_OF_HEAD = b"\r\n\r\n"
# In the form that has one reading. (The parser refuses a line that goes on in the next.)
_KEY_LINE = re.compile(rb"\r\n[Ii]dempotency-[Kk]ey: ([!-~]{1,255})(?=\r\n)")
_RESPONSE = b"%bcontent-length: %d\r\ncontent-type: application/json\r\n%b\r\n%b"

log = logger(__name__)


class _Turn:
    """What uvicorn and we have to know of the requests of a connection that have no cycle of uvicorn's."""

    message_event = asyncio.Event()  # set when the client leaves; nobody waits for it here
    keep_alive = True
    disconnected = False
    response_started = False
    response_complete = False


class FastLane(LimitedConnection):
    """One connection. `fast_lane` makes the class that uvicorn is given."""

    door: ClassVar[FastDoor]
    metrics: ClassVar[Metrics]
    heads: ClassVar[dict[bytes, Admitted]]
    plain_head: ClassVar[tuple[list[tuple[bytes, bytes]], bytes]] = ([], b"")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._turn = _Turn()
        self._under_way: tuple[RequestResponseCycle | _Turn, Admitted, bytes] | None = None
        self._awaiting_body: tuple[RequestResponseCycle, Admitted] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._is_at_rest = False  # surely between requests, since a turn ended; else that has to be looked at
        self._is_lost = False
        self._is_in_message = False
        self._idle_since = 0.0
        self._came_alone: tuple[bytes, int] | None = None  # head of what is being read, and bytes behind it

    def data_received(self, data: bytes) -> None:
        if self._is_at_rest or self._is_between_requests():
            end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
            head = data[:end]
            request = self.heads.get(head) or self._but_for_its_key(head)
            if (
                request is not None
                and len(data) - end == request.body_bytes
                and self.door.still_admits(request)
            ):
                if self._head_timer is not None:
                    self._end_head()
                self.cycle = turn = self._turn  # type: ignore[assignment]  # it has all that uvicorn looks at
                turn.response_started = turn.response_complete = False
                self._decide(turn, request, data[end:])
                return
            self._came_alone = head, len(data) - end
        self._is_at_rest = False
        super().data_received(data)
        self._came_alone = None
        self._limit_patience()

    def on_message_begin(self) -> None:
        self._is_in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._is_in_message = False
        super().on_message_complete()
        if self._awaiting_body is not None:
            cycle, request = self._awaiting_body
            self._end_waiting()
            self._remember(cycle, request)
            self._decide(cycle, request, bytes(cycle.body))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:  # uvicorn would read on after each answer, however much waits
            self.flow.pause_reading()
        self._limit_patience()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_waiting()
        super().connection_lost(exc)
        self._is_lost = True
        # A shutdown waits for connections, and what was begun is brought to its end.
        if self._under_way is not None:
            self.connections.add(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Begin a request: its headers are there, and what came before it is answered."""
        if self.transport.is_closing():  # the answer before said so: nobody reads this one's
            return
        self._unset_keepalive_if_required()
        request = None
        if app is self.app and not self.flow.write_paused:  # Starlette's answers wait until the client reads
            request = self.door.admit(cycle.scope)
        if request is None:
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._awaiting_body = cycle, request
        else:
            self._decide(cycle, request, bytes(cycle.body))

    def timeout_keep_alive_handler(self) -> None:
        """Close what is idle. The timer is not set anew for each request that had no cycle: it looks again instead."""
        rest_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._under_way is not None or rest_s > 0:
            self._limit_idleness(max(rest_s, 0.0) or self.timeout_keep_alive)
        else:
            super().timeout_keep_alive_handler()

    def _limit_idleness(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _is_between_requests(self) -> bool:
        """Say whether the next byte begins a request, which is the only one."""
        return (
            not self._is_in_message
            and (self.cycle is None or self.cycle.response_complete)  # type: ignore[redundant-expr]  # None at first
            and self._under_way is None
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _remember(self, cycle: RequestResponseCycle, request: Admitted) -> None:
        """Remember the head that was just read, if the request came alone and whole, and asks for nothing special."""
        if self._came_alone is not None and cycle.keep_alive:
            head, behind = self._came_alone
            if request.idempotency_keys:
                head, removed = _KEY_LINE.subn(b"", head, 1)
                if not removed:
                    return
                request = replace(request, idempotency_keys=())
            if len(head) <= HEAD_REMEMBERED_MAX and behind == len(cycle.body) == request.body_bytes:
                if len(self.heads) >= HEADS_MAX:
                    self.heads.clear()
                self.heads[head] = request

    def _but_for_its_key(self, head: bytes) -> Admitted | None:
        """Return what the parser would make of a head that has one line more than one that is remembered."""
        line = _KEY_LINE.search(head)
        request = self.heads.get(head[: line.start()] + head[line.end() :]) if line else None
        return replace(request, idempotency_keys=(line[1].decode(),)) if line and request else None

    def _limit_patience(self) -> None:
        if self._awaiting_body is not None and self._patience is None:
            self._patience = self.loop.call_later(BODY_PATIENCE_S, self._leave_to_starlette)

    def _leave_to_starlette(self) -> None:
        """Hand over a request whose body does not come; Starlette's door says how long that may take."""
        if self._awaiting_body is not None and not self.transport.is_closing():
            cycle, _ = self._awaiting_body
            super()._start_asgi_task(cycle, self.app)
        self._end_waiting()

    def _end_waiting(self) -> None:
        self._awaiting_body = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _decide(self, cycle: "RequestResponseCycle | _Turn", request: Admitted, body: bytes) -> None:
        self._is_at_rest = False
        self._under_way = cycle, request, body
        self.metrics.fast_requests += 1
        try:
            self.door.answer(request, body, self._decided)
        except Exception as error:  # what is wrong with the body is seen at once
            self._decided(None, error)

    def _decided(self, answer: Answer | None, error: BaseException | None) -> None:
        assert self._under_way is not None
        cycle, request, body = self._under_way
        self._under_way = None
        if answer is None:
            assert error is not None
            answer = self.door.failure(request, body, error)
        if self._is_lost:
            self.connections.discard(self)
        elif not self.transport.is_closing():
            self._write(cycle, answer)

    def _write(self, cycle: "RequestResponseCycle | _Turn", answer: Answer) -> None:
        """Write what uvicorn would write for this answer as a Starlette response, at once."""
        defaults, head = self.plain_head
        if answer.headers or answer.status != 200 or defaults is not self.server_state.default_headers:
            head = self._head(answer)
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        body = answer.body
        cycle.response_started = cycle.response_complete = True
        self.transport.write(_RESPONSE % (head, len(body), close, body))
        if not cycle.keep_alive:
            self.transport.close()
        if self.pipeline:  # not at once: a pipeline of requests that are answered at once would recurse
            self.loop.call_soon(self.on_response_complete)
        elif cycle is self._turn and self.timeout_keep_alive_task is not None:
            self.server_state.total_requests += 1
            self._idle_since = self.loop.time()
            self._is_at_rest = cycle.keep_alive and not self.flow.write_paused
        else:
            self.on_response_complete()

    def _head(self, answer: Answer) -> bytes:
        """Return the head of an answer; that of nearly all is remembered until uvicorn has a new date."""
        defaults = self.server_state.default_headers
        head = STATUS_LINE[answer.status] + b"".join([b"%b: %b\r\n" % header for header in defaults])
        if answer.headers:
            fields = [f"{field.lower()}: {text}\r\n" for field, text in answer.headers.items()]
            head += "".join(fields).encode("latin-1")
        elif answer.status == 200:
            type(self).plain_head = defaults, head
        return head


def fast_lane(door: FastDoor, metrics: Metrics) -> type[HttpToolsProtocol]:
    """Return the protocol class for uvicorn's `http`: its own, if this uvicorn is not the one that ours is made for."""
    if not uvicorn.__version__.startswith(MADE_FOR):
        log.warning("fast_lane_off", uvicorn=uvicorn.__version__, made_for=MADE_FOR)
        return HttpToolsProtocol
    return type("FastLane", (FastLane,), {"door": door, "metrics": metrics, "heads": {}})
