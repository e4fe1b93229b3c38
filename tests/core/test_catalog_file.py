"""The catalog file: what it means, and the sentence for each mistake, with the line that has to be changed."""

from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from creditgate.core.amounts import NANOS
from creditgate.core.catalog import (
    Catalog,
    CatalogDocument,
    CreditCost,
    Feature,
    FeatureType,
    FreeTrial,
    Interval,
    ItemPrice,
    Plan,
    PlanItem,
    PlanPrice,
    Recurrence,
    Rollover,
)
from creditgate.core.catalog_file import CatalogFile, CatalogFileError, read_catalog_file
from creditgate.core.catalog_words import differences, feature_words, plan_words
from creditgate.core.controls import BillingControls, OverageAllowed, SpendLimit, UsageAlert, UsageLimit
from creditgate.core.toml_lines import Place
from creditgate.errors import InvalidInputs
from tests.core.words import MONTH, ONE_OFF, YEAR, nanos

EVERYTHING = """
[features.messages]
name = "Chat messages"
event_names = ["message.sent", "reply.sent"]
display = { singular = "message", plural = "messages" }

on_unavailable = { allow_up_to = "2.5" }

[features.seats]
consumable = false
on_unavailable = "allow"

[features.sso]
type = "boolean"

[features.usd_credits]
type = "credit_system"
costs = { messages = "0.01", images = 0.5 }

[plans.pro]
name = "Pro"
description = "For teams"
group = "main"
add_on = true
price = { amount = "9.99", interval = "month", interval_count = 3 }
metadata = { color = "red", rank = 2, share = 0.5, since = 2026-01-01 }

free_trial = { length = 7, unit = "day", card_required = true, on_end = "revert" }

[plans.pro.billing_controls]
spend_limits = { usd_credits = 20 }
overage_allowed = { usd_credits = true, messages = false }
usage_alerts = [{ feature = "messages", threshold = "80.5", threshold_type = "usage_percentage", name = "soon" }]
usage_limits = [
  { feature = "messages", limit = "1.5", interval = "day" },
  { feature = "messages", limit = 9, interval = "week", anchor = "utc", properties = { a = "x", b = 0.50, c = true } },
]

[[plans.pro.items]]
feature = "usd_credits"
included = 1_000
reset = { interval = "week", interval_count = 2 }
rollover = { max = 50, months = 3 }

[[plans.pro.items]]
feature = "messages"
included = 1e3
reset = "one_off"
price = { amount = 2, interval = "month", billing_units = 100 }

[[plans.pro.items]]
feature = "sso"

[[plans.pro.items]]
feature = "images"
unlimited = true
pooled = true

[[plans.pro.items]]
feature = "seats"
price = { amount = 5, interval = "year", billing_method = "usage_based", max_purchase = 10 }

[[plans.pro.items]]
feature = "calls"
reset = "month"
rollover = { max_percentage = "12.5" }
entity_feature = "seats"

[plans.free]
auto_enable = true
"""


def read(text: str) -> CatalogFile:
    return read_catalog_file(dedent(text).removeprefix("\n"), "catalog.toml")


