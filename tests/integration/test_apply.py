"""`creditgate apply` and `serve --catalog`, as somebody at a terminal or a deployment runs them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.balances.valkey_process import ValkeyProcess
from tests.sidecar_process import SidecarProcess, run

CATALOG = """\
[features.credits]
type = "credit_system"
costs = { words = "0.5" }

[features.words]

[plans.free]
auto_enable = true
items = [{ feature = "credits", included = 5, reset = "month" }]
"""
CREATED = ["created credit system credits", "created feature words", "created plan free"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path for a catalog file and data."""
    with tempfile.TemporaryDirectory(prefix="cga") as parent:
        yield Path(parent)


@pytest.fixture
def file(directory: Path) -> Path:
    """A catalog file."""
    path = directory / "catalog.toml"
    path.write_text(CATALOG)
    return path


@pytest.fixture
def valkey() -> Iterator[ValkeyProcess]:
    """A Valkey of its own."""
    server = ValkeyProcess()
    try:
        server.start()
        yield server
    finally:
        server.close()


def _lines(ended: CompletedProcess[str]) -> list[str]:
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def _sentence(ended: CompletedProcess[str]) -> str:
    """The one line that a command which failed says, log lines apart."""
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    return line.removeprefix("creditgate: ")


def test_with_nothing_running(directory: Path, file: Path) -> None:
    """A catalog can be put in place before the first start; a dry run only says so, a second run has nothing to do."""
    data = ["--data-dir", str(directory / "d")]
    assert "creditgate init" in _sentence(run("apply", str(file), *data))
    assert not (directory / "d").exists()
    assert run("init", *data).returncode == 0
    for _ in range(2):
        shown = _lines(run("apply", str(file), "--dry-run", *data))
        assert shown == [*CREATED, "Nothing was written (--dry-run): 3 created, 0 unchanged."]
    assert _lines(run("apply", str(file), *data)) == [*CREATED, "Applied: 3 created, 0 unchanged."]
    assert _lines(run("apply", str(file), *data)) == ["Nothing changes: 3 unchanged."]
    sidecar = SidecarProcess(directory=directory / "d")
    try:
        sidecar.start()
        assert [plan["id"] for plan in sidecar.ask("plans.list")["list"]] == ["free"]
    finally:
        sidecar.close()


def test_beside_a_running_sidecar(sidecar: SidecarProcess, file: Path) -> None:
    """The sidecar answers by the new catalog when the command returns: new prices, new customers, archived plans."""
    data = ["--data-dir", str(sidecar.directory)]
    _lines(run("apply", str(file), *data))
    assert _granted(sidecar, "ann") == 5
    file.write_text(CATALOG.replace("included = 5", "included = 7").replace('"0.5"', '"0.25"'))
    assert _lines(run("apply", str(file), *data)) == [
        "changed credit system credits: costs.words from 0.5 to 0.25",
        "changed plan free: becomes version 2; items.credits from 5 each month to 7 each month",
        "Applied: 2 changed, 1 unchanged.",
    ]
    check = {"customer_id": "ann", "feature_id": "words", "required_balance": 20}
    assert sidecar.ask("balances.check", check)["required_balance"] == 5
    assert (_granted(sidecar, "ann"), _granted(sidecar, "bob")) == (5, 7)

    file.write_text(CATALOG[: CATALOG.index("[plans")].replace('"0.5"', '"0.25"'))
    left = "not in the file, so left as they are (--prune archives them): plan free"
    assert _lines(run("apply", str(file), *data)) == [left, "Nothing changes: 2 unchanged."]
    assert _lines(run("apply", str(file), "--prune", *data)) == [
        "archived plan free",
        "Applied: 1 archived, 2 unchanged.",
    ]
    assert sidecar.ask("plans.list")["list"] == []
    file.write_text(CATALOG)
    assert "brought back plan free: becomes version 3" in _lines(run("apply", str(file), *data))[1]
    assert sidecar.ask("plans.list")["list"][0]["archived"] is False
    assert sidecar.verify().returncode == 0


