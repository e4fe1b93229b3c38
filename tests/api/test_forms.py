"""The text of a balance from its form is the text of the ordinary answer, whatever the terms and the amounts."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from creditgate.api.wire.answers import balance_answer, check_answer, encode
from creditgate.core.catalog import Interval, ItemPrice, Pool, Recurrence
from creditgate.core.customers import Row, Terms
from creditgate.core.decisions import Decision, balance_of

AMOUNT = st.integers(-(10**24), 10**24)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
PRICE = st.builds(
    ItemPrice,
    amount_nanos=st.integers(0, 10**12),
    billing_units_nanos=st.integers(1, 10**12),
    recurrence=st.just(Recurrence(Interval.MONTH)),
    billing_method=st.sampled_from(["prepaid", "usage_based"]),
    max_purchase_nanos=st.none() | st.integers(0, 10**12),
)
ROW = st.builds(
    Row,
    id=TEXT,
    feature_id=st.sampled_from(["own", "credits"]),
    plan_id=st.none() | TEXT,
    included_nanos=st.integers(0, 10**22),
    adjustment_nanos=AMOUNT,
    resets_at=st.none() | st.integers(0, 2**42),
    reset=st.none() | st.just(Recurrence(Interval.MONTH)),
    expires_at=st.none() | st.integers(0, 2**42),
    unlimited=st.booleans(),
    external_id=st.none() | TEXT,
    rolled_from=st.none() | TEXT,
    price=st.none() | PRICE,
    entity_id=st.sampled_from([None, "one", "other"]),
)


@given(
    rows=st.lists(ROW, min_size=1, max_size=5, unique_by=lambda row: row.id),
    entity_id=st.sampled_from([None, "one"]),
    amounts=st.lists(st.lists(AMOUNT, min_size=5, max_size=5), min_size=2, max_size=3),
)
def test_filled_as_encoded(rows: list[Row], entity_id: str | None, amounts: list[list[int]]) -> None:
    """One form serves every call, so amounts of one must not stay for the next."""
    terms = Terms(rows=tuple(rows))
    pools = (Pool("own", 10**9), Pool("credits", 10**9))
    for raws in amounts:
        balances = {row.id: raw for row, raw in zip(rows, raws, strict=False)}
        for pool in pools:
            decision = Decision(True, "own", pools, pool, 10**9, terms, balances, entity_id=entity_id)
            fresh = balance_of(pool.feature_id, Terms(rows=tuple(rows)), balances, entity_id)
            expected = encode(balance_answer(fresh)) if fresh else b"null"
            answer = encode(check_answer(decision, customer_id="c", takes=True))
            shown = msgspec.json.decode(answer, type=dict[str, msgspec.Raw])
            assert bytes(shown["balance"]) == expected
            assert bytes(
                msgspec.json.decode(shown["balances"], type=dict[str, msgspec.Raw])[pool.feature_id]
            ) == (expected)