def test_everything_that_can_be_said() -> None:
    """Each key of the format arrives where it belongs, amounts exactly, in the order of the file."""
    file = read(EVERYTHING)
    assert file.features == (
        Feature(
            "messages",
            "Chat messages",
            FeatureType.METERED,
            consumable=True,
            event_names=("message.sent", "reply.sent"),
            display={"singular": "message", "plural": "messages"},
            fallback_nanos=nanos("2.5"),
        ),
        Feature("seats", "Seats", FeatureType.METERED, consumable=False, fallback_nanos=None),
        Feature("sso", "Sso", FeatureType.BOOLEAN, consumable=False),
        Feature(
            "usd_credits",
            "Usd credits",
            FeatureType.CREDIT_SYSTEM,
            consumable=True,
            credit_schema=(CreditCost("messages", nanos("0.01")), CreditCost("images", nanos("0.5"))),
        ),
    )
    assert file.plans == (
        Plan(
            "pro",
            "Pro",
            0,
            description="For teams",
            group="main",
            add_on=True,
            price=PlanPrice(nanos("9.99"), Recurrence(Interval.MONTH, 3)),
            items=(
                PlanItem(
                    "usd_credits",
                    nanos("1000"),
                    Recurrence(Interval.WEEK, 2),
                    rollover=Rollover(3, max_nanos=nanos("50")),
                ),
                PlanItem("messages", nanos("1000"), ONE_OFF, ItemPrice(2 * NANOS, MONTH, 100 * NANOS)),
                PlanItem("sso"),
                PlanItem("images", unlimited=True, pooled=True),
                PlanItem(
                    "seats",
                    price=ItemPrice(
                        5 * NANOS,
                        YEAR,
                        billing_method="usage_based",
                        max_purchase_nanos=10 * NANOS,
                    ),
                ),
                PlanItem(
                    "calls",
                    reset=MONTH,
                    rollover=Rollover(max_percentage_nanos=nanos("12.5")),
                    entity_feature_id="seats",
                ),
            ),
            free_trial=FreeTrial(Recurrence(Interval.DAY, 7), card_required=True, reverts=True),
            controls=BillingControls(
                (SpendLimit("usd_credits", 20 * NANOS),),
                (
                    UsageLimit("messages", nanos("1.5"), Interval.DAY),
                    UsageLimit(
                        "messages",
                        9 * NANOS,
                        Interval.WEEK,
                        in_utc=True,
                        properties={"a": "x", "b": "0.5", "c": "true"},
                    ),
                ),
                (OverageAllowed("usd_credits", enabled=True), OverageAllowed("messages", enabled=False)),
                (UsageAlert("messages", nanos("80.5"), "usage_percentage", "soon"),),
            ),
            metadata={"color": "red", "rank": 2, "share": 0.5, "since": "2026-01-01"},
        ),
        Plan("free", "Free", 0, auto_enable=True),
    )


@pytest.mark.parametrize("written", ["0.1", '"0.1"', "1e-1", '"1e-1"', "0.10", "+0.1"])
def test_amounts_are_exact(written: str) -> None:
    """An amount never passes through a binary fraction, whether it is quoted or not."""
    file = read(f'plans.p.items = [{{ feature = "a", included = {written} }}]')
    assert file.plans[0].items[0].included_nanos == NANOS // 10


def test_a_one_off_price() -> None:
    """A top-up is an item with a price and no reset; one unit is a pack unless it is said."""
    file = read('plans.p.items = [{ feature = "a", price = { amount = 1, interval = "one_off" } }]')
    assert file.plans[0].items == (PlanItem("a", price=ItemPrice(NANOS, ONE_OFF)),)


@pytest.mark.parametrize(
    ("word_id", "name"),
    [("usd_credits", "Usd credits"), ("top-up", "Top up"), ("GPT-4", "Gpt 4"), ("_", "_"), ("a__b", "A b")],
)
def test_a_name_is_made_of_the_id(word_id: str, name: str) -> None:
    """A feature or plan is shown to people, so it never goes without a name."""
    assert read(f"[features.{word_id}]").features[0].name == name


def test_an_empty_file_says_nothing() -> None:
    """A file of comments alone is a catalog without features and plans."""
    file = read("# nothing yet\n")
    assert (file.features, file.plans) == ((), ())


SYSTEM = '[features.usd]\ntype = "credit_system"\n'
INTERVALS = "one_off, minute, hour, day, week, month, quarter, semi_annual, year"


