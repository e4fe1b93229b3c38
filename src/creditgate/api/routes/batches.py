"""Batches of usage: sent in one call, worked off later."""

import asyncio
from collections.abc import Mapping

import msgspec

from creditgate.api.calls import Answer, Call, Verb, caller_key
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.routes.meter import usage_of
from creditgate.api.settings import ApiSettings
from creditgate.api.wire.answers import Success, encode
from creditgate.api.wire.batches import BatchesAnswer, ListBatchesRequest, batches_answer
from creditgate.api.wire.fields import placed, read, read_list
from creditgate.api.wire.requests import BatchItem
from creditgate.engine.batches import ITEMS_MAX, Batches
from creditgate.engine.usage import Usage

BATCH_BYTES_MAX = 1024 * 1024  # a thousand items of a kilobyte
ITEMS_AT_A_TIME = 100  # read before others get their turn: about 6 ms
BATCH_HEADER = "X-Creditgate-Batch"


class BatchRoutes:
    """The verbs of batches."""

    def __init__(self, batches: Batches, keys: RepeatedKeys, settings: ApiSettings) -> None:
        self._batches = batches
        self._keys = keys
        self._settings = settings

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "balances.batch_track": Verb(
                self.batch_track,
                BatchItem,
                Success,
                status=202,
                body_bytes_max=BATCH_BYTES_MAX,
                items_max=ITEMS_MAX,
            ),
            "balances.batch_list": Verb(self.batch_list, ListBatchesRequest, BatchesAnswer),
        }

    async def batch_track(self, call: Call) -> Answer:
        usages = await self._usages(call)
        key = caller_key("batch_track", call, usages)
        batch_id, is_replay = await self._keys.once(key, self._batches.open(usages, key))
        headers = {**self._keys.headers(key, is_replay), BATCH_HEADER: batch_id}
        return Answer(encode(Success()), 202, headers)

    async def _usages(self, call: Call) -> tuple[Usage, ...]:
        usages = []
        for index, item in enumerate(read_list(call.body, items_max=ITEMS_MAX)):
            usages.append(self._usage(index, item, call))
            if index % ITEMS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return tuple(usages)

    def _usage(self, index: int, item: bytes, call: Call) -> Usage:
        with placed(index):
            request = read(BatchItem, item)
            usage = usage_of(request, self._settings)
            # As if it came alone: the header is the key of the whole batch.
            alone = msgspec.structs.replace(call, idempotency_keys=())
            key = caller_key("track", alone, usage, in_body=request.idempotency_key)
            return msgspec.structs.replace(usage, key=key)

    async def batch_list(self, call: Call) -> Answer:
        request = read(ListBatchesRequest, call.body)
        page = await self._batches.newest(
            limit=request.rows(), cursor=request.start_cursor, batch_id=request.batch_id
        )
        return Answer(encode(batches_answer(page)))
