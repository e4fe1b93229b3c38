"""The steps of a change on a real Valkey: what each leaves and journals is what the core foretells."""

from typing import NamedTuple

import pytest

from creditgate.core.attach import after
from creditgate.core.changes import Change, Step, rows_change, terms_change
from creditgate.core.decisions import Mode, Status
from creditgate.core.journal import Kind
from tests.lua.harness import MONTH, World, nanos, row
from tests.lua.test_change import told


class Case(NamedTuple):
    """What is in a row granted 10, the steps on it and on others, and the items they leave."""

    promise: str
    holds: str
    steps: tuple[tuple[str, str, str], ...]
    items: tuple[tuple[Kind, str, str, str], ...]


CASES = (
    Case(
        "a reset lets the rest expire",
        "4",
        (("reset", "r", "10"),),
        ((Kind.EXPIRE, "r", "-4", "0"), (Kind.GRANT, "r", "10", "10")),
    ),
    Case(
        "a reset forgives what is owed",
        "-4",
        (("reset", "r", "10"),),
        ((Kind.FORGIVE, "r", "4", "0"), (Kind.GRANT, "r", "10", "10")),
    ),
    Case(
        "what rolls over leaves one row and comes into another, which is new",
        "4",
        (("roll_out", "r", "3"), ("roll_in", "new", "3"), ("reset", "r", "10")),
        (
            (Kind.ROLL, "r", "-3", "1"),
            (Kind.ROLL, "new", "3", "3"),
            (Kind.EXPIRE, "r", "-1", "0"),
            (Kind.GRANT, "r", "10", "10"),
        ),
    ),
    Case(
        "what rolls over comes into a row that is there",
        "4",
        (("roll_in", "r", "2"),),
        ((Kind.ROLL, "r", "2", "6"),),
    ),
    Case("a cut takes what is above", "4", (("cut", "r", "3"),), ((Kind.EXPIRE, "r", "-1", "3"),)),
    Case("a cut leaves a row that holds as much", "4", (("cut", "r", "4"),), ()),
    Case("a cut never gives", "4", (("cut", "r", "5"),), ()),
    Case("an amount is set", "4", (("correct", "r", "7"),), ((Kind.CORRECT, "r", "3", "7"),)),
    Case("an amount is moved", "4", (("shift", "r", "-7"),), ((Kind.CORRECT, "r", "-7", "-3"),)),
    Case(
        "a row opens and starts again in one change",
        "4",
        (("open", "new", "5"), ("roll_out", "new", "5"), ("roll_in", "newer", "5"), ("reset", "new", "5")),
        (
            (Kind.GRANT, "new", "5", "5"),
            (Kind.ROLL, "new", "-5", "0"),
            (Kind.ROLL, "newer", "5", "5"),
            (Kind.GRANT, "new", "5", "5"),
        ),
    ),
)
REFUSED = {
    "a row opens that is there": (("open", "r", "1"),),
    "a row that is not there starts again": (("reset", "x", "1"),),
    "a row that is not there is cut": (("cut", "x", "1"),),
    "something rolls out of a row that is not there": (("roll_out", "x", "1"),),
    "something rolls into a row that was closed": (("close", "r", "0"), ("roll_in", "r", "1")),
    "a row is dropped in which something is": (("drop", "r", "0"),),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.promise) for case in CASES])
async def test_step(world: World, case: Case) -> None:
    """Each credit that comes or goes says why; and a change that is worked out ahead leaves what was worked out."""
    await world.create("ann", row("r", "messages", "10", resets=MONTH))
    await world.track("ann", "messages", str(10 - int(case.holds)), mode=Mode.OVERFLOW)
    record = await world.record("ann")
    steps = [Step(action, row_id, nanos(number)) for action, row_id, number in case.steps]
    opened = [
        row(row_id, "messages") for row_id in ("new", "newer") if row_id in {step.row_id for step in steps}
    ]
    change = terms_change(record, (*record.terms.rows, *opened), (), steps, None)
    assert (await world.change(record, change)).status is Status.OK
    assert (await world.record("ann")).balances == after(record, change).balances
    assert told((await world.entries("ann"))[-1].items)[:-1] == [
        (kind, row_id, nanos(delta), nanos(after)) for kind, row_id, delta, after in case.items
    ]


@pytest.mark.parametrize("steps", REFUSED.values(), ids=REFUSED)
async def test_step_that_does_not_fit_is_refused(
    world: World, steps: tuple[tuple[str, str, str], ...]
) -> None:
    """A change that expected another row changes nothing."""
    await world.create("ann", row("r", "messages", "10"))
    record = await world.record("ann")
    before = await world.everything()
    wanted = rows_change(record)
    change = Change(
        due=wanted.due,
        terms=wanted.terms,
        orders=wanted.orders,
        steps=tuple(Step(a, r, nanos(n)) for a, r, n in steps),
    )
    assert (await world.change(record, change)).status is Status.MOVED_ON
    assert await world.everything() == before
