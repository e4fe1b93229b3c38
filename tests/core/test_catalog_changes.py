"""What a catalog file does to a catalog, and how that is told."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from creditgate.core.catalog import Catalog, CatalogDocument, Feature, Plan
from creditgate.core.catalog_changes import FileChanges, Kind, changes_by
from creditgate.core.catalog_edits import with_given
from creditgate.core.catalog_file import CatalogFile, CatalogFileError, read_catalog_file
from tests.core.words import NOW

EMPTY = Catalog(0, CatalogDocument())
TUTORIAL = """
[features.usd_credits]
type = "credit_system"
costs = { messages = "0.01", images = "0.5" }

[features.messages]

[features.images]

[features.sso]
type = "boolean"

[features.seats]
consumable = false

[plans.free]
auto_enable = true
items = [{ feature = "usd_credits", included = 5, reset = "month" }]

[plans.pro]
price = { amount = 10, interval = "month" }
items = [{ feature = "usd_credits", included = 10, reset = "month" }, { feature = "seats", included = 3 }]
"""


def file(text: str) -> CatalogFile:
    return read_catalog_file(dedent(text), "catalog.toml")


def applied(text: str, before: Catalog = EMPTY, *, prune: bool = False, now: int = NOW) -> FileChanges:
    return changes_by(file(text), before, prune=prune, now=now)


def after(text: str, before: Catalog = EMPTY) -> Catalog:
    return Catalog(before.version + 1, applied(text, before).document)


def told(changes: FileChanges) -> list[str]:
    return [str(change) for change in changes.changes]


def test_a_first_apply_creates_everything() -> None:
    """The file's order is the order of choice; a credit system may stand before its members."""
    changes = applied(TUTORIAL)
    assert told(changes) == [
        "created credit system usd_credits",
        "created feature messages",
        "created feature images",
        "created feature sso",
        "created feature seats",
        "created plan free",
        "created plan pro",
    ]
    assert [feature.id for feature in changes.document.features] == [
        *("usd_credits", "messages", "images", "sso", "seats")
    ]
    assert [(plan.id, plan.created_at, plan.version) for plan in changes.document.plans] == [
        ("free", NOW, 1),
        ("pro", NOW, 1),
    ]
    assert (changes.unchanged, changes.unnamed) == (0, ())


