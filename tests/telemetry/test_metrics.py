"""The numbers of a running sidecar, read as Prometheus reads them."""

import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from os import kill

import httpx
import pytest

from creditgate.telemetry.exposition import Readings, Waiting, exposed
from creditgate.telemetry.metrics import Metrics
from tests.sidecar_process import SidecarProcess, wait_until
from tests.telemetry.scraping import OPENMETRICS, Page, page_of, scrape

FEATURES = {"basic_messages", "premium_messages", "usd_credits", "other"}
LABELS = {"verb", "feature", "outcome", "operation", "kind", "part", "version", "python", "le"}


def _counted(before: Page, after: Page, verb: str, outcome: str, feature: str = "basic_messages") -> float:
    labels = {"verb": verb, "feature": feature, "outcome": outcome}
    name = "creditgate_decisions_total"
    return (after.value(name, **labels) or 0) - (before.value(name, **labels) or 0)


def _customer(sidecar: SidecarProcess, customer_id: str) -> dict[str, str]:
    sidecar.ask("customers.get_or_create", {"customer_id": customer_id})
    return {"customer_id": customer_id, "feature_id": "basic_messages"}


def test_decisions_are_counted_by_outcome(demo: SidecarProcess) -> None:
    """Somebody who alerts on denials sees each once: allowed, denied and replayed are told apart."""
    body = _customer(demo, "outcomes")
    before = scrape(demo)
    demo.ask("balances.check", body)
    demo.ask("balances.check", body | {"required_balance": 501})
    demo.ask("balances.check", body | {"send_event": True})
    demo.ask("balances.track", body | {"value": 3})
    assert demo.call("balances.track", body | {"value": 501, "overage_behavior": "reject"}).status_code == 400
    for _ in range(3):
        demo.call("balances.track", body, headers={"Idempotency-Key": "once"})
    after = scrape(demo)
    assert _counted(before, after, "check", "allowed") == 2
    assert _counted(before, after, "check", "denied") == 1
    assert _counted(before, after, "track", "allowed") == 2
    assert _counted(before, after, "track", "denied") == 1
    assert _counted(before, after, "track", "replayed") == 2
    for verb, count in (("check", 3), ("track", 5)):
        timed = "creditgate_decision_duration_seconds_count"
        assert (after.value(timed, verb=verb) or 0) - (before.value(timed, verb=verb) or 0) == count


def test_amounts_are_counted_in_the_unit_of_the_balance(demo: SidecarProcess) -> None:
    """What a deployment burns in an hour is a rate of one number; a replay and a refusal burn nothing."""
    body = _customer(demo, "amounts")
    before = scrape(demo)
    demo.ask("balances.track", body | {"value": 30})
    demo.ask("balances.track", body | {"value": -10})
    after = scrape(demo)
    for name, amount in (("creditgate_taken_total", 0.3), ("creditgate_given_back_total", 0.1)):
        labels = {"feature": "usd_credits"}
        assert (after.value(name, **labels) or 0) - (before.value(name, **labels) or 0) == pytest.approx(
            amount
        )


def test_what_a_caller_got_wrong_is_no_decision(demo: SidecarProcess) -> None:
    """A script that asks for made-up customers and features neither moves a number nor adds a time series."""
    body = _customer(demo, "mistakes")
    demo.ask("balances.check", body)
    before = scrape(demo)
    for verb in ("check", "track"):
        for wrong in ({"customer_id": "nobody"}, {"feature_id": "made_up"}, {"feature_id": 5}):
            assert demo.call(f"balances.{verb}", body | wrong).status_code in (400, 404)
    decisions = "creditgate_decisions"
    assert scrape(demo).families[decisions].samples == before.families[decisions].samples


def test_no_label_names_a_customer(demo: SidecarProcess) -> None:
    """Neither a customer nor anything that callers make up becomes a label: time series stay few, and say nothing."""
    body = _customer(demo, "ann@example.com")
    demo.ask("balances.track", body | {"properties": {"mail": "ann@example.com"}})
    demo.call("balances.track", {"customer_id": "ann@example.com", "event_name": "ann@example.com"})
    demo.call("balances.check", body | {"feature_id": "ann@example.com"})
    labels = set(scrape(demo).labels())
    assert {name for name, _ in labels} <= LABELS
    assert {value for name, value in labels if name == "feature"} <= FEATURES
    assert not [value for _, value in labels if "ann@" in value]


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain", "text/html,application/xhtml+xml;q=0.9", OPENMETRICS]
)
def test_both_formats_can_be_read(demo: SidecarProcess, accept: str) -> None:
    """Every scraper gets the format that it asks for, and the plain one where it asks for none of ours."""
    answer = httpx.get(f"{demo.url}/metrics", headers={"Accept": accept})
    kind = "application/openmetrics-text" if accept == OPENMETRICS else "text/plain"
    assert answer.headers["Content-Type"].startswith(f"{kind}; version=")
    assert page_of(answer).value("creditgate_up", part="redis") == 1


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=foo; escaping=allow-utf-8",
        "application/openmetrics-text; version=99",
        "text/plain; version=1.0.0; escaping=nonsense",
        ";;;,,,",
        "\xff",
    ],
)
def test_an_accept_header_that_is_none(demo: SidecarProcess, accept: str) -> None:
    """A scraper that writes its header in its own way is answered all the same."""
    answer = httpx.get(f"{demo.url}/metrics", headers={b"Accept": accept.encode("latin-1")})
    assert answer.status_code == 200
    assert "creditgate_up" in answer.text


