"""Tokens of customers: a web page sees what its customer has, and can change nothing and see nobody else."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from creditgate.api.public import PUBLIC
from creditgate.balances.clock import RedisClock
from creditgate.engine.customer_tokens import CustomerTokens
from creditgate.terminal import check_origins
from tests.api import routes
from tests.integration.test_keys import REVOKED_WITHIN_S, key, made, post
from tests.sidecar_process import SidecarProcess, run, wait_until

NESTED: list[object] = []
for _ in range(900):
    NESTED = [NESTED]
PAGE = "https://app.example"
ANN: dict[str, object] = {"customer_id": "ann"}
CHECK: dict[str, object] = {"feature_id": "basic_messages"}
CROSS = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}


@pytest.fixture(scope="module")
def demo() -> Iterator[SidecarProcess]:
    sidecar = SidecarProcess(arguments=["--demo", "--allowed-origins", PAGE]).start()
    with closing(sidecar):
        for customer_id in ("ann", "bob"):
            sidecar.ask("customers.get_or_create", {"customer_id": customer_id})
        yield sidecar


@pytest.fixture
def token(demo: SidecarProcess) -> str:
    return minted(demo, demo.key)


def minted(sidecar: SidecarProcess, secret: str, **more: object) -> str:
    answer = post(sidecar, secret, "keys.mint", ANN | more)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["access_token"]
    return text


def told(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


def test_it_is_bound_to_its_customer(demo: SidecarProcess, token: str) -> None:
    """Said or not, the customer is the token's; of another it tells nothing."""
    for body in (CHECK, ANN | CHECK):
        for path in ("balances.check", "v1/balances.check"):
            answer = post(demo, token, path, body)
            assert (answer.status_code, answer.json()["customer_id"]) == (200, "ann")
    assert post(demo, token, "customers.get", {}).json()["id"] == "ann"
    for call in PUBLIC:
        for other in ("bob", None, 7, ["ann"], "Ann", NESTED):
            refused = post(demo, token, call, CHECK | {"customer_id": other})
            assert told(refused) == (403, "insufficient_scopes")
        doubled = _raw(
            demo, token, call, b'{"feature_id":"basic_messages","customer_id":"ann","customer_id":"bob"}'
        )
        assert told(doubled) == (403, "insufficient_scopes")
        for bad in (b"[]", b"{", b'"ann"', b"\xff", b"[" * 60_000):
            assert told(_raw(demo, token, call, bad)) == (400, "invalid_inputs")


def test_it_takes_nothing_and_makes_nobody(demo: SidecarProcess) -> None:
    """Whatever a page adds to its check, and whether its customer is there or not."""
    token = minted(demo, demo.key)
    before = demo.ask("customers.get", ANN)
    taking: list[dict[str, object]] = [
        {"send_event": True},
        {"lock": {"enabled": True}},
        {"lock": {"enabled": True, "lock_id": "x"}},
        {"entity_id": "seat", "entity_data": {"feature_id": "seats"}},
        {"customer_data": {"name": "Eve"}},
    ]
    for more in taking:
        answer = post(demo, token, "balances.check", CHECK | more)
        assert told(answer) == (400, "invalid_request"), more
    assert post(demo, token, "balances.check", CHECK | {"send_event": False, "lock": None}).status_code == 200
    nobody = post(demo, demo.key, "keys.mint", {"customer_id": "nobody"}).json()["access_token"]
    for call in PUBLIC:
        assert told(post(demo, nobody, call, CHECK)) == (404, "customer_not_found")
    assert demo.ask("customers.get", ANN) == before


def test_every_other_call_is_closed(demo: SidecarProcess, token: str) -> None:
    """In every spelling of every route, with every method it takes."""
    found = [route for route in routes.app().routes if isinstance(route, Route)]
    others = [route for route in found if route.path.startswith("/v1/") and route.name not in PUBLIC]
    assert len(others) > 80
    with httpx.Client(base_url=demo.url, headers={"Authorization": f"Bearer {token}"}) as client:
        for route in others:
            for method in (route.methods or set()) - {"HEAD"}:
                path = route.path.replace("{customer_id:path}", "ann")
                refused = client.request(method, path, json=ANN | CHECK)
                assert told(refused) == (401, "endpoint_not_public"), (method, path)


def test_what_was_not_minted_here_is_no_token(demo: SidecarProcess, token: str) -> None:
    """Each character of it counts; so do the secret of the data, and the key that it says it is by."""
    swapped = [
        token[:place] + ("A" if token[place] != "A" else "b") + token[place + 1 :]
        for place in range(len("cg_ct_"), len(token) - 1)
    ]
    elsewhere = CustomerTokens("another secret", "test", RedisClock()).mint(
        "ann", key="0" * 64, lasts_ms=10**9
    )
    bad = [
        *swapped,
        token[:-1],
        token + "A",
        token.replace(".", ""),
        "cg_ct_",
        "cg_ct_test_.",
        elsewhere.text,
        "cg_ct_é",
    ]
    with httpx.Client(base_url=f"{demo.url}/v1") as client:
        for text in bad:
            headers = {b"Authorization": f"Bearer {text}".encode()}
            refused = client.post("/balances.check", json=CHECK, headers=headers)
            assert told(refused) == (401, "invalid_publishable_key"), text


