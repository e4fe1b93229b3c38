"""What the doctor sees of Redis and SQL: is what was acknowledged safe, and does everything keep up?

Nothing is changed. What cannot be looked at is a finding too.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.balances.clock import CLOCKS_APART_MAX_MS, RedisClock
from creditgate.balances.cluster import ClusterClient, servers_of
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.journal import SYSTEM_PARTITION
from creditgate.engine.instance import check_server
from creditgate.engine.machine import Finding, Level, graded
from creditgate.engine.writer import CLOCK_SKEW_MAX_MS
from creditgate.errors import CreditgateError, StartupError, Unavailable
from creditgate.ledger.store import Ledger

SKEW_WARN_MS = 1_000
LAG_WARN_S = 5.0
LAG_BAD_S = 60.0
MEMORY_WARN = 0.7
MEMORY_BAD = 0.9

_SYNC_ADVICE = {
    "always": "",
    "everysec": "; a power cut can take back two seconds of what was acknowledged: set it to always",
    "no": "; a crash takes back what was acknowledged: set it to always",
}
_MEMORY_ADVICE = "; give it more, or fewer customers to one server: at the limit every change is refused"


async def examine_redis(redis: "Redis", place: str) -> AsyncIterator[Finding]:
    """Yield what is found of the server at `place`, or of each node of a cluster; of one that is away only that."""
    for address, server in servers_of(redis).items():
        async for finding in _examine_server(server, address or place):
            yield finding
    if isinstance(redis, ClusterClient):
        yield await _cluster(redis)


async def _examine_server(redis: "Redis", place: str) -> AsyncIterator[Finding]:
    try:
        info: Mapping[str, Any] = await redis.info()
        yield await _server(redis, f"{_kind(info)} at {place}")
        yield _persistence(info)
        yield await _sync_setting(redis)
        yield _memory(info)
        yield await _clock(redis)
    except (RedisError, OSError) as error:
        yield Finding(Level.BAD, "redis", f"{place} does not answer: {error}")


async def examine_journal(redis: "Redis", keys: Keys, ledger: Ledger) -> AsyncIterator[Finding]:
    """Yield how SQL follows Redis, and whether both hold the same history."""
    clock = RedisClock()
    store, stream = BalanceStore(redis, keys, clock), JournalStream(redis, keys)
    partitions = (SYSTEM_PARTITION, *keys.partitions)
    try:
        positions = await asyncio.to_thread(ledger.positions)
        epochs = await stream.epochs(partitions)
        differing = [
            p for p, position in positions.items() if epochs.get(p, position.journal) != position.journal
        ]
        if differing or not positions.keys() <= set(partitions):
            text = "Redis and SQL hold two different histories; name the servers that belong together"
            yield Finding(Level.BAD, "history", text)
            return
        now_ms = await clock.read(redis)
        is_running = any(until > now_ms for _, until in (await store.workers()).values())
        waiting, oldest = await stream.waiting(partitions)
        lag_s = max(0, now_ms - oldest.ms) / 1000 if oldest else 0.0
        yield _lag(waiting, lag_s, is_running=is_running)
        yield _poison(await asyncio.to_thread(ledger.poison_count))
    except Unavailable as error:
        yield Finding(Level.BAD, "sql", error.message)
    except (CreditgateError, RedisError, OSError) as error:
        yield Finding(Level.BAD, "redis", f"it does not answer any more: {error}")


async def _cluster(redis: ClusterClient) -> Finding:
    clock, missing = RedisClock(), redis.topology.slots_without_node
    if missing:
        return Finding(
            Level.BAD, "cluster", f"{missing} slots have no node; whoever lies there is not answered"
        )
    try:
        await clock.read(redis)
    except (RedisError, OSError) as error:
        return Finding(Level.BAD, "cluster", f"no node answers: {error}")
    said = f"{len(redis.primaries)} nodes, whose clocks are {clock.apart_ms} ms apart"
    if clock.apart_ms > CLOCKS_APART_MAX_MS:
        return Finding(Level.BAD, "cluster", f"{said}; set them by NTP: no batch of usage is worked off")
    return Finding(Level.OK, "cluster", said)


async def _server(redis: "Redis", said: str) -> Finding:
    try:
        await check_server(redis)
    except StartupError as error:
        return Finding(Level.BAD, "redis", f"{said}; {error.message}")
    return Finding(Level.OK, "redis", said)


def _kind(info: Mapping[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def _persistence(info: Mapping[str, Any]) -> Finding:
    if not info.get("aof_enabled"):
        text = "appendonly is off: what was acknowledged ends with the server; set appendonly yes"
        return Finding(Level.BAD, "persistence", text)
    failed = [
        name
        for name in ("aof_last_write_status", "aof_last_bgrewrite_status")
        if info.get(name, "ok") != "ok"
    ]
    if failed:
        text = f"{' and '.join(failed)}: failed; the server's log says why, mostly a full disk"
        return Finding(Level.BAD, "persistence", text)
    return Finding(Level.OK, "persistence", "appendonly is on, and its last writes went well")


async def _sync_setting(redis: "Redis") -> Finding:
    try:
        setting = (await redis.config_get("appendfsync")).get("appendfsync")
    except RedisError:  # hosted servers often do not tell
        setting = None
    if setting is None:
        text = "the server does not tell its settings; see that it is appendfsync always"
        return Finding(Level.WARN, "appendfsync", text)
    levels = {"always": Level.OK, "everysec": Level.WARN}
    return Finding(levels.get(setting, Level.BAD), "appendfsync", f"{setting}{_SYNC_ADVICE.get(setting, '')}")


def _memory(info: Mapping[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    used, limit = int(info["used_memory"]), int(info.get("maxmemory", 0))
    said = f"{used / 2**20:.0f} MiB used, maxmemory-policy {policy}"
    if policy != "noeviction":
        return Finding(Level.BAD, "memory", f"{said}: balances can be forgotten; set it to noeviction")
    if limit == 0:
        text = f"{said}, maxmemory is not set: set it, so that a full machine does not end the server"
        return Finding(Level.WARN, "memory", text)
    level = graded(used / limit, warn=MEMORY_WARN, bad=MEMORY_BAD)
    advice = "" if level is Level.OK else _MEMORY_ADVICE
    return Finding(level, "memory", f"{said}, {used / limit:.0%} of {limit / 2**20:.0f} MiB{advice}")


async def _clock(redis: "Redis") -> Finding:
    clock = RedisClock()
    await clock.read(redis)
    level = graded(abs(clock.skew_ms), warn=SKEW_WARN_MS, bad=CLOCK_SKEW_MAX_MS)
    advice = "" if level is Level.OK else "; set both by NTP: beyond 60 s nothing that falls due is stepped"
    return Finding(level, "clock", f"Redis's is {abs(clock.skew_ms)} ms off this machine's{advice}")


def _lag(entries: int, seconds: float, *, is_running: bool) -> Finding:
    if not is_running:
        text = f"no sidecar runs; {entries} entries wait in Redis for the next start"
        return Finding(Level.OK, "sql lag", text)
    level = graded(seconds, warn=LAG_WARN_S, bad=LAG_BAD_S)
    advice = "" if level is Level.OK else "; the sidecar's log says why (flush_failed)"
    return Finding(level, "sql lag", f"{entries} entries, the oldest {seconds:.1f} s{advice}")


def _poison(count: int) -> Finding:
    if count:
        text = (
            f"{count} messages of the journal could not be read and were set aside: see table poison_entries"
        )
        return Finding(Level.BAD, "poison", text)
    return Finding(Level.OK, "poison", "no message was set aside")
