"""The clients against a real sidecar: exact answers, one effect, and errors that can be told apart."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

import creditgate
from creditgate import AsyncClient, CheckCall, Client, InsufficientBalance, TrackCall, Undecided
from creditgate.errors import (
    Conflict,
    CreditgateError,
    InvalidInputs,
    InvalidRequest,
    KeyReused,
    NotFound,
    Unauthorized,
)
from tests.client.faces import ask
from tests.engine.fault_proxy import FaultProxy
from tests.sidecar_process import SidecarProcess, wait_until

ANN: dict[str, Any] = {"customer_id": "ann"}
PREMIUM = ANN | {"feature_id": "premium_messages"}
SLOW_S = 20.0  # a busy machine is no failure of these tests

Face = AsyncClient | Client

REFUSED: tuple[tuple[str, dict[str, Any], type[CreditgateError], str], ...] = (
    ("check", PREMIUM | {"customer_id": "nobody"}, NotFound, "customer_not_found"),
    ("check", ANN | {"feature_id": "nothing"}, NotFound, "feature_not_found"),
    ("check", PREMIUM | {"customer_id": ""}, InvalidInputs, "invalid_inputs"),
    ("check", PREMIUM | {"customer_id": "\ud800"}, InvalidInputs, "invalid_inputs"),
    ("check", PREMIUM | {"required_balance": 0.1}, InvalidInputs, "invalid_inputs"),
    ("check", PREMIUM | {"required_balance": True}, InvalidInputs, "invalid_inputs"),
    ("check", PREMIUM | {"required_balance": Decimal("NaN")}, InvalidInputs, "invalid_inputs"),
    ("check", PREMIUM | {"required_balance": 10**13}, InvalidInputs, "amount_out_of_range"),
    ("track", PREMIUM | {"idempotency_key": "two\nlines"}, InvalidInputs, "invalid_inputs"),
    ("track", PREMIUM | {"idempotency_key": "x" * 257}, InvalidInputs, "invalid_inputs"),
    ("track", PREMIUM | {"properties": {"x": "y" * 5000}}, InvalidInputs, "invalid_inputs"),
    ("track", PREMIUM | {"properties": {"x": "y" * 70_000}}, InvalidInputs, "body_too_large"),
    ("track", PREMIUM | {"properties": {"x": object()}}, InvalidInputs, "invalid_inputs"),
    ("track", ANN, InvalidInputs, "invalid_inputs"),
    (
        "track",
        PREMIUM | {"value": 51, "overage_behavior": "reject"},
        InsufficientBalance,
        "insufficient_balance",
    ),
    ("finalize", {"lock_id": "none"}, InvalidRequest, "invalid_request"),
)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A short path for sockets."""
    with tempfile.TemporaryDirectory(prefix="cgc") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def sidecar(directory: Path) -> Iterator[SidecarProcess]:
    """A sidecar with the tutorial's catalog, that also listens on a unix socket."""
    process = SidecarProcess(arguments=["--demo", "--unix-socket", str(directory / "gate.sock")])
    try:
        yield process.start()
    finally:
        process.close()


@pytest.fixture(params=["async http", "async unix", "sync http", "sync unix"])
async def client(
    request: pytest.FixtureRequest, sidecar: SidecarProcess, directory: Path
) -> AsyncIterator[Face]:
    """Each client on each way; ann holds 5 credits when the test begins."""
    kind, way = request.param.split()
    url = sidecar.url if way == "http" else f"unix://{directory}/gate.sock"
    sidecar.ask("customers.get_or_create", ANN)
    sidecar.ask("balances.update", ANN | {"feature_id": "usd_credits", "remaining": 5})
    if kind == "sync":
        with Client(url, secret_key=sidecar.key, deadline_s=SLOW_S) as sync_client:
            yield sync_client
    else:
        async with AsyncClient(url, secret_key=sidecar.key + "\n", deadline_s=SLOW_S) as async_client:
            yield async_client


