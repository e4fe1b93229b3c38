"""The faults by name."""

import asyncio
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress

from redis.exceptions import RedisError

from tests.faults import servers
from tests.faults.proxy import Mode
from tests.faults.stand import Stand
from tests.faults.trial import Act, Fault

FAULT_S = 1.5
BEYOND_LEASES_S = 7.0

ERRORS = {
    "LOADING": "LOADING server is loading the dataset in memory",
    "BUSY": "BUSY server is busy running a script",
    "READONLY": "READONLY You can't write against a read only replica.",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF": "MISCONF Errors writing to the AOF file: No space left on device",
    "NOAUTH": "NOAUTH Authentication required.",
    "CLUSTERDOWN": "CLUSTERDOWN The cluster is down",
}


def proxied(mode: Mode, *, delay_s: float = 0.0, error: str = "", seconds: float = FAULT_S) -> Act:
    """Have the proxy fail for a while."""

    async def act(stand: Stand) -> None:
        with stand.proxy.failing(mode, delay_s=delay_s, error=error):
            await asyncio.sleep(seconds)

    return act


def killed(pid_of: Callable[[Stand], int]) -> Act:
    """Kill -9 one process, for somebody else to bring it back."""

    async def act(stand: Stand) -> None:
        os.kill(pid_of(stand), signal.SIGKILL)
        await asyncio.sleep(0.1)  # until the kernel has told the others

    return act


def paused(pid_of: Callable[[Stand], int], seconds: float) -> Act:
    """SIGSTOP one process, and SIGCONT."""

    async def act(stand: Stand) -> None:
        pid = pid_of(stand)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return act


async def kill_everything(stand: Stand) -> None:
    """Kill -9 the supervisor, and with it all; start again."""
    await asyncio.to_thread(stand.sidecar.kill)
    await asyncio.to_thread(stand.sidecar.start)


async def kill_own_redis(stand: Stand) -> None:
    """Kill -9 the Valkey that is ours; start it half a second later."""
    assert stand.valkey is not None
    stand.valkey.kill()
    await asyncio.sleep(0.5)
    await asyncio.to_thread(stand.valkey.start)


async def flush_all(stand: Stand) -> None:
    """Redis forgets everything, without a restart."""
    with stand.redis() as client:
        await asyncio.to_thread(client.flushall)


async def older_redis(stand: Stand) -> None:
    """Redis comes back with the append-only file of a second ago."""
    assert stand.valkey is not None
    log = stand.valkey.directory / "appendonlydir"
    shutil.copytree(log, stand.valkey.directory / "older")
    await asyncio.sleep(1.0)
    stand.valkey.kill()
    shutil.rmtree(log)
    (stand.valkey.directory / "older").rename(log)
    await asyncio.to_thread(stand.valkey.start)


async def out_of_memory(stand: Stand) -> None:
    """Redis has no memory left to write."""
    with stand.redis() as client:
        client.config_set("maxmemory", "1mb")
        await asyncio.sleep(FAULT_S)
        client.config_set("maxmemory", "0")


async def read_only(stand: Stand) -> None:
    """Redis is made the replica of nobody who answers, and a primary again."""
    with stand.redis() as client:
        client.replicaof("127.0.0.1", "1")
        await asyncio.sleep(FAULT_S)
        client.replicaof("NO", "ONE")


async def no_rights(stand: Stand) -> None:
    """Somebody takes the right to run scripts away."""
    with stand.redis() as client:
        client.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        await asyncio.sleep(FAULT_S)
        client.execute_command("ACL", "SETUSER", "default", "+evalsha", "+eval")


async def busy(stand: Stand) -> None:
    """A script that somebody else runs does not end."""
    with stand.redis() as client, stand.redis() as other:
        endless = asyncio.create_task(asyncio.to_thread(_run_endless, client))
        await asyncio.sleep(FAULT_S)
        with suppress(RedisError):
            other.script_kill()
        await endless


def _run_endless(client: object) -> None:
    with suppress(RedisError):
        client.eval("while true do end", 0)  # type: ignore[attr-defined]


async def forgotten_scripts(stand: Stand) -> None:
    """SCRIPT FLUSH, again and again."""
    with stand.redis() as client:
        for _ in range(20):
            client.script_flush()
            await asyncio.sleep(0.05)


async def sql_locked(stand: Stand, seconds: float = 6.0) -> None:
    """Somebody else writes to the SQLite file for longer than anybody waits."""
    with closing(sqlite3.connect(stand.ledger, isolation_level=None, timeout=20)) as other:
        other.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(seconds)
        other.execute("ROLLBACK")


