"""Callers of every kind, who remember what they were told: tracks, checks that take, refunds and holds."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx

from tests.faults.oracle import CHECK, Call, Fate, Tally

RICH = 4
AGAIN = 4  # callers who say the same each time
RICH_UNITS = 10_000_000
POOR_UNITS = 50  # what the free plan of the tutorial's catalog brings
HELD = 4
PREMIUM = "premium_messages"
CALL_S_MAX = 15.0
RETRY_S = 0.02
DECIDED_S_MAX = 60.0


class Answered(NamedTuple):
    """When a call was made, how long it took, and its HTTP status (0: none)."""

    at: float
    seconds: float
    status: int


class Load:
    """Callers of one sidecar. `url` is asked each time, since one that starts again has another port.

    `only_rich`: nothing is made on the way, neither customers nor holds, for a Redis that will forget them.
    """

    def __init__(
        self,
        url: Callable[[], str],
        headers: Mapping[str, str],
        dice: random.Random,
        *,
        only_rich: bool = False,
    ) -> None:
        self._url = url
        self._dice = dice
        self._only_rich = only_rich
        self._count = 0
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        limits = httpx.Limits(max_connections=64)
        self._client = httpx.AsyncClient(headers=headers, timeout=CALL_S_MAX, limits=limits)
        self.tally = Tally()
        self.answers: list[Answered] = []

    async def start(self) -> None:
        """Make the customers, and begin to call."""
        for number in range(RICH):
            await self._make(f"rich_{number}")
        calling = [self._rich(f"rich_{number % RICH}") for number in range(2 * RICH)]
        calling += [self._again(f"rich_{number % RICH}", number) for number in range(AGAIN)]
        if not self._only_rich:
            await self._make("holder")
            calling += [self._poor(self._check), self._poor(self._track_or_refuse)]
            calling += [self._holder("holder"), self._holder("holder")]
        self._tasks = [asyncio.create_task(work) for work in calling]

    async def stop(self) -> None:
        """Return when every caller that asks until its call is decided has had its answer."""
        self._stopping.set()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await self._client.aclose()

    async def answers_again(self) -> float:
        """Return how many seconds it takes until a check is decided."""
        began = time.monotonic()
        body = {"customer_id": "rich_0", "feature_id": PREMIUM}
        while (await self._send("balances.check", body))[0] != 200:
            assert time.monotonic() < began + DECIDED_S_MAX, "no answer any more"
            await asyncio.sleep(RETRY_S)
        return time.monotonic() - began

    async def _make(self, customer_id: str) -> None:
        await self._until_decided("customers.get_or_create", {"customer_id": customer_id}, {})
        units = POOR_UNITS
        if not customer_id.startswith("poor"):
            grant = {
                "customer_id": customer_id,
                "feature_id": "usd_credits",
                "included_grant": RICH_UNITS // 10,
            }
            await self._until_decided("balances.create", grant, {"Idempotency-Key": f"grant {customer_id}"})
            units += RICH_UNITS
        self.tally.granted[customer_id] = units

    async def _rich(self, customer_id: str) -> None:
        """Use and give back, half of it with a key; a use with a key is asked for until it is decided."""
        used = 0
        while not self._stopping.is_set():
            kind = self._dice.choice(("track", "track", "keyed", "keyed", "check", "refund"))
            units = self._dice.randrange(1, 4)
            if kind == "check":
                await self._check(customer_id, units)
            elif kind != "refund":
                used += units * (
                    await self._track(customer_id, units, has_key=kind == "keyed") is Fate.ACKNOWLEDGED
                )
            elif used >= units:
                used -= units
                await self._track(customer_id, -units, has_key=True)

    async def _again(self, customer_id: str, number: int) -> None:
        """Send the same track again and again, which sidecars answer from what they know of the one before."""
        count = 0
        while not self._stopping.is_set():
            count += 1
            name = f"again-{number}#{count}"
            self.tally.calls[name] = call = Call(customer_id, 1)
            body = {"customer_id": customer_id, "feature_id": PREMIUM, "value": 1}
            body["properties"] = {"call": f"again-{number}"}
            self._note(name, call, *await self._send("balances.track", body))

    async def _poor(self, call: Callable[[str, int], Any]) -> None:
        """Spend all that a customer has, and go on with the next customer."""
        number = 0
        while not self._stopping.is_set():
            number += 1
            customer_id, refused = f"poor_{call.__name__}_{number}", 0
            await self._make(customer_id)
            while refused < 3 and not self._stopping.is_set():
                refused += await call(customer_id, self._dice.randrange(1, 6)) is Fate.REFUSED

    async def _holder(self, customer_id: str) -> None:
        while not self._stopping.is_set():
            self._count += 1
            lock = {"lock_id": f"lock-{self._count}"}
            body = {"customer_id": customer_id, "feature_id": PREMIUM, "required_balance": HELD, "lock": lock}
            await self._until_decided("balances.check", body, {"Idempotency-Key": f"hold {lock['lock_id']}"})
            used = self._dice.choice((0, 3, HELD, 6))
            end = lock | {"action": "confirm", "override_value": used}
            await self._until_decided("balances.finalize", end, {"Idempotency-Key": f"end {lock['lock_id']}"})
            self.tally.settled[customer_id] += used

    async def _track_or_refuse(self, customer_id: str, units: int) -> Fate:
        return await self._track(customer_id, units, has_key=False, overage_behavior="reject")

    async def _track(self, customer_id: str, units: int, *, has_key: bool, **more: Any) -> Fate:
        name, call = self._new("track-", customer_id, units)
        body = {"customer_id": customer_id, "feature_id": PREMIUM, "value": units, **more}
        body["properties"] = {"call": name}
        headers = {"Idempotency-Key": name} if has_key else {}
        give_up_at = time.monotonic() + DECIDED_S_MAX
        while True:
            status, answer = await self._send("balances.track", body, headers)
            self._note(name, call, status, answer)
            if not has_key or (call.fate is not Fate.UNDECIDED and self._dice.random() < 0.8):
                return call.fate
            assert time.monotonic() < give_up_at, f"{name} is not decided: {answer}"
            await asyncio.sleep(RETRY_S)

    async def _check(self, customer_id: str, units: int) -> Fate:
        name, call = self._new(CHECK, customer_id, units)
        body = {"customer_id": customer_id, "feature_id": PREMIUM, "required_balance": units}
        body |= {"send_event": True, "properties": {"call": name}}
        status, answer = await self._send("balances.check", body)
        if status == 200 and not answer["allowed"]:
            call.fate = Fate.REFUSED
        elif status == 202:
            self._unless(not answer["allowed"], name, status, answer)
        else:
            self._note(name, call, status, answer)
        return call.fate

    def _new(self, kind: str, customer_id: str, units: int) -> tuple[str, Call]:
        self._count += 1
        name = f"{kind}{self._count}"
        self.tally.calls[name] = call = Call(customer_id, units)
        return name, call

    def _note(self, name: str, call: Call, status: int, answer: Any) -> None:
        """Remember an answer; one that was decided stays so, whatever is said of its repetition."""
        if status in (200, 202):
            if call.fate is Fate.UNDECIDED:
                call.fate, call.at = (Fate.ACKNOWLEDGED if status == 200 else Fate.KEPT), time.monotonic()
        elif status == 400 and answer.get("code") == "insufficient_balance":
            self._unless(call.fate is Fate.UNDECIDED, name, status, answer)
            call.fate = Fate.REFUSED
        else:
            decides_nothing = status in (0, 429, 503)
            self._unless(decides_nothing, name, status, answer)

    def _unless(self, holds: bool, name: str, status: int, answer: Any) -> None:
        if not holds:
            self.tally.wrong_answers.append(f"{name}: {status} {answer}")

    async def _until_decided(self, route: str, body: Any, headers: Mapping[str, str]) -> None:
        give_up_at = time.monotonic() + DECIDED_S_MAX
        while True:
            status, answer = await self._send(route, body, headers)
            if status not in (0, 202, 429, 503):
                self._unless(status == 200, route, status, answer)
                return
            assert time.monotonic() < give_up_at, f"{route} {body}: {answer}"
            await asyncio.sleep(RETRY_S)

    async def _send(self, route: str, body: Any, headers: Mapping[str, str] = {}) -> tuple[int, Any]:
        began = time.monotonic()
        try:
            answer = await self._client.post(f"{self._url()}/v1/{route}", json=body, headers=headers)
        except httpx.TransportError as error:
            self.answers.append(Answered(began, time.monotonic() - began, 0))
            await asyncio.sleep(RETRY_S)
            return 0, repr(error)
        self.answers.append(Answered(began, time.monotonic() - began, answer.status_code))
        return answer.status_code, answer.json()
