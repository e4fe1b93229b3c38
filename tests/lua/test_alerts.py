"""What a call crosses on its way down is in its own entry, once; and again only after the balance was above it."""

from typing import NamedTuple

import pytest
from msgspec.structs import replace

from creditgate.core.catalog import ItemPrice
from creditgate.core.changes import Change, rows_change
from creditgate.core.controls import BillingControls, SpendLimit, UsageAlert, UsageLimit
from creditgate.core.customers import Customer, Row
from creditgate.core.decisions import Mode, Status
from creditgate.core.intervals import Interval, Recurrence
from tests.lua.harness import NEVER_TOO_LATE, T0, UID, World, nanos, row


class Case(NamedTuple):
    """Rows and controls; tracks one after the other; and what each of them crosses, by the alert's id."""

    promise: str
    rows: tuple[Row, ...]
    controls: BillingControls
    tracks: tuple[tuple[str, tuple[str, ...]], ...]
    feature: str = "messages"
    mode: Mode = Mode.CAP


def alert(kind: str, threshold: str) -> UsageAlert:
    return UsageAlert("messages", nanos(threshold), kind, name="low")  # type: ignore[arg-type]


HUNDRED = row("r", "messages", "100")
LOW = alert("remaining", "20")
SHARE = alert("remaining_percentage", "12.5")
USED = alert("usage", "60")
USED_SHARE = alert("usage_percentage", "33.3")

CASES = (
    Case(
        "a balance that is used up is told by the call that takes the last of it",
        (HUNDRED,),
        BillingControls(),
        (("99", ()), ("5", ("included.messages",)), ("5", ()), ("-3", ()), ("3", ("included.messages",))),
    ),
    Case(
        "what remains: at the threshold exactly, once, and again after it was above",
        (HUNDRED,),
        BillingControls(usage_alerts=(LOW,)),
        (("79.999999999", ()), ("0.000000001", (LOW.id,)), ("1", ()), ("-50", ()), ("60", (LOW.id,))),
    ),
    Case(
        "a share of what was granted",
        (HUNDRED,),
        BillingControls(usage_alerts=(SHARE,)),
        (("87", ()), ("0.5", (SHARE.id,)), ("0.5", ())),
    ),
    Case(
        "usage, over two rows",
        (row("a", "messages", "50"), row("b", "messages", "50")),
        BillingControls(usage_alerts=(USED,)),
        (("59", ()), ("1", (USED.id,)), ("1", ())),
    ),
    Case(
        "a share of usage, also below zero",
        (HUNDRED,),
        BillingControls(usage_alerts=(USED_SHARE, alert("usage", "150"))),
        (("33.2", ()), ("0.1", (USED_SHARE.id,)), ("200", ("included.messages", alert("usage", "150").id))),
        mode=Mode.OVERFLOW,
    ),
    Case(
        "several at once, in one entry",
        (HUNDRED,),
        BillingControls(usage_alerts=(LOW, SHARE)),
        (("100", ("included.messages", LOW.id, SHARE.id)),),
    ),
    Case(
        "a usage limit that is reached",
        (HUNDRED,),
        BillingControls(usage_limits=(UsageLimit("messages", nanos("5"), Interval.DAY),)),
        (("4", ()), ("4", ("usage_limit.messages",)), ("4", ())),
    ),
    Case(
        "a spend limit that is reached",
        (replace(HUNDRED, may_go_negative=True),),
        BillingControls(spend_limits=(SpendLimit("messages", nanos("10")),)),
        (("105", ("included.messages",)), ("5", ("spend_limit.messages",)), ("1", ())),
    ),
    Case(
        "the last that may be used and paid later",
        (HUNDRED,),
        BillingControls(),
        (("120", ("included.messages",)), ("30", ("max_purchase.messages",)), ("1", ())),
    ),
    Case(
        "of an unlimited balance nothing is told",
        (row("all", "messages", "0"),),
        BillingControls(usage_alerts=(LOW,)),
        (("1000", ()),),
    ),
)


def made(case: Case) -> Change:
    """What creates the customer of a case."""
    rows = [replace(r, unlimited=True) if r.id == "all" else r for r in case.rows]
    if "paid later" in case.promise:
        later = ItemPrice(
            1, Recurrence(Interval.MONTH), billing_method="usage_based", max_purchase_nanos=nanos("50")
        )
        rows = [replace(r, may_go_negative=True, price=later) for r in rows]
    return rows_change(None, customer=Customer("ann", T0, controls=case.controls), opened=rows)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.promise) for case in CASES])
async def test_case(world: World, case: Case) -> None:
    """A team that waits for the alert gets one, not none and not one a call."""
    created = await world.store.change(
        not_after=NEVER_TOO_LATE,
        customer_id="ann",
        call=world.call("create"),
        uid=UID,
        expected_shape=0,
        clock=T0,
        change=made(case),
    )
    assert created.status is Status.OK
    for number, (units, told) in enumerate(case.tracks):
        await world.track("ann", case.feature, units, mode=case.mode)
        entry = (await world.entries("ann"))[-1]
        found = [item.document_id for item in entry.items if item.document_type == "alert"]
        assert tuple(found) == told, f"track {number}: {units}"


async def test_a_refused_call_tells_nothing(world: World) -> None:
    """What was not taken has crossed nothing."""
    await world.create("ann", HUNDRED)
    before = len(await world.entries("ann"))
    assert (await world.track("ann", "messages", "101", mode=Mode.REJECT)).status is Status.REFUSED
    assert len(await world.entries("ann")) == before
