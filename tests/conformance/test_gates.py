"""A few cases through every gate: the clients on HTTP and on a unix socket, and the meters in this process.

They play on one sidecar's Redis and SQL, each with customers of its own, and must be answered alike, value by value.
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from creditgate import (
    AsyncClient,
    CheckCall,
    Client,
    CreditgateError,
    Gate,
    Meter,
    SyncMeter,
    TrackCall,
    Undecided,
)
from tests.client.faces import ask
from tests.sidecar_process import SidecarProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

Face = AsyncClient | Client | Meter | SyncMeter

# What is asked, in order: the method and its fields. A customer or lock is that of the gate that plays.
PREMIUM: dict[str, Any] = {"customer_id": "ann", "feature_id": "premium_messages"}
BASIC = PREMIUM | {"feature_id": "basic_messages"}
CREDITS = PREMIUM | {"feature_id": "usd_credits"}
CASES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "a customer": (
        ("get_or_create", {"customer_id": "ann", "name": "Ann", "metadata": {"seat": "12A"}}),
        ("get_or_create", {"customer_id": "ann", "name": "Other", "time_zone": "Europe/Berlin"}),
        ("get_or_create", {"customer_id": "bob", "time_zone": "Nowhere"}),
        ("get_or_create", {"customer_id": "bob", "auto_enable_plan_id": "pro"}),
    ),
    "check and track": (
        ("check", PREMIUM | {"required_balance": Decimal("50")}),
        ("check", PREMIUM | {"required_balance": Decimal("50.1")}),
        ("track", PREMIUM | {"value": Decimal("0.5"), "properties": {"model": "large"}}),
        ("track", BASIC | {"value": -3}),
        ("track", CREDITS | {"value": Decimal("0.000000001")}),
        ("check", BASIC | {"send_event": True, "required_balance": 2}),
        ("track", PREMIUM | {"value": 60, "overage_behavior": "reject"}),
        ("track", PREMIUM | {"value": 60}),
        ("check", BASIC),
        ("track", PREMIUM | {"value": 1, "overage_behavior": "overflow"}),
    ),
    "locks": (
        ("lock", PREMIUM | {"value": 20, "lock_id": "one"}),
        ("lock", PREMIUM | {"value": 20, "lock_id": "one"}),
        ("progress", {"lock_id": "one", "used": 7}),
        ("finalize", {"lock_id": "one", "override_value": 8}),
        ("finalize", {"lock_id": "one"}),
        ("lock", PREMIUM | {"value": 90, "lock_id": "two"}),
        ("lock", PREMIUM | {"value": 1, "expires_at": 5}),
        ("progress", {"lock_id": "none", "used": 7}),
        ("check", PREMIUM),
    ),
    "keys": (
        ("track", PREMIUM | {"value": 2, "idempotency_key": "k"}),
        ("track", PREMIUM | {"value": 2, "idempotency_key": "k"}),
        ("track", PREMIUM | {"value": 3, "idempotency_key": "k"}),
        ("check", PREMIUM | {"send_event": True, "idempotency_key": "k"}),
        ("check", PREMIUM | {"send_event": True, "idempotency_key": "k"}),
        ("track", PREMIUM | {"idempotency_key": "ключ"}),
    ),
    "nonsense": (
        ("check", PREMIUM | {"customer_id": "nobody"}),
        ("check", PREMIUM | {"feature_id": "nothing"}),
        ("check", PREMIUM | {"required_balance": 10**13}),
        ("track", PREMIUM | {"value": 0.1}),
        ("track", {"customer_id": "ann"}),
        ("track", PREMIUM | {"properties": {"x": "y" * 5000}}),
        ("track", PREMIUM | {"properties": {"x": "y" * 70_000}}),
        ("track", PREMIUM | {"customer_id": "a\x00b"}),
        ("track", {"customer_id": "ann", "event_name": "nothing.counts.it"}),
        ("finalize", {"lock_id": "none", "action": "release", "override_value": 1}),
    ),
    "batches": (
        ("batch", {"calls": []}),
        ("batch", {"calls": [CheckCall(**PREMIUM)] * 101}),
        (
            "batch",
            {
                "calls": [
                    TrackCall(**PREMIUM, value=2),
                    CheckCall(**PREMIUM, required_balance=49),
                    TrackCall(**PREMIUM, value=Decimal("0.5"), idempotency_key="b"),
                    TrackCall(**PREMIUM, value=Decimal("0.5"), idempotency_key="b"),
                    TrackCall(**PREMIUM, value=99, overage_behavior="reject"),
                    TrackCall(**PREMIUM | {"customer_id": "nobody"}),
                    CheckCall(**BASIC, send_event=True),
                ]
            },
        ),
    ),
}


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A short path for the socket."""
    with tempfile.TemporaryDirectory(prefix="cgg") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def sidecar(directory: Path) -> Iterator[SidecarProcess]:
    """A sidecar with the tutorial's catalog, that also listens on a unix socket."""
    process = SidecarProcess(arguments=["--demo", "--unix-socket", str(directory / "gate.sock")])
    try:
        yield process.start()
    finally:
        process.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gates(sidecar: SidecarProcess, directory: Path) -> AsyncIterator[dict[str, Face]]:
    """Every gate, open; the clients are what the others are compared with."""
    url, path, key = sidecar.url, f"unix://{directory}/gate.sock", sidecar.key
    async with AsyncExitStack() as opened:
        gate: Gate = await opened.enter_async_context(Meter(data_dir=sidecar.directory))
        assert isinstance(gate, Meter)
        yield {
            "AsyncClient, HTTP": await opened.enter_async_context(AsyncClient(url, secret_key=key)),
            "AsyncClient, unix": await opened.enter_async_context(AsyncClient(path, secret_key=key)),
            "Client, HTTP": opened.enter_context(Client(url, secret_key=key)),
            "Client, unix": opened.enter_context(Client(path, secret_key=key)),
            "Meter": gate,
            "Meter, no background": await opened.enter_async_context(
                Meter(data_dir=sidecar.directory, background=False)
            ),
            "SyncMeter": opened.enter_context(Meter(data_dir=sidecar.directory).sync()),
        }


