"""The table of mutants goes with the code; the mutants themselves are tried by `make mutants`."""

import pytest

from tests.mutants.run import ROOT
from tests.mutants.table import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", [pytest.param(mutant, id=mutant.wrong) for mutant in MUTANTS])
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    """Code that is rewritten takes its mutant along: one whose text is gone would never be tried again."""
    assert (ROOT / mutant.file).read_text("utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    for argument in mutant.tests:
        assert not argument.startswith("tests/") or (ROOT / argument).is_file()
