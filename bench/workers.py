"""What workers give: calls a second, and the CPU of each process per call, with 32 connections.

    python bench/workers.py

Three sidecars (everything in one process; one worker; two) are asked in turns, so that what else the machine does meets
all. The flusher's work is counted until it has caught up. Prints medians and their spread, then one line of JSON. Takes
about a minute.
"""

import argparse
import asyncio
import json
import platform
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import lanes

CONNECTIONS = 32
CATCH_UP_S = 0.4
WORKERS = (0, 1, 2)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def roles(pid: int) -> dict[str, list[int]]:
    """Return the processes of a sidecar by what they do."""
    under = {child: children(child) for child in children(pid)}
    background = [child for child, its in under.items() if its]
    if not background:
        return {"worker": [pid], "valkey": list(under)}
    workers = [child for child in under if child not in background]
    return {"worker": workers, "background": background, "valkey": under[background[0]]}


def cpu_us(pids: list[int]) -> float:
    return sum(lanes.cpu_ns(pid) for pid in pids) / 1000


async def measured(server: lanes.Server, verb: str, seconds: float) -> dict[str, float]:
    """Return calls a second, and microseconds of CPU per call of each role."""
    by_role = roles(server.pid)
    before = {role: cpu_us(pids) for role, pids in by_role.items()}
    began = time.monotonic()
    count = await lanes.ask(server, verb, CONNECTIONS, seconds)
    per_s = count / (time.monotonic() - began)
    await asyncio.sleep(CATCH_UP_S)
    return {"per_s": per_s} | {role: (cpu_us(by_role[role]) - us) / count for role, us in before.items()}


async def main(rounds: int, seconds: float) -> None:
    """Measure each case with each number of workers, in turns, and print it."""
    results: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as servers:
        running = {
            number: servers.enter_context(lanes.started(lanes.START_CLI, workers=number))
            for number in WORKERS
        }
        for round_number in range(-1, rounds):
            for verb in lanes.BODIES:
                for number, server in running.items():
                    one = await measured(server, verb, seconds)
                    if round_number >= 0:  # the first round warms up
                        results.setdefault(f"{verb} --workers {number}", []).append(one)
    medians = {
        case: {name: statistics.median(one[name] for one in ones) for name in ones[0]}
        for case, ones in sorted(results.items())
    }
    for case, ones in sorted(results.items()):
        spread = (
            f"{name} {middle:.0f} ({min(one[name] for one in ones):.0f}-{max(one[name] for one in ones):.0f})"
            for name, middle in medians[case].items()
        )
        print(f"{case:20}", *(f"{text:26}" for text in spread))
    print(json.dumps({"python": platform.python_version(), "medians": medians}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.9)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.seconds))
