"""Calls that Schemathesis makes up from the OpenAPI document: those it allows, and those it does not.

It walks the edges of every schema and then draws at random, always from the same seed. Half of the ids are of the
tutorial's catalog, so that calls get past "not found". Every answer must have a status, a type and a shape that the
document names; none may be a 5xx; what breaks the schema must be refused, and whoever has no key.

It runs as a program: its pytest plug-in gives all operations one name under pytest 9.2, so that xdist runs only one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from creditgate.api.examples import EXAMPLES
from tests.api.routes import prepare_examples
from tests.sidecar_process import SidecarProcess

EXAMPLES_EACH = 3  # drawn for each operation, on top of the edges
EXAMPLES_EACH_SLOW = 150
CASES_MIN = 1_500  # the edges alone are more
CHECKOUT = Path(__file__).parents[2]

CONFIGURATION = """
seed = 2026
hooks = "tests.api.schemathesis_hooks"
auth.openapi.secret_key.bearer = "{key}"
generation = {{ deterministic = true, database = "none" }}
analysis.constants.enabled = false # else it draws words from these very tests
checks.positive_data_acceptance.enabled = false # see the hooks

[[operations]]
include-name = "POST /v1/balances.batch"
checks.negative_data_rejection.enabled = false # a malformed item is refused inside a 200; see the hooks

[dictionaries]
customers.values = ["user_123"]
features.values = ["basic_messages", "usd_credits"]
plans.values = ["pro", "top_up"]
locks.values = ["call_2"]
webhooks.values = ["kept"]
entities.values = ["kept"]

[parameters]
"header.x-api-version" = "2.4.0"
"path.customer_id" = {{ dictionary = "customers", probability = 0.5 }}
"body.customer_id" = {{ dictionary = "customers", probability = 0.5 }}
"body.feature_id" = {{ dictionary = "features", probability = 0.5 }}
"body.lock_id" = {{ dictionary = "locks", probability = 0.5 }}
"body.entity_id" = {{ dictionary = "entities", probability = 0.5 }}
"body.id" = {{ dictionary = "webhooks", probability = 0.5 }}
"body.plan_id" = {{ dictionary = "plans", probability = 0.5 }}
"""

Say = Callable[[str, object], None]


@pytest.fixture
def fresh() -> Iterator[SidecarProcess]:
    """A sidecar with the tutorial's catalog that nobody has called yet."""
    process = SidecarProcess(arguments=["--demo"])
    try:
        yield process.start()
    finally:
        process.close()


@pytest.mark.timeout(240)
def test_whatever_is_called(fresh: SidecarProcess, tmp_path: Path, record_property: Say) -> None:
    """An SDK takes a 5xx on check for "allowed", so nothing that can be written down as a call may be one."""
    options = ["--max-examples", str(EXAMPLES_EACH), "--exclude-deprecated"]
    _call_whatever(fresh, tmp_path, record_property, options)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_whatever_is_called_at_length(fresh: SidecarProcess, tmp_path: Path, record_property: Say) -> None:
    """The same with the older routes, and longer."""
    _call_whatever(fresh, tmp_path, record_property, ["--max-examples", str(EXAMPLES_EACH_SLOW)])


def _call_whatever(sidecar: SidecarProcess, folder: Path, said: Say, options: list[str]) -> None:
    prepare_examples(sidecar)
    report = _run(sidecar, folder, options)
    cases = report["test_cases"]
    said("said", f"{cases['generated']} cases, {cases['with_failures']} of them failed")
    assert cases["generated"] >= CASES_MIN
    assert report["operations"]["tested"] == report["operations"]["selected"]
    for verb in EXAMPLES:
        phases = report["valid_rates"][f"POST /v1/{verb}"].values()
        assert sum(phase["accepted"] for phase in phases), f"{verb} never did anything"
    proof = sidecar.verify()
    assert proof.returncode == 0, proof.stdout


def _run(sidecar: SidecarProcess, folder: Path, options: list[str]) -> dict[str, Any]:
    """Run Schemathesis, which must find nothing; returns its report."""
    configuration, report = folder / "schemathesis.toml", folder / "report.json"
    configuration.write_text(CONFIGURATION.format(key=sidecar.key))
    program = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    program += ["--config-file", str(configuration)]
    where = [f"{sidecar.url}/openapi.json", "--report", "json", "--report-json-path", str(report)]
    ended = subprocess.run(
        [*program, "run", *where, "--no-color", *options],
        capture_output=True,
        check=False,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    found: dict[str, Any] = json.loads(report.read_text())
    return found
