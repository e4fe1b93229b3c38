"""What the scripts of tests/sdk were answered: each is run once for each client, against a fresh sidecar."""

import pytest

from tests.sdk.clients import (
    AUTUMN_JS,
    CLIENTS,
    LEGACY_JS,
    LEGACY_SDK,
    NEWEST,
    Answers,
    answers_of,
    answers_on_demo,
    answers_without_redis,
)


@pytest.fixture(scope="module", params=CLIENTS, ids=str)
def tutorial(request: pytest.FixtureRequest) -> Answers:
    """The tutorial from features to the second month, with each client."""
    return answers_of(request.param, "tutorial")


@pytest.fixture(scope="module", params=CLIENTS, ids=str)
def errors(request: pytest.FixtureRequest) -> Answers:
    """Calls that are refused and calls made twice, with each client."""
    return answers_of(request.param, "errors")


@pytest.fixture(scope="module", params=NEWEST, ids=str)
def locks(request: pytest.FixtureRequest) -> Answers:
    """Units that are held before they are used, with each client."""
    return answers_of(request.param, "locks")


@pytest.fixture(scope="module", params=NEWEST, ids=str)
def customers(request: pytest.FixtureRequest) -> Answers:
    """A back office: the list of customers, changes, cancellations and deletions, with each client."""
    return answers_of(request.param, "customers")


@pytest.fixture(scope="module", params=NEWEST, ids=str)
def entities(request: pytest.FixtureRequest) -> Answers:
    """Seats of a customer, with each client."""
    return answers_of(request.param, "entities")


@pytest.fixture(scope="module", params=NEWEST, ids=str)
def usage(request: pytest.FixtureRequest) -> Answers:
    """Usage in a batch, listed and added up, with each client."""
    return answers_of(request.param, "usage")


@pytest.fixture(scope="module", params=NEWEST, ids=str)
def outage(request: pytest.FixtureRequest) -> Answers:
    """Calls while Redis does not answer, with each client."""
    return answers_without_redis(request.param, "outage")


@pytest.fixture(scope="module")
def backend() -> Answers:
    """An application's backend with the routes of autumn-js."""
    return answers_of(AUTUMN_JS, "backend")


@pytest.fixture(scope="module")
def react() -> Answers:
    """A page with the React hook of autumn-js, and the backend it asks."""
    return answers_of(AUTUMN_JS, "react")


@pytest.fixture(scope="module")
def legacy_python() -> Answers:
    """An application of API 2.0, in Python."""
    return answers_on_demo(LEGACY_SDK, "legacy")


@pytest.fixture(scope="module")
def legacy_python_outage() -> Answers:
    """An application of API 2.0 while Redis does not answer."""
    return answers_without_redis(LEGACY_SDK, "legacy_outage")


@pytest.fixture(scope="module")
def legacy_js() -> Answers:
    """An application of API 1.2, in JavaScript."""
    return answers_on_demo(LEGACY_JS, "legacy")
