"""The store and its scripts against the model: random lives of customers on a real Valkey, compared after each step.

`CREDITGATE_MODEL_EXAMPLES=5000 pytest tests/property/test_model.py` for a long run, with other lives each time.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from creditgate.balances.clock import RedisClock
from creditgate.balances.hot_connection import HotConnection
from creditgate.balances.store import Reply, Unknown
from creditgate.balances.stream import READ_COUNT
from creditgate.core import attach as attaching
from creditgate.core import catalog as words
from creditgate.core import plans as core_plans
from creditgate.core.catalog_edits import with_feature, with_plan
from creditgate.core.changes import Change, profile_change, rows_change
from creditgate.core.controls import BillingControls, OverageAllowed, SpendLimit, UsageLimit
from creditgate.core.customers import Customer, Record, Row
from creditgate.core.decisions import Mode, Status
from creditgate.core.holds import Hold
from creditgate.core.journal import ORIGIN, Kind, StreamId
from creditgate.engine.writer import CustomerWriter
from creditgate.errors import CreditgateError
from tests.balances.valkey_process import ValkeyProcess
from tests.lua.harness import NEVER_TOO_LATE, Replay, World, decimal_text, merging_connection, nanos
from tests.property import model

IS_LONG = "CREDITGATE_MODEL_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("CREDITGATE_MODEL_EXAMPLES", "60"))
STEPS = 80
BURST = 6  # calls in one step of a life
CRASH_EXAMPLES = max(10, EXAMPLES // 20)
CRASH_STEPS = 30
SOCKET_TIMEOUT_SECONDS = 20.0
TIMEOUT_SECONDS = 300 + EXAMPLES

D = Decimal
T = TypeVar("T")

# The catalog: costs that do not divide, equal costs, and one that is free.

COSTS = {
    "x": {"a": D("0.3"), "b": D("0.333333333")},
    "y": {"a": D("0.7"), "b": D(0), "c": D(1)},
    "z": {"a": D("0.7"), "c": D("3.000000001")},
}
FEATURES = ("a", "b", "c", "x", "y", "z", "seats")
POOLED = ("a", "b", "c")

FREE = model.Plan("free", (model.Item("x", D(5), "month"), model.Item("a", D(3), "day")))
PLANS = {
    plan.name: plan
    for plan in (
        FREE,
        model.Plan(
            "pro",
            (model.Item("x", D(10), "month"), model.Item("b", D("0.5"), "hour"), model.Item("vip")),
            "month",
            10,
        ),
        model.Plan("year", (model.Item("x", D(100), "year"), model.Item("z", D(1), "week")), "year", 8),
        model.Plan(
            "team",
            (
                model.Item("y", D(20), "month", pack=D(50), pack_interval="month"),
                model.Item("a", D(10), pack=D("2.5")),
                model.Item("vip"),
            ),
            "month",
            30,
        ),
        model.Plan("crew", (model.Item("seats", D(3)), model.Item("c", D(7), "quarter")), "month", 12),
        model.Plan("desks", (model.Item("seats", pack=D(1), pack_interval="month"),), "month", 13),
        model.Plan("extra", (model.Item("x", D(2), "month"), model.Item("z", D(4))), "month", 2, add_on=True),
        model.Plan("other", (model.Item("y", D(1), "week"),), "month", 1, group="second"),
        model.Plan(
            "saver",
            (
                model.Item("x", D(6), "month", rolls=model.Rolls(None, D(20))),
                model.Item("a", D(2), "day", rolls=model.Rolls(1, D(15))),
            ),
            "month",
            11,
        ),
        model.Plan(
            "purse",
            (
                model.Item("x", D(3), "month", rolls=model.Rolls(2, D(7))),
                model.Item("b", D(1), "month", paid_later=True),
            ),
            "month",
            4,
        ),
        model.Plan(
            "later",
            (
                model.Item("x", D(2), "month", paid_later=True, most_paid_later=D("2.5")),
                model.Item("a", D(1), "month", paid_later=True, rolls=model.Rolls(12)),
            ),
            "month",
            14,
        ),
        model.Plan("flat", (model.Item("c", unlimited=True), model.Item("y", unlimited=True)), "month", 16),
        model.Plan("top", (model.Item("x", pack=D(1)),), one_off=True),
        model.Plan(
            "pack", (model.Item("a", D(1), pack=D(100)), model.Item("y", pack=D("0.3"))), one_off=True
        ),
    )
}


def build_catalog() -> words.Catalog:
    """The same catalog in the words of the sidecar."""
    catalog = words.Catalog(0, words.CatalogDocument())
    metered, system = words.FeatureType.METERED, words.FeatureType.CREDIT_SYSTEM
    features = [words.Feature(name, name, metered, consumable=True) for name in POOLED]
    features.append(words.Feature("seats", "seats", metered, consumable=False))
    features.append(words.Feature("vip", "vip", words.FeatureType.BOOLEAN, consumable=False))
    for name, members in COSTS.items():
        schema = tuple(words.CreditCost(member, nanos(str(cost))) for member, cost in members.items())
        features.append(words.Feature(name, name, system, consumable=True, credit_schema=schema))
    for feature in features:
        catalog = words.Catalog(catalog.version + 1, with_feature(catalog, feature))
    for plan in PLANS.values():
        catalog = words.Catalog(catalog.version + 1, with_plan(catalog, plan_document(plan)))
    return catalog


def every(interval: str | None) -> words.Recurrence:
    return words.Recurrence(words.Interval(interval or "one_off"))


def plan_document(plan: model.Plan) -> words.Plan:
    """A plan of the model in the words of the sidecar."""
    monthly_price = {None: D(0), "month": D(plan.rank), "year": D(plan.rank * 12)}[plan.paid_every]
    return words.Plan(
        id=plan.name,
        name=plan.name,
        created_at=0,
        group=plan.group,
        add_on=plan.add_on,
        price=words.PlanPrice(nanos(str(monthly_price)), every(plan.paid_every)) if plan.paid_every else None,
        items=tuple(
            words.PlanItem(
                item.feature,
                nanos(str(item.included)),
                reset=every(item.reset) if item.reset else None,
                price=item_price(item),
                unlimited=item.unlimited,
                rollover=rollover_of(item.rolls),
            )
            for item in plan.items
        ),
    )


def item_price(item: model.Item) -> words.ItemPrice | None:
    if item.paid_later:
        most = None if item.most_paid_later is None else nanos(str(item.most_paid_later))
        return words.ItemPrice(
            10**9, every(item.reset), billing_method="usage_based", max_purchase_nanos=most
        )
    return words.ItemPrice(10**9, every(item.pack_interval), nanos(str(item.pack))) if item.pack else None


def rollover_of(rolls: model.Rolls | None) -> words.Rollover | None:
    if rolls is None:
        return None
    return words.Rollover(rolls.months, max_nanos=None if rolls.cap is None else nanos(str(rolls.cap)))


# What is drawn

CUSTOMERS = ("ann", "b/o b", "çyd")
HOLD_IDS = ("lock", "l/ö ck", "another", "h4", "h5")
INSTANTS = (
    1_767_225_600_000,  # 2026-01-01
    1_769_862_896_789,  # 2026-01-31 12:34:56.789
    1_772_323_199_999,  # 2026-02-28, the last ms
    1_709_164_800_000,  # 2024-02-29
    1_798_761_599_000,  # 2026-12-31 23:59:59
)
AMOUNTS = (
    "0.000000001",
    "0.01",
    "0.1",
    "0.333333333",
    "1",
    "2.5",
    "3",
    "7",
    "10",
    "99.999999999",
    "1000",
    "4503599.627370496",
    "9007199.254740993",
    "1000000000000.000000001",
)
LARGEST = "999999999999999.999999999"
MOST = D("9999999999999.999999999")  # that one call may name

amounts = st.one_of(
    st.sampled_from(AMOUNTS).map(Decimal),
    st.integers(1, 20_000_000_000).map(lambda n: Decimal(n).scaleb(-9)),
    st.integers(1, 30).map(Decimal),
)
units = st.one_of(
    amounts,
    amounts,
    amounts,
    amounts.map(lambda n: -n),
    amounts.map(lambda n: -n),
    st.just(D(0)),
    st.just(MOST),
)
granted = st.one_of(amounts, amounts, st.just(D(LARGEST)), st.just(D(0)))
used_features = st.sampled_from([*POOLED * 3, *FEATURES])
intervals = st.sampled_from([None, None, "hour", "day", "month", "month", "year"])
lasting = st.sampled_from([1, 30, 60, 90, 5 * 60, 5 * 60, 24 * 60, 24 * 60, 24 * 60, 24 * 60 + 1, 0])
finals = st.sampled_from(["as held", "release", "release", "part", "part", "nano less", "flip", "other"])
modes = st.sampled_from(["cap", "cap", "reject", "overflow"])
customers = st.sampled_from(CUSTOMERS)
keys = st.sampled_from([*[""] * 9, "aa", "bb", "cc"])
kinds = st.sampled_from([*["plain"] * 5, "unlimited", "rolling", "rolling"])
rolls = st.builds(
    model.Rolls, st.sampled_from([None, 1, 2, 12]), st.sampled_from([None, D(0), D(4), D("30.5")])
)
small = st.one_of(st.integers(0, 40).map(Decimal), amounts)
spends = st.dictionaries(st.sampled_from(FEATURES), small, max_size=2)
overages = st.dictionaries(st.sampled_from(FEATURES), st.booleans(), max_size=2)
caps = st.dictionaries(
    st.tuples(st.sampled_from(FEATURES), st.sampled_from(["day", "week", "month", "year"])), small, max_size=3
)


@dataclass
class Used:
    """What a caller's key was used for."""

    fingerprint: str
    stream_id: StreamId
    arguments: tuple[str, Decimal, str]


