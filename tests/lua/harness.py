"""What the Lua tests share: a customer with rows in a real Valkey, calls on it, and the laws that hold after each test.

The laws are stated here a second time, on purpose: key names and the journal's meaning are read off design.md, not
taken from the code under test.
"""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
from redis.asyncio import Redis

from creditgate.balances.clock import RedisClock
from creditgate.balances.connection import ServerGuard, server_id_of
from creditgate.balances.holds import Final
from creditgate.balances.hot_connection import HotConnection
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore, Need, Needs, Reply, Use, Written
from creditgate.balances.stream import JournalStream
from creditgate.core.amounts import multiply
from creditgate.core.catalog import (
    Catalog,
    CatalogDocument,
    CreditCost,
    Feature,
    FeatureType,
    Interval,
    ItemPrice,
    Recurrence,
)
from creditgate.core.catalog_edits import with_feature
from creditgate.core.changes import Change, in_period_at, rows_change
from creditgate.core.controls import NO_CONTROLS, BillingControls, property_digests
from creditgate.core.customers import Customer, Record, Row, Terms
from creditgate.core.decisions import Mode
from creditgate.core.forward import forward_change, up_to_next_plan
from creditgate.core.holds import HOLD, HOLD_LIMITS, Hold, Limits, beyond
from creditgate.core.journal import ORIGIN, SYSTEM_PARTITION, Call, Entry, Kind
from creditgate.engine.ids import OpIds, mint

T0 = 1_767_225_600_000
"""2026-01-01T00:00:00Z, the pinned clock of the customers in these tests."""
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NEVER_TOO_LATE = 10**14
PARTITIONS = 4
UID = "uid1"

MONTH = Recurrence(Interval.MONTH)
DAY = Recurrence(Interval.DAY)

FEATURES = ("messages", "action1", "action2", "action3", "basic", "premium")
COSTS: Mapping[str, Mapping[str, str]] = {
    "credits": {"action1": "0.2", "action2": "0.6"},
    "credits2": {"action3": "1.4"},
    "credits3": {"action1": "2"},
    "usd": {"basic": "0.01", "premium": "0.1"},
}
"""The fixture of spec/semantics.md, section 6, and the tutorial's system."""

_SLOT = r"cg:\{p\d\d\}"
_ID = r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+"
KNOWN_KEYS = {
    rf"{_SLOT}:c:{_ID}": False,
    rf"{_SLOT}:(?:j|due|epoch)": False,
    rf"{_SLOT}:k:\d+:{_ID}": True,
    r"cg:\{l:[0-9a-f]{32}\}": True,
    r"cg:\{sys\}:j": False,
    r"cg:\{sys\}:d:[a-z_]+": False,
    r"cg:\{sys\}:k:\d+": True,
    r"cg:\{sys\}:lease:[a-z]+": True,
    r"cg:\{sys\}:(?:workers|batches)": False,
}
"""Every key that may exist, and whether it must have an expiry."""
KEY_HOURS_MAX = 36
WINDOW_SECONDS = 20.0  # of a connection on a busy machine


def nanos(text: str) -> int:
    """The exact amount of a decimal number."""
    whole = Decimal(text).scaleb(9)
    assert whole == int(whole)
    return int(whole)


def decimal_text(amount: int) -> str:
    """The shortest decimal text of an amount."""
    return f"{Decimal(amount).scaleb(-9).normalize():f}"


def catalog_of(costs: Mapping[str, Mapping[str, str]]) -> Catalog:
    """A catalog with the metered features of the tests, a non-consumable one, and these credit systems."""
    catalog = Catalog(0, CatalogDocument())
    added = [Feature(name, name, FeatureType.METERED, consumable=True) for name in FEATURES]
    added.append(Feature("seats", "seats", FeatureType.METERED, consumable=False))
    for system, members in costs.items():
        schema = tuple(CreditCost(member, nanos(cost)) for member, cost in members.items())
        added.append(
            Feature(system, system, FeatureType.CREDIT_SYSTEM, consumable=True, credit_schema=schema)
        )
    for feature in added:
        catalog = Catalog(catalog.version + 1, with_feature(catalog, feature))
    return catalog


