"""What a sidecar writes to its log while everything goes wrong: JSON, and nothing that is nobody's business."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from creditgate.balances.keys import Keys
from creditgate.engine.instance import PARTITIONS
from creditgate.telemetry.logs import _redact
from tests.balances.valkey_process import ValkeyProcess
from tests.sidecar_process import SidecarProcess, run, wait_until

PASSWORD = "redis-hush-4711"
STRANGERS_KEY = "cg_sk_test_of-a-stranger-0815"
IDEMPOTENCY_KEY = "idem-hush-2718"
PERSONAL = ("ann.personal@example.com", "Ann Personal", "hush-property", "hush-metadata", "hush-event")


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    """A Valkey that wants a password."""
    server = ValkeyProcess()
    try:
        server.start()
        with server.client() as client:
            client.config_set("requirepass", PASSWORD)
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def sidecar(valkey: ValkeyProcess) -> Iterator[SidecarProcess]:
    """A sidecar that knows the password from its command line."""
    process = SidecarProcess(arguments=["--redis", f"unix://:{PASSWORD}@{valkey.socket}", "--demo"])
    try:
        yield process.start()
    finally:
        process.close()


def test_no_secret_and_no_customer_in_the_log(sidecar: SidecarProcess, valkey: ValkeyProcess) -> None:
    """Whoever reads the logs, or steals them, learns ids at most: no key, password, link, mail or property."""
    link = _use_it(sidecar)
    _turn_everybody_away(sidecar)
    _break_a_record(sidecar, valkey)
    _break_sql(sidecar)
    _break_redis(sidecar, valkey)
    sidecar.stop()
    log = (sidecar.directory / "log").read_text()
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    assert {"event", "level", "logger", "timestamp"} <= set.intersection(*(set(line) for line in lines))
    assert {"request_failed", "flush_failed", "tick_failed"} <= {line["event"] for line in lines}
    assert any("Traceback" in line.get("exception", "") for line in lines)
    secrets = (sidecar.key, PASSWORD, STRANGERS_KEY, IDEMPOTENCY_KEY, link.rpartition("/")[2])
    assert [secret for secret in (*secrets, *PERSONAL) if secret in log] == []


def test_a_start_that_fails_keeps_the_passwords(tmp_path: Path, valkey: ValkeyProcess) -> None:
    """The sentence that says why it does not start does not repeat the URL that holds the password."""
    urls = (
        ("--redis", "redis://:hush-hush@127.0.0.1:1"),
        ("--redis", f"unix://:hush-hush@{valkey.socket}"),
        ("--database", "postgresql://ann:hush-hush@127.0.0.1:1/creditgate"),
        ("--database", "mysql://ann:hush-hush@127.0.0.1/creditgate"),
    )
    for flag, url in urls:
        ended = run("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), flag, url)
        assert ended.returncode == 1, ended.stdout
        assert "creditgate: " in ended.stderr
        assert "hush-hush" not in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Bearer cg_sk_test_abc-DEF_123, then", "Bearer [redacted] then"),
        ("key am_sk_live_abc123.", "key am_sk_[redacted]."),
        ("authorization: bearer eyJhbGciOi.x", "authorization: bearer [redacted]"),
        ("redis://:s3cret@127.0.0.1:6379/0", "redis://:[redacted]@127.0.0.1:6379/0"),
        ("postgresql://ann:p%40ss@db/x", "postgresql://ann:[redacted]@db/x"),
        (
            "GET http://127.0.0.1:8787/checkout/WyJ1Il0.aa.bb-c 500",
            "GET http://127.0.0.1:8787/checkout/[redacted] 500",
        ),
        ("http://127.0.0.1:8787/v1/balances.check", "http://127.0.0.1:8787/v1/balances.check"),
    ],
)
def test_secrets_in_text(text: str, clean: str) -> None:
    """A library's message or a traceback that carries a secret loses it, wherever in the line it stands."""
    assert _redact(None, "", {"event": text, "more": [{"deep": text}]}) == {
        "event": clean,
        "more": [{"deep": clean}],
    }


