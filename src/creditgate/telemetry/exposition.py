"""The numbers in Prometheus's words: every name, its help and its labels. docs/operations.md has the same table."""

import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    Sample,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from creditgate import __version__
from creditgate.core.amounts import NANOS
from creditgate.telemetry.metrics import BOUNDS_S, Histogram, Metrics

Series = tuple[str, str, tuple[tuple[str, str], ...]]  # the family, the name of the sample, its labels
Counted = dict[Series, float]


class Readings(NamedTuple):
    """What is not counted but read when somebody asks. What waits in the streams is unknown while Redis is away."""

    parts: Mapping[str, str]  # by name: `ok`, or what it lacks
    catalog_version: int
    waiting: "Waiting | None"
    deliveries: "Deliveries | None" = None
    spool_bytes: int = 0


class Waiting(NamedTuple):
    """The entries of the journal that are in Redis and not yet in SQL, and the batches that were not worked off."""

    entries: int
    oldest_s: float
    batches: int


class Deliveries(Protocol):
    """The deliveries to webhooks that SQL holds: those to be made, and those that were given up."""

    @property
    def waiting(self) -> int: ...
    @property
    def dead(self) -> int: ...


def exposed(
    metrics: Metrics, readings: Readings, accept: str, others: Iterable[Counted] = ()
) -> tuple[bytes, str]:
    """Return the page and its content type: Prometheus's text, or OpenMetrics where `accept` asks for it.

    `others` is what other processes have counted, which is added to our own numbers.
    """
    registry = CollectorRegistry()
    registry.register(_Numbers(summed([counted(metrics), *others]), readings))
    encode, content_type = _encoder(accept)
    return encode(registry), content_type


def counted(metrics: Metrics) -> Counted:
    """Return every number that only grows."""
    return {
        (family.name, sample.name, tuple(sample.labels.items())): sample.value
        for family in _counters(metrics)
        for sample in family.samples
    }


def summed(parts: Iterable[Counted]) -> Counted:
    """Return the sum of each series. The cumulative buckets of a histogram can be added, since the bounds are fixed."""
    sums: Counted = {}
    for part in parts:
        for series, value in part.items():
            sums[series] = sums.get(series, 0.0) + value
    return sums


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # it cannot compare a version that is none, such as `version=foo`
        return choose_encoder("")


class _Numbers(Collector):
    def __init__(self, counted: Counted, readings: Readings) -> None:
        self._counted = counted
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for (family, name, labels), value in self._counted.items():
            samples[family].append(Sample(name, dict(labels), value))
        for named in _counters(Metrics()):
            named.samples = samples[named.name]
            yield named
        yield from _gauges(self._readings)


def _counters(metrics: Metrics) -> Iterator[Metric]:
    yield from _decisions(metrics)
    yield from _redis(metrics)
    yield from _journal(metrics)
    yield from _webhooks(metrics)


def _decisions(metrics: Metrics) -> Iterator[Metric]:
    yield _counter(
        "creditgate_decisions",
        "Answers to check, track and hold; outcome is allowed, denied, undecided or replayed.",
        ("verb", "feature", "outcome"),
        metrics.decided_by_outcome().items(),
    )
    yield _histogram(
        "creditgate_decision_duration_seconds",
        "From a check or track that was understood to its answer.",
        "verb",
        metrics.decision_seconds(),
    )
    for name, text, nanos in (
        ("creditgate_taken", "Taken from balances of a feature, in its own unit.", metrics.taken_nanos),
        (
            "creditgate_given_back",
            "Given back by negative values and by holds, likewise.",
            metrics.given_back_nanos,
        ),
    ):
        amounts = (((feature,), value / NANOS) for feature, value in nanos.items())
        yield _counter(name, text, ("feature",), amounts)
    yield _counter(
        "creditgate_holds_settled",
        "Holds that ended; outcome is confirmed, released or expired.",
        ("outcome",),
        (((outcome,), count) for outcome, count in metrics.holds_settled.items()),
    )
    yield CounterMetricFamily(
        "creditgate_fastlane_requests",
        "Requests for check, track and batches of them that were answered without ASGI.",
        value=metrics.fast_requests,
    )


def _redis(metrics: Metrics) -> Iterator[Metric]:
    yield _histogram(
        "creditgate_redis_duration_seconds",
        "Calls to Redis by script or operation.",
        "operation",
        metrics.redis_seconds(),
    )
    yield _counter(
        "creditgate_redis_errors",
        "Calls to Redis that failed; CancelledError is one that we stopped waiting for.",
        ("operation", "kind"),
        metrics.redis_errors.items(),
    )


