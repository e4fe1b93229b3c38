"""Entities: what holds however many there are, and that the books, a rebuild and a deletion know them."""

import asyncio
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from creditgate import openings, operations
from creditgate.balances.keys import Keys
from creditgate.balances.stream import JournalStream
from creditgate.core.amounts import NANOS
from creditgate.core.burn import ALL_ROWS_MAX
from creditgate.core.catalog import Feature, FeatureType, Interval, Plan, PlanItem, Recurrence
from creditgate.core.controls import BillingControls, SpendLimit, UsageAlert, UsageLimit
from creditgate.core.customers import AttachOptions, Customer, CustomerChanges, Record, Terms
from creditgate.core.decisions import Decision, Mode, balance_of, balances_of
from creditgate.core.entities import ENTITIES_MAX
from creditgate.core.journal import ORIGIN
from creditgate.engine.billing import Named
from creditgate.engine.customers import Grant, Profile
from creditgate.engine.entities import NewEntity
from creditgate.engine.usage import Usage
from creditgate.errors import Conflict, CreditgateError, NotFound
from creditgate.settings import Settings

MONTH = Recurrence(Interval.MONTH)
DAY_MS = 86_400_000


@pytest.fixture
async def shop(cases: openings.UseCases) -> openings.UseCases:
    """Ann, on a plan that gives her 100 images and each of her seats 10."""
    for feature_id, consumable in (("images", True), ("seats", False)):
        await cases.catalogs.create_feature(
            Feature(feature_id, feature_id, FeatureType.METERED, consumable=consumable)
        )
    each = PlanItem("images", 10 * NANOS, MONTH, entity_feature_id="seats")
    await cases.catalogs.create_plan(
        Plan("team", "Team", 0, group="team", items=(PlanItem("images", 100 * NANOS, MONTH), each))
    )
    await cases.catalogs.create_plan(
        Plan("extra", "Extra", 0, group="extra", items=(PlanItem("images", 50 * NANOS, MONTH),))
    )
    await cases.customers.get_or_create("ann", Profile())
    await _attach(cases, "team")
    return cases


async def _attach(cases: openings.UseCases, plan_id: str, entity_id: str | None = None) -> None:
    await cases.billing.attach(
        customer_id="ann",
        plan_id=plan_id,
        quantities={},
        options=AttachOptions(entity_id=entity_id),
        success_url=None,
        base_url="http://localhost",
        key=None,
    )


async def _seat(cases: openings.UseCases, entity_id: str, **more: Any) -> None:
    await cases.entities.create(NewEntity("ann", entity_id, "seats", **more))


def _usage(units: int, entity_id: str | None = None, mode: Mode = Mode.CAP, verb: str = "track") -> Usage:
    return Usage(verb, "ann", "images", None, units * NANOS, mode, entity_id=entity_id)


async def _track(cases: openings.UseCases, units: int, entity_id: str | None = None) -> Decision:
    return await cases.meter.track(_usage(units, entity_id))


def _left(record: Record, entity_id: str | None = None) -> int:
    balance = balance_of("images", record.terms, record.balances, entity_id)
    return balance.remaining_nanos // NANOS if balance else 0


async def _proof(cases: openings.UseCases, settings: Settings) -> Any:
    while await cases.flusher.flush_once():
        pass
    async with operations.open_verifier(settings) as verifier:
        return await verifier.verify()


async def test_many_at_once_make_an_entity_once(shop: openings.UseCases) -> None:
    """An application that makes a seat on every request has one, with one slot."""
    made = await asyncio.gather(*(_seat(shop, "one") for _ in range(8)), return_exceptions=True)
    refused = [error for error in made if error is not None]
    assert len(refused) == 7
    assert {error.code for error in refused if isinstance(error, CreditgateError)} == {
        "entity_already_exists"
    }
    await asyncio.gather(*(shop.entities.get_or_create(NewEntity("ann", "two", "seats")) for _ in range(8)))
    record = await shop.customers.get("ann")
    assert [entity.id for entity in record.customer.entities] == ["one", "two"]
    assert (_left(record), _left(record, "one")) == (120, 110)


async def test_every_call_of_an_entity_at_once(shop: openings.UseCases, settings: Settings) -> None:
    """Entities that are used at the same time take what is there once: their own, then the customer's, and no more."""
    for name in "abcde":
        await _seat(shop, name)
    decisions = await asyncio.gather(
        *(shop.meter.track(_usage(1, name, Mode.REJECT)) for name in "abcde" for _ in range(40))
    )
    assert sum(decision.allowed for decision in decisions) == 150
    record = await shop.customers.get("ann")
    assert [_left(record, name) for name in (None, *"abcde")] == [0] * 6
    assert (await _proof(shop, settings)).holds


