"""`balances.batch`: checks and tracks that are sent in one call, and answered in it one by one."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from creditgate.api.calls import Answer, Call, Verb
from creditgate.api.problems import answer_to
from creditgate.api.routes.batches import BATCH_BYTES_MAX
from creditgate.api.routes.meter import MeterRoutes, wanted_by_check
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import encode
from creditgate.api.wire.call_batches import BatchedAnswer, BatchedCheck, BatchedTrack, read_item
from creditgate.api.wire.fields import read_list
from creditgate.engine import stepping
from creditgate.errors import InvalidInputs, Undecided

CALLS_MAX = 100
BATCH_SECONDS_MAX = 4.0  # no call begins after it; each that has begun has its own, shorter deadline


class Item(NamedTuple):
    """One call of a batch: its place, what it asks for, and the call as if it came alone."""

    place: int
    request: BatchedCheck | BatchedTrack
    call: Call


class CallBatchRoutes:
    """The verb that carries calls of other verbs."""

    def __init__(self, meter_routes: MeterRoutes, settings: ApiSettings) -> None:
        self._meter_routes = meter_routes
        self._env = settings.env_on_wire

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
        answers: dict[int, Answer] = {}
        by_customer: dict[str, list[Item]] = {}
        for place, body in enumerate(bodies):
            try:
                request = read_item(body)
            except Exception as error:  # also a bug in reading one item is none of the others' business
                answers[place] = answer_to(error, verb="balances.batch", body=body, env=self._env)
            else:
                item = Item(place, request, msgspec.structs.replace(call, body=body))
                by_customer.setdefault(request.customer_id, []).append(item)
        end = asyncio.get_running_loop().time() + BATCH_SECONDS_MAX
        for part in await stepping.gather([self._in_order(items, end) for items in by_customer.values()]):
            answers.update(part)
        return Answer(encode([_batched_answer(answers[place]) for place in range(len(bodies))]))

    async def _in_order(self, items: Sequence[Item], end: float) -> dict[int, Answer]:
        return {item.place: await self._answer(item, end) for item in items}

    async def _answer(self, item: Item, end: float) -> Answer:
        """Return what the item is answered; one whose turn comes too late is undecided, and changes nothing."""
        _, request, call = item
        try:
            if asyncio.get_running_loop().time() > end:
                raise Undecided("The batch took too long; this call was not made")
            if isinstance(request, BatchedTrack):
                return await self._meter_routes.answer_track(
                    self._meter_routes.wanted_by_track(request), call
                )
            # A check alone has its key in a header, so there it is looked for.
            keys = () if request.idempotency_key is None else (request.idempotency_key,)
            return await self._meter_routes.answer_check(
                wanted_by_check(request), msgspec.structs.replace(call, idempotency_keys=keys)
            )
        except Exception as error:
            verb = "balances.track" if isinstance(request, BatchedTrack) else "balances.check"
            return answer_to(error, verb=verb, body=call.body, env=self._env)


def _batched_answer(answer: Answer) -> BatchedAnswer:
    return BatchedAnswer(answer.status, "Idempotent-Replayed" in answer.headers, Raw(answer.body))
