"""Claims to the ids of holds: an id names one hold among those of all customers.

Before a hold is made, its id is claimed: a pointer tells whose it is, and finalizing reads it first. A pointer without
its hold means nothing, so one may be left behind when something breaks, and is taken over.
"""

from contextlib import suppress

from creditgate.balances.holds import POINTER_TTL_MS, Pointer
from creditgate.balances.store import BalanceStore
from creditgate.engine.attempts import Attempts
from creditgate.errors import Conflict, Undecided

# A claim as young as this may belong to a hold that is still being made; no call takes that long.
CLAIM_MS = 30_000


class LockTaken(Conflict):
    """The id names an open hold."""

    code = "lock_already_exists"

    def __init__(self) -> None:
        super().__init__("A lock with this ID already exists")


class Claim:
    """The claim of one call to an id. What it took itself, it alone may give back."""

    def __init__(
        self, store: BalanceStore, attempts: Attempts, hold_id: str, customer_id: str, claim_id: str
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._hold_id = hold_id
        self._mine = Pointer(claim_id, customer_id, POINTER_TTL_MS)
        self._shared: Pointer | None = None

    async def take(self) -> None:
        """Claim the id; raises Conflict `lock_already_exists` if it names a hold of another customer.

        One that this customer has claimed before is shared: hold.lua says whether the hold is still there.
        """
        other = await self._claim(self._mine, None)
        if other is None:
            return
        if other.customer_id == self._mine.customer_id:
            self._shared = other
        elif not await self._is_dead(other) or await self._claim(self._mine, other) is not None:
            raise LockTaken()

    async def keep(self) -> None:
        """Let the pointer live as long as the hold that was made, also where an earlier call had it."""
        if self._shared is not None:
            with suppress(Undecided):  # the earlier one still tells whose it is
                await self._claim(self._mine, self._shared)

    async def give_back(self) -> None:
        """Let others use the id: nothing is held under it."""
        if self._shared is None:
            with suppress(Undecided):  # without its hold it means nothing
                await self._claim(self._mine._replace(ttl_ms=0), None)

    async def _claim(self, pointer: Pointer, instead_of: Pointer | None) -> Pointer | None:
        return await self._attempts.ask(
            lambda: self._store.claim(hold_id=self._hold_id, pointer=pointer, instead_of=instead_of)
        )

    async def _is_dead(self, other: Pointer) -> bool:
        if POINTER_TTL_MS - other.ttl_ms < CLAIM_MS:
            return False
        hold = await self._attempts.ask(
            lambda: self._store.open_hold(customer_id=other.customer_id, hold_id=self._hold_id)
        )
        return hold is None
