"""One connection to Redis while it lives: commands go out in order, and replies come back in the same order.

What becomes of a call that got no reply depends on how far it came: one that was written may have taken effect, and
fails as redis-py's would; the queue in front (`hot_connection.py`) answers for those that never were.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

import hiredis
import msgspec
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from creditgate.telemetry import logger

SILENCE_MAX_S = 1.0  # after the deadline of a call that got no reply: then nobody is there, whatever TCP says

# As redis-py tells errors apart, since the same code catches them. What is not here is a ResponseError.
_ERRORS: dict[str, Callable[[str], RedisError]] = {
    "ASK": lambda text: AskError(text.partition(" ")[2]),
    "CLUSTERDOWN": ClusterDownError,
    "CROSSSLOT": ClusterCrossSlotError,
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "MOVED": lambda text: MovedError(text.partition(" ")[2]),
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
    "WRONGPASS": AuthenticationError,
}

Command = tuple[Any, ...]

log = logger(__name__)


class Call(msgspec.Struct, eq=False):
    """One command on its way: its bytes, once it is packed, and until when its reply is waited for. Each kind says who
    waits, and has what raises NotImplementedError here: msgspec's structs cannot be abstract classes.

    It ends once, by `take` or `fail`; what they raise harms nobody else. `merge` is what it was sent as a part of.
    """

    payload: bytes
    deadline: float
    merge: "Ending | None"

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for the reply any more."""
        return False

    def command(self) -> Command:
        """Return what the bytes say."""
        raise NotImplementedError

    def packed(self) -> bytes:
        """Return the bytes."""
        packed: bytes = hiredis.pack_command(self.command())
        return packed

    def take(self, reply: Any) -> None:
        """Hand the reply to who waits for it."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Tell who waits that there will be none."""
        raise NotImplementedError


class Ending(Protocol):
    """What a reply, or an error in place of it, is for."""

    @property
    def is_over(self) -> bool: ...
    def take(self, reply: Any) -> None: ...
    def fail(self, error: Exception) -> None: ...


class Awaited(Call):
    """A call whose reply is awaited; who waits may leave."""

    reply: "asyncio.Future[Any]"
    said: Command = ()

    @property
    def is_over(self) -> bool:
        return self.reply.done()

    def command(self) -> Command:
        return self.said

    def take(self, reply: Any) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)

    def fail(self, error: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


def end_with(ending: Ending, outcome: Any) -> None:
    """End a call with a reply, or the error that it is. An error of who waits for it is logged, and nobody else's."""
    try:
        if isinstance(outcome, Exception):
            ending.fail(outcome)
        else:
            ending.take(outcome)
    except Exception:
        log.exception("call_not_ended")


class Wire(asyncio.Protocol):
    """A connection. `server_id` is that of the server behind it, once it is known."""

    def __init__(self, *, on_writable: Callable[[], None], on_lost: Callable[["Wire"], None]) -> None:
        """`on_lost` is called once, when every call in flight has failed."""
        self.server_id: str | None = None
        self.is_paused = False
        self.is_lost = False
        self._on_writable = on_writable
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=error_of)
        self._sent: deque[Call] = deque()
        self._expired = (
            0  # calls at the head of the queue that nobody waits for; their replies may still come
        )

    def __len__(self) -> int:
        """How many replies are still to come."""
        return len(self._sent)

    def write(self, calls: Iterable[Call]) -> None:
        """Send calls in one write, but those that nobody waits for any more."""
        assert self._transport is not None
        wanted = [call for call in calls if not (call.merge or call).is_over]
        self._sent.extend(wanted)
        self._transport.write(b"".join([call.payload for call in wanted]))

    def expire(self, now: float) -> float | None:
        """End the waits whose deadlines have passed; returns when to look again, None while nothing is in flight."""
        sent = self._sent
        while self._expired < len(sent) and sent[self._expired].deadline <= now:
            call = sent[self._expired]
            self._expired += 1
            end_with(call.merge or call, RedisTimeoutError("no reply in time"))
        if not sent:
            return None
        gives_up_at = sent[0].deadline + SILENCE_MAX_S
        if gives_up_at <= now:
            self.end("it is silent")
            return None
        return sent[self._expired].deadline if self._expired < len(sent) else gives_up_at

    def end(self, reason: str) -> None:
        """Close the connection: what becomes of the calls in flight is unknown."""
        if self.is_lost:
            return
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()
        calls = list(self._sent)[self._expired :]
        self._sent.clear()
        for call in calls:
            end_with(call.merge or call, RedisConnectionError(f"the connection was lost: {reason}"))
        self._on_lost(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # as it is, though uvloop's does not inherit it

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(str(exc or "closed by the server"))

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self._on_writable()

    def data_received(self, data: bytes) -> None:
        sent = self._sent
        try:
            self._reader.feed(data)
            gets = self._reader.gets
            while (reply := gets()) is not False and not self.is_lost:
                call = sent.popleft()
                if self._expired:  # its wait is over
                    self._expired -= 1
                else:
                    end_with(call.merge or call, reply)
        except (hiredis.ProtocolError, IndexError) as error:  # whose reply is whose is no longer known
            self.end(repr(error))


def error_of(text: str) -> RedisError:
    """Return the error that a reply is."""
    return _ERRORS.get(text.partition(" ")[0], ResponseError)(text)
