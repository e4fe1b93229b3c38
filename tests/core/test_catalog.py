"""The catalog: what follows from it for a call, and what it refuses to hold."""

from typing import Any

import msgspec
import pytest

from creditgate.core.amounts import NANOS
from creditgate.core.catalog import (
    Catalog,
    CatalogDocument,
    Feature,
    FeatureType,
    Interval,
    Plan,
    Pool,
    Recurrence,
)
from creditgate.core.catalog_edits import (
    with_feature,
    with_feature_changed,
    with_given,
    with_plan,
    with_plan_changed,
    without_feature,
    without_plan,
)
from creditgate.core.controls import BillingControls, SpendLimit
from creditgate.errors import Conflict, CreditgateError, InvalidInputs, InvalidRequest, NotFound
from tests.core.words import DAY, MONTH, NOW, ONE_OFF, boolean, catalog, feature, item, nanos, plan, system

FEATURES = (
    feature("a", event_names=("click", "key")),
    feature("b", event_names=("click",)),
    feature("seats", consumable=False),
    boolean("sso"),
    system("one", a="0.2", b="0.6"),
    system("two", a="2"),
)


def test_pools_are_the_feature_and_then_its_systems() -> None:
    """A call draws on the own rows at one to one, then on each system that prices the feature, the first made first."""
    made = catalog(*FEATURES)
    assert made.pools("a") == (Pool("a", NANOS), Pool("one", nanos("0.2")), Pool("two", nanos("2")))
    assert made.pools("b") == (Pool("b", NANOS), Pool("one", nanos("0.6")))
    assert made.pools("one") == (Pool("one", NANOS),)


def test_system_may_price_what_comes_later() -> None:
    """A system may name a feature that does not exist yet; once it does, it is priced."""
    made = catalog(system("one", later="3"), feature("later"))
    assert made.pools("later") == (Pool("later", NANOS), Pool("one", nanos("3")))


def test_event_counts_for_every_feature_that_lists_it() -> None:
    """One event name may stand for several features; an unknown one for none."""
    made = catalog(*FEATURES)
    assert [f.id for f in made.features_of_event("click")] == ["a", "b"]
    assert [f.id for f in made.features_of_event("key")] == ["a"]
    assert made.features_of_event("a") == ()


def test_unknown_names() -> None:
    """What does not exist is named with its own code, which callers tell apart."""
    made = catalog(*FEATURES)
    with pytest.raises(NotFound) as refusal:
        made.feature("x")
    assert (refusal.value.code, refusal.value.message) == ("feature_not_found", "Feature x not found")
    with pytest.raises(NotFound) as refusal:
        made.pools("x")
    assert refusal.value.code == "feature_not_found"
    with pytest.raises(NotFound) as refusal:
        made.plan("x")
    assert (refusal.value.code, refusal.value.message) == ("product_not_found", "Product x not found")


