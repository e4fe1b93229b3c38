"""Calls of one customer in a batch: they go to Redis together, and are answered as if one came after the other."""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from creditgate import openings
from creditgate.api import calls
from creditgate.api.calls import Call
from creditgate.api.problems import answer_to
from creditgate.api.routes.call_batches import CallBatchRoutes
from creditgate.api.routes.in_order import TOGETHER_MAX
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.routes.meter import MeterRoutes
from creditgate.api.settings import ApiSettings
from creditgate.balances.connection import CALL_WINDOW_MS
from creditgate.balances.merging import CALLS_MAX, Merging
from creditgate.balances.wire import Command
from creditgate.core.amounts import NANOS
from creditgate.engine import demo
from creditgate.engine.customers import Grant, Profile
from creditgate.settings import Settings
from tests.engine.fault_proxy import FaultProxy
from tests.engine.instants import SOON_MS, passed

API = ApiSettings(env="test")
TRACK: dict[str, Any] = {"verb": "track", "feature_id": "premium_messages"}
CHECK: dict[str, Any] = {"verb": "check", "feature_id": "premium_messages"}
COST = NANOS // 10
GRANTED = 5 * NANOS

KINDS: tuple[dict[str, Any], ...] = (
    TRACK,
    TRACK | {"value": 3},
    TRACK | {"value": -2},
    TRACK | {"value": 40},
    TRACK | {"value": 30, "overage_behavior": "reject"},
    TRACK | {"feature_id": "usd_credits", "value": 0.5},
    TRACK | {"idempotency_key": "a"},
    TRACK | {"idempotency_key": "a", "value": 2},
    TRACK | {"idempotency_key": "b", "properties": {"model": "small"}},
    TRACK | {"feature_id": "nothing"},
    TRACK | {"feature_id": None, "event_name": "message"},
    TRACK | {"entity_id": "seat"},
    TRACK | {"lock": {"enabled": True}},
    CHECK,
    CHECK | {"required_balance": 30},
    CHECK | {"send_event": True},
    CHECK | {"send_event": True, "required_balance": 30},
    CHECK | {"send_event": True, "idempotency_key": "a"},
    CHECK | {"lock": {"enabled": True}, "required_balance": 2},
)


class Gate(NamedTuple):
    cases: openings.UseCases
    routes: MeterRoutes
    batches: CallBatchRoutes


@pytest.fixture
async def gate(settings: Settings, stores: openings.Stores, proxy: FaultProxy) -> AsyncIterator[Gate]:
    """The routes on use cases behind the proxy, with customers who have 5 credits each."""
    async with openings.open_use_cases(settings, proxy.url, stores) as cases:
        await demo.load(cases.catalogs, cases.clock.now_ms())
        for customer_id in ("ann", "bob"):
            await cases.customers.get_or_create(customer_id, Profile())
        keys = RepeatedKeys(refuses=False)
        routes = MeterRoutes(cases.meter, cases.holds, cases.entities, cases.outage, keys, API)
        yield Gate(cases, routes, CallBatchRoutes(routes, API))


async def batch(gate: Gate, items: list[dict[str, Any]], customer_id: str = "ann") -> list[Any]:
    """Return status, whether it is a replay, and body of each item, for this customer."""
    body = json.dumps([item | {"customer_id": customer_id} for item in items]).encode()
    answer = await gate.batches.batch(Call(body, (), ""))
    return [(one["status"], one["replayed"], one["body"]) for one in json.loads(answer.body)]


async def alone(gate: Gate, item: dict[str, Any], customer_id: str = "bob") -> Any:
    """As `batch`, of one item as a call of its own."""
    fields = {"customer_id": customer_id, **item}
    name = f"balances.{fields.pop('verb')}"
    keys: tuple[str, ...] = ()
    if name == "balances.check" and "idempotency_key" in fields:
        keys = (fields.pop("idempotency_key"),)
    body = json.dumps(fields).encode()
    try:
        answer = await calls.answer(gate.routes.by_verb[name], Call(body, keys, ""))
    except Exception as error:
        answer = answer_to(error, verb=name, body=body, env=API.env_on_wire)
    return answer.status, "Idempotent-Replayed" in answer.headers, json.loads(answer.body)


def anonymous(answers: list[Any]) -> Any:
    """Return them without what differs between two customers who were made one after the other."""
    text = re.sub(
        r"(bal|lock)_\w{22}", "id", json.dumps(answers).replace('"bob"', '"ann"').replace("bob", "ann")
    )
    return json.loads(re.sub(r'"(next_reset_at|resets_at|expires_at)": \d+', r'"\1": 0', text))


def taken(status: int, is_replay: bool, body: Any) -> Any:
    """Return what of an answer must be as it would have been, though a reply was lost."""
    if "allowed" in body and "balances" not in body and "lock" not in body:
        return status, is_replay, body
    return status, is_replay, body.get("deductions"), body.get("allowed"), body.get("code")


async def used(gate: Gate, customer_id: str = "ann") -> int:
    record = await gate.cases.customers.get(customer_id)
    return GRANTED - sum(record.balances.values())


async def evalshas(redis: "Redis") -> int:
    calls: int = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    return calls


