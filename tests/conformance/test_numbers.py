"""The list of public cases and the tables are the same list."""

import re
from collections import Counter
from pathlib import Path

from tests.conformance.cases.numbers import ELSEWHERE, NOT_BUILT, all_numbers
from tests.conformance.metering import CASES

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"
PUBLIC_NUMBER = re.compile(r"\b[A-Z]{2}-\d+b?")


def test_every_public_case_is_a_row_or_says_why_not() -> None:
    """A public case that nobody plays, and of which nobody says why, is a promise that nobody keeps."""
    rows = {case.number for case in CASES if PUBLIC_NUMBER.fullmatch(case.number)}
    assert rows | NOT_BUILT.keys() | ELSEWHERE.keys() == all_numbers()
    assert not rows & (NOT_BUILT.keys() | ELSEWHERE.keys()), "a row is played, so it is built"


def test_every_row_is_told_apart() -> None:
    """Two rows of one name would be one in every report."""
    names = Counter((case.number, case.promise) for case in CASES)
    assert [name for name, count in names.items() if count > 1] == []


def test_deviations_name_public_cases() -> None:
    """A deviation that is documented under a number that nobody knows cannot be found."""
    named = set(PUBLIC_NUMBER.findall(DOCUMENT.read_text()))
    assert named
    assert named <= all_numbers()


def test_what_is_elsewhere_is_documented_as_different() -> None:
    """Where Autumn has a part that this sidecar has not, the document says so."""
    document = DOCUMENT.read_text()
    same_here = {"CC-7", "CK-11"}
    assert [number for number in ELSEWHERE if number not in document and number not in same_here] == []
