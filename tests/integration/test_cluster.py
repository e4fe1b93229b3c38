"""Redis is a cluster of three nodes: every call goes to the right one, whatever becomes of the nodes meanwhile."""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from creditgate import background, openings, operations
from creditgate.balances import clock as clock_module
from creditgate.balances.clock import CLOCKS_APART_MAX_MS, RedisClock
from creditgate.balances.cluster import ClusterClient, guarded, server_ids, servers_of
from creditgate.balances.connection import ServerChanged, ServerGuard
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.balances.topology import slot_of
from creditgate.core.amounts import NANOS
from creditgate.core.decisions import Decision, Mode
from creditgate.engine import demo
from creditgate.engine.customers import Profile
from creditgate.engine.drain import drained
from creditgate.engine.keys import CallerKey
from creditgate.engine.lease import SoleLease
from creditgate.engine.machine import Level
from creditgate.engine.usage import Usage
from creditgate.errors import Undecided
from creditgate.settings import Environment, Settings
from tests.balances.cluster_process import (
    ClusterNode,
    ClusterProcess,
    cut_off_from_its_primary,
    promote,
    wait_until_in_sync,
)
from tests.sidecar_process import run

PARTITIONS = 16
CUSTOMERS = [f"customer{number}" for number in range(48)]
COST = NANOS // 100  # credits for one message
PATIENT_S = 20.0
CATALOG = Path(demo.__file__).parent / "tutorial.toml"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterProcess]:
    """The cluster; one for the module, whose tests have a prefix each."""
    cluster = ClusterProcess()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def settings(cluster: ClusterProcess, tmp_path: Path) -> Settings:
    """Settings that name one node."""
    return Settings(data_dir=tmp_path, redis=cluster.nodes[1].url, prefix=tmp_path.name)


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[openings.Stores]:
    """Redis and SQL, opened as a sidecar does."""
    assert settings.redis is not None
    async with openings.open_stores(settings, settings.redis, make=(Environment.TEST, PARTITIONS)) as opened:
        assert isinstance(opened.redis, ClusterClient)
        yield opened


@pytest.fixture
async def cases(settings: Settings, stores: openings.Stores) -> AsyncIterator[openings.UseCases]:
    """A sidecar's engine with its background work, and customers who have 500 messages each."""
    assert settings.redis is not None
    async with (
        openings.open_use_cases(settings, settings.redis, stores) as opened,
        background.background_work(opened, stores.redis),
    ):
        await demo.load(opened.catalogs, opened.clock.now_ms())
        await asyncio.gather(*(_made(opened, name) for name in CUSTOMERS))
        yield opened


async def test_customers_of_all_nodes(
    cluster: ClusterProcess, settings: Settings, stores: openings.Stores, cases: openings.UseCases
) -> None:
    """Checks, tracks and locks of many customers land on all nodes, each once, and the operator's commands work."""
    for node in cluster.nodes:
        node.ask("CONFIG", "RESETSTAT")
    taken = await _tracked(cases, "all", 5)
    for node in cluster.nodes:
        stats = node.ask("INFO", "commandstats")
        assert stats["cmdstat_evalsha"]["calls"] >= 5 * len(CUSTOMERS) / 10
    await _check_books(settings, cases, taken)
    assert all(await asyncio.gather(*(_held(cases, name) for name in CUSTOMERS)))
    said = [finding async for finding in operations.doctor(settings)]
    assert not [finding for finding in said if finding.level is Level.BAD]
    for node in cluster.nodes:
        assert any(finding.text.endswith(f" at 127.0.0.1:{node.port}") for finding in said)
    assert any("3 nodes, whose clocks are 0 ms apart" in finding.text for finding in said)


async def test_open_connections_are_greeted_anew(stores: openings.Stores, settings: Settings) -> None:
    """A node that was a replica meanwhile keeps its connections open; what it says over them may be old."""
    assert settings.redis is not None
    guard = ServerGuard()
    guard.reconciled = frozenset(filter(None, (await server_ids(stores.redis)).values()))
    async with aclosing(guarded(stores.redis, settings.redis, guard)) as redis:
        assert await redis.exists(stores.keys.journal("sys")) == 1
        guard.reconciled = frozenset(["another"])
        with pytest.raises(ServerChanged):
            await redis.exists(stores.keys.journal("sys"))


