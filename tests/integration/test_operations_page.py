"""The commands on docs/operations.md work, in the order in which they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from tests.balances.valkey_process import ValkeyProcess
from tests.integration.autumn_stand_in import KEY, AutumnStandIn, customer
from tests.sidecar_process import MAIN, SidecarProcess, run_afresh

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CATALOG = """
[features.messages]
type = "metered"
consumable = true
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data in `creditgate-data`, as somebody has who reads the page, and with a catalog file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTUMN_SECRET_KEY", KEY)
    (tmp_path / "catalog.toml").write_text(CATALOG)
    (tmp_path / "creditgate-data").mkdir()
    sidecar = SidecarProcess(directory=tmp_path / "creditgate-data", arguments=["--demo"], main=MAIN).start()
    sidecar.ask("customers.get_or_create", {"customer_id": "ann"})
    sidecar.stop()
    return tmp_path


@pytest.mark.timeout(180)
def test_commands(here: Path) -> None:
    """Whoever pastes a line, with the names of their own servers in it, gets what the page says."""
    autumn, valkey = AutumnStandIn([customer("bob"), customer("cid"), customer("dan")]), ValkeyProcess()
    ours = {
        "redis://10.0.0.5:6379": valkey.url,
        "postgresql://creditgate@10.0.0.6/creditgate": f"sqlite:///{here / 'moved.db'}",
        "https://api.useautumn.com": autumn.url,
    }
    said = {}
    try:
        valkey.start()
        for line in _lines():
            words = [word for word in shlex.split(line) if not word.startswith("AUTUMN_SECRET_KEY=")]
            assert words[0] == "creditgate"
            ended = run_afresh(*(ours.get(word, word) for word in words[1:]))
            assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
            said[words[1]] = ended.stdout
    finally:
        valkey.close()
        autumn.close()
    assert said.keys() == {"doctor", "backup", "restore", "move", "rebuild", "apply", "import"}
    assert said["import"] in PAGE.read_text()


def _lines() -> list[str]:
    return [line for block in BLOCK.findall(PAGE.read_text()) for line in block.splitlines()]