class Server:
    """A server that may be killed, and what talks to it."""

    def __init__(self, socket: str, process: ValkeyProcess | None = None) -> None:
        self.process = process
        self.runner = asyncio.Runner()
        self.hot: HotConnection | None = None
        self._until_closed = AsyncExitStack()
        self.redis = Redis(
            unix_socket_path=socket, retry=Retry(NoBackoff(), 0), socket_timeout=SOCKET_TIMEOUT_SECONDS
        )
        self.done: Counter[str] = Counter()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def merge(self) -> None:
        """Let checks and tracks go by the merged script, those that are sent together as one."""
        self.hot = self.run(self._until_closed.enter_async_context(merging_connection(self.redis)))

    def close(self) -> None:
        self.run(self._until_closed.aclose())
        self.run(self.redis.aclose())
        self.runner.close()


class Straight:
    """Sends each call once: there is no ledger to ask here, and nothing is lost."""

    async def write(self, _partition: str, _op_id: str, send: Callable[[int], Any]) -> Any:
        return await send(NEVER_TOO_LATE)

    async def ask(self, send: Callable[[], Any], *, none_is_absent: bool = False) -> Any:
        return await send()


@dataclass(frozen=True)
class Fixed:
    """A catalog that does not change."""

    current: words.Catalog

    async def having(self, _ask: Callable[[words.Catalog], Any]) -> words.Catalog:
        return self.current

    async def giving(self, **_ids: Any) -> words.Catalog:
        return self.current