async def test_as_many_as_can_be(shop: openings.UseCases, settings: Settings) -> None:
    """At the limit, every call still works: one that draws on all slots, a reset of all, a deletion of the customer."""
    free = len((await shop.customers.get("ann")).terms.rows)
    for number in range(ALL_ROWS_MAX - free):
        await _seat(shop, f"seat {number}")
    with pytest.raises(Conflict) as refusal:
        await _seat(shop, "one too many")
    assert refusal.value.code == "too_many_balances"
    slots = (ALL_ROWS_MAX - free) * 10
    held = _usage(100 + slots, verb="hold", mode=Mode.REJECT)
    assert (await shop.holds.hold(held, hold_id="all", expires_at=None)).allowed
    assert not (await shop.meter.track(_usage(1, "seat 7", Mode.REJECT))).allowed
    await shop.holds.finalize("all", 100 * NANOS)
    decision = await _track(shop, 10_000)
    assert -sum(part.delta_nanos for part in decision.moved) == slots * NANOS
    record = await shop.customers.get("ann")
    await shop.customers.advance_test_clock("ann", record.now + 32 * DAY_MS)
    assert _left(await shop.customers.get("ann")) == 100 + slots
    assert (await _proof(shop, settings)).holds
    await shop.customers.delete("ann")
    assert (await _proof(shop, settings)).holds