@pytest.mark.parametrize(
    ("word", "error", "code"),
    [
        (feature("a"), Conflict, "duplicate_feature_id"),
        (boolean("a"), Conflict, "duplicate_feature_id"),
        (system("s"), InvalidRequest, "invalid_feature"),
        (
            msgspec.structs.replace(system("s", a="1"), credit_schema=system("s", a="1").credit_schema * 2),
            InvalidRequest,
            "invalid_feature",
        ),
        (system("s", s="1"), InvalidRequest, "invalid_feature"),
        (system("s", one="1"), InvalidRequest, "invalid_feature"),
        (system("s", sso="1"), InvalidRequest, "invalid_feature"),
        (system("s", seats="1"), InvalidRequest, "invalid_feature"),
        (plan("old"), InvalidRequest, "product_already_exists"),
        (plan("p", item("a"), item("b"), item("a")), InvalidInputs, "invalid_inputs"),
        (plan("p", item("x")), NotFound, "feature_not_found"),
        (plan("p", item("sso", "1")), InvalidInputs, "invalid_inputs"),
        (plan("p", item("sso", reset=MONTH)), InvalidInputs, "invalid_inputs"),
        (plan("p", item("sso", price="1")), InvalidInputs, "invalid_inputs"),
        (plan("p", item("seats", "1", reset=MONTH)), InvalidInputs, "invalid_inputs"),
        (plan("p", item("seats", "1", reset=ONE_OFF)), InvalidInputs, "invalid_inputs"),
        (plan("p", price="1", auto_enable=True), InvalidInputs, "invalid_inputs"),
        (plan("p", item("a", price="1"), auto_enable=True), InvalidInputs, "invalid_inputs"),
        (plan("p", item("a", reset=DAY, price="1", every=MONTH)), InvalidRequest, "invalid_request"),
        (plan("p", item("a", reset=MONTH, price="1", every=ONE_OFF)), InvalidRequest, "invalid_request"),
    ],
)
def test_refusals(word: Feature | Plan, error: type[CreditgateError], code: str) -> None:
    """What makes no sense, or is not built, is refused when it is written and not when a customer meets it."""
    made = catalog(*FEATURES, plan("old"))
    with pytest.raises(error) as refusal:
        with_feature(made, word) if isinstance(word, Feature) else with_plan(made, word)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    "word",
    [
        boolean("new"),
        feature("new", consumable=False),
        system("new", a="0", later="0.000000001"),
        plan("new"),
        plan(
            "new", item("sso"), item("seats", "3"), item("a", "1", reset=DAY), item("one", "5", reset=MONTH)
        ),
        plan("new", item("a", reset=MONTH, price="1", every=MONTH), item("b", price="1", pack="100")),
        plan("new", item("a", reset=ONE_OFF, price="1", every=MONTH), price="0"),
        plan("new", item("one", "5", reset=MONTH), auto_enable=True),
    ],
)
def test_next_version_has_the_word_at_the_end(word: Feature | Plan) -> None:
    """What is added stands last, nothing else changes, and the version before is as it was."""
    made = catalog(*FEATURES)
    document = with_feature(made, word) if isinstance(word, Feature) else with_plan(made, word)
    assert document != made.document
    words: list[Feature | Plan] = [*document.features, *document.plans]
    assert [w for w in words if w != word] == list(FEATURES)
    assert words.count(word) == 1
    assert made.document.features == FEATURES


def test_document_survives_the_way_through_redis() -> None:
    """What another worker reads is the catalog that was written."""
    document = catalog(
        *FEATURES, plan("p", item("a", "0.5", reset=Recurrence(Interval.DAY, 3)), price="1")
    ).document
    assert msgspec.json.decode(msgspec.json.encode(document), type=CatalogDocument) == document
    assert Catalog(7, document).version == 7


def test_new_customers_start_on_the_first_free_plan_of_each_group() -> None:
    """Of several plans for everybody only one main plan per group is given, but every add-on."""
    made = catalog(
        plan("off"),
        plan("gone", auto_enable=True, archived=True),
        plan("first", auto_enable=True),
        plan("second", auto_enable=True),
        plan("gift", auto_enable=True, add_on=True),
        plan("other", auto_enable=True, group="b"),
        plan("gift2", auto_enable=True, add_on=True, group="b"),
    )
    assert [p.id for p in made.auto_enabled()] == ["first", "gift", "other", "gift2"]


@pytest.mark.parametrize(
    ("word", "is_one_off", "is_free"),
    [
        (plan("p"), False, True),
        (plan("p", item("a", "5", reset=MONTH)), False, True),
        (plan("p", item("a", "5")), False, True),
        (plan("p", price="10"), False, False),
        (plan("p", price="10", every=ONE_OFF), True, False),
        (plan("p", item("a", price="1")), True, False),
        (plan("p", item("a", price="1"), item("b", price="1", every=MONTH)), False, False),
        (plan("p", item("a", price="1"), price="10"), False, False),
    ],
)
def test_kinds_of_plans(word: Plan, *, is_one_off: bool, is_free: bool) -> None:
    """A plan is bought once if nothing of it is ever paid again; it is free if nothing of it is paid at all."""
    assert (word.is_one_off, word.is_free) == (is_one_off, is_free)
    assert word.created_at == NOW