class Life(RuleBasedStateMachine):
    """Customers live; the store and the model are asked the same."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.run = server.run
        self.run(emptied(server.redis))
        clock = RedisClock()
        self.run(clock.read(server.redis))
        self.world = World(server.redis, clock, hot=server.hot)
        self.run(self.world.begin())
        self.world.catalog = build_catalog()
        self.models: dict[str, model.Customer] = {}
        self.replays: dict[str, Replay] = {}
        self.positions = dict.fromkeys(self.world.keys.partitions, ORIGIN)
        self.old_reads: dict[str, Record] = {}
        self.used: dict[tuple[str, str], Used] = {}
        self.documents: dict[str, Customer] = {}
        self.minted = 0
        self.writer = CustomerWriter(
            self.world.store,
            self.world.keys,
            clock,
            Straight(),  # type: ignore[arg-type]
            Fixed(self.world.catalog),  # type: ignore[arg-type]
            self.world.ops,
        )

    # The steps

    @initialize(
        start=st.sampled_from(INSTANTS),
        gifts=st.lists(
            st.tuples(st.sampled_from(FEATURES), amounts, intervals, rolls), min_size=1, max_size=BURST
        ),
        plan=st.sampled_from(["free", "pro", "saver", "saver", "purse", "later", "later", "flat"]),
        spend=spends,
        overage=overages,
        caps=caps,
    )
    def first_customer(
        self,
        start: int,
        gifts: list[tuple[str, Decimal, str | None, model.Rolls]],
        plan: str,
        spend: dict[str, Decimal],
        overage: dict[str, bool],
        caps: dict[tuple[str, str], Decimal],
    ) -> None:
        """A customer with rows in several pools and with limits, so that calls go from one to the next, and stop."""
        self.create("ann", start, with_plan=True)
        for feature, amount, interval, rolled in gifts:
            does_roll = interval in ("day", "month") and feature != "seats"
            self.grant_rows(
                "ann", 1, feature, amount, interval, None, add_on=False, rolled=rolled if does_roll else None
            )
        if plan != "free":
            self.attach_plan("ann", plan, D(3))
        self.set_controls("ann", spend, overage, caps)

    @precondition(lambda self: len(self.models) < len(CUSTOMERS))
    @rule(name=customers, start=st.sampled_from(INSTANTS), with_plan=st.booleans())
    def another_customer(self, name: str, start: int, *, with_plan: bool) -> None:
        self.create(name, start, with_plan=with_plan)

    def create(self, name: str, start: int, *, with_plan: bool) -> None:
        """A customer is made; or is there already, and then nothing happens."""
        plans = (FREE,) if with_plan else ()
        change = core_plans.new_customer(
            Customer(name, start),
            self.world.catalog,
            tuple(self.world.catalog.plan(plan.name) for plan in plans),
            now=start,
            mint=self.mint,
        )
        written = self.run(
            self.world.store.change(
                not_after=NEVER_TOO_LATE,
                customer_id=name,
                call=self.world.call("create"),
                uid=f"uid-{CUSTOMERS.index(name)}",
                expected_shape=0,
                clock=start,
                change=change,
            )
        )
        if name in self.models:
            assert written.status is (Status.DUE if self.models[name].is_due else Status.MOVED_ON)
        else:
            assert written.status is Status.OK
            assert change.customer is not None
            self.models[name] = model.new_customer(start, COSTS, plans)
            self.documents[name] = change.customer
            self.replays[name] = Replay()
        self.compare(name, "create")

    @rule(
        name=customers,
        feature=st.sampled_from(FEATURES),
        amount=granted,
        interval=intervals,
        lasts_hours=st.sampled_from([None, None, 1, 24, 24 * 40, 24 * 400]),
        add_on=st.booleans(),
        kind=kinds,
        rolled=rolls,
    )
    def grant(
        self,
        name: str,
        feature: str,
        amount: Decimal,
        interval: str | None,
        lasts_hours: int | None,
        *,
        add_on: bool,
        kind: str,
        rolled: model.Rolls,
    ) -> None:
        """A row of its own: monthly, daily, for good, or until it expires; it may be unlimited, or roll over."""
        if kind == "unlimited":
            self.grant_rows(name, 1, feature, D(0), None, lasts_hours, add_on=add_on, unlimited=True)
        elif kind == "rolling" and interval in ("day", "month"):
            self.grant_rows(name, 1, feature, amount, interval, lasts_hours, add_on=add_on, rolled=rolled)
        else:
            self.grant_rows(name, 1, feature, amount, interval, lasts_hours, add_on=add_on)

    @rule(
        name=customers,
        count=st.sampled_from([2, 3, 31, 62]),
        feature=st.sampled_from(FEATURES),
        amount=granted,
    )
    def grant_many(self, name: str, count: int, feature: str, amount: Decimal) -> None:
        """So many rows that there may be no room for them."""
        self.grant_rows(name, count, feature, amount, None, None, add_on=False)

    @rule(name=customers, plan=st.sampled_from(sorted(PLANS)), quantity=amounts)
    def attach(self, name: str, plan: str, quantity: Decimal) -> None:
        """A plan is attached, beside or in place of another; or refused."""
        self.attach_plan(name, plan, quantity)

    def attach_plan(self, name: str, plan: str, quantity: Decimal) -> None:
        there = self.ready(name)
        if there is None:
            return
        quantities = {item.feature: quantity for item in PLANS[plan].items if item.pack is not None}
        record = self.run(self.world.record(name))
        said = there.attach(PLANS[plan], quantities)
        try:
            change = attaching.attach(
                record,
                record.customer,
                self.world.catalog,
                self.world.catalog.plan(plan),
                {feature: nanos(str(number)) for feature, number in quantities.items()},
                mint=self.mint,
            )
        except CreditgateError as error:
            refused = error.code
            assert said == refused
        else:
            assert said == "OK"
            assert change.customer is not None
            self.documents[name] = change.customer
            self.applied(name, record, change)
        self.compare(name, f"attach {said}")

    @rule(
        name=customers,
        calls=st.lists(st.tuples(used_features, units, modes, keys), min_size=1, max_size=BURST),
    )
    def tracks(self, name: str, calls: list[tuple[str, Decimal, str, str]]) -> None:
        """Units are used, or given back, one call after the other."""
        for call in calls:
            self.track(name, *call)

    def track(self, name: str, feature: str, number: Decimal, mode: str, key: str) -> None:
        """One call."""
        there = self.ready(name)
        if there is None:
            assert self.ask(name, feature, number, mode).status is Status.ABSENT
            return
        if (name, key) in self.used:
            return self.repeat(name, key, other=number != self.used[name, key].arguments[1])
        reply = self.ask(name, feature, number, mode, key=key, fingerprint="f1" if key else "")
        self.expect(there, reply, there.track(feature, number, mode))
        if key and reply.status is Status.OK:
            assert reply.stream_id is not None
            self.used[name, key] = Used("f1", reply.stream_id, (feature, number, mode))
        self.compare(name, f"track {mode} {reply.status.name}{' refund' if number < 0 else ''}")
        return None

    @rule(name=customers, feature=st.sampled_from(FEATURES), nanos_more=st.integers(-1, 1))
    def track_all_that_is_left(self, name: str, feature: str, nanos_more: int) -> None:
        """Exactly what is left is used, or a nano more or less: where comparisons are decided."""
        there = self.ready(name)
        if there is None:
            return
        left = sum((max(row.balance, D(0)) for row in there.rows if row.feature == feature), D(0))
        number = max(D(0), min(left + nanos_more * model.NANO, MOST))
        before = model.copied(there)
        asked = self.run(self.world.check(name, feature, str(number)))
        assert asked.status.name == before.check(feature, number).status
        reply = self.ask(name, feature, number, "reject")
        self.expect(there, reply, there.track(feature, number, "reject"))
        assert reply.status is Status.OK or asked.status is Status.REFUSED, "check said that there is enough"
        self.compare(name, f"track all {reply.status.name}")

    @rule(
        name=customers,
        calls=st.lists(
            st.tuples(st.sampled_from(HOLD_IDS), used_features, units, modes, lasting),
            min_size=1,
            max_size=BURST,
        ),
    )
    def holds(self, name: str, calls: list[tuple[str, str, Decimal, str, int]]) -> None:
        """Units are held."""
        for hold_id, feature, number, mode, minutes in calls:
            there = self.ready(name)
            if there is None or there.limits.caps:
                return
            expires_at = there.now + minutes * 60_000
            reply = self.run(self.send_hold(name, hold_id, feature, number, mode, expires_at))
            self.expect(there, reply, there.hold(hold_id, feature, number, mode, expires_at))
            self.compare(name, f"hold {mode} {reply.status.name}{' in advance' if number < 0 else ''}")

    @precondition(lambda self: any(there.holds for there in self.models.values()))
    @rule(number=st.integers(0, 100), how=finals, other=units)
    def settle(self, number: int, how: str, other: Decimal) -> None:
        """A hold is kept, released, changed to a part of it, to more, or to the other sign."""
        name, hold_id = self.one_of_the_holds(number)
        there = self.ready(name)
        if there is None or hold_id not in there.holds:
            return
        final = self.final_of(there.holds[hold_id].value, how, other)
        reply = self.run(self.world.settle(name, str(final), hold_id=hold_id))
        assert reply.status.name == there.settle(hold_id, final)
        assert reply.status is not Status.OK or reply.sequence == there.sequence
        self.compare(name, f"settle {how} {reply.status.name}")

    @precondition(lambda self: any(there.holds for there in self.models.values()))
    @rule(number=st.integers(0, 100), used=amounts)
    def progress(self, number: int, used: Decimal) -> None:
        """It is said how much of a hold was used so far."""
        name, hold_id = self.one_of_the_holds(number)
        there = self.ready(name)
        if there is None or hold_id not in there.holds:
            return
        reply = self.run(self.world.progress(name, str(used), hold_id=hold_id))
        assert reply.status.name == there.progress(hold_id, used)
        self.compare(name, f"progress {reply.status.name}")

    def one_of_the_holds(self, number: int) -> tuple[str, str]:
        """A customer and the id of an open hold."""
        found = [(name, hold_id) for name, there in self.models.items() for hold_id in there.holds]
        return sorted(found)[number % len(found)]

    @precondition(lambda self: self.used)
    @rule(number=st.integers(0, 1000), other=st.booleans())
    def again(self, number: int, *, other: bool) -> None:
        """A key comes back, with the same parameters or with others."""
        name, key = sorted(self.used)[number % len(self.used)]
        if self.ready(name) is not None:
            self.repeat(name, key, other=other)

    @rule(name=customers, spend=spends, overage=overages, caps=caps)
    def controls(
        self,
        name: str,
        spend: dict[str, Decimal],
        overage: dict[str, bool],
        caps: dict[tuple[str, str], Decimal],
    ) -> None:
        """Other limits hold from now on."""
        self.set_controls(name, spend, overage, caps)

    def set_controls(
        self,
        name: str,
        spend: dict[str, Decimal],
        overage: dict[str, bool],
        caps: dict[tuple[str, str], Decimal],
    ) -> None:
        """A cap comes only where no lock is open: locks under caps have tests of their own."""
        there = self.ready(name)
        if there is None:
            return
        if there.holds:
            caps = {}
        record = self.run(self.world.record(name))
        self.documents[name] = msgspec.structs.replace(
            record.customer, controls=controls_of(spend, overage, caps)
        )
        change = profile_change(record, self.documents[name])
        if self.documents[name].controls == record.customer.controls:
            return
        twins = [model.Cap(feature, limit, interval) for (feature, interval), limit in caps.items()]
        there.set_limits(model.Limits(dict(spend), dict(overage), twins))
        self.applied(name, record, change)
        self.compare(name, "controls")

    @rule(name=customers, feature=st.sampled_from(FEATURES), number=units)
    def check(self, name: str, feature: str, number: Decimal) -> None:
        """Is there enough? Nothing changes by asking."""
        there = self.ready(name)
        if there is None:
            return
        reply = self.run(self.world.check(name, feature, str(number)))
        expected = there.check(feature, number)
        assert reply.status.name == expected.status
        pools = [None, *there.pools(feature)]
        assert pools[reply.pool] == expected.pool
        self.compare(name, f"check {expected.status}")

    @rule(
        name=customers,
        by=st.sampled_from(["due", "due", "due", "before due", "hour", "day", "month", "year"]),
        at_once=st.booleans(),
    )
    def advance(self, name: str, by: str, *, at_once: bool) -> None:
        """The customer's clock moves on, perhaps past a boundary."""
        there = self.ready(name)
        if there is None:
            return
        hour = 3_600_000
        spans = {"hour": hour, "day": 24 * hour, "month": 31 * 24 * hour, "year": 366 * 24 * hour}
        to = there.now + spans.get(by, hour)
        if by in ("due", "before due") and there.due is not None:
            to = there.due - (by == "before due")
        self.move_clock(name, to)
        if at_once:
            self.ready(name)

    def move_clock(self, name: str, to: int) -> None:
        there = self.ready(name)
        assert there is not None
        to = max(to, there.now)
        record = self.run(self.world.record(name))
        self.applied(name, record, rows_change(record), clock=to)
        there.now = to
        there.changed()
        self.compare(name, "advance")

    @rule(
        name=customers,
        uses=st.lists(st.tuples(used_features, small, modes, st.integers(1, 4)), min_size=1, max_size=BURST),
    )
    def months(self, name: str, uses: list[tuple[str, Decimal, str, int]]) -> None:
        """Something is used in each of several periods, with some left out: what was left rolls over."""
        for feature, number, mode, missed in uses:
            if self.ready(name) is None:
                return
            self.track(name, feature, number, mode, "")
            for _ in range(missed):
                if (due := self.models[name].due) is not None:
                    self.move_clock(name, due)

    @rule(
        name=customers,
        what=st.sampled_from(["sweep", "create", "too late", "forget scripts", "read", "profile"]),
    )
    def disturb(self, name: str, what: str) -> None:
        """What has to change no balance."""
        if name not in self.models:
            return
        if what == "sweep":
            self.step(name)
        elif what == "create":
            self.create(name, INSTANTS[0], with_plan=True)
        elif what == "too late":
            reply = self.run(self.world.track(name, "a", "1", not_after=1))
            assert reply.status is Status.TOO_LATE
            self.compare(name, what)
        elif what == "profile":
            self.profile(name)
        elif what == "read":
            self.old_reads[name] = self.run(self.world.record(name))
        else:
            self.run(forgetful(self.world.redis))
            self.server.done[what] += 1

    @precondition(lambda self: self.old_reads)
    @rule(number=st.integers(0, 2))
    def act_on_old_read(self, number: int) -> None:
        """A change that was worked out from an earlier read holds only if nothing but use has happened since."""
        name = sorted(self.old_reads)[number % len(self.old_reads)]
        there = self.ready(name)
        assert there is not None
        record = self.old_reads.pop(name)
        written = self.run(self.world.change(record, rows_change(record)))
        assert written.status is (Status.OK if record.shape == there.shape else Status.MOVED_ON)
        if written.status is Status.OK:
            there.changed()
        self.compare(name, f"old read {written.status.name}")

    def profile(self, name: str) -> None:
        """The profile changes; no balance does."""
        there = self.ready(name)
        assert there is not None
        record = self.run(self.world.record(name))
        self.documents[name] = msgspec.structs.replace(record.customer, email=f"ü {there.sequence}")
        self.applied(name, record, profile_change(record, self.documents[name]))
        there.changed()
        self.compare(name, "profile")

    def teardown(self) -> None:
        for name in self.models:
            self.compare(name, "end")
        self.run(self.world.check_laws())
        self.server.done["lives"] += 1

    # What the steps are made of

    def mint(self, prefix: str) -> str:
        self.minted += 1
        return f"{prefix}_{self.minted}"

    def grant_rows(
        self,
        name: str,
        count: int,
        feature: str,
        amount: Decimal,
        interval: str | None,
        lasts_hours: int | None,
        *,
        add_on: bool,
        unlimited: bool = False,
        rolled: model.Rolls | None = None,
    ) -> None:
        there = self.ready(name)
        if there is None:
            return
        record = self.run(self.world.record(name))
        expires_at = there.now + lasts_hours * 3_600_000 if lasts_hours else None
        rows, twins = [], []
        for _ in range(count):
            row = Row(
                id=self.mint("bal"),
                feature_id=feature,
                created_at=there.now,
                included_nanos=nanos(str(amount)),
                reset=None if unlimited else every(interval),
                anchor=there.now if interval else None,
                resets_at=model.boundary(there.now, interval, 1) if interval else None,
                expires_at=expires_at,
                add_on=add_on,
                unlimited=unlimited,
                rollover=rollover_of(rolled),
            )
            rows.append(row)
            twins.append(
                model.Row(
                    number=0,
                    feature=feature,
                    granted=amount,
                    balance=amount,
                    created_at=there.now,
                    interval=interval,
                    anchor=there.now,
                    expires_at=expires_at,
                    add_on=add_on,
                    unlimited=unlimited,
                    rolls=rolled,
                )
            )
        said = there.grant(twins)
        try:
            change = rows_change(record, opened=rows)
        except CreditgateError as error:
            refused = error.code
            assert said == refused
        else:
            assert said == "OK"
            self.applied(name, record, change)
        self.compare(name, f"grant {said}")

    def ask(
        self, name: str, feature: str, number: Decimal, mode: str, *, key: str = "", fingerprint: str = ""
    ) -> Reply:
        return self.run(
            self.world.track(name, feature, str(number), mode=Mode(mode), key=key, fingerprint=fingerprint)
        )

    def expect(self, there: model.Customer, reply: Reply, outcome: model.Outcome) -> None:
        """The reply is what the model says, and names each row that moved."""
        assert reply.status.name == outcome.status
        assert [(m.row_id, m.delta_nanos) for m in reply.moved] == [
            (row.name, nanos(str(delta))) for row, delta in outcome.moved
        ]
        if reply.status is Status.OK:
            assert reply.sequence == there.sequence

    def repeat(self, name: str, key: str, *, other: bool) -> None:
        """A used key comes back: the first answer, or an error; and nothing changes."""
        used = self.used[name, key]
        feature, number, mode = used.arguments
        reply = self.ask(
            name, feature, number, mode, key=key, fingerprint="f2" if other else used.fingerprint
        )
        if other:
            assert reply.status is Status.KEY_REUSED
        else:
            assert (reply.status, reply.stream_id) == (Status.REPLAYED, used.stream_id)
        self.compare(name, f"repeat {reply.status.name}")

    def applied(self, name: str, record: Record, change: Change, *, clock: int | None = None) -> None:
        written = self.run(self.world.change(record, change, clock=clock))
        assert written.status is Status.OK
        assert written.number == record.sequence + 1

    def ready(self, name: str) -> model.Customer | None:
        """The customer, stepped over what is due; None if there is none yet."""
        if name not in self.models:
            return None
        while self.models[name].is_due:
            assert self.ask(name, "a", D(1), "cap").status is Status.DUE
            assert self.run(self.world.check(name, "a", "1")).status is Status.DUE
            self.step(name)
        assert not self.models[name].is_due
        return self.models[name]

    def step(self, name: str) -> None:
        """Step the customer over what is due, as the engine does it."""
        there = self.models[name]
        record = self.run(self.world.record(name))
        assert record.is_due == there.is_due
        has_fallen_due = there.due is not None and there.due <= there.now
        self.run(self.writer.forward(name))
        said = there.forward()
        after = self.run(self.world.record(name))
        assert (after.sequence > record.sequence) == has_fallen_due, "a due that was too early is no entry"
        there.sequence, there.shape = after.sequence, after.shape
        self.documents[name] = after.customer
        self.compare(name, f"forward {said}")

    async def send_hold(
        self, name: str, hold_id: str, feature: str, number: Decimal, mode: str, expires_at: int
    ) -> Reply:
        return await self.world.hold(
            name, feature, str(number), hold_id=hold_id, mode=Mode(mode), expires_at=expires_at
        )

    @staticmethod
    def final_of(held: Decimal, how: str, number: Decimal) -> Decimal:
        """At how many units a hold is settled."""
        match how:
            case "as held":
                return held
            case "release":
                return D(0)
            case "part":
                return min(abs(held), abs(number)).copy_sign(held)
            case "nano less":
                return held - model.NANO.copy_sign(held)
            case "flip":
                return -held
            case _:
                return number

    def compare(self, name: str, step: str) -> None:
        """The record is the model, row by row in burn order, and is what the journal adds up to."""
        self.server.done[step] += 1
        there = self.models[name]
        record = self.run(self.world.record(name))
        ours = there.in_order()
        self.note(there)
        assert [view(row, record.balances[row.id]) for row in record.terms.rows] == [
            twin_view(row) for row in ours
        ]
        assert [(flag.feature_id, flag.plan_id) for flag in record.terms.flags] == [
            flag[:2] for flag in there.flags
        ]
        for twin, row in zip(ours, record.terms.rows, strict=True):
            assert twin.name in ("", row.id)
            twin.name = row.id
        assert (record.now, record.sequence, record.shape) == (there.now, there.sequence, there.shape)
        assert record.is_due == there.is_due
        assert record.customer == self.documents[name]
        held = [(held.plan_id, held.expires_at) for held in record.customer.subscriptions]
        assert held == [(twin.plan.name, twin.ends_at) for twin in there.subscriptions]
        coming = [(plan.plan_id, plan.starts_at) for plan in record.customer.scheduled]
        assert coming == [(twin.plan.name, twin.starts_at) for twin in there.coming]
        assert {
            (gate.feature_id, gate.reset.interval.value): (record.balances[gate.id], gate.resets_at)
            for gate in record.terms.gates
        } == {
            (cap.feature, cap.interval): (nanos(str(cap.limit - cap.used)), cap.ends_at)
            for cap in there.limits.caps
        }
        assert {hold_id: hold_view(hold) for hold_id, hold in record.holds.items()} == {
            hold_id: twin_hold_view(hold) for hold_id, hold in there.holds.items()
        }
        self.read_journal(self.world.keys.partition_of(name))
        replay = self.replays[name]
        assert replay.sequence == record.sequence
        assert {row_id: replay.balances[row_id] for row_id in record.balances} == record.balances
        assert replay.sums == replay.balances
        assert sum(replay.balances.values()) == sum(record.balances.values()), "what is gone has nothing left"

    def note(self, there: model.Customer) -> None:
        """Count what a customer was in: what never happens is not tested."""
        seen = {
            "(rolled over)": any(row.rolled_from is not None for row in there.rows),
            "(owes)": any(row.balance < 0 and there.limits.may_go_below(row) for row in there.rows),
            "(unlimited)": any(row.unlimited for row in there.rows),
            "(at a cap)": any(cap.used >= cap.limit > 0 for cap in there.limits.caps),
            "(at a spend limit)": any(
                there.limits.spare(name, there.rows) == 0 for name in there.limits.spend
            ),
        }
        self.server.done.update(name for name, is_so in seen.items() if is_so)

    def read_journal(self, partition: str) -> None:
        page = self.run(self.world.stream.read(partition, self.positions[partition]))
        assert len(page.entries) < READ_COUNT
        assert not page.poison
        for entry in page.entries:
            assert entry.customer_id is not None
            assert entry.items[0].call is not None
            kinds = {item.kind for item in entry.items if item.document_type != "alert"}
            if entry.items[0].call.verb == "track":
                assert kinds <= {Kind.USE, Kind.REFUND}
            if entry.items[0].call.verb == "hold":
                assert kinds == {Kind.HOLD, Kind.PUT}
            self.replays[entry.customer_id].add(entry)
        self.positions[partition] = page.upto