def test_a_second_apply_changes_nothing() -> None:
    """An apply in every deployment is harmless: the document is the same to the last field, plans keep their age."""
    before = after(TUTORIAL)
    changes = applied(TUTORIAL, before, now=NOW + 1, prune=True)
    assert changes == FileChanges(before.document, (), 7, ())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "[features.images]",
            '[features.images]\nname = "Pictures"',
            'feature images: name from "Images" to "Pictures"',
        ),
        (
            "[features.images]",
            '[features.images]\nevent_names = ["a", "b"]',
            'feature images: event_names added, "a", "b"',
        ),
        (
            "[features.images]",
            '[features.images.display]\nsingular = "é"\nplural = "és"',
            'feature images: display.singular added, "é"; display.plural added, "és"',
        ),
        ('"0.01"', '"0.02"', "credit system usd_credits: costs.messages from 0.01 to 0.02"),
        (', images = "0.5"', "", "credit system usd_credits: costs.images removed, was 0.5"),
        ("[plans.free]", '[plans.free]\nname = "Basic"', 'plan free: name from "Free" to "Basic"'),
        ("[plans.free]", '[plans.free]\ndescription = "x"', 'plan free: description added, "x"'),
        ("[plans.free]", '[plans.free]\ngroup = "a"', 'plan free: group added, "a"'),
        ("auto_enable = true", "", "plan free: auto_enable from true to false"),
        ("auto_enable = true", "auto_enable = true\nadd_on = true", "plan free: add_on from false to true"),
        (
            "[plans.free]",
            "[plans.free]\nmetadata = { a = 1, b = [0.5] }",
            "plan free: metadata.a added, 1; metadata.b added, [0.5]",
        ),
        (
            "[plans.pro]",
            '[plans.pro]\nfree_trial = { length = 14, unit = "day", on_end = "revert" }',
            "plan pro: free_trial added, 14 days, then it reverts",
        ),
        (
            "[plans.pro]",
            "[plans.pro]\nfree_trial = { length = 1, card_required = true }",
            "plan pro: free_trial added, 1 month, with a card, then it goes on",
        ),
        (
            "amount = 10,",
            'amount = "10.5",',
            "plan pro: becomes version 2; price from 10 each month to 10.5 each month",
        ),
        (
            'interval = "month" }',
            'interval = "week", interval_count = 2 }',
            "plan pro: becomes version 2; price from 10 each month to 10 every 2 weeks",
        ),
        (
            'price = { amount = 10, interval = "month" }',
            "",
            "plan pro: becomes version 2; price removed, was 10 each month",
        ),
        (
            "included = 5,",
            "included = 7,",
            "plan free: becomes version 2; items.usd_credits from 5 each month to 7 each month",
        ),
        (
            'included = 5, reset = "month"',
            "included = 5",
            "plan free: becomes version 2; items.usd_credits from 5 each month to 5 once",
        ),
        (
            'included = 5, reset = "month" }',
            'included = 5, reset = "month" }, { feature = "sso" }',
            "plan free: becomes version 2; items.sso added, on",
        ),
        (
            ', { feature = "seats", included = 3 }',
            "",
            "plan pro: becomes version 2; items.seats removed, was 3",
        ),
        (
            '{ feature = "seats", included = 3 }',
            '{ feature = "seats", price = { amount = 2, interval = "year", billing_units = 10 } }',
            "plan pro: becomes version 2; items.seats from 3 to sold at 2 for 10, each year",
        ),
        (
            'included = 10, reset = "month" }',
            'included = 10, price = { amount = 1, interval = "semi_annual" } }',
            "plan pro: becomes version 2; items.usd_credits from 10 each month to 10 each half-year, "
            "sold at 1 for 1, each half-year",
        ),
        (
            'included = 10, reset = "month" }',
            'unlimited = true, reset = "week" }',
            "plan pro: becomes version 2; items.usd_credits from 10 each month to unlimited each week",
        ),
        (
            'included = 10, reset = "month" }',
            'included = 10, reset = "month", rollover = { max = 5, months = 1 } }',
            "plan pro: becomes version 2; items.usd_credits from 10 each month to 10 each month, "
            "rolling over up to 5 for 1 month",
        ),
        (
            'included = 10, reset = "month" }',
            'included = 10, reset = "month", rollover = { max_percentage = 50, months = 2 } }',
            "plan pro: becomes version 2; items.usd_credits from 10 each month to 10 each month, "
            "rolling over up to 50 % for 2 months",
        ),
        (
            'included = 10, reset = "month" }',
            'included = 10, reset = "month", rollover = {} }',
            "plan pro: becomes version 2; items.usd_credits from 10 each month to 10 each month, "
            "rolling over for good",
        ),
        (
            "included = 3 }",
            'included = 3, price = { amount = 2, interval = "month", billing_method = "usage_based", '
            "max_purchase = 9 } }",
            "plan pro: becomes version 2; items.seats from 3 to 3, charged after use at 2 for 1, each month, at most 9",
        ),
        (
            "[plans.pro]",
            "[plans.pro.billing_controls]\nspend_limits = { usd_credits = 20 }\n"
            "overage_allowed = { usd_credits = true }\nusage_limits = [\n"
            '{ feature = "images", limit = 2, interval = "day", anchor = "utc", properties = { a = "x" } }]\n'
            'usage_alerts = [{ feature = "images", threshold = 1, threshold_type = "remaining", name = "x" }]\n'
            "[plans.pro]",
            "plan pro: billing_controls.spend_limits.usd_credits added, 20; "
            "billing_controls.usage_limits.images each day in UTC where a is x added, 2; "
            "billing_controls.overage_allowed.usd_credits added, true; "
            'billing_controls.usage_alerts.images at 1 remaining as "x" added, on',
        ),
    ],
)
def test_a_change_is_told(old: str, new: str, said: str) -> None:
    """Whoever reviews a change of prices reads which field goes from what to what, and that nothing else does."""
    before = after(TUTORIAL)
    text = TUTORIAL.replace(old, new, 1)
    assert text != TUTORIAL
    changes = applied(text, before)
    assert (told(changes), changes.unchanged) == ([f"changed {said}"], 6)
    assert told(applied(text, Catalog(2, changes.document))) == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (
            'messages = "0.01", images = "0.5"',
            'images = "0.5", messages = "0.01"',
            "credit system usd_credits",
        ),
        (
            '{ feature = "usd_credits", included = 10, reset = "month" }, { feature = "seats", included = 3 }',
            '{ feature = "seats", included = 3 }, { feature = "usd_credits", included = 10, reset = "month" }',
            "plan pro",
        ),
    ],
)
def test_another_order_is_no_other_plan(old: str, new: str, what: str) -> None:
    """Items and costs are shown in the order of the file, and mean the same in any: no new version for an order."""
    changes = applied(TUTORIAL.replace(old, new), after(TUTORIAL))
    assert told(changes) == [f"changed {what}: is in another order"]
    assert {plan.version for plan in changes.document.plans} == {1}


