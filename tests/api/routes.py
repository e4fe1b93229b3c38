"""The routes without anything behind them: what can be known of the API without a server; and what examples need."""

from collections.abc import Mapping
from typing import Any

import httpx
from starlette.applications import Starlette

from creditgate.api.app import ApiSettings, create_app, tables
from creditgate.api.calls import Verb
from tests.sidecar_process import SidecarProcess

_NOTHING: Any = None
_SETTINGS = ApiSettings(env="test")


def verbs() -> Mapping[str, Verb]:
    """Return the table of every verb."""
    table, _ = tables(
        meter=_NOTHING,
        batches=_NOTHING,
        customers=_NOTHING,
        catalogs=_NOTHING,
        billing=_NOTHING,
        tokens=_NOTHING,
        history=_NOTHING,
        spans=_NOTHING,
        aggregates=_NOTHING,
        entities=_NOTHING,
        customer_list=_NOTHING,
        holds=_NOTHING,
        statements=_NOTHING,
        endpoints=_NOTHING,
        outage=_NOTHING,
        settings=_SETTINGS,
    )
    return table


def app() -> Starlette:
    """Return the application; its routes can be looked at, not called."""
    return create_app(
        meter=_NOTHING,
        batches=_NOTHING,
        customers=_NOTHING,
        catalogs=_NOTHING,
        billing=_NOTHING,
        tokens=_NOTHING,
        access=_NOTHING,
        history=_NOTHING,
        spans=_NOTHING,
        aggregates=_NOTHING,
        entities=_NOTHING,
        customer_list=_NOTHING,
        holds=_NOTHING,
        statements=_NOTHING,
        endpoints=_NOTHING,
        outage=_NOTHING,
        ready=_NOTHING,
        numbers=_NOTHING,
        settings=_SETTINGS,
    )


def prepare_examples(sidecar: SidecarProcess) -> None:
    """Give the tutorial's user_123 a plan that is paid for, and make the locks that examples name, of another.

    And seats, which entities can be of, an entity and a webhook, for whoever asks in another order than that of the
    examples.
    """
    for customer_id in ("user_123", "user_124", "user_125"):
        sidecar.ask("customers.get_or_create", {"customer_id": customer_id})
    url = sidecar.ask("billing.attach", {"customer_id": "user_123", "plan_id": "pro"})["payment_url"]
    assert httpx.post(url).status_code == 303
    for lock_id in ("call_1", "call_2"):
        held = {"customer_id": "user_124", "feature_id": "basic_messages", "value": 4}
        sidecar.ask("balances.track", held | {"lock": {"lock_id": lock_id}})
    seats = {"feature_id": "seats", "name": "Seats", "type": "metered", "consumable": False}
    sidecar.ask("features.create", seats)
    sidecar.ask("entities.create", {"customer_id": "user_123", "entity_id": "kept", "feature_id": "seats"})
    sidecar.ask("webhooks.create", {"id": "kept", "url": "https://example.com/hooks"})
