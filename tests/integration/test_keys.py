"""API keys with scopes, by the command line beside a running sidecar: what each may do, and when it ends."""

from collections.abc import Mapping

import httpx
import pytest
from starlette.routing import Route

from creditgate.api.scopes import SCOPES
from tests.api import routes
from tests.sidecar_process import SidecarProcess, run, wait_until

CUSTOMER: dict[str, object] = {"customer_id": "user_123"}
CHECK = CUSTOMER | {"feature_id": "basic_messages"}
REVOKED_WITHIN_S = 1.0


def key(sidecar: SidecarProcess, *arguments: str) -> list[str]:
    """Run `creditgate key` on the sidecar's data; returns the lines that it prints."""
    ended = run("key", *arguments, "--data-dir", str(sidecar.directory))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def made(sidecar: SidecarProcess, scope: str) -> tuple[str, str]:
    """Make a key; returns its id and secret."""
    said, secret = key(sidecar, "create", "--name", f"for {scope}", "--scope", scope)
    return said.split()[1].rstrip(","), secret


def post(sidecar: SidecarProcess, secret: str, call: str, body: Mapping[str, object]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.post(f"{sidecar.url}/v1/{call}", json=body, headers=headers)


def test_every_call_says_who_may_make_it() -> None:
    """A new call that nobody thought about would be closed to the keys that are meant for it."""
    found = [route for route in routes.app().routes if isinstance(route, Route)]
    names = {route.name for route in found if route.path.startswith("/v1/")}
    assert names == SCOPES.keys()


def test_a_key_does_what_its_scope_says_until_it_is_revoked(demo: SidecarProcess) -> None:
    """A thief of one application's key must not grant, list or delete; one that is revoked ends everywhere."""
    demo.ask("customers.get_or_create", CUSTOMER)
    calls: dict[str, dict[str, object]] = {
        "balances.check": CHECK,
        "balances.track": CHECK | {"value": 1},
        "customers.list": {},
        "balances.create": CHECK | {"included_grant": 5},
    }
    may = {
        "gate": ["balances.check", "balances.track"],
        "ingest": ["balances.track"],
        "read": ["customers.list"],
        "admin": list(calls),
    }
    keys = {scope: made(demo, scope) for scope in may}
    before = demo.ask("customers.get", CUSTOMER)["balances"]
    for scope, (_, secret) in keys.items():
        for call, body in calls.items():
            if call not in may[scope]:
                for path in (call, f"v1/{call}", f"{call}?x=1"):  # the last one is none for the fast lane
                    refused = post(demo, secret, path, body)
                    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scopes")
    assert demo.ask("customers.get", CUSTOMER)["balances"] == before
    for scope, (_, secret) in keys.items():
        for call in may[scope]:
            answers = [
                post(demo, secret, call, calls[call]) for _ in range(2)
            ]  # the second by its known head
            assert [answer.status_code for answer in answers] == [200, 200], answers[0].text

    listed = "\n".join(key(demo, "list"))
    for key_id, secret in keys.values():
        assert key_id in listed
        assert f"…{secret[-4:]} " in listed
        assert secret not in listed
    gate_id, gate = keys["gate"]
    with httpx.Client(headers={"Authorization": f"Bearer {gate}"}) as client:
        assert client.post(f"{demo.url}/v1/balances.check", json=CHECK).status_code == 200
        assert key(demo, "revoke", gate_id[:8]) == [f"revoked for gate (gate, …{gate[-4:]})"]
        wait_until(
            lambda: client.post(f"{demo.url}/v1/balances.check", json=CHECK).status_code == 401,
            what="the revoked key is refused, also where its head is known",
            seconds=REVOKED_WITHIN_S,
        )
    assert post(demo, gate, "balances.track", CHECK).status_code == 401


def test_a_key_is_rotated_without_a_gap(demo: SidecarProcess) -> None:
    """Old and new are both let in while the applications change over, and then the old one is not."""
    old_id, old = made(demo, "read")
    _, new = key(demo, "rotate", old_id, "--overlap", "2s")
    assert post(demo, new, "features.list", {}).status_code == 200
    assert post(demo, new, "features.create", {}).status_code == 403
    assert post(demo, old, "features.list", {}).status_code == 200
    wait_until(
        lambda: post(demo, old, "features.list", {}).status_code == 401, what="the old key ends", seconds=4
    )
    assert post(demo, new, "features.list", {}).status_code == 200
    past = key(demo, "create", "--name", "over", "--scope", "gate", "--expires", "2020-01-01")[1]
    assert post(demo, past, "balances.check", CHECK).status_code == 401


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("revoke", "nobody"), "Key nobody not found"),
        (("create", "--scope", "gate", "--name", ""), "name: must have 1 to 100 characters"),
        (("rotate", "x", "--overlap", "soon"), "--overlap: soon is no time"),
    ],
)
def test_what_cannot_be_done_is_said(demo: SidecarProcess, arguments: tuple[str, ...], said: str) -> None:
    """One sentence, and nothing changed."""
    ended = run("key", *arguments, "--data-dir", str(demo.directory))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"creditgate: {said}")


def test_keys_outlive_redis_and_need_no_sidecar(sidecar: SidecarProcess) -> None:
    """A key made or revoked while nothing runs is so at the next start; the first one is not made again."""
    first = sidecar.key
    assert sidecar.stop() == 0
    _, gate = made(sidecar, "gate")
    (line,) = [line for line in key(sidecar, "list") if line.endswith("  default")]
    key(sidecar, "revoke", line.split()[0])
    for file in ("appendonlydir", "dump.rdb"):
        for path in sidecar.directory.rglob(file):
            path.rename(sidecar.directory / f"lost-{file}")
    sidecar.start()
    assert sidecar.key == first
    assert post(sidecar, first, "features.list", {}).status_code == 401
    assert post(sidecar, gate, "features.list", {}).status_code == 403
    assert sidecar.verify().returncode == 0
