"""Amounts three times over: Lua in a real Valkey, Python, and exact integers, on the same edges."""

from collections.abc import Iterator
from decimal import ROUND_UP, Context, Decimal
from typing import NamedTuple

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from creditgate.balances.scripts import load_source
from creditgate.core import amounts

NANOS = 10**9
RANGE = 10**24
BATCH = 40
EXAMPLES = 1000

CALCULATOR = (
    load_source("lib/amount", whole=True)
    + """
-- ARGV: triples of operation and two operands; returns one text for each. 'nil' is what is not an amount.
local results = {}
for i = 1, #ARGV, 3 do
  local operation, a, b = ARGV[i], amount.read(ARGV[i + 1]), amount.read(ARGV[i + 2])
  local result
  if operation == 'read' then
    result = a and amount.text(a) or 'nil'
  elseif operation == 'less' then
    result = amount.less(a, b) and '1' or '0'
  elseif operation == 'in_range' then
    result = amount.in_range(amount.add(a, b)) and '1' or '0'
  elseif operation == 'negate' then
    result = amount.text(amount.negate(a))
  elseif operation == 'one_form' then
    -- Every way to the same value has to end in the same form, or `==` and `~=` in the scripts would differ.
    local sum = amount.subtract(amount.add(a, b), b)
    local same = type(sum) == type(a) and amount.text(sum) == amount.text(a)
    result = same and 'same' or amount.text(sum)
  else
    result = amount.text(amount[operation](a, b))
  end
  results[#results + 1] = result
end
return results
"""
)


class Operation(NamedTuple):
    """One operation on two amounts."""

    name: str
    a: int
    b: int


EDGES = sorted(
    {
        sign * (edge + step)
        for edge in (
            0,
            10**7,
            NANOS,
            2**31,
            2**52,
            2**53,
            10**14,
            10**15,
            2 * 10**15,
            4 * 10**15,
            5 * 10**15,
            9 * 10**15,
            10**16,
            10**18,
            2**63,
            10**22,
            RANGE - 2,
        )
        for step in (-1, 0, 1)
        for sign in (-1, 1)
    }
)

near_multiples = st.builds(
    lambda k, step: k * 10**15 + step, st.integers(-(10**9) + 1, 10**9 - 1), st.integers(-2, 2)
)
any_amount = st.one_of(
    st.sampled_from(EDGES),
    near_multiples,
    st.integers(-(2**54), 2**54),
    st.integers(-RANGE + 1, RANGE - 1),
    st.integers(-1000, 1000),
)
not_negative = any_amount.map(abs)


@st.composite
def factors(draw: st.DrawFn) -> tuple[int, int]:
    """Two amounts that are not negative and whose product is in range."""
    a = draw(not_negative)
    largest = (RANGE - 1) * NANOS // a if a else RANGE - 1
    b = draw(
        st.one_of(
            st.integers(0, min(largest, RANGE - 1)),
            st.sampled_from(EDGES).map(lambda e: min(abs(e), largest)),
        )
    )
    return (a, b) if draw(st.booleans()) else (b, a)


