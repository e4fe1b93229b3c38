"""What metering must answer: every public case, run against whatever can be driven (see `drivers/`).

A module subclasses `MeteringConformance` and gives the fixture `driver_for`. New behaviour begins as a row in `cases/`.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from whenever import Instant

from tests.conformance.cases import (
    checks,
    credit_systems,
    entities,
    grants,
    idempotency,
    limits,
    locks,
    order,
    overage,
    plans,
    resets,
    rollovers,
    tracks,
    tutorial,
    updates,
)
from tests.conformance.cases.catalog import FEATURES
from tests.conformance.cases.words import (
    ABSENT,
    T0,
    Ask,
    Body,
    Case,
    Exactly,
    MonthsAfterCreation,
    Together,
)
from tests.conformance.drivers.protocol import Answer, Call, Driver

SECTIONS: Mapping[str, tuple[Case, ...]] = {
    "tutorial": tutorial.CASES,
    "track": tracks.CASES,
    "credit systems": credit_systems.CASES,
    "order": order.CASES,
    "idempotency": idempotency.CASES,
    "check": checks.CASES,
    "locks": locks.CASES,
    "resets": resets.CASES,
    "rollovers": rollovers.CASES,
    "overage": overage.CASES,
    "limits": limits.CASES,
    "grants": grants.CASES,
    "plans": plans.CASES,
    "updates": updates.CASES,
    "entities": entities.CASES,
}
CASES = [each for section in SECTIONS.values() for each in section]

AT_ONCE_MAX = 16
_numbers = itertools.count(1)

DriverFor = Callable[[str], Driver]
"""Gives the driver of a sidecar that treats repeated idempotency keys so: `replay` or `autumn`."""


class MeteringConformance:
    """Every case, from a fresh customer."""

    @pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number} {case.promise}")
    async def test_case(self, driver_for: DriverFor, case: Case) -> None:
        """What the case promises is what a customer sees: each answer of each call, number by number."""
        await Play(driver_for(case.idempotency), case).run()


class Play:
    """One case, being played."""

    def __init__(self, driver: Driver, case: Case) -> None:
        self._driver = driver
        self._case = case
        self._prefix = f"c{next(_numbers)}"
        self._created_at: dict[str, int] = {}

    async def run(self) -> None:
        await make_features(self._driver)
        for plan in self._case.plans:
            await self._need_plan(plan)
        try:
            for step in self._case.steps:
                if isinstance(step, Ask):
                    (answer,) = await self._play((step,))
                    self._compare(step, answer)
                else:
                    await self._play_together(step)
        finally:
            for plan in self._case.plans:
                await self._switch(plan, on=False)

    async def _play_together(self, step: Together) -> None:
        answers: list[Answer] = []
        for start in range(0, len(step.asks), AT_ONCE_MAX):
            answers += await self._play(step.asks[start : start + AT_ONCE_MAX])
        if step.let_through is None:
            for ask, answer in zip(step.asks, answers, strict=True):
                self._compare(ask, answer)
        assert sum(map(let_through, answers)) == (
            len(answers) if step.let_through is None else step.let_through
        )

    async def _play(self, asks: Iterable[Ask]) -> list[Answer]:
        calls = []
        for ask in asks:
            await self._need_customer(ask.customer)
            if ask.plan is not None:
                await self._need_plan(ask.plan)
            calls.append(Call(ask.verb, self._body(ask), ask.header_key, ask.raw))
        return await self._driver.together(calls)

    def _body(self, ask: Ask) -> Body:
        """What is sent: a lock's id is a name in its case, and belongs to whoever took it."""
        if "lock_id" in ask.body:
            return {**ask.body, "lock_id": self._prefix + ask.body["lock_id"]}
        body = {**self._named(ask.customer), **ask.body}
        if "lock" in body:
            body["lock"] = {**body["lock"], "lock_id": self._prefix + body["lock"]["lock_id"]}
        return body

    async def _need_customer(self, customer: str) -> None:
        if customer in self._created_at:
            return
        made = await self._said("customers.get_or_create", {**self._named(customer), **self._case.made_with})
        self._created_at[customer] = int(made["created_at"])
        if self._case.pinned:
            await self._said("customers.advance_test_clock", {**self._named(customer), "frozen_time": T0})

    async def _need_plan(self, plan: Body) -> None:
        (answer,) = await self._driver.together([Call("plans.create", plan)])
        assert answer.status == 200 or answer.body["code"] == "product_already_exists", answer
        await self._switch(plan, on=True)

    async def _switch(self, plan: Body, *, on: bool) -> None:
        """A plan that enables itself does so only while its case is played."""
        if plan.get("auto_enable"):
            await self._said("plans.update", {"plan_id": plan["plan_id"], "auto_enable": on})

    async def _said(self, verb: str, body: Body) -> Any:
        (answer,) = await self._driver.together([Call(verb, body)])
        assert answer.status == 200, answer
        return answer.body

    def _id(self, customer: str) -> str:
        return self._prefix + customer

    def _named(self, customer: str) -> Body:
        return {"customer_id": self._id(customer)}

    def _compare(self, ask: Ask, answer: Answer) -> None:
        asked = f"{ask.verb} {ask.body}"
        assert answer.status == ask.status, f"{asked}: {answer}"
        wrong = list(differences(self._resolved(ask.expected, ask.customer), answer.body, "answer"))
        assert not wrong, f"{asked}: " + "; ".join(wrong) + f"\n{answer.body}"

    def _resolved(self, expected: Any, customer: str) -> Any:
        """Expectations with instants in the place of what stands for them."""
        match expected:
            case MonthsAfterCreation(months):
                created = Instant.from_timestamp(self._created_at[customer], unit="millisecond")
                return created.to_tz("UTC").add(months=months).timestamp(unit="millisecond")
            case Exactly(fields):
                return Exactly(self._resolved(fields, customer))
            case Mapping():
                return {name: self._resolved(value, customer) for name, value in expected.items()}
            case list():
                return [self._resolved(value, customer) for value in expected]
        return expected


async def make_features(driver: Driver) -> None:
    """Create the features of all cases, unless they are there."""
    (first,) = await driver.together([Call("features.create", FEATURES[0])])
    if first.status == 200:
        for feature in FEATURES[1:]:
            (answer,) = await driver.together([Call("features.create", feature)])
            assert answer.status == 200, answer


def let_through(answer: Answer) -> bool:
    """Whether a call took what it asked for, or was told that it may."""
    return answer.status == 200 and answer.body.get("allowed", True)


def differences(expected: Any, actual: Any, at: str) -> Iterable[str]:
    """Yield in words where an answer is not what was expected."""
    if isinstance(expected, Exactly):
        if not isinstance(actual, dict) or actual.keys() != expected.fields.keys():
            yield f"{at}: {actual!r}, expected exactly {sorted(expected.fields)}"
            return
        expected = expected.fields
    if isinstance(expected, Mapping) and isinstance(actual, dict):
        for name, value in expected.items():
            if value is ABSENT and name in actual:
                yield f"{at}.{name}: is there"
            elif value is not ABSENT and name not in actual:
                yield f"{at}.{name}: is not there"
            elif value is not ABSENT:
                yield from differences(value, actual[name], f"{at}.{name}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for number, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(one, other, f"{at}[{number}]")
    elif not _is_same(expected, actual):
        yield f"{at}: {actual!r}, expected {expected!r}"


def _is_same(expected: Any, actual: Any) -> bool:
    if _is_number(expected) and _is_number(actual):
        return Decimal(str(expected)) == Decimal(str(actual))
    return type(expected) is type(actual) and expected == actual


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
