"""What a call needs of each pool that it may draw on."""

from functools import lru_cache

from creditgate.balances.store import Need, Needs
from creditgate.core.amounts import INPUT_MAX, AmountOutOfRange, multiply
from creditgate.core.catalog import Pool


@lru_cache(4096)  # most callers use few amounts of few features
def needs_of(pools: tuple[Pool, ...], units_nanos: int, entity_id: str | None = None) -> Needs:
    """Return what so many units need of each pool, for an entity or the customer.

    Costs are rounded once per pool, away from zero.

    Raises AmountOutOfRange if they cost too much.
    """
    needs = []
    for pool in pools:
        nanos = multiply(units_nanos, pool.cost_nanos)
        if abs(nanos) > INPUT_MAX:
            raise AmountOutOfRange("value: what it costs is beyond the range of amounts")
        needs.append(Need(pool, nanos, entity_id))
    return Needs(needs)
