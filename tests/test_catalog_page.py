"""docs/catalog.md: its files are applied, its commands print what it shows, its tables name every key."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from creditgate.core import catalog_tables
from tests.sidecar_process import MAIN, run

PAGE = Path(__file__).parent.parent / "docs" / "catalog.md"
BLOCK = re.compile(r"^```(toml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ creditgate (.*)\n", re.MULTILINE)


def test_the_page_runs(tmp_path: Path) -> None:
    """Whoever follows the page from its first file to its last mistake sees what it shows."""
    assert run("init", "--data-dir", str(tmp_path / "creditgate-data")).returncode == 0
    ran = 0
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "toml":
            (tmp_path / "catalog.toml").write_text(text)
            continue
        for arguments, shown in _commands(text):
            ended = subprocess.run(
                [*MAIN, *arguments], capture_output=True, check=False, text=True, cwd=tmp_path, timeout=60
            )
            said = ended.stdout if ended.returncode == 0 else _sentences(ended.stderr)
            assert said == shown, ended.stderr
            ran += 1
    assert ran == 5


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("`[features.ID]`", catalog_tables.FeatureTable),
        ("`[plans.ID]`", catalog_tables.PlanTable),
        ("Each of `items`", catalog_tables.ItemTable),
        ("`price` of a plan or an item", catalog_tables.ItemPriceTable),
        ("`free_trial`", catalog_tables.FreeTrialTable),
        ("`rollover`", catalog_tables.RolloverTable),
        ("`billing_controls`", catalog_tables.ControlsTable),
        ("Each of `usage_limits`", catalog_tables.UsageLimitTable),
        ("Each of `usage_alerts`", catalog_tables.UsageAlertTable),
    ],
)
def test_the_tables_are_complete(heading: str, table: type[msgspec.Struct]) -> None:
    """Every key that a file can have is explained, and none that it cannot have."""
    section = PAGE.read_text().split(f"\n{heading}\n\n")[1].split("\n\n")[0]
    keys = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert keys == list(table.__struct_fields__)


def _commands(text: str) -> Iterator[tuple[list[str], str]]:
    parts = COMMAND.split(text)[1:]
    for command, shown in zip(parts[::2], parts[1::2], strict=True):
        yield shlex.split(command), shown


def _sentences(stderr: str) -> str:
    """What was said to a person: log lines are JSON."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("{"))
