"""The oracle of the fault suite finds what is wrong: with books that were changed, and with a network that doubles."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.catalog import proxied
from tests.faults.oracle import Books, Call, Fate, Tally, judge
from tests.faults.proxy import Mode
from tests.faults.trial import Fault, try_faults


def history() -> tuple[Tally, Books]:
    """A load in which all went well: 3 + 2 of 10 units were taken and 1 given back; 1 kept, taken later by bob.

    Cid took the same unit three times, once of it undecided, and was refused it once.
    """
    tally = Tally(granted={"ann": 10, "bob": 0, "cid": 3}, settled=Counter(ann=2))
    tally.calls = {
        "track-1": Call("ann", 3, Fate.ACKNOWLEDGED, at=1.0),
        "check-2": Call("ann", 2, Fate.UNDECIDED),
        "track-3": Call("ann", -1, Fate.ACKNOWLEDGED, at=9.0),
        "track-4": Call("ann", 9, Fate.REFUSED),
        "track-5": Call("bob", 1, Fate.KEPT, at=9.0),
        "track-6": Call("bob", 1, Fate.UNDECIDED),
        "again#1": Call("cid", 1, Fate.ACKNOWLEDGED, at=1.0),
        "again#2": Call("cid", 1, Fate.ACKNOWLEDGED, at=9.0),
        "again#3": Call("cid", 1, Fate.UNDECIDED),
        "again#4": Call("cid", 1, Fate.REFUSED),
    }
    taken = Counter({"track-1": 1, "check-2": 1, "track-3": 1, "track-5": 1, "again": 3})
    return tally, Books(taken, {"ann": 4, "bob": -1, "cid": 0})


def test_what_is_right_is_not_found_fault_with() -> None:
    """Undecided calls may have taken effect or not; what was kept may be owed."""
    assert judge(*history()).are_none


def lose(tally: Tally, books: Books) -> None:
    del books.taken["track-1"]


def lose_what_was_kept(tally: Tally, books: Books) -> None:
    del books.taken["track-5"]


def lose_one_of_the_same(tally: Tally, books: Books) -> None:
    books.taken["again"] = 1


def double_one_of_the_same(tally: Tally, books: Books) -> None:
    books.taken["again"] = 5


def take_one_that_was_refused(tally: Tally, books: Books) -> None:
    books.taken["again"] = 4


def double(tally: Tally, books: Books) -> None:
    books.taken["track-3"] += 1


def double_what_is_undecided(tally: Tally, books: Books) -> None:
    books.taken["check-2"] += 1


def take_what_was_refused(tally: Tally, books: Books) -> None:
    books.taken["track-4"] += 1


def take_what_nobody_sent(tally: Tally, books: Books) -> None:
    books.taken["track-7"] += 1


def take_twice_and_tell_once(tally: Tally, books: Books) -> None:
    tally.granted["ann"] += 3


def settle_without_telling(tally: Tally, books: Books) -> None:
    tally.settled["ann"] -= 1


def overspend(tally: Tally, books: Books) -> None:
    tally.calls["track-5"].fate = Fate.ACKNOWLEDGED


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lose, "lost"),
        (lose_what_was_kept, "lost"),
        (lose_one_of_the_same, "lost"),
        (double_one_of_the_same, "doubled"),
        (take_one_that_was_refused, "refused_but_taken"),
        (double, "doubled"),
        (double_what_is_undecided, "doubled"),
        (take_what_was_refused, "refused_but_taken"),
        (take_what_nobody_sent, "unknown"),
        (take_twice_and_tell_once, "wrong_balances"),
        (settle_without_telling, "wrong_balances"),
        (overspend, "overspent"),
    ],
)
def test_what_is_wrong_is_found(wrong: Callable[[Tally, Books], None], found: str) -> None:
    """Each change of the books, or of what callers know, is named."""
    tally, books = history()
    wrong(tally, books)
    findings = judge(tally, books)
    assert getattr(findings, found), findings
    assert not findings.are_none


def test_only_the_last_seconds_may_be_lost() -> None:
    """Where a Redis lost its data, what was acknowledged long before must be there."""
    tally, books = history()
    lose(tally, books)
    tally.granted["ann"] -= 3
    assert judge(tally, books, may_lose=(5.0, 9.0)).lost == ["track-1"]
    assert judge(tally, books, may_lose=(0.5, 5.0)).gone == ["track-1"]
    assert judge(tally, books, may_lose=(0.5, 5.0)).are_none


@pytest.mark.slow
async def test_a_network_that_sends_twice_is_found() -> None:
    """The real thing, on a network as there is none: what it doubles is in the books, and the oracle sees it."""
    twice = Fault("sent twice", proxied(Mode.TWICE, seconds=0.5))
    outcome = await try_faults([twice], random.Random(7))
    assert outcome.findings is not None
    assert outcome.findings.doubled
