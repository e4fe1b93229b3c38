"""A stand-in for Autumn: an HTTP server on loopback that serves `customers.list` from bodies like its own, in pages."""

import json
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

KEY = "am_sk_test_1234567890"


class AutumnStandIn:
    """Serves `customers` to who has the key. Each of `failures` is answered once before anything else."""

    def __init__(self, customers: Sequence[dict[str, Any]] = ()) -> None:
        self.customers = list(customers)
        self.failures: list[tuple[int, dict[str, str], dict[str, str]]] = []
        self.versions: tuple[str, ...] = ("2.5.0",)
        self.cursors: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(
        self, path: str, key: str, version: str, body: dict[str, Any]
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and body, as the real one would."""
        if key != f"Bearer {KEY}":
            said = f"Invalid secret key: {key[7:22]}****"
            return 401, {}, {"message": said, "code": "invalid_secret_key"}
        if self.failures:
            return self.failures.pop(0)
        if version not in self.versions:
            said = f'"{version}" is not a valid API version'
            return 400, {}, {"message": said, "code": "invalid_api_version", "env": "sandbox"}
        if path != "/v1/customers.list":
            return 404, {}, {"message": "Not found", "code": "not_found"}
        cursor, limit = body["start_cursor"], body["limit"]
        self.cursors.append(cursor)
        start = int(cursor.removeprefix("after-") or 0)
        more = start + limit < len(self.customers)
        page = self.customers[start : start + limit]
        return 200, {}, {"list": page, "next_cursor": f"after-{start + limit}" if more else None}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                key, version = self.headers["authorization"], self.headers["x-api-version"]
                status, headers, answer = stand_in.answer(self.path, key, version, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        return Handler


def customer(name: str, /, **said: Any) -> dict[str, Any]:
    """A customer as `customers.list` writes one who has nothing."""
    body: dict[str, Any] = {
        "id": name,
        "name": None,
        "email": None,
        "created_at": 1795340847034,
        "fingerprint": None,
        "stripe_id": None,
        "env": "sandbox",
        "metadata": {},
        "send_email_receipts": False,
        "billing_controls": {},
        "subscriptions": [],
        "purchases": [],
        "licenses": [],
        "balances": {},
        "flags": {},
        "config": {},
    }
    return body | said


def subscription(sub_id: str, plan_id: str, **said: Any) -> dict[str, Any]:
    """A plan that is active."""
    body: dict[str, Any] = {
        "id": sub_id,
        "plan_id": plan_id,
        "auto_enable": False,
        "add_on": False,
        "status": "active",
        "past_due": False,
        "canceled_at": None,
        "expires_at": None,
        "trial_ends_at": None,
        "started_at": 1795340847058,
        "current_period_start": None,
        "current_period_end": None,
        "quantity": 1,
        "scope": "customer",
    }
    return body | said


def balance(feature_id: str, *rows: dict[str, Any], **said: Any) -> dict[str, Any]:
    """What a customer has of a feature; the sums are those of the rows."""
    resets = [row["reset"]["resets_at"] for row in rows if row["reset"] and row["reset"]["resets_at"]]
    body: dict[str, Any] = {
        "feature_id": feature_id,
        "granted": sum(row["included_grant"] + row["prepaid_grant"] for row in rows),
        "remaining": sum(row["remaining"] for row in rows),
        "usage": sum(row["usage"] for row in rows),
        "unlimited": False,
        "overage_allowed": False,
        "max_purchase": None,
        "next_reset_at": min(resets, default=None),
        "breakdown": list(rows),
    }
    return body | said


def row(row_id: str | None, included: float, usage: float, /, **said: Any) -> dict[str, Any]:
    """One line of a balance's breakdown; it never resets unless it is said."""
    body: dict[str, Any] = {
        "id": row_id,
        "plan_id": None,
        "included_grant": included,
        "prepaid_grant": 0,
        "remaining": round(max(0, included - usage), 9),
        "usage": usage,
        "unlimited": False,
        "reset": {"interval": "one_off", "resets_at": None},
        "price": None,
        "expires_at": None,
    }
    return body | said
