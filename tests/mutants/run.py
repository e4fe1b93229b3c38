"""Try every mutant of the table: `make mutants`, or `python -m tests.mutants.run WORD` for those whose row has it.

In a copy of the sources in a temporary directory, one at a time, with the tests that its row names. All is well when
those tests pass as things are, and fail with each mutant.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import copytree, ignore_patterns

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent.parent
COPIED = ("src", "lua", "tests")
TIME_MAX_S = 120.0  # of one row's tests; a mutant that makes them hang is caught
TESTS_FAILED = 1  # pytest's exit status; anything above says that there was nothing to run


def main(words: Sequence[str]) -> int:
    """Return 0 if every mutant whose row has one of the words was caught, all if there are none."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in str(mutant) for word in words)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copy = Path(directory)
        for name in COPIED:
            copytree(ROOT / name, copy / name, ignore=ignore_patterns("__pycache__", "node_modules"))
        (copy / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
        broken = [tests for tests in sorted({mutant.tests for mutant in chosen}) if _test(copy, tests) != 0]
        for tests in broken:
            print("fails without a mutant:", *tests)
        caught = sum([_is_caught(copy, mutant) for mutant in chosen]) if not broken else 0
    print(f"caught {caught} of {len(chosen)}")
    return int(not chosen or caught < len(chosen))


def _is_caught(copy: Path, mutant: Mutant) -> bool:
    place = copy / mutant.file
    text = place.read_text("utf-8")
    if text.count(mutant.old) != 1:
        print(f"not there once: {mutant.wrong} ({mutant.file})")
        return False
    place.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    try:
        status = _test(copy, mutant.tests)
    finally:
        place.write_text(text, "utf-8")
    if status not in (TESTS_FAILED, None):
        print(f"survived: {mutant.wrong} ({mutant.file}; pytest said {status})")
    return status in (TESTS_FAILED, None)


def _test(copy: Path, tests: tuple[str, ...]) -> int | None:
    """Return pytest's exit status, None if the time is over."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": f"{copy / 'src'}:{copy}", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, timeout=TIME_MAX_S, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
