"""API keys. Only the SHA-256 of a key is kept: a random key of 256 bits needs no slow hash.

A key is a document of the journal like any other, and stays one when it has ended: who had access is never forgotten.
Every process looks for changes each FOLLOW_TICK_S, so what was revoked is let in no longer than that.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from creditgate.balances.clock import RedisClock
from creditgate.balances.store import BalanceStore
from creditgate.core.decisions import Status
from creditgate.core.journal import SYSTEM_PARTITION, Call
from creditgate.core.scopes import KeyScope
from creditgate.engine.attempts import Applied, Attempts
from creditgate.engine.documents import PUT_ROUNDS_MAX
from creditgate.engine.ids import OpIds
from creditgate.errors import Conflict, InvalidInputs, NotFound, Undecided

FOLLOW_TICK_S = 0.5
KEYS_MAX = 1000  # that are live at one time
NAME_CHARACTERS_MAX = 100
ID_CHARACTERS = 12  # of the hash, by which people name a key

_TYPE = "key"


class ApiKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a key under its hash. It is let in until `ends_at`, in ms, which revoking sets to now."""

    created_at: int
    name: str = "default"
    scope: KeyScope = "admin"
    last_four: str = ""
    ends_at: int | None = None

    def is_live(self, now_ms: int) -> bool:
        return self.ends_at is None or now_ms < self.ends_at


class NewKey(NamedTuple):
    """A key that was just made. Its secret is never seen again."""

    id: str
    secret: str


Keys = Mapping[str, ApiKey]


class Access:
    """The keys of one environment, by hash."""

    def __init__(self, store: BalanceStore, attempts: Attempts, op_ids: OpIds, clock: RedisClock) -> None:
        self._store = store
        self._attempts = attempts
        self._op_ids = op_ids
        self._clock = clock
        self._version = -1
        self._keys: dict[str, ApiKey] = {}
        self.scopes: Mapping[str, KeyScope] = {}  # by digest, of the keys that were live when we last looked

    async def find(self, digest: str) -> KeyScope | None:
        """Return what the key of this digest is for; one that is not known makes us look for new ones once."""
        if digest not in self.scopes:
            await self.follow()
        return self.scopes.get(digest)

    async def follow(self) -> None:
        """Let in no more what has ended, and take over what was changed elsewhere."""
        self._look_at_clock()  # first, since this needs no Redis
        await self._refresh()

    async def first_key(self, environment: str, now_ms: int) -> str | None:
        """Make the first key and return its secret, which is never seen again; None if there ever was one."""

        def work_out(keys: Keys) -> ApiKey | None:
            return None if keys else ApiKey(created_at=now_ms, last_four=secret[-4:])

        secret = _new_secret(environment)
        return secret if await self._put("key.create", digest_of(secret), work_out) else None

    async def create(
        self, environment: str, *, name: str, scope: KeyScope, ends_at: int | None = None
    ) -> NewKey:
        """Make a key; raises InvalidInputs for a name that cannot be shown, Conflict if there are too many keys."""
        if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
            raise InvalidInputs(f"name: must have 1 to {NAME_CHARACTERS_MAX} characters that can be printed")
        now = self._clock.now_ms()

        def work_out(keys: Keys) -> ApiKey:
            if sum(key.is_live(now) for key in keys.values()) >= KEYS_MAX:
                raise Conflict(f"There are {KEYS_MAX} keys already; revoke some", code="too_many_keys")
            return ApiKey(now, name, scope, secret[-4:], ends_at)

        secret = _new_secret(environment)
        digest = digest_of(secret)
        await self._put("key.create", digest, work_out)
        return NewKey(digest[:ID_CHARACTERS], secret)

    async def list(self) -> list[tuple[str, ApiKey]]:
        """Return every key that there ever was with its id, the oldest first."""
        await self._refresh()
        by_age = sorted(self._keys.items(), key=lambda item: item[1].created_at)
        return [(digest[:ID_CHARACTERS], key) for digest, key in by_age]

    async def revoke(self, key_id: str, *, in_ms: int = 0) -> ApiKey:
        """Let a key end, now or in so long, but never later than it would anyway; returns it. Raises as `named`."""
        await self._refresh()
        digest = named(self._keys, key_id)
        at = self._clock.now_ms() + in_ms

        def work_out(keys: Keys) -> ApiKey:
            ends_at = keys[digest].ends_at
            return msgspec.structs.replace(keys[digest], ends_at=at if ends_at is None else min(at, ends_at))

        revoked = await self._put("key.revoke", digest, work_out)
        assert revoked is not None
        return revoked

    async def rotate(self, environment: str, key_id: str, *, overlap_ms: int) -> NewKey:
        """Make a key like this one, which goes on for `overlap_ms`; raises as `named`, and Conflict if it has ended."""
        await self._refresh()
        old = self._keys[named(self._keys, key_id)]
        if not old.is_live(self._clock.now_ms()):
            raise Conflict(f"Key {key_id} has ended; create another", code="key_ended")
        made = await self.create(environment, name=old.name, scope=old.scope, ends_at=old.ends_at)
        await self.revoke(key_id, in_ms=overlap_ms)
        return made

    async def _put(self, verb: str, digest: str, work_out: Callable[[Keys], ApiKey | None]) -> ApiKey | None:
        """Put what is worked out from the keys as they are now; None if that is nothing."""
        for _ in range(PUT_ROUNDS_MAX):
            await self._refresh()
            key = work_out(self._keys)
            if key is None:
                return None
            call, document = (
                Call(verb=verb, op_id=self._op_ids.next(), catalog_version=0),
                msgspec.json.encode(key),
            )
            written = await self._attempts.write(
                SYSTEM_PARTITION,
                call.op_id,
                lambda not_after, call=call, document=document: self._store.put(  # type: ignore[misc]
                    not_after=not_after,
                    call=call,
                    document_type=_TYPE,
                    document_id=digest,
                    expected_version=self._version,
                    document=document,
                ),
            )
            if isinstance(written, Applied) or written.status is Status.OK:
                await self._refresh()
                return key
        raise Undecided("The API keys are being changed by too many others at once; nothing was changed")

    async def _refresh(self) -> None:
        version = await self._attempts.ask_version(
            lambda: self._store.documents_version(_TYPE), known=self._version
        )
        if version != self._version:
            self._version, documents = await self._attempts.ask(lambda: self._store.documents(_TYPE))
            self._keys = {
                digest: msgspec.json.decode(text, type=ApiKey) for digest, text in documents.items()
            }
            self._look_at_clock()

    def _look_at_clock(self) -> None:
        now = self._clock.now_ms()
        self.scopes = {digest: key.scope for digest, key in self._keys.items() if key.is_live(now)}


def named(keys: Keys, key_id: str) -> str:
    """Return the hash that begins with this id; NotFound `key_not_found` unless it is one key's."""
    found = [digest for digest in keys if key_id and digest.startswith(key_id)]
    if len(found) != 1:
        raise NotFound(f"Key {key_id} not found; `creditgate key list` names them all", code="key_not_found")
    return found[0]


def digest_of(secret: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _new_secret(environment: str) -> str:
    return f"cg_sk_{environment}_{secrets.token_urlsafe(32)}"