def item(text: str) -> str:
    return f'[plans.p]\n\n[[plans.p.items]]\nfeature = "a"\n{text}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # TOML itself
        ("a =", "1: Invalid value"),
        ("[features.a]\n\n[features.a]", "3: Cannot declare ('features', 'a') twice"),
        ('x = "\\uD800"', "1: Escaped character is not a Unicode scalar value"),
        ("x = [\n1,\n\n", "2: Invalid value"),
        # the shape of the whole
        ("\nfeature = 1", "2: feature: is no key here; the keys are features, plans"),
        ("features = []", "1: features: must be a table (received array)"),
        ("[features]\na = 1", "2: features.a: must be a table (received number)"),
        ("[[plans]]", "1: plans: must be a table (received array)"),
        # ids
        (
            '[features."a b"]',
            '1: features."a b": the id: must contain only letters, numbers, underscores, hyphens (at most 128)',
        ),
        ('[plans.""]', '1: plans."": the id: cannot be empty'),
        # features
        (
            "[features.a]\n\ncolour = 1",
            "3: features.a.colour: is no key here; the keys are name, type, consumable, costs, event_names, display, "
            "on_unavailable",
        ),
        ("[features.a]\nname = 3", "2: features.a.name: must be a string (received number)"),
        ('[features.a]\nname = ""', "2: features.a.name: cannot be empty"),
        (
            '[features.a]\ntype = "credits"',
            "2: features.a.type: must be one of: boolean, metered, credit_system",
        ),
        (
            '[features.a]\nconsumable = "yes"',
            "2: features.a.consumable: must be a boolean (received string)",
        ),
        (
            "[features.a]\non_unavailable = { allow_up_to = -1 }",
            "2: features.a.on_unavailable.allow_up_to: must be >= 0",
        ),
        ("[features.a]\nevent_names = 'a'", "2: features.a.event_names: must be an array (received string)"),
        (
            "[features.a]\nevent_names = ['a',\n1]",
            "3: features.a.event_names[1]: must be a string (received number)",
        ),
        ("[features.a]\nevent_names = ['a', '']", "2: features.a.event_names[1]: cannot be empty"),
        (
            "[features.a.display]\nsingular = 'a'",
            "1: features.a.display.plural: must be a string, and is missing",
        ),
        (SYSTEM + "costs = 1", "3: features.usd.costs: must be a table (received number)"),
        (SYSTEM + "costs.a = true", '3: features.usd.costs.a: must be a number, such as 5 or "0.01"'),
        (SYSTEM + "[features.usd.costs]\na = -1", "4: features.usd.costs.a: must be >= 0"),
        # amounts
        (
            item("included = '5 credits'"),
            '5: plans.p.items[0].included: must be a number, such as 5 or "0.01"',
        ),
        (item("included = '05'"), '5: plans.p.items[0].included: must be a number, such as 5 or "0.01"'),
        (item("included = nan"), '5: plans.p.items[0].included: must be a number, such as 5 or "0.01"'),
        (item("included = [5]"), '5: plans.p.items[0].included: must be a number, such as 5 or "0.01"'),
        (item("included = -5"), "5: plans.p.items[0].included: must be >= 0"),
        (item("included = 0.0000000011"), "5: plans.p.items[0].included: must have at most 9 decimals"),
        (
            item("included = 0.00000000001"),
            "5: plans.p.items[0].included: is smaller than the smallest amount, 0.000000001",
        ),
        (
            item("included = 10000000000000"),
            "5: plans.p.items[0].included: must have at most 13 digits before the point",
        ),
        (
            item("included = 1e999"),
            "5: plans.p.items[0].included: must have at most 13 digits before the point and a two-digit exponent",
        ),
        (item("included = " + "9" * 5000), "5: a number is too long"),
        (item("included = 1e" + "9" * 30), "5: a number is too long"),
        # plans
        ("[plans.p]\nauto_enable = 1", "2: plans.p.auto_enable: must be a boolean (received number)"),
        ("[plans.p]\nitems = {}", "2: plans.p.items: must be an array (received object)"),
        (
            "[plans.p.price]\namount = 1",
            "1: plans.p.price.interval: must be one of: month, one_off, quarter, semi_annual, week, year",
        ),
        (
            "[plans.p]\nprice.amount = 1\nprice.interval = 'day'",
            "3: plans.p.price.interval: must be one of: month, one_off, quarter, semi_annual, week, year",
        ),
        (
            "[plans.p]\nprice = { amount = 1, interval = 'year', billing_units = 10 }",
            "2: plans.p.price.billing_units: is no key here; the keys are amount, interval, interval_count",
        ),
        (
            "[plans.p.price]\namount = 1\ninterval = 'year'\ninterval_count = 121",
            "4: plans.p.price.interval_count: must be between 1 and 120",
        ),
        (
            "[plans.p.price]\namount = 1\ninterval = 'year'\ninterval_count = 1.5",
            "4: plans.p.price.interval_count: must be a whole number (received number)",
        ),
        # items
        (
            "[plans.p]\nitems = [\n  { feature = 'a' },\n  { included = 5 },\n]",
            "4: plans.p.items[1].feature: must be a string, and is missing",
        ),
        (item("reset = 'monthly'"), f"5: plans.p.items[0].reset: must be one of: {INTERVALS}"),
        (item("reset = 1"), f"5: plans.p.items[0].reset: must be one of: {INTERVALS}"),
        (
            item("reset = { interval = 'monthly' }"),
            f"5: plans.p.items[0].reset.interval: must be one of: {INTERVALS}",
        ),
        (item("reset = {}"), f"5: plans.p.items[0].reset.interval: must be one of: {INTERVALS}"),
        (
            item("reset = { interval = 'month', every = 3 }"),
            "5: plans.p.items[0].reset.every: is no key here; the keys are interval, interval_count",
        ),
        (
            item("reset = { interval = 'month', interval_count = '3' }"),
            "5: plans.p.items[0].reset.interval_count: must be a whole number (received string)",
        ),
        (
            item("reset = { interval = 'month', interval_count = 0 }"),
            "5: plans.p.items[0].reset.interval_count: must be between 1 and 120",
        ),
        (
            item("[plans.p.items.price]\namount = 1\ninterval = 'month'\nbilling_units = 0"),
            "8: plans.p.items[0].price.billing_units: must be > 0",
        ),
        (
            item("price = { amount = '1 dollar', interval = 'month' }"),
            '5: plans.p.items[0].price.amount: must be a number, such as 5 or "0.01"',
        ),
        (
            item("price = { amount = 1, interval = 'month', max_purchase = 5 }"),
            "5: plans.p.items[0].price.max_purchase: is not supported yet for what is prepaid",
        ),
        (
            item("price = { amount = 1, interval = 'month', billing_method = 'later' }"),
            "5: plans.p.items[0].price.billing_method: must be one of: prepaid, usage_based",
        ),
        (
            item("rollover = { max = 1, max_percentage = 50 }"),
            "5: plans.p.items[0].rollover: max and max_percentage exclude each other",
        ),
        (item("rollover.months = 0"), "5: plans.p.items[0].rollover.months: must be between 1 and 120"),
        (item("rollover.max = -1"), "5: plans.p.items[0].rollover.max: must be >= 0"),
        # trials
        (
            "[plans.p]\nfree_trial = { length = 1, unit = 'week' }",
            "2: plans.p.free_trial.unit: must be one of: day, month, year",
        ),
        (
            "[plans.p]\nfree_trial = { length = 121 }",
            "2: plans.p.free_trial.length: must be between 1 and 120",
        ),
        (
            "[plans.p]\nfree_trial = { days = 7 }",
            "2: plans.p.free_trial.days: is no key here; the keys are length, unit, card_required, on_end",
        ),
        # controls
        (
            "[plans.p.billing_controls]\nspend_limits = { a = 1, b = 'x' }",
            '2: plans.p.billing_controls.spend_limits.b: must be a number, such as 5 or "0.01"',
        ),
        (
            "[plans.p.billing_controls.overage_allowed]\na = 1",
            "1: plans.p.billing_controls.overage_allowed: must be a boolean (received number)",
        ),
        (
            "[[plans.p.billing_controls.usage_limits]]\nfeature = 'a'\nlimit = 1\ninterval = 'hour'",
            "4: plans.p.billing_controls.usage_limits[0].interval: must be one of: day, month, week, year",
        ),
        (
            "[[plans.p.billing_controls.usage_limits]]\nfeature = 'a'\nlimit = -1\ninterval = 'day'",
            "3: plans.p.billing_controls.usage_limits[0].limit: must be >= 0",
        ),
        (
            "[[plans.p.billing_controls.usage_limits]]\nfeature = 'a'\nlimit = 1\ninterval = 'day'\n"
            "properties = { a = 1, b = 2, c = 3, d = 4, e = 5 }",
            "5: plans.p.billing_controls.usage_limits[0].properties: must have at most 4 keys",
        ),
        (
            "[plans.p.billing_controls]\n[plans.p.billing_controls.spend_limits]\n"
            + "".join(f"f{number} = 1\n" for number in range(33)),
            "2: plans.p.billing_controls.spend_limits: must have at most 32 entries",
        ),
        (
            "[[plans.p.billing_controls.usage_alerts]]\nfeature = 'a'\nthreshold = 1\nthreshold_type = 'percent'",
            "4: plans.p.billing_controls.usage_alerts[0].threshold_type: must be one of: "
            "remaining, remaining_percentage, usage, usage_percentage",
        ),
        (
            "[[plans.p.billing_controls.usage_alerts]]\nfeature = 'a'\nthreshold = ''\nthreshold_type = 'usage'",
            '3: plans.p.billing_controls.usage_alerts[0].threshold: must be a number, such as 5 or "0.01"',
        ),
        # metadata
        ("[plans.p]\nmetadata = 1", "2: plans.p.metadata: must be a table (received number)"),
        ("[plans.p]\nmetadata.x = inf", "2: plans.p.metadata: must be an object of JSON values"),
        (
            f"[plans.p]\nmetadata.x = '{'y' * 17_000}'",
            "2: plans.p.metadata: must have at most 16384 bytes and 32 levels",
        ),
        (
            f"[plans.p]\nmetadata.x = {'[' * 40}{']' * 40}",
            "2: plans.p.metadata: must have at most 16384 bytes and 32 levels",
        ),
    ],
)
def test_each_mistake_has_its_sentence(text: str, said: str) -> None:
    """Whoever runs the apply sees which line to change and to what, and not a traceback."""
    with pytest.raises(CatalogFileError) as refusal:
        read_catalog_file(text, "catalog.toml")
    assert refusal.value.message == f"catalog.toml:{said}"


