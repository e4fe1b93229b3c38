"""change.lua on a real Valkey: customers are made, rows open and close, clocks are pinned; whole or not at all."""

import msgspec
import pytest

from creditgate.core.changes import Change, Step, profile_change, rows_change
from creditgate.core.customers import Customer, Terms
from creditgate.core.decisions import Mode, Status
from creditgate.core.journal import Item, Kind
from tests.lua.harness import DAY_MS, MONTH, NEVER_TOO_LATE, T0, UID, World, nanos, row


def told(items: tuple[Item, ...]) -> list[tuple[str, str | None, int | None, int | None]]:
    """The items without the numbers and calls: kind, row or document type, delta, raw after."""
    return [(i.kind, i.row_id or i.document_type, i.delta_nanos, i.after_nanos) for i in items]


async def test_new_customer(world: World) -> None:
    """A new customer has exactly the rows that were asked for, is number 1 in the journal, and can be read whole."""
    rows = (row("m", "messages", "5", resets=MONTH), row("c", "credits", "7.5"))
    written = await world.create("ann", *rows)
    assert (written.status, written.time, written.number) == (Status.OK, T0, 1)
    record = await world.record("ann")
    assert (record.uid, record.sequence, record.shape, record.clock, record.is_due) == (UID, 1, 1, T0, False)
    assert record.customer == Customer("ann", T0)
    assert record.terms == Terms(rows)
    assert record.balances == {"m": nanos("5"), "c": nanos("7.5")}
    (entry,) = await world.entries("ann")
    assert (entry.uid, entry.pinned_at, entry.stream_id) == (UID, T0, written.stream_id)
    assert told(entry.items) == [
        (Kind.PUT, "clock", None, None),
        (Kind.GRANT, "m", nanos("5"), nanos("5")),
        (Kind.GRANT, "c", nanos("7.5"), nanos("7.5")),
        (Kind.PUT, "terms", None, None),
        (Kind.PUT, "customer", None, None),
    ]


async def test_second_creation_changes_nothing(world: World) -> None:
    """Two sidecars that create the same customer at once make one customer with one set of rows."""
    await world.create("ann", row("a", "messages", "5"))
    before = await world.everything()
    assert (await world.create("ann", row("b", "messages", "5"), uid="uid2")).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_customer_without_rows(world: World) -> None:
    """A customer to whom no plan gives anything exists, and a track of anything takes nothing."""
    await world.create("ann")
    assert (await world.record("ann")).terms == Terms()
    assert (await world.track("ann", "messages", "5")).status is Status.OK


async def test_change_of_a_customer_who_is_not_there(world: World) -> None:
    """A change worked out from a read never brings a customer to life who is gone meanwhile."""
    await world.create("ann", row("a", "messages", "5"))
    record = await world.record("ann")
    await world.empty()
    assert (await world.change(record, rows_change(record))).status is Status.ABSENT
    assert await world.everything() == world.nothing


async def test_change_from_an_old_read_is_refused(world: World) -> None:
    """Of two changes worked out from the same read only the first is applied: neither undoes the other."""
    await world.create("ann", row("a", "messages", "5"))
    record = await world.record("ann")
    first = rows_change(record, opened=[row("b", "messages", "1")])
    assert (await world.change(record, first)).status is Status.OK
    before = await world.everything()
    second = rows_change(record, opened=[row("c", "messages", "1")])
    assert (await world.change(record, second)).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_tracks_do_not_disturb_a_change(world: World) -> None:
    """A busy customer can still be granted credits: a track between the read and the change does not refuse it."""
    await world.create("ann", row("a", "messages", "5"))
    record = await world.record("ann")
    await world.track("ann", "messages", "2")
    assert (
        await world.change(record, rows_change(record, opened=[row("b", "messages", "1")]))
    ).status is Status.OK
    assert await world.balances("ann") == {"a": "3", "b": "1"}


async def test_customer_made_again_is_another_customer(world: World) -> None:
    """A change that was worked out for a customer who was deleted and came again under the same id is refused."""
    await world.create("ann", row("a", "messages", "5"))
    record = await world.record("ann")
    await world.redis.delete(world.keys.record("ann"))
    await world.create("ann", row("a", "messages", "5"), uid="uid2")
    before = await world.everything()
    assert (await world.change(record, rows_change(record))).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_closing_expires_what_is_left(world: World) -> None:
    """What is left in a closed row is journaled as expired, what was overdrawn as forgiven, and the row is gone."""
    rows = [
        row(name, "messages", "5", owner_id="sub", created_at=T0 + n)
        for n, name in enumerate(("full", "part", "nil"))
    ]
    await world.create("ann", *rows, row("below", "seats", "1", may_go_negative=True, owner_id="sub"))
    await world.track("ann", "messages", "10")
    await world.track("ann", "seats", "3")
    await world.track("ann", "messages", "-4")
    assert await world.balances("ann") == {"full": "4", "part": "0", "nil": "5", "below": "-2"}
    record = await world.record("ann")
    written = await world.change(
        record, rows_change(record, closed=["sub"], opened=[row("new", "messages", "9")])
    )
    assert written.status is Status.OK
    assert await world.balances("ann") == {"new": "9"}
    assert sorted(told((await world.entries("ann"))[-1].items), key=str) == sorted(
        [
            (Kind.EXPIRE, "full", -nanos("4"), 0),
            (Kind.EXPIRE, "part", 0, 0),
            (Kind.EXPIRE, "nil", -nanos("5"), 0),
            (Kind.FORGIVE, "below", nanos("2"), 0),
            (Kind.GRANT, "new", nanos("9"), nanos("9")),
            (Kind.PUT, "terms", None, None),
        ],
        key=str,
    )
    assert (await world.track("ann", "seats", "1")).balances == {}


