"""What a web page may ask with a customer's token: to see what this customer has, and nothing that takes or makes.

Of its request only what is named here goes on to the handler, with the token's customer in it.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from creditgate.api.problems import TurnedAway
from creditgate.api.wire.fields import read_object
from creditgate.errors import InvalidRequest

_ASKED: Mapping[str, tuple[str, ...]] = {
    "balances.check": ("entity_id", "feature_id", "required_balance", "properties"),
    "customers.get": ("expand",),
}
PUBLIC = frozenset(_ASKED)

_TAKING = ("send_event", "lock", "entity_data", "customer_data")  # and what would make somebody
_NOTHING = (b"null", b"false")


def bound(verb: str, body: bytes, customer_id: str) -> bytes:
    """Return a request for a public verb as it is made for this customer; one without a customer is for this one.

    Raises TurnedAway for another customer, InvalidRequest for what would change something.
    """
    said = read_object(body)
    if "customer_id" in said and not _is(said["customer_id"], customer_id):
        raise TurnedAway(403, "insufficient_scopes", "This token is for another customer")
    for field in _TAKING:
        if bytes(said.get(field, b"null")) not in _NOTHING:
            raise InvalidRequest(f"{field}: needs a secret key")
    asked = {field: said[field] for field in _ASKED[verb] if field in said}
    return msgspec.json.encode(asked | {"customer_id": customer_id})


def _is(token: Raw, text: str) -> bool:
    try:
        return msgspec.json.decode(token, type=str) == text
    except msgspec.DecodeError:
        return False
