"""The list shows every customer who is there, as each is now, wherever the history of the last moments lies."""

import asyncio
import base64
from collections.abc import Awaitable, Callable

import pytest

from creditgate import openings
from creditgate.core.amounts import NANOS
from creditgate.core.customers import CustomerChanges, Record
from creditgate.core.decisions import Mode
from creditgate.core.listing import CustomerFilter, PlanFilter
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.usage import Usage
from creditgate.errors import InvalidInputs
from tests.engine.instants import SOON_MS, passed

EVERYBODY = CustomerFilter()


async def test_who_was_just_made_is_there(cases: openings.UseCases) -> None:
    """A page that is opened right after a signup shows the signup, flushed or not."""
    assert await _ids(cases) == []
    await _make(cases, "ann")
    assert await _ids(cases) == ["ann"]
    await cases.flusher.flush_once()
    await _make(cases, "bob")
    assert await _ids(cases) == ["bob", "ann"]
    assert await _ids(cases, newest_first=False) == ["ann", "bob"]


async def test_balances_are_those_of_this_moment(cases: openings.UseCases) -> None:
    """What was used since the history was flushed is in the list; what has expired by now is not."""
    await _make(cases, "ann")
    soon = cases.clock.now_ms() + SOON_MS
    await cases.customers.grant(Grant("ann", "usd_credits", NANOS, expires_at=soon))
    await cases.flusher.flush_once()
    await cases.meter.track(Usage("track", "ann", "basic_messages", None, NANOS, Mode.OVERFLOW))
    await passed(cases, soon)
    (record,) = (await cases.customer_list.page(EVERYBODY, limit=9, cursor="")).records
    assert not record.is_due
    assert record.balances == (await cases.customers.get("ann")).balances


@pytest.mark.parametrize("flushes", range(8))
async def test_the_deleted_are_gone_and_the_remade_are_there_once(
    cases: openings.UseCases, flushes: int
) -> None:
    """Wherever the journal lies between Redis and SQL, each customer is listed once or not at all."""
    steps: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: _make(cases, "ann"),
        lambda: _make(cases, "bob"),
        lambda: cases.customers.delete("ann"),
        lambda: _make(cases, "ann"),
        lambda: cases.customers.delete("bob"),
    )
    expected = (["ann"], ["bob", "ann"], ["bob"], ["ann", "bob"], ["ann"])
    for number, (step, listed) in enumerate(zip(steps, expected, strict=True)):
        await step()
        if flushes >> number % 3 & 1:
            await cases.flusher.flush_once()
        assert await _ids(cases) == listed


async def test_pages_meet_each_once(cases: openings.UseCases) -> None:
    """Somebody who walks through all customers meets each once, while the history moves from Redis to SQL."""
    names = [f"customer.{number}" for number in range(40)]
    for number, name in enumerate(names):
        await _make(cases, name)
        if number in (10, 25):
            await cases.flusher.flush_once()
    for newest_first in (True, False):
        for limit in (1, 7, 40, 100):
            assert await _walk(cases, limit, newest_first) == (names[::-1] if newest_first else names)
    assert await _walk(cases, 7, True, flush=True) == names[::-1]


async def test_a_page_is_full_though_much_has_changed(cases: openings.UseCases) -> None:
    """Customers whom SQL has as they were, and who are no longer asked for, leave no holes in a page."""
    names = [f"customer {number:03}" for number in range(120)]
    for name in names:
        await _make(cases, name, "Red")
    await cases.flusher.flush_once()
    for name in names[20:115]:
        await cases.customers.update(name, CustomerChanges({"name": "Blue"}))
    red = CustomerFilter(text="red")
    assert await _walk(cases, 10, True, red) == [*names[115:][::-1], *names[:20][::-1]]
    assert await _walk(cases, 10, False, CustomerFilter(text="blue")) == names[20:115]


async def test_nobody_is_missed_while_customers_come_and_go(cases: openings.UseCases) -> None:
    """Whoever was there before the first page and stays is met once, however busy the sidecar is."""
    names = [f"stays {number:02}" for number in range(30)]
    for name in names:
        await _make(cases, name)
    is_over = False

    async def come_and_go(number: int) -> None:
        while not is_over:
            await _make(cases, f"guest {number}")
            await cases.customers.delete(f"guest {number}")

    async def flush() -> None:
        while not is_over:
            await cases.flusher.flush_once()

    busy = asyncio.gather(flush(), *(come_and_go(number) for number in range(3)))
    walks = [await _walk(cases, 4, newest_first) for newest_first in (True, False) * 3]
    is_over = True
    await busy
    for number, walk in enumerate(walks):
        stayed = [name for name in walk if name.startswith("stays")]
        assert stayed == (names if number % 2 else names[::-1])


