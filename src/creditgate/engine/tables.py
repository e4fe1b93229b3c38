"""Sums of usage put in order: for each bin, feature and group what was used, and what was taken from which balance."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from creditgate.core.amounts import NANOS
from creditgate.core.bins import Bins
from creditgate.core.catalog import Catalog, FeatureType
from creditgate.core.customers import Row
from creditgate.ledger.aggregates import OTHER, Sum

Values = dict[str, int]
"""Nanos by name: of a feature or a group. What was counted is nanos, too: a count of one is NANOS."""


class UsageBin(NamedTuple):
    """The usage of one bin by feature, and by feature and group if it was told apart; nothing used is 0."""

    start: int
    values: Values
    groups: dict[str, Values] | None


class UsageTotal(NamedTuple):
    nanos: int
    events: int


class Share(NamedTuple):
    """What one group took; `cost_nanos` is the credit cost of its feature, if groups are features."""

    nanos: int
    cost_nanos: int | None


class Taken(NamedTuple):
    """What was taken from one row in one bin; `cost_nanos` is the credit cost where one feature took it all."""

    start: int
    row: Row
    is_credit: bool
    cost_nanos: int | None
    nanos: int
    events: int
    groups: dict[str, Share]


def largest(sums: Iterable[Sum], most: int, *, counts: bool) -> frozenset[str]:
    """Return the groups with most usage, `most` of them at most; what is left over is no group."""
    sizes: Counter[str] = Counter()
    for one in sums:
        if one.group is not None and one.group != OTHER:
            sizes[one.group] += _amount(one, counts=counts)
    return frozenset(sorted(sizes, key=lambda group: (-sizes[group], group))[:most])


def usage_table(
    sums: Sequence[Sum],
    bins: Bins,
    feature_ids: Sequence[str],
    groups: Collection[str] | None,
    *,
    now: int,
    counts: bool,
) -> tuple[UsageBin, ...]:
    """Return every bin up to now, or to the last with usage; these groups told apart if there are any."""
    cells: Counter[tuple[int, str, str | None]] = Counter()
    for one in sums:
        index, amount = bins.index(one.units), _amount(one, counts=counts)
        cells[index, one.feature_id, None] += amount
        if groups is not None and one.group is not None:
            cells[index, one.feature_id, _shown(one.group, groups)] += amount
    names = _in_order({group for _, _, group in cells if group is not None})
    last = max([bisect_right(bins.starts, now) - 1, *(index for index, _, _ in cells)])
    return tuple(
        UsageBin(
            start,
            {name: cells[index, name, None] for name in feature_ids},
            None
            if groups is None
            else {name: {group: cells[index, name, group] for group in names} for name in feature_ids},
        )
        for index, start in enumerate(bins.starts[: last + 1])
    )


def totals(sums: Iterable[Sum], feature_ids: Sequence[str]) -> dict[str, UsageTotal]:
    """Return what all bins together have of each feature."""
    found = {name: UsageTotal(0, 0) for name in feature_ids}
    for one in sums:
        before = found[one.feature_id]
        found[one.feature_id] = UsageTotal(before.nanos + one.nanos, before.events + one.events)
    return found


def taken_table(
    sums: Iterable[Sum],
    bins: Bins,
    rows: Mapping[str, Row],
    catalog: Catalog,
    feature_ids: Sequence[str],
    groups: Collection[str],
    *,
    by_source: bool,
) -> tuple[Taken, ...]:
    """Return what was taken from each row in each bin that took something, the oldest bin first.

    Told apart by group, or by the feature that was used. Limits of usage are counted like rows and are none.
    """
    cells: dict[tuple[int, str], list[Sum]] = {}
    for one in sums:
        if one.row_id is not None and one.row_id in rows:
            cells.setdefault((bins.index(one.units), one.row_id), []).append(one)
    source = feature_ids[0] if len(feature_ids) == 1 else None
    return tuple(
        _taken(bins.starts[index], rows[row_id], parts, catalog, source, groups, by_source=by_source)
        for (index, row_id), parts in sorted(cells.items())
    )


def _taken(
    start: int,
    row: Row,
    sums: Sequence[Sum],
    catalog: Catalog,
    source: str | None,
    groups: Collection[str],
    *,
    by_source: bool,
) -> Taken:
    shares: Counter[str] = Counter()
    for one in sums:
        group = one.feature_id if by_source else one.group
        if group is not None:
            shares[group if by_source else _shown(group, groups)] -= one.nanos
    owner = catalog.features.get(row.feature_id)
    return Taken(
        start=start,
        row=row,
        is_credit=owner is not None and owner.type is FeatureType.CREDIT_SYSTEM,
        cost_nanos=_cost(catalog, source, row),
        nanos=0 - sum(one.nanos for one in sums),
        events=sum(one.events for one in sums),
        groups={
            group: Share(shares[group], _cost(catalog, group, row) if by_source else None)
            for group in _in_order(shares)
        },
    )


def _cost(catalog: Catalog, source: str | None, row: Row) -> int | None:
    """Return what a unit of the feature costs from this row today; None where it is the row's own feature."""
    if source is None or source not in catalog.features or source == row.feature_id:
        return None
    costs = {pool.feature_id: pool.cost_nanos for pool in catalog.pools(source)}
    return costs.get(row.feature_id)


def _amount(one: Sum, *, counts: bool) -> int:
    return one.events * NANOS if counts else one.nanos


def _shown(group: str, groups: Collection[str]) -> str:
    return group if group in groups else OTHER


def _in_order(groups: Iterable[str]) -> list[str]:
    return sorted(groups, key=lambda group: (group == OTHER, group))
