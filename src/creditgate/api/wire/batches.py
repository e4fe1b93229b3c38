"""Batches of usage on the wire."""

import msgspec

from creditgate.engine.batches import Batch


class FailureAnswer(msgspec.Struct, frozen=True):
    """An item that took nothing: its place in the batch, and what a track would have been answered."""

    index: int
    customer_id: str
    code: str
    message: str


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`balances.batch_get`. `status` is `open` until every item is decided, then `done`; failures are known then."""

    batch_id: str
    status: str
    created_at: int
    done_at: int | None
    items: int
    failures: tuple[FailureAnswer, ...]


def batch_answer(batch: Batch) -> BatchAnswer:
    return BatchAnswer(
        batch_id=batch.id,
        status="open" if batch.closed_at is None else "done",
        created_at=batch.opened_at,
        done_at=batch.closed_at,
        items=batch.report.items,
        failures=tuple(
            FailureAnswer(failure.index, failure.customer_id, failure.code, failure.message)
            for failure in batch.report.failures
        ),
    )
