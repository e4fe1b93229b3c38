"""Amounts, counts and instants on the wire. An amount is exact text in and exact text out, with no float between."""

from msgspec import Raw

from creditgate.core.amounts import format_amount, parse_amount, parse_kept
from creditgate.core.catalog import INTERVAL_COUNT_MAX, ROLLOVER_MONTHS_MAX, Interval, Recurrence, Rollover
from creditgate.errors import InvalidInputs

INSTANT_MAX = 7_258_118_400_000  # the year 2200, in Unix ms
WHOLE_MAX = 2**53 - 1  # beyond, a float cannot tell a number from its neighbours


def number(nanos: int) -> Raw:
    """Return the JSON number, a plain decimal: 4_980_000_000 is `4.98`."""
    return Raw(format_amount(nanos).encode("ascii"))


def amount(token: Raw, *, field: str, default: int) -> int:
    """Return the nanos of an amount, or the default where it was not sent."""
    text = bytes(token)
    return parse_amount(text, field=field) if text else default


def kept(token: Raw, *, field: str, default: int = 0) -> int:
    """Return the nanos of an amount that is kept exactly as it is said, or the default where it was not sent."""
    text = bytes(token)
    return parse_kept(text, field=field) if text else default


def whole(value: float, *, field: str, least: int, most: int) -> int:
    """Return a whole number within bounds, sent as `20` or `20.0`."""
    if abs(value) > WHOLE_MAX or value != int(value):
        raise InvalidInputs(f"{field}: must be an integer")
    if not least <= value <= most:
        raise InvalidInputs(f"{field}: must be between {least} and {most}")
    return int(value)


def instant(value: float | None, *, field: str) -> int | None:
    """Return an instant in Unix ms, from 1970 to 2200; None where none was sent."""
    return None if value is None else whole(value, field=field, least=0, most=INSTANT_MAX)


def recurrence(interval: str, count: float, *, field: str) -> Recurrence:
    """Return the recurrence; InvalidInputs if the count is not sensible."""
    return Recurrence(Interval(interval), whole(count, field=field, least=1, most=INTERVAL_COUNT_MAX))


def rollover_of(
    duration: str, length: float | None, most: Raw, percentage: Raw, *, place: str, length_name: str
) -> Rollover:
    """Return what survives a reset; InvalidInputs where the parts do not fit together."""
    if duration == "forever":
        months = None
    else:
        months = whole(
            1.0 if length is None else length,
            field=f"{place}.{length_name}",
            least=1,
            most=ROLLOVER_MONTHS_MAX,
        )
    if bytes(percentage) not in (b"", b"null"):
        if bytes(most) not in (b"", b"null"):
            raise InvalidInputs(f"{place}: max and max_percentage exclude each other")
        return Rollover(months, max_percentage_nanos=kept(percentage, field=f"{place}.max_percentage"))
    if bytes(most) not in (b"", b"null"):
        return Rollover(months, max_nanos=kept(most, field=f"{place}.max"))
    return Rollover(months)
