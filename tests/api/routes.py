"""The routes without anything behind them: what can be known of the API without a server."""

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette

from creditgate.api.app import ApiSettings, create_app, tables
from creditgate.api.calls import Verb

_NOTHING: Any = None
_SETTINGS = ApiSettings(env="test")


def verbs() -> Mapping[str, Verb]:
    """Return the table of every verb."""
    table, _ = tables(
        meter=_NOTHING,
        customers=_NOTHING,
        catalogs=_NOTHING,
        billing=_NOTHING,
        history=_NOTHING,
        customer_list=_NOTHING,
        holds=_NOTHING,
        statements=_NOTHING,
        endpoints=_NOTHING,
        settings=_SETTINGS,
    )
    return table


def app() -> Starlette:
    """Return the application; its routes can be looked at, not called."""
    return create_app(
        meter=_NOTHING,
        customers=_NOTHING,
        catalogs=_NOTHING,
        billing=_NOTHING,
        access=_NOTHING,
        history=_NOTHING,
        customer_list=_NOTHING,
        holds=_NOTHING,
        statements=_NOTHING,
        endpoints=_NOTHING,
        ready=_NOTHING,
        numbers=_NOTHING,
        settings=_SETTINGS,
    )
