"""Calls that Schemathesis makes up from the OpenAPI document: those it allows, and those it does not.

It walks the edges of every schema and then draws at random, always from the same seed. Half of the ids are of the
tutorial's catalog, so that calls get past "not found".
"""

from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import schemathesis
from schemathesis import Case, GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from creditgate.api.examples import EXAMPLES
from creditgate.api.openapi import document
from tests.api.routes import verbs
from tests.sidecar_process import CALL_SECONDS_MAX, SidecarProcess

SEED = 20_26
EXAMPLES_EACH = 20  # drawn for each operation, on top of the edges
EXAMPLES_EACH_SLOW = 300
CASES_MIN = 1_500  # the edges alone are more

KNOWN = {
    "customer_id": ["user_123"],
    "feature_id": ["basic_messages", "usd_credits"],
    "plan_id": ["pro", "top_up"],
}


class Tally:
    """Sends cases and counts what they were answered."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        self.sidecar = sidecar
        self._headers = sidecar.headers
        self.statuses: Counter[int] = Counter()
        self._numbers = count()

    def send(self, case: Case[Any]) -> None:
        """Send a case, and check the answer against the document: status, type, shape, who is let in."""
        if "Idempotency-Key" in case.headers:  # one that came before, or is none, would end the call at once
            case.headers["Idempotency-Key"] = f"key-{next(self._numbers)}"
        answer = case.call(self.sidecar.url, headers=self._headers, timeout=CALL_SECONDS_MAX)
        self.statuses[answer.status_code] += 1
        # A call can be well formed and still break a rule, as a clock that is set back. What is checked instead is
        # that it is not refused for its form.
        case.validate_response(
            answer, headers=self._headers, excluded_checks=[positive_data_acceptance, ignored_auth]
        )
        if answer.status_code == 400 and _is_allowed(case):
            assert "(received " not in answer.text, f"{case.body!r}\n{answer.text}"

    def check(self, said: Callable[[str, object], None]) -> None:
        """Say how many cases there were; none was answered 5xx, and the books hold after all of it."""
        total = sum(self.statuses.values())
        by_status = ", ".join(f"{number} × {code}" for code, number in sorted(self.statuses.items()))
        said("said", f"{total} cases: {by_status}")
        assert total >= CASES_MIN
        assert self.statuses[200] >= total / 20, "hardly any call gets as far as doing something"
        assert not [code for code in self.statuses if code >= 500]
        proof = self.sidecar.verify()
        assert proof.returncode == 0, proof.stdout


@pytest.fixture(scope="module")
def tally(demo: SidecarProcess) -> Tally:
    """The tally of this module's run."""
    for verb, body in EXAMPLES.items():
        if not verb.endswith((".delete", ".advance_test_clock")):
            demo.ask(verb, body)
    return Tally(demo)


def _schema(examples: int) -> BaseSchema:
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "generation": {
                "max-examples": examples,
                "database": "none",
                "deterministic": True,
                "with-security-parameters": False,  # who is let in is tested elsewhere
            },
            "dictionaries": {name: {"values": values} for name, values in KNOWN.items()},
            "parameters": {
                "header.x-api-version": "2.4.0",
                **{f"body.{name}": {"dictionary": name, "probability": 0.5} for name in KNOWN},
            },
            "analysis": {"constants": {"enabled": False}},  # else it draws words from these very tests
        }
    )
    return schemathesis.openapi.from_dict(document(verbs()), config=config)


@pytest.mark.timeout(120)
@_schema(EXAMPLES_EACH).parametrize()
def test_whatever_is_called(case: Case[Any], tally: Tally) -> None:
    """Nothing that can be written down as a call is answered otherwise than the document says."""
    tally.send(case)


def test_none_was_a_5xx(tally: Tally, record_property: Callable[[str, object], None]) -> None:
    """An SDK takes a 5xx on check for "allowed", so here a crash would be free access."""
    tally.check(record_property)


@pytest.mark.slow
@pytest.mark.timeout(300)
@_schema(EXAMPLES_EACH_SLOW).parametrize()
def test_whatever_is_called_at_length(case: Case[Any], tally: Tally) -> None:
    """The same, fifteen times as long."""
    tally.send(case)


@pytest.mark.slow
def test_none_was_a_5xx_at_length(tally: Tally, record_property: Callable[[str, object], None]) -> None:
    """The same, after the long run."""
    tally.check(record_property)


def _is_allowed(case: Case[Any]) -> bool:
    return case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
