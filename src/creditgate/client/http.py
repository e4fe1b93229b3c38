"""The clients of a running sidecar, over HTTP or a unix socket: connections are kept, lost answers asked for again."""

import asyncio
import os
import time
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import httpx

from creditgate.client.calls import Ask
from creditgate.client.gate import AsyncFace, SyncFace
from creditgate.client.replies import Reply
from creditgate.errors import InvalidInputs

BASE_URL = "http://127.0.0.1:8787"
DEADLINE_S = 2.0  # of one call in all, if it says nothing else
FIRST_PAUSE_S = 0.05  # before a lost call is sent again; each pause is twice the one before
LIMITS = httpx.Limits(
    max_connections=100,
    max_keepalive_connections=100,
    keepalive_expiry=15.0,  # well before the sidecar closes an idle one
)
UNIX = "unix://"

T = TypeVar("T")


class Client(SyncFace):
    """A client for code without `async`; threads may share it."""

    def __init__(self, base_url: str = BASE_URL, *, secret_key: str, deadline_s: float = DEADLINE_S) -> None:
        """`base_url` is that of the sidecar, or `unix:///path` of its socket."""
        self._place = _place(base_url)
        self._headers = _headers(secret_key)
        self._deadline_s = deadline_s
        self._http, self._process_id = self._connect(), os.getpid()

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, ask: Ask[T]) -> T:
        if os.getpid() != self._process_id:
            # The child of a fork: on the connections of its parent it would read its parent's answers.
            self._http, self._process_id = self._connect(), os.getpid()
        trials = Trials(ask, self._deadline_s)
        while True:
            try:
                answer = self._http.post(**_request(ask), timeout=trials.timeout_s())
            except httpx.RequestError as error:
                time.sleep(trials.pause_after(error))
            else:
                return trials.read(answer)

    def _connect(self) -> httpx.Client:
        url, path = self._place
        transport = httpx.HTTPTransport(uds=path, limits=LIMITS)
        return httpx.Client(base_url=url, headers=self._headers, transport=transport, trust_env=False)


class AsyncClient(AsyncFace):
    """A client for one event loop; a `Gate`."""

    def __init__(self, base_url: str = BASE_URL, *, secret_key: str, deadline_s: float = DEADLINE_S) -> None:
        """`base_url` is that of the sidecar, or `unix:///path` of its socket."""
        url, path = _place(base_url)
        self._deadline_s = deadline_s
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=_headers(secret_key),
            transport=httpx.AsyncHTTPTransport(uds=path, limits=LIMITS),
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _ask(self, ask: Ask[T]) -> T:
        trials = Trials(ask, self._deadline_s)
        while True:
            try:
                async with asyncio.timeout(trials.timeout_s()):
                    answer = await self._http.post(**_request(ask), timeout=None)
            except (httpx.RequestError, TimeoutError) as error:
                await asyncio.sleep(trials.pause_after(error))
            else:
                return trials.read(answer)


class Trials(Generic[T]):
    """The attempts of one call: what got no answer is sent again while there is time, with the same key.

    Any answer is final. An undecided one was looked into by the sidecar for as long as it can.
    """

    def __init__(self, ask: Ask[T], deadline_s: float) -> None:
        self._ask = ask
        self._end = time.monotonic() + (deadline_s if ask.deadline_s is None else ask.deadline_s)
        self._pause_s = FIRST_PAUSE_S

    def timeout_s(self) -> float:
        """Return how long the next attempt may take."""
        return max(0.0, min(self._ask.attempt_s, self._end - time.monotonic()))

    def pause_after(self, error: Exception) -> float:
        """Return how long to wait before the next attempt; raises Undecided if there is no time for one."""
        pause_s, self._pause_s = self._pause_s, self._pause_s * 2
        if time.monotonic() + pause_s >= self._end:
            reason = str(error) or type(error).__name__
            raise self._ask.undecided(f"The sidecar did not answer in time: {reason}") from error
        return pause_s

    def read(self, answer: httpx.Response) -> T:
        """Return what was answered; raises what Gate says."""
        is_replay = "Idempotent-Replayed" in answer.headers
        return self._ask.result(Reply(answer.status_code, answer.content, is_replay))


def _place(base_url: str) -> tuple[str, str | None]:
    """Return the URL to call, and the path of the unix socket behind it."""
    if base_url.startswith(f"{UNIX}/"):
        return "http://localhost", base_url.removeprefix(UNIX)
    if not base_url.startswith(("http://", "https://")):
        raise InvalidInputs("base_url: say http://HOST:PORT, https://HOST or unix:///PATH")
    return base_url, None


def _headers(secret_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret_key.strip()}", "Content-Type": "application/json"}


def _request(ask: Ask[Any]) -> dict[str, Any]:
    key = {} if ask.header_key is None else {"Idempotency-Key": ask.header_key}
    return {"url": f"/v1/{ask.verb}", "content": ask.body, "headers": key}