async def test_nobody_is_alone_among_clocks_that_disagree(
    stores: openings.Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of an earlier holder may take effect for as long as the clock of its node is behind that of the lease."""
    servers = list(servers_of(stores.redis).values())
    read = clock_module._read
    ahead_ms = 500

    async def one_is_ahead(server: "Redis") -> clock_module._Reading:
        reading = await read(server)
        return reading._replace(told=reading.told + ahead_ms) if server is servers[0] else reading

    monkeypatch.setattr(clock_module, "_read", one_is_ahead)
    clock = RedisClock()
    now_ms = await clock.read(stores.redis)
    assert now_ms >= await read_ms(servers[1]) + ahead_ms - 200
    assert ahead_ms - 200 <= clock.apart_ms <= ahead_ms
    lease = SoleLease(BalanceStore(stores.redis, stores.keys, clock), clock, "work", ttl_ms=200)
    began = time.monotonic()
    while not lease.is_alone:
        assert await lease.hold()
        await asyncio.sleep(0.02)
    assert time.monotonic() - began >= CLOCKS_APART_MAX_MS / 1000
    ahead_ms = CLOCKS_APART_MAX_MS + 500
    await clock.read(stores.redis)
    assert not lease.is_alone


async def read_ms(server: "Redis") -> int:
    """Return the time of a server in ms."""
    seconds, micros = await server.time()
    return int(seconds) * 1000 + int(micros) // 1000


@pytest.mark.slow
def test_the_operators_commands(cluster: ClusterProcess, tmp_path: Path) -> None:
    """What an operator does to the data works on all nodes, whichever is named."""
    flags = ["--redis", cluster.nodes[2].url, "--prefix", tmp_path.name, "--data-dir", str(tmp_path)]
    there = ["--to-redis", cluster.nodes[0].url, "--to-database", f"sqlite:///{tmp_path / 'to.db'}"]
    for command in (
        ["init", "--partitions", "64"],
        ["apply", str(CATALOG)],
        ["doctor"],
        ["backup", str(tmp_path / "backup")],
        ["rebuild", "--partitions", "24"],
        ["verify"],
        ["move", *there, "--to-prefix", f"{tmp_path.name}-moved"],
    ):
        ended = run(*command, *flags)
        assert ended.returncode == 0, ended.stdout + ended.stderr


async def test_slots_move_under_load(
    cluster: ClusterProcess, settings: Settings, stores: openings.Stores, cases: openings.UseCases
) -> None:
    """While slots move from node to node, each call is taken once: none is lost, and none goes to a half-empty node.
    Who repeats one is told what it took, whichever node has its entry by now."""
    slots = [slot_of(stores.keys.journal(partition)) for partition in ("sys", *stores.keys.partitions[::2])]

    async def move_all() -> None:
        for number, slot in enumerate(slots):
            await asyncio.to_thread(cluster.move_slot, slot, cluster.nodes[number % 3])

    moving = asyncio.create_task(move_all())
    taken: Counter[str] = Counter()
    rounds = 0
    while not moving.done() or rounds < 5:
        rounds += 1
        first, again = [
            await asyncio.gather(*(_tracked_once(cases, name, f"{name}-{rounds}") for name in CUSTOMERS))
            for _ in range(2)
        ]
        assert all(decision.is_replay for decision in again)
        assert [decision.moved for decision in again] == [decision.moved for decision in first]
        taken.update(CUSTOMERS)
    await moving
    await _check_books(settings, cases, taken)


async def test_a_node_is_killed_and_comes_back(
    cluster: ClusterProcess, settings: Settings, stores: openings.Stores, cases: openings.UseCases
) -> None:
    """While a node is away the customers of the others are answered; what it lost is put back before it answers."""
    taken = await _tracked(cases, "before", 1)
    node = cluster.nodes[1]  # the one that our settings name
    there = [name for name in CUSTOMERS if _holder(cluster, stores, name) is node]
    elsewhere = [name for name in CUSTOMERS if name not in there]
    working = [asyncio.create_task(_tracked_once(cases, name, "killed")) for name in CUSTOMERS]
    await asyncio.sleep(0)
    node.kill()
    await asyncio.gather(*(_tracked_once(cases, name, "others") for name in elsewhere))
    with pytest.raises(Undecided):
        await cases.meter.track(Usage("track", there[0], "basic_messages", None, NANOS, Mode.CAP))
    node.start()  # not in a thread, with which it would end
    await asyncio.gather(*working)
    taken.update([*CUSTOMERS, *elsewhere])
    await _check_books(settings, cases, taken)

    await drained(stores.keys, JournalStream(stores.redis, stores.keys), stores.ledger)
    node.kill()
    shutil.rmtree(node.directory / "appendonlydir")
    node.start()  # not in a thread, with which it would end
    await asyncio.gather(*(_tracked_once(cases, name, "emptied") for name in CUSTOMERS))
    taken.update(CUSTOMERS)
    await _check_books(settings, cases, taken)


async def test_a_replica_that_lags_is_promoted(
    cluster: ClusterProcess, settings: Settings, stores: openings.Stores, cases: openings.UseCases
) -> None:
    """What was flushed is put back into a primary that has never heard of it: into one that was none before, and into
    one that was reconciled as a primary, was a replica meanwhile, and is the same process all the time."""
    first = cluster.nodes[0]
    second = cluster.add_replica(first)
    taken = await _tracked(cases, "before", 1)
    for primary, replica in ((first, second), (second, first)):
        cut_off_from_its_primary(replica, primary)
        taken += await _tracked(cases, primary.id, 2)
        await drained(stores.keys, JournalStream(stores.redis, stores.keys), stores.ledger)
        promote(replica)
        await asyncio.gather(*(_tracked_once(cases, name, replica.id) for name in CUSTOMERS))
        taken.update(CUSTOMERS)
        await _check_books(settings, cases, taken)
        await cases.reconciler.follow()
        await asyncio.to_thread(wait_until_in_sync, primary)


def _holder(cluster: ClusterProcess, stores: openings.Stores, name: str) -> ClusterNode:
    slot = slot_of(stores.keys.record(name))
    return next(node for node in cluster.nodes if node.holds(slot))


async def _made(cases: openings.UseCases, name: str) -> None:
    """Make a customer, again until that is decided: the test before may have left a node that just came back."""
    async with asyncio.timeout(PATIENT_S):
        while True:
            with suppress(Undecided):
                await cases.customers.get_or_create(name, Profile())
                return


async def _tracked_once(cases: openings.UseCases, name: str, key: str) -> Decision:
    """Track a message under an idempotency key, again until it is decided."""
    caller_key = CallerKey("track:header", key, "abcd")
    usage = Usage("track", name, "basic_messages", None, NANOS, Mode.CAP, key=caller_key)
    async with asyncio.timeout(PATIENT_S):
        while True:
            with suppress(Undecided):
                decision = await cases.meter.track(usage)
                assert decision.allowed
                return decision


async def _tracked(cases: openings.UseCases, label: str, times: int) -> Counter[str]:
    """Track a message so many times for each customer, all at once; returns how many each has taken."""
    keys = [f"{label}-{number}" for number in range(times)]
    await asyncio.gather(*(_tracked_once(cases, name, key) for name in CUSTOMERS for key in keys))
    return Counter(dict.fromkeys(CUSTOMERS, times))


async def _held(cases: openings.UseCases, name: str) -> bool:
    usage = Usage("hold", name, "basic_messages", None, NANOS, Mode.CAP)
    held = await cases.holds.hold(usage, hold_id=f"lock-{name}", expires_at=None)
    return held.allowed


async def _check_books(settings: Settings, cases: openings.UseCases, taken: Counter[str]) -> None:
    """Every balance is what was given less what was taken, and the sum of its history."""
    for name in CUSTOMERS:
        record = await cases.customers.get(name)
        assert sum(record.balances.values()) == 5 * NANOS - taken[name] * COST, name
    async with operations.open_verifier(settings) as verifier:
        proof = await verifier.verify()
    assert proof.holds, proof.differences