class MergedLife(Life):
    """The same by the merged script; what is used in one step goes in one call of it."""

    @rule(
        name=customers,
        calls=st.lists(st.tuples(used_features, units, modes, keys), min_size=2, max_size=BURST),
    )
    def tracks_together(self, name: str, calls: list[tuple[str, Decimal, str, str]]) -> None:
        """Units are used, or given back, by callers who do not wait for each other."""
        there = self.ready(name)
        if there is None or any(key and (name, key) in self.used for *_, key in calls):
            return
        sent_keys = [key for *_, key in calls if key]
        calls = [call if sent_keys.count(call[3]) < 2 else (*call[:3], "") for call in calls]
        before = there.sequence
        for call, reply in zip(calls, self.run(self.send_together(name, calls)), strict=True):
            feature, number, mode, key = call
            outcome = there.track(feature, number, mode)
            there.sequence = min(there.sequence, before + 1)  # they are one entry
            self.expect(there, reply, outcome)
            if key and reply.status is Status.OK:
                assert reply.stream_id is not None
                self.used[name, key] = Used("f1", reply.stream_id, (feature, number, mode))
        self.compare(name, "tracks together")

    def grant_rows(
        self, name: str, count: int, feature: str, amount: Decimal, *args: Any, **more: Any
    ) -> None:
        """As ever, but what rolls over is never so much that it leaves the range of amounts."""
        if more.get("rolled") is not None:
            amount = min(amount, D(10) ** 9)
        super().grant_rows(name, count, feature, amount, *args, **more)

    async def send_together(self, name: str, calls: list[tuple[str, Decimal, str, str]]) -> list[Reply]:
        return await asyncio.gather(
            *(
                self.world.track(
                    name, feature, str(number), mode=Mode(mode), key=key, fingerprint="f1" if key else ""
                )
                for feature, number, mode, key in calls
            )
        )