async def test_filters_hold_for_what_is_not_in_sql_yet(cases: openings.UseCases) -> None:
    """A customer who has just changed the plan or the name is found by the new one only."""
    for name in ("ann", "bob"):
        await _make(cases, name, name.title())
    await cases.flusher.flush_once()
    await _buy_pro(cases, "bob")
    await cases.customers.update("ann", CustomerChanges({"name": None, "email": "Someone@Example.com"}))
    by_filter: tuple[tuple[CustomerFilter, list[str]], ...] = (
        (CustomerFilter(plans=(PlanFilter("pro"),)), ["bob"]),
        (CustomerFilter(plans=(PlanFilter("free"),)), ["ann"]),
        (CustomerFilter(plans=(PlanFilter("free"), PlanFilter("pro"))), ["bob", "ann"]),
        (CustomerFilter(plans=(PlanFilter("pro", (1, 7)),)), ["bob"]),
        (CustomerFilter(plans=(PlanFilter("pro", (2,)),)), []),
        (CustomerFilter(status="active"), ["bob", "ann"]),
        (CustomerFilter(status="scheduled"), []),
        (CustomerFilter(text="ANN"), ["ann"]),
        (CustomerFilter(text="one@example"), ["ann"]),
        (CustomerFilter(text="bob"), ["bob"]),
        (CustomerFilter(text="%"), []),
    )
    for _ in range(2):
        for wanted, expected in by_filter:
            assert await _ids(cases, wanted) == expected, wanted
        await cases.flusher.flush_once()


async def test_created_at_range_includes_both_ends(cases: openings.UseCases) -> None:
    """A report of one day has whoever came in its first and in its last millisecond."""
    times = {}
    for name in ("a", "b", "c"):
        times[name] = (await _make(cases, name)).customer.created_at
    for _ in range(2):
        assert await _ids(cases, CustomerFilter(since=times["a"], until=times["b"])) == ["b", "a"]
        assert await _ids(cases, CustomerFilter(since=times["b"])) == ["c", "b"]
        assert await _ids(cases, CustomerFilter(until=times["a"] - 1)) == []
        await cases.flusher.flush_once()


@pytest.mark.parametrize(
    "raw", ["", "1", "x.ann", "99999999999999999999.ann", "1.", "1.a\x00b", "1." + "x" * 257]
)
async def test_a_cursor_that_is_not_ours_is_refused(cases: openings.UseCases, raw: str) -> None:
    """A cursor that was made up or cut off is an error of the caller's, whatever the database would make of it."""
    cursor = base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=") or "="
    with pytest.raises(InvalidInputs, match="start_cursor"):
        await cases.customer_list.page(EVERYBODY, limit=9, cursor=cursor)


async def _make(cases: openings.UseCases, customer_id: str, name: str | None = None) -> Record:
    """Make a customer; whoever is made next is of a later millisecond."""
    record = await cases.customers.get_or_create(customer_id, Profile(name=name))
    while cases.clock.now_ms() <= record.customer.created_at:
        pass
    return record


async def _buy_pro(cases: openings.UseCases, customer_id: str) -> None:
    attached = await cases.billing.attach(
        customer_id=customer_id,
        plan_id="pro",
        quantities={},
        success_url=None,
        base_url="http://localhost",
        key=None,
    )
    assert attached.payment_url is not None
    await cases.billing.pay(attached.payment_url.rsplit("/", 1)[1])


async def _ids(
    cases: openings.UseCases, wanted: CustomerFilter = EVERYBODY, *, newest_first: bool = True
) -> list[str]:
    page = await cases.customer_list.page(wanted, limit=99, cursor="", newest_first=newest_first)
    assert page.next_cursor is None
    return [record.customer.id for record in page.records]


async def _walk(
    cases: openings.UseCases,
    limit: int,
    newest_first: bool,
    wanted: CustomerFilter = EVERYBODY,
    *,
    flush: bool = False,
) -> list[str]:
    """Follow the pages to the end; with `flush`, the history moves on between them."""
    met: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await cases.customer_list.page(wanted, limit=limit, cursor=cursor, newest_first=newest_first)
        assert len(page.records) == limit or page.next_cursor is None
        met += [record.customer.id for record in page.records]
        cursor = page.next_cursor
        if flush:
            await cases.flusher.flush_once()
    return met
