"""Latency at fixed rates up to saturation, each request timed from when it was due; drawn as a picture."""

import statistics
from collections.abc import Callable

from bench.chart import Point, latency_svg
from bench.results import RESULTS
from bench.samples import Row, Sample, in_turns
from bench.stage import Stage

CONNECTIONS = 64
PARTS = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)  # of the rate at saturation
QUICK_PARTS = (0.1, 0.5)
P99_AT_MOST = 5.0  # times p50, at half of it
PICTURE = "latency.svg"


def run(stage: Stage) -> list[Row]:
    """Find the rate at which a closed loop saturates the machine, then ask at parts of it."""
    server = stage.sidecar
    payloads = stage.http(server, "track", stage.bodies("track"))

    def ask(rate: float | None) -> Callable[[], Sample]:
        def run() -> Sample:
            sample = stage.ask_http(server, payloads, connections=CONNECTIONS, own_client=True, rate=rate)
            return stage.with_flush(server, sample)

        return run

    closed = in_turns({"warm": ask(None), "saturation": ask(None)}, stage.rounds)["saturation"]
    saturation = statistics.median(sample.per_s for sample in closed)
    parts = QUICK_PARTS if stage.quick else PARTS
    found = in_turns({str(part): ask(part * saturation) for part in parts}, stage.rounds)
    points = [Point(part * saturation, _medians(found[str(part)])) for part in parts]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / PICTURE).write_text(latency_svg(points, saturation))
    return [row for part in parts for row in _rows(part, found[str(part)])]


def _medians(samples: list[Sample]) -> dict[str, float]:
    return {name: statistics.median(sample.ms(name) for sample in samples) for name in ("p50", "p99", "p999")}


def _rows(part: float, samples: list[Sample]) -> list[Row]:
    case = f"HTTP track at {part:.0%} of saturation"
    return [
        Row(
            case=case,
            figure=f"{percentile} ms",
            beside="p50 ms",
            ours=[sample.ms(percentile) for sample in samples],
            theirs=[sample.ms("p50") for sample in samples],
            at_most=P99_AT_MOST if (part, percentile) == (0.5, "p99") else None,
        )
        for percentile in ("p99", "p999")
    ]