class MortalLife(Life):
    """The same, on a server that is killed now and then."""

    @property
    def process(self) -> ValkeyProcess:
        assert self.server.process is not None
        return self.server.process

    @rule()
    def kill(self) -> None:
        """The server is killed, and comes back with everything that it acknowledged."""
        self.process.kill()
        self.restart()
        for name in self.models:
            self.compare(name, "kill")

    @rule(
        name=customers,
        what=st.sampled_from(["track", "hold", "settle"]),
        feature=st.sampled_from(FEATURES),
        number=units,
        waits=st.integers(0, 4),
    )
    def kill_in_between(self, name: str, what: str, feature: str, number: Decimal, waits: int) -> None:
        """The server is killed during a call: afterwards the whole of it has happened, or nothing of it."""
        there = self.ready(name)
        if there is None or (what == "settle" and not there.holds) or (what == "hold" and there.limits.caps):
            return
        tried = model.copied(there)
        if what == "settle":
            hold_id = sorted(there.holds)[0]
            status = tried.settle(hold_id, number)
            call = self.world.settle(name, str(number), hold_id=hold_id)
        elif what == "hold":
            expires_at = there.now + 3_600_000
            status = tried.hold("h0", feature, number, "cap", expires_at).status
            call = self.send_hold(name, "h0", feature, number, "cap", expires_at)
        else:
            status = tried.track(feature, number, "cap").status
            call = self.world.track(name, feature, str(number))
        reply = self.run(self.sent_and_killed(call, waits))
        self.restart()
        record = self.run(self.world.record(name))
        if reply is not None:
            assert reply.status.name == status, "an answer that was given holds"
            assert record.sequence == tried.sequence
        fate = "answered" if reply is not None else "lost" if record.sequence == there.sequence else "kept"
        if record.sequence != there.sequence:
            self.models[name] = tried
        self.compare(name, f"kill in between, {fate}")

    async def sent_and_killed(self, call: Coroutine[Any, Any, Reply], waits: int) -> Reply | None:
        """Send a call, kill the server a few turns of the loop later; the reply, if it came before."""
        sent = asyncio.ensure_future(call)
        for _ in range(waits):
            await asyncio.sleep(0)
        self.process.kill()
        try:
            return await sent
        except (Unknown, RedisError):
            return None

    def restart(self) -> None:
        self.run(self.world.redis.connection_pool.disconnect())
        self.process.start()