@pytest.mark.usefixtures("patient")
async def test_plain_items_are_one_call_of_redis(gate: Gate, redis: "Redis") -> None:
    """As many as go together, and then the next; each finds what the one before it left."""
    items = [TRACK] * TOGETHER_MAX + [TRACK, TRACK, CHECK, CHECK, TRACK, CHECK | {"send_event": True}, TRACK]
    await batch(gate, [TRACK, CHECK, TRACK])  # the scripts are known
    before = await evalshas(redis)
    answers = await batch(gate, items)
    assert await evalshas(redis) == before + 4  # nothing that takes goes with a check before it
    usages = [round(10 * body["balance"]["usage"]) for _, _, body in answers]
    assert usages == [*range(3, 37), 36, 36, 37, 38, 39]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("seed", range(8))
async def test_a_batch_is_answered_as_its_items_alone(gate: Gate, seed: int) -> None:
    """Whatever stands beside what."""
    chance = random.Random(seed)
    items = [chance.choice(KINDS) for _ in range(60)]
    theirs = [await alone(gate, item) for item in items]
    assert anonymous(await batch(gate, items)) == anonymous(theirs)
    assert await used(gate) == await used(gate, "bob")


@pytest.mark.parametrize("seed", range(8))
async def test_a_batch_and_a_lost_reply(gate: Gate, proxy: FaultProxy, seed: int) -> None:
    """Each item took what it would have taken alone, and a check saw what stands before it and nothing behind it.

    A track whose reply was lost tells the balance as it is when it is answered, as ever.
    """
    chance = random.Random(seed)
    items = [chance.choice(KINDS) for _ in range(60)]
    theirs = [await alone(gate, item) for item in items]
    proxy.lose_reply_to(chance.choice([b'"track"', b"premium_messages", b'"check"']))
    mine = await batch(gate, items)
    assert proxy.faults == 1
    assert anonymous([taken(*answer) for answer in mine]) == anonymous([taken(*one) for one in theirs])
    assert await used(gate) == await used(gate, "bob")


async def test_items_that_arrive_too_late(gate: Gate, proxy: FaultProxy) -> None:
    """None has an effect; each is looked for, and sent again behind those before it."""
    await batch(gate, [TRACK])
    proxy.hold_back(b'"track"', 0.4)
    answers = await batch(gate, [TRACK | {"value": n} for n in range(1, 9)])
    assert proxy.faults == 1
    assert [round(10 * body["balance"]["usage"]) for _, _, body in answers] == [2, 4, 7, 11, 16, 22, 29, 37]


async def test_a_process_that_stands_still_between_two_items(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes together may take effect for equally long: the first is not too late where those behind it are not."""
    await batch(gate, [TRACK])
    now_ms = gate.cases.clock.now_ms

    def and_stand_still() -> int:
        monkeypatch.undo()
        read = now_ms()
        time.sleep(CALL_WINDOW_MS / 1000 + 0.05)
        return read

    monkeypatch.setattr(gate.cases.clock, "now_ms", and_stand_still)
    answers = await batch(gate, [TRACK | {"value": 3}, TRACK | {"value": -3}, TRACK | {"value": -2}, TRACK])
    assert [round(10 * body["balance"]["usage"]) for _, _, body in answers] == [4, 1, 0, 1]
    assert await used(gate) == COST


@pytest.mark.usefixtures("patient")
async def test_items_do_not_go_with_other_calls(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that filled a merge up would be two commands, and something could come between."""
    await asyncio.gather(alone(gate, TRACK), batch(gate, [TRACK, TRACK]))
    merged: list[int] = []
    command = Merging.command

    def noted(merging: Merging, calls: Sequence[Command]) -> Command:
        merged.append(len(calls))
        return command(merging, calls)

    monkeypatch.setattr(Merging, "command", noted)
    others = [alone(gate, TRACK, "ann") for _ in range(CALLS_MAX - 4)]
    await asyncio.gather(*others, batch(gate, [TRACK] * 8))
    assert sorted(merged) == [8, CALLS_MAX - 4]


async def test_a_check_behind_a_track_that_comes_too_late(gate: Gate) -> None:
    """A check cannot be too late, so it may have an answer before the track that goes with it: that one is not used."""
    await batch(gate, [TRACK])
    gate.cases.clock.correct(gate.cases.clock.now_ms() - CALL_WINDOW_MS - 100)
    _, check, last = await batch(gate, [TRACK | {"value": 48}, CHECK | {"required_balance": 5}, CHECK])
    assert await used(gate) == 49 * COST
    assert (check[2]["allowed"], last[2]["allowed"]) == (False, True)


async def test_items_of_a_customer_who_is_overdue(gate: Gate) -> None:
    """All are told so, and go on in their order: what one takes last is what the one before it left."""
    soon = gate.cases.clock.now_ms() + SOON_MS
    await gate.cases.customers.grant(Grant("ann", "premium_messages", 7 * NANOS, expires_at=soon))
    await batch(gate, [TRACK])
    await passed(gate.cases, soon)
    answers = await batch(gate, [TRACK | {"value": n} for n in range(1, 9)] + [CHECK])
    usages = [round(10 * body["balance"]["usage"]) for _, _, body in answers]
    assert usages == [1, 3, 6, 10, 15, 21, 28, 36, 36]


@pytest.mark.usefixtures("patient")
async def test_large_items_go_in_several_calls(gate: Gate, redis: "Redis") -> None:
    """A call of Redis has a bound in bytes."""
    large = TRACK | {"properties": {"text": "x" * 4000}}
    await batch(gate, [large] * 2)
    before = await evalshas(redis)
    answers = await batch(gate, [large] * 20)
    assert await evalshas(redis) == before + 3
    assert [round(10 * body["balance"]["usage"]) for _, _, body in answers] == [*range(3, 23)]
