"""The sidecar verifies its own books on a timer, and /metrics says what it found."""

import redis

from tests.sidecar_process import SidecarProcess, wait_until
from tests.telemetry.scraping import scrape

A_SECOND_IN_HOURS = str(1 / 3600)


def test_a_changed_balance_is_found() -> None:
    sidecar = SidecarProcess(arguments=["--demo", "--verify-every-hours", A_SECOND_IN_HOURS])
    try:
        sidecar.start()
        sidecar.ask("customers.get_or_create", {"customer_id": "ann"})
        sidecar.ask("balances.track", {"customer_id": "ann", "feature_id": "basic_messages", "value": 3})
        wait_until(lambda: _runs(sidecar, "holds") >= 2, what="verified twice")
        assert scrape(sidecar).value("creditgate_verify_differences_total") == 0
        assert _runs(sidecar, "differs") == _runs(sidecar, "failed") == 0

        with redis.Redis.from_url(f"unix://{sidecar.directory}/valkey.sock") as behind_its_back:
            (record,) = behind_its_back.scan_iter("*:c:ann")
            (balance,) = (name for name in behind_its_back.hkeys(record) if name.startswith(b"b:"))
            behind_its_back.hincrby(record, balance, 1)
        wait_until(lambda: _runs(sidecar, "differs") >= 1, what="the difference is found")
        assert (scrape(sidecar).value("creditgate_verify_differences_total") or 0) >= 1
    finally:
        sidecar.close()


def _runs(sidecar: SidecarProcess, outcome: str) -> float:
    return scrape(sidecar).value("creditgate_verify_runs_total", outcome=outcome) or 0