def view(row: Row, balance: int) -> tuple[object, ...]:
    return (
        row.feature_id,
        decimal_text(row.granted_nanos),
        decimal_text(balance),
        row.created_at,
        row.resets_at,
        row.expires_at,
        row.plan_id,
        row.unlimited,
        row.rolled_from is not None,
    )


def twin_view(row: model.Row) -> tuple[object, ...]:
    return (
        row.feature,
        decimal_text(nanos(str(row.granted))),
        decimal_text(nanos(str(row.balance))),
        row.created_at,
        row.resets_at,
        row.expires_at,
        row.plan,
        row.unlimited,
        row.rolled_from is not None,
    )


def controls_of(
    spend: dict[str, Decimal], overage: dict[str, bool], caps: dict[tuple[str, str], Decimal]
) -> BillingControls:
    """The limits of the model in the words of the sidecar."""
    return BillingControls(
        spend_limits=tuple(SpendLimit(feature, nanos(str(limit))) for feature, limit in spend.items()),
        usage_limits=tuple(
            UsageLimit(feature, nanos(str(limit)), words.Interval(interval), in_utc=True)
            for (feature, interval), limit in caps.items()
        ),
        overage_allowed=tuple(OverageAllowed(feature, allowed) for feature, allowed in overage.items()),
    )


