"""Taking customers over from another system, a page at a time; and what became of them, in numbers and words."""

import asyncio
from collections.abc import AsyncIterable, Callable, Sequence
from typing import NamedTuple

import msgspec

from creditgate.balances.clock import RedisClock
from creditgate.core.arrivals import Arrival
from creditgate.core.catalog import Catalog
from creditgate.core.changes import Change
from creditgate.core.customers import Record
from creditgate.core.take_over import TakenOver, take_over
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.ids import mint
from creditgate.engine.writer import CustomerWriter
from creditgate.errors import CreditgateError, Unavailable, Undecided

AT_ONCE = 16  # customers that are taken at the same time
ROUNDS_MAX = 3  # for a customer whom somebody else makes or deletes meanwhile
NAMES_MAX = 3  # customers who are named for each thing that could not be taken

_VERB = "import"


class Lack(NamedTuple):
    """Something that could not be taken, of how many customers, and the first of them."""

    text: str
    customers: int
    first: tuple[str, ...]


class Report(msgspec.Struct):
    """What became of the customers that were read so far."""

    created: int = 0
    corrected: int = 0
    unchanged: int = 0
    lacks: dict[str, Lack] = {}

    @property
    def customers(self) -> int:
        return self.created + self.corrected + self.unchanged

    def lacking(self, text: str, customer_id: str) -> None:
        """Note what could not be taken of a customer."""
        known = self.lacks.get(text, Lack(text, 0, ()))
        first = (*known.first, customer_id)[:NAMES_MAX] if customer_id else known.first
        self.lacks[text] = Lack(text, known.customers + 1, first)


class Importer:
    """Takes over customers into one environment."""

    def __init__(self, writer: CustomerWriter, catalogs: Catalogs, clock: RedisClock) -> None:
        self._writer = writer
        self._catalogs = catalogs
        self._clock = clock

    async def take(self, pages: AsyncIterable[Sequence[Arrival]], progress: Callable[[int], None]) -> Report:
        """Take everybody; what cannot be taken is in the report. Raises Unavailable if Redis does not decide."""
        report = Report()
        async for page in pages:
            for first in range(0, len(page), AT_ONCE):
                some = page[first : first + AT_ONCE]
                lacking = await asyncio.gather(*(self._take(arrival, report) for arrival in some))
                for arrival, lacks in zip(some, lacking, strict=True):
                    for lack in lacks:
                        report.lacking(lack, arrival.customer.id)
            progress(report.customers)
        return report

    async def _take(self, arrival: Arrival, report: Report) -> tuple[str, ...]:
        """Take one customer; returns what could not be taken."""
        customer_id = arrival.customer.id
        if not customer_id:
            return arrival.lacks
        try:
            return await self._take_over(arrival, report)
        except (Unavailable, Undecided) as error:
            raise Unavailable(f"Customer {customer_id}: {error.message}. Run it again.") from error
        except CreditgateError as error:
            return (*arrival.lacks, error.message)

    async def _take_over(self, arrival: Arrival, report: Report) -> tuple[str, ...]:
        catalog = await self._giving(arrival)
        for _ in range(ROUNDS_MAX):
            record = await self._writer.read(arrival.customer.id)
            if record is None:
                taken = take_over(arrival, None, catalog, now=self._clock.now_ms(), mint=mint)
                assert taken.change is not None
                if await self._create(arrival, taken.change, catalog):
                    report.created += 1
                    return taken.lacks
            else:
                taken = await self._correct(arrival, record, catalog)
                if taken.change is None:
                    report.unchanged += 1
                else:
                    report.corrected += 1
                return taken.lacks
        raise Undecided("somebody else makes and deletes this customer at the same time")

    async def _create(self, arrival: Arrival, change: Change, catalog: Catalog) -> bool:
        return await self._writer.create(
            arrival.customer.id, change, verb=_VERB, catalog_version=catalog.version
        )

    async def _correct(self, arrival: Arrival, record: Record, catalog: Catalog) -> TakenOver:
        taken = TakenOver(None, ())

        def work_out(record: Record) -> Change | None:
            nonlocal taken
            taken = take_over(arrival, record, catalog, now=record.now, mint=mint)
            return taken.change

        await self._writer.change(record.customer.id, work_out, verb=_VERB, catalog_version=catalog.version)
        return taken

    async def _giving(self, arrival: Arrival) -> Catalog:
        """Return the catalog, with what this customer gets of it marked as given."""
        catalog = self._catalogs.current
        plans = {holding.plan_id for holding in arrival.holdings} & catalog.plans.keys()
        features = {lot.feature_id for lot in arrival.lots} & catalog.features.keys()
        return await self._catalogs.giving(plan_ids=sorted(plans), feature_ids=sorted(features))
