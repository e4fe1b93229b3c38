"""The flusher: how fast the journal goes to SQLite, what that does to tracks, and what a sync of each write costs."""

import time
from collections.abc import Callable

from bench import data
from bench.cases.inprocess import Callers
from bench.samples import Row, Sample, in_turns
from bench.stage import HttpServer, Stage
from creditgate.balances.keys import Keys

CONNECTIONS = 32
BACKLOG, HUGE_BACKLOG = 10_000, 1_000_000
HUGE_ROUNDS = 3
DRAIN_STARTS_S = 10.0
HELD_MS = 600_000
P999_MS_MAX = 50.0  # of a track while a huge backlog goes to SQL, in the best of three


class _Round:
    """One round: a backlog is made while nobody flushes, then tracks are timed before and while it is flushed."""

    def __init__(self, stage: Stage, server: HttpServer) -> None:
        self._stage, self._server = stage, server
        self._settings = stage.settings_of(server)
        keys = Keys(data.PARTITIONS, self._settings.prefix)
        self._lease, self._streams = keys.lease("flush"), data.journals(keys)
        self._callers = Callers(stage, self._settings, forgets=False)
        self._payloads = stage.http(server, "track", stage.bodies("track"))

    def measure(self, backlog: int) -> tuple[Sample, Sample, float]:
        """Return tracks without and with flushing, and entries a second that went to SQL without tracks."""
        self._stage.redis.set(self._lease, "bench", px=HELD_MS)  # the sidecar's flusher waits for its turn
        quiet = self._track()
        while self._entries() < backlog:
            self._callers.ask("engine track", at_a_time=64)()
        self._stage.redis.delete(self._lease)
        self._wait_for_flusher(self._entries())
        busy = self._track()
        began, entries = time.monotonic(), self._entries()
        self._stage.drain(self._settings)
        return quiet, busy, entries / (time.monotonic() - began)

    def _track(self) -> Sample:
        return self._stage.ask_http(self._server, self._payloads, connections=CONNECTIONS, own_client=True)

    def _entries(self) -> int:
        return sum(self._stage.redis.xlen(stream) for stream in self._streams)

    def _wait_for_flusher(self, entries: int) -> None:
        deadline = time.monotonic() + DRAIN_STARTS_S
        while self._entries() >= entries and time.monotonic() < deadline:
            time.sleep(0.01)


def run(stage: Stage) -> list[Row]:
    """Measure flushing, then the setting of Valkey's append-only file."""
    return [*_flushing(stage), *_fsync(stage)]


def _flushing(stage: Stage) -> list[Row]:
    backlog = 500 if stage.quick else HUGE_BACKLOG if stage.full else BACKLOG
    rounds = min(stage.rounds, HUGE_ROUNDS) if stage.full else stage.rounds
    one = _Round(stage, stage.sidecar)
    found = [one.measure(backlog) for _ in range(rounds)]
    case = f"flushing {backlog} entries"
    rows = [
        Row(
            case=case,
            figure=f"track {percentile} ms",
            beside="not flushing",
            ours=[busy.ms(percentile) for _, busy, _ in found],
            theirs=[quiet.ms(percentile) for quiet, _, _ in found],
        )
        for percentile in ("p50", "p99", "p999")
    ]
    best = min(busy.ms("p999") for _, busy, _ in found)
    rows.append(
        Row(
            case=case,
            figure="track p999 ms, best",
            beside="50 ms",
            ours=[best],
            theirs=[P999_MS_MAX],
            at_most=1.0 if stage.full else None,
        )
    )
    rows.append(
        Row(
            case=case,
            figure="entries per s to SQLite",
            beside="tracks per s",
            ours=[per_s for _, _, per_s in found],
            theirs=[quiet.per_s for quiet, _, _ in found],
        )
    )
    return rows


def _fsync(stage: Stage) -> list[Row]:
    server = stage.sidecar
    payloads = stage.http(server, "track", stage.bodies("track"))

    def ask(setting: str) -> Callable[[], Sample]:
        def run() -> Sample:
            stage.redis.config_set("appendfsync", setting)
            sample = stage.ask_http(server, payloads, connections=CONNECTIONS)
            return stage.with_flush(server, sample)

        return run

    found = in_turns({setting: ask(setting) for setting in ("always", "everysec")}, stage.rounds)
    stage.redis.config_set("appendfsync", "everysec")
    figures: dict[str, Callable[[Sample], float]] = {
        "per s": lambda one: one.per_s,
        "p50 ms": lambda one: one.ms("p50"),
        "p99 ms": lambda one: one.ms("p99"),
        "Valkey CPU us": lambda one: one.us("valkey"),
    }
    return [
        Row(
            case=f"HTTP track c={CONNECTIONS}, appendfsync always",
            figure=figure,
            beside="everysec",
            ours=[of(sample) for sample in found["always"]],
            theirs=[of(sample) for sample in found["everysec"]],
        )
        for figure, of in figures.items()
    ]
