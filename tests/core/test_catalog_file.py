"""The catalog file: what it means, and the sentence for each mistake, with the line that has to be changed."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditgate.core.amounts import NANOS
from creditgate.core.catalog import (
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
from creditgate.core.catalog_file import CatalogFile, CatalogFileError, read_catalog_file
from creditgate.errors import InvalidInputs
from tests.core.words import MONTH, ONE_OFF, nanos

EVERYTHING = """
[features.messages]
name = "Chat messages"
event_names = ["message.sent", "reply.sent"]
display = { singular = "message", plural = "messages" }

[features.seats]
consumable = false

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

[[plans.pro.items]]
feature = "usd_credits"
included = 1_000
reset = { interval = "week", interval_count = 2 }

[[plans.pro.items]]
feature = "messages"
included = 1e3
reset = "month"
price = { amount = 2, interval = "month", billing_units = 100 }

[[plans.pro.items]]
feature = "sso"

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
        ),
        Feature("seats", "Seats", FeatureType.METERED, consumable=False),
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
                PlanItem("usd_credits", nanos("1000"), Recurrence(Interval.WEEK, 2)),
                PlanItem("messages", nanos("1000"), MONTH, ItemPrice(2 * NANOS, MONTH, 100 * NANOS)),
                PlanItem("sso"),
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
            "3: features.a.colour: is no key here; the keys are name, type, consumable, costs, event_names, display",
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
        ("[features.a]\nevent_names = 'a'", "2: features.a.event_names: must be an array (received string)"),
        (
            "[features.a]\nevent_names = ['a',\n1]",
            "3: features.a.event_names[1]: must be a string (received number)",
        ),
        ("[features.a]\nevent_names = ['a', '']", "2: features.a.event_names: cannot be empty"),
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
            "2: plans.p.price.billing_units: only an item is sold in packs",
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


def test_the_line_of_what_the_catalog_refuses() -> None:
    """What is wrong only beside the rest of the catalog is blamed on its own line, under its name in the file."""
    file = read(EVERYTHING)
    places: list[tuple[tuple[str | int, ...], str, str]] = [
        (
            ("features", "usd_credits"),
            "credit_schema: images is not consumable",
            "14: features.usd_credits.costs",
        ),
        (
            ("plans", "pro"),
            "items[1].feature_id: Feature messages not found",
            "30: plans.pro.items[1].feature",
        ),
        (("plans", "pro"), "a sentence: without a place", "16: plans.pro"),
    ]
    for place, message, where in places:
        with pytest.raises(CatalogFileError) as refusal, file.blamed(*place):
            raise InvalidInputs(message)
        assert refusal.value.message.startswith(f"catalog.toml:{where}: ")


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
