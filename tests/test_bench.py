"""The bench runs: each case measures something, and what it measured is in its JSON. How much it is, is not tested."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parent.parent
SECONDS_MAX = 240

FIGURES = {
    "http": {
        ("HTTP track c=1", "CPU us", "baseline"),
        ("HTTP track c=1", "CPU us, worker", "noop"),
        ("HTTP track c=1", "Valkey CPU us", "raw"),
        ("HTTP track c=1", "per s", "raw pipelined"),
        ("HTTP check c=1", "p99 ms", "baseline"),
    },
    "scripts": {
        ("script track", "Valkey us", "one HSET"),
        ("script check", "Valkey us", "EVALSHA of return 1"),
        ("memory of a journal entry", "bytes", "an entry of three short fields"),
    },
    "inprocess": {
        ("in-process meter x256", "CPU us", "redis-py, same script"),
        ("in-process batch of 16", "per s", "as many single calls"),
        ("in-process meter x64, one customer", "Valkey CPU us", "an EVALSHA each"),
    },
    "growth": {("track, 5 balances each", "CPU us of both", "50 customers")},
    "latency": {("HTTP track at 50% of saturation", "p99 ms", "p50 ms")},
    "flusher": {
        ("flushing 500 entries", "entries per s to SQLite", "tracks per s"),
        ("HTTP track c=32, appendfsync always", "per s", "everysec"),
    },
    "lanes": {("HTTP check c=1", "CPU us", "plain lane")},
}


def measured(path: Path, *cases: str) -> Any:
    """Run cases, one short round of each, and return their JSON."""
    ended = subprocess.run(
        [sys.executable, "-m", "bench", *cases, "--quick", "--json", str(path / "found.json")],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads((path / "found.json").read_text())


def check_figures(found: Any, *cases: str) -> None:
    """Everything expected is there, and every figure is one."""
    rows = {(row["case"], row["figure"], row["beside"]): row for row in found["rows"]}
    for case in cases:
        assert FIGURES[case] <= set(rows), case
    for name, row in rows.items():
        assert all(value > 0 for value in (*row["ours"], *row["theirs"])), name
        assert row["ratio"] > 0, name
    assert found["environment"]["load_client"]
    assert "failed" in found


def test_it_measures(tmp_path: Path) -> None:
    """A bench that no longer runs is found out by whoever wants to know what a change costs."""
    check_figures(measured(tmp_path, "http", "scripts"), "http", "scripts")


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_MAX)
def test_it_measures_everything(tmp_path: Path) -> None:
    """The cases that take longer to set up."""
    rest = ("inprocess", "growth", "latency", "flusher", "lanes")
    check_figures(measured(tmp_path, *rest), *rest)