@st.composite
def credits_and_cost(draw: st.DrawFn) -> tuple[int, int]:
    """Credits, and a cost above zero at which they pay for an amount of units that is in range."""
    credit = draw(not_negative)
    least = max(1, credit * NANOS // (RANGE - 1) + 1)
    costs = st.one_of(
        st.integers(least, max(least, 10**24 - 1)),
        st.sampled_from(
            [1, 7, 10**7, 333333333, 333333334, NANOS, 7 * NANOS, 2**52, 2**53 + 1, 10**15 - 1, 10**22]
        ),
    )
    return credit, max(least, draw(costs))


binary = st.sampled_from(["add", "subtract", "less", "least", "in_range", "one_form"])
operations = st.one_of(
    st.builds(Operation, st.sampled_from(["read", "negate"]), any_amount, st.just(0)),
    st.builds(Operation, binary, any_amount, any_amount),
    factors().map(lambda pair: Operation("multiply", *pair)),
    credits_and_cost().map(lambda pair: Operation("units_for", *pair)),
)


def exact(operation: Operation) -> str:
    """The result by exact integers."""
    _, a, b = operation
    match operation.name:
        case "read":
            return str(a)
        case "negate":
            return str(-a)
        case "add":
            return str(a + b)
        case "subtract":
            return str(a - b)
        case "less":
            return str(int(a < b))
        case "least":
            return str(min(a, b))
        case "in_range":
            return str(int(abs(a + b) < RANGE))
        case "one_form":
            return "same"
        case "multiply":
            return str((a * b + NANOS - 1) // NANOS)
        case "units_for":
            return str((a * NANOS + b - 1) // b)
    raise AssertionError(operation)


class Calculator:
    """The amount library in a real server; one call works many operations out."""

    def __init__(self, socket: str) -> None:
        self.client = redis.Redis(unix_socket_path=socket)
        self._script = self.client.register_script(CALCULATOR)

    def __call__(self, batch: list[Operation]) -> list[str]:
        arguments = [part for operation in batch for part in (operation.name, operation.a, operation.b)]
        return [result.decode() for result in self._script(args=arguments)]

    def read(self, *texts: str) -> list[str]:
        """What the library reads each text as."""
        return [
            result.decode()
            for result in self._script(args=[part for t in texts for part in ("read", t, "0")])
        ]


@pytest.fixture(scope="module")
def calculator(valkey_socket: str) -> Iterator[Calculator]:
    """The amount library, in a server."""
    calculator = Calculator(valkey_socket)
    yield calculator
    calculator.client.close()


@settings(max_examples=EXAMPLES)
@given(batch=st.lists(operations, min_size=1, max_size=BATCH))
def test_lua_is_exact(calculator: Calculator, batch: list[Operation]) -> None:
    """Redis computes with the integers that are meant: no charge is lost or invented, however large the balance."""
    assert calculator(batch) == [exact(operation) for operation in batch]


def test_lua_is_exact_on_every_pair_of_edges(calculator: Calculator) -> None:
    """Where doubles end, where limbs begin and where amounts end, each with each, nothing is off by one."""
    batch = [Operation(name, a, 0) for name in ("read", "negate") for a in EDGES]
    batch += [
        Operation(name, a, b)
        for name in ("add", "subtract", "less", "least", "in_range", "one_form")
        for a in EDGES
        for b in EDGES
    ]
    batch += [
        Operation("multiply", a, b)
        for a in EDGES
        for b in EDGES
        if a >= 0 and b >= 0 and a * b < (RANGE - 1) * NANOS
    ]
    batch += [
        Operation("units_for", a, b)
        for a in EDGES
        for b in EDGES
        if a >= 0 and b > 0 and a * NANOS < (RANGE - 1) * b
    ]
    for start in range(0, len(batch), 2000):
        part = batch[start : start + 2000]
        assert calculator(part) == [exact(operation) for operation in part]


def test_lua_reads_integers_only(calculator: Calculator) -> None:
    """What is not a plain integer of at most 24 digits is no amount: it is refused, not read as a double."""
    good = {"0": "0", "-0": "0", "007": "7", "-1": "-1", "000000000000000000000009": "9", "9" * 24: "9" * 24}
    bad = [
        "",
        "-",
        "+1",
        "1.0",
        "1e3",
        "0x1",
        "nan",
        "inf",
        " 1",
        "1 ",
        "1\n",
        "1\0",
        "--1",
        "1-",
        "9" * 25,
        "1" + "0" * 24,
        "\uff11",
    ]
    assert calculator.read(*good) == list(good.values())
    assert calculator.read(*bad) == ["nil"] * len(bad)


@settings(max_examples=EXAMPLES)
@given(pair=factors(), negative=st.booleans())
def test_python_multiplies_as_decimal_does(pair: tuple[int, int], negative: bool) -> None:
    """What the sidecar says a call costs is the decimal product, rounded once and away from zero, for both signs."""
    units, cost = -pair[0] if negative else pair[0], pair[1]
    context = Context(prec=100, rounding=ROUND_UP)
    product = context.multiply(Decimal(units).scaleb(-9), Decimal(cost).scaleb(-9))
    assert amounts.multiply(units, cost) == product.quantize(Decimal("1e-9"), context=context).scaleb(9)


@settings(max_examples=EXAMPLES)
@given(pair=credits_and_cost())
def test_python_divides_as_decimal_does(pair: tuple[int, int]) -> None:
    """The units that credits pay for are the decimal quotient, rounded up once."""
    context = Context(prec=100, rounding=ROUND_UP)
    quotient = context.divide(Decimal(pair[0]).scaleb(-9), Decimal(pair[1]).scaleb(-9))
    assert amounts.units_for(*pair) == quotient.quantize(Decimal("1e-9"), context=context).scaleb(9)


@settings(max_examples=EXAMPLES)
@given(pairs=st.lists(st.tuples(factors(), credits_and_cost()), min_size=1, max_size=BATCH))
def test_lua_and_python_agree(
    calculator: Calculator, pairs: list[tuple[tuple[int, int], tuple[int, int]]]
) -> None:
    """What check and the sidecar work out in Python is what track takes in Lua, to the last nano."""
    batch = [Operation("multiply", *factor) for factor, _ in pairs] + [
        Operation("units_for", *pair) for _, pair in pairs
    ]
    expected = [amounts.multiply(*factor) for factor, _ in pairs] + [
        amounts.units_for(*pair) for _, pair in pairs
    ]
    assert calculator(batch) == [str(result) for result in expected]
