"""An answer from a form is byte for byte the answer as it is encoded, whatever the amounts and whoever asked before."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from creditgate.api.wire.answers import check_answer, check_text, encode, track_answer, track_text
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import Interval, Pool, Recurrence
from creditgate.core.customers import Flag, Row, Terms
from creditgate.core.decisions import Decision, Moved

MONTHLY = Recurrence(Interval.MONTH)
ROWS = (
    Row("bal_over", "credits", 1, included_nanos=3 * NANOS, rolled_from="bal_plan", expires_at=99),
    Row("bal_plan", "credits", 1, 5 * NANOS, plan_id="100%s", reset=MONTHLY, anchor=1, resets_at=7),
    Row("bal_top", "credits", 1, prepaid_nanos=NANOS, external_id="top % up"),
    Row("bal_own", "messages", 1, 10 * NANOS, may_go_negative=True),
    Row("bal_seat", "messages", 1, NANOS, entity_id="se\\at"),
    Row("bal_all", "images", 1, unlimited=True),
    Row("bal_all2", "images", 1, unlimited=True),
)
FLAGS = (Flag("flag_1", "sso"), Flag("flag_2", "credits", plan_id="pro"))
POOLS = {
    "messages": (Pool("messages", NANOS), Pool("credits", NANOS // 100)),
    "images": (Pool("images", NANOS), Pool("credits", NANOS)),
    "credits": (Pool("credits", NANOS),),
    "sso": (Pool("sso", NANOS),),
}
AMOUNTS = st.integers(-(10**20), 10**20)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Some decision about terms that others were made about before."""
    feature_id = draw(st.sampled_from(sorted(POOLS)))
    pools = POOLS[feature_id]
    return Decision(
        allowed=draw(st.booleans()),
        feature_id=feature_id,
        pools=draw(st.sampled_from([pools, pools[:1]])),
        pool=draw(st.sampled_from([None, *pools])),
        required_nanos=draw(AMOUNTS),
        terms=draw(st.sampled_from(TERMS)),
        balances={row.id: draw(AMOUNTS) for row in ROWS},
        moved=tuple(
            Moved(row_id, draw(AMOUNTS))
            for row_id in draw(st.lists(st.sampled_from([*(r.id for r in ROWS), "gone"]), unique=True))
        ),
        entity_id=draw(st.sampled_from([None, "se\\at", "other"])),
    )


TERMS = [Terms(ROWS, FLAGS), Terms(ROWS[1:2]), Terms()]


@settings(max_examples=400, deadline=None)
@given(decision=decisions(), customer_id=st.sampled_from(["ann", "b%d\0"]), takes=st.booleans())
def test_check(decision: Decision, customer_id: str, takes: bool) -> None:
    expected = encode(check_answer(_alone(decision), customer_id=customer_id, takes=takes))
    assert check_text(decision, customer_id=customer_id, takes=takes) == expected


@settings(max_examples=400, deadline=None)
@given(
    decision=decisions(),
    customer_id=st.sampled_from(["ann", "b%d\0"]),
    value_nanos=AMOUNTS,
    event_name=st.sampled_from([None, "sent %s"]),
)
def test_track(decision: Decision, customer_id: str, value_nanos: int, event_name: str | None) -> None:
    expected = encode(
        track_answer(
            _alone(decision), customer_id=customer_id, value_nanos=value_nanos, event_name=event_name
        )
    )
    told = track_text(decision, customer_id=customer_id, value_nanos=value_nanos, event_name=event_name)
    assert told == expected


def _alone(decision: Decision) -> Decision:
    """Return the decision about terms of its own, of which nothing was worked out."""
    terms = msgspec.json.decode(msgspec.json.encode(decision.terms), type=Terms)
    return msgspec.structs.replace(decision, terms=terms)
