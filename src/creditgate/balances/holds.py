"""Holds in Redis: made, settled, and found by the id that the caller gave them.

A hold lies in its customer's record. Whose it is tells a *pointer*: a key of its own, taken before the hold is made, so
that an id names one hold among those of all customers. A pointer without its hold means nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from creditgate.balances.calls import (
    Need,
    Reply,
    ScriptCalls,
    balances_in,
    moved_in,
    needs_sent,
    text_of,
)
from creditgate.balances.keys import encoded
from creditgate.balances.scripts import Argument, Script
from creditgate.balances.terms import terms_of
from creditgate.core.decisions import Mode, Status, status_of
from creditgate.core.holds import HOLD_LIMITS, HOURS_MS, Held, Hold, Limits, decode_hold
from creditgate.core.journal import Call, encode_call

POINTER_TTL_MS = HOLD_LIMITS.lasts_ms_max + HOURS_MS  # an hour longer than any hold
FINALS_MAX = 16  # as in lua/lib/settling.lua


class Final(NamedTuple):
    """How one hold is settled: at so many units.

    `pools` are those that the feature has now, with the need of what was used beyond the hold.
    """

    hold_id: str
    op_id: str
    final_nanos: int
    call: Call
    properties: Sequence[str]
    pools: Sequence[Need]


class Pointer(NamedTuple):
    """Whose hold an id names. `claim_id` is that of the attempt that took it, for so many more ms."""

    claim_id: str
    customer_id: str
    ttl_ms: int

    @property
    def text(self) -> str:
        return f"{self.claim_id} {self.customer_id}"


class HoldCalls(ScriptCalls):
    """The scripts about holds."""

    _hold = Script("hold")
    _settle = Script("settle")
    _progress = Script("progress")
    _lease = Script("lease")

    async def hold(
        self,
        *,
        not_after: int,
        customer_id: str,
        call: Call,
        mode: Mode,
        hold_id: str,
        expires_at: int | None,
        limits: Limits,
        properties: Sequence[str],
        pools: Sequence[Need],
    ) -> Reply:
        """Take (or give) what the pools need, and remember it; `properties` as for `track`.

        REFUSED and REPLAYED carry the balances as they are.
        """
        keys = [self._keys.record(customer_id), self._keys.journal_of(customer_id), self._due_of(customer_id)]
        keys += self._buckets(customer_id, call)
        head: list[Argument] = [not_after, customer_id, encode_call(call), call.key, call.fingerprint]
        head += [call.op_id, mode, encoded(hold_id), expires_at if expires_at is not None else ""]
        head += [*limits, call.properties, " ".join(properties)]
        return _reply(await self._run(self._hold, keys, [*head, *needs_sent(pools)]), hold_id)

    async def settle(
        self, *, not_after: int, customer_id: str, expected_sequence: int | None, finals: Sequence[Final]
    ) -> Reply:
        """Settle at most FINALS_MAX holds, all or none; the caller's key is that of the first.

        With the sequence number that was read, also while something of the customer is due.
        """
        first = finals[0].call
        keys = [self._keys.record(customer_id), self._keys.journal_of(customer_id)]
        keys += self._buckets(customer_id, first)
        arguments: list[Argument] = [not_after, customer_id]
        arguments += [expected_sequence if expected_sequence is not None else "", first.key]
        arguments += [first.fingerprint, len(finals)]
        for final in finals:
            arguments += [encoded(final.hold_id), final.op_id, final.final_nanos, encode_call(final.call)]
            arguments += [" ".join(final.properties), len(final.pools), *needs_sent(final.pools)]
        return _reply(await self._run(self._settle, keys, arguments), "")

    async def progress(
        self, *, not_after: int, customer_id: str, call: Call, hold_id: str, used: int
    ) -> Reply:
        """Remember how many units (in nanos) were used so far, if that is more than before."""
        keys = [self._keys.record(customer_id), self._keys.journal_of(customer_id)]
        arguments: list[Argument] = [not_after, customer_id, encode_call(call), encoded(hold_id), used]
        return _reply(await self._run(self._progress, keys, arguments), hold_id)

    async def open_hold(self, *, customer_id: str, hold_id: str) -> Hold | None:
        """Return a customer's open hold, None if there is none of that id."""
        field = f"h:{encoded(hold_id)}"
        raw = await self._asked("open_hold", self._redis.hget(self._keys.record(customer_id), field))
        return decode_hold(raw) if raw is not None else None

    async def pointer(self, *, hold_id: str) -> Pointer | None:
        """Return whose hold an id names, None if nobody has used it lately."""
        raw = await self._asked("pointer", self._redis.get(self._keys.pointer(hold_id)))
        return _pointer(raw, 0) if raw is not None else None

    async def claim(self, *, hold_id: str, pointer: Pointer, instead_of: Pointer | None) -> Pointer | None:
        """Take the pointer of an id if it is free, or `instead_of` has it; else return who has it.

        A pointer with `ttl_ms` 0 gives back what that attempt took.
        """
        other = instead_of.text if instead_of else ""
        arguments: list[Argument] = [pointer.text, pointer.ttl_ms, other]
        raw = await self._run(self._lease, [self._keys.pointer(hold_id)], arguments)
        return _pointer(raw[2], raw[3]) if raw[0] != Status.OK else None

    async def restore_pointer(self, *, hold_id: str, pointer: Pointer) -> None:
        """Let an id name this customer's hold again, whatever it names now."""
        await self._redis.set(self._keys.pointer(hold_id), pointer.text, px=pointer.ttl_ms)


def _reply(raw: Sequence[Any], hold_id: str) -> Reply:
    if len(raw) == 2:
        return Reply(status_of(raw[0]), raw[1])
    balances, rest = balances_in(raw, 7)
    return Reply(
        status_of(raw[0]),
        raw[1],
        raw[2],
        terms_of(raw[4]),
        balances,
        moved_in(raw, rest),
        raw[5],
        held=Held(hold_id, decode_hold(raw[6])) if raw[6] else None,
    )


def _pointer(raw: bytes, ttl_ms: int) -> Pointer:
    claim_id, _, customer_id = text_of(raw).partition(" ")
    return Pointer(claim_id, customer_id, ttl_ms)
