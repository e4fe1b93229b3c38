"""Every fault under load, one at a time, and a table of what was found.

    python -m tests.faults.run --minutes 10 --seed 7          each fault, again and again
    python -m tests.faults.run --only kill --minutes 2        those whose name has this word
    python -m tests.faults.run --soak 30                      one sidecar, a random fault every 20 seconds

Ends with 1 if an acknowledged call was lost, a call had two effects or one that it was told it had not, a balance is
not what it must be, or `creditgate verify` finds a difference.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

from tests.faults.catalog import FAULTS, PROCESSES, PROXIED
from tests.faults.trial import Fault, Outcome, try_faults

SOAK_EVERY_S = 20.0
BLACK_HOLE = "black hole"
HEAD = (
    "| Fault | Runs | Acknowledged | of these kept for later | Undecided | Lost | Doubled | Overspent "
    "| Answers again after, s | p99 meanwhile, s |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def row(name: str, outcomes: Sequence[Outcome]) -> str:
    """Return one row of the table: of the recoveries the longest, sums of the rest."""
    findings = [outcome.findings for outcome in outcomes if outcome.findings is not None]
    kept = sum(outcome.kept for outcome in outcomes)
    seconds = [answer.seconds for outcome in outcomes for answer in outcome.meanwhile]
    slow = f"{statistics.quantiles(seconds, n=100)[98]:.2f}" if len(seconds) > 1 else "–"
    lost, gone = (sum(len(getattr(found, what)) for found in findings) for what in ("lost", "gone"))
    cells = (
        name,
        len(outcomes),
        sum(outcome.acknowledged for outcome in outcomes) + kept,
        kept,
        sum(outcome.undecided for outcome in outcomes),
        f"{lost} (and {gone} not flushed)" if gone else lost,
        sum(len(found.doubled) for found in findings),
        sum(len(found.overspent) for found in findings),
        f"{max(second for outcome in outcomes for second in outcome.recovery_s):.2f}",
        slow,
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def summary(outcomes: Sequence[Outcome], faults: int, seed: int) -> str:
    """Return what the whole table comes to, and the figures that are not of one row."""
    acknowledged = sum(outcome.acknowledged + outcome.kept for outcome in outcomes)
    found = [outcome.findings for outcome in outcomes if outcome.findings is not None]
    lost, doubled, overspent = (
        sum(len(getattr(findings, what)) for findings in found) for what in ("lost", "doubled", "overspent")
    )
    appendfsync = ", ".join(sorted({outcome.appendfsync for outcome in outcomes}))
    verified = sum(outcome.verified for outcome in outcomes)
    lines = [
        f"seed {seed}: {faults} faults, tried {sum(len(outcome.recovery_s) for outcome in outcomes)} times,"
        f" appendfsync {appendfsync}",
        f"{acknowledged} calls acknowledged: {lost} lost, {doubled} doubled, {overspent} customers overspent;"
        f" verify finds no difference in {verified} of {len(outcomes)}",
        *_of_black_hole(outcomes),
        *_growth(outcomes),
        "(fuzz: tests/api/test_made_up_calls.py; wrong versions that tests catch: make mutants)",
    ]
    return "\n".join(lines)


def _of_black_hole(outcomes: Sequence[Outcome]) -> Iterator[str]:
    holes = [outcome for outcome in outcomes if outcome.name == BLACK_HOLE]
    answers = [answer for hole in holes for answer in hole.meanwhile if answer.status != 200]
    if len(answers) > 1:
        slow = statistics.quantiles([answer.seconds for answer in answers], n=100)[98]
        kept = sum(answer.status == 202 for answer in answers)
        yield (
            f"black hole: {len(answers)} calls that could not be decided ({len(answers) - kept} refused, the rest"
            f" answered 202), 99 of 100 within {slow:.2f} s"
        )


def _growth(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield what grew while SQL was away, for each time."""
    for outcome in outcomes:
        if outcome.entries_max:
            yield (
                f"{outcome.name}: {outcome.entries_max} entries in the streams and {outcome.resident_mb_max:.0f} MB"
                f" of the sidecar's processes at most; then {outcome.drain_rows_s:.0f} rows/s,"
                f" all in SQL {outcome.drain_s:.1f} s after the last call"
            )


async def run_all(faults: Sequence[Fault], seed: int, minutes: float) -> bool:
    """Try each fault once, and again until the time is over; print each that finds something, then the table."""
    dice = random.Random(seed)
    found: dict[str, list[Outcome]] = {}
    ends_at, is_good = time.monotonic() + 60 * minutes, True
    possible = [fault for fault in faults if not fault.missing()]
    for fault in faults:
        if why := fault.missing():
            print(f"SKIPPED {fault.name}: {why}")
    while True:
        for fault in dice.sample(possible, len(possible)):
            try:
                outcome = await try_faults([fault], dice)
            except AssertionError as error:  # such as a sidecar that does not start on a Redis that is slow
                is_good = False
                print(f"NOT TRIED {fault.name}: {error}", flush=True)
                continue
            found.setdefault(fault.name, []).append(outcome)
            if not outcome.is_good:
                is_good = False
                print(f"FOUND {fault.name}: {outcome.findings} {outcome.said}", flush=True)
            if len(found) == len(possible) and time.monotonic() > ends_at:
                break
        if time.monotonic() > ends_at:
            break
    print(HEAD)
    for name in (fault.name for fault in possible if fault.name in found):
        print(row(name, found[name]))
    print(summary([outcome for outcomes in found.values() for outcome in outcomes], len(found), seed))
    return is_good


async def soak(dice: random.Random, minutes: float, every_s: float) -> bool:
    """Two stands one after the other, half of the time each: faults of Redis and the network, faults of processes."""
    is_good = True
    for name, faults in (("soak: Redis and network", PROXIED), ("soak: processes", PROCESSES)):
        possible = [fault for fault in faults if not fault.disk_mb]
        until = time.monotonic() + 60 * minutes / 2
        order = dice.sample(possible, len(possible))
        outcome = await try_faults(order, dice, rest_s=every_s, until=until)
        is_good &= outcome.is_good
        print(
            f"{name}: {len(outcome.recovery_s)} faults\n{HEAD}\n{row(name, [outcome])}\n{outcome.said}",
            flush=True,
        )
        if not outcome.is_good:
            print(f"FOUND {outcome.findings}")
    return is_good


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=0, help="at least each fault once")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--every", type=float, default=SOAK_EVERY_S, metavar="SECONDS")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    if chosen.soak:
        is_good = asyncio.run(soak(random.Random(chosen.seed), chosen.soak, chosen.every))
    else:
        faults = [fault for fault in FAULTS if chosen.only in fault.name]
        is_good = asyncio.run(run_all(faults, chosen.seed, chosen.minutes))
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