def hold_view(hold: Hold) -> tuple[object, ...]:
    legs = [(leg.row_id, leg.cost_nanos, leg.delta_nanos, leg.period) for leg in hold.legs]
    return hold.feature_id, hold.value_nanos, hold.used_nanos, hold.expires_at, hold.mode, joined(legs)


def twin_hold_view(hold: model.Hold) -> tuple[object, ...]:
    legs = [
        (
            leg.row.name,
            nanos(str(leg.cost)),
            nanos(str(leg.delta)),
            "-" if leg.period is None else str(leg.period),
        )
        for leg in hold.legs
    ]
    return (
        hold.feature,
        nanos(str(hold.value)),
        nanos(str(hold.used)),
        hold.expires_at,
        hold.mode,
        joined(legs),
    )


def joined(legs: list[tuple[str, int, int, str]]) -> list[tuple[str, int, int, str]]:
    """Two legs of one row that follow each other are as good as one: it gets back what both took."""
    whole: list[tuple[str, int, int, str]] = []
    for row, cost, delta, period in legs:
        is_more = whole and whole[-1][:2] == (row, cost) and whole[-1][3] == period
        before = whole.pop()[2] if is_more else 0
        whole.append((row, cost, before + delta, period))
    return whole


async def emptied(redis: "Redis") -> None:
    await redis.flushall()


