"""Amounts at the edges: how a number token is read, and how an amount is written."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditgate.core.amounts import (
    AMOUNT_MAX,
    INPUT_MAX,
    NANOS,
    AmountOutOfRange,
    format_amount,
    multiply,
    nanos_of,
    parse_amount,
    units_for,
)
from creditgate.errors import InvalidInputs

ACCEPTED = {
    "0": 0,
    "-0": 0,
    "0.0": 0,
    "-0.000": 0,
    "0e5": 0,
    "0e13": 0,
    "0.0e99": 0,
    "0e-99": 0,
    "1": NANOS,
    "-1": -NANOS,
    "5": 5 * NANOS,
    "5.0": 5 * NANOS,
    "0.5e1": 5 * NANOS,
    "50e-1": 5 * NANOS,
    "5E0": 5 * NANOS,
    "5e+00": 5 * NANOS,
    "1e12": 10**12 * NANOS,
    "1E+12": 10**12 * NANOS,
    "0.02": 20_000_000,
    "0.1": 100_000_000,
    "-0.1": -100_000_000,
    "0.123456789": 123_456_789,
    "0.000000001": 1,
    "1e-9": 1,
    "-1e-9": -1,
    "100000000000000e-10": 10**4 * NANOS,
    "9999999999999": 9_999_999_999_999 * NANOS,
    "9999999999999.999999999": INPUT_MAX,
    "-9999999999999.999999999": -INPUT_MAX,
    "9007199254740.993": 9_007_199_254_740_993_000_000,
    # half-even at the ninth decimal
    "0.0000000005000000001": 1,
    "0.0000000014": 1,
    "0.0000000015": 2,
    "0.0000000025": 2,
    "0.0000000035": 4,
    "-0.0000000015": -2,
    "-0.0000000025": -2,
    "9999999999999.9999999994": INPUT_MAX,
}
INVALID = ['"5"', '""', "true", "false", "null", "{}", "[]", "[5]"]
OUT_OF_RANGE = [
    "10000000000000",
    "-10000000000000",
    "10000000000000.0",
    "1e13",
    "-1e13",
    "9e99",
    "100000000000000e-1",
    "1e100",
    "1E+999999",
    "1e-100",
    "9999999999999.9999999995",
    "0.0000000005",
    "-0.0000000005",
    "0.0000000001",
    "1e-10",
    "-1e-99",
    "1." + "0" * 63,
    "9" * 65,
]
NOT_JSON = [
    "",
    " 5",
    "5 ",
    "+5",
    "05",
    "00",
    ".5",
    "5.",
    "1e",
    "1e+",
    "e5",
    "0x10",
    "1_000",
    "NaN",
    "Infinity",
    "-",
    "--1",
    "\u0661",
    "5\n",
    "1,5",
]


@pytest.mark.parametrize(("token", "expected"), ACCEPTED.items())
def test_number_is_read_exactly(token: str, expected: int) -> None:
    """A number in a request is the amount that was written, however it was written."""
    assert parse_amount(token.encode(), field="value") == expected


@pytest.mark.parametrize("token", INVALID)
def test_what_is_no_number_is_invalid(token: str) -> None:
    """A string or a boolean is refused by its kind: `"5"` is a caller's bug, not five units."""
    with pytest.raises(InvalidInputs, match=r"value: must be a number \(received \w+\)") as refusal:
        parse_amount(token.encode(), field="value")
    assert refusal.value.code == "invalid_inputs"


@pytest.mark.parametrize("token", OUT_OF_RANGE)
def test_number_out_of_range_has_its_own_code(token: str) -> None:
    """Too large, or so small that it would become 0: neither is silently changed into another amount."""
    with pytest.raises(AmountOutOfRange, match="value: ") as refusal:
        parse_amount(token.encode(), field="value")
    assert refusal.value.code == "amount_out_of_range"


@pytest.mark.parametrize("token", NOT_JSON)
def test_what_is_not_json_is_refused(token: str) -> None:
    """Whatever a lenient decoder lets through is not read as an amount."""
    with pytest.raises(InvalidInputs):
        parse_amount(token.encode(), field="value")


@pytest.mark.parametrize(
    "token", ["NaN", "sNaN", "Infinity", "-Infinity", "1e13", "1e-10", "1e-999999999", "1e999999"]
)
def test_decimals_of_a_file_follow_the_same_rules(token: str) -> None:
    """A number in a catalog file is refused as the same number in a request would be."""
    with pytest.raises(AmountOutOfRange):
        nanos_of(Decimal(token), field="included")


@given(st.integers(-AMOUNT_MAX, AMOUNT_MAX))
def test_amount_is_written_exactly(amount: int) -> None:
    """Every amount is written as the shortest plain decimal of the same value."""
    text = format_amount(amount)
    assert Decimal(text) == Decimal(amount).scaleb(-9)
    assert "e" not in text.lower()
    assert not text.endswith(".")
    assert "." not in text or not text.endswith("0")
    assert text != "-0"


@given(st.integers(-INPUT_MAX, INPUT_MAX))
def test_what_was_written_can_be_read(amount: int) -> None:
    """An amount that we answered can be sent back, and is the same amount."""
    assert parse_amount(format_amount(amount).encode(), field="value") == amount


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (4_980_000_000, "4.98"),
        (-1, "-0.000000001"),
        (5 * NANOS, "5"),
        (-5 * NANOS, "-5"),
        (10**24, "1" + "0" * 15),
    ],
)
def test_amounts_look_as_people_write_them(amount: int, text: str) -> None:
    """No exponent, no trailing zeros."""
    assert format_amount(amount) == text


@pytest.mark.parametrize(
    ("units", "cost", "expected"),
    [
        ("2", "0.01", "0.02"),
        ("50.75", "0.2", "10.15"),
        ("167.33", "0.6", "100.398"),
        ("0.123456789", "0.01", "0.001234568"),
        ("-0.123456789", "0.01", "-0.001234568"),
        ("0.000000001", "0.000000001", "0.000000001"),
        ("-0.000000001", "0.000000001", "-0.000000001"),
        ("5", "0", "0"),
        ("-5", "0", "0"),
        ("0", "7", "0"),
    ],
)
def test_cost_is_rounded_away_from_zero(units: str, cost: str, expected: str) -> None:
    """A charge is never less than the cost, and a refund never less than the charge it undoes."""
    scaled = [int(Decimal(number).scaleb(9)) for number in (units, cost, expected)]
    assert multiply(scaled[0], scaled[1]) == scaled[2]


@given(st.integers(0, 10**22), st.integers(1, 10**22))
def test_credits_pay_for_at_least_the_units_they_cost(units: int, cost: int) -> None:
    """The units that a charge pays for are those that were used, but for the rounding: never fewer."""
    charge = multiply(units, cost)
    assert units_for(charge, cost) >= units
    assert units == 0 or multiply(units_for(charge, cost) - 1, cost) <= charge
