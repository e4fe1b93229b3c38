"""Bodies to requests and decisions to bodies, without a server: exact, and in Autumn's words."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditgate.api.calls import Call, caller_key
from creditgate.api.wire.answers import check_answer, encode, track_answer
from creditgate.api.wire.billing import AttachRequest
from creditgate.api.wire.customers import customer_answer, eligibility
from creditgate.api.wire.events import ListEventsRequest
from creditgate.api.wire.features import CreateFeatureRequest, feature_answer
from creditgate.api.wire.fields import Request, read
from creditgate.api.wire.numbers import number
from creditgate.api.wire.plans import CreatePlanRequest, plan_answer
from creditgate.api.wire.requests import (
    CheckRequest,
    GetOrCreateRequest,
    TrackRequest,
)
from creditgate.core.amounts import AMOUNT_MAX, NANOS, AmountOutOfRange, format_amount
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
    Pool,
    Recurrence,
)
from creditgate.core.customers import Customer, Flag, Purchase, Record, Row, Subscription, Terms
from creditgate.core.decisions import Decision, Mode, Moved
from creditgate.engine.meter import refusal
from creditgate.engine.usage import Usage
from creditgate.errors import CreditgateError, InvalidInputs, InvalidRequest

MONTHLY = Recurrence(Interval.MONTH)
MESSAGES = Feature("messages", "Messages", FeatureType.METERED, consumable=True)
SEATS = Feature("seats", "Seats", FeatureType.METERED, consumable=False)
SSO = Feature("sso", "SSO", FeatureType.BOOLEAN, consumable=False)
CREDITS = Feature(
    "credits",
    "Credits",
    FeatureType.CREDIT_SYSTEM,
    consumable=True,
    credit_schema=(CreditCost("messages", NANOS // 100), CreditCost("unborn", NANOS)),
)
FREE = Plan("free", "Free", 1, auto_enable=True, items=(PlanItem("credits", 5 * NANOS, reset=MONTHLY),))
PRO = Plan("pro", "Pro", 1, price=PlanPrice(10 * NANOS, MONTHLY), items=(PlanItem("sso"), PlanItem("seats")))
TOP_UP = Plan(
    "top_up",
    "Top up",
    1,
    items=(PlanItem("credits", price=ItemPrice(NANOS, Recurrence(Interval.ONE_OFF))),),
)
CATALOG = Catalog(1, CatalogDocument((MESSAGES, SEATS, SSO, CREDITS), (FREE, PRO, TOP_UP)))

ROW = Row(
    "bal_1",
    "credits",
    created_at=1,
    included_nanos=5 * NANOS,
    plan_id="free",
    reset=MONTHLY,
    resets_at=1_800_000_000_000,
)
POOLS = (Pool("messages", NANOS), Pool("credits", NANOS // 100))


def _decision(**changes: Any) -> Decision:
    usual = Decision(
        allowed=True,
        feature_id="messages",
        pools=POOLS,
        pool=POOLS[1],
        required_nanos=NANOS // 50,
        terms=Terms((ROW,)),
        balances={"bal_1": 4_980_000_000},
        moved=(Moved("bal_1", -20_000_000),),
    )
    return msgspec.structs.replace(usual, **changes)


def _json(answer: Any) -> Any:
    return json.loads(encode(answer))


@given(st.integers(-AMOUNT_MAX, AMOUNT_MAX))
def test_amounts_go_out_exactly(nanos: int) -> None:
    """The number on the wire is the amount, to the last nano and without an exponent, at any size."""
    assert encode(number(nanos)).decode() == format_amount(nanos)


@given(st.integers(-(10**21), 10**21))
def test_amounts_come_in_exactly(nanos: int) -> None:
    """No float stands between the JSON text and the amount."""
    body = f'{{"customer_id":"a","feature_id":"f","value":{format_amount(nanos)}}}'
    assert read(TrackRequest, body.encode()).value_nanos() == nanos


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (CheckRequest, "{}", "customer_id: must be a string (received undefined)"),
        (CheckRequest, "", "customer_id: must be a string (received undefined)"),
        (CheckRequest, '{"customer_id":5}', "customer_id: must be a string (received number)"),
        (CheckRequest, '{"customer_id":""}', "customer_id: cannot be empty"),
        (CheckRequest, '{"customer_id":"a"}', "input: Must provide either product_id or feature_id"),
        (TrackRequest, '{"customer_id":"a"}', "input: Either feature_id or event_name must be provided"),
        (CheckRequest, "[]", "input: must be an object (received array)"),
        (CheckRequest, "{", "input: Input data was truncated"),
        (
            CheckRequest,
            '{"customer_id":"a","send_event":1}',
            "send_event: must be a boolean (received number)",
        ),
        (
            TrackRequest,
            '{"customer_id":"a","timestamp":"x"}',
            "timestamp: must be a number (received string)",
        ),
        (
            TrackRequest,
            '{"customer_id":"a","overage_behavior":"x"}',
            "overage_behavior: must be one of: cap, reject, overflow",
        ),
        (
            CreateFeatureRequest,
            '{"feature_id":"a","name":"A","type":"x"}',
            "type: must be one of: boolean, metered, credit_system",
        ),
        (
            CreateFeatureRequest,
            '{"feature_id":"a","name":"A","type":"credit_system","credit_schema":[{"metered_feature_id":1}]}',
            "credit_schema[0].metered_feature_id: must be a string (received number)",
        ),
        (
            CreateFeatureRequest,
            '{"feature_id":"a","name":"A","type":"credit_system","credit_schema":[{"metered_feature_id":"b"}]}',
            "credit_schema[0].credit_cost: must be a number (received undefined)",
        ),
        (
            CreatePlanRequest,
            '{"plan_id":"a","name":"A","items":[{"feature_id":"b"},{"feature_id":"c","reset":{}}]}',
            "items[1].reset.interval: must be one of: one_off, minute, hour, day, week, month, quarter, "
            "semi_annual, year",
        ),
        (
            CreatePlanRequest,
            '{"plan_id":"a","name":"A","price":{"amount":1,"interval":"day"}}',
            "price.interval: must be one of: month, one_off, quarter, semi_annual, week, year",
        ),
        (
            CreatePlanRequest,
            '{"plan_id":"a","name":"A","items":5}',
            "items: must be an array (received number)",
        ),
        (ListEventsRequest, '{"feature_id":5}', "feature_id: must be a string (received number)"),
        (ListEventsRequest, '{"limit":1e400}', "limit: Number out of range"),
    ],
)
def test_what_is_wrong_is_said_as_autumn_says_it(kind: type[Request], body: str, message: str) -> None:
    """An application that shows or matches these texts sees the ones it knows."""
    with pytest.raises(InvalidInputs) as error:
        read(kind, body.encode())
    assert error.value.message == message


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (CheckRequest, {"lock": None, "with_preview": False, "customer_data": {}, "expand": []}),
        (TrackRequest, {"async": True, "lock": {}, "entity_data": {}, "anything": "else"}),
        (GetOrCreateRequest, {"create_in_stripe": True, "config": {"disable_pooled_balance": False}}),
        (AttachRequest, {"redirect_mode": "if_required", "carry_over_usages": {"enabled": False}}),
        (AttachRequest, {"discounts": [], "metadata": {}, "invoice_mode": None}),
    ],
)
def test_what_asks_for_nothing_is_let_through(kind: type[Request], changes: Any) -> None:
    """The defaults that SDKs send with every call do not stand in the way."""
    body = {"customer_id": "a", "feature_id": "f", "plan_id": "p"} | changes
    assert isinstance(read(kind, json.dumps(body).encode()), kind)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (CheckRequest, {"with_preview": True}, "with_preview is not supported yet"),
        (AttachRequest, {"redirect_mode": "always"}, "redirect_mode always is not supported yet"),
        (
            CreatePlanRequest,
            {"name": "A", "items": [{"feature_id": "f", "proration": {"on_increase": "prorate"}}]},
            "items[0].proration is not supported yet",
        ),
        (
            CreatePlanRequest,
            {
                "name": "A",
                "items": [
                    {
                        "feature_id": "f",
                        "price": {
                            "amount": 1,
                            "interval": "month",
                            "billing_method": "prepaid",
                            "tier_behavior": "volume",
                        },
                    }
                ],
            },
            "items[0].price.tier_behavior volume is not supported yet",
        ),
        (GetOrCreateRequest, {"expand": ["invoices"]}, "expand invoices is not supported yet"),
    ],
)
def test_what_is_not_built_is_named(kind: type[Request], changes: Any, message: str) -> None:
    """What Autumn would do and we would not is refused by name, so that nobody believes it happened."""
    body = {"customer_id": "a", "feature_id": "f", "plan_id": "p"} | changes
    with pytest.raises(InvalidRequest) as error:
        read(kind, json.dumps(body).encode())
    assert (error.value.message, error.value.code) == (message, "invalid_request")


def test_what_the_python_sdk_sends_for_whole_numbers() -> None:
    """Its floats mean the integers they are."""
    body = b'{"plan_id":"a","name":"A","price":{"amount":10.0,"interval":"month","interval_count":3.0}}'
    assert read(CreatePlanRequest, body).plan().price == PlanPrice(10 * NANOS, Recurrence(Interval.MONTH, 3))
    assert read(ListEventsRequest, b'{"limit":20.0}').rows() == 20
    track = read(TrackRequest, b'{"customer_id":"a","feature_id":"f","timestamp":1771409461016.0}')
    assert track.occurred_at() == 1_771_409_461_016


def test_a_kept_amount_is_never_rounded() -> None:
    """A cost with more decimals than we keep is refused, instead of charging something else for ever after."""

    def cost_nanos(cost: str) -> int:
        schema = f'[{{"metered_feature_id":"m","credit_cost":{cost}}}]'
        body = f'{{"feature_id":"a","name":"A","type":"credit_system","credit_schema":{schema}}}'
        return read(CreateFeatureRequest, body.encode()).feature().credit_schema[0].cost_nanos

    assert cost_nanos("1e-9") == 1
    with pytest.raises(InvalidInputs, match="at most 9 decimals"):
        cost_nanos("0.0000000011")
    with pytest.raises(AmountOutOfRange):
        cost_nanos("1e-10")


def test_one_call_spelled_twice_has_one_fingerprint() -> None:
    """A retry through another SDK, which writes 2 as 2.0, is the same call; another value is not."""

    def fingerprint(value: str) -> str:
        body = f'{{"customer_id":"a","feature_id":"f","value":{value}}}'
        request = read(TrackRequest, body.encode())
        key = caller_key("track", Call(b"", ("k",), ""), request.customer_id, request.value_nanos())
        assert key is not None
        return key.fingerprint

    assert fingerprint("2") == fingerprint("2.0") == fingerprint("0.2e1")
    assert fingerprint("2") != fingerprint("3")


def test_keys_of_the_header_and_of_the_body_are_apart() -> None:
    """The same word as a header and as a body key are two keys, as they are to Autumn."""
    in_header = caller_key("track", Call(b"", ("k",), ""), 1)
    in_body = caller_key("track", Call(b"", (), ""), 1, in_body="k")
    assert in_header is not None
    assert in_body is not None
    assert (in_header.scope, in_body.scope) == ("track:header", "track:body")
    assert in_header.digest != in_body.digest


def test_a_denied_check_shows_no_balances() -> None:
    """`balances` is there only where something was taken from them."""
    assert "balances" not in _json(check_answer(_decision(allowed=False), customer_id="a", takes=True))
    assert "balances" not in _json(check_answer(_decision(), customer_id="a", takes=False))
    answer = _json(check_answer(_decision(), customer_id="a", takes=True))
    assert list(answer) == ["allowed", "customer_id", "required_balance", "balance", "balances", "flag"]
    assert answer["balances"]["messages"] is None


def test_a_feature_that_no_credit_system_prices_shows_one_balance() -> None:
    """With a single pool, `balances` would only repeat `balance`."""
    decision = _decision(pools=(Pool("credits", NANOS),), pool=Pool("credits", NANOS))
    answer = track_answer(decision, customer_id="a", value_nanos=NANOS, event_name=None)
    assert "balances" not in _json(answer)


def test_a_track_shows_what_was_taken() -> None:
    """`value` is what was asked for, and only the deductions say what it cost whom."""
    decision = _decision(moved=(Moved("bal_1", -4_280_000_000),))
    answer = _json(track_answer(decision, customer_id="a", value_nanos=1000 * NANOS, event_name="sent"))
    assert (answer["value"], answer["event_name"]) == (1000, "sent")
    assert [(d["balance_id"], d["feature_id"], d["value"]) for d in answer["deductions"]] == [
        ("bal_1", "credits", 4.28)
    ]


def test_a_customer_without_the_feature() -> None:
    """No entitlement is a plain answer, with every required key there and null."""
    decision = _decision(allowed=False, pool=None, terms=Terms(), balances={}, moved=())
    answer = _json(check_answer(decision, customer_id="a", takes=False))
    assert answer == {
        "allowed": False,
        "customer_id": "a",
        "required_balance": 0.02,
        "balance": None,
        "flag": None,
    }
    assert (
        _json(track_answer(decision, customer_id="a", value_nanos=NANOS, event_name=None))["deductions"] == []
    )


def test_an_on_off_feature_is_a_flag() -> None:
    """An on/off feature is answered by the flag that gives it."""
    flag = Flag("flag_1", "sso", plan_id="pro")
    decision = _decision(
        feature_id="sso",
        pools=(Pool("sso", NANOS),),
        pool=None,
        terms=Terms(flags=(flag,)),
        balances={},
        moved=(),
    )
    answer = _json(check_answer(decision, customer_id="a", takes=False))
    assert answer["flag"] == {"id": "flag_1", "plan_id": "pro", "expires_at": None, "feature_id": "sso"}


def test_rows_below_zero_and_bought_ones() -> None:
    """A row counts from zero up in `remaining` while `usage` stays exact; what was bought shows with its price."""
    seats = Row("bal_2", "seats", created_at=1, included_nanos=3 * NANOS, may_go_negative=True)
    bought = Row(
        "bal_3",
        "seats",
        created_at=1,
        prepaid_nanos=20 * NANOS,
        reset=Recurrence(Interval.WEEK, 2),
        resets_at=5,
        expires_at=9,
        price=ItemPrice(NANOS // 2, MONTHLY, billing_units_nanos=10 * NANOS),
        external_id="mine",
    )
    decision = _decision(
        feature_id="seats",
        pools=(Pool("seats", NANOS),),
        pool=Pool("seats", NANOS),
        terms=Terms((seats, bought)),
        balances={"bal_2": -2 * NANOS, "bal_3": 20 * NANOS},
    )
    balance = _json(check_answer(decision, customer_id="a", takes=False))["balance"]
    assert (balance["granted"], balance["remaining"], balance["usage"]) == (23, 20, 5)
    assert (balance["overage_allowed"], balance["next_reset_at"], balance["max_purchase"]) == (True, 5, None)
    first, second = balance["breakdown"]
    assert (first["remaining"], first["usage"], first["reset"]) == (0, 5, None)
    assert second == {
        "id": "mine",
        "plan_id": None,
        "included_grant": 0,
        "prepaid_grant": 20,
        "remaining": 20,
        "usage": 0,
        "unlimited": False,
        "reset": {"interval": "week", "interval_count": 2, "resets_at": 5},
        "price": {"amount": 0.5, "billing_units": 10, "billing_method": "prepaid", "max_purchase": None},
        "expires_at": 9,
    }


def test_a_refusal_names_what_was_asked() -> None:
    """The message of a refused track is the one that Autumn sends."""
    refused = _decision(allowed=False)
    usage = Usage("track", "ann", "messages", None, 1000 * NANOS, Mode.REJECT)
    assert refusal(refused, usage).message == "Insufficient balance to deduct 1000 from feature messages"


def _customer(
    *, expand: frozenset[str] = frozenset(), zero_member_rows: bool = True, **changes: Any
) -> dict[str, Any]:
    usual = Record(
        now=1_700_000_000_000,
        sequence=1,
        shape=1,
        uid="u",
        clock=None,
        is_due=False,
        customer=Customer("ann", created_at=1),
        terms=Terms((ROW,), (Flag("flag_1", "sso"),)),
        balances={"bal_1": 5 * NANOS},
    )
    record = msgspec.structs.replace(usual, **changes)
    answer = customer_answer(record, CATALOG, env="sandbox", expand=expand, zero_member_rows=zero_member_rows)
    found = _json(answer)
    assert isinstance(found, dict)
    return found


def test_expanded_balances_let_react_check_by_itself() -> None:
    """React's local check finds a member feature only by a row of its own, and every state needs its feature."""
    answer = _customer(expand=frozenset({"balances.feature"}))
    assert list(answer["balances"]) == ["credits", "messages"]
    assert answer["balances"]["messages"]["breakdown"] == []
    assert answer["balances"]["messages"]["remaining"] == 0
    assert all("feature" in state for state in (*answer["balances"].values(), *answer["flags"].values()))


