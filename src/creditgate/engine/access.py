"""API keys. Only the SHA-256 of a key is kept: a random key of 256 bits needs no slow hash."""

import hashlib
import secrets

import msgspec

from creditgate.balances.store import BalanceStore
from creditgate.core.decisions import Status
from creditgate.core.journal import SYSTEM_PARTITION, Call
from creditgate.engine.attempts import Applied, Attempts
from creditgate.engine.ids import OpIds
from creditgate.errors import Undecided

_TYPE = "key"


class ApiKey(msgspec.Struct, frozen=True):
    """What is kept of a key; its id is the hash."""

    created_at: int
    name: str = "default"


class Access:
    """The keys of one environment, by hash."""

    def __init__(self, store: BalanceStore, attempts: Attempts, op_ids: OpIds) -> None:
        self._store = store
        self._attempts = attempts
        self._op_ids = op_ids
        self._version = -1
        self._hashes: frozenset[str] = frozenset()

    def has(self, digest: str) -> bool:
        """Say whether the key of this digest was there when we last looked."""
        return digest in self._hashes

    async def allows(self, secret: str) -> bool:
        """Say whether this is one of the keys; one that is not known makes us look for new ones once."""
        digest = digest_of(secret)
        return self.has(digest) or digest in await self.refresh()

    async def first_key(self, environment: str, now_ms: int) -> str | None:
        """Make the first key and return its secret, which is never seen again; None if there is one already."""
        if await self.refresh():
            return None
        secret = f"cg_sk_{environment}_{secrets.token_urlsafe(32)}"
        call = Call(verb="key.create", op_id=self._op_ids.next(), catalog_version=0)
        written = await self._attempts.write(
            SYSTEM_PARTITION,
            call.op_id,
            lambda not_after: self._store.put(
                not_after=not_after,
                call=call,
                document_type=_TYPE,
                document_id=digest_of(secret),
                expected_version=self._version,
                document=msgspec.json.encode(ApiKey(created_at=now_ms)),
            ),
        )
        if isinstance(written, Applied) or written.status is Status.OK:
            await self.refresh()
            return secret
        if await self.refresh():  # another sidecar was first
            return None
        raise Undecided("The first API key could not be made")

    async def refresh(self) -> frozenset[str]:
        """Read the keys again if there are others; returns their digests."""
        version = await self._attempts.ask(lambda: self._store.documents_version(_TYPE))
        if version != self._version:
            self._version, documents = await self._attempts.ask(lambda: self._store.documents(_TYPE))
            self._hashes = frozenset(documents)
        return self._hashes


def digest_of(secret: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
