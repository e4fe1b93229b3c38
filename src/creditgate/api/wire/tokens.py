"""`keys.mint` on the wire."""

import msgspec

from creditgate.api.wire.fields import NotYet
from creditgate.api.wire.numbers import whole
from creditgate.api.wire.requests import CustomerRequest

LASTS_SECONDS = 3600
LASTS_SECONDS_MAX = 24 * 3600


class MintRequest(CustomerRequest, frozen=True):
    """`keys.mint`: a token with which a web page looks at this customer, for `expires_in` seconds."""

    expires_in: float = LASTS_SECONDS
    entity_id: NotYet | None = None
    indefinite: NotYet | None = None

    def lasts_ms(self) -> int:
        return whole(self.expires_in, field="expires_in", least=1, most=LASTS_SECONDS_MAX) * 1000


class MintAnswer(msgspec.Struct, frozen=True):
    """The token, and until when it holds, in Unix ms."""

    access_token: str
    expires_at: int