def test_plain_balances_are_autumns() -> None:
    """Without the expansion, or with the setting off, there are no rows that nobody granted."""
    assert list(_customer()["balances"]) == ["credits"]
    assert "feature" not in _customer()["balances"]["credits"]
    strict = _customer(expand=frozenset({"balances.feature"}), zero_member_rows=False)
    assert list(strict["balances"]) == ["credits"]


def test_a_paid_subscription_shows_its_period() -> None:
    """The current period hangs on the anchor; a free plan has none, and a purchase is no subscription."""
    paid = Subscription("sub_1", "pro", 1, started_at=1, anchor=1_699_000_000_000, recurrence=MONTHLY)
    free = Subscription("sub_2", "free", 1, started_at=1, anchor=1, auto_enable=True)
    customer = Customer(
        "ann",
        created_at=1,
        stripe_id="cus_1",
        subscriptions=(paid, free),
        purchases=(Purchase("pur_1", "top_up", 1, started_at=7),),
    )
    answer = _customer(customer=customer)
    periods = [(s["current_period_start"], s["current_period_end"]) for s in answer["subscriptions"]]
    assert periods == [(1_699_000_000_000, 1_701_592_000_000), (None, None)]
    assert answer["purchases"] == [
        {"plan_id": "top_up", "expires_at": None, "started_at": 7, "quantity": 1, "scope": "customer"}
    ]
    assert answer["processors"] == {"stripe": {"id": "cus_1"}}


