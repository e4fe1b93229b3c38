"""What metering means, in plain Python and Decimal: the model that the store is compared with.

Written from spec/semantics.md (1.5, 2.2, 2.5, 3.2 to 3.4, 4.2, 4.3, 4.5) and the decisions D3, D4 and D7 of design.md.
It shares no code with core.burn, core.plans, core.periods or the scripts, and it is as slow as it is plain.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_UP, Context, Decimal
from functools import cache

from whenever import Instant

ROWS_MAX = 64
LIMIT = Decimal(10) ** 15
NANO = Decimal("0.000000001")
EXACT = Context(prec=80, rounding=ROUND_UP)
INTERVALS = ("hour", "day", "week", "month", "quarter", "year")
NEVER = 10**18
DAY_MS = 86_400_000
UTC_MONDAY = 1_704_067_200_000
"""Monday, 1 January 2024: where the windows of UTC are counted from."""


def rounded(amount: Decimal) -> Decimal:
    """Away from zero at the ninth decimal: the one rounding there is (D3)."""
    return amount.quantize(NANO, context=EXACT)


@cache
def boundary(anchor: int, interval: str, k: int) -> int:
    """The end of the k-th period after the anchor, by the `whenever` library, in UTC."""
    start = Instant.from_timestamp(anchor, unit="millisecond").to_tz("UTC")
    match interval:
        case "hour":
            moved = start.add(hours=k)
        case "day":
            moved = start.add(days=k)
        case "week":
            moved = start.add(weeks=k)
        case "month":
            moved = start.add(months=k)
        case "quarter":
            moved = start.add(months=3 * k)
        case "year":
            moved = start.add(years=k)
        case _:
            raise AssertionError(interval)
    return moved.timestamp(unit="millisecond")


@dataclass(frozen=True)
class Item:
    """What a plan gives of a feature; `pack` and `pack_price` where more can be bought ahead."""

    feature: str
    included: Decimal = Decimal(0)
    reset: str | None = None
    pack: Decimal | None = None
    pack_interval: str | None = None
    """How often the pack is paid: None is once."""
    unlimited: bool = False
    paid_later: bool = False
    most_paid_later: Decimal | None = None
    rolls: "Rolls | None" = None


@dataclass(frozen=True)
class Rolls:
    """What is left at a reset rolls over, for so many months or for good, up to a cap over all."""

    months: int | None = None
    cap: Decimal | None = None


@dataclass(frozen=True)
class Plan:
    """A plan; `rank` orders plans by what they cost for the same time."""

    name: str
    items: tuple[Item, ...]
    paid_every: str | None = None
    rank: int = 0
    one_off: bool = False
    add_on: bool = False
    group: str = ""


@dataclass
class Row:
    """One balance. `number` is the order of arrival; `name` is the id that the store gave it."""

    number: int
    feature: str
    granted: Decimal
    balance: Decimal
    created_at: int
    interval: str | None = None
    anchor: int = 0
    period: int = 0
    expires_at: int | None = None
    add_on: bool = False
    may_go_below: bool = False
    plan: str | None = None
    owner: int | None = None
    bought_for_good: bool = False
    name: str = ""
    unlimited: bool = False
    most_paid_later: Decimal | None = None
    rolls: Rolls | None = None
    rolled_from: "Row | None" = None

    @property
    def resets_at(self) -> int | None:
        return None if self.interval is None else boundary(self.anchor, self.interval, self.period + 1)

    @property
    def is_drained(self) -> bool:
        is_for_good = self.interval is None and not self.may_go_below and not self.unlimited
        return self.balance == 0 and self.granted > 0 and is_for_good

    def step_to(self, now: int) -> None:
        """Into the period that holds this instant."""
        while (end := self.resets_at) is not None and end <= now:
            self.period += 1

    def burns_before(self) -> tuple[object, ...]:
        """The order of semantics 3.2, rules 3 to 6 and 8 to 10, rollovers before all that is limited (3.3), and at last
        the order of arrival.
        """
        expires_at = NEVER if self.expires_at is None else self.expires_at
        if self.unlimited:
            return (0, self.created_at, self.number)
        if self.rolled_from is not None:
            return (1, expires_at, self.created_at, self.number)
        return (
            2,
            self.interval is None,
            INTERVALS.index(self.interval) if self.interval else 0,
            expires_at,
            self.add_on,
            self.may_go_below,
            self.created_at,
            self.number,
        )


@dataclass(frozen=True)
class Subscription:
    """A plan that is held; `owner` ties its rows to it."""

    plan: Plan
    owner: int
    anchor: int
    ends_at: int | None = None

    def cycle_end(self, now: int) -> int:
        """When what was paid is over; now where nothing is paid by time."""
        if self.plan.paid_every is None:
            return now
        k = 1
        while (end := boundary(self.anchor, self.plan.paid_every, k)) <= now:
            k += 1
        return end


@dataclass(frozen=True)
class Coming:
    """A plan that starts by itself."""

    plan: Plan
    starts_at: int
    quantities: Mapping[str, Decimal]


@dataclass(frozen=True)
class Outcome:
    """What a call was answered: a word, and what each row gave or got, in burn order."""

    status: str
    moved: tuple[tuple[Row, Decimal], ...] = ()
    pool: str | None = None


@dataclass(frozen=True)
class Leg:
    """What one row gave (negative) or got in one go, at this cost and in this period of the row."""

    row: Row
    cost: Decimal
    delta: Decimal
    period: int | None


@dataclass
class Hold:
    """Units that were taken before they were used."""

    feature: str
    value: Decimal
    mode: str
    expires_at: int
    legs: tuple[Leg, ...]
    used: Decimal = Decimal(0)


@dataclass
class Cap:
    """A usage limit: so much of a feature in each window of UTC; `used` counts in the one that ends at `ends_at`."""

    feature: str
    limit: Decimal
    interval: str
    used: Decimal = Decimal(0)
    ends_at: int = 0

    def step_to(self, now: int) -> None:
        """Into the window that holds this instant, with nothing used of it."""
        if self.ends_at > now:
            return
        k = 0
        while (end := boundary(UTC_MONDAY, self.interval, k)) <= now:
            k += 1
        self.ends_at, self.used = end, Decimal(0)


@dataclass
class Limits:
    """How far a customer may go: spend limits and overage by feature, and caps."""

    spend: dict[str, Decimal] = field(default_factory=dict)
    overage: dict[str, bool] = field(default_factory=dict)
    caps: list[Cap] = field(default_factory=list)

    def may_go_below(self, row: Row) -> bool:
        if row.unlimited or row.rolled_from is not None:
            return False
        return self.overage.get(row.feature, row.may_go_below)

    def depth(self, row: Row, mode: str) -> Decimal | None:
        """How much further below zero a row may go; None is without bound."""
        if row.rolled_from is not None:
            return Decimal(0)
        if mode == "overflow" or row.unlimited:
            return None
        if not self.may_go_below(row):
            return Decimal(0)
        if row.feature == "seats" and row.most_paid_later is None and row.feature not in self.overage:
            return Decimal(0) if mode == "reject" else None
        if row.most_paid_later is None or row.feature in self.spend:
            return None
        return max(Decimal(0), min(row.balance, Decimal(0)) + row.most_paid_later)

    def spare(self, feature: str, rows: Iterable[Row]) -> Decimal | None:
        """How much further the rows of a feature may go together; None is without bound."""
        if feature not in self.spend:
            return None
        owed = sum((min(row.balance, Decimal(0)) for row in rows if row.feature == feature), Decimal(0))
        return max(Decimal(0), self.spend[feature] + owed)

    def headroom(self, feature: str) -> Decimal | None:
        """What the caps on a feature still let through; None is without bound."""
        left = [max(Decimal(0), cap.limit - cap.used) for cap in self.caps if cap.feature == feature]
        return min(left, default=None)

    def count(self, feature: str, amount: Decimal) -> None:
        for cap in self.caps:
            if cap.feature == feature:
                cap.used += amount


def least(*bounds: Decimal | None) -> Decimal | None:
    """The least of some bounds, where None is none."""
    return min((bound for bound in bounds if bound is not None), default=None)


class Left:
    """What is left of a call while it goes from row to row: so much, counted in units of this cost."""

    def __init__(self, amount: Decimal, cost: Decimal = Decimal(1)) -> None:
        self.amount = amount
        self.cost = cost

    def at(self, cost: Decimal) -> Decimal:
        """Count what is left in the unit of a pool of this cost, and return it."""
        if cost != self.cost:
            units = self.amount if self.cost == 1 else rounded(EXACT.divide(self.amount, self.cost))
            self.amount, self.cost = rounded(EXACT.multiply(units, cost)), cost
        return self.amount

    def without(self, part: Decimal) -> None:
        self.amount -= part


@dataclass
class Customer:
    """One customer. Every method either does the whole of something or nothing."""

    now: int
    costs: Mapping[str, Mapping[str, Decimal]]
    rows: list[Row] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)
    coming: list[Coming] = field(default_factory=list)
    flags: list[tuple[str, str, int]] = field(default_factory=list)
    holds: dict[str, Hold] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    sequence: int = 1
    shape: int = 1
    count: int = 0
    noted_due: int | None = None
    """What the record says is due next: too early, if it is a hold that was settled since."""

    # Reading

    def in_order(self) -> list[Row]:
        return sorted(self.rows, key=Row.burns_before)

    @property
    def due(self) -> int | None:
        instants = [row.resets_at for row in self.rows] + [row.expires_at for row in self.rows]
        instants += [held.ends_at for held in self.subscriptions] + [plan.starts_at for plan in self.coming]
        instants += [hold.expires_at for hold in self.holds.values()]
        instants += [cap.ends_at for cap in self.limits.caps]
        return min((instant for instant in instants if instant is not None), default=None)

    @property
    def is_due(self) -> bool:
        return self.noted_due is not None and self.noted_due <= self.now

    def is_held(self, row: Row) -> bool:
        """Whether a hold may have to give something back to it."""
        return any(leg.row is row for hold in self.holds.values() for leg in hold.legs)

    def pools(self, feature: str) -> dict[str, Decimal]:
        """The feature at cost 1, and the credit systems that price it, in the order of the catalog."""
        systems = {name: members[feature] for name, members in self.costs.items() if feature in members}
        return {feature: Decimal(1), **systems}

    def check(self, feature: str, units: Decimal) -> Outcome:
        """Semantics 2.2: one pool answers; pools are never added up."""
        pools = self.pools(feature)
        owned = [name for name in pools if any(row.feature == name for row in self.rows)]

        def affords(name: str) -> bool:
            needed = rounded(units * pools[name])
            rows = [row for row in self.rows if row.feature == name]
            if needed < 0 or any(row.unlimited for row in rows):
                return True
            for limited, most in ((feature, units), (name, needed)):
                headroom = self.limits.headroom(limited)
                if headroom is not None and headroom < most:
                    return False
            there = sum((max(row.balance, Decimal(0)) for row in rows), Decimal(0))
            depths = [self.limits.depth(row, "reject") for row in rows]
            known = [depth for depth in depths if depth is not None]
            deepest = sum(known, Decimal(0)) if len(known) == len(depths) else None
            further = least(deepest, self.limits.spare(name, rows))
            return further is None or there + further >= needed

        able = [name for name in owned if affords(name)]
        if able:
            return Outcome("OK", pool=able[0])
        systems = [name for name in owned if name != feature]
        return Outcome("REFUSED", pool=next(iter(systems or owned), None))

    # Use

    def track(self, feature: str, units: Decimal, mode: str) -> Outcome:
        """Semantics 3.3 and 3.4."""
        before = self._balances()
        drawn = self._draw(feature, Left(abs(units)), mode, is_refund=units < 0)
        if drawn is None:
            return Outcome("REFUSED")
        moved = self._moved(before, feature)
        if self._left_the_range(before):
            return Outcome("OUT_OF_RANGE")
        self.sequence += 1
        return Outcome("OK", moved)

    def _draw(self, feature: str, left: Left, mode: str, *, is_refund: bool) -> list[Leg] | None:
        """Take what is left from rows, or give it to them; None and as before where that is refused.

        Returns what each gave or got, one after the other.
        """
        pools = self.pools(feature)
        rows = self._as_they_give(feature)
        priced: list[Row] = []
        is_free = False
        for row in rows:
            if pools[row.feature] == 0:  # here the units are free: nothing behind it gives or gets
                is_free = True
                break
            priced.append(row)
            if row.unlimited:
                break
        if is_refund:
            return self._refund(priced, pools, left, mode)
        before, counted = self._balances(), [replace(cap) for cap in self.limits.caps]
        stopped = self._stop_at_caps(rows, feature, left, mode)
        legs = self._take(priced, rows, pools, left, mode, is_free=is_free)
        if mode == "reject" and (stopped > 0 or left.amount > 0) and not (is_free and stopped == 0):
            self._restore(before)
            self.limits.caps = counted
            return None
        return legs

    def _as_they_give(self, feature: str) -> list[Row]:
        """All rows that a feature can draw on: unlimited ones, what rolled over, its own, and those of systems."""

        def rank(row: Row) -> int:
            if row.unlimited:
                return 0 if row.feature == feature else 1
            if row.rolled_from is not None:
                return 2
            return 3 if row.feature == feature else 4

        pools = self.pools(feature)
        return sorted((row for row in self.in_order() if row.feature in pools), key=rank)

    def _stop_at_caps(self, rows: list[Row], feature: str, left: Left, mode: str) -> Decimal:
        """Leave of a call what the caps on its feature let through; returns how much that took off.

        Where an unlimited row gives, or with overflow, they stop nothing.
        """
        headroom = self.limits.headroom(feature)
        if headroom is None or mode == "overflow" or (rows and rows[0].unlimited):
            return Decimal(0)
        stopped = max(Decimal(0), left.amount - headroom)
        left.without(stopped)
        return stopped

    def _take(
        self,
        rows: list[Row],
        all_rows: list[Row],
        pools: Mapping[str, Decimal],
        left: Left,
        mode: str,
        *,
        is_free: bool,
    ) -> list[Leg]:
        legs: list[Leg] = []
        feature, wanted = next(iter(pools)), left.amount
        is_unlimited = bool(all_rows) and all_rows[0].unlimited
        stops = (
            {} if is_unlimited or mode == "overflow" else {name: self.limits.headroom(name) for name in pools}
        )
        taken = dict.fromkeys(pools, Decimal(0))

        def take(row: Row, most: Decimal | None) -> None:
            stop = stops.get(row.feature)
            most = least(most, None if stop is None else stop - taken[row.feature])
            if most is not None and most <= 0:
                return
            cost = pools[row.feature]
            there = left.at(cost)
            part = there if most is None else min(most, there)
            row.balance -= part
            taken[row.feature] += part
            left.without(part)
            legs.append(Leg(row, cost, -part, row.period if row.interval else None))

        for row in rows:
            if left.amount > 0 and row.unlimited:
                take(row, None)
            elif left.amount > 0 and row.balance > 0:
                take(row, row.balance)
        if not is_free:
            spares = {name: self.limits.spare(name, all_rows) for name in pools}
            before = dict(taken)
            for row in rows:
                if left.amount > 0:
                    spare = spares[row.feature]
                    gone = taken[row.feature] - before[row.feature]
                    take(row, least(self.limits.depth(row, mode), None if spare is None else spare - gone))
        if not is_unlimited:
            not_taken = Decimal(0) if is_free else min(wanted, left.at(Decimal(1)))
            taken[feature] = wanted - not_taken
            for name, amount in taken.items():
                self.limits.count(name, amount)
        return legs

    @staticmethod
    def _refund(rows: list[Row], pools: Mapping[str, Decimal], left: Left, mode: str) -> list[Leg]:
        legs = []
        rows = [row for row in rows if row.rolled_from is None]

        def give(row: Row, most: Decimal | None) -> None:
            cost = pools[row.feature]
            there = left.at(cost)
            part = there if most is None else min(most, there)
            row.balance += part
            left.without(part)
            legs.append(Leg(row, cost, part, row.period if row.interval else None))

        for row in rows:
            if left.amount > 0 and row.balance < 0:
                give(row, -row.balance)
        for row in rows:
            if left.amount > 0 and mode == "overflow":
                give(row, None)
            elif left.amount > 0 and row.balance < row.granted:
                give(row, row.granted - row.balance)
        return legs

    def _balances(self) -> dict[int, Decimal]:
        return {id(row): row.balance for row in self.rows}

    def _restore(self, before: Mapping[int, Decimal]) -> None:
        for row in self.rows:
            row.balance = before[id(row)]

    def _moved(self, before: Mapping[int, Decimal], feature: str) -> tuple[tuple[Row, Decimal], ...]:
        """What each row gave or got since then, in the order in which they give."""
        rows = self._as_they_give(feature)
        return tuple((row, row.balance - before[id(row)]) for row in rows if row.balance != before[id(row)])

    def _left_the_range(self, before: Mapping[int, Decimal]) -> bool:
        """Whether a row that moved holds more than there can be; then all is as before."""
        if any(abs(row.balance) >= LIMIT and row.balance != before[id(row)] for row in self.rows):
            self._restore(before)
            return True
        return False

    # Holds: semantics 2.5, and D7 for what has changed until a hold is settled

    def hold(self, name: str, feature: str, units: Decimal, mode: str, expires_at: int) -> Outcome:
        """Take now, and remember how to put it right."""
        if name in self.holds:
            return Outcome("EXISTS")
        if not self.now < expires_at <= self.now + DAY_MS:
            return Outcome("MISTIMED")
        if units > 0 and not any(row.feature in self.pools(feature) for row in self.rows):
            return Outcome("REFUSED")
        before = self._balances()
        legs = self._draw(feature, Left(abs(units)), mode, is_refund=units < 0)
        if legs is None:
            return Outcome("REFUSED")
        moved = self._moved(before, feature)
        if self._left_the_range(before):
            return Outcome("OUT_OF_RANGE")
        later = "cap" if mode == "reject" else mode
        self.holds[name] = Hold(feature, units, later, expires_at, tuple(legs))
        self.noted_due = expires_at if self.noted_due is None else min(self.noted_due, expires_at)
        self.sequence += 1
        return Outcome("OK", moved)

    def settle(self, name: str, final: Decimal) -> str:
        """What stays of a hold stays where it was taken; the rest goes back there; what is beyond it is taken anew."""
        hold, before = self.holds[name], self._balances()
        kept, beyond = final, Decimal(0)
        if hold.value * final < 0:
            kept, beyond = Decimal(0), final
        elif abs(final) >= abs(hold.value):
            kept, beyond = hold.value, final - hold.value
        if kept != hold.value:
            step = self._balances()
            homeless = self._return(hold, Left(abs(kept)))
            if self._left_the_range(step):
                self._restore(before)
                return "OUT_OF_RANGE"
            step = self._balances()
            for leg, rest in homeless:
                self._draw(hold.feature, Left(rest, leg.cost), "cap", is_refund=leg.delta < 0)
            if self._left_the_range(step):
                self._restore(before)
                return "OUT_OF_RANGE"
        step = self._balances()
        self._draw(hold.feature, Left(abs(beyond)), hold.mode, is_refund=beyond < 0)
        if self._left_the_range(step):
            self._restore(before)
            return "OUT_OF_RANGE"
        del self.holds[name]
        self.sequence += 1
        return "OK"

    def _return(self, hold: Hold, kept: Left) -> list[tuple[Leg, Decimal]]:
        """Give back what is not kept; returns what found no row of its own, or not enough in it."""
        homeless = []
        for leg in hold.legs:
            stays = min(abs(leg.delta), kept.at(leg.cost)) if kept.amount > 0 else Decimal(0)
            kept.without(stays)
            rest = abs(leg.delta) - stays
            if rest == 0:
                continue
            if not any(row is leg.row for row in self.rows):
                homeless.append((leg, rest))
            elif leg.row.interval is not None and leg.row.period != leg.period:
                continue  # the old period is charged
            elif leg.delta < 0:
                leg.row.balance += rest
            else:
                part = min(rest, max(leg.row.balance, Decimal(0)))
                leg.row.balance -= part
                if rest > part:
                    homeless.append((leg, rest - part))
        return homeless

    def progress(self, name: str, used: Decimal) -> str:
        """The most that was ever said."""
        hold = self.holds[name]
        if hold.value < 0:
            return "REFUSED"
        if used > hold.used:
            hold.used = used
            self.sequence += 1
        return "OK"

    # Changes

    def grant(self, rows: Iterable[Row]) -> str:
        """Rows that belong to no plan."""
        return self._open(list(rows), closed=None)

    def attach(self, plan: Plan, quantities: Mapping[str, Decimal]) -> str:
        """Semantics 4.5: a one-off is added, an add-on stands beside, a dearer plan replaces the one of its group."""
        owner = self.count
        if plan.one_off:
            return self._open(
                self._rows_of(plan, quantities, owner, self.now),
                closed=None,
                flags=self._flags_of(plan, owner),
            )
        if any(held.plan.name == plan.name and held.ends_at is None for held in self.subscriptions):
            return "plan_already_attached"
        replaced = None
        if not plan.add_on:
            same = [s for s in self.subscriptions if s.plan.group == plan.group and not s.plan.add_on]
            replaced = same[0] if same else None
        if replaced is not None and replaced.plan.name == plan.name:  # it was to end, and now goes on
            return self._goes_on(replaced)
        if replaced is not None and plan.rank < replaced.plan.rank and replaced.plan.paid_every is not None:
            return self._comes_after(replaced, plan, quantities)
        anchor = self.now
        if (
            replaced is not None
            and plan.paid_every is not None
            and plan.paid_every == replaced.plan.paid_every
        ):
            anchor = replaced.anchor
        rows = self._rows_of(plan, quantities, owner, anchor)
        said = self._open(
            rows,
            closed=replaced.owner if replaced else None,
            flags=self._flags_of(plan, owner),
            in_use=self._seats_of(replaced),
        )
        if said == "OK":
            self._forget_what_comes(plan)
            self.subscriptions = [s for s in self.subscriptions if s is not replaced]
            self.subscriptions.append(Subscription(plan, owner, anchor))
        return said

    def forward(self) -> str:
        """D7, by stepping at every boundary: holds expire, then what expired goes, then what fell due starts anew.

        Into how many entries the steps are put is not said here.
        """
        if not self.is_due:
            return "MOVED_ON"
        now = self.now
        while (instant := self.due) is not None and instant <= now:
            self.now = instant
            if self._expire(instant):
                continue
            self._change_plans()
            self.rows = [row for row in self.rows if row.expires_at is None or row.expires_at > instant]
            due = [row for row in self.in_order() if row.resets_at is not None and row.resets_at <= instant]
            for row in due:
                row.period += 1
                if row.rolls is not None:
                    self._roll_over(row, instant)
                row.balance = row.granted
            for cap in self.limits.caps:
                cap.step_to(instant)
            if due:
                self.rows = [row for row in self.rows if not row.is_drained or self.is_held(row)]
        self.now = now
        self.changed()
        return "OK"

    def _goes_on(self, held: Subscription) -> str:
        self._forget_what_comes(held.plan)
        self._hold(held, ends_at=None)
        self.changed()
        return "OK"

    def _comes_after(self, held: Subscription, plan: Plan, quantities: Mapping[str, Decimal]) -> str:
        """A cheaper plan waits until what was paid is over."""
        self._forget_what_comes(plan)
        starts_at = held.cycle_end(self.now)
        self._hold(held, ends_at=starts_at)
        self.coming.append(Coming(plan, starts_at, quantities))
        self.changed()
        return "OK"

    def _forget_what_comes(self, plan: Plan) -> None:
        if not plan.add_on:
            self.coming = [coming for coming in self.coming if coming.plan.group != plan.group]

    def _hold(self, held: Subscription, *, ends_at: int | None) -> None:
        changed = replace(held, ends_at=ends_at)
        self.subscriptions = [changed if s.owner == held.owner else s for s in self.subscriptions]

    def _change_plans(self) -> None:
        """Plans whose end has come go, with their rows; what was to come in their place starts."""
        over = [held for held in self.subscriptions if held.ends_at is not None and held.ends_at <= self.now]
        starting = [plan for plan in self.coming if plan.starts_at <= self.now]
        self.coming = [plan for plan in self.coming if plan.starts_at > self.now]
        for held in over:
            self.subscriptions = [s for s in self.subscriptions if s.owner != held.owner]
            seats = self._seats_of(held)
            rolled = [
                row
                for row in self.in_order()
                if row.owner == held.owner
                and row.rolled_from is not None
                and (row.expires_at is None or row.expires_at > self.now)
            ]
            self.rows = [row for row in self.rows if row.owner != held.owner or row.bought_for_good]
            for row in self.rows:
                if row.owner == held.owner:
                    row.owner, row.plan = None, None
            self.flags = [flag for flag in self.flags if flag[2] != held.owner]
            for coming in starting:
                if coming.plan.group == held.plan.group:
                    self._begin(coming, seats, rolled)

    def _begin(self, coming: Coming, seats: list[Row], rolled: list[Row]) -> None:
        owner = self.count
        rows = self._rows_of(coming.plan, coming.quantities, owner, self.now)
        for row in rows:
            self.count += 1
            row.number = self.count
            if row.feature == "seats":
                row.balance -= sum((old.granted - old.balance for old in seats), Decimal(0))
        self.count += 1
        self.rows += rows
        for row in rows:
            self.rows += handed_on(row, [each for each in rolled if each.feature == row.feature])
        self.flags += self._flags_of(coming.plan, owner)
        self.subscriptions.append(Subscription(coming.plan, owner, self.now))

    def _heirs(self, closed: int | None, opened: list[Row]) -> list[tuple[Row, Row]]:
        """Rows of a plan that is replaced, and those of the new plan in their place."""
        if closed is None:
            return []
        old = [row for row in self.rows if row.owner == closed and row.rolled_from is None]
        return [(before, new) for new in opened for before in old if before.feature == new.feature]

    def _seats_of(self, held: Subscription | None) -> list[Row]:
        """The rows of a plan whose units are not used up but taken."""
        owner = held.owner if held else None
        return [
            row
            for row in self.rows
            if held and row.owner == owner and row.feature == "seats" and not row.bought_for_good
        ]

    def _expire(self, instant: int) -> bool:
        """Settle the first hold that expires by this instant at its progress: before anything else of that instant."""
        expired = sorted(
            (hold.expires_at, name) for name, hold in self.holds.items() if hold.expires_at <= instant
        )
        for _, name in expired[:1]:
            hold = self.holds[name]
            if self.settle(name, hold.used) != "OK":
                self.settle(name, hold.value)
        return bool(expired)

    def _roll_over(self, row: Row, instant: int) -> None:
        """What is left of a row that starts again now is added to what rolled over before, up to the cap."""
        assert row.rolls is not None
        mine = [each for each in self.rows if each.rolled_from is row]
        expires_at = self._rolls_until(row, instant)
        left = max(Decimal(0), row.balance)
        home = None
        if row.rolls.months is not None:
            home = next((each for each in mine if each.expires_at == expires_at), None)
        if home is not None:
            home.balance += left
            home.granted += left
        elif left > 0:
            self.count += 1
            home = replace(
                row,
                number=self.count,
                granted=left,
                balance=left,
                created_at=instant,
                interval=None,
                expires_at=expires_at,
                may_go_below=False,
                most_paid_later=None,
                bought_for_good=False,
                rolls=None,
                rolled_from=row,
                name="",
            )
            mine.append(home)
            self.rows.append(home)
        capped(mine, row.rolls.cap)
        filled = sorted((each for each in mine if each.balance > 0), key=Row.burns_before)
        while len(filled) > 24:
            soonest, after = filled[:2]
            after.balance, after.granted = after.balance + soonest.balance, after.granted + soonest.balance
            soonest.granted, soonest.balance = soonest.granted - soonest.balance, Decimal(0)
            filled = filled[1:]
        empty = [each for each in mine if each.balance == 0 and not self.is_held(each)]
        self.rows = [each for each in self.rows if not any(each is one for one in empty)]

    @staticmethod
    def _rolls_until(row: Row, instant: int) -> int | None:
        """Months after the reset. Where more than twelve would be there at once, so many in a row end with the last
        that twelve are enough, and one to begin with.
        """
        assert row.rolls is not None
        if row.rolls.months is None:
            return row.expires_at
        assert row.interval in ("day", "month")
        alive = row.rolls.months * (31 if row.interval == "day" else 1)
        together = 1 if alive <= 12 else -(-alive // 11)
        last = row.period - row.period % together + together - 1
        assert boundary(row.anchor, row.interval, row.period) == instant
        until = boundary(boundary(row.anchor, row.interval, last), "month", row.rolls.months)
        return until if row.expires_at is None else min(until, row.expires_at)

    def set_limits(self, limits: Limits) -> None:
        """Other limits hold from now on. A cap on a window that was counted before counts on."""
        for cap in limits.caps:
            cap.step_to(self.now)
            for before in self.limits.caps:
                if (before.feature, before.interval) == (cap.feature, cap.interval):
                    cap.used = before.used
        self.limits = limits
        self.changed()

    def changed(self) -> None:
        """Count a change of what the customer is or holds."""
        self.sequence += 1
        self.shape += 1
        self.noted_due = self.due

    def _rows_of(self, plan: Plan, quantities: Mapping[str, Decimal], owner: int, anchor: int) -> list[Row]:
        rows = []
        for item in plan.items:
            if item.feature == "vip":
                continue
            bought = Decimal(0)
            if item.pack is not None:
                beyond = max(Decimal(0), quantities.get(item.feature, Decimal(0)) - item.included)
                bought = (beyond / item.pack).to_integral_value(rounding=ROUND_UP) * item.pack
            interval = None if item.feature == "seats" or item.unlimited else item.reset or item.pack_interval
            row = Row(
                number=0,
                feature=item.feature,
                granted=item.included + bought,
                balance=item.included + bought,
                created_at=self.now,
                interval=interval,
                anchor=anchor,
                add_on=plan.add_on,
                may_go_below=item.paid_later or (item.feature == "seats" and item.pack is None),
                unlimited=item.unlimited,
                most_paid_later=item.most_paid_later,
                rolls=item.rolls,
                plan=plan.name,
                owner=owner,
                bought_for_good=bought > 0 and item.pack_interval is None,
            )
            row.step_to(self.now)
            rows.append(row)
        return rows

    @staticmethod
    def _flags_of(plan: Plan, owner: int) -> list[tuple[str, str, int]]:
        return [(item.feature, plan.name, owner) for item in plan.items if item.feature == "vip"]

    def _open(
        self,
        opened: list[Row],
        *,
        closed: int | None,
        flags: Iterable[tuple[str, str, int]] = (),
        in_use: Iterable[Row] = (),
    ) -> str:
        heirs = self._heirs(closed, opened)
        going_on = {id(old): new for old in in_use for new in opened if new.feature == old.feature}
        opened = [row for row in opened if not any(row is new for new in going_on.values())]
        kept = [
            row
            for row in self.in_order()
            if closed is None or row.owner != closed or row.bought_for_good or id(row) in going_on
        ]
        along = [(heir, [row for row in self.in_order() if row.rolled_from is old]) for old, heir in heirs]
        going_along = sum(len(handed_on(heir, [replace(row) for row in rows])) for heir, rows in along)
        missing = len(kept) + going_along + len(opened) - ROWS_MAX
        drained = [row for row in kept if row.is_drained and not self.is_held(row)]
        if missing > len(drained):
            return "too_many_balances"
        gone = {id(row) for row in drained[: max(0, missing)]}
        for row in kept:
            if id(row) in going_on:  # the same balance, of another plan now
                new = going_on[id(row)]
                row.balance += new.granted - row.granted
                row.granted, row.owner, row.plan = new.granted, new.owner, new.plan
                row.add_on, row.may_go_below = new.add_on, new.may_go_below
                self.count += 1
                row.number = self.count
            elif closed is not None and row.owner == closed:
                row.owner, row.plan = None, None
        for row in opened:
            self.count += 1
            row.number = self.count
        self.count += 1
        for heir, rows in along:
            kept += handed_on(heir, rows)
        self.rows = [row for row in kept if id(row) not in gone] + opened
        self.flags = [flag for flag in self.flags if closed is None or flag[2] != closed] + list(flags)
        self.changed()
        return "OK"


def capped(rolled: list[Row], cap: Decimal | None) -> None:
    """What is above the cap is cut off, the soonest to expire first; it was not used, so it is not granted either."""
    above = sum((row.balance for row in rolled), Decimal(0)) - cap if cap is not None else Decimal(0)
    for row in sorted(rolled, key=Row.burns_before):
        cut = min(max(Decimal(0), above), row.balance)
        row.balance, row.granted, above = row.balance - cut, row.granted - cut, above - cut


def handed_on(heir: Row, rolled: list[Row]) -> list[Row]:
    """What rolled over is the heir's from now on, up to its cap; nothing, if it rolls nothing over."""
    if heir.rolls is None:
        return []
    capped(rolled, heir.rolls.cap)
    for row in rolled:
        row.rolled_from, row.owner, row.plan, row.add_on = heir, heir.owner, heir.plan, heir.add_on
    return [row for row in rolled if row.balance > 0]


def new_customer(now: int, costs: Mapping[str, Mapping[str, Decimal]], plans: Iterable[Plan]) -> Customer:
    """A customer who starts on these plans, in one step."""
    customer = Customer(now, costs)
    for plan in plans:
        assert customer.attach(plan, {}) == "OK"
    customer.sequence = customer.shape = 1
    return customer


def copied(customer: Customer) -> Customer:
    """The same customer, to try something on."""
    twins: dict[int, Row] = {}

    def twin(row: Row) -> Row:
        if id(row) not in twins:
            parent = None if row.rolled_from is None else twin(row.rolled_from)
            twins[id(row)] = replace(row, rolled_from=parent)
        return twins[id(row)]

    holds = {
        name: replace(hold, legs=tuple(replace(leg, row=twin(leg.row)) for leg in hold.legs))
        for name, hold in customer.holds.items()
    }
    return replace(
        customer,
        holds=holds,
        limits=replace(customer.limits, caps=[replace(cap) for cap in customer.limits.caps]),
        rows=[twin(row) for row in customer.rows],
        subscriptions=list(customer.subscriptions),
        coming=list(customer.coming),
        flags=list(customer.flags),
    )


Mint = Callable[[str], str]