def test_it_ends_with_its_time_and_with_its_key(demo: SidecarProcess) -> None:
    """A token may do no more than the key that minted it, and no longer."""
    short = minted(demo, demo.key, expires_in=1)
    wait_until(lambda: post(demo, short, "balances.check", CHECK).status_code == 401, what="it ends")
    for lasting in (0, 86_401, 1.5, -1):
        refused = post(demo, demo.key, "keys.mint", ANN | {"expires_in": lasting})
        assert told(refused) == (400, "invalid_inputs")
    of_an_entity = post(demo, demo.key, "keys.mint", ANN | {"entity_id": "seat"})
    assert told(of_an_entity) == (400, "invalid_request"), "or it would be for the whole customer"
    may = {"gate": ["balances.check"], "read": ["customers.get"]}
    for scope, calls in may.items():
        key_id, secret = made(demo, scope)
        token = minted(demo, secret)
        for call in PUBLIC:
            expected = 200 if call in calls else 403
            assert post(demo, token, call, CHECK).status_code == expected, (scope, call)
        key(demo, "revoke", key_id)
        wait_until(
            lambda token=token, call=calls[0]: post(demo, token, call, CHECK).status_code == 401,
            what="it ends with its key",
            seconds=20 * REVOKED_WITHIN_S,
        )
    _, ingest = made(demo, "ingest")
    assert told(post(demo, ingest, "keys.mint", ANN)) == (403, "insufficient_scopes")


def test_a_rotated_key_takes_its_tokens_along_when_it_ends(demo: SidecarProcess) -> None:
    """While both keys live, so do the tokens of both; what the new one mints lives on."""
    key_id, secret = made(demo, "read")
    old = minted(demo, secret)
    _, successor = key(demo, "rotate", key_id, "--overlap", "5s")
    new = minted(demo, successor)
    assert [post(demo, token, "customers.get", {}).status_code for token in (old, new)] == [200, 200]
    wait_until(lambda: post(demo, old, "customers.get", {}).status_code == 401, what="the old key ends")
    assert post(demo, new, "customers.get", {}).status_code == 200


def test_web_pages_of_allowed_origins_may_ask_with_a_token_alone(demo: SidecarProcess, token: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with httpx.Client(base_url=f"{demo.url}/v1") as client:
        for call in PUBLIC:
            preflight = client.options(f"/{call}", headers=CROSS | asked)
            assert (preflight.status_code, _allowed(preflight)) == (200, PAGE)
            strange = client.options(f"/{call}", headers=CROSS | asked | {"Origin": "https://evil.example"})
            assert (strange.status_code, _allowed(strange)) == (400, None)
            assert client.options(f"/{call}").status_code == 405
            answer = client.post(f"/{call}", json=CHECK, headers=CROSS | _bearer(token))
            assert (answer.status_code, _allowed(answer)) == (200, PAGE)
            assert "credentials" not in str(answer.headers)
            for secret, origin in itertools.product(
                (token, demo.key), ("https://evil.example", "null", PAGE)
            ):
                if (secret, origin) != (token, PAGE):
                    headers = CROSS | {"Origin": origin} | _bearer(secret)
                    refused = client.post(f"/{call}", json=ANN | CHECK, headers=headers)
                    assert told(refused) == (403, "cross_site_request"), (secret, origin)
        for call in ("balances.track", "keys.mint"):
            closed = client.options(f"/{call}", headers=CROSS | asked)
            assert (closed.status_code, _allowed(closed)) == (405, None)


@pytest.mark.parametrize("origin", ["*", "app.example", "https://app.example/", "https://a/x", "null"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    check_origins(None, (PAGE, "http://localhost:3000"))
    with pytest.raises(ValueError, match="is no origin such as"):
        check_origins(None, (PAGE, origin))


def test_the_command_line_refuses_it() -> None:
    ended = run("serve", "--allowed-origins", "*", "--data-dir", "/nowhere")
    assert ended.returncode == 2
    assert "is no origin" in ended.stderr + ended.stdout


def _raw(sidecar: SidecarProcess, token: str, call: str, body: bytes) -> httpx.Response:
    headers: dict[str, Any] = _bearer(token) | {"Content-Type": "application/json"}
    return httpx.post(f"{sidecar.url}/v1/{call}", content=body, headers=headers)


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def _allowed(answer: httpx.Response) -> str | None:
    origin: str | None = answer.headers.get("access-control-allow-origin")
    return origin