def test_changing_a_feature() -> None:
    """Only what is said changes, in its place in the order; the version before is as it was."""
    made = catalog(*FEATURES)
    document = with_feature_changed(made, "a", {"name": "Letters", "archived": True})
    changed = msgspec.structs.replace(FEATURES[0], name="Letters", archived=True)
    assert document.features == (changed, *FEATURES[1:])
    assert made.feature("a") == FEATURES[0]
    assert with_feature_changed(made, "a", {}) == made.document


@pytest.mark.parametrize(
    ("feature_id", "changes", "error", "code"),
    [
        ("x", {"name": "X"}, NotFound, "feature_not_found"),
        ("a", {"type": FeatureType.BOOLEAN, "consumable": False}, InvalidRequest, "invalid_request"),
        ("a", {"consumable": False}, InvalidRequest, "invalid_request"),
        ("seats", {"consumable": True}, InvalidRequest, "invalid_request"),
        ("one", {"credit_schema": ()}, InvalidRequest, "invalid_feature"),
        ("one", {"credit_schema": system("s", sso="1").credit_schema}, InvalidRequest, "invalid_feature"),
        ("one", {"credit_schema": system("s", two="1").credit_schema}, InvalidRequest, "invalid_feature"),
        ("a", {"credit_schema": system("s", b="1").credit_schema}, InvalidInputs, "invalid_inputs"),
    ],
)
def test_refused_changes_of_a_feature(
    feature_id: str, changes: dict[str, Any], error: type[CreditgateError], code: str
) -> None:
    """What a feature is never changes, since customers hold balances of it; nor may a change break a credit system."""
    with pytest.raises(error) as refusal:
        with_feature_changed(catalog(*FEATURES), feature_id, changes)
    assert refusal.value.code == code


def test_a_new_cost_is_in_the_pools() -> None:
    """A changed credit cost applies to calls from then on."""
    made = catalog(*FEATURES)
    schema = system("s", b="0.7").credit_schema
    changed = Catalog(9, with_feature_changed(made, "one", {"credit_schema": schema}))
    assert changed.pools("a") == (Pool("a", NANOS), Pool("two", nanos("2")))
    assert changed.pools("b") == (Pool("b", NANOS), Pool("one", nanos("0.7")))


PLANS = (
    plan("p", item("a", "5", reset=MONTH), item("sso"), price="10"),
    plan("q", item("b", "1")),
)


def test_other_terms_are_another_version() -> None:
    """Another price or other items make version 2, and version 1 is still there for those who have it."""
    made = catalog(*FEATURES, *PLANS)
    document = with_plan_changed(made, "p", {"items": (item("a", "6", reset=MONTH),), "name": "Pro"})
    changed = Catalog(9, document)
    assert (changed.plan("p").version, changed.plan("p").items) == (2, (item("a", "6", reset=MONTH),))
    assert changed.plan("p", 1) == msgspec.structs.replace(PLANS[0], name="Pro")
    third = Catalog(10, with_plan_changed(changed, "p", {"price": None}))
    assert [(p.version, p.price, p.items) for p in third.versions("p")] == [
        (1, PLANS[0].price, PLANS[0].items),
        (2, PLANS[0].price, (item("a", "6", reset=MONTH),)),
        (3, None, (item("a", "6", reset=MONTH),)),
    ]
    assert third.versions("q") == (PLANS[1],)
    with pytest.raises(NotFound) as refusal:
        third.plan("p", 4)
    assert refusal.value.code == "product_not_found"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Pro"},
        {"archived": True},
        {"description": "x", "group": "g", "add_on": True, "metadata": {"a": 1}},
        {"items": PLANS[0].items},
        {"items": PLANS[0].items[::-1]},
        {"price": PLANS[0].price},
    ],
)
def test_other_words_are_no_other_version(changes: dict[str, Any]) -> None:
    """A new name, group or order does not part the customers who have a plan from those who get it next."""
    changed = Catalog(9, with_plan_changed(catalog(*FEATURES, *PLANS), "p", changes))
    assert (changed.plan("p").version, changed.document.past) == (1, ())
    assert {field: getattr(changed.plan("p"), field) for field in changes} == changes