def test_a_reset_written_out_is_no_change() -> None:
    """What a price says already may be said again without a new version for everybody."""
    text = (
        TUTORIAL + '[plans.t]\nitems = [{ feature = "images", price = { amount = 1, interval = "one_off" } }]'
    )
    before = after(text)
    again = text.replace('feature = "images", price', 'feature = "images", reset = "one_off", price')
    assert again != text
    assert told(applied(again, before)) == []


def test_what_a_file_does_not_name() -> None:
    """A file that lacks something never takes it away unless it is told to; then it is archived, not erased."""
    before = after(TUTORIAL)
    part = TUTORIAL[: TUTORIAL.index("[plans.pro]")].replace('[features.sso]\ntype = "boolean"', "")
    kept = applied(part, before)
    assert (told(kept), kept.unchanged, kept.unnamed) == ([], 5, ("feature sso", "plan pro"))
    assert kept.document == before.document
    pruned = applied(part, before, prune=True)
    assert (told(pruned), pruned.unchanged, pruned.unnamed) == (
        ["archived feature sso", "archived plan pro"],
        5,
        (),
    )
    assert [word.id for word in _words(pruned.document) if word.archived] == [*("sso", "pro")]
    again = applied(part, Catalog(2, pruned.document), prune=True)
    assert (told(again), again.unchanged, again.unnamed) == ([], 5, ())


def test_what_comes_back_into_the_file() -> None:
    """What was archived is offered again when the file names it again, as it is written there now."""
    before = after(TUTORIAL)
    archived = Catalog(2, applied("", before, prune=True).document)
    changes = applied(TUTORIAL.replace("included = 5", "included = 6"), archived)
    assert told(changes) == [
        *(
            f"brought back {what}"
            for what in ("credit system usd_credits", "feature messages", "feature images")
        ),
        *("brought back feature sso", "brought back feature seats"),
        "brought back plan free: becomes version 2; items.usd_credits from 5 each month to 6 each month",
        "brought back plan pro",
    ]
    assert not any(word.archived for word in _words(changes.document))