def test_head_and_post(demo: SidecarProcess) -> None:
    """HEAD tells the type and nothing else; whoever posts is told that nobody can."""
    head = httpx.head(f"{demo.url}/metrics")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"].startswith("text/plain; version=")
    post = httpx.post(f"{demo.url}/metrics")
    assert (post.status_code, post.json()["code"]) == (405, "method_not_allowed")
    assert set(post.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_redis_is_away(demo: SidecarProcess) -> None:
    """While Redis hangs, a scrape still answers: undecided calls are counted, and what is not known is not there."""
    body = _customer(demo, "patient")
    demo.ask("balances.check", body)
    before = scrape(demo)
    with _stopped(demo.valkey_pid):
        assert demo.call("balances.check", body).json()["code"] == "undecided"
        assert demo.call("balances.track", body).status_code == 202
        during = scrape(demo)
    assert _counted(before, during, "check", "undecided") == 1
    assert _counted(before, during, "track", "undecided") == 1
    assert (during.value("creditgate_spooled_total") or 0) >= 1
    assert (during.value("creditgate_spool_bytes") or 0) > 0
    assert during.value("creditgate_up", part="redis") == 0
    assert during.value("creditgate_up", part="sql") == 1
    assert "creditgate_flush_lag_entries" not in during.families
    errors = [sample.labels for sample in during.families["creditgate_redis_errors"].samples if sample.value]
    assert {"check", "track"} <= {labels["operation"] for labels in errors}
    wait_until(lambda: scrape(demo).value("creditgate_up", part="redis") == 1, what="Redis is up again")
    wait_until(lambda: scrape(demo).value("creditgate_spool_bytes") == 0, what="what was kept is posted")


def test_a_database_that_is_locked_shows_as_flush_lag(demo: SidecarProcess) -> None:
    """While SQL takes nothing, the lag grows in entries and seconds; once it does, the lag is gone."""
    body = _customer(demo, "lagging")
    wait_until(lambda: scrape(demo).value("creditgate_spool_bytes") == 0, what="what was spooled is posted")
    wait_until(lambda: _lag(demo) == 0, what="everything is flushed")
    flushed = scrape(demo).value("creditgate_flush_entries_total") or 0
    with closing(sqlite3.connect(demo.directory / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            demo.ask("balances.track", body)
        wait_until(lambda: (scrape(demo).value("creditgate_flush_lag_seconds") or 0) > 0.5, what="a lag")
        assert _lag(demo) == 3
        other.execute("ROLLBACK")
    wait_until(lambda: _lag(demo) == 0, what="the lag is gone")
    after = scrape(demo)
    assert after.value("creditgate_flush_lag_seconds") == 0
    assert after.value("creditgate_flush_entries_total") == flushed + 3


def test_names() -> None:
    """Every name begins alike, and what counts up ends as Prometheus wants it."""
    page, _ = exposed(Metrics(), _everything(), "")
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", page.decode(), re.MULTILINE):
        assert name.startswith("creditgate_")
        assert name.endswith("_total") == (kind == "counter")


def test_features_that_nobody_knows_are_one_series() -> None:
    """With Redis away nobody can tell a feature from a typo, so each name of a flood of them is not kept."""
    metrics = Metrics()
    for number in range(1000):
        metrics.not_decided("check", f"made_up_{number}", 0.1, TimeoutError())
    assert dict(metrics.decisions) == {("check", "other", "undecided"): 1000}


def _everything() -> Readings:
    return Readings({"redis": "ok", "sql": "does not answer"}, 1, Waiting(3, 0.25, 2))


def _lag(sidecar: SidecarProcess) -> float | None:
    return scrape(sidecar).value("creditgate_flush_lag_entries")


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """A process that is there and does nothing, as one on a machine that swaps."""
    kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        kill(pid, signal.SIGCONT)
