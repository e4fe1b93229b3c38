"""Usage events on the wire: their list, and what they add up to."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from creditgate.api.wire.answers import DeductionAnswer, deduction_answer
from creditgate.api.wire.fields import Request
from creditgate.api.wire.numbers import INSTANT_MAX, WHOLE_MAX, number, whole
from creditgate.api.wire.requests import LIMIT_MAX, time_zone
from creditgate.core.bins import BinSize, Range, Span
from creditgate.core.ids import check_caller_id
from creditgate.engine.aggregates import FEATURES_MAX, GROUPS, GROUPS_MAX, Aggregate, Asked
from creditgate.engine.history import Event, EventPage
from creditgate.engine.tables import Share, Taken, UsageBin
from creditgate.errors import InvalidInputs, InvalidRequest
from creditgate.ledger.aggregates import GroupBy, Grouping

FILTERS_MAX = 5
PATH_CHARACTERS_MAX = 256

PATH = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
_PROPERTIES = "properties."
_GROUPS = {
    "$customer_id": Grouping(GroupBy.CUSTOMER),
    "$entity_id": Grouping(GroupBy.ENTITY),
    "$feature_id": None,  # of deductions only
}


class CustomRange(Request, frozen=True):
    """start <= time < end, in Unix ms."""

    start: float | None = None
    end: float | None = None

    def bounds(self) -> tuple[int | None, int | None]:
        """Any number will do as a bound of a list, Number.MAX_SAFE_INTEGER too."""
        return _bound(self.start, "start", least=-WHOLE_MAX), _bound(self.end, "end", most=WHOLE_MAX)


class EventsRequest(Request, frozen=True):
    """Which events are meant."""

    customer_id: str | None = None
    filter_by: dict[str, str] | None = None
    entity_id: str | None = None

    def __post_init__(self) -> None:
        if self.customer_id is not None:
            check_caller_id(self.customer_id, field="customer_id")
        if self.entity_id is not None:
            check_caller_id(self.entity_id, field="entity_id")

    def properties(self) -> tuple[tuple[str, str], ...]:
        wanted = self.filter_by or {}
        if any("\x00" in text for text in wanted.values()):
            raise InvalidInputs("filter_by: must not contain NUL")
        if len(wanted) > FILTERS_MAX:
            raise InvalidInputs(f"filter_by: must have at most {FILTERS_MAX} properties")
        return tuple((_path(name, "filter_by"), text) for name, text in wanted.items())


class ListEventsRequest(EventsRequest, frozen=True):
    """`events.list`."""

    start_cursor: str = ""
    limit: float = 50
    feature_id: str | tuple[str, ...] = ()
    custom_range: CustomRange = CustomRange()
    range: Range | None = None

    def rows(self) -> int:
        return whole(self.limit, field="limit", least=1, most=LIMIT_MAX)

    def feature_ids(self) -> tuple[str, ...]:
        return _names(self.feature_id)

    def bounds(self) -> tuple[int | None, int | None]:
        """Return the custom range; InvalidInputs beside another one."""
        bounds = self.custom_range.bounds()
        if self.range is not None and bounds != (None, None):
            raise _two_ranges()
        return bounds


class AggregateEventsRequest(EventsRequest, frozen=True, kw_only=True):
    """`events.aggregate`. Without a range, it is the customer's current cycle."""

    feature_id: str | tuple[str, ...]
    custom_range: CustomRange | None = None
    range: Range | None = None
    bin_size: BinSize | None = None
    timezone: str | None = None
    group_by: str | None = None
    max_groups: float = GROUPS
    measure: Literal["sum", "count"] = "sum"
    aggregate_on: Literal["deducted"] | None = None

    def asked(self) -> Asked:
        """Return what is asked for; InvalidInputs or InvalidRequest for what makes no sense."""
        if self.aggregate_on and self.customer_id is None:
            raise InvalidRequest("customer_id is required when aggregate_on is set")
        smallest = BinSize.HOUR if self.range is Range.DAY else BinSize.DAY
        return Asked(
            feature_ids=self._feature_ids(),
            customer_id=self.customer_id,
            entity_id=self.entity_id,
            properties=self.properties(),
            range=self.range or Range.CYCLE,
            span=self._span(),
            size=self.bin_size or smallest,
            zone=time_zone(self.timezone, field="timezone"),
            grouping=self._grouping(),
            groups_max=whole(self.max_groups, field="max_groups", least=1, most=GROUPS_MAX),
            counts=self.measure == "count",
            deductions=self.aggregate_on is not None,
            by_source=self.group_by == "$feature_id",
        )

    def _feature_ids(self) -> tuple[str, ...]:
        names = _names(self.feature_id)
        if not names:
            raise InvalidInputs("feature_id: cannot be empty")
        if len(names) > FEATURES_MAX:
            raise InvalidInputs(f"feature_id: must be at most {FEATURES_MAX}")
        return tuple(dict.fromkeys(names))

    def _span(self) -> Span | None:
        if self.custom_range is None:
            return None
        if self.range is not None:
            raise _two_ranges()
        start = _bound(self.custom_range.start, "start", least=0, most=INSTANT_MAX)
        end = _bound(self.custom_range.end, "end", least=0, most=INSTANT_MAX)
        if start is None or end is None or start >= end:
            raise InvalidInputs("custom_range: must have a start before its end")
        return Span(start, end)

    def _grouping(self) -> Grouping | None:
        name = self.group_by
        if name is None:
            return None
        if name.startswith(_PROPERTIES):
            return Grouping(GroupBy.PROPERTY, _path(name.removeprefix(_PROPERTIES), "group_by"))
        if name == "$plan_id":
            raise InvalidRequest("group_by $plan_id is not supported yet; see aggregate_on for plans")
        if name not in _GROUPS:
            raise InvalidInputs(f"group_by: must be properties.<name> or one of: {', '.join(_GROUPS)}")
        if name == "$feature_id" and self.aggregate_on is None:
            raise InvalidInputs('group_by: "$feature_id" requires aggregate_on to be "deducted"')
        return _GROUPS[name]


class EventAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One usage event."""

    id: str
    timestamp: int
    feature_id: str
    customer_id: str
    value: Raw
    properties: Raw
    deductions: tuple[DeductionAnswer, ...]


class EventsAnswer(msgspec.Struct, frozen=True):
    """`events.list`."""

    list: tuple[EventAnswer, ...]
    next_cursor: str | None
    history_from: int | UnsetType = UNSET


class UsageBinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of one bin by feature, and of each feature by group. `period` is when the bin begins."""

    period: int
    values: dict[str, Raw]
    grouped_values: dict[str, dict[str, Raw]] | UnsetType = UNSET


class TotalAnswer(msgspec.Struct, frozen=True):
    """The usage of one feature in all bins together."""

    count: int
    sum: Raw


class LastResetAnswer(msgspec.Struct, frozen=True):
    """How often a balance starts again, and when it does next, or did last."""

    interval: str
    resets_at: int | None


class BalanceUsageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken from one balance. `credit_cost` is today's, and there where one feature took it all."""

    balance_id: str
    entity_id: str | None = None
    plan_id: str | None
    reset: LastResetAnswer | None
    credit_cost: Raw | None
    deducted: Raw
    events: int


class FeatureUsageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken from all balances of a feature."""

    feature_type: str
    deducted: Raw
    events: int
    balances: tuple[BalanceUsageAnswer, ...]


class ShareAnswer(msgspec.Struct, frozen=True):
    """What one group took from a balance."""

    deducted: Raw
    credit_cost: Raw | UnsetType = UNSET


class DeductionBinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken in one bin: by the feature of the balance, and of each balance by group."""

    period: int
    values: dict[str, FeatureUsageAnswer]
    grouped_values: dict[str, dict[str, ShareAnswer]] | UnsetType = UNSET


class AggregateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`events.aggregate`."""

    list: tuple[UsageBinAnswer, ...]
    total: dict[str, TotalAnswer]
    deductions: tuple[DeductionBinAnswer, ...] | UnsetType = UNSET
    history_from: int | UnsetType = UNSET


def events_answer(page: EventPage) -> EventsAnswer:
    events = tuple(_event_answer(event) for event in page.events)
    return EventsAnswer(events, page.next_cursor, page.begins_at or UNSET)


def aggregate_answer(found: Aggregate, *, is_grouped: bool) -> AggregateAnswer:
    """`is_grouped`: deductions are told apart, too."""
    return AggregateAnswer(
        list=tuple(map(_bin_answer, found.bins)),
        total={name: TotalAnswer(total.events, number(total.nanos)) for name, total in found.totals.items()},
        deductions=UNSET if found.taken is None else _deductions(found.taken, is_grouped=is_grouped),
        history_from=found.begins_at or UNSET,
    )


def _event_answer(event: Event) -> EventAnswer:
    return EventAnswer(
        id=event.id,
        timestamp=event.timestamp,
        feature_id=event.feature_id,
        customer_id=event.customer_id,
        value=number(event.value_nanos),
        properties=Raw(event.properties.encode("utf-8")),
        deductions=tuple(deduction_answer(row, taken_nanos) for row, taken_nanos in event.deductions),
    )


def _bin_answer(found: UsageBin) -> UsageBinAnswer:
    return UsageBinAnswer(
        period=found.start,
        values=_numbers(found.values),
        grouped_values=UNSET
        if found.groups is None
        else {name: _numbers(values) for name, values in found.groups.items()},
    )


def _numbers(values: dict[str, int]) -> dict[str, Raw]:
    return {name: number(nanos) for name, nanos in values.items()}


def _deductions(taken: Iterable[Taken], *, is_grouped: bool) -> tuple[DeductionBinAnswer, ...]:
    bins: dict[int, list[Taken]] = defaultdict(list)
    for one in taken:
        bins[one.start].append(one)
    return tuple(
        DeductionBinAnswer(
            period=start,
            values=_by_feature(parts),
            grouped_values={part.row.public_id: _shares(part.groups) for part in parts}
            if is_grouped
            else UNSET,
        )
        for start, parts in bins.items()
    )


def _by_feature(taken: Iterable[Taken]) -> dict[str, FeatureUsageAnswer]:
    features: dict[str, list[Taken]] = defaultdict(list)
    for one in taken:
        features[one.row.feature_id].append(one)
    return {
        name: FeatureUsageAnswer(
            feature_type="credit_system" if parts[0].is_credit else "metered",
            deducted=number(sum(part.nanos for part in parts)),
            events=sum(part.events for part in parts),
            balances=tuple(map(_balance_usage, parts)),
        )
        for name, parts in features.items()
    }


def _balance_usage(taken: Taken) -> BalanceUsageAnswer:
    row = taken.row
    return BalanceUsageAnswer(
        balance_id=row.public_id,
        plan_id=row.plan_id,
        reset=LastResetAnswer(row.reset.interval, row.resets_at) if row.reset else None,
        credit_cost=number(taken.cost_nanos) if taken.cost_nanos is not None else None,
        deducted=number(taken.nanos),
        events=taken.events,
    )


def _shares(groups: dict[str, Share]) -> dict[str, ShareAnswer]:
    return {
        name: ShareAnswer(
            number(share.nanos), number(share.cost_nanos) if share.cost_nanos is not None else UNSET
        )
        for name, share in groups.items()
    }


def _names(said: str | tuple[str, ...]) -> tuple[str, ...]:
    names = (said,) if isinstance(said, str) else said
    return tuple(check_caller_id(name, field="feature_id") for name in names)


def _bound(value: float | None, name: str, *, least: int = -WHOLE_MAX, most: int = WHOLE_MAX) -> int | None:
    return None if value is None else whole(value, field=f"custom_range.{name}", least=least, most=most)


def _path(name: str, field: str) -> str:
    if re.fullmatch(PATH, name) is None or len(name) > PATH_CHARACTERS_MAX:
        raise InvalidInputs(
            f"{field}: the path of a property has only letters, numbers, underscores, hyphens and dots"
        )
    return name


def _two_ranges() -> InvalidInputs:
    return InvalidInputs("custom_range: only one of range or custom_range may be provided")
