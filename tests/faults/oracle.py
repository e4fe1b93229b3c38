"""What callers know about their calls, compared with what the books say in the end.

Calls whose names are the same up to a `#` had the same body: the books cannot tell them apart, and count them together.

Units are tenths of a credit: one premium message of the tutorial's catalog.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

Span = tuple[float, float]


class Fate(Enum):
    """What a caller knows about a call."""

    UNDECIDED = "undecided"  # or without an answer
    ACKNOWLEDGED = "acknowledged"
    KEPT = "kept"  # acknowledged, to take effect later, whatever the balance is then
    REFUSED = "refused"


@dataclass
class Call:
    """One call that takes `units`, or gives back those below zero. `at` is when its fate was known."""

    customer_id: str
    units: int
    fate: Fate = Fate.UNDECIDED
    at: float = 0.0


@dataclass
class Tally:
    """All that the callers remember. `settled` are units of holds that were settled, by customer."""

    granted: dict[str, int] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    settled: Counter[str] = field(default_factory=Counter)
    wrong_answers: list[str] = field(default_factory=list)

    def acknowledged(self, but: Span | None = None) -> Counter[str]:
        """Return how often each must be in the books, but for what was acknowledged in a span of time."""
        begin, end = but or (0.0, 0.0)
        return self.having(_SURE, lambda call: not begin <= call.at < end)

    def having(self, fates: Collection[Fate], but: Callable[[Call], bool] = lambda _: True) -> Counter[str]:
        """Return how many calls of each name had one of these fates."""
        return Counter(_shown(name) for name, call in self.calls.items() if call.fate in fates and but(call))


@dataclass(frozen=True)
class Books:
    """What is in SQL: how often each call, and what of each customer remains in Redis."""

    taken: Counter[str]
    remaining: Mapping[str, int]


@dataclass(frozen=True)
class Findings:
    """What is wrong: each is a list of names, empty if all is well. `gone` is what the fault may lose."""

    lost: list[str]
    gone: list[str]
    doubled: list[str]
    refused_but_taken: list[str]
    unknown: list[str]
    wrong_balances: list[str]
    overspent: list[str]
    wrong_answers: list[str]

    @property
    def are_none(self) -> bool:
        return not any(found for name, found in vars(self).items() if name != "gone")


def judge(tally: Tally, books: Books, *, may_lose: Span | None = None) -> Findings:
    """Compare. `may_lose`: what was acknowledged in that time may be missing, of a Redis that lost its data."""
    missing = _more(tally.acknowledged(), books.taken)
    lost = _more(tally.acknowledged(may_lose), books.taken)
    may_be = tally.having({*_SURE, Fate.UNDECIDED})
    calls = tally.having(frozenset(Fate))
    return Findings(
        lost=sorted(lost),
        gone=sorted(missing - lost),
        doubled=sorted(_more(books.taken, calls) & calls.keys()),
        refused_but_taken=sorted(
            name for name, times in books.taken.items() if may_be[name] < times <= calls[name]
        ),
        unknown=sorted(books.taken.keys() - calls.keys()),
        wrong_balances=_wrong_balances(tally, books),
        overspent=_overspent(tally, books),
        wrong_answers=tally.wrong_answers,
    )


def _wrong_balances(tally: Tally, books: Books) -> list[str]:
    used = Counter(tally.settled)
    calls = {_shown(name): call for name, call in tally.calls.items()}
    for name, times in books.taken.items():
        if call := calls.get(name):
            used[call.customer_id] += call.units * times
    return [
        f"{customer_id}: {books.remaining[customer_id]} remain, {granted} - {used[customer_id]} are expected"
        for customer_id, granted in tally.granted.items()
        if books.remaining[customer_id] != granted - used[customer_id]
    ]


def _overspent(tally: Tally, books: Books) -> list[str]:
    """Below zero is only what was kept during an outage, or may have been: it had happened already."""
    owed: Counter[str] = Counter()
    for name, call in tally.calls.items():
        may_owe = call.fate in (Fate.KEPT, Fate.UNDECIDED) and not name.startswith(CHECK)
        if may_owe and books.taken[_shown(name)]:
            owed[call.customer_id] += call.units
    return [
        f"{customer_id}: {remaining}"
        for customer_id, remaining in books.remaining.items()
        if remaining < -owed[customer_id]
    ]


def _more(some: Counter[str], others: Counter[str]) -> set[str]:
    """Return what there is more of in the first."""
    return {name for name, times in some.items() if times > others[name]}


def _shown(name: str) -> str:
    """Return the name that the books have."""
    return name.partition("#")[0]


_SURE = (Fate.ACKNOWLEDGED, Fate.KEPT)
CHECK = "check-"
"""How the names of calls begin that are never kept for later: an undecided check is not allowed."""
