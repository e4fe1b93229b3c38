"""A lease: one process of many does a piece of work.

`Lease` saves work and guards nothing: a process that was paused does not notice that its lease ran out.
`SoleLease` guards, together with the scripts: what is sent under it has a `not_after` within it, past which Redis
refuses the call, and who takes it over waits until no call of an earlier holder can arrive any more.
"""

import asyncio
import secrets

from creditgate.balances.clock import RedisClock
from creditgate.balances.store import BalanceStore, Unknown
from creditgate.errors import CreditgateError, Unavailable


class LeaseOver(CreditgateError):
    """The lease ran out, or was lost if only for a moment: nothing was sent under it."""

    code = "lease_over"


class Lease:
    """The right to one piece of work by name, for `ttl_ms` after each `hold`."""

    def __init__(self, store: BalanceStore, name: str, *, ttl_ms: int) -> None:
        self._store = store
        self._name = name
        self._ttl_ms = ttl_ms
        self._holder = secrets.token_hex(8)
        self._held_at = 0  # in Redis's time, as all instants here
        self.taken_at: int | None = None
        """Since when it has been ours without a break; None while it is not."""

    async def hold(self) -> bool:
        """Take or renew it; False if another process has it or Redis does not answer."""
        try:
            held = await self._store.lease(name=self._name, holder=self._holder, ttl_ms=self._ttl_ms)
        except (Unknown, Unavailable):
            return False
        if not held.is_ours:
            self.taken_at = None
            return False
        if self.taken_at is None or not held.was_ours:
            self.taken_at = held.time
        self._held_at = held.time
        return True

    async def is_free(self) -> bool:
        """Say whether no other process has it, without taking it; raises what the store raises."""
        return (await self._store.lease(name=self._name, holder=self._holder, ttl_ms=0)).is_ours

    async def release(self) -> None:
        """Give it back, if it is ours and Redis answers."""
        self.taken_at = None
        try:
            await self._store.lease(name=self._name, holder=self._holder, ttl_ms=0)
        except (Unknown, Unavailable):
            return


class SoleLease(Lease):
    """A lease under which nothing of two processes ever takes effect at the same time."""

    def __init__(self, store: BalanceStore, clock: RedisClock, name: str, *, ttl_ms: int) -> None:
        super().__init__(store, name, ttl_ms=ttl_ms)
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    @property
    def is_alone(self) -> bool:
        """Whether no call of an earlier holder can take effect any more: the longest lease they had is over.

        Also by the clock of a cluster's node that is behind; nobody is alone while one is behind by too much.
        """
        if self.taken_at is None or self._clock.apart_ms > self._clock.apart_max_ms:
            return False
        return self._held_at > self.taken_at + self._ttl_ms + self._clock.apart_max_ms

    async def keep(self) -> None:
        """Renew it when half of its time is over; LeaseOver if it has not been ours without a break."""
        async with self._one_at_a_time:
            taken_at = self.taken_at
            is_fresh = self._clock.now_ms() < self._held_at + self._ttl_ms // 2
            if taken_at is None or not (is_fresh or await self.hold()) or self.taken_at != taken_at:
                raise LeaseOver(f"The lease {self._name} is over")

    def within(self, not_after: int) -> int:
        """Return the instant, or the end of the lease if that comes first; LeaseOver if it has come."""
        until = self._held_at + self._ttl_ms
        if self._clock.now_ms() > until:
            raise LeaseOver(f"The lease {self._name} is over")
        return min(not_after, until)
