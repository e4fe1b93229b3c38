"""Which span of time a range such as `1bc` is, for one customer now."""

from typing import NamedTuple

from creditgate.balances.clock import RedisClock
from creditgate.core.bins import Cycle, Range, Span, span_of
from creditgate.core.catalog import Catalog
from creditgate.core.customers import Record
from creditgate.core.periods import MEAN_MS
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.writer import CustomerWriter


class Moment(NamedTuple):
    """The time that counts for a customer, Unix ms, and the record as of then; None for everybody, or a stranger."""

    now: int
    record: Record | None


class Spans:
    """Spans of time for all customers of one environment."""

    def __init__(self, writer: CustomerWriter, catalogs: Catalogs, clock: RedisClock) -> None:
        self._writer = writer
        self._catalogs = catalogs
        self._clock = clock

    async def moment(self, customer_id: str | None) -> Moment:
        """Return a customer's now: the pinned clock's, else Redis's."""
        record = await self._writer.read(customer_id) if customer_id is not None else None
        return Moment(record.now if record else self._clock.now_ms(), record)

    def of(self, wanted: Range, moment: Moment, feature_ids: tuple[str, ...]) -> Span:
        """Return the span; cycles are those of what pays for the features, see `cycle_of`."""
        cycle = cycle_of(moment.record, self._catalogs.current, feature_ids) if moment.record else None
        return span_of(wanted, moment.now, cycle)


def cycle_of(record: Record, catalog: Catalog, feature_ids: tuple[str, ...]) -> Cycle | None:
    """Return the cycle that usage of these features, or of all, is looked at in.

    That is the shortest of the balances that can pay for the features, else the billing period. Of all features
    together it is the billing period, else the shortest.
    """
    known = [name for name in feature_ids if name in catalog.features]
    owners = {pool.feature_id for name in known for pool in catalog.pools(name)}
    of_rows = [
        Cycle(row.anchor, row.reset, row.zone)
        for row in record.terms.rows
        if row.reset is not None
        and row.reset.repeats
        and row.anchor is not None
        and (not feature_ids or row.feature_id in owners)
    ]
    of_billing = [
        Cycle(held.anchor, held.recurrence, record.customer.time_zone)
        for held in record.customer.subscriptions
        if held.recurrence is not None
    ]
    found = [min(of_rows, key=_length_ms)] if of_rows else []
    return next(iter(found + of_billing if feature_ids else of_billing + found), None)


def _length_ms(cycle: Cycle) -> int:
    return MEAN_MS[cycle.recurrence.interval] * cycle.recurrence.count
