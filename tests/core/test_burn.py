"""Burn order: each rule by itself, and all of them over each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditgate.core.burn import in_burn_order, order_fields
from creditgate.core.catalog import Interval, Recurrence
from creditgate.core.customers import Row, Terms
from tests.core.words import DAY_MS, MONTH, NOW, ONE_OFF, row

INTERVALS = [interval for interval in Interval if interval is not Interval.ONE_OFF]

FIRST_AND_SECOND = {
    "what resets before what does not": (row("a", reset=MONTH), row("b", reset=ONE_OFF)),
    "what resets before what does not, even if that expires sooner": (
        row("a", reset=MONTH),
        row("b", reset=ONE_OFF, expires_at=NOW + DAY_MS),
    ),
    "what resets before what has no reset at all": (row("a", reset=MONTH), row("b")),
    "the shorter interval": (row("a", reset=Recurrence(Interval.DAY)), row("b", reset=MONTH)),
    "the shorter interval, even if the other expires sooner": (
        row("a", reset=Recurrence(Interval.DAY)),
        row("b", reset=MONTH, expires_at=NOW + 1),
    ),
    "the smaller count of the same interval": (
        row("a", reset=Recurrence(Interval.DAY, 2)),
        row("b", reset=Recurrence(Interval.DAY, 3)),
    ),
    "the earlier expiry": (row("a", expires_at=NOW + 1), row("b", expires_at=NOW + 2)),
    "an expiry before none": (row("a", expires_at=NOW + 10**12), row("b")),
    "the earlier expiry, even of an add-on": (
        row("a", expires_at=NOW + 1, add_on=True),
        row("b", expires_at=NOW + 2),
    ),
    "a plan before an add-on": (row("a"), row("b", add_on=True)),
    "a plan before an add-on, even if it may go below zero": (
        row("a", may_go_negative=True),
        row("b", add_on=True),
    ),
    "what stops at zero before what does not": (row("a"), row("b", may_go_negative=True)),
    "what stops at zero, even if it is newer": (row("a", created_at=NOW + 1), row("b", may_go_negative=True)),
    "the older": (row("a", created_at=NOW - 1), row("b", created_at=NOW)),
}


@pytest.mark.parametrize(("first", "second"), FIRST_AND_SECOND.values(), ids=FIRST_AND_SECOND)
def test_rule(first: Row, second: Row) -> None:
    """Each rule decides alone: customers lose what would be lost soonest, first."""
    assert in_burn_order([first, second]) == (first, second)
    assert in_burn_order([second, first]) == (first, second)


def test_intervals_from_short_to_long() -> None:
    """Minute, hour, day, week, month, quarter, half-year, year."""
    rows = [row(interval, reset=Recurrence(interval)) for interval in INTERVALS]
    for shuffled in (rows[::-1], rows[3:] + rows[:3]):
        assert [r.id for r in in_burn_order(shuffled)] == [
            "minute",
            "hour",
            "day",
            "week",
            "month",
            "quarter",
            "semi_annual",
            "year",
        ]


def test_equal_rows_keep_their_order() -> None:
    """Rows that no rule tells apart stay as they are: an order that moved by itself would move charges."""
    rows = [row(name) for name in "dcab"]
    assert [r.id for r in in_burn_order(rows)] == list("dcab")
    assert in_burn_order(in_burn_order(rows)) == in_burn_order(rows)


any_row = st.builds(
    lambda number, reset, expires, add_on, negative, created: row(
        f"r{number}",
        reset=reset,
        expires_at=None if expires is None else NOW + expires,
        add_on=add_on,
        may_go_negative=negative,
        created_at=NOW - created,
    ),
    st.integers(0, 10**6),
    st.sampled_from(
        [None, ONE_OFF, *(Recurrence(interval, count) for interval in INTERVALS for count in (1, 2))]
    ),
    st.sampled_from([None, 1, 2]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 1]),
)


@given(st.lists(any_row, max_size=8))
def test_order_does_not_depend_on_how_rows_arrive(rows: list[Row]) -> None:
    """However rows came to a customer, any two of them that a rule tells apart stand in the same order."""

    def told_apart_by(r: Row) -> tuple[object, ...]:
        reset = r.reset if r.reset is not None and r.reset.repeats else None
        return (reset, r.expires_at, r.add_on, r.may_go_negative, r.created_at)

    one, other = in_burn_order(rows), in_burn_order(rows[::-1])
    assert [told_apart_by(r) for r in one] == [told_apart_by(r) for r in other]
    assert sorted(r.id for r in one) == sorted(r.id for r in rows)


def test_order_fields_are_what_the_scripts_read() -> None:
    """Per feature the rows in order: place among all rows, id, floor, and the most that a refund fills it to."""
    rows = in_burn_order(
        [
            row("life", "2.5", feature_id="usd", prepaid_nanos=7),
            row("month", "5", feature_id="usd", reset=MONTH, period=4, resets_at=NOW),
            row("seats", "3", feature_id="seats", may_go_negative=True),
        ]
    )
    assert order_fields(Terms(rows)) == {
        "usd": "0:month:0:5000000000:4 1:life:0:2500000007:-",
        "seats": "2:seats:seat:3000000000:-",
    }
    assert order_fields(Terms()) == {}
