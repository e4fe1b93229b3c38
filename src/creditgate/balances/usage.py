"""check and track in Redis: what a call needs of a customer's balances, asked for or taken."""

from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from creditgate.balances.calls import (
    Begun,
    Need,
    Needs,
    Reply,
    ScriptCalls,
    balances_in,
    moved_in,
    needs_sent,
)
from creditgate.balances.keys import bucket_at
from creditgate.balances.merging import Merging
from creditgate.balances.prepared import KeyedUse, Prepared, PreparedUse
from creditgate.balances.scripts import Argument, Script
from creditgate.balances.terms import terms_of
from creditgate.core.decisions import Mode, Status, status_of
from creditgate.core.journal import Call, encode_call

_ANSWERS = frozenset((int(Status.OK), int(Status.REFUSED)))  # of a check
_OK = int(Status.OK)

USES_MAX = 16  # as in lua/track_event.lua
TERMS = 4  # where a reply that decides has the customer's terms


class Use(msgspec.Struct, frozen=True):
    """One feature that is used: the call as the journal has it, and what it needs of each pool of the feature."""

    call: Call
    needs: Needs


class UsageCalls(ScriptCalls):
    """The scripts about usage."""

    _track = Script("track")
    _track_event = Script("track_event")
    _check = Script("check")
    _merged = Script("merged")

    def track(
        self,
        *,
        not_after: int,
        customer_id: str,
        call: Call,
        mode: Mode,
        properties: Sequence[str],
        pools: Sequence[Need],
    ) -> Coroutine[Any, Any, Reply]:
        """Take (or give back) what the pools need; `properties` are digests of the call's own, for usage limits.

        REFUSED and REPLAYED carry the balances as they are.
        """
        keys = self._keys_of(customer_id, call)
        arguments: list[Argument] = [not_after, customer_id, encode_call(call), call.key, call.fingerprint]
        arguments += (mode, " ".join(properties), *needs_sent(pools))
        return self._run_for(self._track, keys, arguments, tracked_in)

    def track_event(
        self, *, not_after: int, customer_id: str, mode: Mode, properties: Sequence[str], uses: Sequence[Use]
    ) -> Coroutine[Any, Any, Reply]:
        """Take (or give back) what at most USES_MAX features need, all or none; the caller's key is that of the first.

        Mode cap or overflow; otherwise as `track`. What a row gave to several features is there for each.
        """
        first = uses[0].call
        arguments: list[Argument] = [not_after, customer_id, mode, " ".join(properties)]
        arguments += [first.key, first.fingerprint, len(uses)]
        for use in uses:
            arguments += [encode_call(use.call), len(use.needs), *needs_sent(use.needs)]
        return self._run_for(self._track_event, self._keys_of(customer_id, first), arguments, tracked_in)

    def check(
        self, *, customer_id: str, properties: Sequence[str], pools: Sequence[Need]
    ) -> Coroutine[Any, Any, Reply]:
        """Say whether one of the pools covers its need, and which answers; `properties` as for `track`."""
        arguments = [" ".join(properties), *needs_sent(pools)]
        return self._run_for(self._check, [self._keys.record(customer_id)], arguments, checked_in)

    def prepared_track(
        self, *, customer_id: str, call: Call, mode: Mode, properties: Sequence[str], pools: Sequence[Need]
    ) -> PreparedUse:
        """Return what `track` sends, of a call that has neither an op id nor a key yet."""
        arguments = [mode, " ".join(properties), *needs_sent(pools)]
        return PreparedUse(self._track, self._keys_of(customer_id, call), customer_id, call, arguments)

    def with_key(self, use: PreparedUse, key: str, fingerprint: str) -> KeyedUse:
        """Return what `track` sends of the same use with a caller's key."""
        now_ms = self._clock.now_ms()
        bucket = bucket_at(now_ms)
        if use.bucket != bucket:
            use.remember(bucket, self._keys.key_buckets(use.customer_id, now_ms))
        return KeyedUse(use, key, fingerprint)

    def record_of(self, customer_id: str) -> str:
        """Return the key of a customer's record."""
        return self._keys.record(customer_id)

    def track_begun(self, begun: Begun) -> Coroutine[Any, Any, Reply]:
        """As `track`, of one that was sent."""
        return self._go_on(begun, tracked_in)

    def prepared_check(
        self, *, customer_id: str, properties: Sequence[str], pools: Sequence[Need]
    ) -> Prepared:
        """Return what `check` sends."""
        arguments = [" ".join(properties), *needs_sent(pools)]
        return Prepared(self._check, [self._keys.record(customer_id)], arguments)

    def check_begun(self, begun: Begun) -> Coroutine[Any, Any, Reply]:
        """As `check`, of one that was sent."""
        return self._go_on(begun, checked_in)

    @classmethod
    def merging(cls) -> Merging:
        """Return how checks and tracks of one customer go as one call."""
        scripts = {cls._check.sha: _merged_check, cls._track.sha: _merged_track}
        return Merging(scripts, cls._merged.sha, cls._merged.source)

    def _keys_of(self, customer_id: str, call: Call) -> list[str]:
        keys = [self._keys.record(customer_id), self._keys.journal_of(customer_id)]
        return keys + self._buckets(customer_id, call) if call.key else keys


def _merged_track(arguments: Sequence[Any]) -> Sequence[Any]:
    """Return the customer, and what merged.lua wants of a track with these arguments of track.lua."""
    not_after, customer_id, call, key, fingerprint, mode, properties, *pools = arguments
    return (customer_id, not_after, call, key, fingerprint, mode, properties, len(pools) // 3, *pools)


def _merged_check(arguments: Sequence[Any]) -> Sequence[Any]:
    """As `_merged_track`, of a check with these arguments of check.lua."""
    properties, *pools = arguments
    return ("", "", "", "", "", "check", properties, len(pools) // 3, *pools)


def checked_in(raw: Sequence[Any]) -> Reply:
    """Read a reply of check.lua."""
    if len(raw) == 2:
        return Reply(status_of(raw[0]), raw[1])
    balances, _ = balances_in(raw, 6)
    return Reply(status_of(raw[0]), raw[1], raw[2], terms_of(raw[4]), balances, pool=raw[5])


def tracked_in(raw: Sequence[Any]) -> Reply:
    """Read a reply of track.lua, or track_event.lua."""
    if len(raw) == 2:
        return Reply(status_of(raw[0]), raw[1])
    balances, rest = balances_in(raw, 6)
    return Reply(
        status_of(raw[0]),
        raw[1],
        raw[2],
        terms_of(raw[4]),
        balances,
        moved_in(raw, rest),
        raw[5],
    )


def check_said_in(raw: Sequence[Any]) -> tuple[Any, ...] | None:
    """Return what a reply of check.lua says but for amounts and times, None if it does not answer.

    Of a use, two replies that say the same get answers that differ in nothing but amounts.
    """
    return (raw[0], raw[4], raw[5], raw[6], raw[7::2]) if raw[0] in _ANSWERS else None


def track_said_in(raw: Sequence[Any]) -> tuple[Any, ...] | None:
    """As `check_said_in`, of a reply of track.lua; None unless it took."""
    return (raw[4], raw[6], raw[7::2]) if raw[0] == _OK else None


def amounts_in(raw: Sequence[Any]) -> list[int]:
    """Return the amounts of such a reply: of each row, and then of each that moved what it gave (negative) or got."""
    return [*map(int, raw[8::2])]
