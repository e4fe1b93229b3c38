"""What is answered about balances: the exact keys, in their order, of the Autumn API.

A key that is required and empty is null; an optional one that does not apply is not there (`UNSET`). Everything here is
a function of a decision, so that any server can call it.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import neg
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from creditgate.api.wire.features import FeatureAnswer
from creditgate.api.wire.forms import HOLE, Form
from creditgate.api.wire.holds import LockAnswer, lock_answer
from creditgate.api.wire.numbers import number
from creditgate.api.wire.plans import interval_count
from creditgate.core.catalog import Interval, ItemPrice, Pool
from creditgate.core.customers import Flag, Row
from creditgate.core.decisions import Balance, Decision, Standing

encode = msgspec.json.Encoder().encode


class ResetAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """When a row starts again."""

    interval: Interval
    interval_count: int | UnsetType = UNSET
    resets_at: int | None


class RowPriceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the prepaid part of a row cost."""

    amount: Raw
    billing_units: Raw
    billing_method: str
    max_purchase: Raw | None


class RowAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a breakdown. `remaining` counts from zero up; `usage` is exact and so may exceed the grant."""

    id: str
    plan_id: str | None
    included_grant: Raw
    prepaid_grant: Raw
    remaining: Raw
    usage: Raw
    unlimited: bool = False
    reset: ResetAnswer | None
    price: RowPriceAnswer | None
    expires_at: int | None
    source: str | UnsetType = UNSET


NEVER = 253_402_300_799_999
"""31 December 9999: when a rollover for good expires. The official clients take no null there, and would raise."""


class RolloverAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of what one reset rolled over."""

    granted: Raw
    balance: Raw
    expires_at: int


class BalanceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of one feature; the feature itself only where it was asked for."""

    feature_id: str
    feature: FeatureAnswer | UnsetType = UNSET
    granted: Raw
    remaining: Raw
    usage: Raw
    unlimited: bool = False
    overage_allowed: bool
    max_purchase: Raw | None
    next_reset_at: int | None
    breakdown: tuple[RowAnswer, ...]
    rollovers: tuple[RolloverAnswer, ...] | UnsetType = UNSET


class FlagAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An on/off feature that the customer has."""

    id: str
    plan_id: str | None
    expires_at: int | None
    feature_id: str
    feature: FeatureAnswer | UnsetType = UNSET


class DeductionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one row gave, in its own unit: here alone shows what a capped track really took. Negative: it got back."""

    balance_id: str
    feature_id: str
    plan_id: str | None
    reset: ResetAnswer | None
    value: Raw


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`balances.check`. `balances` is there only where units were taken."""

    allowed: bool
    customer_id: str
    entity_id: str | UnsetType = UNSET
    required_balance: Raw
    balance: BalanceAnswer | None
    balances: dict[str, BalanceAnswer | None] | UnsetType = UNSET
    flag: FlagAnswer | None
    lock: LockAnswer | UnsetType = UNSET
    code: str | UnsetType = UNSET


class TrackAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`balances.track`. `value` is what was asked for."""

    customer_id: str
    entity_id: str | UnsetType = UNSET
    event_name: str | UnsetType = UNSET
    value: Raw
    balance: BalanceAnswer | None
    balances: dict[str, BalanceAnswer | None] | UnsetType = UNSET
    deductions: tuple[DeductionAnswer, ...]
    lock: LockAnswer | UnsetType = UNSET


class Success(msgspec.Struct, frozen=True):
    """What changes something and has nothing else to say."""

    success: bool = True


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Every error."""

    message: str
    code: str
    env: str


def check_answer(decision: Decision, *, customer_id: str, takes: bool) -> CheckAnswer:
    """`takes`: the check was sent with `send_event`, so an allowed one shows every balance it could have come from."""
    balance = _answering_balance(decision)
    return CheckAnswer(
        allowed=decision.allowed,
        customer_id=customer_id,
        entity_id=decision.entity_id or UNSET,
        required_balance=number(decision.required_nanos),
        balance=balance,
        balances=_balances(decision, balance) if takes and decision.allowed else UNSET,
        flag=_flag(decision),
        lock=lock_answer(decision),
    )


def track_answer(
    decision: Decision, *, customer_id: str, value_nanos: int, event_name: str | None
) -> TrackAnswer:
    rows = decision.terms.by_id
    balance = _answering_balance(decision)
    moved = [part for part in decision.moved if part.row_id in rows]
    return TrackAnswer(
        customer_id=customer_id,
        entity_id=decision.entity_id or UNSET,
        event_name=event_name or UNSET,
        value=number(value_nanos),
        balance=balance,
        balances=_balances(decision, balance),
        deductions=tuple([deduction_answer(rows[part.row_id], 0 - part.delta_nanos) for part in moved]),
        lock=lock_answer(decision),
    )


