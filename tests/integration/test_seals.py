"""The sealed journal of a running sidecar: what is edited in SQL is found, by the command and by the sidecar itself."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from creditgate.errors import StartupError
from creditgate.ledger.sealing import read_seal_keys
from tests.sidecar_process import SidecarProcess, run, wait_until
from tests.telemetry.scraping import scrape

A_SECOND_IN_HOURS = str(1 / 3600)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A key, as the documentation says to make one."""
    path = tmp_path / "seal_key"
    path.touch(0o600)
    path.write_text("0123456789abcdef" * 4 + "\n")
    return path


def test_an_edited_row_is_found_though_its_amounts_add_up(key_file: Path) -> None:
    """Who has the database but not the key cannot change what a customer used for what, or take a row away, unseen;
    the key is shown nowhere."""
    arguments = ["--demo", "--keep-history-days", "30", "--verify-every-hours", A_SECOND_IN_HOURS]
    sidecar = SidecarProcess(arguments=[*arguments, "--seal-key-file", str(key_file)])
    verify = ["verify", "--data-dir", str(sidecar.directory), "--seal-key-file", str(key_file)]
    try:
        sidecar.start().ask("customers.get_or_create", {"customer_id": "ann"})
        sidecar.ask("balances.track", {"customer_id": "ann", "feature_id": "basic_messages", "value": 3})
        wait_until(lambda: _runs(sidecar, "holds") >= 2, what="verified")
        assert "items are sealed, from the start" in run(*verify).stdout
        with closing(sqlite3.connect(sidecar.directory / "ledger.db", isolation_level=None)) as sql:
            sql.execute(
                'UPDATE journal_items SET properties = \'{"model":"cheap"}\' WHERE stream_ms ='
                " (SELECT max(stream_ms) FROM journal_items WHERE kind = 'use')"
            )
        wait_until(lambda: _runs(sidecar, "differs") >= 1, what="the edit is found")
        found = run(*verify)
        assert found.returncode == 1
        assert found.stdout.count("are not those that were sealed") == 1
        assert key_file.read_text().strip() not in (sidecar.directory / "log").read_text() + found.stdout
    finally:
        sidecar.close()


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("k" * 64, 0o640, "others may read"),
        ("k" * 31, 0o600, "a key of 32 characters"),
        ("k" * 64 + "\nshort\n", 0o600, "a key of 32 characters"),
        ("", 0o600, "a key of 32 characters"),
        (None, 0o600, "No such file"),
    ],
)
def test_a_key_that_is_none_is_refused(key_file: Path, text: str | None, mode: int, says: str) -> None:
    """A key that others can read, or guess, proves nothing; its text is not in the message."""
    key_file.unlink() if text is None else key_file.write_text(text)
    if text is not None:
        key_file.chmod(mode)
    with pytest.raises(StartupError, match=says) as refused:
        read_seal_keys(key_file)
    assert "kkk" not in refused.value.message


def _runs(sidecar: SidecarProcess, outcome: str) -> float:
    return scrape(sidecar).value("creditgate_verify_runs_total", outcome=outcome) or 0
