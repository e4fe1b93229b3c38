"""What this process counts: plain integers, added to where things happen. `exposition.py` gives them their names.

Nothing here names a customer. A feature is named once something was decided about it, which only a feature of the
catalog can be; until then it is `other`.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from time import perf_counter
from types import TracebackType

from creditgate.core.customers import Terms
from creditgate.core.decisions import Decision, Moved
from creditgate.core.journal import Entry
from creditgate.errors import Conflict, InvalidInputs, InvalidRequest, KeyReused, NotFound

BOUNDS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
OTHER = "other"

_CALLERS_MISTAKES = (InvalidInputs, InvalidRequest, NotFound, Conflict, KeyReused)


class Histogram:
    """How often something took how long; `counts` has one place more than BOUNDS_S, for what took longer than all."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def __add__(self, other: "Histogram") -> "Histogram":
        """Return both as one."""
        both = Histogram()
        both.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        both.sum_s = self.sum_s + other.sum_s
        return both


class Metrics:
    """Everything that is counted, from the start of the process."""

    def __init__(self) -> None:
        self.decisions: Counter[tuple[str, str, str]] = Counter()  # by verb, feature and outcome
        self.decision_s: defaultdict[str, Histogram] = defaultdict(Histogram)  # by verb
        # By verb, feature, outcome and script: decisions that were one call of the script, and count as both.
        self.at_once_s: defaultdict[tuple[str, str, str, str], Histogram] = defaultdict(Histogram)
        self.taken_nanos: Counter[str] = Counter()  # by the feature whose balance it was, in its own unit
        self.given_back_nanos: Counter[str] = Counter()
        self.holds_settled: Counter[str] = Counter()  # by how they ended
        self.redis_s: defaultdict[str, Histogram] = defaultdict(Histogram)  # by operation
        self.redis_errors: Counter[tuple[str, str]] = Counter()  # by operation and kind of error
        self.entries_flushed = 0
        self.rows_flushed = 0
        self.poison = 0
        self.flush_failures = 0
        self.forward_steps = 0
        self.sweeps = 0
        self.webhook_attempts: Counter[str] = Counter()  # by outcome
        self.batches_closed = 0
        self.batch_items: Counter[str] = Counter()  # by outcome: applied or failed
        self.verify_runs: Counter[str] = Counter()  # by outcome: holds, differs or failed
        self.verify_differences = 0
        self.spooled = 0
        self.spool_posted = 0
        self.spool_set_aside = 0
        self.fast_requests = 0  # answered in the fast lane
        self._features: set[str] = set()

    def decided(self, verb: str, decision: Decision, seconds: float) -> None:
        """Count a decision for each feature that was used, what it moved, and how long it took."""
        self.decision_s[verb].add(seconds)
        for feature_id in (decision.feature_id, *decision.also):
            self._features.add(feature_id)
            self.decisions[verb, feature_id, _outcome(decision)] += 1
        if decision.moved and not decision.is_replay:
            self._count_moved(decision.terms, decision.moved)

    def decided_at_once(self, verb: str, decision: Decision, seconds: float, script: str) -> Histogram:
        """Count a decision on one feature that was one call of this script; returns what counts those like it."""
        took = self.at_once_s[verb, decision.feature_id, _outcome(decision), script]
        took.add(seconds)
        self._features.add(decision.feature_id)
        if decision.moved:
            self._count_moved(decision.terms, decision.moved)
        return took

    def decided_again(
        self, took: Histogram, seconds: float, gave: Sequence[str], deltas_nanos: Sequence[int]
    ) -> None:
        """Count one more decision with those it is like: features whose rows gave (negative) or got so much."""
        took.add(seconds)
        for feature_id, delta_nanos in zip(gave, deltas_nanos):  # noqa: B905  # `strict` takes as long as all of it
            if delta_nanos < 0:
                self.taken_nanos[feature_id] -= delta_nanos
            else:
                self.given_back_nanos[feature_id] += delta_nanos

    def not_decided(self, verb: str, feature_id: str | None, seconds: float, error: Exception) -> None:
        """Count what was not decided for this error. What the caller got wrong is no decision, and not counted."""
        if not isinstance(error, _CALLERS_MISTAKES):
            self.decisions[verb, feature_id if feature_id in self._features else OTHER, "undecided"] += 1
            self.decision_s[verb].add(seconds)

    def decided_by_outcome(self) -> Mapping[tuple[str, str, str], int]:
        """Return how many were decided, by verb, feature and outcome."""
        counts = Counter(self.decisions)
        for (verb, feature_id, outcome, _), took in self.at_once_s.items():
            counts[verb, feature_id, outcome] += took.count
        return counts

    def decision_seconds(self) -> Mapping[str, Histogram]:
        """Return how long decisions took, by verb."""
        return _together(self.decision_s, [(verb, took) for (verb, *_), took in self.at_once_s.items()])

    def redis_seconds(self) -> Mapping[str, Histogram]:
        """Return how long calls to Redis took, by operation."""
        return _together(self.redis_s, [(script, took) for (*_, script), took in self.at_once_s.items()])

    def decided_in_all(self) -> int:
        """Return how many answers were a decision."""
        return sum(
            count for (_, _, outcome), count in self.decided_by_outcome().items() if outcome != "undecided"
        )

    def redis_failed(self, operation: str, seconds: float, error: BaseException) -> None:
        """Count a call to Redis that failed, by the class of its error."""
        self.redis_s[operation].add(seconds)
        self.redis_errors[operation, type(error).__name__] += 1

    def redis_call(self, operation: str) -> "RedisCall":
        """Time one call to Redis, from `with` to its end; an error is counted by its class."""
        return RedisCall(self, operation)

    def flushed(self, entries: Sequence[Entry], poison: Sized) -> None:
        """Count what one batch brought to SQL."""
        self.entries_flushed += len(entries)
        self.rows_flushed += sum(len(entry.items) for entry in entries)
        self.poison += len(poison)

    def settled(self, outcome: str, count: int, terms: Terms, moved: Sequence[Moved]) -> None:
        """Count holds that have ended, and what that moved."""
        self.holds_settled[outcome] += count
        self._count_moved(terms, moved)

    def _count_moved(self, terms: Terms, moved: Sequence[Moved]) -> None:
        for part in moved:
            counter = self.taken_nanos if part.delta_nanos < 0 else self.given_back_nanos
            row = terms.by_id.get(part.row_id)
            counter[row.feature_id if row else OTHER] += abs(part.delta_nanos)


def _outcome(decision: Decision) -> str:
    return "replayed" if decision.is_replay else "allowed" if decision.allowed else "denied"


def _together(
    some: Mapping[str, Histogram], more: Iterable[tuple[str, Histogram]]
) -> Mapping[str, Histogram]:
    together = dict(some)
    for name, took in more:
        together[name] = together.get(name, Histogram()) + took
    return together


class RedisCall:
    """A `with` block around one call."""

    __slots__ = ("_began", "_metrics", "_operation")

    def __init__(self, metrics: Metrics, operation: str) -> None:
        self._metrics = metrics
        self._operation = operation
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._began
        if error is None:
            self._metrics.redis_s[self._operation].add(seconds)
        else:
            self._metrics.redis_failed(self._operation, seconds, error)
