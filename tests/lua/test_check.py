"""check.lua on a real Valkey: which pool answers, and whether it can afford the call. Nothing is ever written."""

from dataclasses import dataclass

import pytest

from creditgate.core.customers import Row
from creditgate.core.decisions import Mode, Status
from tests.lua.harness import MONTH, World, catalog_of, row

YES, NO = Status.OK, Status.REFUSED


@dataclass(frozen=True)
class Ask:
    """One check: units of a feature, the answer, and the pool that gives it ('' for none)."""

    feature: str
    units: str
    status: Status
    pool: str


@dataclass(frozen=True)
class Scenario:
    """A promise, the rows of a customer, what was used before, and checks."""

    promise: str
    rows: tuple[Row, ...]
    asks: tuple[Ask, ...]
    used: tuple[tuple[str, str], ...] = ()
    costs: dict[str, dict[str, str]] | None = None


SCENARIOS = [
    Scenario(
        "tutorial: five credits are five hundred basic messages and not one more",
        (row("r", "usd", "5", resets=MONTH),),
        (
            Ask("basic", "5", YES, "usd"),
            Ask("basic", "500", YES, "usd"),
            Ask("basic", "500.000000001", NO, "usd"),
            Ask("basic", "501", NO, "usd"),
            Ask("premium", "50", YES, "usd"),
            Ask("premium", "51", NO, "usd"),
        ),
    ),
    Scenario(
        "nothing needed and giving back are always allowed",
        (row("r", "messages", "1"),),
        (Ask("messages", "0", YES, "messages"), Ask("messages", "-1", YES, "messages")),
        used=(("messages", "3"),),
    ),
    Scenario(
        "a feature nobody gave is refused, whatever it needs",
        (row("r", "messages", "1"),),
        (Ask("action3", "1", NO, ""), Ask("action3", "0", NO, ""), Ask("action3", "-1", NO, "")),
    ),
    Scenario(
        "the cost of fractions is exact",
        (row("r", "credits", "100"),),
        (
            Ask("action1", "50.75", YES, "credits"),
            Ask("action2", "50.75", YES, "credits"),
            Ask("action2", "167.33", NO, "credits"),
        ),
    ),
    Scenario(
        "the own feature answers if it can, else the credit system that can; the two are never added up",
        (row("own", "action1", "50"), row("pool", "credits", "100")),
        (
            Ask("action1", "25.5", YES, "action1"),
            Ask("action1", "50", YES, "action1"),
            Ask("action1", "60", YES, "credits"),
            Ask("action1", "500", YES, "credits"),
            Ask("action1", "510", NO, "credits"),
        ),
    ),
    Scenario(
        "with the own feature drained the credit system answers",
        (row("own", "action1", "50"), row("pool", "credits", "100")),
        (Ask("action1", "25.5", YES, "credits"),),
        used=(("action1", "50"),),
    ),
    Scenario(
        "a refusal names a pool that the customer has: the first credit system, else the own feature",
        (row("pool", "credits3", "1"),),
        (Ask("action1", "5", NO, "credits3"), Ask("messages", "5", NO, "")),
    ),
    Scenario(
        "a refusal by the own feature alone names that",
        (row("own", "action1", "1"),),
        (Ask("action1", "5", NO, "action1"), Ask("credits", "1", NO, "")),
    ),
    Scenario(
        "of two credit systems the first in the catalog that can afford it answers",
        (row("a", "credits", "1"), row("b", "credits3", "100", resets=MONTH)),
        (
            Ask("action1", "5", YES, "credits"),
            Ask("action1", "6", YES, "credits3"),
            Ask("action1", "51", NO, "credits"),
        ),
    ),
    Scenario(
        "rows below zero count as nothing: they do not eat up the others",
        (row("month", "messages", "1", resets=MONTH), row("life", "messages", "4")),
        (Ask("messages", "2", YES, "messages"), Ask("messages", "3", NO, "messages")),
        used=(("messages", "5"), ("messages", "-2")),
    ),
    Scenario(
        "what costs nothing is allowed with nothing left",
        (row("own", "basic", "1"), row("r", "sys", "0")),
        (
            Ask("basic", "1", YES, "basic"),
            Ask("basic", "1000000", YES, "sys"),
            Ask("premium", "1", NO, "sys"),
        ),
        costs={"sys": {"basic": "0", "premium": "1"}},
    ),
    Scenario(
        "seats that may go below zero are still checked against what is left",
        (row("seats", "seats", "5", may_go_negative=True),),
        (Ask("seats", "3", NO, "seats"), Ask("seats", "2", YES, "seats")),
        used=(("seats", "3"),),
    ),
    Scenario(
        "amounts beyond the doubles are compared exactly",
        (row("a", "messages", "999999999999999.999999998"), row("b", "messages", "0.000000001")),
        (
            Ask("messages", "999999999999999.999999999", YES, "messages"),
            Ask("credits", "1", NO, ""),
        ),
    ),
    Scenario(
        "one nano short is short",
        (row("a", "messages", "9007199.254740992"),),
        (
            Ask("messages", "9007199.254740992", YES, "messages"),
            Ask("messages", "9007199.254740993", NO, "messages"),
        ),
    ),
]


@pytest.mark.parametrize("scenario", [pytest.param(s, id=s.promise) for s in SCENARIOS])
async def test_scenario(world: World, scenario: Scenario) -> None:
    """A customer is let in exactly when one pool covers the call; and looking costs nothing."""
    if scenario.costs is not None:
        world.catalog = catalog_of(scenario.costs)
    await world.create("ann", *scenario.rows)
    for feature, units in scenario.used:
        await world.track("ann", feature, units, mode=Mode.OVERFLOW)
    before = await world.everything()
    record = await world.record("ann")
    for ask in scenario.asks:
        reply = await world.check("ann", ask.feature, ask.units)
        pools = ["", *(pool.feature_id for pool in world.catalog.pools(ask.feature))]
        assert (reply.status, pools[reply.pool]) == (ask.status, ask.pool), ask
        looked_at = {r.id for r in record.terms.rows if r.feature_id in pools}
        assert reply.balances == {id_: record.balances[id_] for id_ in looked_at}, ask
        assert (reply.sequence, reply.terms) == (record.sequence, record.terms), ask
    assert await world.everything() == before


@pytest.mark.parametrize("units", ["1", "3", "6", "10.999999999", "11", "11.000000001", "25"])
async def test_what_check_allows_track_can_take(world: World, units: str) -> None:
    """A caller who was told yes and tracks with reject at once is not refused."""
    rows = (
        row("own", "action1", "3"),
        row("c1", "credits", "2.2"),
        row("c3", "credits3", "21.9", resets=MONTH),
    )
    await world.create("ann", *rows)
    allowed = (await world.check("ann", "action1", units)).status
    taken = (await world.track("ann", "action1", units, mode=Mode.REJECT)).status
    assert taken is Status.OK or allowed is Status.REFUSED


async def test_nobody(world: World) -> None:
    """A customer who does not exist is absent, not refused."""
    assert (await world.check("nobody", "messages", "1")).status is Status.ABSENT
    assert await world.store.read(customer_id="nobody") is None
    assert await world.everything() == world.nothing
