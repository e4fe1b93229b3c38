"""The statement tells every change, and its last line is what the customer has."""

import pytest

from creditgate import openings
from creditgate.core.amounts import NANOS, format_amount
from creditgate.core.decisions import Mode, balance_of
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.usage import Usage
from creditgate.errors import NotFound

MONTH_MS = 31 * 86_400_000


@pytest.fixture
async def told(cases: openings.UseCases) -> openings.UseCases:
    """A customer with a month of history, part of it in SQL and part in the stream."""
    await cases.customers.get_or_create("ann", Profile())
    await _track(cases, 2)
    await cases.flusher.flush_once()
    await _track(cases, -1)
    await cases.customers.grant(Grant("ann", "usd_credits", 3 * NANOS))
    await _track(cases, 60)
    return cases


async def test_every_change_is_a_line_in_words(told: openings.UseCases) -> None:
    """What was granted, used, given back and renewed, in order, with what was left each time."""
    record = await told.customers.get("ann")
    await told.customers.advance_test_clock("ann", record.now + MONTH_MS)
    statement = await told.statements.of("ann")
    assert statement.is_whole
    lines = [
        (line.text, format_amount(line.change_nanos), format_amount(line.remaining_nanos))
        for line in statement.lines
    ]
    assert lines == [
        ("granted (free)", "5", "5"),
        ("used 2 premium_messages", "-0.2", "4.8"),
        ("given back 1 premium_messages", "0.1", "4.9"),
        ("granted", "3", "7.9"),
        ("used 60 premium_messages", "-4.9", "3"),
        ("used 60 premium_messages", "-1.1", "1.9"),
        ("renewed (free)", "5", "6.9"),
    ]


async def test_the_last_line_is_what_the_customer_has(told: openings.UseCases) -> None:
    """The running balance ends where `customers.get` is."""
    record = await told.customers.get("ann")
    balance = balance_of("usd_credits", record.terms, record.balances)
    assert balance is not None
    assert (await told.statements.of("ann")).lines[-1].remaining_nanos == balance.remaining_nanos


async def test_since_and_limit_leave_out_what_came_before(told: openings.UseCases) -> None:
    """A long history can be asked for from a day on, or for its last lines; balances still count from the start."""
    whole = (await told.statements.of("ann")).lines
    last_two = await told.statements.of("ann", limit=2)
    assert last_two.lines == whole[-2:]
    assert not last_two.is_whole
    assert (await told.statements.of("ann", since=whole[-1].at + 1)).lines == ()


async def test_nobody_has_no_statement(told: openings.UseCases) -> None:
    """An unknown customer is not found, rather than shown an empty page."""
    with pytest.raises(NotFound):
        await told.statements.of("eve")


async def _track(cases: openings.UseCases, units: int) -> None:
    await cases.meter.track(Usage("track", "ann", "premium_messages", None, units * NANOS, Mode.CAP))
