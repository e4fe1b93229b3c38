"""What creditgate costs, beside what else one would use, in turns. docs/performance.md says how to read it.

    make bench                                   all but the last three, in less than five minutes
    python -m bench http inprocess --rounds 3    some of them
    python -m bench lanes                        the fast lane beside Starlette
    python -m bench workers                      one worker beside none and two
    python -m bench against --against DIR        this checkout beside another

Prints one table and writes the figures of every round to bench/results/latest.json.
"""

import argparse
import time
from collections.abc import Callable

from bench import report
from bench.cases import flusher, growth, http, inprocess, latency, scripts, sidecars
from bench.results import RESULTS
from bench.samples import Row
from bench.stage import Stage

CASES: dict[str, Callable[[Stage], list[Row]]] = {
    "http": http.run,
    "inprocess": inprocess.run,
    "scripts": scripts.run,
    "growth": growth.run,
    "latency": latency.run,
    "flusher": flusher.run,
}
ON_DEMAND = {"lanes": sidecars.lanes, "workers": sidecars.workers, "against": sidecars.against}


def main() -> None:
    """Run the cases in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join({**CASES, **ON_DEMAND}))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each run (default: 0.4)")
    parser.add_argument(
        "--full", action="store_true", help="also what takes long: a million customers and entries"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round of few: shows only that it works"
    )
    parser.add_argument("--json", default=RESULTS / "latest.json", metavar="FILE")
    parser.add_argument("--against", metavar="DIR", help="another checkout")
    chosen = parser.parse_args()
    known = {**CASES, **ON_DEMAND}
    if unknown := set(chosen.cases) - set(known):
        parser.error(f"no such case: {', '.join(unknown)}")
    rounds, seconds = (1, 0.1) if chosen.quick else (chosen.rounds, chosen.seconds)
    began = time.monotonic()
    rows: list[Row] = []
    with Stage(
        rounds=rounds, seconds=seconds, quick=chosen.quick, full=chosen.full, other=chosen.against
    ) as stage:
        said = report.environment(stage)
        for name in chosen.cases or CASES:
            rows += known[name](stage)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print("\n".join(f"{name}: {value}" for name, value in said.items()))
    print(report.table(rows))
    print("failed:", dict(stage.failed) or "nothing")
    print(*(f"SKIPPED {what}" for what in sorted(stage.skipped)), sep="\n", end="")
    RESULTS.mkdir(exist_ok=True)
    with open(chosen.json, "wb") as file:
        file.write(report.as_json(said, rows, stage))


if __name__ == "__main__":
    main()
