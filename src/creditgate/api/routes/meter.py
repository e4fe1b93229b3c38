"""check and track."""

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from creditgate.api.calls import NO_HEADERS, Answer, Call, Verb, caller_key
from creditgate.api.problems import spooled_answer, undecided_answer
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import (
    AnswerForm,
    CheckAnswer,
    TrackAnswer,
    check_form,
    check_text,
    track_form,
    track_text,
)
from creditgate.api.wire.fields import read
from creditgate.api.wire.holds import LockRequest
from creditgate.api.wire.holds import wanted as wanted_lock
from creditgate.api.wire.requests import CheckRequest, TrackRequest, UsageRequest
from creditgate.core.decisions import Decision, Mode
from creditgate.core.remembered import Remembered
from creditgate.engine import stepping
from creditgate.engine.entities import Entities, NewEntity
from creditgate.engine.holds import Holds
from creditgate.engine.keys import CallerKey
from creditgate.engine.meter import Meter, refusal
from creditgate.engine.outage import Outage
from creditgate.engine.stepping import Done
from creditgate.engine.usage import Asked, Asking, Repeated, Taking, Usage
from creditgate.errors import CreditgateError, InvalidInputs, NotFound, Unavailable, Undecided

T = TypeVar("T")
R = TypeVar("R", CheckRequest, TrackRequest)

Decided = tuple[Decision, Mapping[str, str]]
"""A decision, and the headers of its answer."""

CLOCK_SLACK_MS = 60_000  # how far a caller's clock may be ahead of ours
BODIES_BYTES_MAX = (
    2**19
)  # of bodies that are remembered; with what they mean and were answered, seventy times as much
BODY_REMEMBERED_MAX = 512


class Wanted(NamedTuple, Generic[R]):
    """What a body asks for: the request, the use of it, how it is held, the entity to make if there is none.

    `takes`: what is allowed is taken, for good or with a lock. `again` answers for one that is plain, where it is asked
    for at once.
    """

    request: R
    usage: Usage
    lock: LockRequest | None
    new_entity: NewEntity | None
    takes: bool = True
    again: Any = None

    @property
    def is_plain(self) -> bool:
        """Whether it neither holds nor makes anything."""
        return self.lock is None and self.new_entity is None


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
            "balances.check": Verb(self.check, CheckRequest, CheckAnswer, at_once=self.check_at_once),
            "balances.track": Verb(self.track, TrackRequest, TrackAnswer, at_once=self.track_at_once),
        }

    def check(self, call: Call) -> Coroutine[Any, Any, Answer]:
        return self.answer_check(said(self._checks, call.body), call)

    def check_at_once(self, body: bytes, done: Done[Answer]) -> bool:
        """Answer a check by one call of its script, if it was asked before and is nothing out of the ordinary."""
        wanted = self._checks.known(body)
        if wanted is None or wanted.again is None:
            return False
        return self._meter.at_once.check(wanted.usage, wanted.again, done)

    def _read_check(self, body: bytes) -> Wanted[CheckRequest]:
        wanted = wanted_by_check(read(CheckRequest, body))
        is_plain = wanted.is_plain and not wanted.takes
        return wanted._replace(again=_CheckAgain(self, wanted)) if is_plain else wanted

    def check_further(self, wanted: Wanted[CheckRequest], asked: Asked[Asking], done: Done[Answer]) -> None:
        """Go on from a check that was sent at once."""
        checked = _plainly(self._meter.check(wanted.usage, asked))
        stepping.run(self._check_answer(wanted, checked), done)

    def answer_check(self, wanted: Wanted[CheckRequest], call: Call) -> Coroutine[Any, Any, Answer]:
        """Return the answer to a check that was read."""
        return self._check_answer(wanted, self.checked(wanted, call))

    async def _check_answer(self, wanted: Wanted[CheckRequest], checked: Awaitable[Decided]) -> Answer:
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
        decision = await self._with_entity(wanted, lambda: self._taking(wanted, key))
        return decision, self._keys.headers(key, decision.is_replay)

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
            taking = self._meter.track(usage)
        else:
            usage = msgspec.structs.replace(usage, verb="hold", mode=lock.mode(usage.mode))
            taking = self._holds.hold(usage, hold_id=lock.lock_id, expires_at=lock.expires_ms())
        return self._keys.once(key, taking)

    def track(self, call: Call) -> Coroutine[Any, Any, Answer]:
        return self.answer_track(said(self._tracks, call.body), call)

    def wanted_by_track(self, request: TrackRequest) -> Wanted[TrackRequest]:
        """Return what a track asks for; raises InvalidInputs and InvalidRequest."""
        usage = usage_of(request, self._settings)
        return Wanted(request, usage, wanted_lock(request.lock), request.new_entity())

    def track_at_once(self, body: bytes, done: Done[Answer]) -> bool:
        """As `check_at_once`, of a track."""
        wanted = self._tracks.known(body)
        if wanted is None or wanted.again is None:
            return False
        return self._meter.at_once.track(wanted.usage, wanted.again, done)

    def _read_track(self, body: bytes) -> Wanted[TrackRequest]:
        wanted = self.wanted_by_track(read(TrackRequest, body))
        return wanted._replace(again=_TrackAgain(self, wanted)) if wanted.is_plain else wanted

    def track_further(self, wanted: Wanted[TrackRequest], asked: Asked[Taking], done: Done[Answer]) -> None:
        """Go on from a track that was sent at once."""
        tracked = _plainly(_unless_refused(self._meter.track(wanted.usage, asked=asked), wanted.usage))
        stepping.run(self._track_answer(wanted, tracked), done)

    def answer_track(self, wanted: Wanted[TrackRequest], call: Call) -> Coroutine[Any, Any, Answer]:
        """Return the answer to a track that was read."""
        return self._track_answer(wanted, self.tracked(wanted, call))

    async def _track_answer(self, wanted: Wanted[TrackRequest], tracked: Awaitable[Decided]) -> Answer:
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
        decision = await _unless_refused(taking, wanted.usage)
        return decision, self._keys.headers(key, decision.is_replay)