async def test_the_verbs(client: Face) -> None:
    """Every method of the gate does what its verb does, with values that a type checker knows."""
    customer = await ask(client, "get_or_create", **ANN, name="Ann", metadata={"seat": 1})
    assert (customer.id, customer.balances["usd_credits"].remaining) == ("ann", 5)
    assert customer.subscriptions[0].plan_id == "free"
    checked = await ask(client, "check", **PREMIUM, required_balance=51)
    assert (checked.allowed, checked.required_balance) == (False, Decimal("5.1"))
    tracked = await ask(client, "track", **PREMIUM, value=2, properties={"model": "small"})
    assert tracked.balance.remaining == Decimal("4.8")
    assert tracked.deductions[0].value == Decimal("0.2")
    assert tracked.balances["premium_messages"] is None
    taken = await ask(client, "check", **PREMIUM, required_balance=1, send_event=True)
    assert (taken.allowed, taken.balance.remaining) == (True, Decimal("4.7"))
    locked = await ask(client, "lock", **PREMIUM, value=10)
    assert (locked.allowed, locked.balance.remaining) == (True, Decimal("3.7"))
    progress = await ask(client, "progress", lock_id=locked.lock.lock_id, used=3)
    assert (progress.value, progress.used) == (10, 3)
    assert await ask(client, "finalize", lock_id=locked.lock.lock_id, override_value=4) is None
    denied = await ask(client, "lock", **PREMIUM, value=99)
    assert (denied.allowed, denied.lock) == (False, None)
    released = await ask(client, "lock", **PREMIUM, value=10)
    await ask(client, "finalize", lock_id=released.lock.lock_id, action="release")
    assert (await ask(client, "check", **PREMIUM)).balance.remaining == Decimal("4.3")


async def test_a_batch(client: Face) -> None:
    """What failed in a batch is an exception in its place; what it was tells its type."""
    outcomes = await ask(
        client,
        "batch",
        [
            TrackCall(**PREMIUM, value=Decimal("0.5")),
            CheckCall(**PREMIUM, required_balance=49),
            TrackCall(customer_id="nobody", feature_id="premium_messages"),
            TrackCall(**PREMIUM, value=99, overage_behavior="reject"),
            CheckCall(**PREMIUM, send_event=True),
        ],
    )
    tracked, checked, unknown, refused, taken = outcomes
    assert tracked.balance.remaining == Decimal("4.95")
    assert checked.allowed
    assert type(unknown) is NotFound
    assert type(refused) is InsufficientBalance
    assert taken.balance.remaining == Decimal("4.85")


async def test_amounts_are_exact_both_ways(client: Face) -> None:
    """A billionth of a credit arrives, and comes back; 0.1 + 0.2 is 0.3."""
    credits = ANN | {"feature_id": "usd_credits"}
    tracked = await ask(client, "track", **credits, value=Decimal("0.000000001"))
    assert tracked.balance.remaining == Decimal("4.999999999")
    back = await ask(client, "track", **credits, value=Decimal("-1E-9"))
    assert (back.value, back.balance.remaining) == (Decimal("-0.000000001"), 5)
    for value in (Decimal("0.1"), Decimal("0.2")):
        tracked = await ask(client, "track", **credits, value=value)
    assert tracked.balance.remaining == Decimal("4.7")


async def test_errors_have_types(client: Face) -> None:
    """An application catches what it can do something about; nothing was taken, and nothing is retried."""
    for method, fields, kind, code in REFUSED:
        with pytest.raises(CreditgateError) as caught:
            await ask(client, method, **fields)
        assert (type(caught.value), caught.value.code) == (kind, code), f"{method} {str(fields)[:200]}"
    assert (await ask(client, "check", **PREMIUM)).balance.remaining == 5


async def test_keys(client: Face) -> None:
    """A caller's own key replays the first answer, and a reused one is an error of its own; so is a taken lock."""
    key = os.urandom(8).hex()
    first = await ask(client, "track", **PREMIUM, value=2, idempotency_key=key)
    again = await ask(client, "track", **PREMIUM, value=2, idempotency_key=key)
    assert (first.is_replay, again.is_replay) == (False, True)
    assert again.balance == first.balance
    with pytest.raises(KeyReused):
        await ask(client, "track", **PREMIUM, value=3, idempotency_key=key)
    for call in (TrackCall(**PREMIUM, value=2), CheckCall(**PREMIUM, required_balance=2, send_event=True)):
        single = "track" if isinstance(call, TrackCall) else "check"
        fields = {name: value for name, value in msgspec.structs.asdict(call).items() if value is not None}
        key = os.urandom(8).hex()
        await ask(client, "batch", [msgspec.structs.replace(call, idempotency_key=key)])
        assert (await ask(client, single, **fields | {"idempotency_key": key})).is_replay
    await ask(client, "lock", **PREMIUM, lock_id=key)
    with pytest.raises(Conflict):
        await ask(client, "lock", **PREMIUM, lock_id=key)
    await ask(client, "finalize", lock_id=key, action="release")