async def forgetful(redis: "Redis") -> None:
    await redis.script_flush()


def live(make: Callable[[], Life], *, examples: int, steps: int) -> None:
    """Run so many lives of so many steps."""
    run_state_machine_as_test(
        make,  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
            print_blob=True,
            derandomize=not IS_LONG,
        ),
    )


def said(done: Counter[str]) -> str:
    """One line on what was done."""
    lives = done["lives"]
    steps = Counter({step: count for step, count in done.items() if step != "lives"})
    return (
        f"{sum(count for step, count in steps.items() if step[0] != '(')} steps in {lives} lives: "
        + ", ".join(f"{s} {n}" for s, n in sorted(steps.items()))
    )


@pytest.fixture
def server(valkey_socket: str) -> Iterator[Server]:
    """The Valkey of all tests."""
    server = Server(valkey_socket)
    yield server
    server.close()


@pytest.fixture
def mortal_server() -> Iterator[Server]:
    """A Valkey that may be killed."""
    process = ValkeyProcess()
    try:
        process.start()
        server = Server(process.socket, process)
        yield server
        server.close()
    finally:
        process.close()


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_store_does_what_the_model_says(
    server: Server, record_property: Callable[[str, object], None]
) -> None:
    """Whatever customers do in whatever order, every balance and every answer is what the plain arithmetic says."""
    live(lambda: Life(server), examples=EXAMPLES, steps=STEPS)
    record_property("said", said(server.done))
    assert server.done["track cap OK"] > EXAMPLES // 4
    for state in ("(rolled over)", "(owes)", "(unlimited)", "(at a cap)", "(at a spend limit)"):
        assert server.done[state] > EXAMPLES // 4, f"{state} in {server.done[state]} steps"


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("examples", [EXAMPLES // 4, pytest.param(EXAMPLES * 4, marks=pytest.mark.slow)])
def test_merged_calls_do_what_the_model_says(
    server: Server, record_property: Callable[[str, object], None], examples: int
) -> None:
    """Whatever goes together with whatever, every balance and every answer is what the plain arithmetic says."""
    server.merge()
    live(lambda: MergedLife(server), examples=examples, steps=STEPS // 2)
    record_property("said", said(server.done))
    assert server.done["tracks together"] > examples // 2
    assert server.done["track cap OK"] > examples // 4


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_nothing_acknowledged_is_lost_when_the_server_dies(
    mortal_server: Server, record_property: Callable[[str, object], None]
) -> None:
    """A server that is killed again and again comes back with every answered call, and with no call in part."""
    live(lambda: MortalLife(mortal_server), examples=CRASH_EXAMPLES, steps=CRASH_STEPS)
    record_property("said", said(mortal_server.done))
    assert mortal_server.done["kill"] > CRASH_EXAMPLES // 4