def test_what_attaching_would_do() -> None:
    """A pricing page can tell the current plan, an upgrade, a downgrade and a purchase apart."""

    def on(*plans: Plan) -> Customer:
        held = tuple(
            Subscription(
                f"sub_{plan.id}", plan.id, 1, 1, 1, recurrence=plan.price.recurrence if plan.price else None
            )
            for plan in plans
        )
        return Customer("ann", created_at=1, subscriptions=held)

    def action(customer: Customer, plan: Plan) -> str:
        return eligibility(customer, CATALOG, plan, now=2).attach_action

    assert action(on(), FREE) == "activate"
    assert action(on(FREE), PRO) == "upgrade"
    assert action(on(FREE), FREE) == "none"
    assert action(on(PRO), FREE) == "downgrade"
    assert action(on(PRO), TOP_UP) == "purchase"


def test_features_and_plans_keep_autumns_keys() -> None:
    """Only a credit system has a schema, and what never resets on its own says so."""
    assert "credit_schema" not in _json(feature_answer(SSO))
    assert _json(feature_answer(CREDITS))["credit_schema"][0] == {
        "metered_feature_id": "messages",
        "credit_cost": 0.01,
    }
    pro = _json(plan_answer(PRO, CATALOG, "live"))
    assert (pro["env"], pro["price"]) == ("live", {"amount": 10, "interval": "month"})
    assert [item["reset"] for item in pro["items"]] == [None, None]
    assert _json(plan_answer(TOP_UP, CATALOG, "live"))["items"][0]["reset"] == {"interval": "one_off"}


def test_an_event_name_cannot_be_rejected() -> None:
    """All or nothing over several features is not built, and Autumn refuses it too."""
    body = b'{"customer_id":"a","event_name":"sent","overage_behavior":"reject"}'
    with pytest.raises(CreditgateError) as error:
        read(TrackRequest, body)
    assert error.value.code == "invalid_request"
    assert read(TrackRequest, body.replace(b"reject", b"cap")).overage_behavior is Mode.CAP