@pytest.mark.parametrize("text", ["x = " + "[" * 5000 + "]" * 5000, "x = " + "{x = " * 200 + "1" + "}" * 200])
def test_a_bottomless_file(text: str) -> None:
    """Nesting beyond what can be read is refused in a sentence."""
    with pytest.raises(CatalogFileError, match=r"^catalog\.toml: tables or arrays are nested too deeply$"):
        read_catalog_file(text, "catalog.toml")


@pytest.mark.parametrize(
    ("place", "message", "line", "where"),
    [
        (
            ("features", "usd_credits"),
            "credit_schema: images is not consumable",
            'costs = { messages = "0.01", images = 0.5 }',
            "features.usd_credits.costs: images is not consumable",
        ),
        (
            ("plans", "pro"),
            "items[1].feature_id: Feature messages not found",
            'feature = "messages"',
            "plans.pro.items[1].feature: Feature messages not found",
        ),
        (
            ("plans", "pro"),
            "a sentence: without a place",
            "[plans.pro]",
            "plans.pro: a sentence: without a place",
        ),
    ],
)
def test_the_line_of_what_the_catalog_refuses(place: Place, message: str, line: str, where: str) -> None:
    """What is wrong only beside the rest of the catalog is blamed on its own line, under its name in the file."""
    file = read(EVERYTHING)
    with pytest.raises(CatalogFileError) as refusal, file.blamed(*place):
        raise InvalidInputs(message)
    number = file.text.split("\n").index(line) + 1
    assert refusal.value.message == f"catalog.toml:{number}: {where}"


