"""Short forms for the values that the core tests are made of."""

from collections.abc import Mapping
from decimal import Decimal

from msgspec.structs import replace

from creditgate.core.catalog import (
    Catalog,
    CatalogDocument,
    CreditCost,
    Feature,
    FeatureType,
    Interval,
    ItemPrice,
    Plan,
    PlanItem,
    PlanPrice,
    Recurrence,
)
from creditgate.core.catalog_edits import with_feature, with_plan
from creditgate.core.changes import Change, in_period_at
from creditgate.core.customers import Customer, Record, Row, Terms

NOW = 1_767_225_600_000
"""2026-01-01T00:00:00Z"""
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

ONE_OFF = Recurrence(Interval.ONE_OFF)
DAY = Recurrence(Interval.DAY)
MONTH = Recurrence(Interval.MONTH)
YEAR = Recurrence(Interval.YEAR)


def nanos(text: str) -> int:
    """The exact amount of a decimal number."""
    return int(Decimal(text).scaleb(9))


def feature(feature_id: str, *, consumable: bool = True, **more: object) -> Feature:
    """A metered feature."""
    return Feature(feature_id, feature_id, FeatureType.METERED, consumable, **more)  # type: ignore[arg-type]


def boolean(feature_id: str) -> Feature:
    """An on/off feature."""
    return Feature(feature_id, feature_id, FeatureType.BOOLEAN, consumable=False)


def system(feature_id: str, **costs: str) -> Feature:
    """A credit system that prices these features."""
    schema = tuple(CreditCost(member, nanos(cost)) for member, cost in costs.items())
    return Feature(feature_id, feature_id, FeatureType.CREDIT_SYSTEM, consumable=True, credit_schema=schema)


def item(
    feature_id: str,
    included: str = "0",
    *,
    reset: Recurrence | None = None,
    price: str | None = None,
    every: Recurrence = ONE_OFF,
    pack: str = "1",
) -> PlanItem:
    """A plan's item; with a price, packs of it can be bought."""
    sold = ItemPrice(nanos(price), every, nanos(pack)) if price is not None else None
    return PlanItem(feature_id, nanos(included), reset, sold)


def plan(
    plan_id: str, *items: PlanItem, price: str | None = None, every: Recurrence = MONTH, **more: object
) -> Plan:
    """A plan; free unless it has a price."""
    priced = PlanPrice(nanos(price), every) if price is not None else None
    return Plan(plan_id, plan_id.title(), NOW, price=priced, items=items, **more)  # type: ignore[arg-type]


def catalog(*words: Feature | Plan) -> Catalog:
    """A catalog of these features and plans, added in this order."""
    made = Catalog(0, CatalogDocument())
    for word in words:
        document = with_feature(made, word) if isinstance(word, Feature) else with_plan(made, word)
        made = Catalog(made.version + 1, document)
    return made


def row(row_id: str, granted: str = "1", *, feature_id: str = "messages", **more: object) -> Row:
    """A row that was created now; in its first period if it resets."""
    values = {"created_at": NOW, "anchor": NOW, **more}
    return in_period_at(Row(row_id, feature_id, included_nanos=nanos(granted), **values), NOW)  # type: ignore[arg-type]


def record(
    *rows: Row,
    balances: Mapping[str, str] | None = None,
    customer: Customer | None = None,
    now: int = NOW,
    **more: object,
) -> Record:
    """A record that holds these rows, full unless a balance is named."""
    named = {row_id: nanos(balance) for row_id, balance in (balances or {}).items()}
    return Record(
        now=now,
        sequence=1,
        shape=1,
        uid="uid",
        clock=None,
        is_due=False,
        customer=customer or Customer("ann", NOW),
        terms=Terms(rows, **more),  # type: ignore[arg-type]
        balances={r.id: r.granted_nanos for r in rows} | named,
    )


class Mint:
    """Ids that can be foretold: sub_1, bal_2, bal_3."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}_{self.count}"


def applied(before: Record, change: Change, *, now: int) -> Record:
    """The record after a change, seen at a later instant: what the script writes, in short."""
    balances = dict(before.balances)
    for step in change.steps:
        assert step.action == "roll_in" or (step.action == "open") == (step.row_id not in balances)
        assert step.action != "drop" or balances[step.row_id] == 0
        left = step.on(balances.pop(step.row_id, 0))
        if left is not None:
            balances[step.row_id] = left
    after = replace(
        before,
        now=now,
        sequence=before.sequence + 1,
        shape=before.shape + 1,
        customer=change.customer or before.customer,
        terms=change.terms if change.terms is not None else before.terms,
        balances=balances,
    )
    assert after.terms.held_ids == after.balances.keys()
    return after