def check_text(decision: Decision, *, customer_id: str, takes: bool) -> bytes:
    """Return what `check_answer` is encoded to, from a form where there is one."""
    if decision.held is not None:
        return encode(check_answer(decision, customer_id=customer_id, takes=takes))
    form = check_form(decision, customer_id=customer_id, takes=takes)
    return form.filled(decision.required_nanos, decision.balances)


def check_form(decision: Decision, *, customer_id: str, takes: bool) -> "AnswerForm":
    """Return the form of the answer to a check that holds nothing."""
    pool = decision.pool.feature_id if decision.pool else None
    key = (check_form, customer_id, decision.entity_id, decision.feature_id, pool, decision.allowed, takes)
    form: AnswerForm | None = decision.terms.derived.get(key)
    if form is None or form.pools != decision.pools:
        answer = check_answer(decision, customer_id=customer_id, takes=takes)
        blank = msgspec.structs.replace(_blank(answer), required_balance=HOLE)
        form = AnswerForm.of(decision, blank)
        decision.terms.derive(key, form)
    return form


def track_text(decision: Decision, *, customer_id: str, value_nanos: int, event_name: str | None) -> bytes:
    """Return what `track_answer` is encoded to, from a form where there is one."""
    if decision.held is not None:
        return encode(
            track_answer(decision, customer_id=customer_id, value_nanos=value_nanos, event_name=event_name)
        )
    form = track_form(decision, customer_id=customer_id, value_nanos=value_nanos, event_name=event_name)
    rows = decision.terms.by_id
    deltas = [part.delta_nanos for part in decision.moved if part.row_id in rows]
    return form.filled(value_nanos, decision.balances, deltas)


def track_form(
    decision: Decision, *, customer_id: str, value_nanos: int, event_name: str | None
) -> "AnswerForm":
    """Return the form of the answer to a track."""
    rows = decision.terms.by_id
    pool = decision.pool.feature_id if decision.pool else None
    moved_ids = tuple([part.row_id for part in decision.moved if part.row_id in rows])
    key = (track_form, customer_id, decision.entity_id, decision.feature_id, event_name, pool, moved_ids)
    form: AnswerForm | None = decision.terms.derived.get(key)
    if form is None or form.pools != decision.pools:
        answer = track_answer(
            decision, customer_id=customer_id, value_nanos=value_nanos, event_name=event_name
        )
        deductions = tuple(msgspec.structs.replace(part, value=HOLE) for part in answer.deductions)
        blank = msgspec.structs.replace(_blank(answer), value=HOLE, deductions=deductions)
        form = AnswerForm.of(decision, blank)
        decision.terms.derive(key, form)
    return form


def undecided_check(*, customer_id: str, required_nanos: int, allowed: bool = False) -> CheckAnswer:
    """Return the answer to a check that could not be decided: no denial, and allowed if the feature says so."""
    return CheckAnswer(
        allowed=allowed,
        customer_id=customer_id,
        required_balance=number(required_nanos),
        balance=None,
        flag=None,
        code="undecided",
    )


def spooled_track(
    *, customer_id: str, entity_id: str | None, value_nanos: int, event_name: str | None
) -> TrackAnswer:
    """Return the answer to a track that is kept until it can be decided: nothing is known of balances."""
    return TrackAnswer(
        customer_id=customer_id,
        entity_id=entity_id or UNSET,
        event_name=event_name or UNSET,
        value=number(value_nanos),
        balance=None,
        deductions=(),
    )


def balance_answer(balance: Balance, feature: FeatureAnswer | UnsetType = UNSET) -> BalanceAnswer:
    most = max_purchase_nanos(balance)
    return BalanceAnswer(
        feature_id=balance.feature_id,
        feature=feature,
        granted=number(balance.granted_nanos),
        remaining=number(balance.remaining_nanos),
        usage=number(balance.usage_nanos),
        unlimited=balance.unlimited,
        overage_allowed=balance.overage_allowed,
        max_purchase=None if most is None else number(most),
        next_reset_at=balance.next_reset_at,
        breakdown=tuple(row_answer(row, raw_nanos) for row, raw_nanos in balance.rows),
        rollovers=tuple(rollover_answer(row, raw_nanos) for row, raw_nanos in balance.rollovers) or UNSET,
    )


def zero_balance(feature: FeatureAnswer) -> BalanceAnswer:
    """Return the row of a feature that has none of its own: it lets React's local check find the feature."""
    return balance_answer(Balance(feature.id), feature)


def flag_answer(flag: Flag, feature: FeatureAnswer | UnsetType = UNSET) -> FlagAnswer:
    return FlagAnswer(
        id=flag.id,
        plan_id=flag.plan_id,
        expires_at=flag.expires_at,
        feature_id=flag.feature_id,
        feature=feature,
    )


def deduction_answer(row: Row, taken_nanos: int) -> DeductionAnswer:
    """Return what a row gave; negative where it got something back."""
    return DeductionAnswer(
        balance_id=row.public_id,
        feature_id=row.feature_id,
        plan_id=row.plan_id,
        reset=reset_answer(row),
        value=number(taken_nanos),
    )


