"""Applying a catalog file: one step or none, once is enough, and every sidecar answers by it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from textwrap import dedent
from typing import Any

import pytest
from structlog.testing import capture_logs

from creditgate import openings
from creditgate.core.amounts import NANOS
from creditgate.core.catalog import Feature, FeatureType
from creditgate.core.catalog_changes import FileChanges
from creditgate.core.catalog_file import CatalogFile, CatalogFileError, read_catalog_file
from creditgate.core.decisions import Mode
from creditgate.engine import demo
from creditgate.engine.customers import Profile
from creditgate.engine.usage import Usage
from creditgate.engine.workers import HEARTBEAT_TTL_MS, SEEN_TIMEOUT_S
from creditgate.settings import Settings

HANGS_MS = 10 * HEARTBEAT_TTL_MS  # for as long as a worker still counts

NEW_PRICES = """
[features.usd_credits]
type = "credit_system"
costs = { basic_messages = "0.02", images = "0.5" }

[features.images]

[plans.free]
auto_enable = true
items = [{ feature = "usd_credits", included = 7, reset = "month" }]
"""


def file(text: str) -> CatalogFile:
    return read_catalog_file(dedent(text), "catalog.toml")


async def apply(cases: openings.UseCases, text: str, *, prune: bool = False) -> FileChanges:
    return await cases.catalogs.apply(file(text), now_ms=cases.clock.now_ms(), prune=prune)


async def _written(stores: openings.Stores) -> tuple[int, int]:
    """The version of the catalog, and how many entries the journal has that belong to no customer."""
    version = int(await stores.redis.hget(stores.keys.documents("catalog"), "version") or 0)
    return version, await stores.redis.xlen(stores.keys.journal("sys"))


async def test_a_file_is_one_change(cases: openings.UseCases, stores: openings.Stores) -> None:
    """Whatever a file changes is one version and one entry of the journal, so half of it is never answered by."""
    version, entries = await _written(stores)
    applied = await apply(cases, NEW_PRICES)
    assert len(applied.changes) == 3
    assert await _written(stores) == (version + 1, entries + 1)
    assert cases.catalogs.current.document == applied.document


async def test_a_second_time_writes_nothing(cases: openings.UseCases, stores: openings.Stores) -> None:
    """A deployment that applies its file each time leaves no trace where nothing changed."""
    await apply(cases, NEW_PRICES)
    before = await _written(stores)
    for _ in range(2):
        applied = await apply(cases, NEW_PRICES)
        assert (applied.changes, applied.unchanged) == ((), 3)
    assert await _written(stores) == before


@pytest.mark.parametrize(
    "mistake",
    [
        "[plans.last]\nitems = [{ feature = 'nothing' }]",
        "[plans.last]\nauto_enable = true\nprice = { amount = 1, interval = 'month' }",
        "[features.premium_messages]\ntype = 'boolean'",
    ],
)
async def test_one_mistake_and_nothing_is_done(
    cases: openings.UseCases, stores: openings.Stores, mistake: str
) -> None:
    """A file with good changes before its mistake changes nothing at all."""
    before, catalog = await _written(stores), cases.catalogs.current
    with pytest.raises(CatalogFileError, match=r"^catalog\.toml:\d+: "):
        await apply(cases, NEW_PRICES + mistake)
    assert await _written(stores) == before
    assert cases.catalogs.current is catalog


async def test_two_files_at_once(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings
) -> None:
    """Two teams that apply their own files through two sidecars lose nothing, and no other change of the catalog."""
    assert settings.redis is not None
    async with openings.open_use_cases(settings, settings.redis, stores) as other:
        await asyncio.gather(
            apply(cases, "[features.a]\n[features.b]\n[plans.p]"),
            apply(other, "[features.c]\n[plans.q]\nitems = [{ feature = 'c', included = 1 }]"),
            other.catalogs.create_feature(Feature("d", "D", FeatureType.METERED, consumable=True)),
        )
        catalog = await cases.catalogs.refresh()
    assert {"a", "b", "c", "d", "usd_credits"} <= catalog.features.keys()
    assert {"p", "q", "free"} <= catalog.plans.keys()


async def test_another_sidecar_answers_by_it_at_once(
    cases: openings.UseCases, stores: openings.Stores, settings: Settings
) -> None:
    """When an apply has returned, a sidecar that was serving all along charges the new price."""
    assert settings.redis is not None
    await cases.customers.get_or_create("ann", Profile())
    async with (
        openings.open_use_cases(settings, settings.redis, stores) as other,
        other.catalogs.following(),
    ):
        await apply(cases, NEW_PRICES)
        decision = await other.meter.check(
            Usage("check", "ann", "basic_messages", None, 100 * NANOS, Mode.REJECT)
        )
    assert decision.required_nanos == 2 * NANOS


async def test_customers_keep_their_version(cases: openings.UseCases) -> None:
    """Who has the free plan keeps its five credits; who comes after the apply gets seven."""
    await cases.customers.get_or_create("ann", Profile())
    await apply(cases, NEW_PRICES)
    await cases.customers.get_or_create("bob", Profile())
    for customer_id, version, granted in (("ann", 1, 5), ("bob", 2, 7)):
        record = await cases.customers.get(customer_id)
        assert [(s.plan_id, s.plan_version) for s in record.customer.subscriptions] == [("free", version)]
        assert list(record.balances.values()) == [granted * NANOS]


async def test_what_was_pruned_is_not_offered(cases: openings.UseCases) -> None:
    """An archived plan enables itself for nobody and stays with those who have it; named again, it is offered again."""
    await cases.customers.get_or_create("ann", Profile())
    await apply(
        cases, "[features.usd_credits]\ntype = 'credit_system'\ncosts = { a = 1 }\n[features.a]", prune=True
    )
    await cases.customers.get_or_create("bob", Profile())
    await cases.catalogs.apply(demo.tutorial(), now_ms=cases.clock.now_ms())
    await cases.customers.get_or_create("cid", Profile())
    held = [
        len((await cases.customers.get(customer_id)).customer.subscriptions)
        for customer_id in ("ann", "bob", "cid")
    ]
    assert held == [1, 0, 1]


async def test_the_demo_leaves_what_is_there(cases: openings.UseCases, stores: openings.Stores) -> None:
    """Starting with --demo again neither undoes what somebody tried out meanwhile nor writes anything."""
    await apply(cases, NEW_PRICES)
    await cases.catalogs.delete_plan("top_up")
    await demo.load(cases.catalogs, cases.clock.now_ms())
    catalog = cases.catalogs.current
    assert catalog.plan("free").items[0].included_nanos == 7 * NANOS
    assert "top_up" in catalog.plans
    before = await _written(stores)
    await demo.load(cases.catalogs, cases.clock.now_ms())
    assert await _written(stores) == before


async def test_a_worker_that_hangs_is_not_waited_for_long(
    cases: openings.UseCases, stores: openings.Stores
) -> None:
    """A change is answered within a second of a worker that does not follow; one long gone is not waited for."""
    workers = stores.keys.workers()
    now = cases.clock.now_ms()
    await stores.redis.hset(workers, mapping={"gone": f"0 {now - 1}"})
    with capture_logs() as logs:
        await apply(cases, "[features.a]")
    assert _given_up(logs) == []
    await stores.redis.hset(workers, mapping={"hangs": f"0 {now + HANGS_MS}"})
    began = time.monotonic()
    with capture_logs() as logs:
        await apply(cases, "[features.b]")
    assert SEEN_TIMEOUT_S <= time.monotonic() - began < HANGS_MS / 1000
    assert _given_up(logs) == [["hangs"]]


def _given_up(logs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Whom a change was waited for in vain."""
    return [entry["behind"] for entry in logs if entry["event"] == "catalog_not_seen_by_all"]
