"""What one run of a load measured, and how figures are made of several: medians of rounds, ratios within a round."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from bench.cpu import Spent

PERCENTILES = (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One run: good answers, seconds, latencies in ms by percentile, CPU by name of a tree, what failed how often."""

    answers: int
    seconds: float
    latency_ms: Mapping[str, float] = {}
    spent: Mapping[str, Spent] = {}
    failed: Mapping[str, int] = {}

    @property
    def per_s(self) -> float:
        return self.answers / self.seconds

    def ms(self, percentile: str) -> float:
        """Return a latency; without a single answer it is endless."""
        return self.latency_ms.get(percentile, float("inf"))

    def us(self, name: str, part: str = "all_ns") -> float:
        """Return microseconds of CPU for each answer."""
        ns: int = getattr(self.spent[name], part)
        return ns / max(self.answers, 1) / 1000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure beside another of the same rounds. `at_most` and `at_least` say what the ratio must be."""

    case: str
    figure: str
    beside: str
    ours: Sequence[float]
    theirs: Sequence[float]
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratios(self) -> list[float]:
        return [
            our / their if their else float("inf") for our, their in zip(self.ours, self.theirs, strict=True)
        ]


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """Return the latencies of a run in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {name: ordered[round(part * last)] * 1000 for name, part in PERCENTILES}


Runs = Mapping[str, Callable[[], Sample]]


def in_turns(runs: Runs, rounds: int) -> dict[str, list[Sample]]:
    """Run each, then each again: what else the machine does meets all. Every second round goes backwards."""
    found: dict[str, list[Sample]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in sorted(runs, key=list(runs).index, reverse=number % 2 == 1):
            found[name].append(runs[name]())
    return found