def reset_answer(row: Row) -> ResetAnswer | None:
    """Return how often a row starts again; None for what is never used up."""
    if row.reset is None:
        return None
    return ResetAnswer(
        interval=row.reset.interval, interval_count=interval_count(row.reset), resets_at=row.resets_at
    )


def rollover_answer(row: Row, raw_nanos: int) -> RolloverAnswer:
    """Return what is left of what one reset rolled over."""
    return RolloverAnswer(
        granted=number(row.included_nanos),
        balance=number(raw_nanos),
        expires_at=NEVER if row.expires_at is None else row.expires_at,
    )


def max_purchase_nanos(balance: Balance) -> int | None:
    """Return the sum over the rows; None as soon as one row has no limit."""
    limits = [row.price.max_purchase_nanos if row.price else None for row, _ in balance.rows]
    known = [limit for limit in limits if limit is not None]
    return sum(known) if known and len(known) == len(limits) else None


def _answering_balance(decision: Decision) -> BalanceAnswer | None:
    return _balance_of(decision, decision.pool.feature_id) if decision.pool else None


def _balance_of(decision: Decision, feature_id: str) -> BalanceAnswer | None:
    balance = decision.balance(feature_id)
    return balance_answer(balance) if balance else None


def _balances(
    decision: Decision, answering: BalanceAnswer | None
) -> dict[str, BalanceAnswer | None] | UnsetType:
    """The feature and the credit systems that price it, null where there is none; not there if no system prices it."""
    if len(decision.pools) < 2:
        return UNSET
    return {
        pool.feature_id: answering if pool is decision.pool else _balance_of(decision, pool.feature_id)
        for pool in decision.pools
    }


class AnswerForm(NamedTuple):
    """The form of an answer that has these pools, and of the balances that it has, in their order.

    Each comes with how often it is shown before the next one.
    """

    text: Form
    pools: tuple[Pool, ...]
    standings: tuple[tuple[Standing, int], ...]

    @classmethod
    def of(cls, decision: Decision, answer: CheckAnswer | TrackAnswer) -> "AnswerForm":
        shown = [answer.balance, *(answer.balances or {}).values()]
        standings = [decision.standing(balance.feature_id) for balance in shown if balance is not None]
        times = tuple((standing, len(list(same))) for standing, same in groupby(standings))
        return cls(Form(encode(answer)), decision.pools, times)

    def filled(self, amount: int, balances: Mapping[str, int], deltas: Iterable[int] = ()) -> bytes:
        """Return the text with what was asked for, what is in the rows, and what rows gave (negative) or got."""
        holes = [amount]
        for standing, times in self.standings:
            holes += standing.amounts(balances) * times
        holes += map(neg, deltas)
        return self.text.filled(holes)


A = TypeVar("A", CheckAnswer, TrackAnswer)


def _blank(answer: A) -> A:
    """Return the answer with holes where balances have amounts that calls change, in their order."""
    balances = answer.balances
    return msgspec.structs.replace(
        answer,
        balance=_with_holes(answer.balance),
        balances=UNSET if balances is UNSET else {name: _with_holes(one) for name, one in balances.items()},
    )


def _with_holes(answer: BalanceAnswer | None) -> BalanceAnswer | None:
    if answer is None:
        return None
    replace = msgspec.structs.replace
    return replace(
        answer,
        remaining=HOLE,
        usage=HOLE,
        breakdown=tuple(replace(row, remaining=HOLE, usage=HOLE) for row in answer.breakdown),
        rollovers=tuple(replace(part, balance=HOLE) for part in answer.rollovers or ()) or UNSET,
    )


def _flag(decision: Decision) -> FlagAnswer | None:
    flag = decision.terms.flag(decision.feature_id, decision.entity_id)
    return flag_answer(flag) if flag else None


def row_answer(row: Row, raw_nanos: int) -> RowAnswer:
    return RowAnswer(
        id=row.public_id,
        plan_id=row.plan_id,
        included_grant=number(row.included_nanos + row.adjustment_nanos),
        prepaid_grant=number(row.prepaid_nanos),
        remaining=number(max(0, raw_nanos)),
        usage=number(row.granted_nanos - raw_nanos),
        unlimited=row.unlimited,
        reset=reset_answer(row),
        price=_row_price_answer(row.price) if row.price else None,
        expires_at=row.expires_at,
        source="entity" if row.entity_id is not None else UNSET,
    )


def _row_price_answer(price: ItemPrice) -> RowPriceAnswer:
    return RowPriceAnswer(
        amount=number(price.amount_nanos),
        billing_units=number(price.billing_units_nanos),
        billing_method=price.billing_method,
        max_purchase=number(price.max_purchase_nanos) if price.max_purchase_nanos is not None else None,
    )
