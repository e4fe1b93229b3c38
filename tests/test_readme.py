"""The code that the README and the docs show runs, and answers what they show."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.clients import CLIENTS, INSTALLED
from tests.sidecar_process import SidecarProcess

CHECKOUT = Path(__file__).parent.parent
README = CHECKOUT / "README.md"
CURLS = (README, CHECKOUT / "docs" / "http-api.md")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

RUN_SECONDS_MAX = 30.0


def test_the_first_block_starts_the_sidecar() -> None:
    """`make run` is `creditgate serve --demo`, as the tests of the README assume."""
    assert _blocks(README)[0] == ("sh", "make run\n")
    assert "$(BIN)/creditgate serve --demo" in (CHECKOUT / "Makefile").read_text()


@pytest.mark.parametrize("page", CURLS, ids=lambda page: page.stem)
def test_curl_lines_answer_what_is_shown(demo: SidecarProcess, page: Path) -> None:
    """Somebody who pastes the lines in order sees the answers that the page prints."""
    answers: list[Any] = []
    for language, text in _blocks(page):
        if language == "sh" and text.startswith("curl"):
            answers += [json.loads(_shell(_here(line, demo))) for line in text.splitlines()]
        elif language == "json":
            assert _is_part_of(json.loads(text), answers[-1]), f"{text}\nis not part of\n{answers[-1]}"
    assert len(answers) >= 3


@pytest.mark.timeout(300)  # the first run installs the client
def test_python_with_the_official_client(demo: SidecarProcess) -> None:
    """The README's few lines are all that an application needs: with credits it answers, and they are taken."""
    CLIENTS[0].install()
    demo.ask("customers.get_or_create", {"customer_id": "user_123"})
    before = _remaining(demo, "user_123")
    (code,) = (text for language, text in _blocks(README) if language == "python")
    places = {"PYTHONPATH": str(INSTALLED / str(CLIENTS[0])), "CREDITGATE_KEY": demo.key}
    said = _run([sys.executable, "-S", "-c", _here(code, demo)], places)
    assert said == "answer the customer\n"
    assert before - _remaining(demo, "user_123") == pytest.approx(0.1)


def test_a_script_by_hand(demo: SidecarProcess) -> None:
    """A reader of the scripts can run one, and sees what the guide says."""
    demo.ask("customers.get_or_create", {"customer_id": "user_123"})
    (code,) = (text for language, text in _blocks(CHECKOUT / "lua" / "README.md") if language == "python")
    said = _run([sys.executable, "-c", _here(code, demo)], {})
    assert re.match(r"\[1, \d{13}, \d+, \d+, b'", said), said
    assert "b'seq'" in said


def _remaining(sidecar: SidecarProcess, customer_id: str) -> float:
    customer = sidecar.ask("customers.get", {"customer_id": customer_id})
    return float(customer["balances"]["usd_credits"]["remaining"])


def _blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


def _here(code: str, sidecar: SidecarProcess) -> str:
    """The code as it is here: another port, another folder."""
    replaced = code.replace("http://127.0.0.1:8787", sidecar.url)
    return replaced.replace("creditgate-data/", f"{sidecar.directory}/")


def _shell(line: str) -> str:
    return _run(["bash", "-c", line], {})


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        text=True,
        timeout=RUN_SECONDS_MAX,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _is_part_of(wanted: Any, whole: Any) -> bool:
    """Whether all that is shown is there; a list is shown whole, each entry in part."""
    if isinstance(wanted, dict):
        return isinstance(whole, dict) and all(
            _is_part_of(value, whole.get(name)) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return len(wanted) == len(whole) and all(map(_is_part_of, wanted, whole))
    return bool(wanted == whole)