def row(
    row_id: str,
    feature_id: str,
    granted: str = "0",
    *,
    resets: Recurrence | None = None,
    expires_at: int | None = None,
    created_at: int = T0,
    may_go_negative: bool = False,
    add_on: bool = False,
    owner_id: str | None = None,
    unlimited: bool = False,
    paid_later: str | None = None,
    rolled_from: str | None = None,
) -> Row:
    """A row that starts with what it is granted, in the period of the pinned clock if it resets.

    `paid_later`: it may be used so far below zero, '' for without bound.
    """
    price = None
    if paid_later is not None:
        most = nanos(paid_later) if paid_later else None
        price = ItemPrice(10**9, MONTH, billing_method="usage_based", max_purchase_nanos=most)
    never_used_up = may_go_negative or unlimited or rolled_from is not None
    return in_period_at(
        Row(
            id=row_id,
            feature_id=feature_id,
            created_at=created_at,
            included_nanos=nanos(granted),
            reset=resets or (None if never_used_up else Recurrence(Interval.ONE_OFF)),
            anchor=T0,
            expires_at=expires_at,
            may_go_negative=may_go_negative or price is not None,
            unlimited=unlimited,
            price=price,
            rolled_from=rolled_from,
            add_on=add_on,
            owner_id=owner_id,
        ),
        T0,
    )


