"""The part of `verify` that looks at the seals: every row of SQL since the seals begin is the one that was sealed."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from creditgate.ledger.seals import Seal
from creditgate.ledger.store import Ledger


class SealsProof(NamedTuple):
    """What did not agree, in words; how many items are sealed, and since when all partitions are. None: no key."""

    differences: list[str]
    items: int | None = None
    begin_ms: int | None = None


async def verify_seals(ledger: Ledger, partitions: Sequence[str]) -> SealsProof:
    """Check the seals of all partitions, page by page, while others go on."""
    differences: list[str] = []
    items = begin_ms = 0
    for partition in partitions:
        after: Seal | None = None
        while True:
            page = await asyncio.to_thread(ledger.check_seals, partition, after)
            if page is None:
                return SealsProof([])
            differences += page.differences
            items += page.items
            after = page.last
            if after is None:
                begin_ms = max(begin_ms, page.begins.ms)
                break
    return SealsProof(differences, items, begin_ms)