def test_values_that_are_secrets_by_name() -> None:
    """A value that is called a secret is none in the log, whatever it looks like."""
    assert _redact(None, "", {"Password": "hush", "rows": 3, "headers": {"authorization": "x"}}) == {
        "Password": "[redacted]",
        "rows": 3,
        "headers": {"authorization": "[redacted]"},
    }


def _use_it(sidecar: SidecarProcess) -> str:
    """Say everything that a caller can say of a customer; returns the link of a checkout."""
    mail, name, value, metadata, event = PERSONAL
    person = {"name": name, "email": mail, "metadata": {"note": metadata}}
    sidecar.ask("customers.get_or_create", {"customer_id": "u1"} | person)
    used = {"customer_id": "u1", "feature_id": "basic_messages", "properties": {"note": value}}
    sidecar.call("balances.track", used, headers={"Idempotency-Key": IDEMPOTENCY_KEY})
    sidecar.call("balances.track", used | {"value": 2}, headers={"Idempotency-Key": IDEMPOTENCY_KEY})
    sidecar.call("balances.track", {"customer_id": "u1", "event_name": event})
    link = str(sidecar.ask("billing.attach", {"customer_id": "u1", "plan_id": "pro"})["payment_url"])
    assert httpx.get(link).status_code == 200
    return link


def _turn_everybody_away(sidecar: SidecarProcess) -> None:
    url, mail = f"{sidecar.url}/v1/balances.check", PERSONAL[0]
    for headers in (
        {"Authorization": f"Bearer {STRANGERS_KEY}"},
        {"Authorization": f"Basic {STRANGERS_KEY}"},
        {"Host": mail},
        sidecar.headers | {"x-api-version": mail},
    ):
        assert httpx.post(url, json={"customer_id": mail}, headers=headers).status_code in (400, 401)
    for body in (b"\xff", b'{"customer_id": "' + mail.encode(), b"[" * 9_000):
        content = sidecar.headers | {"Content-Type": "application/json"}
        assert httpx.post(url, content=body, headers=content).status_code == 400
    httpx.get(f"{sidecar.url}/{STRANGERS_KEY}?key={STRANGERS_KEY}")


def _break_a_record(sidecar: SidecarProcess, valkey: ValkeyProcess) -> None:
    """What no bug of ours wrote: calls for this customer end in an error that nobody foresaw."""
    sidecar.ask("customers.get_or_create", {"customer_id": "broken", "email": PERSONAL[0]})
    with redis.Redis(unix_socket_path=valkey.socket, password=PASSWORD) as client:
        client.hset(Keys(PARTITIONS).record("broken"), "terms", f'{{"rows": "{PERSONAL[0]}"}}')
    assert sidecar.call("customers.get", {"customer_id": "broken"}).status_code == 500
    assert (
        sidecar.call("balances.check", {"customer_id": "broken", "feature_id": "usd_credits"}).status_code
        == 202
    )


def _break_sql(sidecar: SidecarProcess) -> None:
    """A table is gone for a moment, while entries wait that name a customer's properties."""
    with closing(sqlite3.connect(sidecar.directory / "ledger.db", isolation_level=None, timeout=20)) as other:
        other.execute("ALTER TABLE journal_items RENAME TO elsewhere")
        used = {"customer_id": "u1", "feature_id": "basic_messages", "properties": {"note": PERSONAL[2]}}
        sidecar.ask("balances.track", used)
        wait_until(lambda: "flush_failed" in (sidecar.directory / "log").read_text(), what="a failed flush")
        other.execute("ALTER TABLE elsewhere RENAME TO journal_items")


def _break_redis(sidecar: SidecarProcess, valkey: ValkeyProcess) -> None:
    """Redis is killed and stays away."""
    valkey.kill()
    with suppress(httpx.TransportError):
        sidecar.call("balances.track", {"customer_id": "u1", "feature_id": "basic_messages"})
        sidecar.call("customers.get", {"customer_id": "u1"})
        httpx.get(f"{sidecar.url}/metrics")
    wait_until(lambda: "tick_failed" in (sidecar.directory / "log").read_text(), what="a failed tick")