SAID_ELSEWHERE = {"archived", "given", "version", "created_at", "enabled"}
"""Fields that are the catalog's own, or that a file says by leaving something out."""


def test_nothing_is_out_of_reach() -> None:
    """Whatever a feature or plan can be on the wire, a file can say: what it cannot say, it would take away."""
    file = read(EVERYTHING)
    said = list(_structs((file.features, file.plans)))
    assert {type(part).__name__ for part in said} >= {
        "Feature",
        "Plan",
        "PlanItem",
        "ItemPrice",
        "UsageLimit",
    }
    for kind in {type(part) for part in said}:
        for field in msgspec.structs.fields(kind):
            values = [getattr(part, field.name) for part in said if type(part) is kind]
            assert field.name in SAID_ELSEWHERE or any(value != _default(field) for value in values), field


def test_every_difference_has_words() -> None:
    """Whatever is different about a plan is told before it is applied."""
    file = read(EVERYTHING)
    metered = {"images", "calls"}
    others = tuple(Feature(name, name, FeatureType.METERED, consumable=True) for name in metered)
    catalog = Catalog(1, CatalogDocument((*file.features, *others)))
    for plan in file.plans:
        for changed in _with_defaults(plan):
            before, after = plan_words(plan, catalog), plan_words(changed, catalog)
            assert list(differences(before, after)), changed
    for feature in file.features:
        for other in _with_defaults(feature):
            assert list(differences(feature_words(feature), feature_words(other))), other