async def test_corrected_row_holds_what_was_asked_for(world: World) -> None:
    """A row can be opened and set to what is left of it in one step, and set again: the journal has the difference."""
    change = rows_change(None, customer=Customer("ann", T0), opened=[row("r", "messages", "5")])
    left = (nanos("3.5"), nanos("-2"), nanos("6000000.000000001"), nanos("5"), 0)
    steps = (*change.steps, *(Step("correct", "r", amount) for amount in left))
    call = world.call("import")
    written = await world.store.change(
        not_after=world.clock.now_ms() + DAY_MS,
        customer_id="ann",
        call=call,
        uid=UID,
        expected_shape=0,
        clock=T0,
        change=msgspec.structs.replace(change, steps=steps),
    )
    assert written.status is Status.OK
    assert await world.balances("ann") == {"r": "0"}
    (entry,) = await world.entries("ann")
    assert told(entry.items)[1:7] == [
        (Kind.GRANT, "r", nanos("5"), nanos("5")),
        (Kind.CORRECT, "r", nanos("-1.5"), nanos("3.5")),
        (Kind.CORRECT, "r", nanos("-5.5"), nanos("-2")),
        (Kind.CORRECT, "r", nanos("6000002.000000001"), nanos("6000000.000000001")),
        (Kind.CORRECT, "r", nanos("-5999995.000000001"), nanos("5")),
        (Kind.CORRECT, "r", nanos("-5"), 0),
    ]


async def test_correction_counts_from_what_is_left_then(world: World) -> None:
    """A track between the read and the correction is not lost from the books: the script works the difference out."""
    await world.create("ann", row("r", "messages", "5"))
    record = await world.record("ann")
    await world.track("ann", "messages", "2")
    change = Change(due=None, steps=(Step("correct", "r", nanos("4")),))
    assert (await world.change(record, change)).status is Status.OK
    assert await world.balances("ann") == {"r": "4"}
    assert told((await world.entries("ann"))[-1].items) == [(Kind.CORRECT, "r", nanos("1"), nanos("4"))]


async def test_dropped_row_must_be_empty(world: World) -> None:
    """A row that gives up its place because it was drained keeps it when a refund came between."""
    rows = [row(f"r{n}", "messages", "1", created_at=T0 + n) for n in range(64)]
    await world.create("ann", *rows)
    await world.track("ann", "messages", "1")
    record = await world.record("ann")
    change = rows_change(record, opened=[row("new", "messages", "7")])
    assert change.steps == (Step("drop", "r0"), Step("open", "new", nanos("7")))
    await world.track("ann", "messages", "-0.5")
    before = await world.everything()
    assert (await world.change(record, change)).status is Status.MOVED_ON
    assert await world.everything() == before
    await world.track("ann", "messages", "0.5")
    assert (await world.change(record, change)).status is Status.OK
    balances = await world.balances("ann")
    assert len(balances) == 64
    assert "r0" not in balances
    assert balances["new"] == "7"


