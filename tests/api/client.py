"""A client of a running sidecar for tests. It keeps its connection: a table of bad input is hundreds of calls."""

from typing import Any

import httpx

from tests.sidecar_process import CALL_SECONDS_MAX, SidecarProcess


class ApiClient:
    """Calls the verbs of one sidecar."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        self.sidecar = sidecar
        self.http = httpx.Client(base_url=sidecar.url, headers=sidecar.headers, timeout=CALL_SECONDS_MAX)

    def call(self, verb: str, body: Any = None, *, headers: dict[str, str] | None = None) -> httpx.Response:
        """POST one call and return the answer."""
        return self.http.post(f"/v1/{verb}", json={} if body is None else body, headers=headers)

    def ask(self, verb: str, body: Any = None) -> Any:
        """POST one call that must be answered 200, and return what it says."""
        answer = self.call(verb, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, verb: str, body: bytes) -> httpx.Response:
        """POST bytes as they are, said to be JSON."""
        return self.http.post(f"/v1/{verb}", content=body, headers={"Content-Type": "application/json"})