def _structs(value: Any) -> Iterator[msgspec.Struct]:
    """Every struct in a value, the value itself first."""
    if isinstance(value, msgspec.Struct):
        yield value
        value = tuple(getattr(value, field) for field in value.__struct_fields__)
    if isinstance(value, tuple):
        for part in value:
            yield from _structs(part)


def _with_defaults(value: Any) -> Iterator[Any]:
    """Copies of a struct in which one field, however deep, is as if it had not been said."""
    for field in msgspec.structs.fields(value):
        said = getattr(value, field.name)
        if said != _default(field) and field.default is not msgspec.NODEFAULT:
            yield replace(value, **{field.name: field.default})
        if isinstance(said, msgspec.Struct):
            yield from (replace(value, **{field.name: other}) for other in _with_defaults(said))
        if isinstance(said, tuple):
            for number, part in enumerate(said):
                if isinstance(part, msgspec.Struct):
                    for other in _with_defaults(part):
                        yield replace(value, **{field.name: (*said[:number], other, *said[number + 1 :])})


def _default(field: Any) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


FRAGMENTS = st.sampled_from(
    [
        *(
            "[features.a]\n",
            "[plans.p]\n",
            "[[plans.p.items]]\n",
            "[features]\n",
            "items = [",
            "]",
            "{",
            "}",
            ",",
        ),
        *(
            "type = ",
            '"credit_system"',
            "costs = ",
            "a = ",
            "included = ",
            "reset = ",
            "price = ",
            "amount = 1",
        ),
        *(
            "name = ",
            '"x"',
            "''' \n'''",
            "1",
            "-1",
            "1e999",
            "inf",
            "true",
            "2026-01-01",
            "\n",
            " ",
            "#\n",
            '"',
        ),
        *(
            "interval = ",
            '"month"',
            "feature = ",
            "metadata = ",
            "plans.q.",
            "é",
            "\x00",
            "[[",
            "\\",
            "'",
            '"""',
        ),
    ]
)


@given(st.lists(FRAGMENTS, max_size=12).map("".join) | st.text(max_size=40))
def test_any_text_is_a_catalog_or_a_sentence(text: str) -> None:
    """Whatever a file holds, its reader is told what is wrong with it, and nothing else happens."""
    assert (_refusal(text) or "f:").startswith("f:")


def _refusal(text: str) -> str | None:
    try:
        read_catalog_file(text, "f")
    except CatalogFileError as error:
        return error.message
    return None
