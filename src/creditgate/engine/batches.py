"""Batches of usage: kept as one entry of the journal before they are answered, worked off in the background.

What is kept is the intent. `batch_worker.py` takes what the items ask for, each exactly once, and closes the batch with
a report of those that could not be.
"""

import asyncio
from typing import NamedTuple

import msgspec

from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.decisions import Status
from creditgate.core.journal import BATCH, ORIGIN, SYSTEM_PARTITION, Call, StreamId
from creditgate.engine.attempts import Applied, Attempts
from creditgate.engine.history import History
from creditgate.engine.ids import OpIds, mint
from creditgate.engine.keys import CallerKey, key_reused
from creditgate.engine.usage import Usage
from creditgate.errors import Conflict, Unavailable
from creditgate.ledger.batches import StoredBatch
from creditgate.ledger.store import Ledger

ITEMS_MAX = 1_000
OPEN_MAX = 100  # batches that wait or are worked on: with a thousand items each, a minute of work or more
OVERDUE_MS = 15 * 60_000  # open for longer than this, a batch counts as a difference: nobody works on it


class Failure(msgspec.Struct, frozen=True):
    """An item that took nothing, and why: the code and the message that a `track` would have been answered."""

    index: int
    customer_id: str
    code: str
    message: str


class Report(msgspec.Struct, frozen=True):
    """What became of a batch: its last document."""

    items: int
    failures: tuple[Failure, ...] = ()


class Opened(NamedTuple):
    """The batch that was kept, or that the caller's key had kept before."""

    batch_id: str
    is_replay: bool


class Batch(NamedTuple):
    """A batch as it is known: closed with a report, or open, which has none."""

    id: str
    opened_at: int
    closed_at: int | None
    report: Report | None


class BatchPage(NamedTuple):
    """A page of batches, the newest first; `next_cursor` is None on the last."""

    batches: tuple[Batch, ...]
    next_cursor: str | None


def opens_a_batch(document: str) -> bool:
    """Say whether the document of a batch is its items, an array, or what became of them, an object."""
    return document.startswith("[")


class Batches:
    """All batches of one environment."""

    def __init__(
        self,
        store: BalanceStore,
        stream: JournalStream,
        ledger: Ledger,
        attempts: Attempts,
        history: History,
        op_ids: OpIds,
    ) -> None:
        self._store = store
        self._stream = stream
        self._ledger = ledger
        self._attempts = attempts
        self._history = history
        self._op_ids = op_ids

    async def open(self, usages: tuple[Usage, ...], key: CallerKey | None = None) -> Opened:
        """Keep a batch: when this returns, every item will be tried, whatever happens to this process.

        Raises Conflict `too_many_batches`, KeyReused, Undecided.
        """
        batch_id = mint("bat")
        call = self._call("batch_track", key)
        document = msgspec.json.encode(usages)
        written = await self._attempts.write(
            SYSTEM_PARTITION,
            call.op_id,
            lambda not_after: self._store.open_batch(
                not_after=not_after, call=call, batch_id=batch_id, document=document, most=OPEN_MAX
            ),
        )
        if isinstance(written, Applied) or written.status is Status.OK:
            return Opened(batch_id, is_replay=False)
        if written.status is Status.KEY_REUSED:
            raise key_reused(key)
        if written.status is Status.REFUSED:
            raise Conflict(
                f"{OPEN_MAX} batches are waiting to be worked off; send it again later",
                code="too_many_batches",
            )
        assert written.stream_id is not None
        first_id, _ = await self.read(written.stream_id)
        return Opened(first_id, is_replay=True)

    async def read(self, stream_id: StreamId) -> tuple[str, tuple[Usage, ...]]:
        """Return the id and the items of the batch that this entry opened; Unavailable if it is nowhere."""
        entry = await self._history.entry(SYSTEM_PARTITION, stream_id)
        item = entry.items[0] if entry else None
        if item is None or item.document_id is None or item.document is None:
            raise Unavailable(f"The journal has no batch at {stream_id}; see creditgate verify")
        return item.document_id, msgspec.json.decode(item.document, type=tuple[Usage, ...])

    async def close(self, batch_id: str, report: Report) -> None:
        """Close a batch with what became of it; nothing happens if it is closed already."""
        call = self._call("batch_close", None)
        document = msgspec.json.encode(report)
        await self._attempts.write(
            SYSTEM_PARTITION,
            call.op_id,
            lambda not_after: self._store.close_batch(
                not_after=not_after, call=call, batch_id=batch_id, document=document
            ),
        )

    async def newest(self, *, limit: int, cursor: str = "", batch_id: str | None = None) -> BatchPage:
        """Return one page of batches, the newest first, that begins after a cursor; or the one with this id."""
        before = cursor or None
        found = {batch.batch_id: batch for batch in await self._tail()}
        stored = await asyncio.to_thread(
            self._ledger.newest_batches, before=before, batch_id=batch_id, limit=limit + 1
        )
        for batch in stored:
            in_tail = found.get(batch.batch_id)
            if in_tail is None or in_tail.closed is None:  # else the tail has its end, and SQL its beginning
                found[batch.batch_id] = batch
            else:
                found[batch.batch_id] = msgspec.structs.replace(in_tail, opened=batch.opened)
        wanted = [
            batch_id_of
            for batch_id_of in sorted(found, reverse=True)
            if (before is None or batch_id_of < before) and batch_id in (None, batch_id_of)
        ]
        page = tuple(_batch(found[name]) for name in wanted[:limit])
        return BatchPage(page, page[-1].id if len(wanted) > limit else None)

    async def _tail(self) -> list[StoredBatch]:
        """Return what the stream holds of batches; of one that was closed, `opened` may be its end as well."""
        found: dict[str, StoredBatch] = {}
        async for entry in self._stream.tail(SYSTEM_PARTITION, ORIGIN):
            for item in entry.items:
                if item.document_type != BATCH or item.document_id is None or item.document is None:
                    continue
                name, at = item.document_id, entry.stream_id
                if opens_a_batch(item.document):
                    found[name] = StoredBatch(name, at)
                else:
                    opened = found[name].opened if name in found else at
                    found[name] = StoredBatch(name, opened, at, item.document)
        return list(found.values())

    async def waiting(self) -> dict[str, StreamId]:
        """Return the open batches, the oldest first, each with the entry that opened it."""
        return await self._attempts.ask(self._store.batches)

    def _call(self, verb: str, key: CallerKey | None) -> Call:
        return Call(
            verb=verb,
            op_id=self._op_ids.next(),
            catalog_version=0,
            key=key.digest if key else "",
            fingerprint=key.fingerprint if key else "",
        )


def _batch(found: StoredBatch) -> Batch:
    report = msgspec.json.decode(found.report, type=Report) if found.report is not None else None
    return Batch(found.batch_id, found.opened.ms, found.closed.ms if found.closed else None, report)
