"""This sidecar beside another one: itself without the fast lane, with other numbers of workers, or another checkout."""

import sys
from collections.abc import Callable
from pathlib import Path

from bench.samples import Row, Sample, in_turns
from bench.stage import CLI, HttpServer, Stage

CONNECTIONS = (1, 32)
WITHOUT_FAST_LANE = f"from creditgate import server; server.fast_lane = lambda *_: 'httptools'; {CLI}"


def lanes(stage: Stage) -> list[Row]:
    """Measure the fast lane beside Starlette."""
    plain = stage.start_sidecar("plain lane", stage.settings("plain"), program=WITHOUT_FAST_LANE)
    return _compared(stage, plain)


def workers(stage: Stage) -> list[Row]:
    """Measure one worker beside everything in one process, and beside two workers."""
    rows = []
    for number in (0, 2):
        name = f"{number} workers"
        other = stage.start_sidecar(name, stage.settings(f"w{number}"), arguments=("--workers", str(number)))
        rows += _compared(stage, other)
    return rows


def against(stage: Stage) -> list[Row]:
    """Measure this checkout beside the one that --against names."""
    if stage.other is None:
        sys.exit("bench: name the other checkout, --against DIR")
    other = stage.start_sidecar(str(stage.other), stage.settings("other"), source=Path(stage.other).resolve())
    return _compared(stage, other)


def _compared(stage: Stage, other: HttpServer) -> list[Row]:
    rows = []
    for verb in ("track", "check"):
        for connections in CONNECTIONS:
            runs = {server.name: _ask(stage, server, verb, connections) for server in (stage.sidecar, other)}
            in_turns(runs, 1)  # warms up
            found = in_turns(runs, stage.rounds)
            rows += _rows(
                f"HTTP {verb} c={connections}", found[stage.sidecar.name], other.name, found[other.name]
            )
    return rows


def _ask(stage: Stage, server: HttpServer, verb: str, connections: int) -> Callable[[], Sample]:
    payloads = stage.http(server, verb, stage.bodies(verb))
    return lambda: stage.with_flush(server, stage.ask_http(server, payloads, connections=connections))


def _rows(case: str, ours: list[Sample], name: str, theirs: list[Sample]) -> list[Row]:
    figures: dict[str, Callable[[Sample], float]] = {
        "CPU us": lambda one: one.us("server"),
        "CPU us, worker": lambda one: one.us("server", "worker_ns"),
        "Valkey CPU us": lambda one: one.us("valkey"),
        "per s": lambda one: one.per_s,
    }
    return [
        Row(
            case=case,
            figure=figure,
            beside=name,
            ours=[of(one) for one in ours],
            theirs=[of(one) for one in theirs],
        )
        for figure, of in figures.items()
    ]