def _journal(metrics: Metrics) -> Iterator[Metric]:
    for name, text, value in (
        ("creditgate_flush_entries", "Entries moved to SQL by this sidecar.", metrics.entries_flushed),
        ("creditgate_flush_rows", "Rows that they became.", metrics.rows_flushed),
        (
            "creditgate_flush_failures",
            "Batches that SQL or Redis refused; each is tried again.",
            metrics.flush_failures,
        ),
        ("creditgate_poison", "Messages set aside because they cannot be stored.", metrics.poison),
        ("creditgate_forward_steps", "Customers stepped over what fell due.", metrics.forward_steps),
        ("creditgate_sweeps", "Looks at the due indexes of all partitions.", metrics.sweeps),
        ("creditgate_batches_closed", "Batches of usage worked off by this sidecar.", metrics.batches_closed),
        ("creditgate_spooled", "Uses that could not be decided and were kept on disk.", metrics.spooled),
        ("creditgate_spool_posted", "Of those, the ones that have taken effect.", metrics.spool_posted),
        (
            "creditgate_spool_set_aside",
            "Of those, the ones that can never take effect; each is in the file aside.",
            metrics.spool_set_aside,
        ),
    ):
        yield CounterMetricFamily(name, text, value=value)
    yield _counter(
        "creditgate_verify_runs",
        "Runs of verify by the sidecar itself; outcome is holds, differs or failed (it could not be finished).",
        ("outcome",),
        (((outcome,), count) for outcome, count in metrics.verify_runs.items()),
    )
    yield CounterMetricFamily(
        "creditgate_verify_differences",
        "What did not agree in them, and is in the log: must stay 0.",
        value=metrics.verify_differences,
    )
    yield _counter(
        "creditgate_batch_items",
        "Their items; outcome is applied or failed.",
        ("outcome",),
        (((outcome,), count) for outcome, count in metrics.batch_items.items()),
    )


def _webhooks(metrics: Metrics) -> Iterator[Metric]:
    yield _counter(
        "creditgate_webhook_attempts",
        "Attempts to deliver to a webhook; outcome is delivered, failed (tried again later) or dead (given up).",
        ("outcome",),
        (((outcome,), count) for outcome, count in metrics.webhook_attempts.items()),
    )


def _gauges(readings: Readings) -> Iterator[Metric]:
    waiting, deliveries = readings.waiting, readings.deliveries
    if waiting is not None:
        yield GaugeMetricFamily(
            "creditgate_flush_lag_entries",
            "Entries of the journal in Redis that SQL does not have yet: the length of the streams.",
            value=waiting.entries,
        )
        yield GaugeMetricFamily(
            "creditgate_flush_lag_seconds",
            "Age of the oldest of them, 0 without any.",
            value=waiting.oldest_s,
        )
        yield GaugeMetricFamily(
            "creditgate_batches_open", "Batches of usage that were not worked off yet.", value=waiting.batches
        )
    if deliveries is not None:
        yield GaugeMetricFamily(
            "creditgate_webhook_waiting",
            "Deliveries to webhooks that are to be made.",
            value=deliveries.waiting,
        )
        yield GaugeMetricFamily(
            "creditgate_webhook_dead_letters",
            "Deliveries to webhooks that were given up in the last 30 days.",
            value=deliveries.dead,
        )
    yield GaugeMetricFamily(
        "creditgate_spool_bytes",
        "What the spool takes of the disk: usage to be posted, and what was set aside.",
        value=readings.spool_bytes,
    )
    yield GaugeMetricFamily(
        "creditgate_catalog_version",
        "The catalog that calls are answered with.",
        value=readings.catalog_version,
    )
    up = GaugeMetricFamily("creditgate_up", "1 while a part answers.", labels=["part"])
    for part, state in readings.parts.items():
        up.add_metric([part], state == "ok")
    yield up
    build = GaugeMetricFamily("creditgate_build_info", "Always 1.", labels=["version", "python"])
    build.add_metric([__version__, platform.python_version()], 1)
    yield build


def _counter(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for names, value in values:
        family.add_metric(names, value)
    return family


def _histogram(name: str, text: str, label: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, histogram in histograms.items():
        family.add_metric([value], _cumulative(histogram), histogram.sum_s)
    return family


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