def test_mistakes(sidecar: SidecarProcess, file: Path) -> None:
    """A mistake is one sentence with its line and exit code 1, in a dry run too, and nothing of the file is done."""
    before = _everything(sidecar)
    data = ["--data-dir", str(sidecar.directory)]
    for wrong, flag, said in (
        (
            CATALOG.replace("included", "includes"),
            "--dry-run",
            "9: plans.free.items[0].includes: is no key here",
        ),
        (
            CATALOG.replace("words =", "word ="),
            "--no-prune",
            "3: features.credits.costs.word: feature word is not",
        ),
        (CATALOG + "[features.words]", "--prune", "10: Cannot declare"),
        (
            CATALOG + "[features.x]\ntype = 'credit_system'",
            "--prune",
            "10: features.x.costs: cannot be empty",
        ),
    ):
        file.write_text(wrong)
        assert _sentence(run("apply", str(file), flag, *data)).startswith(f"{file}:{said}")
    file.write_bytes(b"[features.a]\nname = '\xff'")
    assert _sentence(run("apply", str(file), *data)) == f"{file}:2: must be UTF-8"
    assert (
        _sentence(run("apply", str(file.parent / "no"), *data))
        == f"{file.parent / 'no'}: No such file or directory"
    )
    assert _everything(sidecar) == before


@pytest.mark.slow
def test_on_servers_of_ones_own(directory: Path, file: Path, valkey: ValkeyProcess) -> None:
    """What was applied with no sidecar running is in SQL when the command returns, should Redis lose it right then."""
    data = ["--data-dir", str(directory), "--redis", valkey.url, "--database", f"sqlite:///{directory}/x.db"]
    data += ["--prefix", "shop"]
    assert "creditgate init" in _sentence(run("apply", str(file), *data))
    assert run("init", *data).returncode == 0
    _lines(run("apply", str(file), *data))
    with valkey.client() as client:
        assert all(key.startswith(b"shop:") for key in client.scan_iter())
        client.flushall()
    assert _lines(run("apply", str(file), "--dry-run", *data)) == ["Nothing changes: 3 unchanged."]


def test_serve_applies_a_file(directory: Path, file: Path) -> None:
    """A sidecar answers its first call by its catalog file, and applies what changed in it at each start."""
    settings = directory / "creditgate.toml"
    settings.write_text(f'catalog = "{file}"\nport = 0\n')
    sidecar = SidecarProcess(directory=directory, arguments=["--config", str(settings)])
    try:
        sidecar.start()
        assert _granted(sidecar, "ann") == 5
        assert sidecar.stop() == 0
        file.write_text(CATALOG.replace("included = 5", "included = 7"))
        sidecar.start()
        assert (_granted(sidecar, "ann"), _granted(sidecar, "bob")) == (5, 7)
        data = ["--config", str(settings), "--data-dir", str(directory)]
        assert _lines(run("apply", str(file), *data)) == ["Nothing changes: 3 unchanged."]
    finally:
        sidecar.close()


def test_serve_refuses_a_file_with_a_mistake(directory: Path, file: Path) -> None:
    """A sidecar does not start on half a catalog, nor on yesterday's: the file's sentence is all that it says."""
    data = directory / "d"
    serve = ["serve", "--port", "0", "--data-dir", str(data), "--catalog", str(file)]
    file.write_text(CATALOG.replace("month", "monthly"))
    assert _sentence(run(*serve)).startswith(
        f"{file}:9: plans.free.items[0].reset: must be one of: one_off, "
    )
    assert not data.exists()
    file.write_text(CATALOG.replace('{ feature = "credits", included', '{ feature = "letters", included'))
    said = (
        f"{file}:9: plans.free.items[0].feature: feature letters is not in this file and not in the catalog"
    )
    assert _sentence(run(*serve)) == said
    file.write_text(CATALOG)
    assert _lines(run("apply", str(file), "--data-dir", str(data)))[:3] == CREATED


def _granted(sidecar: SidecarProcess, customer_id: str) -> Any:
    customer = sidecar.ask("customers.get_or_create", {"customer_id": customer_id})
    return customer["balances"]["credits"]["granted"]


def _everything(sidecar: SidecarProcess) -> Any:
    everything = {"include_archived": True, "all_versions": True}
    return sidecar.ask("features.list"), sidecar.ask("plans.list", everything)