@pytest.mark.parametrize("case", CASES)
async def test_every_gate_answers_alike(gates: dict[str, Face], case: str) -> None:
    """An application that swaps one gate for another sees no difference: values, refusals, errors and their words."""
    played = {
        name: await _play(gate, f"{case} {number} ", case)
        for number, (name, gate) in enumerate(gates.items())
    }
    expected = played.pop("AsyncClient, HTTP")
    assert not [answer for answer in expected if isinstance(answer, tuple) and answer[0] is Undecided]
    for name, answers in played.items():
        for (method, fields), wanted, answer in zip(CASES[case], expected, answers, strict=True):
            assert answer == wanted, f"{name}: {method} {str(fields)[:300]}"


async def test_a_key_is_one_call_to_all_gates(gates: dict[str, Face]) -> None:
    """A job that begins in one process and is repeated in another, by whatever gate, takes once."""
    await ask(gates["Meter"], "get_or_create", customer_id="once")
    call = PREMIUM | {"customer_id": "once", "value": 2, "idempotency_key": "job-1"}
    tracked = [await ask(gate, "track", **call) for gate in gates.values()]
    assert [answer.is_replay for answer in tracked] == [False] + [True] * (len(gates) - 1)
    assert {answer.balance.remaining for answer in tracked} == {Decimal("4.8")}


async def test_all_gates_together_take_no_more_than_there_is(gates: dict[str, Face]) -> None:
    """5 credits are 50 messages, however many processes ask for them at once."""
    await ask(gates["Meter"], "get_or_create", customer_id="crowd")
    call = PREMIUM | {"customer_id": "crowd", "send_event": True}
    asked = [ask(gate, "check", **call, deadline_s=20.0) for _ in range(12) for gate in gates.values()]
    answers = await asyncio.gather(*asked)
    assert sum(answer.allowed for answer in answers) == 50 < len(answers)


async def _play(gate: Face, prefix: str, case: str) -> list[Any]:
    if case != "a customer":
        await ask(gate, "get_or_create", customer_id=prefix + "ann")
    return [await _answer(gate, method, fields, prefix) for method, fields in CASES[case]]


async def _answer(gate: Face, method: str, fields: dict[str, Any], prefix: str) -> Any:
    """Return what is answered or raised, in plain values, without what differs from customer to customer."""
    named = {
        name: prefix + value if name in ("customer_id", "lock_id") else value
        for name, value in fields.items()
    }
    if method == "batch":
        named["calls"] = [
            msgspec.structs.replace(call, customer_id=prefix + call.customer_id) for call in fields["calls"]
        ]
    try:
        answer = await ask(gate, method, **named)
    except CreditgateError as error:
        answer = error
    return _plain(answer, prefix)


def _plain(value: Any, prefix: str) -> Any:
    match value:
        case CreditgateError():
            return type(value), value.code, value.message.replace(prefix, "")
        case msgspec.Struct():
            return {name: _plain(field, prefix) for name, field in msgspec.structs.asdict(value).items()}
        case dict():
            return {name: _plain(field, prefix) for name, field in value.items()}
        case list() | tuple():
            return [_plain(part, prefix) for part in value]
        case str():
            return re.sub(r"^(bal|sub|lock)_[0-9A-Za-z]+$", r"\1_", value.removeprefix(prefix))
        case int() if value > 10**12:
            return "an instant"
    return value
