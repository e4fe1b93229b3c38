"""Batches of usage: kept as one entry of the journal before they are answered, worked off in the background.

What is kept is the intent. `batch_worker.py` takes what the items ask for, each exactly once, and closes the batch with
a report of those that could not be.
"""

from typing import NamedTuple

import msgspec

from creditgate.balances.store import BalanceStore
from creditgate.core.decisions import Status
from creditgate.core.journal import BATCH, SYSTEM_PARTITION, Call, StreamId
from creditgate.engine.attempts import Applied, Attempts
from creditgate.engine.history import History
from creditgate.engine.ids import OpIds, mint
from creditgate.engine.keys import CallerKey, key_reused
from creditgate.engine.meter import Usage
from creditgate.errors import Conflict, NotFound

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
    """A batch as it is known; `closed_at` is None, and nothing has failed yet, while it is open."""

    id: str
    opened_at: int
    closed_at: int | None
    report: Report


def opens_a_batch(document: str) -> bool:
    """Say whether the document of a batch is its items, an array, or what became of them, an object."""
    return document.startswith("[")


class Batches:
    """All batches of one environment."""

    def __init__(self, store: BalanceStore, attempts: Attempts, history: History, op_ids: OpIds) -> None:
        self._store = store
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
        """Return the id and the items of the batch that this entry opened; NotFound if it is nowhere."""
        entry = await self._history.entry(SYSTEM_PARTITION, stream_id)
        item = entry.items[0] if entry else None
        if item is None or item.document_id is None or item.document is None:
            raise NotFound(f"No batch was opened at {stream_id}", code="batch_not_found")
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

    async def get(self, batch_id: str) -> Batch:
        """Return a batch, open or closed; NotFound `batch_not_found`."""
        documents = await self._history.documents(BATCH, batch_id)
        if not documents:
            raise NotFound(f"Batch {batch_id} not found", code="batch_not_found")
        (opened, first), *later = documents
        if not later:
            items = msgspec.json.decode(first, type=tuple[msgspec.Raw, ...])
            return Batch(batch_id, opened.ms, None, Report(len(items)))
        closed, last = later[-1]
        return Batch(batch_id, opened.ms, closed.ms, msgspec.json.decode(last, type=Report))

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
