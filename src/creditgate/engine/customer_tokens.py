"""Tokens of customers: what a web page is given to look at one customer, and at nobody else.

Nothing is kept of a token: it says whose it is, until when, and by which API key it was minted, and is signed with the
secret of the data. It may do no more than that key, and ends with it.
"""

import hashlib
from typing import NamedTuple

import msgspec
from itsdangerous import BadSignature, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from creditgate.balances.clock import RedisClock

PREFIX = "cg_ct_"


class CustomerToken(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: the customer, the digest of the key that minted it, until when it holds (Unix ms)."""

    customer_id: str
    key: str
    ends_at: int


class Minted(NamedTuple):
    """A token that was just minted."""

    text: str
    ends_at: int


class CustomerTokens:
    """Mints tokens, and reads those that it minted."""

    def __init__(self, secret: str, environment: str, clock: RedisClock) -> None:
        self._signer = Signer(secret, salt="customer token", digest_method=hashlib.sha256)
        self._prefix = f"{PREFIX}{environment}_"
        self._clock = clock

    def mint(self, customer_id: str, *, key: str, lasts_ms: int) -> Minted:
        """Return a token for a customer, there or not; `key` is the digest of the caller's API key."""
        token = CustomerToken(customer_id, key, self._clock.now_ms() + lasts_ms)
        said = self._prefix.encode() + base64_encode(msgspec.json.encode(token))
        return Minted(self._signer.sign(said).decode(), token.ends_at)

    def read(self, text: str) -> CustomerToken | None:
        """Return what a token says; None unless it was minted here, as it is, and still holds."""
        try:
            said = self._signer.unsign(text)
        except (BadSignature, UnicodeEncodeError):
            return None
        token = msgspec.json.decode(base64_decode(said[len(self._prefix) :]), type=CustomerToken)
        return token if self._clock.now_ms() < token.ends_at else None
