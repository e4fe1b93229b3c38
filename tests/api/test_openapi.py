"""The OpenAPI document: valid by the letter, complete, and true of what a running sidecar says."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from starlette.routing import Route

from creditgate.api.examples import EXAMPLES
from creditgate.api.glossary import OWN_OBJECTS, REQUIRED, WORDS
from tests.api.client import ApiClient
from tests.api.routes import app, prepare_examples, verbs
from tests.sidecar_process import SidecarProcess

SCHEMAS = "#/components/schemas/"
FOR_BROWSERS = {"/checkout/{token}", "/docs", "/docs/docs.css", "/docs/redoc.standalone.js", "/openapi.json"}


@pytest.fixture(scope="module")
def api(demo: SidecarProcess) -> Iterator[ApiClient]:
    """A client of a sidecar with the tutorial's catalog."""
    client = ApiClient(demo)
    with client.http:
        yield client


@pytest.fixture(scope="module")
def document(api: ApiClient) -> Any:
    """What /openapi.json says, without a key."""
    answer = api.http.get("/openapi.json", headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    return answer.json()


def test_it_is_valid(document: Any) -> None:
    """A generator of clients reads it: it is valid by the specification's schema, and its schemas by JSON Schema's."""
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document, config=SchemathesisConfig()).validate()
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"})


def test_every_reference_leads_somewhere(document: Any) -> None:
    """No reference dangles, and nothing is described that no route reads or answers."""
    named = set(re.findall(r"'\$ref': '([^']+)'", repr(document)))
    kept = {
        f"#/components/{kind}/{name}"
        for kind, parts in document["components"].items()
        if kind != "securitySchemes"
        for name in parts
    }
    assert named == kept


def test_every_route_is_in_it(document: Any) -> None:
    """A route that somebody adds is documented by being there; only pages for browsers are not."""
    routes = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in app().routes
        if isinstance(route, Route)
        and not route.path.startswith("/v1/v1/")
        and route.path not in FOR_BROWSERS
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == routes


def test_the_examples_work_and_the_answers_are_as_described(api: ApiClient, document: Any) -> None:
    """Whoever pastes the examples in order sees what the document promises: every key of it, and no other."""
    strict = _strict(document)
    prepare_examples(api.sidecar)
    for verb, body in EXAMPLES.items():
        answer = api.call(verb, body)
        operation = document["paths"][f"/v1/{verb}"]["post"]
        status, described = next(iter(operation["responses"].items()))
        assert str(answer.status_code) == status, f"{verb}: {answer.text}"
        _validate(body, operation["requestBody"], strict)
        _validate(answer.json(), described, strict)


def test_every_verb_has_an_example() -> None:
    """The docs page shows a request that works for each verb, instead of one made of `string` and 0."""
    assert set(verbs()) == set(EXAMPLES)


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("balances.check", {"customer_id": "nobody", "feature_id": "basic_messages"}),
        ("balances.track", {"customer_id": "nobody", "feature_id": 5}),
        ("plans.get", {"plan_id": "none"}),
    ],
)
def test_errors_are_as_described(api: ApiClient, document: Any, verb: str, body: Any) -> None:
    """A client that was generated can read every error."""
    answer = api.call(verb, body)
    assert 400 <= answer.status_code < 500
    _validate(answer.json(), document["paths"][f"/v1/{verb}"]["post"]["responses"]["4XX"], _strict(document))


def test_what_is_for_operators(api: ApiClient, document: Any) -> None:
    """Health and readiness answer as described, without a key."""
    for path in ("/healthz", "/readyz"):
        answer = api.http.get(path, headers={"Authorization": ""})
        operation = document["paths"][path]["get"]
        assert operation["security"] == []
        _validate(answer.json(), operation["responses"][str(answer.status_code)], document)


def test_a_whole_number_may_be_written_with_a_point(api: ApiClient, document: Any) -> None:
    """JSON Schema counts 10.0 as an integer, Python's SDK sends it, and so it is one."""
    body = {"customer_id": "floats", "limit": 10.0, "custom_range": {"start": 0.0, "end": 2539979777.0}}
    _validate(body, document["paths"]["/v1/events.list"]["post"]["requestBody"], document)
    assert api.call("events.list", body).status_code == 200


def test_no_word_of_the_glossary_is_idle(document: Any) -> None:
    """A field that was renamed does not leave its description behind."""
    schemas = document["components"]["schemas"]
    fields = {name for schema in schemas.values() for name in schema["properties"]}
    fields |= {f"{struct}.{name}" for struct, schema in schemas.items() for name in schema["properties"]}
    assert set(WORDS) - fields == set()
    assert fields >= OWN_OBJECTS
    for name, required in REQUIRED.items():
        assert set(required) <= set(schemas[name]["required"])


def _validate(instance: Any, part: Any, document: Any) -> None:
    """Validate what is sent or answered against its part of the document."""
    schema = part["content"]["application/json"]["schema"]
    validator = jsonschema_rs.Draft202012Validator(schema | {"components": document["components"]})
    errors = [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(instance)]
    assert errors == []


def _strict(document: Any) -> Any:
    """The document as if it allowed nothing that it does not name."""
    strict = copy.deepcopy(document)
    for schema in strict["components"]["schemas"].values():
        schema["additionalProperties"] = False
    return strict
