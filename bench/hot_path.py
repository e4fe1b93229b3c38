"""What check and track cost in the sidecar's process and in its Valkey, in CPU time for each call.

    python bench/hot_path.py                     # this checkout
    python bench/hot_path.py --against DIR       # and another checkout in turns, as ratios

Each run is a process of its own on an embedded Valkey of its own (a private directory, a Unix socket) with 1000
customers; calls go to `Meter` without HTTP, at 1, 32, 64 and 256 at a time, from tasks; and 64 at a time for one of the
customers, to be compared with 64 for as many: those go to Redis as one script each. CPU time is that of the scheduler
(/proc/PID/schedstat, all threads), since others may use the machine: compare figures of one interleaved run only.
Prints one line of JSON for each case: microseconds of the process and of Valkey for each call, the median of the rounds
and their spread; `undecided` is how many calls of how many got no answer in time. Takes less than a minute.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

CUSTOMERS = 1_000
ROUNDS = 3
CALLS = {1: 400, 32: 3_200, 64: 3_840, 256: 5_120}
ONE_CUSTOMER_CALLS = {64: 7_680}
WARM_UP_CALLS = 500
HERE = Path(__file__).resolve().parent.parent
COUNT_AGAIN = "--once"  # what the processes of the runs are started with


def main() -> None:
    """Run the rounds in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout")
    parser.add_argument(COUNT_AGAIN, action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        _once()
        return
    sources = [HERE, *([chosen.against.resolve()] if chosen.against else [])]
    runs: list[list[dict[str, list[float]]]] = [[] for _ in sources]
    for _ in range(ROUNDS):
        for source, found in zip(sources, runs, strict=True):
            found.append(_run(source))
    for case in runs[0][0]:
        print(json.dumps(dict(_said(case, [[run[case] for run in found] for found in runs]))))


def _run(source: Path) -> dict[str, list[float]]:
    environment = {**os.environ, "PYTHONPATH": str(source / "src")}
    command = [sys.executable, __file__, COUNT_AGAIN]
    ended = subprocess.run(  # noqa: S603 — this file itself
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    figures: dict[str, list[float]] = json.loads(ended.stdout)
    return figures


def _said(case: str, found: list[list[list[float]]]) -> Iterator[tuple[str, object]]:
    """Yield the figures of one case: of this checkout, and what the other one needs in comparison."""
    yield "case", case
    for place, name in enumerate(("python_us", "valkey_us")):
        medians = [statistics.median(figures[place] for figures in runs) for runs in found]
        ours = [figures[place] for figures in found[0]]
        yield name, round(medians[0], 1)
        yield f"{name}_spread", [round(min(ours), 1), round(max(ours), 1)]
        if len(medians) > 1:
            yield f"{name}_against", round(medians[1], 1)
            yield f"{name}_ratio", round(medians[1] / medians[0], 2)
    yield (
        "undecided",
        [f"{sum(run[2] for run in runs):.0f} of {sum(run[3] for run in runs):.0f}" for runs in found],
    )


def _once() -> None:
    import uvloop

    directory = Path(tempfile.mkdtemp(prefix="cgb"))
    try:
        print(json.dumps(uvloop.run(_measure(directory))))
    finally:
        shutil.rmtree(directory)


async def _measure(directory: Path) -> dict[str, list[float]]:
    from creditgate import openings
    from creditgate.core.amounts import NANOS
    from creditgate.core.decisions import Decision, Mode
    from creditgate.engine import demo
    from creditgate.engine.customers import Grant, Profile
    from creditgate.engine.meter import Usage
    from creditgate.settings import Environment, Settings

    settings = Settings(data_dir=directory / "d")
    async with (
        openings.embedded_redis(settings) as redis_url,
        openings.open_stores(settings, redis_url, make=(Environment.TEST, 8)) as stores,
        openings.open_use_cases(settings, redis_url, stores) as cases,
    ):
        await demo.load(cases.catalogs, cases.clock.now_ms())
        names = [f"customer_{number}" for number in range(CUSTOMERS)]
        for name in names:
            await cases.customers.get_or_create(name, Profile())
            await cases.customers.grant(Grant(name, "usd_credits", 10_000 * NANOS))

        def check(number: int) -> Awaitable[Decision]:
            return cases.meter.check(
                customer_id=names[number % CUSTOMERS], feature_id="premium_messages", required_nanos=NANOS
            )

        def track(number: int) -> Awaitable[Decision]:
            name = names[number % CUSTOMERS]
            return cases.meter.track(Usage("track", name, "premium_messages", None, NANOS, Mode.CAP))

        def track_one_customer(number: int) -> Awaitable[Decision]:
            return track(number * CUSTOMERS)

        server_pid = int((await stores.redis.info("server"))["process_id"])
        found = {}
        for verb, loads in ((check, CALLS), (track, CALLS), (track_one_customer, ONE_CUSTOMER_CALLS)):
            await _calls(verb, WARM_UP_CALLS, 32)
            for at_a_time, calls in loads.items():
                before = _cpu_us("self"), _cpu_us(server_pid)
                undecided = await _calls(verb, calls, at_a_time)
                after = _cpu_us("self"), _cpu_us(server_pid)
                found[f"{verb.__name__} c={at_a_time}"] = [
                    *((end - begin) / calls for begin, end in zip(before, after, strict=True)),
                    undecided,
                    calls,
                ]
        return found


async def _calls(verb: Callable[[int], Awaitable[object]], calls: int, at_a_time: int) -> int:
    """Make the calls, and return how many were not decided."""
    from creditgate.errors import Undecided

    async def caller(first: int) -> int:
        undecided = 0
        for number in range(first, calls, at_a_time):
            try:
                await verb(number)
            except Undecided:
                undecided += 1
        return undecided

    return sum(await asyncio.gather(*(caller(first) for first in range(at_a_time))))


def _cpu_us(process: int | str) -> float:
    """Return the CPU time of all threads of a process so far."""
    spent = 0
    for thread in Path(f"/proc/{process}/task").iterdir():
        spent += int((thread / "schedstat").read_text().split()[0])
    return spent / 1000


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(json.dumps({"took_s": round(time.monotonic() - began, 1)}), file=sys.stderr)
