"""The library in the caller's own process, beside redis-py's asyncio client with the same script."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from bench.agent import CHECKOUT, Agent
from bench.samples import Row, Sample, in_turns
from bench.stage import Stage
from creditgate.settings import Settings

AT_A_TIME = (1, 32, 256)
BATCHES = (16, 64)
BATCH_CALLERS = 4
HOT_AT_A_TIME = 64
PROMISED_AT = 256
OTHERS = ("redis-py", "bare")  # clients that only send the commands
CPU_AT_MOST = 1 / 15  # of redis-py
HOT_AT_MOST = 0.5  # of one EVALSHA for each call

Run = Callable[[], Sample]


def run(stage: Stage) -> list[Row]:
    """Measure single calls, batches, and calls for one customer."""
    callers = Callers(stage, stage.raw)
    rows = []
    callers.warm_up()
    for at_a_time in AT_A_TIME:
        rows += _single(callers, stage, at_a_time)
    for items in BATCHES:
        rows += _batch(callers, stage, items)
    return [*rows, *_hot(callers, stage)]


class Callers:
    """The processes: one for what is ours and one for other clients, on the same data, which nobody flushes."""

    def __init__(
        self, stage: Stage, settings: Settings, *, source: Path = CHECKOUT, forgets: bool = True
    ) -> None:
        """Start them; with `forgets`, the journal is emptied after each run. `source` is the checkout that ours run."""
        self._stage, self._settings, self._forgets = stage, settings, forgets
        assert settings.redis is not None
        assert settings.database is not None
        arguments = (settings.redis, settings.database, settings.prefix)
        self._ours = stage.agent("bench.callers", *arguments, source=source)
        self._arguments = arguments
        self.customers = [f"customer_{number}" for number in range(stage.customers)]

    def warm_up(self) -> None:
        for kind in ("meter", "engine track", "engine check", "redis-py"):
            self.ask(kind, at_a_time=32)()

    def ask(self, kind: str, *, at_a_time: int, customers: Sequence[str] | int = (), items: int = 1) -> Run:
        """Return a run of such calls."""
        agent = self._ours if kind not in OTHERS else self._others
        order: dict[str, Any] = {
            "kind": kind,
            "customers": customers or self.customers,
            "at_a_time": at_a_time,
            "seconds": self._stage.seconds,
            "items": items,
            "watch": {"caller": agent.pid, "valkey": self._stage.valkey_pid},
        }
        if kind in OTHERS:
            order["commands"] = self._stage.commands_file(self.customers)
        return lambda: self._run(agent, order)

    @cached_property
    def _others(self) -> Agent:
        return self._stage.agent("bench.callers", *self._arguments)

    def _run(self, agent: Agent, order: dict[str, Any]) -> Sample:
        sample = msgspec.convert(agent.ask(order), Sample)
        self._stage.failed.update({f"{order['kind']}: {why}": times for why, times in sample.failed.items()})
        if self._forgets:
            self._stage.forget_journal(self._settings)
        return sample


def _single(callers: Callers, stage: Stage, at_a_time: int) -> list[Row]:
    kinds = ("meter", "engine track", "engine track again", "engine check", *OTHERS)
    found = in_turns({kind: callers.ask(kind, at_a_time=at_a_time) for kind in kinds}, stage.rounds)
    rows = []
    for kind in kinds:
        if kind == "redis-py":
            continue
        case, promised = (
            f"in-process {kind} x{at_a_time}",
            (kind, at_a_time) == ("engine track again", PROMISED_AT),
        )
        row = _between(case, found[kind], "redis-py, same script", found["redis-py"])
        rows += [
            row("CPU us", lambda one: one.us("caller"), at_most=CPU_AT_MOST if promised else None),
            row("Valkey CPU us", lambda one: one.us("valkey")),
            row("per s", lambda one: one.per_s),
            row("p50 ms", lambda one: one.ms("p50")),
            row("p99 ms", lambda one: one.ms("p99")),
        ]
    return rows


def _batch(callers: Callers, stage: Stage, items: int) -> list[Row]:
    runs = {
        "batch": callers.ask("batch", at_a_time=BATCH_CALLERS, items=items),
        "single": callers.ask("meter", at_a_time=BATCH_CALLERS * items),
    }
    found = in_turns(runs, stage.rounds)
    row = _between(f"in-process batch of {items}", found["batch"], "as many single calls", found["single"])
    return [
        row("per s", lambda one: one.per_s),
        row("CPU us", lambda one: one.us("caller")),
        row("Valkey CPU us", lambda one: one.us("valkey")),
    ]


def _hot(callers: Callers, stage: Stage) -> list[Row]:
    """One customer: what merging of its calls saves Valkey, beside one script for each call in one write."""
    name = callers.customers[0]
    evalsha = stage.payloads(stage.packed(stage.raw, "track", [name]))

    def raw() -> Sample:
        sample = stage.ask_valkey(evalsha, connections=1, depth=HOT_AT_A_TIME)
        stage.forget_journal(stage.raw)
        return sample

    kinds = ("meter", "engine track")
    runs = {kind: callers.ask(kind, at_a_time=HOT_AT_A_TIME, customers=[name]) for kind in kinds}
    found = in_turns({**runs, "raw": raw}, stage.rounds)
    rows = []
    for kind in kinds:
        row = _between(
            f"in-process {kind} x{HOT_AT_A_TIME}, one customer", found[kind], "an EVALSHA each", found["raw"]
        )
        must = HOT_AT_MOST if kind == "engine track" else None
        rows += [
            row("Valkey CPU us", lambda one: one.us("valkey"), at_most=must),
            row("per s", lambda one: one.per_s),
        ]
    return rows


def _between(case: str, ours: list[Sample], beside: str, theirs: list[Sample]) -> Callable[..., Row]:
    def row(figure: str, of: Callable[[Sample], float], **must: float | None) -> Row:
        return Row(
            case=case,
            figure=figure,
            beside=beside,
            ours=[of(sample) for sample in ours],
            theirs=[of(sample) for sample in theirs],
            **must,
        )

    return row
