"""`creditgate import autumn`: customers come with what they hold there, and a second run changes nothing."""

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import TUTORIAL_FEATURES, TUTORIAL_PLANS
from tests.integration.autumn_stand_in import KEY, AutumnStandIn, balance, customer, row, subscription
from tests.sidecar_process import SidecarProcess, run

pytestmark = pytest.mark.timeout(180)  # some start a sidecar three times and run the command as often

DAY_MS = 86_400_000
NEXT_MONTH = time.time_ns() // 1_000_000 + 20 * DAY_MS
MONTHLY = {"interval": "month", "resets_at": NEXT_MONTH}
TOP_UP_PRICE = {"amount": 1, "billing_units": 1, "billing_method": "prepaid", "max_purchase": None}

ANN = customer(
    "ann",
    name="Ann",
    email="ann@example.com",
    stripe_id="cus_1",
    metadata={"team": "ö"},
    subscriptions=[subscription("cus_prod_1", "free", auto_enable=True)],
    purchases=[{"plan_id": "top_up", "expires_at": None, "started_at": 1795340876896, "quantity": 1}],
    balances={
        "usd_credits": balance(
            "usd_credits",
            row("cus_ent_1", 5, 0.02, plan_id="free", reset=MONTHLY),
            row(
                "cus_ent_2",
                0,
                0,
                plan_id="top_up",
                prepaid_grant=20,
                remaining=20,
                price=TOP_UP_PRICE,
            ),
        )
    },
)
BOB = customer(
    "bob",
    subscriptions=[
        subscription(
            "cus_prod_2",
            "pro",
            started_at=1795340881144,
            current_period_start=1795340881144,
            current_period_end=NEXT_MONTH,
        )
    ],
    balances={
        "usd_credits": balance(
            "usd_credits",
            row("cus_ent_3", 10, 12.5, plan_id="pro", reset=MONTHLY),
            row("gift", 3, 0.30000000000000004, expires_at=NEXT_MONTH),
            rollovers=[{"granted": 2, "balance": 1.5, "expires_at": NEXT_MONTH}],
        )
    },
    flags={"sso": {"id": "cus_ent_9", "plan_id": "pro", "expires_at": None, "feature_id": "sso"}},
)
CID = customer("cid", send_email_receipts=True)


@pytest.fixture
def autumn() -> Iterator[AutumnStandIn]:
    """A source with three customers whom we can take as they are."""
    stand_in = AutumnStandIn([ANN, BOB, CID])
    yield stand_in
    stand_in.close()


@pytest.fixture
def sidecar() -> Iterator[SidecarProcess]:
    """A running sidecar with the same catalog as the source, and nobody in it."""
    process = SidecarProcess().start()
    try:
        for feature in TUTORIAL_FEATURES:
            process.ask("features.create", feature)
        for plan in TUTORIAL_PLANS:
            process.ask("plans.create", plan)
        yield process
    finally:
        process.close()


def test_customers_come_with_what_they_hold(autumn: AutumnStandIn, sidecar: SidecarProcess) -> None:
    """Beside a running sidecar: its API answers for each of them as the source does, to the last digit."""
    made = _import(autumn, sidecar)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout == "3 customers: 3 created, 0 corrected, 0 as they were\n"
    for said in (ANN, BOB, CID):
        here = sidecar.ask("customers.get", {"customer_id": said["id"]})
        for name in ("name", "email", "stripe_id", "metadata", "created_at", "send_email_receipts", "flags"):
            assert here[name] == said[name], name
        assert [(s["id"], s["plan_id"]) for s in here["subscriptions"]] == [
            (s["id"], s["plan_id"]) for s in said["subscriptions"]
        ]
        assert [p["plan_id"] for p in here["purchases"]] == [p["plan_id"] for p in said["purchases"]]
        for feature_id, there in said["balances"].items():
            rows = {r["id"]: r for r in here["balances"][feature_id]["breakdown"]}
            assert {r["id"]: _rounded(r) for r in there["breakdown"]} == rows
            assert here["balances"][feature_id].get("rollovers") == there.get("rollovers")
            assert here["balances"][feature_id]["next_reset_at"] == NEXT_MONTH
    assert sidecar.verify().returncode == 0


