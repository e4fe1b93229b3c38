"""check and track."""

import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from creditgate.api.calls import NO_HEADERS, Answer, Call, Verb, caller_key
from creditgate.api.problems import spooled_answer, undecided_answer
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import (
    CheckAnswer,
    TrackAnswer,
    check_answer,
    encode,
    track_answer,
)
from creditgate.api.wire.fields import read
from creditgate.api.wire.holds import LockRequest, wanted
from creditgate.api.wire.requests import CheckRequest, MakingRequest, TrackRequest, UsageRequest
from creditgate.core.decisions import Decision, Mode
from creditgate.engine.entities import Entities, NewEntity
from creditgate.engine.holds import Holds
from creditgate.engine.keys import CallerKey
from creditgate.engine.meter import Meter, Usage, refusal
from creditgate.engine.outage import Outage
from creditgate.errors import CreditgateError, InvalidInputs, NotFound, Unavailable, Undecided

T = TypeVar("T")

CLOCK_SLACK_MS = 60_000  # how far a caller's clock may be ahead of ours


class MeterRoutes:
    """The two verbs that everything else is here for."""

    def __init__(
        self,
        meter: Meter,
        holds: Holds,
        entities: Entities,
        outage: Outage,
        keys: RepeatedKeys,
        settings: ApiSettings,
    ) -> None:
        self._meter = meter
        self._holds = holds
        self._entities = entities
        self._outage = outage
        self._keys = keys
        self._settings = settings

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "balances.check": Verb(self.check, CheckRequest, CheckAnswer),
            "balances.track": Verb(self.track, TrackRequest, TrackAnswer),
        }

    def check(self, call: Call) -> Coroutine[Any, Any, Answer]:
        return self.answer_check(read(CheckRequest, call.body), call)

    async def answer_check(self, request: CheckRequest, call: Call) -> Answer:
        """Return the answer to a check that was read."""
        try:
            decision, headers = await self.checked(request, call)
        except (Undecided, Unavailable) as error:
            if not await self._is_allowed_anyway(request, error):
                raise
            return undecided_answer(request, allowed=True)
        answer = check_answer(decision, customer_id=request.customer_id, takes=request.takes)
        return Answer(encode(answer), headers=headers)

    async def _is_allowed_anyway(self, request: CheckRequest, error: CreditgateError) -> bool:
        """Say whether the feature allows what could not be decided; what would have been taken is spooled."""
        if wanted(request.lock) is not None or (request.takes and request.new_entity() is not None):
            return False
        allowed = self._outage.allows(
            customer_id=request.customer_id, feature_id=request.feature_id, nanos=request.required_nanos()
        )
        return allowed and (not request.takes or await self._outage.keeps(error))

    async def checked(self, request: CheckRequest, call: Call) -> tuple[Decision, Mapping[str, str]]:
        """Return the decision and the headers of its answer."""
        usage = Usage(
            verb="check",
            customer_id=request.customer_id,
            feature_id=request.feature_id,
            event_name=None,
            value_nanos=request.required_nanos(),
            mode=Mode.REJECT,
            properties=request.properties_text(),
            entity_id=request.entity_id,
        )
        if request.takes:
            lock = wanted(request.lock)
            key = caller_key("check", call, *_asked(usage, lock))
            return await self._with_entity(request, lambda: self._take(usage, lock, key))
        return await self._with_entity(request, lambda: self._ask(usage)), NO_HEADERS

    def _ask(self, usage: Usage) -> Coroutine[Any, Any, Decision]:
        return self._meter.check(
            customer_id=usage.customer_id,
            feature_id=usage.feature_id or "",
            required_nanos=usage.value_nanos,
            properties=usage.properties,
            entity_id=usage.entity_id,
        )

    def _with_entity(self, request: MakingRequest, ask: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Return what is answered; an entity that is not there is made, if it is said what it is, and asked once more.

        First asked and then made: a call that is refused for what it says makes nothing.
        """
        new = request.new_entity()
        return ask() if new is None else self._with_new_entity(new, ask)

    async def _with_new_entity(self, new: NewEntity, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except NotFound as error:
            if error.code != "entity_not_found":
                raise
        await self._entities.get_or_create(new)
        return await ask()

    async def _take(
        self, usage: Usage, lock: LockRequest | None, key: CallerKey | None
    ) -> tuple[Decision, Mapping[str, str]]:
        """Take what is used, for good or, with a lock, until that is finalized."""
        if key is not None:
            usage = msgspec.structs.replace(usage, key=key)
        if lock is None:
            taking = self._meter.track(usage)
        else:
            usage = msgspec.structs.replace(usage, verb="hold", mode=lock.mode(usage.mode))
            taking = self._holds.hold(usage, hold_id=lock.lock_id, expires_at=lock.expires_ms())
        decision = await self._keys.once(key, taking)
        return decision, self._keys.headers(key, decision.is_replay)

    def track(self, call: Call) -> Coroutine[Any, Any, Answer]:
        return self.answer_track(read(TrackRequest, call.body), call)

    async def answer_track(self, request: TrackRequest, call: Call) -> Answer:
        """Return the answer to a track that was read."""
        try:
            decision, headers = await self.tracked(request, call)
        except (Undecided, Unavailable) as error:
            if request.new_entity() is not None or not await self._outage.keeps(error):
                raise
            return spooled_answer(request)
        answer = track_answer(
            decision,
            customer_id=request.customer_id,
            value_nanos=request.value_nanos(),
            event_name=request.event_name,
        )
        return Answer(encode(answer), headers=headers)

    async def tracked(self, request: TrackRequest, call: Call) -> tuple[Decision, Mapping[str, str]]:
        """Return the decision and the headers of its answer; raises InvalidRequest if it was refused."""
        usage = usage_of(request, self._settings)
        lock = wanted(request.lock)
        key = caller_key("track", call, *_asked(usage, lock), in_body=request.idempotency_key)
        decision, headers = await self._with_entity(request, lambda: self._take(usage, lock, key))
        if not decision.allowed:
            raise refusal(decision, usage)
        return decision, headers


def usage_of(request: UsageRequest, settings: ApiSettings) -> Usage:
    """Return what a track asks for; InvalidInputs for a number or an instant that cannot be."""
    occurred_at = request.occurred_at()
    # In a test environment the customer's own clock may be ahead of ours.
    if settings.env == "live" and (occurred_at or 0) > _now_ms() + CLOCK_SLACK_MS:
        raise InvalidInputs("timestamp: cannot be in the future")
    return Usage(
        verb="track",
        customer_id=request.customer_id,
        feature_id=request.feature_id or None,
        event_name=request.event_name or None,
        value_nanos=request.value_nanos(),
        mode=request.overage_behavior,
        properties=request.properties_text(),
        occurred_at=occurred_at,
        entity_id=request.entity_id,
    )


def _asked(usage: Usage, lock: LockRequest | None) -> tuple[object, ...]:
    """Return what a key stands for."""
    return (usage,) if lock is None else (usage, lock)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