async def _unless_refused(taking: Awaitable[Decision], usage: Usage) -> Decision:
    decision = await taking
    if not decision.allowed:
        raise refusal(decision, usage)
    return decision


async def _plainly(decided: Awaitable[Decision]) -> Decided:
    return await decided, NO_HEADERS


class _Again(ABC, Generic[R]):
    """What is asked for at once, again and again. `Repeated.form` has the answer's form and the amount asked for."""

    def __init__(self, routes: MeterRoutes, wanted: Wanted[R]) -> None:
        self._routes = routes
        self._wanted: Wanted[R] = wanted

    def told(
        self, repeated: Repeated, amounts: Sequence[int], deltas: Sequence[int], done: Done[Answer]
    ) -> None:
        if repeated.form is None:
            repeated.form = self._form(repeated.decision)
        form, amount = repeated.form
        balances = dict(zip(repeated.row_ids, amounts))  # noqa: B905  # where `strict` is said, it takes twice as long
        done(Answer(form.filled(amount, balances, deltas)), None)

    @abstractmethod
    def _form(self, decision: Decision) -> tuple[AnswerForm, int]: ...


class _CheckAgain(_Again[CheckRequest]):
    def _form(self, decision: Decision) -> tuple[AnswerForm, int]:
        form = check_form(decision, customer_id=self._wanted.request.customer_id, takes=False)
        return form, decision.required_nanos

    def further(self, asked: Asked[Asking], done: Done[Answer]) -> None:
        self._routes.check_further(self._wanted, asked, done)


class _TrackAgain(_Again[TrackRequest]):
    def _form(self, decision: Decision) -> tuple[AnswerForm, int]:
        request, value_nanos = self._wanted.request, self._wanted.usage.value_nanos
        form = track_form(
            decision,
            customer_id=request.customer_id,
            value_nanos=value_nanos,
            event_name=request.event_name,
        )
        return form, value_nanos

    def further(self, asked: Asked[Taking], done: Done[Answer]) -> None:
        self._routes.track_further(self._wanted, asked, done)


def said(remembered: Remembered[T], body: bytes) -> T:
    """Return what a body asks for; one that will hardly come again is not remembered."""
    known = remembered.known(body)
    if known is not None:
        return known
    if len(body) > BODY_REMEMBERED_MAX or b'"idempotency_key"' in body:
        return remembered.read(body)
    return remembered.of(body)


def wanted_by_check(request: CheckRequest) -> Wanted[CheckRequest]:
    """Return what a check asks for; raises InvalidInputs and InvalidRequest."""
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
    return Wanted(request, usage, wanted_lock(request.lock), request.new_entity(), request.takes)


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
