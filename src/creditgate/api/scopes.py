"""Which scope of an API key lets in which call. A call that is not named here is for admin alone."""

from collections.abc import Mapping

from creditgate.core.scopes import KeyScope

_READ: frozenset[KeyScope] = frozenset(("read", "admin"))
_GATE: frozenset[KeyScope] = frozenset(("gate", "admin"))
_USAGE: frozenset[KeyScope] = frozenset(("gate", "ingest", "admin"))
_ADMIN: frozenset[KeyScope] = frozenset(("admin",))
_SEEING: frozenset[KeyScope] = frozenset(("gate", "read", "admin"))

SCOPES: Mapping[str, frozenset[KeyScope]] = {
    "balances.check": _GATE,
    "check": _GATE,
    "entitled": _GATE,
    "balances.batch": _GATE,
    "balances.finalize": _GATE,
    "balances.progress": _GATE,
    "balances.track": _USAGE,
    "balances.batch_track": _USAGE,
    "track": _USAGE,
    "events": _USAGE,
    "keys.mint": _SEEING,  # a token may do no more than the key that minted it
    "balances.batch_list": _READ,
    "balances.list": _READ,
    "billing.preview_attach": _READ,
    "customers.get": _READ,
    "customers.list": _READ,
    "customers.statement": _READ,
    "customer": _READ,
    "entities.get": _READ,
    "entities.list": _READ,
    "events.aggregate": _READ,
    "events.list": _READ,
    "features.get": _READ,
    "features.list": _READ,
    "plans.get": _READ,
    "plans.list": _READ,
    "webhooks.get": _READ,
    "webhooks.list": _READ,
    "attach": _ADMIN,
    "balances.create": _ADMIN,
    "balances.delete": _ADMIN,
    "balances.update": _ADMIN,
    "billing.attach": _ADMIN,
    "billing.multi_attach": _ADMIN,
    "billing.update": _ADMIN,
    "customers": _ADMIN,
    "customers.advance_test_clock": _ADMIN,
    "customers.delete": _ADMIN,
    "customers.get_or_create": _ADMIN,
    "customers.update": _ADMIN,
    "entities.create": _ADMIN,
    "entities.delete": _ADMIN,
    "entities.update": _ADMIN,
    "features.create": _ADMIN,
    "features.delete": _ADMIN,
    "features.update": _ADMIN,
    "plans.create": _ADMIN,
    "plans.delete": _ADMIN,
    "plans.update": _ADMIN,
    "usage": _ADMIN,
    "webhooks.create": _ADMIN,
    "webhooks.delete": _ADMIN,
    "webhooks.update": _ADMIN,
}


def scopes_of(call: str) -> frozenset[KeyScope]:
    """Return the scopes that may make a call, under any of its names."""
    return SCOPES.get(call, _ADMIN)
