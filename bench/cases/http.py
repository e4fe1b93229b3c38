"""check and track over HTTP, beside what one would use instead, and beside what they stand on."""

from collections.abc import Callable, Mapping
from functools import partial
from operator import methodcaller

import msgspec

from bench import data
from bench.samples import Row, Sample, in_turns
from bench.stage import PLAIN, HttpServer, Stage

CONNECTIONS = (1, 32, 256)
PEERS = {"track": ("baseline", "limits_fixed", "slowapi_fixed", "noop"), "check": ("baseline", "noop")}
PIPELINED = 16  # commands that each raw connection sends at once
MUST_AT = 32  # connections for which ratios are promised
CPU_AT_MOST = {f"{PLAIN}baseline": 1 / 7, f"{PLAIN}limits_fixed": 1 / 8, f"{PLAIN}noop": 0.6}  # for a track
RATE_AT_LEAST = 0.5  # of the same script over as many raw connections

BATCH = 16  # calls in one of balances.batch
BATCH_AT_LEAST = 2.5  # times the calls a second of single ones

Samples = Mapping[str, list[Sample]]


def run(stage: Stage) -> list[Row]:
    """Measure each verb at each number of connections."""
    rows = []
    for verb in ("track", "check"):
        runs = _Runs(stage, verb)
        if not stage.quick:
            in_turns(runs.at(MUST_AT), 1)  # warms up
        for connections in CONNECTIONS[:1] if stage.quick else CONNECTIONS:
            found = in_turns(runs.at(connections), stage.rounds)
            rows += _rows(
                f"HTTP {verb} c={connections}", found, is_promised=(verb, connections) == ("track", MUST_AT)
            )
    return [*rows, *_batches(stage)]


def _batches(stage: Stage) -> list[Row]:
    """Tracks that come in batches, of many customers and of one each, beside tracks that come alone."""
    server, customers = stage.sidecar, data.customer_ids(stage.customers)
    chosen = {
        f"HTTP batch of {BATCH} tracks c={MUST_AT}": [
            customers[first : first + BATCH] for first in range(0, len(customers), BATCH)
        ],
        f"HTTP batch of {BATCH} tracks of one customer c={MUST_AT}": [[name] * BATCH for name in customers],
    }
    asked = {
        case: (stage.http(server, "batch", [data.batch_of("track", some) for some in ids]), BATCH)
        for case, ids in chosen.items()
    }
    asked["single"] = stage.http(server, "track", stage.bodies("track")), 1

    def run(payloads: str, calls: int) -> Sample:
        sample = stage.ask_http(server, payloads, connections=MUST_AT)
        sample = msgspec.structs.replace(sample, answers=sample.answers * calls)
        return stage.with_flush(server, sample)

    runs = {case: partial(run, *one) for case, one in asked.items()}
    in_turns(runs, 1)  # warms up
    found = in_turns(runs, stage.rounds)
    figures: list[tuple[str, Callable[[Sample], float], float | None]] = [
        ("calls per s", lambda one: one.per_s, BATCH_AT_LEAST),
        ("CPU us of a call", lambda one: one.us("server"), None),
        ("Valkey CPU us of a call", lambda one: one.us("valkey"), None),
    ]
    return [
        Row(
            case=case,
            figure=figure,
            beside="single calls",
            ours=[of(sample) for sample in found[case]],
            theirs=[of(sample) for sample in found["single"]],
            at_least=must,
        )
        for case in chosen
        for figure, of, must in figures
    ]


class _Runs:
    """What is asked of each server, made once."""

    def __init__(self, stage: Stage, verb: str) -> None:
        self._stage = stage
        plain = CPU_AT_MOST if verb == "track" and not stage.quick else ()
        names = [name for name in (*PEERS[verb], *plain) if stage.has(name)]
        bodies = stage.bodies(verb)
        servers = [stage.sidecar, *map(stage.peer, names)]
        self._asked = [(server, stage.http(server, verb, bodies)) for server in servers]
        self._raw = stage.payloads(stage.packed(stage.raw, verb))

    def at(self, connections: int) -> dict[str, Callable[[], Sample]]:
        """Return the runs with so many connections; beside plain peers only as many as ratios are promised for."""
        runs = {
            server.name: self._http(server, payloads, connections)
            for server, payloads in self._asked
            if connections == MUST_AT or server.name not in CPU_AT_MOST
        }
        runs["raw"] = self._valkey(connections, depth=1)
        runs["raw pipelined"] = self._valkey(connections, depth=PIPELINED)
        return runs

    def _http(self, server: HttpServer, payloads: str, connections: int) -> Callable[[], Sample]:
        def run() -> Sample:
            sample = self._stage.ask_http(server, payloads, connections=connections)
            return self._stage.with_flush(server, sample)

        return run

    def _valkey(self, connections: int, depth: int) -> Callable[[], Sample]:
        def run() -> Sample:
            sample = self._stage.ask_valkey(self._raw, connections=connections, depth=depth)
            self._stage.forget_journal(self._stage.raw)
            return sample

        return run


def _rows(case: str, found: Samples, *, is_promised: bool) -> list[Row]:
    rows = []
    ours = found["creditgate"]
    peers = [name for name in found if name != "creditgate" and not name.startswith("raw")]

    def row(figure: str, beside: str, of: Callable[[Sample], float], **must: float | None) -> None:
        rows.append(
            Row(
                case=case,
                figure=figure,
                beside=beside,
                ours=[of(sample) for sample in ours],
                theirs=[of(sample) for sample in found[beside]],
                **must,
            )
        )

    at_most = CPU_AT_MOST if is_promised else {}
    for name in peers:
        row("CPU us", name, lambda one: one.us("server"), at_most=at_most.get(name))
    for name in ("noop", *at_most):  # what answers, without what brings the history to SQL
        if name in found:
            row("CPU us, worker", name, lambda one: one.us("server", "worker_ns"), at_most=at_most.get(name))
    row("Valkey CPU us", "raw", lambda one: one.us("valkey"))
    row("Valkey CPU us", "raw pipelined", lambda one: one.us("valkey"))
    row("per s", "raw", lambda one: one.per_s, at_least=RATE_AT_LEAST if is_promised else None)
    row("per s", "raw pipelined", lambda one: one.per_s)
    for name in peers:
        row("per s", name, lambda one: one.per_s)
    for percentile in ("p50", "p99", "p999"):
        row(f"{percentile} ms", "baseline", methodcaller("ms", percentile))
    return rows
