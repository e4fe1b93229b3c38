"""Exact amounts: integers of nanos (10^-9 of a unit or credit), from the JSON text to SQL and back.

No binary floating point ever touches an amount. `lua/lib/amount.lua` is the same arithmetic inside Redis, and
`tests/property/test_amounts.py` holds both against `decimal.Decimal`.
"""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache

from creditgate.errors import InvalidInputs

DECIMALS = 9
NANOS = 1_000_000_000  # 10**DECIMALS

# What one call may name: 13 integer digits. A balance may grow past it, to AMOUNT_MAX, by repeated grants.
INPUT_INTEGER_DIGITS_MAX = 13
INPUT_MAX = 10_000_000_000_000 * NANOS - 1
# lua/lib/amount.lua keeps an amount in two limbs of 15 digits; 24 digits of nanos leave room to add without overflow.
AMOUNT_MAX = 1_000_000_000_000_000 * NANOS

# The longest number token that is read at all: a bound on work, far above any amount in range.
TOKEN_BYTES_MAX = 64

_NUMBER = re.compile(rb"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,2}))?")
_CONTEXT = Context(prec=200, rounding=ROUND_HALF_EVEN)


class AmountOutOfRange(InvalidInputs):
    """The number is too large, or so small that it would become 0."""

    code = "amount_out_of_range"


def parse_amount(token: bytes, *, field: str) -> int:
    """Return the nanos of one JSON number token, half-even at 10^-9.

    Raises InvalidInputs if the token is anything but a number, AmountOutOfRange if it has more than 13 integer digits
    or is not 0 but would round to 0. The text is read as text: `5`, `5.0` and `0.5e1` are the same amount.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise _not_an_amount(token, field)
    return _parsed(token, field)


@lru_cache(maxsize=4096)  # most callers name few amounts
def _parsed(token: bytes, field: str) -> int:
    match = _NUMBER.fullmatch(token)
    if match is None:
        raise _not_an_amount(token, field)
    sign, whole, fraction, exponent = match.groups()
    if exponent is None and len(whole) <= INPUT_INTEGER_DIGITS_MAX:  # as nearly all are written
        if fraction is None:
            return int(sign + whole) * NANOS
        if len(fraction) <= DECIMALS:
            return int(sign + whole + fraction.ljust(DECIMALS, b"0"))
    return nanos_of(Decimal(token.decode("ascii")), field=field)


def nanos_of(number: Decimal, *, field: str) -> int:
    """Return the nanos of an exact decimal, by the same rules as `parse_amount`."""
    if not number.is_finite() or (number and number.adjusted() >= INPUT_INTEGER_DIGITS_MAX):
        raise AmountOutOfRange(
            f"{field}: must have at most {INPUT_INTEGER_DIGITS_MAX} digits before the point"
        )
    nanos = int(number.scaleb(DECIMALS, context=_CONTEXT).to_integral_value(context=_CONTEXT))
    if nanos == 0 and number != 0:
        raise AmountOutOfRange(f"{field}: is smaller than the smallest amount, 0.000000001")
    if abs(nanos) > INPUT_MAX:
        raise AmountOutOfRange(
            f"{field}: must have at most {INPUT_INTEGER_DIGITS_MAX} digits before the point"
        )
    return nanos


def parse_kept(token: bytes, *, field: str) -> int:
    """Return the nanos of an amount that is kept: not negative, and with 9 decimals at most, so that none is lost."""
    nanos = parse_amount(token, field=field)
    if nanos < 0:
        raise InvalidInputs(f"{field}: must be >= 0")
    if Decimal(token.decode("ascii")) != Decimal(nanos).scaleb(-DECIMALS):
        raise InvalidInputs(f"{field}: must have at most {DECIMALS} decimals")
    return nanos


@lru_cache(maxsize=4096)  # an answer has most of its amounts twice, and prices and grants come again
def format_amount(nanos: int) -> str:
    """Return the plain decimal text: no exponent, no trailing zeros. `4_980_000_000` is `4.98`."""
    whole, fraction = divmod(abs(nanos), NANOS)
    sign = "-" if nanos < 0 else ""
    return f"{sign}{whole}.{fraction:09d}".rstrip("0") if fraction else f"{sign}{whole}"


def multiply(units_nanos: int, cost_nanos: int) -> int:
    """Return what `units_nanos` cost at `cost_nanos` a unit, rounded away from zero at 10^-9, for both signs."""
    product = abs(units_nanos) * abs(cost_nanos)
    rounded = -(-product // NANOS)
    return rounded if (units_nanos < 0) == (cost_nanos < 0) else -rounded


def units_for(credits_nanos: int, cost_nanos: int) -> int:
    """Return the units that `credits_nanos` pay for at `cost_nanos` a unit, rounded up at 10^-9 (both not negative)."""
    return -(-credits_nanos * NANOS // cost_nanos)


def _not_an_amount(token: bytes, field: str) -> InvalidInputs:
    kinds = {b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "null", b"{": "object", b"[": "array"}
    kind = kinds.get(token[:1])
    if kind is not None:
        return InvalidInputs(f"{field}: must be a number (received {kind})")
    return AmountOutOfRange(
        f"{field}: must have at most {INPUT_INTEGER_DIGITS_MAX} digits before the point and a two-digit exponent"
    )
