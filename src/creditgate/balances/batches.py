"""Batches of usage in Redis: which are open, and where in the system's journal each of them is.

A batch itself, which may be large, is only in the journal.
"""

from collections.abc import Mapping
from contextlib import suppress

from redis.exceptions import WatchError

from creditgate.balances.calls import ScriptCalls, Written, text_of, written_in
from creditgate.balances.scripts import Argument, Script
from creditgate.balances.stream import last_id
from creditgate.core.journal import SYSTEM_PARTITION, Call, StreamId, encode_call


class BatchCalls(ScriptCalls):
    """The scripts about batches."""

    _open_batch = Script("open_batch")
    _close_batch = Script("close_batch")

    async def open_batch(
        self, *, not_after: int, call: Call, batch_id: str, document: bytes, most: int
    ) -> Written:
        """Keep a batch of usage to be worked off; REFUSED if so many are open already."""
        keys = [self._keys.batches(), self._keys.journal(SYSTEM_PARTITION)]
        keys += self._keys.system_key_buckets(self._clock.now_ms()) if call.key else []
        head: list[Argument] = [not_after, encode_call(call), call.key, call.fingerprint]
        return written_in(await self._run(self._open_batch, keys, [*head, batch_id, document, most]))

    async def close_batch(self, *, not_after: int, call: Call, batch_id: str, document: bytes) -> Written:
        """Close a batch with what became of it; MOVED_ON if it is not open."""
        keys = [self._keys.batches(), self._keys.journal(SYSTEM_PARTITION)]
        arguments: list[Argument] = [not_after, encode_call(call), batch_id, document]
        return written_in(await self._run(self._close_batch, keys, arguments))

    async def batches(self) -> dict[str, StreamId]:
        """Return the open batches, the oldest first, each with its place in the system's journal."""
        raw = await self._asked("batches", self._redis.hgetall(self._keys.batches()))
        found = {text_of(batch_id): StreamId.parse(text_of(place)) for batch_id, place in raw.items()}
        return dict(sorted(found.items(), key=lambda pair: pair[1]))

    async def restore_batches(self, batches: Mapping[str, StreamId], *, stood_at: StreamId) -> None:
        """Make these the open batches, as SQL has them, unless the system's journal is past `stood_at` by now."""
        journal = self._keys.journal(SYSTEM_PARTITION)
        async with self._redis.pipeline(transaction=True) as together:
            while True:
                await together.watch(journal)
                if await last_id(together, journal) > stood_at:
                    return
                together.multi()  # type: ignore[no-untyped-call]
                together.delete(self._keys.batches())
                for batch_id, stream_id in batches.items():
                    together.hset(self._keys.batches(), batch_id, str(stream_id))
                with suppress(WatchError):  # something came into the journal, so look again
                    await together.execute()
                    return