async def test_holds_that_expire_together_at_the_limit(shop: openings.UseCases, settings: Settings) -> None:
    """Many holds over many slots, which run out at the same moment, all come back."""
    free = len((await shop.customers.get("ann")).terms.rows)
    for number in range(ALL_ROWS_MAX - free):
        await _seat(shop, f"seat {number}")
    record = await shop.customers.get("ann")
    everything = _left(record)
    at = record.now + 60_000
    for number in range(16):
        usage = _usage(everything // 16, verb="hold", mode=Mode.REJECT)
        assert (await shop.holds.hold(usage, hold_id=f"h{number}", expires_at=at)).allowed
    await shop.customers.advance_test_clock("ann", at)
    assert _left(await shop.customers.get("ann")) == everything
    assert (await _proof(shop, settings)).holds


async def test_no_more_entities_than_can_be(cases: openings.UseCases) -> None:
    """The customer's document has an end: beyond it a clear answer, and nothing changed."""
    await cases.catalogs.create_feature(Feature("seats", "seats", FeatureType.METERED, consumable=False))
    await cases.customers.get_or_create("ann", Profile())
    for number in range(ENTITIES_MAX):
        await _seat(cases, f"seat {number}")
    with pytest.raises(Conflict) as refusal:
        await _seat(cases, "one too many")
    assert refusal.value.code == "too_many_entities"
    assert len((await cases.customers.get("ann")).customer.entities) == ENTITIES_MAX


async def test_no_more_limits_than_can_be(cases: openings.UseCases) -> None:
    """Each usage limit is a number that calls read: beyond the end a clear answer, and nothing changed."""
    await cases.catalogs.create_feature(Feature("seats", "seats", FeatureType.METERED, consumable=False))
    await cases.customers.get_or_create("ann", Profile())
    limits = tuple(
        UsageLimit("basic_messages", NANOS, Interval.DAY, properties={"n": str(number)})
        for number in range(32)
    )
    for number in range(8):
        await _seat(cases, f"seat {number}", controls=BillingControls(usage_limits=limits))
    with pytest.raises(Conflict) as refusal:
        await _seat(cases, "one too many", controls=BillingControls(usage_limits=limits))
    assert refusal.value.code == "too_many_limits"
    assert len((await cases.customers.get("ann")).terms.gates) == 256


@pytest.mark.usefixtures("soon_alone")
async def test_nothing_is_lost_in_a_rebuild(shop: openings.UseCases, settings: Settings) -> None:
    """Redis is gone and filled again from SQL: each entity has what it had, its limits, its plans and its holds."""
    limited = BillingControls(
        spend_limits=(SpendLimit("images", 5 * NANOS),),
        usage_limits=(UsageLimit("images", 40 * NANOS, Interval.MONTH),),
        usage_alerts=(UsageAlert("images", 90 * NANOS, "usage_percentage"),),
    )
    await _seat(shop, "ünï / cödé", controls=limited)
    await _seat(shop, "two")
    await _attach(shop, "extra", "ünï / cödé")
    await shop.customers.grant(Grant("ann", "images", 3 * NANOS, entity_id="two"))
    await _track(shop, 7, "ünï / cödé")
    await _track(shop, 7, "two")
    usage = _usage(20, "ünï / cödé", Mode.REJECT, verb="hold")
    await shop.holds.hold(usage, hold_id="held", expires_at=None)
    before = await shop.customers.get("ann")
    assert (await _proof(shop, settings)).holds

    await operations.rebuild(settings, lambda _: None, partitions=3)

    assert settings.redis is not None
    async with (
        openings.open_stores(settings, settings.redis, make=None) as stores,
        openings.open_use_cases(settings, settings.redis, stores) as again,
    ):
        after = await again.customers.get("ann")
        assert (after.customer, after.terms, after.balances) == (
            before.customer,
            before.terms,
            before.balances,
        )
        refused = await again.meter.track(_usage(14, "ünï / cödé", Mode.REJECT))
        assert not refused.allowed, "its usage limit has 13 left"
        await again.holds.finalize("held", 0)
        assert _left(await again.customers.get("ann"), "ünï / cödé") == _left(before, "ünï / cödé") + 20
        with pytest.raises(NotFound):
            await _track(again, 1, "nobody")
        assert (await _proof(again, settings)).holds


async def test_what_is_pooled_is_for_all_and_goes_with_its_plan(
    shop: openings.UseCases, settings: Settings
) -> None:
    """Each seat that is paid for adds to what all seats share, and takes it along when it goes."""
    item = PlanItem("images", 30 * NANOS, MONTH, pooled=True)
    await shop.catalogs.create_plan(Plan("seat", "Seat", 0, group="seat", items=(item,)))
    for entity_id in ("one", "two"):
        await _seat(shop, entity_id)
        await _attach(shop, "seat", entity_id)
    before = await shop.customers.get("ann")
    assert _left(before, "one") == 10 + 100 + 30 + 30
    await _track(shop, 165, "one")
    assert _left(await shop.customers.get("ann"), "two") == 10 + 5
    await shop.entities.delete("ann", "one")
    after = await shop.customers.get("ann")
    assert [row.owner_id for row in after.terms.rows if row.plan_id == "seat"] == [
        held.id for held in after.customer.subscriptions if held.entity_id == "two"
    ]
    assert (await _proof(shop, settings)).holds


async def test_several_plans_for_an_entity(shop: openings.UseCases) -> None:
    """All of them are the entity's, in one step."""
    item = PlanItem("images", 30 * NANOS, MONTH)
    await shop.catalogs.create_plan(Plan("more", "More", 0, group="more", items=(item,)))
    await _seat(shop, "one")
    await shop.billing.multi_attach(
        customer_id="ann",
        plans=[Named("extra"), Named("more")],
        options=AttachOptions(entity_id="one"),
        success_url=None,
        base_url="http://localhost",
        key=None,
    )
    record = await shop.customers.get("ann")
    assert _left(record, "one") == 10 + 100 + 50 + 30
    assert {
        held.entity_id for held in record.customer.subscriptions if held.plan_id in ("extra", "more")
    } == {"one"}


async def test_what_an_entity_leaves_behind(
    shop: openings.UseCases, settings: Settings, redis: "Redis"
) -> None:
    """An entity that is deleted leaves no field in the record that a later one of its id could find."""
    fields = await _fields(redis)
    await _seat(
        shop, "one", controls=BillingControls(usage_limits=(UsageLimit("images", NANOS, Interval.DAY),))
    )
    await _attach(shop, "extra", "one")
    await _track(shop, 1, "one")
    await shop.entities.delete("ann", "one")
    assert await _fields(redis) == fields
    record = await shop.customers.get("ann")
    assert (record.customer.entities, record.terms.entities) == ((), {})
    assert all(row.entity_id is None for row in record.terms.rows)
    assert (await _proof(shop, settings)).holds


async def _fields(redis: "Redis") -> set[Any]:
    (key,) = [key async for key in redis.scan_iter("cg:{p*}:c:ann")]
    return set(await redis.hkeys(key))


async def test_alerts_say_whose_they_are(shop: openings.UseCases, redis: "Redis") -> None:
    """A webhook is told by an entity's calls of its own alerts with its name, and of the customer's without."""
    half = UsageAlert("images", 50 * NANOS, "usage_percentage", "half")
    await _seat(shop, "one", controls=BillingControls(usage_alerts=(half,)))
    await _seat(shop, "two")
    twenty = UsageAlert("images", 20 * NANOS, "usage")
    await shop.customers.update("ann", CustomerChanges(controls={"usage_alerts": (twenty,)}))
    await _track(shop, 15, "two")
    await _track(shop, 5, "one")  # the 20th of the customer's 120, and the 5th of the 105 that it can draw on
    await _track(shop, 60, "one")
    keys = Keys(8)
    stream = JournalStream(redis, keys)
    told = [
        msgspec.json.decode(item.document or "")
        async for entry in stream.tail(keys.partition_of("ann"), ORIGIN)
        for item in entry.items
        if item.document_type == "alert"
    ]
    assert [(alert["feature_id"], alert["usage_alert"]) for alert in told] == [
        ("images", twenty.id),
        ("images/one", half.id),
    ]


def test_a_record_of_before_is_read_as_it_was() -> None:
    """Customers who were made before there were entities have none, and nothing is different for them."""
    held = b'{"id":"s","plan_id":"p","plan_version":1,"started_at":1,"anchor":1}'
    customer = msgspec.json.decode(b'{"id":"ann","created_at":1,"subscriptions":[%s]}' % held, type=Customer)
    assert (customer.entities, customer.plans_of(None)[0].entity_id) == ((), None)
    rows = b'{"rows":[{"id":"bal_1","feature_id":"images","created_at":1,"included_nanos":5}]}'
    (balance,) = balances_of(msgspec.json.decode(rows, type=Terms), {"bal_1": 3})
    assert (balance.remaining_nanos, balance.granted_nanos) == (3, 5)