def test_what_was_given_stays_given() -> None:
    """An apply never forgets that a customer holds something, or it could be erased under them."""
    before = after(TUTORIAL)
    given = Catalog(2, with_given(before, ["free"], ["images"]))
    changed = TUTORIAL.replace("included = 5", "included = 6").replace(
        "[features.images]", "[features.images]\nname = 'x'"
    )
    made = after(changed, given)
    assert (made.plan("free").given, made.feature("images").given, made.plan("free").version) == (
        True,
        True,
        2,
    )
    assert made.plan("free", 1) == replace(before.plan("free"), given=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[features.messages]\ntype = 'boolean'",
            "2: features.messages.type: messages is metered, and a type never changes",
        ),
        (
            "[features.messages]\nconsumable = false",
            "2: features.messages.consumable: messages is consumable, and that never changes",
        ),
        ("[features.usd_credits]\ntype = 'credit_system'", "1: features.usd_credits.costs: cannot be empty"),
        (
            "[features.c]\ntype = 'credit_system'\ncosts = { messages = 1, sso = 1 }",
            "3: features.c.costs: sso is not a metered feature",
        ),
        (
            "[features.c]\ntype = 'credit_system'\n[features.c.costs]\nmessages = 1\nmesages = 1",
            "5: features.c.costs.mesages: feature mesages is not in this file and not in the catalog",
        ),
        ("[features.c]\ncosts = { messages = 1 }", "2: features.c.costs: only a credit system has one"),
        (
            "[features.c]\ntype = 'boolean'\nconsumable = true",
            "3: features.c.consumable: must be false for a boolean",
        ),
        (
            "[plans.new]\nitems = [{ feature = 'messages' },\n  { feature = 'mesages' }]",
            "3: plans.new.items[1].feature: feature mesages is not in this file and not in the catalog",
        ),
        (
            "[plans.new]\n[[plans.new.items]]\nfeature = 'sso'\nincluded = 5",
            "2: plans.new.items[0]: sso is on or off; it has no included amount, reset or price",
        ),
        (
            "[plans.new]\n[[plans.new.items]]\nfeature = 'seats'\nreset = 'month'",
            "4: plans.new.items[0].reset: seats is not consumable, so it cannot reset",
        ),
        (
            "[plans.new]\nitems = [{ feature = 'sso' },\n{ feature = 'sso' }]",
            "3: plans.new.items[1]: feature sso is listed twice",
        ),
        (
            "[plans.free]\nauto_enable = true\nprice = { amount = 1, interval = 'month' }",
            "2: plans.free.auto_enable: a plan with a price cannot be enabled by itself",
        ),
        (
            "[plans.new]\n[[plans.new.items]]\nfeature = 'messages'\nrollover = {}",
            "4: plans.new.items[0].rollover: messages does not reset, so nothing rolls over",
        ),
        (
            "[plans.new.billing_controls.spend_limits]\nmessages = 1\nmesages = 1",
            "3: plans.new.billing_controls.spend_limits.mesages: feature mesages is not in this file "
            "and not in the catalog",
        ),
        (
            "[plans.new.billing_controls]\noverage_allowed.mesages = true",
            "2: plans.new.billing_controls.overage_allowed.mesages: feature mesages is not in this file "
            "and not in the catalog",
        ),
        (
            "[[plans.new.billing_controls.usage_limits]]\nfeature = 'mesages'\nlimit = 1\ninterval = 'day'",
            "2: plans.new.billing_controls.usage_limits[0].feature: feature mesages is not in this file "
            "and not in the catalog",
        ),
        (
            "[[plans.new.billing_controls.usage_alerts]]\nfeature = 'mesages'\nthreshold = 1\n"
            "threshold_type = 'usage'",
            "2: plans.new.billing_controls.usage_alerts[0].feature: feature mesages is not in this file "
            "and not in the catalog",
        ),
    ],
)
def test_what_does_not_fit_the_catalog(text: str, said: str) -> None:
    """What reads well and still cannot be is refused with its line, and nothing of the file is done."""
    with pytest.raises(CatalogFileError) as refusal:
        applied(text, after(TUTORIAL))
    assert refusal.value.message == f"catalog.toml:{said}"


def test_a_pruned_file_must_name_what_it_uses() -> None:
    """With --prune the file is the whole catalog: a plan on a feature that the same step archives is a mistake."""
    text = "[plans.new]\nitems = [{ feature = 'sso' }]"
    assert told(applied(text, after(TUTORIAL))) == ["created plan new"]
    with pytest.raises(
        CatalogFileError, match=r"2: plans\.new\.items\[0\]\.feature: feature sso is not in this file$"
    ):
        applied(text, after(TUTORIAL), prune=True)


PARTS = TUTORIAL.strip().split("\n\n")
FILES = (
    st.permutations(PARTS[3:])
    .flatmap(
        lambda rest: st.integers(0, len(rest)).map(lambda count: "\n\n".join([*PARTS[:3], *rest[:count]]))
    )
    .map(lambda text: text if "[features.seats]" in text else text.replace('"seats"', '"images"'))
)
EDITS = st.sampled_from(
    [
        ("", ""),
        ("5", "6"),
        ("month", "week"),
        ("[plans.", "[plans.x"),
        ("0.5", "0.25"),
        ("3 }", "4 }"),
        ("10,", "11,"),
    ]
)


@given(FILES, FILES, EDITS, st.booleans())
def test_told_is_done(first: str, second: str, edit: tuple[str, str], prune: bool) -> None:
    """Whatever two files say: what is told is what is done, nothing is done untold, and once is enough."""
    before, text = after(first), second.replace(*edit)
    changes = applied(text, before, prune=prune)
    assert (changes.document == before.document) is (not changes.changes)
    created = [change for change in changes.changes if change.kind is Kind.CREATED]
    assert len(_words(changes.document)) == len(_words(before.document)) + len(created)
    assert all(change.details for change in changes.changes if change.kind is Kind.CHANGED)
    again = applied(text, Catalog(2, changes.document), prune=prune)
    assert (again.changes, again.document) == ((), changes.document)


def _words(document: CatalogDocument) -> list[Feature | Plan]:
    return [*document.features, *document.plans]
