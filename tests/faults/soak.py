"""A sidecar under mixed load with a random fault every few seconds, and what the books say afterwards.

    python -m tests.faults.soak --minutes 30 --seed 7

Every use has an idempotency key and is sent until it is decided or spooled, as a careful client does. So at the end
each has been taken exactly once: what is missing was lost, and what is there twice was doubled. Prints the seed and one
line for each kind of fault; ends with 1 if anything was lost, doubled or overspent, or `verify` finds a difference.
"""

import argparse
import asyncio
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import httpx
import msgspec

from tests.sidecar_process import SidecarProcess, wait_until

CLIENTS = 16
CUSTOMERS = 8
GRANTED = 1_000_000
PREMIUM_COST = "0.1"  # as in the tutorial's catalog
FAULT_EVERY_S = 20.0
FROZEN_S = 2.0
FROZEN_BEYOND_LEASES_S = 8.0
RECOVERY_S_MAX = 30.0
CALL_S_MAX = 10.0
PROBE_S = 0.02


class Outcome(NamedTuple):
    """What a soak has found. `recoveries` are seconds from the end of a fault to the next answer, by fault."""

    acknowledged: int
    spooled: int
    undecided: int
    lost: int
    doubled: int
    wrong_balances: int
    verified: bool
    verify_said: str
    recoveries: dict[str, list[float]]

    @property
    def is_good(self) -> bool:
        return self.verified and not (self.lost or self.doubled or self.wrong_balances)