def test_a_second_run_changes_nothing(autumn: AutumnStandIn, sidecar: SidecarProcess) -> None:
    """Repeated, with the sidecar or without it, nothing is written; no customer gets anything twice."""
    _import(autumn, sidecar)
    before = _answers(sidecar)
    again = _import(autumn, sidecar)
    assert again.stdout == "3 customers: 0 created, 0 corrected, 3 as they were\n"
    sidecar.stop()
    assert _import(autumn, sidecar).stdout == again.stdout
    assert _answers(sidecar.start()) == before
    sidecar.stop()
    with sqlite3.connect(sidecar.directory / "ledger.db") as ledger:
        written = "SELECT count(*) FROM journal_items WHERE verb = 'import'"
        assert ledger.execute(written).fetchone() == (3,)
        kinds = "SELECT DISTINCT kind FROM journal_items WHERE customer_id = 'ann' AND row_id IS NOT NULL"
        assert {kind for (kind,) in ledger.execute(kinds)} == {"grant", "correct"}
    ledger.close()


def test_a_change_at_the_source_corrects(autumn: AutumnStandIn, sidecar: SidecarProcess) -> None:
    """What was used, bought, changed and cancelled there since the first run is so here after the second."""
    _import(autumn, sidecar)
    used = balance("usd_credits", row("cus_ent_1", 5, 4.5, plan_id="free", reset=MONTHLY))
    autumn.customers[0] = ANN | {"name": "Anna", "balances": {"usd_credits": used}, "purchases": []}
    autumn.customers[1] = BOB | {
        "subscriptions": [subscription("cus_prod_7", "free")],
        "balances": {
            "usd_credits": balance("usd_credits", row("cus_ent_7", 5, 1, plan_id="free", reset=MONTHLY))
        },
        "flags": {},
    }
    again = _import(autumn, sidecar)
    assert again.stdout == "3 customers: 0 created, 2 corrected, 1 as they were\n", again.stderr
    ann, bob, _ = _answers(sidecar)
    assert (ann["name"], ann["purchases"]) == ("Anna", [])
    assert _of(ann) == [("cus_ent_1", 5, 0.5)]
    assert [s["plan_id"] for s in bob["subscriptions"]] == ["free"]
    assert (_of(bob), bob["flags"]) == ([("cus_ent_7", 5, 4)], {})
    assert sidecar.verify().returncode == 0


def test_whoever_is_here_already_is_taken_over(autumn: AutumnStandIn, sidecar: SidecarProcess) -> None:
    """Customers whom the application made here before the import have what the source says, and keep what is ours."""
    for name in ("ann", "bob"):
        sidecar.ask("customers.get_or_create", {"customer_id": name, "name": "here", "email": "here@x.yz"})
    gift = {"customer_id": "bob", "feature_id": "usd_credits", "included_grant": 7, "balance_id": "ours"}
    sidecar.ask("balances.create", gift)
    taken = _import(autumn, sidecar)
    assert taken.stdout == "3 customers: 1 created, 2 corrected, 0 as they were\n"
    ann, bob, _ = _answers(sidecar)
    assert (ann["name"], ann["email"], bob["name"]) == ("Ann", "ann@example.com", "here")
    assert [s["plan_id"] for s in ann["subscriptions"]] == ["free"]
    assert _of(ann) == [("cus_ent_1", 5, 4.98), ("cus_ent_2", 20, 20)]
    assert [s["plan_id"] for s in bob["subscriptions"]] == ["pro"], "free gave way to pro"
    assert _of(bob) == [("cus_ent_3", 10, 0), ("gift", 3, 2.7), ("ours", 7, 7)]
    assert sidecar.verify().returncode == 0


