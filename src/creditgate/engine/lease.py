"""A lease: one process of many does a piece of work. It saves work and never guards correctness."""

import secrets

from creditgate.balances.store import BalanceStore, Unknown
from creditgate.errors import Unavailable


class Lease:
    """The right to one piece of work by name, for `ttl_ms` after each `hold`."""

    def __init__(self, store: BalanceStore, name: str, *, ttl_ms: int) -> None:
        self._store = store
        self._name = name
        self._ttl_ms = ttl_ms
        self._holder = secrets.token_hex(8)

    async def hold(self) -> bool:
        """Take or renew it; False if another process has it or Redis does not answer."""
        try:
            return await self._store.lease(name=self._name, holder=self._holder, ttl_ms=self._ttl_ms)
        except (Unknown, Unavailable):
            return False

    async def is_free(self) -> bool:
        """Say whether no other process has it, without taking it; raises what the store raises."""
        return await self._store.lease(name=self._name, holder=self._holder, ttl_ms=0)

    async def release(self) -> None:
        """Give it back, if it is ours and Redis answers."""
        try:
            await self._store.lease(name=self._name, holder=self._holder, ttl_ms=0)
        except (Unknown, Unavailable):
            return
