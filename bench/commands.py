"""What the sidecar sends to Redis: recorded from the product's own code, to be sent without it."""

import asyncio
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import msgspec
from hiredis import pack_command
from redis.asyncio import Redis

from creditgate.balances.clock import RedisClock
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import Catalog
from creditgate.core.decisions import Mode, Status
from creditgate.core.journal import Call
from creditgate.engine.ids import OpIds
from creditgate.engine.needs import needs_of

# Of the tutorial's catalog; the free plan gives 5 credits, a whole message costs 0.01 of them, and so little lasts.
FEATURE = "basic_messages"
VALUE_NANOS = NANOS // 100
ANY_TIME_MS = 3_600_000  # how long a recorded script may be sent again
SCRIPTS = (BalanceStore._track, BalanceStore._check, BalanceStore._read)

Command = tuple[Any, ...]


class Recorder:
    """Stands where Redis is, and keeps the calls of scripts instead of making them."""

    def __init__(self) -> None:
        self.commands: list[tuple[Any, ...]] = []

    async def evalsha(self, sha: str, numkeys: int, *rest: Any) -> list[int]:
        self.commands.append(("EVALSHA", sha, numkeys, *rest))
        return [Status.ABSENT, 0]

    async def send(self, redis: "Redis") -> None:
        """Make the calls; raises if the server refuses one, or a script says anything but OK."""
        async with redis.pipeline(transaction=False) as together:
            for command in self.commands:
                together.execute_command(*command)
            replies = await together.execute()
        assert all(reply[0] == Status.OK for reply in replies), replies[0]


class Calls(NamedTuple):
    """Calls on the data of one prefix."""

    keys: Keys
    catalog: Catalog
    clock: RedisClock

    def commands(self, verb: str, customers: Iterable[str]) -> list[Command]:
        """Return what the sidecar sends for one call of each customer.

        `verb` is check, track, "track with key" (with a new idempotency key each), or read.
        """
        recorder = Recorder()
        store = BalanceStore(cast("Redis", recorder), self.keys, self.clock)

        async def record() -> None:
            for customer_id in customers:
                await _call(store, verb, customer_id, self.catalog)

        asyncio.run(record())
        return recorder.commands


async def _call(store: BalanceStore, verb: str, customer_id: str, catalog: Catalog) -> None:
    needs = needs_of(catalog.pools(FEATURE), VALUE_NANOS)
    if verb == "read":
        await store.read(customer_id=customer_id)
        return
    if verb == "check":
        await store.check(customer_id=customer_id, properties=[], pools=needs)
        return
    call = Call("track", OpIds().next(), catalog.version, feature_id=FEATURE, value_nanos=VALUE_NANOS)
    if verb == "track with key":
        call = msgspec.structs.replace(call, key=secrets.token_hex(16), fingerprint=secrets.token_hex(8))
    not_after = int(time.time() * 1000) + ANY_TIME_MS
    await store.track(
        not_after=not_after, customer_id=customer_id, call=call, mode=Mode.CAP, properties=[], pools=needs
    )


def packed(commands: Sequence[Command]) -> list[bytes]:
    """Return commands as they are sent."""
    return [pack_command(command) for command in commands]
