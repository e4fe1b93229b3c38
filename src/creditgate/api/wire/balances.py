"""Setting, deleting and listing balances on the wire."""

import msgspec
from msgspec import Raw

from creditgate.api.wire.answers import (
    ResetAnswer,
    RolloverAnswer,
    RowPriceAnswer,
    rollover_answer,
    row_answer,
)
from creditgate.api.wire.fields import ABSENT, NotYet
from creditgate.api.wire.numbers import amount, instant, kept, whole
from creditgate.api.wire.requests import LIMIT_MAX, HolderRequest, position
from creditgate.core.catalog import Interval
from creditgate.core.customers import Record, Row
from creditgate.core.updates import BalanceFilter, BalanceUpdate
from creditgate.errors import InvalidInputs


class UpdateBalanceRequest(HolderRequest, frozen=True, kw_only=True):
    """`balances.update`. Several rows of the feature are set as one; `balance_id` and `interval` choose among them."""

    feature_id: str
    remaining: Raw = ABSENT
    current_balance: Raw = ABSENT
    add_to_balance: Raw = ABSENT
    usage: Raw = ABSENT
    included_grant: Raw = ABSENT
    balance_id: str | None = None
    interval: Interval | None = None
    next_reset_at: float | None = None
    expires_at: float | None = None

    def wanted(self) -> BalanceFilter:
        return BalanceFilter(
            self.customer_id, self.feature_id, self.balance_id, self.interval, self.entity_id
        )

    def update(self) -> BalanceUpdate:
        """Return what is to be different; InvalidInputs if nothing is, or if two parts contradict each other."""
        remaining = self.remaining if _is_said(self.remaining) else self.current_balance
        named = {"remaining": remaining, "usage": self.usage, "add_to_balance": self.add_to_balance}
        said = [name for name, token in named.items() if _is_said(token)]
        if len(said) > 1:
            raise InvalidInputs(f"input: {said[0]} and {said[1]} exclude each other")
        update = BalanceUpdate(
            remaining_nanos=kept(remaining, field="remaining") if "remaining" in said else None,
            usage_nanos=amount(self.usage, field="usage", default=0) if "usage" in said else None,
            add_nanos=amount(self.add_to_balance, field="add_to_balance", default=0)
            if "add_to_balance" in said
            else None,
            included_nanos=kept(self.included_grant, field="included_grant")
            if _is_said(self.included_grant)
            else None,
            next_reset_at=instant(self.next_reset_at, field="next_reset_at"),
            expires_at=instant(self.expires_at, field="expires_at"),
        )
        if update == BalanceUpdate():
            raise InvalidInputs("input: Must provide what is to be updated")
        return update


class DeleteBalanceRequest(HolderRequest, frozen=True):
    """`balances.delete`: balances that stand alone, not those of a plan."""

    feature_id: str | None = None
    balance_id: str | None = None
    interval: Interval | None = None
    recalculate_balances: NotYet | None = None

    def wanted(self) -> BalanceFilter:
        if self.feature_id is None and self.balance_id is None:
            raise InvalidInputs("input: Must provide feature_id or balance_id")
        return BalanceFilter(
            self.customer_id, self.feature_id, self.balance_id, self.interval, self.entity_id
        )


class ListBalancesRequest(HolderRequest, frozen=True):
    """`balances.list`: the balances of one customer, in the order in which they give."""

    feature_id: str | None = None
    plan_id: str | None = None
    limit: float = 50
    start_cursor: str = ""
    statuses: tuple[str, ...] = ("active",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.statuses) <= {"active", "expired"}:
            raise InvalidInputs("statuses: must be one of: active, expired")

    def rows(self) -> int:
        return whole(self.limit, field="limit", least=1, most=LIMIT_MAX)

    def first(self) -> int:
        """The position that the cursor stands for."""
        return position(self.start_cursor)


class ListedBalance(msgspec.Struct, frozen=True, kw_only=True):
    """One balance with whose it is."""

    id: str
    customer_id: str
    entity_id: str | None = None
    feature_id: str
    plan_id: str | None
    status: str = "active"
    created_at: int
    included_grant: Raw
    prepaid_grant: Raw
    remaining: Raw
    usage: Raw
    unlimited: bool
    reset: ResetAnswer | None
    price: RowPriceAnswer | None
    expires_at: int | None
    rollovers: tuple[RolloverAnswer, ...]
    source: str = "customer"


class BalanceList(msgspec.Struct, frozen=True, kw_only=True):
    """`balances.list`."""

    list: tuple[ListedBalance, ...]
    has_more: bool
    next_cursor: str | None


def balance_list(record: Record, request: ListBalancesRequest) -> BalanceList:
    """Return one page. A balance that expired is gone, so only active ones are found."""
    found = [
        row
        for row in record.terms.rows
        if "active" in request.statuses
        and row.rolled_from is None
        and request.feature_id in (None, row.feature_id)
        and request.plan_id in (None, row.plan_id)
        and request.entity_id in (None, row.entity_id)
    ]
    end = request.first() + request.rows()
    page = found[request.first() : end]
    has_more = end < len(found)
    return BalanceList(
        list=tuple(_listed(row, record) for row in page),
        has_more=has_more,
        next_cursor=str(end) if has_more else None,
    )


def _listed(row: Row, record: Record) -> ListedBalance:
    shown = row_answer(row, record.balances[row.id])
    rollovers = (kept for kept in record.terms.rows if kept.rolled_from == row.id)
    return ListedBalance(
        id=shown.id,
        customer_id=record.customer.id,
        entity_id=row.entity_id,
        source="customer" if row.entity_id is None else "entity",
        feature_id=row.feature_id,
        plan_id=row.plan_id,
        created_at=row.created_at,
        included_grant=shown.included_grant,
        prepaid_grant=shown.prepaid_grant,
        remaining=shown.remaining,
        usage=shown.usage,
        unlimited=shown.unlimited,
        reset=shown.reset,
        price=shown.price,
        expires_at=shown.expires_at,
        rollovers=tuple(rollover_answer(kept, record.balances[kept.id]) for kept in rollovers),
    )


def _is_said(token: Raw) -> bool:
    return bytes(token) not in (b"", b"null")
