"""Usage over time: how much of which feature was used in each hour, day, week or month, and what it was taken from.

SQL adds up what it has, up to a position of each stream; what the streams hold behind that is added here. So an event
that was just tracked is in the sums, and none is in them twice.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from creditgate.core.bins import Bins, BinSize, Range, Span
from creditgate.core.customers import Row
from creditgate.core.journal import ORIGIN, Entry
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.history import History, events_in
from creditgate.engine.spans import Moment, Spans
from creditgate.engine.tables import (
    Taken,
    UsageBin,
    UsageTotal,
    largest,
    taken_table,
    totals,
    usage_table,
)
from creditgate.errors import InvalidInputs, NotFound, Unavailable
from creditgate.ledger.aggregates import Grouping, Question, Sum, sums_of
from creditgate.ledger.events import Event, EventFilter
from creditgate.ledger.store import Ledger

FEATURES_MAX = 50
GROUPS_MAX = 250
GROUPS = 9
VALUES_MAX = 25_000  # numbers in one answer: bins, times features, times groups
AT_ONCE = 2  # questions that keep the database busy, so that the flusher always finds a thread
WAIT_S = 10.0


class Asked(NamedTuple):
    """What usage is asked for.

    Without a `span`, the range says which; without a `zone`, days are those of the customer. `counts`: how many events
    instead of their values. `deductions`: also what was taken, `by_source` apart for each feature that was used.
    """

    feature_ids: tuple[str, ...]
    customer_id: str | None = None
    entity_id: str | None = None
    properties: tuple[tuple[str, str], ...] = ()
    range: Range = Range.CYCLE
    span: Span | None = None
    size: BinSize = BinSize.DAY
    zone: str | None = None
    grouping: Grouping | None = None
    groups_max: int = GROUPS
    counts: bool = False
    deductions: bool = False
    by_source: bool = False


class Aggregate(NamedTuple):
    """The answer; `taken` is there if deductions were asked for. `begins_at`: see `History.begins_at`."""

    bins: tuple[UsageBin, ...]
    totals: dict[str, UsageTotal]
    taken: tuple[Taken, ...] | None
    begins_at: int


class Aggregates:
    """Usage of all customers of one environment, added up."""

    def __init__(self, history: History, spans: Spans, catalogs: Catalogs, ledger: Ledger) -> None:
        self._history = history
        self._spans = spans
        self._catalogs = catalogs
        self._ledger = ledger
        self._free = asyncio.Semaphore(AT_ONCE)

    async def aggregate(self, asked: Asked) -> Aggregate:
        """Return what was used.

        Raises NotFound `customer_not_found`, InvalidInputs for an answer that would be too large, TookTooLong.
        """
        moment = await self._spans.moment(asked.customer_id)
        if asked.customer_id is not None and moment.record is None:
            raise NotFound(f"Customer {asked.customer_id} not found", code="customer_not_found")
        zone = asked.zone or (moment.record.customer.time_zone if moment.record else "UTC")
        span = asked.span or self._spans.of(asked.range, moment, asked.feature_ids)
        bins = Bins(span, asked.size, zone)
        _check_size(asked, bins)
        questions = self._questions(asked, moment, bins, span)
        tail = await self._history.tail_of(asked.customer_id)
        async with self._turn():
            usage, *taken = await asyncio.to_thread(self._add_up, asked, questions, list(events_in(tail)))
        groups = largest(usage, asked.groups_max, counts=asked.counts) if asked.grouping else None
        return Aggregate(
            usage_table(usage, bins, asked.feature_ids, groups, now=moment.now, counts=asked.counts),
            totals(usage, asked.feature_ids),
            taken_table(
                taken[0],
                bins,
                await self._rows(asked, tail),
                self._catalogs.current,
                asked.feature_ids,
                groups or (),
                by_source=asked.by_source,
            )
            if taken
            else None,
            await self._history.begins_at(),
        )

    async def _rows(self, asked: Asked, tail: Sequence[Entry]) -> dict[str, Row]:
        """Return every row that the customer ever had, as it was last."""
        assert asked.customer_id is not None, "deductions are those of one customer"
        terms = await self._history.rows_of([asked.customer_id], tail)
        return {row_id: versions[-1].row for row_id, versions in terms.items()}

    def _questions(self, asked: Asked, moment: Moment, bins: Bins, span: Span) -> list[Question]:
        wanted = EventFilter(
            customer=self._history.place_of(asked.customer_id),
            entity_id=asked.entity_id,
            uid=moment.record.uid if moment.record else None,
            feature_ids=asked.feature_ids,
            properties=asked.properties,
            start_at=span.start if asked.span else bins.starts[0],  # the first bin of a range is a whole one
            end_at=span.end,
        )
        return [
            Question(
                wanted=wanted,
                origin=bins.starts[0],
                unit=bins.unit,
                grouping=asked.grouping,
                by_row=by_row,
            )
            for by_row in ((False, True) if asked.deductions else (False,))
        ]

    def _add_up(self, asked: Asked, questions: Sequence[Question], tail: Sequence[Event]) -> list[list[Sum]]:
        """Return the sums of each question, with the groups apart that have most of the first."""
        groups = self._groups(asked, questions[0], tail) if asked.grouping else ()
        stored = self._ledger.sums(questions, groups=groups)
        late = [e for e in tail if e.cursor.stream_id > stored.upto.get(e.cursor.partition, ORIGIN)]
        return [
            [*sums, *(one for event in late for one in sums_of(event, question, groups))]
            for question, sums in zip(questions, stored.of, strict=True)
        ]

    def _groups(self, asked: Asked, question: Question, tail: Iterable[Event]) -> Collection[str]:
        """Return the groups that may have most: of what SQL has, and of the tail."""
        assert asked.grouping is not None
        most = asked.groups_max
        stored = self._ledger.top_groups(question, by_count=asked.counts, limit=most)
        named = {group for event in tail if (group := asked.grouping.of(event)) is not None}
        late = [one for event in tail for one in sums_of(event, question, named)]
        return {*stored, *largest(late, most, counts=asked.counts)}

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable("Too many questions about usage at a time; ask again later") from None
        try:
            yield
        finally:
            self._free.release()


def _check_size(asked: Asked, bins: Bins) -> None:
    groups = asked.groups_max + 1 if asked.grouping else 1
    if len(bins) * len(asked.feature_ids) * groups > VALUES_MAX:
        raise InvalidInputs(
            f"input: bins times features times groups must be at most {VALUES_MAX}; ask for less at a time"
        )