async def disk_full(stand: Stand) -> None:
    """There is not a byte left on the disk of the data, then there is again."""
    filler = stand.disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0" * 4096)
    try:
        await asyncio.sleep(3.0)
    finally:
        filler.unlink()


async def power_cut(stand: Stand) -> None:
    """Redis ends, and of its file only that is left which a sync that finished has covered."""
    assert stand.valkey is not None
    stand.valkey.kill()
    await asyncio.sleep(0.5)  # until the rest was told
    [log] = (stand.valkey.directory / "appendonlydir").glob("*.incr.aof")
    synced, size = servers.synced_bytes(stand.directory, log), log.stat().st_size
    assert 0 < synced <= size, "the syncs were not seen"
    os.truncate(log, synced)
    await asyncio.to_thread(stand.valkey.start)


async def clock_jumps(stand: Stand) -> None:
    """The clock of Redis is ahead for a while, then late, then right."""
    with stand.redis() as client:
        for error in (10, -10, 0):
            (stand.directory / servers.CLOCK).write_text(f"{error:+}s")
            await asyncio.sleep(FAULT_S)
            assert abs(client.time()[0] - time.time() - error) < 3, "the clock did not jump"


async def slow_syncs(_stand: Stand) -> None:
    """It is the server that is slow, all the time."""
    await asyncio.sleep(2 * FAULT_S)


def _unless_root() -> str:
    return "" if os.geteuid() == 0 else "only root may mount a tmpfs"


PROXIED = [
    Fault("Redis answers after 50 ms", proxied(Mode.DELAY, delay_s=0.05)),
    Fault("Redis answers after 200 ms", proxied(Mode.DELAY, delay_s=0.2)),
    Fault("Redis answers after 1 s", proxied(Mode.DELAY, delay_s=1.0)),
    Fault("replies are lost", proxied(Mode.LOSE)),
    Fault("replies are cut in half", proxied(Mode.HALF)),
    Fault("black hole", proxied(Mode.HOLE, seconds=4.0)),
    Fault("connections are reset", proxied(Mode.RESET)),
    *(Fault(f"Redis says {name}", proxied(Mode.ERROR, error=text)) for name, text in ERRORS.items()),
]

OWN = [
    Fault("SCRIPT FLUSH", forgotten_scripts),
    Fault("memory is full (maxmemory)", out_of_memory),
    Fault("made a replica, then a primary", read_only),
    Fault("rights taken away (ACL)", no_rights),
    Fault("a script does not end (BUSY)", busy),
    Fault("kill -9 Redis of your own", kill_own_redis),
    Fault("FLUSHALL", flush_all, loses_data=True),
    Fault("Redis comes back older than SQL", older_redis, loses_data=True),
    Fault("SQL is locked", sql_locked, is_of_sql=True),
    Fault(
        "the disk syncs slowly",
        slow_syncs,
        server=servers.with_slow_fsync,
        missing=lambda: servers.missing("strace"),
    ),
    Fault(
        "power cut",
        power_cut,
        server=servers.with_watched_syncs,
        missing=lambda: servers.missing("strace"),
    ),
    Fault(
        "the clock of Redis jumps",
        clock_jumps,
        server=servers.with_a_clock,
        missing=lambda: servers.missing(str(servers.FAKETIME)),
    ),
    Fault("SQL's disk is full", disk_full, disk_mb=32, is_of_sql=True, missing=_unless_root),
]

PROCESSES = [
    Fault("kill -9 a worker", killed(lambda s: s.dice.choice(s.sidecar.worker_pids)), embedded=True),
    Fault("kill -9 the background process", killed(lambda s: s.sidecar.background_pid), embedded=True),
    Fault("kill -9 embedded Valkey", killed(lambda s: s.sidecar.valkey_pid), embedded=True),
    Fault("kill -9 everything, start again", kill_everything, embedded=True),
    Fault("pause a worker", paused(lambda s: s.dice.choice(s.sidecar.worker_pids), FAULT_S), embedded=True),
    Fault(
        "pause the background process",
        paused(lambda s: s.sidecar.background_pid, BEYOND_LEASES_S),
        embedded=True,
    ),
    Fault("pause embedded Valkey", paused(lambda s: s.sidecar.valkey_pid, FAULT_S), embedded=True),
    Fault("pause the supervisor", paused(lambda s: s.sidecar.pids[0], FAULT_S), embedded=True),
    Fault("the disk of all data is full", disk_full, embedded=True, disk_mb=64, missing=_unless_root),
]

FAULTS = [*PROXIED, *OWN, *PROCESSES]
