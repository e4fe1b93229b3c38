"""Sums over usage events: what is asked, what comes back, and the statements that the database sums with.

Time is counted in units from an origin, so that the database divides and nothing else; whoever asks picks the unit so
that no bin begins within one. An amount is summed in three integers, each far from the end of 64 bits: the high and the
low part of the whole, and the nanos.
"""

from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    Text,
    and_,
    case,
    func,
    literal_column,
    null,
    select,
)

from creditgate.core.amounts import NANOS
from creditgate.core.journal import StreamId
from creditgate.ledger.events import Event, EventFilter, conditions_of, property_column, property_text
from creditgate.ledger.tables import journal_items

OTHER = "Other"  # the groups that do not stand apart
BEYOND_ALL_ITEMS = 2**31 - 1

_HIGH = 1_000_000  # what the whole part of an amount is divided by

_items = journal_items.c
# A deduction, and a call that begins behind the event in the same entry: from there on deductions are another's.
_deductions = journal_items.alias("deductions")
_calls = journal_items.alias("calls")


class GroupBy(StrEnum):
    """What events are told apart by."""

    PROPERTY = "property"
    CUSTOMER = "customer"
    ENTITY = "entity"


class Grouping(NamedTuple):
    """`path` is that of a property."""

    by: GroupBy
    path: str = ""

    def of(self, event: Event) -> str | None:
        """Return the group of an event from the stream; None: it is in none."""
        match self.by:
            case GroupBy.PROPERTY:
                return property_text(event.call.properties, self.path) or None
            case GroupBy.CUSTOMER:
                return event.customer_id
            case GroupBy.ENTITY:
                return event.call.entity_id or None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which events, and in what units of time from `origin`; `grouping` tells them apart, `by_row` what they took."""

    wanted: EventFilter
    origin: int
    unit: int
    grouping: Grouping | None = None
    by_row: bool = False


class Sum(NamedTuple):
    """What events of one unit of time, feature and group add up to.

    By row, it is what they moved of that row, signed as in the journal; else the row is None, and it is their values.
    """

    units: int
    feature_id: str
    group: str | None
    row_id: str | None
    nanos: int
    events: int


class Sums(NamedTuple):
    """The sums of each question, and how far each partition's stream was in SQL: what lies behind is not in them."""

    upto: dict[str, StreamId]
    of: tuple[tuple[Sum, ...], ...]


def sums_of(event: Event, question: Question, groups: Collection[str]) -> Iterator[Sum]:
    """Yield what an event from the stream adds, as the database would count it."""
    if not question.wanted.matches(event):
        return
    group = question.grouping.of(event) if question.grouping else None
    if group is not None and group not in groups:
        group = OTHER
    units = (event.cursor.event_at - question.origin) // question.unit
    if question.by_row:
        for item in event.deductions:
            yield Sum(units, event.call.feature_id, group, item.row_id, item.delta_nanos or 0, 1)
    else:
        yield Sum(units, event.call.feature_id, group, None, event.call.value_nanos or 0, 1)


def select_top_groups(question: Question, *, by_count: bool, limit: int, dialect: str) -> Select[Any]:
    """Return the statement for the groups with most usage: the largest sum of values, or the most events."""
    assert question.grouping is not None
    group = _group_column(question.grouping, dialect)
    high, low, nano = _parts(_items.value_whole, _items.value_nano)
    size = [func.count()] if by_count else [high * _HIGH + low + nano // NANOS, nano % NANOS]
    return (
        select(group.label("grp"))
        .where(*conditions_of(question.wanted, dialect), group != "")
        .group_by(literal_column("grp"))
        .order_by(*(part.desc() for part in size), literal_column("grp"))
        .limit(limit)
    )


def select_sums(question: Question, groups: Collection[str], dialect: str) -> Select[Any]:
    """Return the statement for the sums. Of a grouping, these groups stand apart and the others together."""
    names = [literal_column(name, Text()) for name in ("units", "feature", "grp", "taken_row")]
    amount = (_items.value_whole, _items.value_nano)
    row_id: ColumnElement[Any] = null()
    source: FromClause = journal_items
    if question.by_row:
        amount, row_id = (_deductions.c.delta_whole, _deductions.c.delta_nano), _deductions.c.row_id
        source = journal_items.join(_deductions, _is_deduction())
    return (
        select(
            ((_items.event_at - question.origin) // question.unit).label("units"),
            _items.feature_id.label("feature"),
            _group(question.grouping, groups, dialect).label("grp"),
            row_id.label("taken_row"),
            *_parts(*amount),
            func.count().label("events"),
        )
        .select_from(source)
        .where(*conditions_of(question.wanted, dialect))
        .group_by(*names)
    )


def sum_of(row: Row[Any]) -> Sum:
    """Return the sum in a row of `select_sums`; PostgreSQL sums integers as decimals."""
    whole = int(row.high) * _HIGH + int(row.low)
    return Sum(row.units, row.feature, row.grp, row.taken_row, whole * NANOS + int(row.nano), row.events)


def _parts(whole: ColumnElement[int], nano: ColumnElement[int]) -> Sequence[ColumnElement[int]]:
    """Return the three sums of an amount. Both databases divide towards zero, and a rest has the sign of the whole."""
    return (
        func.sum(whole // _HIGH).label("high"),
        func.sum(whole % _HIGH).label("low"),
        func.sum(nano).label("nano"),
    )


def _group(grouping: Grouping | None, groups: Collection[str], dialect: str) -> ColumnElement[Any]:
    if grouping is None:
        return null()
    column = _group_column(grouping, dialect)
    return case((column.in_(groups), column), (column != "", OTHER), else_=null())


def _group_column(grouping: Grouping, dialect: str) -> ColumnElement[Any]:
    match grouping.by:
        case GroupBy.PROPERTY:
            return property_column(grouping.path, dialect)
        case GroupBy.CUSTOMER:
            return _items.customer_id
        case GroupBy.ENTITY:
            return _items.entity_id


def _is_deduction() -> ColumnElement[bool]:
    """What `events.events_of` takes for the deductions of an event: its item, and those up to the next call."""
    next_call = (
        select(func.coalesce(func.min(_calls.c.item), BEYOND_ALL_ITEMS))
        .where(_in_entry(_calls), _calls.c.item > _items.item, _calls.c.verb.is_not(None))
        .correlate(journal_items)
        .scalar_subquery()
    )
    return and_(
        _in_entry(_deductions),
        _deductions.c.item >= _items.item,
        _deductions.c.item < next_call,  # a bound for the index: an entry may hold many calls
        _deductions.c.row_id.is_not(None),
    )


def _in_entry(items: FromClause) -> ColumnElement[bool]:
    return and_(
        items.c.partition == _items.partition,
        items.c.stream_ms == _items.stream_ms,
        items.c.stream_counter == _items.stream_counter,
    )