@pytest.mark.parametrize(
    "steps",
    [
        (Step("open", "a", 1),),
        (Step("open", "new", 1), Step("close", "gone")),
        (Step("open", "new", 1), Step("reset", "gone", 5)),
        (Step("close", "a"), Step("drop", "gone")),
        (Step("open", "new", 1), Step("correct", "gone", 5)),
        (Step("open", "new", 1), Step("open", "new", 1)),
        (Step("close", "a"), Step("correct", "a", 1)),
        (Step("close", "a"), Step("open", "a", 1)),
    ],
)
async def test_steps_that_do_not_fit(world: World, steps: tuple[Step, ...]) -> None:
    """A step on a row that is not as it was read refuses the whole change, with nothing done of the steps before."""
    await world.create("ann", row("a", "messages", "5"))
    record = await world.record("ann")
    before = await world.everything()
    change = Change(due=None, terms=Terms(), steps=steps)
    assert (await world.change(record, change)).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_pinned_clock_is_the_time_that_counts(world: World) -> None:
    """A pinned customer lives at that instant: in every answer, in the journal, and in what is due."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH), clock=T0)
    reset = T0 + 31 * DAY_MS
    written = await world.set_clock("ann", reset - 1)
    assert written.status is Status.OK
    reply = await world.track("ann", "messages", "1")
    assert (reply.status, reply.time) == (Status.OK, reset - 1)
    assert [entry.pinned_at for entry in await world.entries("ann")] == [T0, reset - 1, reset - 1]
    await world.set_clock("ann", reset)
    before = await world.everything()
    assert (await world.track("ann", "messages", "1")).status is Status.DUE
    assert (await world.check("ann", "messages", "1")).status is Status.DUE
    record = await world.record("ann")
    assert (record.is_due, record.now, record.clock) == (True, reset, reset)
    assert (await world.change(record, rows_change(record))).status is Status.DUE
    assert await world.everything() == before
    await world.forward("ann")
    assert await world.balances("ann") == {"r": "5"}


async def test_time_of_the_others_is_the_servers(world: World) -> None:
    """A customer whose clock is not pinned lives in Redis's time, and stands in the due index for the sweep."""
    now = world.clock.now_ms()
    soon = row("soon", "messages", "5", expires_at=now + DAY_MS)
    written = await world.create("ann b", soon, clock=None)
    assert abs(written.time - now) < DAY_MS
    (entry,) = await world.entries("ann b")
    assert entry.pinned_at is None
    partition = world.keys.partition_of("ann b")
    assert await world.store.due_customers(partition, now, 10) == []
    assert await world.store.due_customers(partition, now + DAY_MS, 10) == ["ann b"]
    record = await world.record("ann b")
    assert (await world.change(record, rows_change(record), clock=T0)).status is Status.OK
    assert await world.store.due_customers(partition, now + DAY_MS, 10) == []


async def test_due_index_follows_the_customer(world: World) -> None:
    """The sweep finds a customer at the earliest instant of all rows, and no more once nothing of it is due."""
    now = world.clock.now_ms()
    partition = world.keys.partition_of("ann")
    first = row("first", "messages", "5", expires_at=now + DAY_MS, owner_id="a")
    second = row("second", "messages", "5", expires_at=now + 2 * DAY_MS, owner_id="b")
    await world.create("ann", first, second, clock=None)
    assert await world.store.due_customers(partition, now + DAY_MS, 10) == ["ann"]
    record = await world.record("ann")
    await world.change(record, rows_change(record, closed=["a"]))
    assert await world.store.due_customers(partition, now + DAY_MS, 10) == []
    assert await world.store.due_customers(partition, now + 2 * DAY_MS, 10) == ["ann"]
    record = await world.record("ann")
    await world.change(record, rows_change(record, closed=["b"]))
    assert await world.store.due_customers(partition, now + 9 * DAY_MS, 10) == []


async def test_profile_leaves_balances_alone(world: World) -> None:
    """A new e-mail address changes no balance, no terms and no due date."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH))
    await world.track("ann", "messages", "2")
    before = await world.record("ann")
    customer = msgspec.structs.replace(before.customer, email="ann@example.com", name='A "B"\n\\ ü')
    assert (await world.change(before, profile_change(before, customer))).status is Status.OK
    after = await world.record("ann")
    assert after.customer == customer
    assert (after.terms, after.balances) == (before.terms, before.balances)
    assert (await world.track("ann", "messages", "1")).status is Status.OK


async def test_amount_beyond_the_range_is_refused(world: World) -> None:
    """A grant of more than there can be is refused as a value, with nothing written."""
    assert (await world.create("ann", row("r", "messages", "999999999999999.999999999"))).status is Status.OK
    with pytest.raises(AssertionError):  # INVALID: 25 digits are no amount
        await world.create("bob", row("r", "messages", "1000000000000000"))
    assert await world.store.read(customer_id="bob") is None
    await world.track("ann", "messages", "999999999999999", mode=Mode.OVERFLOW)
    assert await world.balances("ann") == {"r": "0.999999999"}


async def test_a_change_that_was_worked_out_from_balances(world: World) -> None:
    """What depends on how much is left holds for nothing but what was read: after a track it is worked out again."""
    await world.create("ann", row("r", "messages", "5"))
    before = await world.record("ann")
    await world.track("ann", "messages", "1")
    for record, status in ((before, Status.MOVED_ON), (await world.record("ann"), Status.OK)):
        written = await world.store.change(
            not_after=NEVER_TOO_LATE,
            customer_id="ann",
            call=world.call("change"),
            uid=record.uid,
            expected_shape=record.shape,
            expected_sequence=record.sequence,
            clock=None,
            change=rows_change(record, steps=[Step("correct", "r", nanos("2"))]),
        )
        assert written.status is status
    assert await world.balances("ann") == {"r": "2"}


async def test_too_late(world: World) -> None:
    """After its deadline a change has no effect, so that the caller may safely do it again."""
    assert (await world.create("ann", row("r", "messages", "5"), not_after=1)).status is Status.TOO_LATE
    assert await world.everything() == world.nothing
    await world.create("ann", row("r", "messages", "5"))
    before = await world.everything()
    record = await world.record("ann")
    late = world.clock.now_ms() - 60_000
    assert (await world.change(record, rows_change(record), not_after=late)).status is Status.TOO_LATE
    assert (await world.track("ann", "messages", "1", not_after=late)).status is Status.TOO_LATE
    assert await world.everything() == before