class World:
    """One Valkey with its store, and a catalog."""

    def __init__(
        self,
        redis: "Redis",
        clock: RedisClock,
        costs: Mapping[str, Mapping[str, str]] = COSTS,
        hot: HotConnection | None = None,
    ) -> None:
        self.redis = redis
        self.clock = clock
        self.keys = Keys(PARTITIONS)
        self.store = BalanceStore(redis, self.keys, clock, hot=hot)
        self.stream = JournalStream(redis, self.keys)
        self.ops = OpIds()
        self.catalog = catalog_of(costs)
        self.nothing: dict[bytes, bytes] = {}

    async def begin(self) -> None:
        """Make the journals, as the reconciler does: no script makes one."""
        for partition in (SYSTEM_PARTITION, *self.keys.partitions):
            await self.stream.make(partition)
        self.nothing = await self.everything()

    async def empty(self) -> None:
        """Begin again, with nothing."""
        await self.redis.flushall()
        await self.begin()

    # Calls

    def call(self, verb: str, *, key: str = "", fingerprint: str = "") -> Call:
        return Call(verb, self.ops.next(), self.catalog.version, key=key, fingerprint=fingerprint)

    def needs(self, feature_id: str, units: str) -> Needs:
        """What a call of so many units needs of each of its pools."""
        return Needs(
            Need(pool, multiply(nanos(units), pool.cost_nanos)) for pool in self.catalog.pools(feature_id)
        )

    async def create(
        self,
        customer_id: str,
        *rows: Row,
        clock: int | None = T0,
        uid: str = UID,
        call: Call | None = None,
        not_after: int = NEVER_TOO_LATE,
        controls: BillingControls = NO_CONTROLS,
    ) -> Written:
        """Make a customer who holds these rows."""
        return await self.store.change(
            not_after=not_after,
            customer_id=customer_id,
            call=call or self.call("create"),
            uid=uid,
            expected_shape=0,
            clock=clock,
            change=rows_change(None, customer=Customer(customer_id, T0, controls=controls), opened=rows),
        )

    async def change(
        self,
        record: Record,
        change: Change,
        *,
        clock: int | None = None,
        call: Call | None = None,
        uid: str | None = None,
        not_after: int = NEVER_TOO_LATE,
    ) -> Written:
        """Apply a change that was worked out from this record."""
        return await self.store.change(
            not_after=not_after,
            customer_id=record.customer.id,
            call=call or self.call("change"),
            uid=uid or record.uid,
            expected_shape=record.shape,
            clock=clock,
            change=change,
        )

    async def set_clock(self, customer_id: str, clock: int) -> Written:
        """Pin the customer's clock to another instant, and change nothing else."""
        record = await self.record(customer_id)
        return await self.change(record, rows_change(record), clock=clock)

    async def forward(
        self,
        customer_id: str,
        *,
        record: Record | None = None,
        change: Change | None = None,
        not_after: int = NEVER_TOO_LATE,
    ) -> Written:
        """Step the customer over what fell due."""
        record = record or await self.record(customer_id)
        return await self.store.forward(
            not_after=not_after,
            customer_id=customer_id,
            call=self.call("forward"),
            uid=record.uid,
            expected_sequence=record.sequence,
            change=change or self.forward_change(record),
        )

    async def track(
        self,
        customer_id: str,
        feature_id: str,
        units: str,
        *,
        mode: Mode = Mode.CAP,
        key: str = "",
        fingerprint: str = "",
        properties: Mapping[str, Any] | None = None,
        not_after: int = NEVER_TOO_LATE,
    ) -> Reply:
        return await self.store.track(
            not_after=not_after,
            customer_id=customer_id,
            call=self.call("track", key=key, fingerprint=fingerprint),
            mode=mode,
            properties=property_digests(properties or {}),
            pools=self.needs(feature_id, units),
        )

    async def track_event(
        self,
        customer_id: str,
        features: Sequence[str],
        units: str,
        *,
        mode: Mode = Mode.CAP,
        key: str = "",
        fingerprint: str = "",
        properties: Mapping[str, Any] | None = None,
        not_after: int = NEVER_TOO_LATE,
    ) -> Reply:
        """Take so many units of each feature, as an event that counts for them all does."""
        keys = [{"key": key, "fingerprint": fingerprint}, *({} for _ in features)]
        return await self.store.track_event(
            not_after=not_after,
            customer_id=customer_id,
            mode=mode,
            properties=property_digests(properties or {}),
            uses=[
                Use(self.usage("track", feature_id, nanos(units), **given), self.needs(feature_id, units))
                for feature_id, given in zip(features, keys, strict=False)
            ],
        )

    async def hold(
        self,
        customer_id: str,
        feature_id: str,
        units: str,
        *,
        hold_id: str = "lock",
        mode: Mode = Mode.REJECT,
        expires_at: int | None = None,
        limits: Limits = HOLD_LIMITS,
        properties: str = "{}",
        key: str = "",
        fingerprint: str = "",
        not_after: int = NEVER_TOO_LATE,
    ) -> Reply:
        """Hold units under an id."""
        call = self.usage("hold", feature_id, nanos(units), properties, key=key, fingerprint=fingerprint)
        return await self.store.hold(
            not_after=not_after,
            customer_id=customer_id,
            call=call,
            mode=mode,
            hold_id=hold_id,
            expires_at=expires_at,
            limits=limits,
            properties=property_digests(msgspec.json.decode(properties)),
            pools=self.needs(feature_id, units),
        )

    def final(
        self, hold_id: str, hold: Hold, units: str | None, *, key: str = "", fingerprint: str = ""
    ) -> Final:
        """How a hold is settled at so many units, by the catalog of today."""
        used = hold.value_nanos if units is None else nanos(units)
        difference, properties = used - hold.value_nanos, hold.properties_text
        call = self.usage("settle", hold.feature_id, difference, properties, key=key, fingerprint=fingerprint)
        if used == hold.value_nanos:
            call = msgspec.structs.replace(call, value_nanos=None)
        more = decimal_text(beyond(hold.value_nanos, used))
        digests = property_digests(msgspec.json.decode(properties))
        return Final(hold_id, hold.op_id, used, call, digests, self.needs(hold.feature_id, more))

    async def settle(
        self,
        customer_id: str,
        units: str | None = None,
        *,
        hold_id: str = "lock",
        key: str = "",
        fingerprint: str = "",
        not_after: int = NEVER_TOO_LATE,
    ) -> Reply:
        """Settle an open hold at so many units; None: as it was held."""
        hold = (await self.record(customer_id)).holds[hold_id]
        return await self.store.settle(
            not_after=not_after,
            customer_id=customer_id,
            expected_sequence=None,
            finals=[self.final(hold_id, hold, units, key=key, fingerprint=fingerprint)],
        )

    async def progress(
        self, customer_id: str, used: str, *, hold_id: str = "lock", not_after: int = NEVER_TOO_LATE
    ) -> Reply:
        """Say how much of a hold was used so far."""
        return await self.store.progress(
            not_after=not_after,
            customer_id=customer_id,
            call=self.call("progress"),
            hold_id=hold_id,
            used=nanos(used),
        )

    def usage(
        self,
        verb: str,
        feature_id: str,
        value_nanos: int,
        properties: str = "{}",
        *,
        key: str = "",
        fingerprint: str = "",
    ) -> Call:
        """A call that is an event."""
        call = self.call(verb, key=key, fingerprint=fingerprint)
        return msgspec.structs.replace(
            call, feature_id=feature_id, value_nanos=value_nanos, properties=properties
        )

    async def check(
        self, customer_id: str, feature_id: str, units: str, properties: Mapping[str, Any] | None = None
    ) -> Reply:
        return await self.store.check(
            customer_id=customer_id,
            properties=property_digests(properties or {}),
            pools=self.needs(feature_id, units),
        )

    def forward_change(self, record: Record) -> Change:
        """What falls due for this record at its time."""
        return forward_change(up_to_next_plan(record), self.catalog, mint)

    # Looking

    async def record(self, customer_id: str) -> Record:
        record = await self.store.read(customer_id=customer_id)
        assert record is not None
        return record

    async def balances(self, customer_id: str) -> dict[str, str]:
        """The raw balance of each row, as decimal text."""
        record = await self.record(customer_id)
        return {row_id: decimal_text(balance) for row_id, balance in record.balances.items()}

    async def entries(self, customer_id: str) -> list[Entry]:
        """The customer's entries in the journal, oldest first."""
        stream = self.stream.tail(self.keys.partition_of(customer_id), ORIGIN)
        return [entry async for entry in stream if entry.customer_id == customer_id]

    async def everything(self) -> dict[bytes, bytes]:
        """The exact content of every key: equal before and after is "nothing was written"."""
        return {key: await answer(self.redis.dump(key)) for key in sorted(await answer(self.redis.keys("*")))}

    # The laws

    async def check_laws(self) -> None:
        """Only known keys, expiries where they are promised, and each record is the replay of its journal."""
        records = await self._check_keys()
        entries = [entry for partition in self.keys.partitions for entry in await self._entries_of(partition)]
        replays: dict[tuple[str, str], Replay] = defaultdict(Replay)
        for entry in entries:
            assert entry.customer_id is not None
            assert entry.uid is not None
            replays[entry.customer_id, entry.uid].add(entry)
        for key in records:
            fields = {
                name.decode(): value.decode()
                for name, value in (await answer(self.redis.hgetall(key))).items()
            }
            customer_id = msgspec.json.decode(fields["doc"], type=Customer).id
            replays[customer_id, fields["uid"]].check(fields)
        await self._check_due_index(records)

    async def _check_keys(self) -> list[str]:
        records = []
        for raw in await answer(self.redis.keys("*")):
            key = raw.decode()
            matches = [expires for pattern, expires in KNOWN_KEYS.items() if re.fullmatch(pattern, key)]
            assert len(matches) == 1, f"unknown key {key}"
            expiry_ms = await answer(self.redis.pttl(key))
            if matches[0]:
                assert 0 < expiry_ms <= KEY_HOURS_MAX * HOUR_MS, f"{key} expires in {expiry_ms} ms"
            else:
                assert expiry_ms == -1, f"{key} is forgotten in {expiry_ms} ms"
            if ":c:" in key:
                records.append(key)
        return records

    async def _entries_of(self, partition: str) -> Sequence[Entry]:
        page = await self.stream.read(partition, ORIGIN, count=1_000_000)
        assert not page.poison
        return page.entries

    async def _check_due_index(self, records: Iterable[str]) -> None:
        """A customer stands in the due index at `due`, unless nothing is due or the clock is pinned."""
        expected: dict[str, float] = {}
        for key in records:
            uid, due, clock, document = await answer(self.redis.hmget(key, ["uid", "due", "clock", "doc"]))
            if due and not clock:
                expected[f"{uid.decode()} {msgspec.json.decode(document, type=Customer).id}"] = float(due)
        found: dict[str, float] = {}
        for partition in self.keys.partitions:
            members = await answer(self.redis.zrange(self.keys.due(partition), 0, -1, withscores=True))
            found |= {member.decode(): score for member, score in members}
        assert found == expected


