"""check and track."""

import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from creditgate.api.calls import NO_HEADERS, Answer, Call, Verb, caller_key, caller_key_of
from creditgate.api.problems import spooled_answer, undecided_answer
from creditgate.api.routes.askers import Asker, CheckAsker, TakingCheckAsker, TrackAsker
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import (
    CheckAnswer,
    TrackAnswer,
    check_text,
    track_text,
)
from creditgate.api.wire.fields import read
from creditgate.api.wire.holds import LockRequest
from creditgate.api.wire.holds import wanted as wanted_lock
from creditgate.api.wire.requests import CheckRequest, TrackRequest, UsageRequest
from creditgate.core.decisions import Decision, Mode
from creditgate.core.remembered import Remembered
from creditgate.engine import stepping
from creditgate.engine.at_once import Asked
from creditgate.engine.entities import Entities, NewEntity
from creditgate.engine.holds import Holds
from creditgate.engine.keys import CallerKey
from creditgate.engine.meanings import Asking, Taking
from creditgate.engine.meter import Meter, refusal
from creditgate.engine.outage import Outage
from creditgate.engine.stepping import Done
from creditgate.engine.usage import Usage
from creditgate.errors import CreditgateError, InvalidInputs, NotFound, Unavailable, Undecided

T = TypeVar("T")
R = TypeVar("R", CheckRequest, TrackRequest)

Decided = tuple[Decision, Mapping[str, str]]
"""A decision, and the headers of its answer."""

CLOCK_SLACK_MS = 60_000  # how far a caller's clock may be ahead of ours
BODIES_BYTES_MAX = (
    2**19
)  # of bodies that are remembered; with what they mean and were answered, 70 to 250 times as much
BODY_REMEMBERED_MAX = 512

_KEY_FIELD = b'"idempotency_key"'
_KEY_LAST = re.compile(rb',[ \n]*"idempotency_key": ?"([\w.:~-]{1,255})"[ \n]*}')


