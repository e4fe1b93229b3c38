"""One trial: load on a stand, faults one after the other, and what the books say afterwards."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tests.faults.load import Answered, Load
from tests.faults.oracle import Fate, Findings, judge
from tests.faults.stand import Program, Stand

WARM_UP_S = 0.7
LOSS_S = 3.0  # before a Redis lost its data: what was not flushed by then

Act = Callable[[Stand], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for a while: `act` returns when it is over."""

    name: str
    act: Act
    embedded: bool = False
    loses_data: bool = False  # of Redis: what was not flushed is gone, and so are holds
    disk_mb: int = 0
    is_of_sql: bool = False  # SQL takes nothing meanwhile, so the streams grow
    server: Program | None = None
    missing: Callable[[], str] = lambda: ""  # why it cannot be tried on this machine


@dataclass
class Outcome:
    """What a trial found. Seconds to the first answer after each fault; answers while a fault was there."""

    name: str
    acknowledged: int = 0
    kept: int = 0
    undecided: int = 0
    findings: Findings | None = None
    verified: bool = False
    said: str = ""
    recovery_s: list[float] = field(default_factory=list)
    meanwhile: list[Answered] = field(default_factory=list)
    entries_max: int = 0
    resident_mb_max: float = 0.0
    drain_rows_s: float = 0.0
    appendfsync: str = ""
    drain_s: float = 0.0

    @property
    def is_good(self) -> bool:
        return self.verified and self.findings is not None and self.findings.are_none


async def try_faults(
    faults: Sequence[Fault], dice: random.Random, *, rest_s: float = WARM_UP_S, until: float = 0.0
) -> Outcome:
    """Let these faults happen under load on one stand, all for the same one; again in any order `until` is over."""
    first = faults[0]
    outcome = Outcome(first.name)
    async with Stand(dice, embedded=first.embedded, server=first.server, disk_mb=first.disk_mb) as stand:
        loses_data = any(fault.loses_data for fault in faults)
        load = Load(lambda: stand.sidecar.url, stand.sidecar.headers, dice, only_rich=loses_data)
        outcome.appendfsync = await asyncio.to_thread(stand.appendfsync)
        await load.start()
        may_lose = None
        coming = list(faults)
        while coming:
            await asyncio.sleep(rest_s)
            began = time.monotonic()
            await _happen(coming.pop(0), stand, load, outcome)
            if loses_data:
                may_lose = (began - LOSS_S, time.monotonic())
            if not coming and time.monotonic() < until:
                coming = dice.sample(list(faults), len(faults))
        await asyncio.sleep(rest_s)
        await load.stop()
        ended = time.monotonic()
        tally = load.tally
        books = await stand.books(tally.acknowledged(may_lose), list(tally.granted))
        outcome.drain_s = time.monotonic() - ended
        proof = await stand.verify()
    outcome.findings = judge(tally, books, may_lose=may_lose)
    outcome.verified, outcome.said = proof.returncode == 0, (proof.stdout + proof.stderr).strip()
    fates = [call.fate for call in tally.calls.values()]
    outcome.acknowledged, outcome.kept = fates.count(Fate.ACKNOWLEDGED), fates.count(Fate.KEPT)
    outcome.undecided = fates.count(Fate.UNDECIDED)
    return outcome


async def _happen(fault: Fault, stand: Stand, load: Load, outcome: Outcome) -> None:
    began = time.monotonic()
    watching = asyncio.create_task(_watch(stand, outcome)) if fault.is_of_sql else None
    try:
        await fault.act(stand)
    finally:
        if watching is not None:
            watching.cancel()
    ended = time.monotonic()
    outcome.recovery_s.append(await load.answers_again())
    if fault.is_of_sql:
        outcome.drain_rows_s = await stand.drain_rows_s()
    outcome.meanwhile += [answer for answer in load.answers if began <= answer.at <= ended]


async def _watch(stand: Stand, outcome: Outcome) -> None:
    """Keep the largest stream and the most memory while SQL is away, which is when they grow."""
    while True:
        outcome.entries_max = max(outcome.entries_max, stand.waiting())
        outcome.resident_mb_max = max(outcome.resident_mb_max, stand.resident_mb())
        await asyncio.sleep(0.2)
