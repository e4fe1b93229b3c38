"""Rollovers: whoever looks, and however seldom, what survived is what a reset at every boundary would have left."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from whenever import Instant

from creditgate.core.amounts import AMOUNT_MAX
from creditgate.core.catalog import Interval, Recurrence, Rollover
from creditgate.core.changes import Step, renewed
from creditgate.core.customers import Row
from creditgate.core.periods import boundary
from creditgate.core.rollovers import OWN_MAX, ROLLOVERS_MAX, handed_on, kept, renewal
from tests.core.words import DAY, DAY_MS, MONTH, NOW, Mint, nanos, row

FOREVER = Rollover()
QUARTER = Recurrence(Interval.QUARTER)
YEAR = Recurrence(Interval.YEAR)
JANUARY_31 = NOW + 30 * DAY_MS


def rolling(
    granted: str = "10", *, reset: Recurrence = MONTH, rollover: Rollover = FOREVER, **more: object
) -> Row:
    return row("r", granted, feature_id="messages", reset=reset, rollover=rollover, **more)


@dataclass
class Life:
    """A row with its rollovers, stepped over its boundaries."""

    row: Row
    balance: int
    rollovers: list[tuple[Row, int]] = field(default_factory=list)
    mint: Mint = field(default_factory=Mint)
    steps: list[Step] = field(default_factory=list)

    def step(self, now: int) -> None:
        """Start again, at once, whatever was missed."""
        amounts = {kept_row.id: amount for kept_row, amount in self.rollovers}
        outcome = renewal(self.row, self.balance, self.rollovers, now)
        rows, self.steps = kept(self.row, outcome, self.rollovers, self.mint)
        for each in self.steps:
            if each.row_id != self.row.id:
                left = each.on(amounts.get(each.row_id, 0))
                amounts |= {each.row_id: left or 0}
        self.rollovers = [(kept_row, amounts[kept_row.id]) for kept_row in rows]
        self.row = renewed(self.row, now)
        self.balance = self.row.start_nanos

    def step_by_step(self, now: int) -> None:
        """Start again at every boundary until now; between the last of them and now, rollovers can expire."""
        while self.row.resets_at is not None and self.row.resets_at <= now:
            self.step(self.row.resets_at)
        self.rollovers = [pair for pair in self.rollovers if not pair[0].has_expired_by(now)]

    def use(self, amount: int) -> None:
        """What rolled over gives first, then the row; what neither has is not used."""
        for number, (kept_row, there) in enumerate(self.rollovers):
            part = min(there, amount)
            self.rollovers[number] = (kept_row, there - part)
            amount -= part
        self.balance -= min(self.balance, amount)

    @property
    def ages(self) -> list[int]:
        """Since when each is there: it decides between two that are gone at the same time."""
        return [kept_row.created_at for kept_row, _ in self.rollovers]

    @property
    def amounts(self) -> list[tuple[int | None, int]]:
        """What is there, and until when: the soonest to expire first."""
        return [(kept_row.expires_at, amount) for kept_row, amount in self.rollovers if amount]


def ended(*amounts: tuple[int | None, str]) -> list[tuple[int | None, int]]:
    return [(expires_at, nanos(amount)) for expires_at, amount in amounts]


def month(number: int, anchor: int = NOW) -> int:
    """The end of so many months after the anchor."""
    return boundary(anchor, MONTH, number)


# One reset


def test_what_is_left_rolls_over() -> None:
    """Credits that were paid for and not used are there next month, beside the new ones."""
    life = Life(rolling(), nanos("4"))
    life.step(month(1))
    assert life.amounts == ended((None, "4"))
    assert life.steps == [Step("roll_out", "r", nanos("4")), Step("roll_in", "bal_1", nanos("4"))]
    ((kept_row, _),) = life.rollovers
    assert (kept_row.rolled_from, kept_row.included_nanos, kept_row.created_at) == ("r", nanos("4"), month(1))
    assert (kept_row.reset, kept_row.resets_at, kept_row.rollover, kept_row.price) == (None, None, None, None)


@pytest.mark.parametrize("balance", ["0", "-3"])
def test_nothing_left_rolls_nothing_over(balance: str) -> None:
    """A balance that was used up, or overdrawn, leaves no empty rollover behind, and no debt."""
    life = Life(rolling(), nanos(balance))
    life.step(month(1))
    assert (life.rollovers, life.steps) == ([], [])


@pytest.mark.parametrize(
    ("rollover", "after"),
    [
        (Rollover(max_nanos=nanos("12")), ("2", "10")),
        (Rollover(max_nanos=nanos("13.5")), ("3.5", "10")),
        (Rollover(max_nanos=nanos("7")), ("7",)),
        (Rollover(max_nanos=0), ()),
        (Rollover(max_percentage_nanos=nanos("75")), ("7",)),
        (Rollover(max_percentage_nanos=nanos("120.5")), ("2", "10")),
        (Rollover(max_percentage_nanos=nanos("9.9")), ()),
    ],
)
def test_the_cap_cuts_the_oldest(rollover: Rollover, after: tuple[str, ...]) -> None:
    """A cap, in units or in percent of the grant (whole units), holds for all rollovers; what it cuts was not used."""
    life = Life(rolling(rollover=FOREVER), nanos("5"))
    life.step(month(1))
    life.row = replace(life.row, rollover=rollover)
    life.step(month(2))
    assert life.amounts == ended(*((None, amount) for amount in after))
    assert [kept_row.included_nanos for kept_row, _ in life.rollovers] == [nanos(amount) for amount in after]


def test_what_is_cut_off_is_not_said_to_roll_over() -> None:
    """The journal says of each credit whether it rolled over or expired."""
    life = Life(rolling(rollover=Rollover(max_nanos=nanos("3"))), nanos("10"))
    life.step(month(1))
    assert life.steps == [Step("roll_out", "r", nanos("3")), Step("roll_in", "bal_1", nanos("3"))]
    life.step(month(2))
    assert life.steps == [
        Step("roll_out", "r", nanos("3")),
        Step("roll_in", "bal_2", nanos("3")),
        Step("close", "bal_1"),
    ]


def test_a_rollover_keeps_what_was_used_of_it() -> None:
    """Of a rollover that was partly used and then cut, the usage stays: granted is what is left and what was used."""
    life = Life(rolling(rollover=Rollover(max_nanos=nanos("15"))), nanos("10"))
    life.step(month(1))
    life.use(nanos("3"))
    life.step(month(2))
    ((old, left), (_, new)) = life.rollovers
    assert (left, new) == (nanos("5"), nanos("10"))
    assert old.granted_nanos == nanos("8")


# Time


def test_a_rollover_expires_months_after_its_reset() -> None:
    """What rolled over at the end of January for two months ends with March; an end of month is never the next one."""
    life = Life(rolling(rollover=Rollover(months=2), created_at=JANUARY_31, anchor=JANUARY_31), nanos("10"))
    life.row = replace(life.row, resets_at=month(1, JANUARY_31), period=0)
    life.step(month(1, JANUARY_31))  # 28 February
    ends = Instant.from_utc(2026, 4, 28).timestamp(unit="millisecond")
    assert life.amounts == ended((ends, "10"))


def test_expiry_is_of_the_time_zone() -> None:
    """A rollover ends at the same local time at which it began, summer or winter."""
    zone = "Europe/Berlin"
    life = Life(rolling(rollover=Rollover(months=2), zone=zone), nanos("10"))
    life.step(boundary(NOW, MONTH, 1, zone))
    assert life.amounts == ended((boundary(NOW, MONTH, 3, zone), "10"))
    assert boundary(NOW, MONTH, 3, zone) == month(3) - 3_600_000


def test_a_rollover_ends_with_its_row() -> None:
    """What rolled over from a grant is gone when the grant expires: it was never given for longer."""
    life = Life(rolling(rollover=Rollover(months=6), expires_at=month(2) + 5), nanos("10"))
    life.step(month(1))
    assert life.amounts == ended((month(2) + 5, "10"))
    forever = Life(rolling(expires_at=month(2) + 5), nanos("10"))
    forever.step(month(1))
    assert forever.amounts == ended((month(2) + 5, "10"))


def test_missed_months_leave_what_is_still_alive() -> None:
    """After half a year nobody looked, of rollovers that live two months the last two are there, and no more."""
    life = Life(rolling(rollover=Rollover(months=2)), nanos("1"))
    life.step(month(6))
    assert life.amounts == ended((month(7), "10"), (month(8), "10"))


def test_missed_months_are_capped() -> None:
    """A customer who was away comes back to the cap, not to a hoard."""
    life = Life(rolling(rollover=Rollover(max_nanos=nanos("25"))), nanos("1"))
    life.step(month(100))
    assert life.amounts == ended((None, "5"), (None, "10"), (None, "10"))


# The bound


@pytest.mark.parametrize(
    ("reset", "months"),
    [(DAY, 1), (DAY, 12), (MONTH, 12), (MONTH, 24), (MONTH, 120), (Recurrence(Interval.WEEK), 3)],
)
def test_at_most_twelve_are_alive_and_none_is_lost_early(reset: Recurrence, months: int) -> None:
    """Where many periods roll over, some share a row: each credit is there for its months, and little longer."""
    life = Life(rolling("1", reset=reset, rollover=Rollover(months=months)), nanos("1"))
    for number in range(1, 300):
        now = boundary(NOW, reset, number)
        life.step(now)
        assert len(life.rollovers) <= OWN_MAX
        due = [boundary(boundary(NOW, reset, k), MONTH, months) for k in range(1, number + 1)]
        for until in (now, now + months * 15 * DAY_MS, now + months * 40 * DAY_MS):
            there = sum(
                amount for expires_at, amount in life.amounts if expires_at is None or expires_at > until
            )
            promised = sum(nanos("1") for expiry in due if expiry > until)
            assert there >= promised, "lost early"
            late = (boundary(now, MONTH, months) - now) // (OWN_MAX - 1) + (boundary(NOW, reset, 1) - NOW) * 2
            assert there <= sum(nanos("1") for expiry in due if expiry + late > until), "kept for too long"


def test_the_work_does_not_grow_with_what_was_missed() -> None:
    """A row that starts again every minute, looked at after ten years, is worked out at once."""
    life = Life(rolling("1", reset=Recurrence(Interval.MINUTE), rollover=Rollover(months=120)), nanos("0.5"))
    life.step(NOW + 3653 * DAY_MS)
    assert len(life.rollovers) <= OWN_MAX
    assert sum(amount for _, amount in life.amounts) == nanos("1") * (3653 * 24 * 60 - 1) + nanos("0.5")


def test_what_never_expires_is_at_most_twenty_four_rows() -> None:
    """Of rollovers for good the oldest are put together: the rows are few, and no credit is lost."""
    life, seldom = Life(rolling(), nanos("3")), Life(rolling(), nanos("3"))
    for number in range(1, 80):
        life.step(month(number))
        assert len(life.rollovers) <= ROLLOVERS_MAX
        assert sum(amount for _, amount in life.amounts) == nanos("3") + nanos("10") * (number - 1)
        rolled = sum(each.amount_nanos for each in life.steps if each.action == "roll_out")
        assert rolled == sum(each.amount_nanos for each in life.steps if each.action == "roll_in")
    seldom.step(month(79))
    assert seldom.amounts == life.amounts


def test_a_hoard_stays_within_the_range_of_amounts() -> None:
    """However much a customer could have saved, the sum can still be written."""
    life = Life(rolling("9999999999999", reset=DAY), nanos("1"))
    life.step(NOW + 100_000 * DAY_MS)
    assert all(amount < AMOUNT_MAX for _, amount in life.amounts)


# Another row takes over


def test_rollovers_go_along_within_the_cap_of_the_next_row() -> None:
    """What a customer saved under one plan is there under the next, up to what that one keeps."""
    life = Life(rolling(rollover=Rollover(months=3)), nanos("10"))
    life.step_by_step(month(2))
    heir = row(
        "heir", "50", reset=MONTH, rollover=Rollover(max_nanos=nanos("12")), plan_id="pro", owner_id="sub"
    )
    rows, steps = handed_on(heir, life.rollovers)
    assert [(r.rolled_from, r.plan_id, r.owner_id, r.expires_at) for r in rows] == [
        ("heir", "pro", "sub", month(4)),
        ("heir", "pro", "sub", month(5)),
    ]
    assert steps == [Step("cut", rows[0].id, nanos("2"))]
    assert [r.included_nanos for r in rows] == [nanos("2"), nanos("10")]


# At once, and boundary by boundary

RESETS = [
    Recurrence(interval, count)
    for interval, count in (
        (Interval.HOUR, 5),
        (Interval.DAY, 1),
        (Interval.DAY, 3),
        (Interval.WEEK, 1),
        (Interval.MONTH, 1),
        (Interval.MONTH, 2),
        (Interval.QUARTER, 1),
        (Interval.YEAR, 1),
    )
]


def test_a_rollover_is_as_old_as_the_first_reset_in_it() -> None:
    """However late somebody looks: of two that are gone at the same time the older one gives first."""
    seldom, always = (
        Life(rolling(reset=DAY, rollover=Rollover(months=2), expires_at=month(3)), nanos("10")) for _ in "ab"
    )
    seldom.step(month(2))
    always.step_by_step(month(2))
    assert seldom.ages == always.ages


ANCHORS = [NOW, JANUARY_31, NOW + 58 * DAY_MS + 3_599_999, NOW + 87 * DAY_MS + 5_400_000]
amounts = st.integers(0, 400).map(lambda n: n * 10**8)
rollovers = st.builds(
    lambda months, cap: Rollover(months, **cap),
    st.sampled_from([None, 1, 1, 2, 3, 7, 12, 30]),
    st.one_of(
        st.just({}),
        amounts.map(lambda n: {"max_nanos": n}),
        st.sampled_from([0, 30, 100, 250]).map(lambda p: {"max_percentage_nanos": p * 10**9}),
    ),
)
rows = st.builds(
    lambda granted, reset, anchor, zone, rollover, lasts: replace(
        row("r", "0", created_at=anchor, anchor=anchor, reset=reset, zone=zone, rollover=rollover),
        included_nanos=granted,
        period=0,
        resets_at=boundary(anchor, reset, 1, zone),
        expires_at=boundary(anchor, reset, lasts, zone) + 1 if lasts else None,
    ),
    amounts,
    st.sampled_from(RESETS),
    st.sampled_from(ANCHORS),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia"]),
    rollovers,
    st.sampled_from([None, None, 60]),
)
looks = st.lists(st.tuples(st.integers(1, 9), st.integers(-2, 2), amounts), min_size=1, max_size=6)


@given(rows, amounts, looks)
def test_at_once_is_boundary_by_boundary(
    held: Row, balance: int, seen: Iterable[tuple[int, int, int]]
) -> None:
    """A sidecar that was down for months leaves a customer with exactly what one that never slept would have."""
    seldom, always = Life(held, balance), Life(held, balance)
    for missed, off, used in seen:
        assert held.reset is not None
        assert held.anchor is not None
        now = boundary(held.anchor, held.reset, seldom.row.period + missed, held.zone) + off
        if held.has_expired_by(now):
            break
        if seldom.row.resets_at is not None and seldom.row.resets_at <= now:
            seldom.step(now)
        seldom.rollovers = [pair for pair in seldom.rollovers if not pair[0].has_expired_by(now)]
        always.step_by_step(now)
        assert (seldom.amounts, seldom.ages, seldom.row) == (always.amounts, always.ages, always.row)
        for life in (seldom, always):
            life.use(used)


class Plain:
    """What a rollover is, for months-long periods of UTC and at most a year: a list of amounts with their ends."""

    def __init__(
        self, granted: Decimal, every: int, months: int | None, most: Decimal | None, anchor: int
    ) -> None:
        self.granted, self.every, self.months, self.most = granted, every, months, most
        self.anchor = Instant.from_timestamp(anchor, unit="millisecond").to_tz("UTC")
        self.k = 0
        self.balance = granted
        self.saved: list[tuple[int, Decimal]] = []

    def next(self) -> int:
        """The next boundary comes."""
        self.k += 1
        at = self.anchor.add(months=self.k * self.every)
        now = at.timestamp(unit="millisecond")
        self.saved = [(end, amount) for end, amount in self.saved if end > now]
        end = 10**18 if self.months is None else at.add(months=self.months).timestamp(unit="millisecond")
        self.saved.append((end, self.balance))
        if self.most is not None:
            above = max(Decimal(0), sum((amount for _, amount in self.saved), Decimal(0)) - self.most)
            for number, (until, amount) in enumerate(self.saved):
                cut = min(above, amount)
                self.saved[number] = (until, amount - cut)
                above -= cut
        self.balance = self.granted
        return now


@given(
    st.sampled_from([1, 3, 12]),
    st.sampled_from([None, 1, 2, 3, 5, 12]),
    st.one_of(st.none(), st.integers(0, 60).map(Decimal)),
    st.sampled_from(ANCHORS),
    st.lists(st.integers(0, 15), min_size=1, max_size=15),
)
def test_a_reset_is_what_plain_arithmetic_says(
    every: int, months: int | None, most: Decimal | None, anchor: int, uses: list[int]
) -> None:
    """Cap, expiry and what is used month by month, against a list of amounts."""
    interval = {1: MONTH, 3: QUARTER, 12: YEAR}[every]
    cap = None if most is None else nanos(str(most))
    held = row("r", "10", anchor=anchor, reset=interval, rollover=Rollover(months, max_nanos=cap))
    life = Life(replace(held, period=0, resets_at=boundary(anchor, interval, 1)), nanos("10"))
    plain = Plain(Decimal(10), every, months, most, anchor)
    for used in uses:
        left = Decimal(used)
        for number, (end, amount) in enumerate(plain.saved):
            part = min(left, amount)
            plain.saved[number] = (end, amount - part)
            left -= part
        plain.balance -= min(plain.balance, left)
        life.use(nanos(str(used)))
        life.step(plain.next())
        assert [amount for _, amount in life.amounts] == [nanos(str(a)) for _, a in plain.saved if a]
        if months is not None:
            assert [end for end, _ in life.amounts] == [end for end, amount in plain.saved if amount]