class Wanted(NamedTuple, Generic[R]):
    """What a body asks for: the request, the use of it, how it is held, the entity to make if there is none.

    `takes`: what is allowed is taken, for good or with a lock. `asker` asks at once, for one that is plain.
    """

    request: R
    usage: Usage
    lock: LockRequest | None
    new_entity: NewEntity | None
    takes: bool = True
    asker: Asker[R, Any] | None = None


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
        self._checks = Remembered(self._read_check, BODIES_BYTES_MAX)
        self._tracks = Remembered(self._read_track, BODIES_BYTES_MAX)
        self._settings = settings

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "balances.check": Verb(self.check, CheckRequest, CheckAnswer, begin=self.begin_check),
            "balances.track": Verb(self.track, TrackRequest, TrackAnswer, begin=self.begin_track),
        }

    def check(self, call: Call) -> Coroutine[Any, Any, Answer]:
        return self.answer_check(said(self._checks, call.body), call)

    def begin_check(self, call: Call, done: Done[Answer]) -> Coroutine[Any, Any, Answer] | None:
        wanted = said(self._checks, call.body)
        return self.begin_wanted_check(wanted, wanted.asker, call, done)

    def part(self, customer_id: str) -> None:
        """Let what begins next for a customer go to Redis with nothing that was begun before it."""
        self._meter.at_once.part(customer_id)

    def begin_wanted_check(
        self,
        wanted: Wanted[CheckRequest],
        asker: Asker[CheckRequest, Any] | None,
        call: Call,
        done: Done[Answer],
    ) -> Coroutine[Any, Any, Answer] | None:
        """Begin to answer a check that was read; it goes at once if it has who asks for it."""
        if asker is None:
            return self.answer_check(wanted, call)
        if wanted.takes:
            key = caller_key_of("check", call, asker.fingerprint)
            began = self._meter.at_once.track(asker if key is None else asker.keyed(key), done)
        else:
            began = self._meter.at_once.check(asker, done)
        return None if began else self.answer_check(wanted, call)

    def wanted_by_check(self, request: CheckRequest) -> Wanted[CheckRequest]:
        """Return what a check asks for; raises InvalidInputs and InvalidRequest."""
        usage = _usage_of_check(request)
        lock, new_entity, takes = wanted_lock(request.lock), request.new_entity(), request.takes
        asker: Asker[CheckRequest, Any] | None = None
        if lock is None and new_entity is None:
            asker = (
                TakingCheckAsker(request, usage, self._go_on_taking)
                if takes
                else CheckAsker(request, usage, self._go_on_checking)
            )
        return Wanted(request, usage, lock, new_entity, takes, asker)

    def _read_check(self, body: bytes) -> Wanted[CheckRequest]:
        return self.wanted_by_check(read(CheckRequest, body))

    def answer_check(self, wanted: Wanted[CheckRequest], call: Call) -> Coroutine[Any, Any, Answer]:
        """Answer a check that was read."""
        return self._check_answer(wanted, self.checked(wanted, call))

    async def _check_answer(self, wanted: Wanted[CheckRequest], checked: Awaitable[Decided]) -> Answer:
        """Return the answer to a check, once it was decided or could not be."""
        request = wanted.request
        try:
            decision, headers = await checked
        except (Undecided, Unavailable) as error:
            if not await self._is_allowed_anyway(wanted, error):
                raise
            return undecided_answer(request, allowed=True)
        text = check_text(decision, customer_id=request.customer_id, takes=wanted.takes)
        return Answer(text, headers=headers)

    async def _is_allowed_anyway(self, wanted: Wanted[CheckRequest], error: CreditgateError) -> bool:
        """Say whether the feature allows what could not be decided; what would have been taken is spooled."""
        if wanted.lock is not None or (wanted.takes and wanted.new_entity is not None):
            return False
        request = wanted.request
        allowed = self._outage.allows(
            customer_id=request.customer_id, feature_id=request.feature_id, nanos=wanted.usage.value_nanos
        )
        return allowed and (not wanted.takes or await self._outage.keeps(error))

    async def checked(self, wanted: Wanted[CheckRequest], call: Call) -> Decided:
        """Return the decision and the headers of its answer."""
        if not wanted.takes:
            return await self._with_entity(wanted, lambda: self._meter.check(wanted.usage)), NO_HEADERS
        key = caller_key("check", call, *_asked(wanted))
        return await self._once(key, self._with_entity(wanted, lambda: self._taking(wanted, key)))

    def _with_entity(self, wanted: Wanted[R], ask: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Return what is answered; an entity that is not there is made, if it is said what it is, and asked once more.

        First asked and then made: a call that is refused for what it says makes nothing.
        """
        new = wanted.new_entity
        return ask() if new is None else self._with_new_entity(new, ask)

    async def _with_new_entity(self, new: NewEntity, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except NotFound as error:
            if error.code != "entity_not_found":
                raise
        await self._entities.get_or_create(new)
        return await ask()

    def _taking(self, wanted: Wanted[R], key: CallerKey | None) -> Awaitable[Decision]:
        """Take what is used, for good or, with a lock, until that is finalized."""
        usage, lock = wanted.usage, wanted.lock
        if key is not None:
            usage = msgspec.structs.replace(usage, key=key)
        if lock is None:
            return self._meter.track(usage)
        usage = msgspec.structs.replace(usage, verb="hold", mode=lock.mode(usage.mode))
        return self._holds.hold(usage, hold_id=lock.lock_id, expires_at=lock.expires_ms())

    async def _once(self, key: CallerKey | None, taking: Awaitable[Decision]) -> Decided:
        """Return what was taken, as a repeated key is answered."""
        decision = await self._keys.once(key, taking)
        return decision, self._keys.headers(key, decision.is_replay)

    def track(self, call: Call) -> Coroutine[Any, Any, Answer]:
        return self.answer_track(said(self._tracks, call.body), call)

    def begin_track(self, call: Call, done: Done[Answer]) -> Coroutine[Any, Any, Answer] | None:
        wanted = said(self._tracks, call.body)
        return self.begin_wanted_track(wanted, wanted.asker, call, done)

    def begin_wanted_track(
        self,
        wanted: Wanted[TrackRequest],
        asker: Asker[TrackRequest, Any] | None,
        call: Call,
        done: Done[Answer],
    ) -> Coroutine[Any, Any, Answer] | None:
        """As `begin_wanted_check`, of a track."""
        if asker is not None:
            in_body = wanted.request.idempotency_key
            key = caller_key_of("track", call, asker.fingerprint, in_body=in_body)
            if self._meter.at_once.track(asker if key is None else asker.keyed(key), done):
                return None
        return self.answer_track(wanted, call)

    def wanted_by_track(self, request: TrackRequest) -> Wanted[TrackRequest]:
        """Return what a track asks for; raises InvalidInputs and InvalidRequest."""
        usage = usage_of(request, self._settings)
        lock, new_entity = wanted_lock(request.lock), request.new_entity()
        is_plain = lock is None and new_entity is None
        asker = TrackAsker(request, usage, self._go_on_tracking) if is_plain else None
        return Wanted(request, usage, lock, new_entity, asker=asker)

    def _read_track(self, body: bytes) -> Wanted[TrackRequest]:
        return self.wanted_by_track(read(TrackRequest, body))

    def answer_track(self, wanted: Wanted[TrackRequest], call: Call) -> Coroutine[Any, Any, Answer]:
        """Answer a track that was read."""
        return self._track_answer(wanted, self.tracked(wanted, call))

    async def _track_answer(self, wanted: Wanted[TrackRequest], tracked: Awaitable[Decided]) -> Answer:
        """Return the answer to a track, once it was decided or could not be."""
        request = wanted.request
        try:
            decision, headers = await tracked
        except (Undecided, Unavailable) as error:
            if wanted.new_entity is not None or not await self._outage.keeps(error):
                raise
            return spooled_answer(request)
        text = track_text(
            decision,
            customer_id=request.customer_id,
            value_nanos=wanted.usage.value_nanos,
            event_name=request.event_name,
        )
        return Answer(text, headers=headers)

    async def tracked(self, wanted: Wanted[TrackRequest], call: Call) -> Decided:
        """Return the decision and the headers of its answer; raises InvalidRequest if it was refused."""
        key = caller_key("track", call, *_asked(wanted), in_body=wanted.request.idempotency_key)
        taking = self._with_entity(wanted, lambda: self._taking(wanted, key))
        return await self._once(key, _unless_refused(taking, wanted.usage))

    def _go_on_checking(
        self, request: CheckRequest, usage: Usage, asked: Asked[Asking], done: Done[Answer]
    ) -> None:
        """Answer a plain check that was sent at once, whatever came of that."""
        checked = _plainly(self._meter.check(usage, asked))
        stepping.run(self._check_answer(Wanted(request, usage, None, None, takes=False), checked), done)

    def _go_on_taking(
        self, request: CheckRequest, usage: Usage, asked: Asked[Taking], done: Done[Answer]
    ) -> None:
        """As `_go_on_checking`, of one that takes."""
        taken = self._once(usage.key, self._meter.track(usage, asked=asked))
        stepping.run(self._check_answer(Wanted(request, usage, None, None), taken), done)

    def _go_on_tracking(
        self, request: TrackRequest, usage: Usage, asked: Asked[Taking], done: Done[Answer]
    ) -> None:
        """As `_go_on_checking`, of a track."""
        taking = _unless_refused(self._meter.track(usage, asked=asked), usage)
        tracked = self._once(usage.key, taking)
        stepping.run(self._track_answer(Wanted(request, usage, None, None), tracked), done)


async def _unless_refused(taking: Awaitable[Decision], usage: Usage) -> Decision:
    decision = await taking
    if not decision.allowed:
        raise refusal(decision, usage)
    return decision


async def _plainly(decided: Awaitable[Decision]) -> Decided:
    return await decided, NO_HEADERS


def said(remembered: Remembered[Wanted[R]], body: bytes) -> Wanted[R]:
    """Return what a body asks for; one that will hardly come again is not remembered, or but for its key."""
    known = remembered.known(body)
    if known is not None:
        return known
    if len(body) > BODY_REMEMBERED_MAX:
        return remembered.read(body)
    return _but_for_its_key(remembered, body) if _KEY_FIELD in body else remembered.of(body)


def _but_for_its_key(remembered: Remembered[Wanted[R]], body: bytes) -> Wanted[R]:
    """Return what a body asks for that has a caller's key: what the rest says, remembered, if the key stands last."""
    comma = body.rfind(b",")
    key, rest = _KEY_LAST.fullmatch(body, comma), body[:comma] + b"}"
    if key is None or _KEY_FIELD in rest:
        return remembered.read(body)
    try:
        wanted = remembered.of(rest)
        request = msgspec.structs.replace(wanted.request, idempotency_key=key[1].decode())
    except (CreditgateError, TypeError):  # of a check alone, which has no such field
        return remembered.read(body)
    return wanted._replace(request=request)


def _usage_of_check(request: CheckRequest) -> Usage:
    return Usage(
        verb="check",
        customer_id=request.customer_id,
        feature_id=request.feature_id,
        event_name=None,
        value_nanos=request.required_nanos(),
        mode=Mode.REJECT,
        properties=request.properties_text(),
        entity_id=request.entity_id,
    )


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


def _asked(wanted: Wanted[R]) -> tuple[object, ...]:
    """Return what a key stands for."""
    return (wanted.usage,) if wanted.lock is None else (wanted.usage, wanted.lock)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
