"""Callers' idempotency keys: what a key is, and what is said when it is used for something else."""

import hashlib
from typing import NamedTuple

from creditgate.errors import KeyReused

# A version or shape that no data ever has. A call that expects it changes nothing: it only asks about its key.
NEVER = 999_999_999_999_999


class CallerKey(NamedTuple):
    """A key as the caller sent it.

    `scope` is the verb and where the key stood (`track:header`), `fingerprint` a digest in hex of the parameters.
    """

    scope: str
    text: str
    fingerprint: str

    @property
    def digest(self) -> str:
        """The name under which the key is remembered, for one customer: scopes never meet."""
        return hashlib.blake2b(f"{self.scope} {self.text}".encode(), digest_size=16).hexdigest()


def key_reused(key: CallerKey | None) -> KeyReused:
    """Return the error for a key that came back with other parameters."""
    text = key.text if key else ""
    return KeyReused(f"Idempotency key {text} was already used with other parameters")
