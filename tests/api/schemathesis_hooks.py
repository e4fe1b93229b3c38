"""What Schemathesis loads for test_made_up_calls.py: fresh idempotency keys, and one more check."""

from itertools import count
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, GenerationMode, HookContext, Response

_numbers = count()
_KEPT = {"customer_id": "user_123", "entity_id": "kept"}


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """Keep the later calls going: a key that came before would end them at once, and so would what is gone."""
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"key-{next(_numbers)}"
    if case.operation.label == "POST /v1/customers.delete" and case.body == {"customer_id": "user_123"}:
        case.body = {"customer_id": "user_125"}
    if case.operation.label == "POST /v1/entities.delete" and case.body == _KEPT:
        case.body = {**_KEPT, "entity_id": "seat_1"}
    if case.operation.label == "POST /v1/entities.update" and isinstance(case.body, dict):
        case.body = {**case.body, **_KEPT} if case.body.get("entity_id") == "seat_1" else case.body
    if case.operation.label == "POST /v1/webhooks.delete" and case.body == {"id": "kept"}:
        case.body = {"id": "billing"}


@schemathesis.check
def not_refused_for_its_form(_context: CheckContext, response: Response, case: Case[Any]) -> None:
    """What the document allows may still break a rule, as a clock that is set back; it has no wrong type anywhere."""
    is_allowed = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if is_allowed and response.status_code == 400:
        assert "(received " not in response.text, response.text
