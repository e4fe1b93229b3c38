"""A part is away: what a caller of a running sidecar sees meanwhile, and that nothing is missing afterwards."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx

from tests.sidecar_process import SidecarProcess, wait_until

TRACK = {"customer_id": "ann", "feature_id": "basic_messages", "value": 1}


def test_sql_is_away(demo: SidecarProcess) -> None:
    """Without SQL, credits are checked, taken and given; only what needs the past says to come again."""
    demo.ask("customers.get_or_create", {"customer_id": "ann"})
    demo.ask("balances.track", TRACK)
    wait_until(lambda: _uses(demo) == 1, what="the first use in SQL")
    with _sql_away(demo):
        wait_until(lambda: _state(demo)["sql"] != "ok", what="readyz names SQL")
        assert demo.ask("balances.check", TRACK | {"value": 1})["allowed"]
        demo.ask("balances.track", TRACK)
        demo.ask("customers.get_or_create", {"customer_id": "bob"})
        demo.ask("balances.create", {"customer_id": "bob", "feature_id": "usd_credits", "included_grant": 1})
        for verb in ("events.list", "customers.list", "customers.statement"):
            answer = demo.call(verb, {"customer_id": "ann"})
            assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
            assert answer.headers["Retry-After"] == "1"
    wait_until(lambda: _uses(demo) == 2, what="the second use in SQL")
    assert len(demo.ask("events.list", {"customer_id": "ann"})["list"]) == 2
    assert demo.verify().returncode == 0


@contextmanager
def _sql_away(sidecar: SidecarProcess) -> Iterator[None]:
    """The tables are elsewhere for a while: every statement fails, as on a server that is being restored."""
    names = ("journal_items", "stream_positions", "listed_customers")
    with closing(sqlite3.connect(sidecar.directory / "ledger.db", isolation_level=None, timeout=20)) as other:
        for name in names:
            other.execute(f"ALTER TABLE {name} RENAME TO {name}_elsewhere")
        try:
            yield
        finally:
            for name in names:
                other.execute(f"ALTER TABLE {name}_elsewhere RENAME TO {name}")


def _state(sidecar: SidecarProcess) -> dict[str, str]:
    parts: dict[str, str] = httpx.get(f"{sidecar.url}/readyz").json()["parts"]
    return parts


def _uses(sidecar: SidecarProcess) -> int:
    with closing(sqlite3.connect(f"file:{sidecar.directory}/ledger.db?mode=ro", uri=True)) as ledger:
        count: int = ledger.execute("SELECT count(*) FROM journal_items WHERE kind = 'use'").fetchone()[0]
    return count
