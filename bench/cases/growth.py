"""The same load over more customers, and over customers with more balances: time and memory of each."""

from collections.abc import Mapping
from typing import NamedTuple

from bench import data
from bench.cases.inprocess import Callers
from bench.samples import Row, Sample, in_turns
from bench.stage import Stage
from creditgate.balances.keys import Keys

SMALL, LARGE, HUGE = 1_000, 100_000, 1_000_000
BALANCES = (5, 20)
AT_A_TIME = 32
RECORDS_WEIGHED = 1_000
AT_MOST = 1.15  # of the time at SMALL


class Size(NamedTuple):
    """How many customers with how many balances each."""

    customers: int
    balances: int = 1

    def __str__(self) -> str:
        return f"{self.customers} customers" if self.balances == 1 else f"{self.balances} balances each"


def run(stage: Stage) -> list[Row]:
    """Measure tracks of the engine, called in process, for customers chosen by chance."""
    sizes = [Size(SMALL), Size(LARGE), *(Size(SMALL, balances) for balances in BALANCES)]
    if stage.full:
        sizes.append(Size(HUGE))
    if stage.quick:
        sizes = [Size(50), Size(50, BALANCES[0])]
    bytes_of, callers = {}, {}
    for size in sizes:
        settings = stage.filled(
            f"g{size.customers}x{size.balances}", customers=size.customers, rows=size.balances
        )
        keys = Keys(data.PARTITIONS, settings.prefix)
        records = [keys.record(name) for name in data.customer_ids(min(size.customers, RECORDS_WEIGHED))]
        bytes_of[size] = stage.memory_of(records) / len(records)
        callers[size] = Callers(stage, settings)
    runs = {
        str(size): callers[size].ask("engine track", at_a_time=AT_A_TIME, customers=size.customers)
        for size in sizes
    }
    in_turns(runs, 1)  # warms up
    return _rows(sizes, bytes_of, in_turns(runs, stage.rounds))


def _rows(sizes: list[Size], bytes_of: Mapping[Size, float], found: Mapping[str, list[Sample]]) -> list[Row]:
    first, rows = sizes[0], []
    for size in sizes[1:]:
        must = AT_MOST if size.customers == HUGE else None
        for figure, trees, at_most in (
            ("CPU us of both", ("caller", "valkey"), must),
            ("CPU us", ("caller",), None),
            ("Valkey CPU us", ("valkey",), None),
        ):
            ours, theirs = (
                [sum(sample.us(tree) for tree in trees) for sample in found[str(which)]]
                for which in (size, first)
            )
            case = f"track, {size}"
            rows.append(
                Row(case=case, figure=figure, beside=str(first), ours=ours, theirs=theirs, at_most=at_most)
            )
        rows.append(
            Row(
                case=f"memory of a customer, {size}",
                figure="bytes",
                beside=str(first),
                ours=[bytes_of[size]],
                theirs=[bytes_of[first]],
            )
        )
    return rows
