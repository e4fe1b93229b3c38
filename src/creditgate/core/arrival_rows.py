"""The balances of a customer who comes from another system: the rows that they become, and the steps to them."""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from creditgate.core.arrivals import Lot, Taken, not_here
from creditgate.core.catalog import Catalog, Feature, FeatureType, Interval, Recurrence
from creditgate.core.changes import Step, on_its_own, renewed
from creditgate.core.customers import Record, Row
from creditgate.core.periods import boundary, period_at
from creditgate.core.plans import Mint


class RowsTaken:
    """The rows that the customer then has, and the steps that lead there from what is here."""

    def __init__(
        self,
        record: Record | None,
        catalog: Catalog,
        taken: Taken,
        now: int,
        mint: Mint,
        lacks: list[str],
    ) -> None:
        self.rows: list[Row] = []
        self.steps: list[Step] = []
        self._lacks = lacks
        self._catalog = catalog
        self._taken = taken
        self._now = now
        self._mint = mint
        self._here = list(record.terms.rows) if record else []
        self._balances: Mapping[str, int] = record.balances if record else {}
        self._count: Counter[tuple[str | None, str]] = Counter()

    def take(self, lots: Iterable[Lot]) -> None:
        """Take every balance of a feature that is here; close what was taken before and is gone at the source."""
        for lot in lots:
            feature = self._catalog.features.get(lot.feature_id)
            if feature is None or feature.type is FeatureType.BOOLEAN:
                self._lacks.append(not_here(lot.feature_id, feature))
            elif lot.expires_at is None or lot.expires_at > self._now:
                self._take(lot, feature)
        imported = {row.id for row in self.rows}
        for row in self._here:
            self._keep_or_close(row, imported)

    def _take(self, lot: Lot, feature: Feature) -> None:
        owner_id = self._owner_of(lot)
        before = self._same_as(lot, owner_id)
        if before is not None:
            self._here.remove(before)
        row = self._row(lot, feature, before, owner_id)
        base = next(
            (r for r in self.rows if r.feature_id == lot.feature_id and r.resets_at is not None), None
        )
        if lot.rolled and base is not None:
            row = replace(row, reset=None, rolled_from=base.id, plan_id=base.plan_id, owner_id=base.owner_id)
        left_nanos = lot.left_nanos
        if row.resets_at is not None and row.resets_at <= self._now:  # it starts again, as it would there
            row, left_nanos = renewed(row, self._now), row.start_nanos
        self.rows.append(_numbered(row, before) if before else row)
        balance_nanos = self._balances.get(row.id)
        if balance_nanos is None:
            self.steps.append(Step("open", row.id, row.granted_nanos))
            balance_nanos = row.granted_nanos
        if balance_nanos != left_nanos:
            self.steps.append(Step("correct", row.id, left_nanos))

    def _keep_or_close(self, row: Row, imported: set[str]) -> None:
        """What rolled over here of a balance that the source decides about, the source has too."""
        is_gone = row.owner_id in self._taken.closed
        if row.imported or row.rolled_from in imported or (is_gone and not row.is_bought_for_good):
            self.steps.append(Step("close", row.id))
        else:
            self.rows.append(on_its_own(row) if is_gone else row)

    def _owner_of(self, lot: Lot) -> str | None:
        """Return who gave it: of several purchases of a plan, the one that comes as far down the list."""
        owners = self._taken.owners.get(lot.plan_id or "")
        if not owners:
            return None
        number = self._count[lot.plan_id, lot.feature_id]
        self._count[lot.plan_id, lot.feature_id] += 1
        return owners[min(number, len(owners) - 1)]

    def _same_as(self, lot: Lot, owner_id: str | None) -> Row | None:
        """Return the row here that is this balance: by its name, else what the same plan gave here of the feature."""
        by_name = (row for row in self._here if row.public_id == lot.id)
        by_owner = (
            row
            for row in self._here
            if owner_id is not None
            and (row.owner_id, row.feature_id) == (owner_id, lot.feature_id)
            and row.rolled_from is None
            and row.entity_id is None
            and not row.imported
        )
        return next(by_name, None) or next(by_owner, None)

    def _row(self, lot: Lot, feature: Feature, before: Row | None, owner_id: str | None) -> Row:
        plan = self._catalog.plan(lot.plan_id or "") if owner_id else None
        items = [i for i in plan.items if i.key == (feature.id, None)] if plan else []
        item = next(iter(items), None)
        is_paid_later = lot.price is not None and lot.price.billing_method == "usage_based"
        is_used_up = feature.consumable and not lot.unlimited
        row = Row(
            id=before.id if before else self._mint("bal"),
            external_id=lot.id,
            feature_id=feature.id,
            created_at=before.created_at if before else self._now,
            included_nanos=lot.included_nanos,
            prepaid_nanos=lot.prepaid_nanos,
            plan_id=plan.id if plan else None,
            owner_id=owner_id,
            reset=(lot.reset or Recurrence(Interval.ONE_OFF)) if is_used_up else None,
            expires_at=lot.expires_at,
            price=lot.price,
            add_on=plan is not None and plan.add_on,
            may_go_negative=is_paid_later or (not feature.consumable and lot.price is None),
            unlimited=lot.unlimited,
            rollover=item.rollover if item else None,
            zone=self._taken.customer.time_zone,
            imported=True,
        )
        if row.reset is None or not row.reset.repeats or lot.resets_at is None:
            return row
        customer = self._taken.customer
        started = (s.started_at for s in customer.subscriptions if s.id == owner_id)
        anchors = (*((before.anchor,) if before else ()), *started, customer.created_at)
        anchor, period = _period_that_ends(lot.resets_at, row.reset, anchors, row.zone)
        return replace(row, anchor=anchor, period=period, resets_at=lot.resets_at)


def _numbered(row: Row, before: Row) -> Row:
    """Return the row with a number of its period that scripts have not seen yet, unless it is the same or a later."""
    goes_on = row.anchor == before.anchor and row.period >= before.period
    offset = before.period_offset if goes_on else before.period_offset + before.period + 1 - row.period
    return replace(row, period_offset=offset)


def _period_that_ends(
    instant: int, reset: Recurrence, anchors: Iterable[int | None], zone: str
) -> tuple[int, int]:
    """Return an anchor and the number of its period that ends then: the first that fits, else the instant itself.

    So an anchor on the 31st is found again, though a period of it may end on the 28th.
    """
    for anchor in anchors:
        if anchor is not None and anchor <= instant:
            number = period_at(anchor, reset, instant, zone)
            if boundary(anchor, reset, number, zone) == instant:
                return anchor, number - 1
    return instant, -1