class Soak:
    """One sidecar with two workers, those who call it, and what befalls it."""

    def __init__(self, *, seed: int) -> None:
        self.dice = random.Random(seed)
        self.sidecar = SidecarProcess(arguments=["--demo", "--workers", "2"])
        self.stopping = asyncio.Event()
        self.acknowledged: list[str] = []
        self.spent: Counter[str] = Counter()  # credits in tenths, by customer
        self.spooled = 0
        self.undecided = 0
        self.recoveries: defaultdict[str, list[float]] = defaultdict(list)
        self.faults: dict[str, Callable[[], None]] = {
            "kill -9 a worker": lambda: os.kill(self.dice.choice(self.sidecar.worker_pids), signal.SIGKILL),
            "kill -9 the background process": lambda: os.kill(self.sidecar.background_pid, signal.SIGKILL),
            "kill -9 Valkey": self.sidecar.kill_valkey,
            "kill -9 everything, start again": self._start_again,
            "stop Valkey for 2 s": lambda: self._frozen(self.sidecar.valkey_pid, FROZEN_S),
            "stop a worker for 2 s": lambda: self._frozen(
                self.dice.choice(self.sidecar.worker_pids), FROZEN_S
            ),
            "stop the background process for 8 s": lambda: self._frozen(
                self.sidecar.background_pid, FROZEN_BEYOND_LEASES_S
            ),
        }

    async def run(self, *, seconds: float, every_s: float = FAULT_EVERY_S) -> Outcome:
        """Run for so long, each fault at least once if there is time, and look at the books."""
        self.sidecar.start()
        try:
            for customer_id in self._customers:
                self.sidecar.ask("customers.get_or_create", {"customer_id": customer_id})
                grant = {"customer_id": customer_id, "feature_id": "usd_credits", "included_grant": GRANTED}
                self.sidecar.ask("balances.create", grant)
            before = {customer_id: self._remaining(customer_id) for customer_id in self._customers}
            async with httpx.AsyncClient(headers=self.sidecar.headers, timeout=CALL_S_MAX) as client:
                calling = [asyncio.create_task(self._call(client, number)) for number in range(CLIENTS)]
                await self._disturb(client, time.monotonic() + seconds, every_s)
                self.stopping.set()
                await asyncio.gather(*calling)
            return await asyncio.to_thread(self._books, before)
        finally:
            self.sidecar.close()

    @property
    def _customers(self) -> Sequence[str]:
        return [f"customer_{number}" for number in range(CUSTOMERS)]

    async def _call(self, client: httpx.AsyncClient, number: int) -> None:
        """Take one premium message after the other, each under a key of its own, until told to stop."""
        customer_id, count = self._customers[number % CUSTOMERS], 0
        while not self.stopping.is_set():
            count += 1
            use = f"{number}-{count}"
            body = {
                "customer_id": customer_id,
                "feature_id": "premium_messages",
                "properties": {"use": use},
                "idempotency_key": use,
            }
            while not await self._is_taken(client, body):  # noqa: ASYNC110 - it is the sidecar that comes back
                await asyncio.sleep(PROBE_S)
            self.acknowledged.append(use)
            self.spent[customer_id] += 1

    async def _is_taken(self, client: httpx.AsyncClient, body: Mapping[str, object]) -> bool:
        with suppress(httpx.TransportError):
            answer = await client.post(f"{self.sidecar.url}/v1/balances.track", json=body)
            self.spooled += answer.status_code == 202
            if answer.status_code in (200, 202):
                return True
            assert answer.json()["code"] == "undecided", answer.text
            self.undecided += 1
        return False

    async def _disturb(self, client: httpx.AsyncClient, until: float, every_s: float) -> None:
        names: list[str] = []
        while time.monotonic() < until:
            if not names:
                names = self.dice.sample(list(self.faults), len(self.faults))
            name = names.pop()
            await asyncio.to_thread(self.faults[name])
            ended_at = time.monotonic()
            while not await self._answers(client):
                assert time.monotonic() < ended_at + RECOVERY_S_MAX, f"{name}: no answer since"
                await asyncio.sleep(PROBE_S)
            self.recoveries[name].append(time.monotonic() - ended_at)
            await asyncio.sleep(max(0.0, min(every_s, until - time.monotonic())))

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        with suppress(httpx.TransportError):
            body = {"customer_id": self._customers[0], "feature_id": "premium_messages"}
            answer = await client.post(f"{self.sidecar.url}/v1/balances.check", json=body)
            return answer.status_code == 200
        return False

    def _frozen(self, pid: int, seconds: float) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    def _start_again(self) -> None:
        self.sidecar.kill()
        self.sidecar.start()

    def _remaining(self, customer_id: str) -> float:
        body = {"customer_id": customer_id, "feature_id": "usd_credits"}
        remaining: float = self.sidecar.ask("balances.check", body)["balance"]["remaining"]
        return remaining

    def _books(self, before: dict[str, float]) -> Outcome:
        with suppress(AssertionError):  # what does not come is counted below
            wait_until(lambda: set(self._uses_in_sql()) >= set(self.acknowledged), what="the history in SQL")
        wrong = sum(
            round((before[customer_id] - self._remaining(customer_id)) * 10) != self.spent[customer_id]
            for customer_id in self._customers
        )
        assert self.sidecar.stop() == 0
        taken = Counter(self._uses_in_sql())
        proof = self.sidecar.verify()
        return Outcome(
            acknowledged=len(self.acknowledged),
            spooled=self.spooled,
            undecided=self.undecided,
            lost=sum(taken[use] == 0 for use in self.acknowledged),
            doubled=sum(count > 1 for count in taken.values()),
            wrong_balances=wrong,
            verified=proof.returncode == 0,
            verify_said=(proof.stdout + proof.stderr).strip(),
            recoveries=dict(self.recoveries),
        )

    def _uses_in_sql(self) -> list[str]:
        path = self.sidecar.directory / "ledger.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as sql:
            rows = sql.execute("SELECT properties FROM journal_items WHERE verb = 'track'").fetchall()
        return [msgspec.json.decode(text)["use"] for (text,) in rows]


def main() -> None:
    """Run one soak and print what it found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--every", type=float, default=FAULT_EVERY_S, metavar="SECONDS")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    soak = Soak(seed=chosen.seed)
    found = asyncio.run(soak.run(seconds=chosen.minutes * 60, every_s=chosen.every))
    for name, seconds in sorted(found.recoveries.items()):
        print(f"{name:38} {len(seconds):4} times, answers again after {max(seconds):.2f} s at most")
    print(
        f"acknowledged {found.acknowledged}, {found.spooled} of them spooled; undecided on the way {found.undecided}"
    )
    print(f"lost {found.lost}, doubled {found.doubled}, wrong balances {found.wrong_balances}")
    print(f"verify: {found.verify_said}")
    sys.exit(not found.is_good)


if __name__ == "__main__":
    main()