async def test_a_wrong_key_is_told_apart(sidecar: SidecarProcess) -> None:
    """Whoever deploys with the wrong secret sees that, and not a customer who is refused."""
    async with AsyncClient(sidecar.url, secret_key="cg_sk_test_wrong") as client:
        with pytest.raises(Unauthorized):
            await client.check(customer_id="ann", feature_id="premium_messages")


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_lost_answer_has_one_effect(sidecar: SidecarProcess, directory: Path, kind: str) -> None:
    """A connection that breaks after the credits were taken: the client asks again, and nothing is taken twice."""
    sidecar.ask("customers.get_or_create", ANN)
    sidecar.ask("balances.update", ANN | {"feature_id": "usd_credits", "remaining": 5})
    made: dict[str, Any] = {"secret_key": sidecar.key, "deadline_s": SLOW_S}
    async with FaultProxy(directory / f"{kind}.sock", str(directory / "gate.sock")) as proxy:
        client: Face = Client(proxy.url, **made) if kind == "sync" else AsyncClient(proxy.url, **made)

        async def lost(method: str, *args: Any, **fields: Any) -> Any:
            proxy.lose_reply_to(b"premium_messages" if method != "finalize" else b"override_value")
            return await ask(client, method, *args, **fields)

        assert (await lost("track", **PREMIUM, value=2)).is_replay
        assert (await lost("check", **PREMIUM, required_balance=3, send_event=True)).is_replay
        locked = await lost("lock", **PREMIUM, value=5)
        assert (locked.is_replay, locked.allowed) == (True, True)
        await lost("finalize", lock_id=locked.lock.lock_id, override_value=4)
        batch = await lost("batch", [TrackCall(**PREMIUM), CheckCall(**PREMIUM, send_event=True)])
        assert [outcome.is_replay for outcome in batch] == [True, True]
        assert not (await lost("check", **PREMIUM)).is_replay
        assert proxy.faults == 6
        left = (await ask(client, "check", **PREMIUM)).balance.remaining
        assert left == 5 - Decimal("0.1") * (2 + 3 + 4 + 1 + 1)
        if isinstance(client, Client):
            client.close()
        else:
            await client.aclose()


async def test_without_redis_nothing_is_allowed_and_a_track_can_be_sent_again(
    sidecar: SidecarProcess,
) -> None:
    """An outage is neither yes nor no; a use is kept, and sent again with its key it is still one."""
    sidecar.ask("customers.get_or_create", ANN)
    sidecar.ask("balances.update", ANN | {"feature_id": "usd_credits", "remaining": 5})
    async with AsyncClient(sidecar.url, secret_key=sidecar.key, deadline_s=SLOW_S) as client:
        valkey = sidecar.valkey_pid
        os.kill(valkey, signal.SIGSTOP)
        try:
            with pytest.raises(Undecided):
                await client.check(customer_id="ann", feature_id="premium_messages")
            kept = await client.track(**PREMIUM, value=2, idempotency_key="kept")
            assert kept.balance is None
            outcomes = await client.batch([CheckCall(**PREMIUM), TrackCall(**PREMIUM)])
            assert isinstance(outcomes[0], Undecided)
            assert not isinstance(outcomes[1], Exception)
        finally:
            os.kill(valkey, signal.SIGCONT)
        wait_until(lambda: sidecar.call("balances.check", PREMIUM).status_code == 200, what="Redis is back")
        again = [await client.track(**PREMIUM, value=2, idempotency_key="kept") for _ in range(2)]
        assert again[1].is_replay
    wait_until(
        lambda: sidecar.ask("balances.check", PREMIUM)["balance"]["remaining"] == 4.7, what="the other use"
    )


def test_importing_the_package_costs_nothing() -> None:
    """Whoever asks for the version does not pay for an HTTP client, nor for SQL."""
    names = "httpx', 'msgspec', 'redis', 'sqlalchemy', 'starlette', 'asyncio"
    code = f"import sys, creditgate; print([name for name in ('{names}') if name in sys.modules])"
    assert _python(code) == "[]"
    code = f"import sys; from creditgate import Client; print([n for n in ('{names}') if n in sys.modules])"
    assert _python(code) == "['httpx', 'msgspec', 'asyncio']"
    assert set(dir(creditgate)) >= set(creditgate.__all__)
    with pytest.raises(AttributeError):
        creditgate.nothing  # noqa: B018


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=SLOW_S
    ).stdout.strip()
