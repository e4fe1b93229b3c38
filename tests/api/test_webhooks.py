"""Webhooks through the API: what is answered, and that what a call crosses really arrives."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from tests.api.client import ApiClient
from tests.sidecar_process import SidecarProcess, wait_until

URL = "https://1.1.1.1/hooks"
ALL = ["balances.limit_reached", "balances.usage_alert_triggered"]


class Received:
    """What a receiver on loopback was sent: headers and body of each message."""

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, str], bytes]] = []
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.end_headers()
                received.messages.append((dict(self.headers), body))

            def log_message(self, *_: Any) -> None:
                """Tests print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hooks"


@pytest.fixture
def received() -> Iterator[Received]:
    """A receiver that answers 200."""
    receiver = Received()
    thread = Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def test_the_life_of_a_webhook(api: ApiClient) -> None:
    """A webhook is made with a secret that is told once, changed field by field, listed and deleted."""
    made = api.ask("webhooks.create", {"id": "hook", "url": URL})
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    at = made["created_at"]
    assert made == {
        "id": "hook",
        "url": URL,
        "description": None,
        "events": ALL,
        "disabled": False,
        "created_at": at,
        "updated_at": at,
    }
    assert api.ask("webhooks.get", {"id": "hook"}) == made
    changes = {"events": ALL[1:], "description": "pager", "disabled": True, "url": URL + "2"}
    for name, value in changes.items():
        made |= {name: value}
        answer = api.ask("webhooks.update", {"id": "hook", name: value})
        assert answer | {"updated_at": at} == made
        assert answer["updated_at"] >= at
    assert [each["id"] for each in api.ask("webhooks.list")["list"]] == ["hook"]
    assert secret not in api.call("webhooks.list").text
    again = api.call("webhooks.create", {"id": "hook", "url": URL})
    assert (again.status_code, again.json()["code"]) == (409, "webhook_already_exists")
    assert api.ask("webhooks.delete", {"id": "hook"}) == {"success": True}
    assert api.ask("webhooks.list") == {"list": []}


def test_a_repeated_create_makes_one_and_tells_its_secret_again(api: ApiClient) -> None:
    """A caller whose answer was lost gets the secret, and not a second webhook or none."""
    body = {"id": "keyed", "url": URL}
    first = api.call("webhooks.create", body, headers={"Idempotency-Key": "make"})
    again = api.call("webhooks.create", body, headers={"Idempotency-Key": "make"})
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    other = api.call("webhooks.create", body | {"url": URL + "2"}, headers={"Idempotency-Key": "make"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    api.ask("webhooks.delete", {"id": "keyed"})


def test_an_event_arrives(received: Received) -> None:
    """The whole way: a customer's last credit is tracked over HTTP, and the team's receiver hears of it."""
    sidecar = SidecarProcess(arguments=["--demo", "--allow-private-webhooks"])
    try:
        sidecar.start()
        made = sidecar.ask("webhooks.create", {"id": "hook", "url": received.url})
        sidecar.ask("customers.get_or_create", {"customer_id": "ann"})
        track = {"customer_id": "ann", "feature_id": "basic_messages", "value": 500}
        sidecar.ask("balances.track", track)
        wait_until(lambda: received.messages, what="the event")
        ((headers, body),) = received.messages
        assert Webhook(made["secret"]).verify(body, headers) == {
            "type": "balances.limit_reached",
            "data": {"customer_id": "ann", "feature_id": "usd_credits", "limit_type": "included"},
        }
        delivered = 'creditgate_webhook_attempts_total{outcome="delivered"} 1.0'
        wait_until(lambda: delivered in httpx.get(f"{sidecar.url}/metrics").text, what="the numbers")
        assert "creditgate_webhook_waiting 0.0" in httpx.get(f"{sidecar.url}/metrics").text
        assert sidecar.verify().returncode == 0
        assert sidecar.stop() == 0
        assert made["secret"] not in (sidecar.directory / "log").read_text()
    finally:
        sidecar.close()
