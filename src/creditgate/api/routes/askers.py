"""Who asks at once for what a plain body says, and puts what it is told into words (see `engine/at_once.py`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, Self, TypeVar

import msgspec

from creditgate.api.calls import Answer, fingerprint_of
from creditgate.api.wire.answers import AnswerForm, check_form, check_text, track_form, track_text
from creditgate.api.wire.requests import CheckRequest, TrackRequest
from creditgate.core.decisions import Decision
from creditgate.engine.at_once import Asked
from creditgate.engine.keys import CallerKey
from creditgate.engine.meanings import Asking, Repeated, Taking
from creditgate.engine.stepping import Done
from creditgate.engine.usage import Usage

R = TypeVar("R", CheckRequest, TrackRequest)
M = TypeVar("M", Asking, Taking)

GoOn = Callable[[R, Usage, Asked[M], Done[Answer]], None]
"""Answers a request, with the use that was asked for, whatever has become of what was sent."""


class Asker(ABC, Generic[R, M]):
    """Asks for the use that one plain body says. `Repeated.form` has the answer's form and the amount asked for."""

    def __init__(self, request: R, usage: Usage, go_on: GoOn[R, M]) -> None:
        self.request: R = request
        self.usage = usage
        self.means: M | None = None
        self.unkeyed: Self | None = None
        self._go_on: GoOn[R, M] = go_on
        self._fingerprint = ""

    def fingerprint(self) -> str:
        """Return that of the use, without a key."""
        if not self._fingerprint:
            self._fingerprint = fingerprint_of(self.usage)
        return self._fingerprint

    def keyed(self, key: CallerKey) -> Self:
        """Return who asks for the same with this key."""
        asker = type(self)(self.request, msgspec.structs.replace(self.usage, key=key), self._go_on)
        asker.unkeyed = self
        return asker

    def told(
        self, repeated: Repeated, amounts: Sequence[int], deltas: Sequence[int], done: Done[Answer]
    ) -> None:
        if repeated.form is None:
            repeated.form = self._form(repeated.decision)
        form, amount = repeated.form
        balances = dict(zip(repeated.row_ids, amounts))  # noqa: B905  # where `strict` is said, it takes twice as long
        done(Answer(form.filled(amount, balances, deltas)), None)

    def further(self, asked: Asked[M], done: Done[Answer]) -> None:
        self._go_on(self.request, self.usage, asked, done)

    @abstractmethod
    def decided(self, decision: Decision, done: Done[Answer]) -> None: ...

    @abstractmethod
    def _form(self, decision: Decision) -> tuple[AnswerForm, int]: ...


class CheckAsker(Asker[CheckRequest, Asking]):
    def decided(self, decision: Decision, done: Done[Answer]) -> None:
        done(Answer(check_text(decision, customer_id=self.request.customer_id, takes=False)), None)

    def _form(self, decision: Decision) -> tuple[AnswerForm, int]:
        form = check_form(decision, customer_id=self.request.customer_id, takes=False)
        return form, decision.required_nanos


class TakingCheckAsker(Asker[CheckRequest, Taking]):
    def decided(self, decision: Decision, done: Done[Answer]) -> None:
        done(Answer(check_text(decision, customer_id=self.request.customer_id, takes=True)), None)

    def told(
        self, repeated: Repeated, amounts: Sequence[int], _deltas: Sequence[int], done: Done[Answer]
    ) -> None:
        super().told(repeated, amounts, (), done)  # a check does not show what rows gave

    def _form(self, decision: Decision) -> tuple[AnswerForm, int]:
        form = check_form(decision, customer_id=self.request.customer_id, takes=True)
        return form, decision.required_nanos


class TrackAsker(Asker[TrackRequest, Taking]):
    def decided(self, decision: Decision, done: Done[Answer]) -> None:
        request = self.request
        text = track_text(
            decision,
            customer_id=request.customer_id,
            value_nanos=self.usage.value_nanos,
            event_name=request.event_name,
        )
        done(Answer(text), None)

    def _form(self, decision: Decision) -> tuple[AnswerForm, int]:
        request, value_nanos = self.request, self.usage.value_nanos
        form = track_form(
            decision,
            customer_id=request.customer_id,
            value_nanos=value_nanos,
            event_name=request.event_name,
        )
        return form, value_nanos
