"""`balances.batch`: checks and tracks that are sent in one call, and answered in it one by one."""

import asyncio
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any

from msgspec import Raw

from creditgate.api.calls import Answer, Call, Verb
from creditgate.api.problems import answer_to
from creditgate.api.routes.askers import Asker
from creditgate.api.routes.batches import BATCH_BYTES_MAX
from creditgate.api.routes.in_order import InOrder, Item
from creditgate.api.routes.meter import BODIES_BYTES_MAX, MeterRoutes, Wanted, said
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import encode
from creditgate.api.wire.call_batches import BatchedAnswer, BatchedCheck, BatchedTrack, read_item
from creditgate.api.wire.fields import read_list
from creditgate.core.remembered import Remembered
from creditgate.engine import stepping
from creditgate.engine.stepping import Done
from creditgate.errors import InvalidInputs, Undecided

CALLS_MAX = 100
BATCH_SECONDS_MAX = 4.0  # no call begins after it; each that has begun has its own, shorter deadline

_NONE = Answer(b"")


class Answers:
    """The answers to the items of a batch, each put once; `ended` is done when all are there."""

    def __init__(self, count: int) -> None:
        self._answers: list[Answer] = [_NONE] * count
        self._missing = count
        self.ended: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()

    def put(self, place: int, answer: Answer) -> None:
        self._answers[place] = answer
        self._missing -= 1
        if not self._missing and not self.ended.done():
            self.ended.set_result(self._answers)


class CallBatchRoutes:
    """The verb that carries calls of other verbs."""

    def __init__(self, meter_routes: MeterRoutes, settings: ApiSettings) -> None:
        self._meter_routes = meter_routes
        self._env = settings.env_on_wire
        self._items = Remembered(self._read, BODIES_BYTES_MAX)

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "balances.batch": Verb(
                self.batch,
                BatchedCheck,
                BatchedAnswer,
                body_bytes_max=BATCH_BYTES_MAX,
                items_max=CALLS_MAX,
                or_request=BatchedTrack,
                answers_each=True,
            )
        }

    async def batch(self, call: Call) -> Answer:
        """Items of one customer are applied in their order, those of different customers at the same time."""
        if call.idempotency_keys:
            raise InvalidInputs("idempotency_key: each item of a batch has its own, in the body")
        bodies = read_list(call.body, items_max=CALLS_MAX)
        answers = Answers(len(bodies))
        by_customer: dict[str, list[Item]] = {}
        for place, body in enumerate(bodies):
            try:
                wanted = said(self._items, body)
            except Exception as error:  # also a bug in reading one item is none of the others' business
                answers.put(place, answer_to(error, verb="balances.batch", body=body, env=self._env))
            else:
                by_customer.setdefault(wanted.usage.customer_id, []).append(Item(place, wanted, body))
        begin = partial(self._begin, call, asyncio.get_running_loop().time() + BATCH_SECONDS_MAX)
        for customer_id, items in by_customer.items():
            if len(items) == 1:
                self._answer(items[0], call, partial(self._ended, answers, items[0]))
            else:
                part = partial(self._meter_routes.part, customer_id)
                InOrder(items, part, begin, partial(self._ended, answers)).go_on()
        return Answer(encode([_batched_answer(answer) for answer in await answers.ended]))

    def _answer(self, item: Item, call: Call, done: Done[Answer]) -> None:
        """Have an item answered whose customer has no other in the batch."""
        try:
            rest = self._ask(call, item, item.wanted.asker, done)
        except Exception as error:
            done(None, error)
        else:
            if rest is not None:
                stepping.run(rest, done)

    def _begin(
        self, call: Call, end: float, item: Item, asker: Asker[Any, Any] | None, done: Done[Answer]
    ) -> Coroutine[Any, Any, Answer] | None:
        """As `_ask`, where others were before; one whose turn comes too late is undecided, and changes nothing."""
        if asyncio.get_running_loop().time() > end:
            raise Undecided("The batch took too long; this call was not made")
        return self._ask(call, item, asker, done)

    def _ask(
        self, call: Call, item: Item, asker: Asker[Any, Any] | None, done: Done[Answer]
    ) -> Coroutine[Any, Any, Answer] | None:
        """Begin to answer an item, as a call of its own."""
        wanted = item.wanted
        if isinstance(wanted.request, BatchedTrack):
            alone = Call(item.body, (), call.base_url, call.version)
            return self._meter_routes.begin_wanted_track(wanted, asker, alone, done)
        key = wanted.request.idempotency_key  # a check alone has it in a header, so there it is looked for
        alone = Call(item.body, () if key is None else (key,), call.base_url, call.version)
        return self._meter_routes.begin_wanted_check(wanted, asker, alone, done)

    def _ended(
        self, answers: Answers, item: Item, answer: Answer | None, error: BaseException | None
    ) -> None:
        if answer is None:
            answer = answer_to(error, verb=_verb(item.wanted), body=item.body, env=self._env)
        answers.put(item.place, answer)

    def _read(self, body: bytes) -> Wanted[Any]:
        request, routes = read_item(body), self._meter_routes
        if isinstance(request, BatchedTrack):
            return routes.wanted_by_track(request)
        return routes.wanted_by_check(request)


def _verb(wanted: Wanted[Any]) -> str:
    return "balances.track" if isinstance(wanted.request, BatchedTrack) else "balances.check"


def _batched_answer(answer: Answer) -> BatchedAnswer:
    return BatchedAnswer(answer.status, "Idempotent-Replayed" in answer.headers, Raw(answer.body))
