"""The README's code runs, and answers what the README shows."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.sidecar_process import SidecarProcess

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_first_block_starts_the_sidecar() -> None:
    """`make run` is `creditgate serve --demo`, as the tests of the README assume."""
    assert _blocks()[0] == ("sh", "make run\n")
    makefile = (README.parent / "Makefile").read_text()
    assert "$(BIN)/creditgate serve --demo" in makefile


def test_curl_lines_answer_what_is_shown(demo: SidecarProcess) -> None:
    """Somebody who pastes the lines in order sees the answers that the README prints."""
    compared = 0
    answer: Any = None
    for language, text in _blocks():
        if language == "sh" and text.startswith("curl"):
            for line in text.splitlines():
                answer = json.loads(_shell(_here(line, demo)))
        elif language == "json":
            assert _is_part_of(json.loads(text), answer), f"{text}\nis not part of\n{answer}"
            compared += 1
    assert compared == 2


def test_links_lead_to_files() -> None:
    """No link of the README or the docs is dead."""
    for page in (README, *sorted((README.parent / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_named_tests_exist() -> None:
    """Every test file that the docs name as holding a promise is there."""
    for page in sorted((README.parent / "docs").rglob("*.md")):
        for name in re.findall(r"`(tests/[\w/.]+)`", page.read_text()):
            assert (README.parent / name).exists(), f"{page.name}: {name}"


def _blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(README.read_text())


def _here(line: str, sidecar: SidecarProcess) -> str:
    replaced = line.replace("http://127.0.0.1:8787", sidecar.url)
    return replaced.replace("creditgate-data/", f"{sidecar.directory}/")


def _shell(line: str) -> str:
    return subprocess.run(["bash", "-c", line], capture_output=True, check=True, text=True, timeout=20).stdout


def _is_part_of(wanted: Any, whole: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(whole, dict) and all(
            _is_part_of(value, whole.get(name)) for name, value in wanted.items()
        )
    return bool(wanted == whole)
