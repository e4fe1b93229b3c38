"""What one connection may cost before it has asked anything: uvicorn itself has no limit on the head of a request."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

HEAD_BYTES_MAX = (
    256 * 1024
)  # of one that comes in pieces; what comes at once is bounded by what is read at once


class LimitedConnection(HttpToolsProtocol):
    """Closes a connection whose next request line and headers take longer than it may be idle, or are too large.

    However they drip in: the time runs from the first byte, or from the beginning of a connection that says nothing.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._is_in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._limit_head(0)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head or self._is_silent():
            self._limit_head(len(data))

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._end_head()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def _is_silent(self) -> bool:
        """Say whether nothing is asked, with no timer that would close it: empty lines before a request do that."""
        if self.timeout_keep_alive_task is not None:
            return False
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None at first

    def _limit_head(self, count: int) -> None:
        """Count what came of a head, but for the piece that it begins in, where others may have ended."""
        if self.transport.is_closing():
            return
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(
                self.timeout_keep_alive, super().timeout_keep_alive_handler
            )
            return
        self._head_bytes += count
        if self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response("The headers are too large.")

    def _end_head(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
