"""Floors and limits on a real Valkey: rows that are unlimited, paid later, seats or rolled over; caps and spend limits.

One table for check and track: what check allows, a track with reject takes, and the other way round.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from creditgate.core.changes import rows_change
from creditgate.core.controls import NO_CONTROLS, BillingControls, OverageAllowed, SpendLimit, UsageLimit
from creditgate.core.customers import Row
from creditgate.core.decisions import Mode, Status
from creditgate.core.intervals import Interval
from tests.lua.harness import DAY, MONTH, World, nanos, row

CAP, REJECT, OVERFLOW = Mode.CAP, Mode.REJECT, Mode.OVERFLOW


@dataclass(frozen=True)
class Take:
    """One track, and what is in the rows after it (and in gates, by the feature they are on).

    `checked`: whether a check of the same, just before, allows it; None where check and track differ on purpose.
    """

    feature: str
    units: str
    after: Mapping[str, str]
    mode: Mode = CAP
    properties: Mapping[str, Any] = field(default_factory=dict)
    checked: bool | None = None


@dataclass(frozen=True)
class Scenario:
    """A promise, the rows and controls of a new customer, and calls."""

    promise: str
    rows: tuple[Row, ...]
    takes: tuple[Take, ...]
    controls: BillingControls = NO_CONTROLS


def cap(feature: str, limit: str, **properties: str) -> BillingControls:
    return BillingControls(
        usage_limits=(UsageLimit(feature, nanos(limit), Interval.DAY, properties=properties),)
    )


def spend(feature: str, limit: str) -> BillingControls:
    return BillingControls(spend_limits=(SpendLimit(feature, nanos(limit)),))


def overage(feature: str, *, enabled: bool) -> BillingControls:
    return BillingControls(overage_allowed=(OverageAllowed(feature, enabled),))


MONTHLY = row("m", "messages", "10", resets=MONTH)
LIFETIME = row("life", "messages", "5")
PAID = row("paid", "messages", "10", resets=MONTH, paid_later="")
BOUNDED = row("paid", "messages", "10", resets=MONTH, paid_later="7")
SEATS = row("s", "seats", "5", may_go_negative=True)
OWN = row("own", "action1", "10", resets=MONTH)
CREDITS = row("c", "credits", "10", resets=MONTH)

FLOORS = [
    Scenario(
        "an unlimited row gives everything, and nothing else moves",
        (MONTHLY, row("u", "messages", unlimited=True)),
        (
            Take("messages", "7", {"u": "-7", "m": "10"}, checked=True),
            Take("messages", "1000000", {"u": "-1000007", "m": "10"}, REJECT, checked=True),
            Take("messages", "5", {"u": "-1000012", "m": "10"}, OVERFLOW),
            Take("messages", "-12", {"u": "-1000000", "m": "10"}, checked=True),
            Take("messages", "-2000000", {"u": "0", "m": "10"}),
        ),
    ),
    Scenario(
        "an own unlimited row gives before unlimited credits, whichever is older",
        (row("c", "credits", unlimited=True, created_at=1), row("own", "action1", unlimited=True)),
        (Take("action1", "5", {"c": "0", "own": "-5"}, checked=True),),
    ),
    Scenario(
        "unlimited credits give before a limited row of the feature's own, at their cost",
        (OWN, row("c", "credits", unlimited=True)),
        (
            Take("action1", "5", {"own": "10", "c": "-1"}),
            Take("action1", "500", {"own": "10", "c": "-101"}, REJECT),
        ),
    ),
    Scenario(
        "an unlimited row is not stopped by a cap, and not counted on it",
        (row("u", "messages", unlimited=True),),
        (Take("messages", "9", {"u": "-9", "@messages": "5"}, REJECT, checked=True),),
        cap("messages", "5"),
    ),
    Scenario(
        "what rolled over gives first, the soonest to expire first, also to a feature that is paid in credits",
        (
            row("own", "action1", "10", resets=DAY),
            CREDITS,
            row("late", "credits", "2", rolled_from="c", expires_at=10**14),
            row("soon", "credits", "1", rolled_from="c", expires_at=10**13),
            row("never", "credits", "3", rolled_from="c"),
        ),
        (
            Take("action1", "7.5", {"soon": "0", "late": "1.5", "never": "3", "c": "10", "own": "10"}),
            Take("action1", "30", {"soon": "0", "late": "0", "never": "0", "c": "10", "own": "2.5"}, REJECT),
            Take("action1", "-30", {"soon": "0", "late": "0", "never": "0", "c": "10", "own": "10"}),
        ),
    ),
    Scenario(
        "what rolled over never goes below zero: overflow lands on a row that may be filled again",
        (MONTHLY, row("roll", "messages", "1", rolled_from="m")),
        (
            Take("messages", "12", {"roll": "0", "m": "-1"}, OVERFLOW, checked=False),
            Take("messages", "-1", {"roll": "0", "m": "0"}, OVERFLOW),
            Take("messages", "-20", {"roll": "0", "m": "20"}, OVERFLOW),
        ),
    ),
    Scenario(
        "what is paid later goes below zero by every mode, after all that is there",
        (PAID, LIFETIME),
        (
            Take("messages", "12", {"paid": "0", "life": "3"}, checked=True),
            Take("messages", "12", {"paid": "-9", "life": "0"}, REJECT, checked=True),
            Take("messages", "1", {"paid": "-10", "life": "0"}, checked=True),
            Take("messages", "-12", {"paid": "2", "life": "0"}),
        ),
    ),
    Scenario(
        "a bound below zero stops all modes but overflow; beyond it, nothing more",
        (BOUNDED,),
        (
            Take("messages", "17.000000001", {"paid": "10"}, REJECT, checked=False),
            Take("messages", "17", {"paid": "-7"}, REJECT, checked=True),
            Take("messages", "0.000000001", {"paid": "-7"}, checked=False),
            Take("messages", "0", {"paid": "-7"}, REJECT, checked=True),
            Take("messages", "5", {"paid": "-12"}, OVERFLOW, checked=False),
            Take("messages", "0", {"paid": "-12"}, REJECT, checked=True),
            Take("messages", "1", {"paid": "-12"}),
            Take("messages", "-6", {"paid": "-6"}),
            Take("messages", "5", {"paid": "-7"}),
        ),
    ),
    Scenario(
        "bounds of several rows add up, and each holds",
        (BOUNDED, row("more", "messages", "1", resets=MONTH, paid_later="2", created_at=10**13)),
        (
            Take("messages", "21", {"paid": "10", "more": "1"}, REJECT, checked=False),
            Take("messages", "20", {"paid": "-7", "more": "-2"}, REJECT, checked=True),
        ),
    ),
    Scenario(
        "a check counts the seats that are there; a track goes below",
        (SEATS,),
        (
            Take("seats", "6", {"s": "5"}, REJECT, checked=False),
            Take("seats", "5", {"s": "0"}, REJECT, checked=True),
            Take("seats", "1", {"s": "-1"}, checked=False),
        ),
    ),
    Scenario(
        "what is paid later in credits is counted in credits",
        (OWN, row("c", "credits", "1", resets=MONTH, paid_later="3")),
        (
            Take("action1", "31", {"own": "10", "c": "1"}, REJECT, checked=None),
            Take("action1", "30", {"own": "0", "c": "-3"}, REJECT, checked=None),
        ),
    ),
]

SPENDING = [
    Scenario(
        "a spend limit stands above the bound of a row, and counts what all rows owe",
        (BOUNDED, LIFETIME),
        (
            Take("messages", "25", {"paid": "10", "life": "5"}, REJECT, checked=False),
            Take("messages", "18", {"paid": "-3", "life": "0"}, REJECT, checked=True),
            Take("messages", "6.5", {"paid": "-9", "life": "0"}, checked=False),
            Take("messages", "0", {"paid": "-9", "life": "0"}, REJECT, checked=True),
        ),
        spend("messages", "9"),
    ),
    Scenario(
        "overflow goes no further than the spend limit",
        (MONTHLY, LIFETIME),
        (
            Take("messages", "100", {"m": "-9", "life": "0"}, OVERFLOW, checked=False),
            Take("messages", "1", {"m": "-9", "life": "0"}, OVERFLOW),
        ),
        spend("messages", "9"),
    ),
    Scenario(
        "a spend limit gives nothing to rows that stop at zero",
        (MONTHLY,),
        (Take("messages", "11", {"m": "0"}, checked=False),),
        spend("messages", "9"),
    ),
    Scenario(
        "a spend limit on credits is counted in credits",
        (OWN, row("c", "credits", "1", resets=MONTH, paid_later="")),
        (
            Take("action1", "100", {"own": "0", "c": "-2"}),
            Take("action2", "0.000000001", {"own": "0", "c": "-2"}, REJECT, checked=False),
        ),
        spend("credits", "2"),
    ),
    Scenario(
        "a spend limit on the feature leaves the credits alone",
        (OWN, row("c", "credits", "1", resets=MONTH, paid_later="")),
        (Take("action1", "100", {"own": "0", "c": "-17"}, checked=True),),
        spend("action1", "2"),
    ),
    Scenario(
        "overage that is allowed lets every row below zero, the first one first",
        (MONTHLY, LIFETIME),
        (
            Take("messages", "20", {"m": "-5", "life": "0"}, REJECT, checked=True),
            Take("messages", "1", {"m": "-6", "life": "0"}),
        ),
        overage("messages", enabled=True),
    ),
    Scenario(
        "overage that is forbidden stops what is paid later, and seats",
        (PAID,),
        (Take("messages", "20", {"paid": "0"}, checked=False),),
        overage("messages", enabled=False),
    ),
    Scenario(
        "seats that are forbidden to go below stop at zero",
        (SEATS,),
        (Take("seats", "7", {"s": "0"}, checked=False),),
        overage("seats", enabled=False),
    ),
    Scenario(
        "seats that are allowed to go below do so for a check, too",
        (SEATS,),
        (Take("seats", "7", {"s": "-2"}, REJECT, checked=True),),
        overage("seats", enabled=True),
    ),
    Scenario(
        "what rolled over is no overage, even where overage is allowed",
        (MONTHLY, row("roll", "messages", "1", rolled_from="m")),
        (Take("messages", "20", {"roll": "0", "m": "-9"}, REJECT, checked=True),),
        overage("messages", enabled=True),
    ),
]

GATES = [
    Scenario(
        "a cap lets through what is left of it, and counts it",
        (MONTHLY,),
        (
            Take("messages", "3", {"m": "7", "@messages": "2"}, checked=True),
            Take("messages", "3", {"m": "7", "@messages": "2"}, REJECT, checked=False),
            Take("messages", "3", {"m": "5", "@messages": "0"}, checked=False),
            Take("messages", "1", {"m": "5", "@messages": "0"}, checked=False),
            Take("messages", "0", {"m": "5", "@messages": "0"}, REJECT, checked=True),
            Take("messages", "-4", {"m": "9", "@messages": "0"}, checked=True),
            Take("messages", "1", {"m": "9", "@messages": "0"}),
        ),
        cap("messages", "5"),
    ),
    Scenario(
        "overflow passes a cap, is counted, and leaves nothing of it",
        (MONTHLY,),
        (
            Take("messages", "8", {"m": "2", "@messages": "-3"}, OVERFLOW, checked=False),
            Take("messages", "0", {"m": "2", "@messages": "-3"}, REJECT, checked=True),
            Take("messages", "1", {"m": "2", "@messages": "-3"}, checked=False),
        ),
        cap("messages", "5"),
    ),
    Scenario(
        "a cap on a member holds over its own row and its credits, in units",
        (row("own", "action1", "5", resets=MONTH), CREDITS),
        (
            Take("action1", "10", {"own": "0", "c": "9.4", "@action1": "0"}),
            Take("action1", "1", {"own": "0", "c": "9.4", "@action1": "0"}, REJECT, checked=False),
            Take("action2", "1", {"own": "0", "c": "8.8", "@action1": "0"}, checked=True),
            Take("credits", "1", {"own": "0", "c": "7.8", "@action1": "0"}, checked=True),
        ),
        cap("action1", "8"),
    ),
    Scenario(
        "a cap on credits counts credits, and leaves the feature's own row alone",
        (row("own", "action1", "5", resets=MONTH), CREDITS),
        (
            Take("action1", "5", {"own": "0", "c": "10", "@credits": "2"}),
            Take("action1", "20", {"own": "0", "c": "8", "@credits": "0"}),
            Take("action2", "1", {"own": "0", "c": "8", "@credits": "0"}, REJECT, checked=False),
        ),
        cap("credits", "2"),
    ),
    Scenario(
        "a cap on credits lets the rest spill into another system, in units that are left",
        (CREDITS, row("c3", "credits3", "100", created_at=10**13)),
        # 2 credits are 10 units; the 5 units left are 10 of the other system.
        (Take("action1", "15", {"c": "8", "c3": "90", "@credits": "0"}),),
        cap("credits", "2"),
    ),
    Scenario(
        "a cap holds below zero, too",
        (PAID,),
        (
            Take("messages", "15", {"paid": "-2", "@messages": "0"}, checked=False),
            Take("messages", "1", {"paid": "-2", "@messages": "0"}, REJECT, checked=False),
        ),
        cap("messages", "12"),
    ),
    Scenario(
        "what nobody gave is not counted",
        (LIFETIME,),
        (
            Take("messages", "50", {"life": "0", "@messages": "15"}, checked=False),
            Take("messages", "1", {"life": "0", "@messages": "15"}),
        ),
        cap("messages", "20"),
    ),
    Scenario(
        "a filter counts calls that have every one of its properties",
        (MONTHLY,),
        (
            Take("messages", "1", {"m": "9", "@messages": "2"}, properties={"model": "large"}),
            Take(
                "messages",
                "1",
                {"m": "8", "@messages": "1"},
                properties={"beta": True, "n": 2, "model": "large"},
            ),
            Take("messages", "3", {"m": "7", "@messages": "0"}, properties={"beta": True, "model": "large"}),
            Take("messages", "3", {"m": "4", "@messages": "0"}, properties={"model": "small"}),
            Take("messages", "3", {"m": "1", "@messages": "0"}),
        ),
        cap("messages", "2", model="large", beta="true"),
    ),
]


async def test_a_row_beyond_its_bound_takes_nothing_from_what_another_has(world: World) -> None:
    """Who owes more than the bound, and is granted 5, may use the 5: a check and a track with reject agree."""
    await world.create("ann", BOUNDED)
    await world.track("ann", "messages", "30", mode=OVERFLOW)
    record = await world.record("ann")
    await world.change(record, rows_change(record, opened=[LIFETIME]))
    assert (await world.check("ann", "messages", "5")).status is Status.OK
    assert (await world.check("ann", "messages", "5.1")).status is Status.REFUSED
    assert (await world.track("ann", "messages", "5", mode=REJECT)).status is Status.OK
    assert await world.balances("ann") == {"paid": "-20", "life": "0"}


@pytest.mark.parametrize("scenario", [pytest.param(s, id=s.promise) for s in FLOORS + SPENDING + GATES])
async def test_scenario(world: World, scenario: Scenario) -> None:
    """Nobody goes further than a floor or a limit lets them, and what a check promises a track keeps."""
    await world.create("ann", *scenario.rows, controls=scenario.controls)
    names = {gate.id: f"@{gate.feature_id}" for gate in (await world.record("ann")).terms.gates}
    for number, take in enumerate(scenario.takes, 1):
        told = f"call {number}: {take}"
        checked = await world.check("ann", take.feature, take.units, take.properties)
        if take.checked is not None:
            assert (checked.status is Status.OK) == take.checked, told
        before = await world.balances("ann")
        reply = await world.track("ann", take.feature, take.units, mode=take.mode, properties=take.properties)
        after = await world.balances("ann")
        assert {names.get(id_, id_): balance for id_, balance in after.items()} == take.after, told
        if take.mode is REJECT:
            assert checked.status is Status.REFUSED or reply.status is Status.OK, told
        assert (reply.status is Status.OK) or before == after, told
