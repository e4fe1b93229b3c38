"""A thousand customers in every state: no byte of an answer changes when the data is rebuilt or taken elsewhere."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.api.conftest import TUTORIAL_FEATURES, TUTORIAL_PLANS
from tests.balances.valkey_process import ValkeyProcess
from tests.sidecar_process import SidecarProcess, run, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CUSTOMERS = 1_000
CALLS_AT_ONCE = 16
ONCE_A_MONTH = {"interval": "month"}
ODD = "Ω/{p00}"  # what may stand in a customer's id, and must not steer a key
DAY_MS = 86_400_000

Ask = Callable[..., Awaitable[bytes]]
State = Callable[[Ask, str, int], Awaitable[None]]


async def _untouched(ask: Ask, name: str, number: int) -> None:
    """Just made, on the free plan."""


async def _used(ask: Ask, name: str, number: int) -> None:
    """Fractions of credits, through both prices and directly, some beyond what is there."""
    await ask("balances.track", customer_id=name, feature_id="basic_messages", value=number / 8)
    await ask("balances.track", customer_id=name, feature_id="premium_messages", value=number % 60)
    await ask("balances.track", customer_id=name, feature_id="usd_credits", value=0.000000001)


async def _refunded(ask: Ask, name: str, number: int) -> None:
    """Used, and given back in part."""
    await ask("balances.track", customer_id=name, feature_id="basic_messages", value=40)
    await ask("balances.track", customer_id=name, feature_id="basic_messages", value=-(number % 40))


async def _granted(ask: Ask, name: str, number: int) -> None:
    """Balances of their own: forever, for a while, each month from some day on; in part used."""
    grant = {"customer_id": name, "feature_id": "usd_credits", "included_grant": number}
    far = 4_000_000_000_000 + number
    await ask("balances.create", **grant, balance_id=f"gift-{number}")
    await ask("balances.create", **grant, expires_at=far)
    await ask("balances.create", **grant, reset=ONCE_A_MONTH, next_reset_at=far)
    await ask("balances.create", customer_id=name, feature_id="basic_messages", included_grant=3)
    await ask("balances.track", customer_id=name, feature_id="basic_messages", value=number)


async def _pro(ask: Ask, name: str, number: int) -> None:
    """On pro, with its flag, some of it used."""
    await ask("balances.track", customer_id=name, feature_id="premium_messages", value=10)
    await ask("billing.attach", customer_id=name, plan_id="pro")
    await ask("balances.check", customer_id=name, feature_id="premium_messages", send_event=True)


async def _topped_up(ask: Ask, name: str, number: int) -> None:
    """Two top-ups beside the free plan, one used up and one begun."""
    for quantity in (3, 20 + number):
        quantities = [{"feature_id": "usd_credits", "quantity": quantity}]
        await ask("billing.attach", customer_id=name, plan_id="top_up", feature_quantities=quantities)
    await ask("balances.track", customer_id=name, feature_id="premium_messages", value=81)


async def _pinned(ask: Ask, name: str, number: int) -> None:
    """A test clock of their own, moved over resets."""
    await ask("balances.track", customer_id=name, feature_id="premium_messages", value=7)
    days = 20 + number % 100
    await ask("customers.advance_test_clock", customer_id=name, frozen_time=_now_ms() + days * DAY_MS)
    await ask("balances.track", customer_id=name, feature_id="basic_messages", value=5)


async def _described(ask: Ask, name: str, number: int) -> None:
    """A profile with all that it can have."""
    profile = {"email": f"{number}@example.com", "metadata": {"ö": [1, None, {"n": 1.50}]}}
    await ask("customers.get_or_create", customer_id=f"{name} {ODD}", name="Zoë 🦊", **profile)
    await ask("customers.get_or_create", customer_id=name, name="later", send_email_receipts=True)


async def _repeated(ask: Ask, name: str, number: int) -> None:
    """Calls with a key, sent twice."""
    for _ in range(2):
        body = {"customer_id": name, "feature_id": "premium_messages", "value": 2}
        await ask("balances.track", **body, idempotency_key="again")


STATES: tuple[State, ...] = (
    _untouched, _used, _refunded, _granted, _pro, _topped_up, _pinned, _described, _repeated,
)  # fmt: skip


@pytest.fixture
def sidecar() -> Iterator[SidecarProcess]:
    """A sidecar on which what has a price is paid at once."""
    process = SidecarProcess(arguments=["--payments", "instant"]).start()
    for feature in TUTORIAL_FEATURES:
        process.ask("features.create", feature)
    for plan in TUTORIAL_PLANS:
        process.ask("plans.create", plan)
    try:
        yield process
    finally:
        process.close()


async def test_answers_are_the_same_everywhere(sidecar: SidecarProcess, tmp_path: Path) -> None:
    """After FLUSHALL and rebuild, backup and restore, and a move, each customer is answered byte for byte as before."""
    async with _asking(sidecar) as ask:
        await asyncio.gather(*(_make(ask, number) for number in range(CUSTOMERS)))
    before = await _answers(sidecar)
    assert await _answers(sidecar) == before, "an answer changes with time"

    _forget_everything(sidecar)
    rebuilt = await asyncio.to_thread(run, "rebuild", "--data-dir", str(sidecar.directory))
    assert rebuilt.returncode == 0, rebuilt.stderr
    await _assert_same(sidecar, before)

    restored = SidecarProcess(directory=tmp_path / "restored", arguments=sidecar.arguments)
    _succeeds("backup", str(tmp_path / "backup"), "--data-dir", str(sidecar.directory))
    _succeeds("restore", str(tmp_path / "backup"), "--data-dir", str(restored.directory))
    try:
        await _assert_same(restored.start(), before)
    finally:
        restored.close()

    assert sidecar.stop() == 0
    target = ValkeyProcess()
    servers = [target.url, f"sqlite:///{tmp_path / 'moved.db'}"]
    moved = SidecarProcess(
        directory=sidecar.directory,
        arguments=["--redis", servers[0], "--database", servers[1], *sidecar.arguments],
    )
    try:
        target.start()
        _succeeds(
            "move",
            "--to-redis",
            servers[0],
            "--to-database",
            servers[1],
            "--data-dir",
            str(sidecar.directory),
        )
        await _assert_same(moved.start(), before)
        _succeeds("verify", "--redis", servers[0], "--database", servers[1])
        assert sidecar.verify().returncode == 0
    finally:
        moved.close()
        target.close()


async def _make(ask: Ask, number: int) -> None:
    name = f"customer-{number}"
    await ask("customers.get_or_create", customer_id=name)
    for state in _states(number):
        await state(ask, name, number)


def _states(number: int) -> set[State]:
    return {STATES[number % len(STATES)], STATES[number // len(STATES) % len(STATES)]}


def _names() -> Iterator[str]:
    for number in range(CUSTOMERS):
        yield f"customer-{number}"
        if _described in _states(number):
            yield f"customer-{number} {ODD}"


async def _answers(sidecar: SidecarProcess) -> dict[str, bytes]:
    """Return the bodies of `customers.get` for everybody."""
    async with _asking(sidecar) as ask:
        bodies = await asyncio.gather(*(ask("customers.get", customer_id=name) for name in _names()))
    return dict(zip(_names(), bodies, strict=True))


async def _assert_same(sidecar: SidecarProcess, before: dict[str, bytes]) -> None:
    after = await _answers(sidecar)
    differing = [name for name in before if after[name] != before[name]]
    assert not differing, f"{len(differing)}: {before[differing[0]]!r} became {after[differing[0]]!r}"
    if "--redis" not in sidecar.arguments:
        proof = await asyncio.to_thread(sidecar.verify)
        assert proof.returncode == 0, proof.stdout


def _forget_everything(sidecar: SidecarProcess) -> None:
    """FLUSHALL under the running sidecar, once SQL has all that was answered."""
    with redis.Redis(unix_socket_path=f"{sidecar.directory}/valkey.sock") as client:
        journals = ["cg:{sys}:j", *(f"cg:{{p{number:02d}}}:j" for number in range(8))]
        wait_until(lambda: not any(client.xlen(journal) for journal in journals), what="everything in SQL")
        client.flushall()


def _succeeds(*arguments: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@asynccontextmanager
async def _asking(sidecar: SidecarProcess) -> AsyncIterator[Ask]:
    """Yield a function that makes one call and returns the body; at most CALLS_AT_ONCE are under way."""
    places = asyncio.Semaphore(CALLS_AT_ONCE)
    async with httpx.AsyncClient(headers=sidecar.headers, timeout=30) as client:

        async def ask(route: str, **body: Any) -> bytes:
            async with places:
                answer = await client.post(f"{sidecar.url}/v1/{route}", json=body)
            assert answer.status_code == 200, answer.text
            return answer.content

        yield ask


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