@pytest.mark.slow
def test_what_cannot_be_taken_is_said(autumn: AutumnStandIn, sidecar: SidecarProcess) -> None:
    """Each thing is named once with the customers it concerns; all else is taken, and the exit code tells."""
    odd = customer(
        "odd",
        subscriptions=[
            subscription("s1", "enterprise"),
            subscription("s2", "pro", scope="entity"),
            subscription("s3", "pro", status="scheduled"),
        ],
        balances={
            "tokens": balance("tokens", row("r1", 100, 1)),
            "sso": balance("sso", row("r2", 1, 0)),
            "usd_credits": balance(
                "usd_credits",
                row("r3", 4, 1, plan_id="enterprise"),
                row("r4", 9, 0, source="entity"),
                row("r5", 2, 0, price={"billing_method": "prepaid", "tiers": [{"to": 1, "amount": 2}]}),
            ),
            "basic_messages": balance("basic_messages"),
        },
        billing_controls={
            "auto_topups": [{"feature_id": "usd_credits", "enabled": True, "threshold": 1, "quantity": 10}],
            "spend_limits": [{"feature_id": "usd_credits", "enabled": True, "overage_limit": 5}],
        },
        licenses=[{"license_plan_id": "seat"}],
    )
    autumn.customers += [
        odd,
        customer("also", balances={"tokens": balance("tokens", row("r9", 1, 0))}),
        customer("x", id=None),
        {"id": 7},
        customer("bad\n", name="control"),
    ]
    ended = _import(autumn, sidecar)
    assert ended.returncode == 1
    assert ended.stdout.startswith("5 customers: 5 created")
    said = set(ended.stdout.splitlines()[1:])
    for text in (
        "- not taken: feature tokens is not in the catalog here; 2 customers (odd, also)",
        "- not taken: feature sso is on or off here, and not at the source; 1 customers (odd)",
        "- not taken: plan enterprise is not in the catalog here; its balances stand alone; 1 customers (odd)",
        "- not taken: plan pro of an entity; 1 customers (odd)",
        "- not taken: plan pro, which is scheduled; 1 customers (odd)",
        "- not taken: a balance of usd_credits of an entity; 1 customers (odd)",
        "- not taken: the price of a balance of usd_credits; 1 customers (odd)",
        "- not taken: a balance of basic_messages that is not broken down; 1 customers (odd)",
        "- not taken: licenses; 1 customers (odd)",
        "- not taken: an anonymous customer, without an id; 1 customers",
    ):
        assert text in said, (text, ended.stdout)
    assert any("auto_topups" in line for line in said)
    assert len([line for line in said if "cannot be read" in line]) == 2, said
    here = sidecar.ask("customers.get", {"customer_id": "odd"})
    assert _of(here) == [("r3", 4, 3), ("r5", 2, 2)]
    assert here["balances"]["usd_credits"]["breakdown"][0]["plan_id"] is None
    assert here["billing_controls"]["spend_limits"][0]["overage_limit"] == 5
    assert _import(autumn, sidecar, "--skip-unknown").returncode == 0
    assert sidecar.verify().returncode == 0


def test_many_pages_and_a_source_that_stumbles(autumn: AutumnStandIn, sidecar: SidecarProcess) -> None:
    """A 429 and a 502 are waited for; every page is read once, and nobody is left out."""
    autumn.customers = [customer(f"c{number}") for number in range(120)]
    autumn.failures = [
        (429, {"Retry-After": "0"}, {"message": "Rate limit exceeded.", "code": "rate_limit_exceeded"}),
        (502, {}, {"message": "bad gateway"}),
    ]
    made = _import(autumn, sidecar)
    assert made.stdout.startswith("120 customers: 120 created"), made.stdout + made.stderr
    assert autumn.cursors == ["", "after-50", "after-100"]
    assert sidecar.ask("customers.get", {"customer_id": "c119"})["subscriptions"] == []


def test_a_source_of_an_older_version_is_read_too(autumn: AutumnStandIn, sidecar: SidecarProcess) -> None:
    """A server that somebody runs from the public source does not know the newest version."""
    autumn.versions = ("2.3.0",)
    assert _import(autumn, sidecar).stdout.startswith("3 customers: 3 created")


@pytest.mark.slow
def test_a_source_that_refuses_is_one_sentence(autumn: AutumnStandIn, sidecar: SidecarProcess) -> None:
    """A wrong key, a wrong URL, a page that is no customers.list: said with the flag, and no key is printed."""
    wrong = "am_sk_test_secretsecret"
    for url, key, said in (
        (autumn.url, wrong, "--key: the source does not accept it"),
        (f"{autumn.url}/other", KEY, "--url: the source answers 404: Not found"),
        ("autumn", KEY, "--url: not a URL"),
        ("ftp://127.0.0.1", KEY, "--url: not a URL"),
    ):
        ended = _run(sidecar, "--url", url, "--key", key)
        assert ended.returncode == 1
        assert said in ended.stderr, ended.stderr
        assert "secretsecret" not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
    autumn.failures = [(200, {}, {"rows": "[]"})]
    assert "is no customers.list" in _import(autumn, sidecar).stderr


def _import(autumn: AutumnStandIn, sidecar: SidecarProcess, *more: str) -> subprocess.CompletedProcess[str]:
    return _run(sidecar, "--url", autumn.url, "--key", KEY, *more)


def _run(sidecar: SidecarProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return run("import", "autumn", *words, "--data-dir", str(sidecar.directory))


def _answers(sidecar: SidecarProcess) -> list[Any]:
    return [sidecar.ask("customers.get", {"customer_id": name}) for name in ("ann", "bob", "cid")]


def _of(answer: Any) -> list[tuple[str, float, float]]:
    rows = answer["balances"]["usd_credits"]["breakdown"]
    return sorted((r["id"], r["included_grant"] + r["prepaid_grant"], r["remaining"]) for r in rows)


def _rounded(there: dict[str, Any]) -> dict[str, Any]:
    return there | {"usage": round(there["usage"], 9), "remaining": round(there["remaining"], 9)}