def test_a_reset_written_out_is_no_other_version() -> None:
    """An item that now says what it meant all along is kept as it was written first."""
    made = catalog(*FEATURES, plan("t", item("a", price="1"), item("b", "2")))
    written = (item("b", "2", reset=ONE_OFF), item("a", price="1", reset=ONE_OFF))
    changed = Catalog(9, with_plan_changed(made, "t", {"items": written}))
    assert (changed.plan("t").version, changed.plan("t").items) == (1, (item("b", "2"), item("a", price="1")))


def test_no_controls_are_written_in_one_way() -> None:
    """A plan whose last limit was taken away is the same as one that never had any, so a file finds no difference."""
    limits = (SpendLimit("two", NANOS),)
    for empty in (BillingControls(), None, {"spend_limits": ()}, {}):
        made = catalog(*FEATURES, *PLANS, plan("r", controls=BillingControls()))
        assert made.plan("r").controls is None
        limited = Catalog(9, with_plan_changed(made, "r", {"controls": {"spend_limits": limits}}))
        assert limited.plan("r").controls == BillingControls(limits)
        changed = Catalog(10, with_plan_changed(limited, "r", {"controls": empty}))
        assert changed.plan("r").controls == (BillingControls(limits) if empty == {} else None)


def test_refused_changes_of_a_plan() -> None:
    """A change is checked as a new plan is."""
    made = catalog(*FEATURES, *PLANS)
    for changes, error in (
        ({"auto_enable": True}, InvalidInputs),
        ({"items": (item("x"),)}, NotFound),
        ({"items": (item("a"), item("a"))}, InvalidInputs),
    ):
        with pytest.raises(error):
            with_plan_changed(made, "p", changes)
    with pytest.raises(NotFound):
        with_plan_changed(made, "x", {})


def test_erasing_what_nothing_uses() -> None:
    """A feature or plan that nobody ever had goes without a trace, with all its versions."""
    made = catalog(*FEATURES, *PLANS)
    assert "two" not in Catalog(9, without_feature(made, "two")).features
    changed = Catalog(9, with_plan_changed(made, "p", {"price": None}))
    erased = without_plan(changed, "p")
    assert (erased.plans, erased.past) == (PLANS[1:], ())
    for erase in (without_feature, without_plan):
        with pytest.raises(NotFound):
            erase(made, "x")


def test_what_is_in_use_cannot_be_erased() -> None:
    """A price, a plan in any version or a balance would be left without the feature that it names."""
    made = catalog(*FEATURES, *PLANS)
    made = Catalog(9, with_plan_changed(made, "p", {"items": (item("a", "5", reset=MONTH),)}))
    made = Catalog(10, with_given(made, [], ["seats"]))
    controls = BillingControls(spend_limits=(SpendLimit("two", NANOS),))
    made = Catalog(11, with_plan_changed(made, "q", {"controls": controls}))
    for feature_id, user in (
        ("two", "the billing controls of plan q"),
        ("a", "credit system one"),
        ("sso", "version 1 of plan p"),
        ("b", "credit system one"),
        ("seats", "customers"),
    ):
        with pytest.raises(Conflict) as refusal:
            without_feature(made, feature_id)
        assert refusal.value.code == "feature_in_use"
        assert f"is used by {user};" in refusal.value.message


def test_erasing_a_plan_that_was_given() -> None:
    """A plan that somebody has or had is archived instead: their subscription still names it."""
    made = Catalog(9, with_given(catalog(*FEATURES, *PLANS), ["p"], []))
    erased = Catalog(10, without_plan(made, "p"))
    assert (erased.plan("p").archived, erased.plan("p").given, erased.plan("p").version) == (True, True, 1)


def test_giving_is_remembered() -> None:
    """What was given once is marked, in its place; a second time changes nothing."""
    made = catalog(*FEATURES, *PLANS)
    given = Catalog(9, with_given(made, ["q"], ["b", "one"]))
    assert [f.id for f in given.document.features if f.given] == ["b", "one"]
    assert [p.id for p in given.document.plans if p.given] == ["q"]
    assert list(given.features) == list(made.features)
    assert with_given(given, ["q"], ["b"]) == given.document
    with pytest.raises(NotFound):
        with_given(made, [], ["x"])
