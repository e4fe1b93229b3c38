"""What Schemathesis loads for test_made_up_calls.py: fresh idempotency keys, and two more checks."""

from itertools import count
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, GenerationMode, HookContext, Response

_numbers = count()


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """Keep the later calls going: a key that came before would end them at once, and so would what is gone."""
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"key-{next(_numbers)}"
    if case.operation.label == "POST /v1/customers.delete" and case.body == {"customer_id": "user_123"}:
        case.body = {"customer_id": "user_125"}
    entity_id = case.body.get("entity_id") if isinstance(case.body, dict) else None
    if case.operation.label == "POST /v1/entities.delete" and entity_id == "kept":
        case.body = {"customer_id": "user_123", "entity_id": "seat_1"}
    reads = ("POST /v1/entities.get", "POST /v1/entities.update")
    if case.operation.label in reads and entity_id == "seat_1":
        case.body["entity_id"] = "kept"  # type: ignore[index, call-overload]
    if case.operation.label == "POST /v1/webhooks.delete" and case.body == {"id": "kept"}:
        case.body = {"id": "billing"}


@schemathesis.check
def not_refused_for_its_form(_context: CheckContext, response: Response, case: Case[Any]) -> None:
    """What the document allows may still break a rule, as a clock that is set back; it has no wrong type anywhere."""
    is_allowed = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if is_allowed and response.status_code == 400:
        assert "(received " not in response.text, response.text


@schemathesis.check
def items_are_answered_one_by_one(_context: CheckContext, response: Response, case: Case[Any]) -> None:
    """Whatever is among the items of a batch, each is answered: refused if it is no check and no track, never 5xx."""
    if case.operation.label != "POST /v1/balances.batch" or response.status_code != 200:
        return
    items: Any = case.body
    answers = response.json()
    assert len(answers) == len(items), response.text
    for item, answer in zip(items, answers, strict=True):
        is_call = isinstance(item, dict) and item.get("verb") in ("check", "track")
        assert 200 <= answer["status"] < 500, response.text
        assert is_call or answer["status"] == 400, response.text