class Replay:
    """What one customer's entries add up to."""

    def __init__(self) -> None:
        self.sequence = 0
        self.balances: dict[str, int] = defaultdict(int)
        self.sums: dict[str, int] = defaultdict(int)
        self.documents: dict[str, str] = {}

    def add(self, entry: Entry) -> None:
        """Take one entry; its number and each raw balance have to follow from the entry before."""
        assert entry.sequence == self.sequence + 1, f"after number {self.sequence} comes {entry.sequence}"
        self.sequence = entry.sequence
        for item in entry.items:
            if item.kind == Kind.PUT:
                assert item.document_type is not None
                assert item.document is not None
                name = item.document_type if item.document_type != HOLD else f"h:{item.document_id}"
                self.documents[name] = item.document
            elif item.row_id is not None:
                assert item.delta_nanos is not None
                assert item.after_nanos == self.balances[item.row_id] + item.delta_nanos, item
                self.balances[item.row_id] = item.after_nanos
                self.sums[item.row_id] += item.delta_nanos

    def check(self, record: Mapping[str, str]) -> None:
        """The record is exactly what the entries say."""
        assert record["seq"] == str(self.sequence)
        assert record["doc"] == self.documents["customer"]
        assert record["terms"] == self.documents["terms"]
        assert record["clock"] == self.documents.get("clock", "")
        terms = msgspec.json.decode(record["terms"], type=Terms)
        balances = {name[2:]: int(value) for name, value in record.items() if name.startswith("b:")}
        assert balances == {held_id: self.balances[held_id] for held_id in terms.held_ids}
        assert self.sums == self.balances
        assert all(self.balances[row_id] == 0 for row_id in self.balances.keys() - balances.keys())
        held = {name: text for name, text in self.documents.items() if name[:2] == "h:" and text != "null"}
        assert held == {name: text for name, text in record.items() if name[:2] == "h:"}
        assert len(held) == int(record.get("holds", 0))
        for text in held.values():
            assert record["due"], "nothing is due, but a hold is open"
            assert int(record["due"]) <= msgspec.json.decode(text, type=Hold).expires_at
        if any(name.startswith("o:/") for name in record):
            return  # an entity's rows stand in orders of its own, which tests/core/test_burn.py knows
        ordered = [
            part.split(":")
            for name, text in record.items()
            if name.startswith("o:")
            for part in text.split(" ")
            if part[0] not in "!$@"
        ]
        assert [row_id for _, row_id, *_ in sorted(ordered, key=lambda part: int(part[0]))] == [
            row.id for row in terms.rows
        ]


@asynccontextmanager
async def merging_connection(
    redis: "Redis", store: type[BalanceStore] = BalanceStore
) -> AsyncIterator[HotConnection]:
    """A sidecar's connection to the Valkey; checks and tracks go by the merged script also where one is alone."""
    guard = ServerGuard()
    guard.reconciled = frozenset([await server_id_of(redis)])
    merging = store.merging()._replace(merges_one=True)
    connection = HotConnection(redis, guard, window_s=WINDOW_SECONDS, merging=merging)
    try:
        yield connection
    finally:
        await connection.aclose()


def answer(reply: Any) -> Awaitable[Any]:
    """A reply of the client; its types say that each command might be synchronous, which here none is."""
    result: Awaitable[Any] = reply
    return result
