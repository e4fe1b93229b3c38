"""API versions: how `x-api-version` spells them, and how old each is.

From 2.1 on every version is answered in one shape, since clients ignore what they do not know. What was before that has
shapes of its own, which only the routes of `routes/legacy.py` have.
"""

import re
from datetime import date

Version = tuple[int, int]

NEWEST: Version = (9999, 0)
ONE_SHAPE_SINCE: Version = (2, 1)

# Versions of Autumn that other shapes were answered to: each shape is that of its version and of those before it.
BETA: Version = (1, 4)  # the last with `features` and `products`
LAST_WITH_A_LIST: Version = (1, 1)  # the last whose customer has a list of features
SPLIT: Version = (0, 2)  # the last with a list of balances, and with a customer in several parts

_NUMBERED = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:\.[0-9]{1,4})?(?:\.clover)?")
_DATED = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:\.clover)?")
_SINCE = (  # the newest first; a date means the version of that day
    (date(2026, 5, 13), (2, 3)),
    (date(2026, 3, 18), (2, 2)),
    (date(2026, 3, 17), (2, 1)),
    (date(2026, 3, 16), (2, 0)),
    (date(2025, 5, 5), (1, 2)),
    (date(2025, 4, 17), (1, 1)),
    (date(2025, 4, 1), (0, 2)),
)
_OLDEST: Version = (0, 1)


def parse_version(text: str) -> Version | None:
    """Return the version that the text names; None if it names none. Spelled `2.3.0`, `2`, `2026-05-13` or `beta`."""
    if text == "beta":
        return BETA
    if numbered := _NUMBERED.fullmatch(text):
        return int(numbered[1]), int(numbered[2] or 0)
    dated = _DATED.fullmatch(text)
    try:
        day = date.fromisoformat(dated[1]) if dated else None
    except ValueError:
        return None
    if day is None:
        return None
    return next((version for since, version in _SINCE if day >= since), _OLDEST)
