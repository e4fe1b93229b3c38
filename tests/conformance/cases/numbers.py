"""Every number of the public list, and what becomes of those that are no row of the tables.

A case is a row, or it is not built yet, or it is about something that this sidecar has not. Where a row's answer is
another one than Autumn's, docs/compatibility.md names the case and the reason.
"""

from collections.abc import Mapping

PUBLIC: Mapping[str, tuple[int | str, ...]] = {
    "TU": (1, 2, 3, 4, 5, 6, 10),
    "TB": (1, 2, 3, 4, 6, 7, 8),
    "NG": (1, 3, 4, 7),
    "CR": (1, 3, 4, 5, 7, 9, 10),
    "OR": (1, 3, 5, 6, 7),
    "PR": (1, 2, 3, 5, 6),
    "ID": (1, 3, 4, 5, 6, 7, 9),
    "CK": (1, 3, 4, 5, 7, 8, 10, 11, 12, 14, 16, "16b", 17, 18),
    "CC": (1, 2, 4, 5, 7),
    "LK": (1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 17, 18, 19, 20, 22, 23, 24),
    "RS": (1, 2, 4, 6, 7, 8, 9),
    "RV": (1, 3, 4, 5, 7),
    "EN": (1, 2, 4),
    "OV": (1, 3, 4, 6, 7, 9),
    "LO": (1, 3, 4),
    "UP": (2,),
    "PL": (1, 2, 3, 5, 6, 8),
    "AT": (1, 2, 4, 5, 7),
    "RC": (1, 3, 4, 5, 6, 7),
}

NOT_BUILT: Mapping[str, str] = {
    "ID-9": "balances.batch_track",
    **{f"AT-{number}": "auto top-ups" for number in PUBLIC["AT"]},
}

ELSEWHERE: Mapping[str, str] = {
    "CC-7": "tests/engine/test_forward.py, on Redis's own clock",
    "CK-11": "tests/api/test_legacy.py: only calls of versions before 2.1 make a customer",
    "CK-18": "tests/api/test_problems.py: an outage cannot be told in a table",
    "ID-6": "tests/engine/test_attempts.py: there is no queue, and a retry of ours has one effect",
    **{
        f"RC-{number}": "tests/engine/: there is no cache beside the record, so nothing is synchronised"
        for number in PUBLIC["RC"]
    },
}


def all_numbers() -> set[str]:
    """Return every number of the public list."""
    return {f"{section}-{number}" for section, numbers in PUBLIC.items() for number in numbers}
