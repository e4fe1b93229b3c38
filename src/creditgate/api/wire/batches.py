"""Batches of usage on the wire."""

import re

import msgspec

from creditgate.api.wire.fields import Request
from creditgate.api.wire.numbers import whole
from creditgate.engine.batches import Batch, BatchPage
from creditgate.errors import InvalidInputs

LIST_MAX = 100  # a report may name a thousand failures

BATCH_ID = r"bat_[0-9A-Za-z]{1,64}"


class ListBatchesRequest(Request, frozen=True):
    """`balances.batch_list`: what became of batches, the newest first; or of one."""

    start_cursor: str = ""
    limit: float = 10
    batch_id: str | None = None

    def __post_init__(self) -> None:
        if self.start_cursor and re.fullmatch(BATCH_ID, self.start_cursor) is None:
            raise InvalidInputs("start_cursor: is not a cursor that was given")
        if self.batch_id is not None and re.fullmatch(BATCH_ID, self.batch_id) is None:
            raise InvalidInputs("batch_id: is not the id of a batch")

    def rows(self) -> int:
        return whole(self.limit, field="limit", least=1, most=LIST_MAX)


class FailureAnswer(msgspec.Struct, frozen=True):
    """An item that took nothing: its place in the batch, and what a track would have been answered."""

    index: int
    customer_id: str
    code: str
    message: str


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A batch. `status` is `open` until every item is decided, then `done`; how many failed is known then."""

    batch_id: str
    status: str
    created_at: int
    done_at: int | None
    items: int | None
    failures: tuple[FailureAnswer, ...]


class BatchesAnswer(msgspec.Struct, frozen=True):
    """`balances.batch_list`."""

    list: tuple[BatchAnswer, ...]
    next_cursor: str | None


def batches_answer(page: BatchPage) -> BatchesAnswer:
    return BatchesAnswer(tuple(map(_batch_answer, page.batches)), page.next_cursor)


def _batch_answer(batch: Batch) -> BatchAnswer:
    failures = batch.report.failures if batch.report else ()
    return BatchAnswer(
        batch_id=batch.id,
        status="done" if batch.report else "open",
        created_at=batch.opened_at,
        done_at=batch.closed_at,
        items=batch.report.items if batch.report else None,
        failures=tuple(
            FailureAnswer(failure.index, failure.customer_id, failure.code, failure.message)
            for failure in failures
        ),
    )
