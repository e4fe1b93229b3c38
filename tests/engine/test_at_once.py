"""A plain check or track by one call of its script, from callbacks: what it answers, and what goes on from it."""

import asyncio
import gc
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hiredis import pack_command
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from creditgate import openings
from creditgate.api import calls
from creditgate.api.calls import Answer, Call
from creditgate.api.problems import answer_to
from creditgate.api.routes.call_batches import CallBatchRoutes
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.routes.meter import MeterRoutes
from creditgate.api.settings import ApiSettings
from creditgate.balances import hot_connection
from creditgate.balances.connection import CALL_WINDOW_MS
from creditgate.balances.keys import bucket_at
from creditgate.balances.merging import Merge
from creditgate.balances.prepared import KeyedUse, Prepared, PreparedUse
from creditgate.balances.scripts import Script
from creditgate.core import journal
from creditgate.core.amounts import NANOS
from creditgate.core.catalog_file import read_catalog_file
from creditgate.engine import demo
from creditgate.engine.at_once import Asked, UseCall
from creditgate.engine.customers import Grant, Profile
from creditgate.errors import CreditgateError
from creditgate.settings import Settings
from tests.engine.fault_proxy import FaultProxy
from tests.engine.instants import SOON_MS, passed

TRACK: dict[str, Any] = {"customer_id": "ann", "feature_id": "premium_messages", "value": 1}
CHECK: dict[str, Any] = {"customer_id": "ann", "feature_id": "premium_messages", "required_balance": 3}
COST = NANOS // 10
GRANTED = 5 * NANOS


@pytest.fixture
async def cases(
    settings: Settings, stores: openings.Stores, proxy: FaultProxy
) -> AsyncIterator[openings.UseCases]:
    """The use cases behind the proxy, with customers who have 5 credits each."""
    async with openings.open_use_cases(settings, proxy.url, stores) as opened:
        await demo.load(opened.catalogs, opened.clock.now_ms())
        for customer_id in ("ann", "bob"):
            await opened.customers.get_or_create(customer_id, Profile())
        yield opened


@pytest.fixture
def routes(cases: openings.UseCases) -> MeterRoutes:
    keys = RepeatedKeys(refuses=False)
    api = ApiSettings(env="test")
    return MeterRoutes(cases.meter, cases.holds, cases.entities, cases.outage, keys, api)


async def ordinary(routes: MeterRoutes, verb: str, **body: Any) -> tuple[int, Any]:
    """Return status and answer as the Starlette lane has them."""
    text = json.dumps(body).encode()
    try:
        answer = await getattr(routes, verb)(Call(text, (), ""))
    except Exception as error:
        answer = answer_to(error, verb=f"balances.{verb}", body=text, env="sandbox")
    return answer.status, json.loads(answer.body)


def begun(
    routes: MeterRoutes, verb: str, *, key: str = "", **body: Any
) -> "tuple[asyncio.Future[tuple[int, Any]], Coroutine[Any, Any, Answer] | None]":
    """Begin a call; returns where status and answer will be, if there is no coroutine that gives them."""
    ended: asyncio.Future[tuple[int, Any]] = asyncio.get_running_loop().create_future()
    text = json.dumps(body).encode()

    def done(answer: Answer | None, error: BaseException | None) -> None:
        if isinstance(error, Exception):
            answer = answer_to(error, verb=f"balances.{verb}", body=text, env="sandbox")
        assert answer is not None
        headers = {"replayed": True} if answer.headers == {"Idempotent-Replayed": "true"} else {}
        ended.set_result((answer.status, json.loads(answer.body) | headers))

    call = Call(text, (key,) if key else (), "")
    return ended, getattr(routes, f"begin_{verb}")(call, done)


def at_once(
    routes: MeterRoutes, verb: str, *, key: str = "", **body: Any
) -> "asyncio.Future[tuple[int, Any]]":
    """Return status and answer of a call that begins at once."""
    ended, rest = begun(routes, verb, key=key, **body)
    assert rest is None
    return ended


async def known(routes: MeterRoutes, verb: str, **body: Any) -> tuple[int, Any]:
    """Return what a call is answered that has been asked and answered before; the next is answered as it was."""
    for _ in range(2):
        await at_once(routes, verb, **body)
    return await at_once(routes, verb, **body)


def anonymous(answer: Any) -> Any:
    """Return it without what differs between two customers who were made one after the other."""
    text = re.sub(r"(bal|lock)_\w{22}", "id", json.dumps(answer).replace('"bob"', '"ann"'))
    return json.loads(re.sub(r'"(next_reset_at|resets_at|expires_at)": \d+', r'"\1": 0', text))


def said_before(routes: MeterRoutes, verb: str, **body: Any) -> bool:
    """Say whether there is an answer to this body that the next may be like."""
    wanted = getattr(routes, f"_{verb}s").known(json.dumps(body).encode())
    return wanted.asker.means.repeated is not None


async def used(cases: openings.UseCases) -> int:
    record = await cases.customers.get("ann")
    return GRANTED - sum(record.balances.values())


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("check", CHECK),
        ("check", CHECK | {"required_balance": 900}),
        ("check", CHECK | {"feature_id": "usd_credits"}),
        ("check", CHECK | {"properties": {"model": "small"}}),
        ("check", CHECK | {"send_event": True}),  # there is enough once
        ("check", CHECK | {"send_event": True, "required_balance": -1}),
        ("check", CHECK | {"send_event": True, "feature_id": "usd_credits", "required_balance": 1}),
        ("track", TRACK),
        ("track", TRACK | {"value": 0.3}),
        ("track", TRACK | {"value": 20}),  # taken twice, then what is left of it
        ("track", TRACK | {"value": 20, "overage_behavior": "overflow"}),
        ("track", TRACK | {"value": -1}),
        ("track", TRACK | {"value": 0}),
        ("track", TRACK | {"feature_id": "usd_credits", "properties": {"model": "small"}}),
        ("track", TRACK | {"value": 20, "overage_behavior": "reject"}),
    ],
    ids=str,
)
async def test_it_answers_as_an_ordinary_call_does(
    cases: openings.UseCases, routes: MeterRoutes, verb: str, body: dict[str, Any]
) -> None:
    """Whatever has become of the balance by then: taken, capped, below zero, given back, refused."""
    for _ in range(6):
        mine = at_once(routes, verb, **body)
        theirs = await ordinary(routes, verb, **body | {"customer_id": "bob"})
        assert anonymous(await mine) == anonymous(theirs)
    assert await used(cases) == GRANTED - sum((await cases.customers.get("bob")).balances.values())


async def test_most_calls_are_answered_as_the_one_before(
    cases: openings.UseCases, routes: MeterRoutes
) -> None:
    """Else none of this is of use; and each is counted as a decision, with what it took."""
    for verb, body in (("check", CHECK), ("track", TRACK)):
        before = cases.metrics.decided_in_all()
        await known(routes, verb, **body)
        assert said_before(routes, verb, **body)
        assert cases.metrics.decided_in_all() == before + 3
        assert sum(cases.metrics.decision_seconds()[verb].counts) == 3
        assert sum(cases.metrics.redis_seconds()[verb].counts) == 3
    assert cases.metrics.taken_nanos["usd_credits"] == 3 * COST == await used(cases)


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("track", TRACK | {"lock": {"enabled": True}}),
        ("track", TRACK | {"entity_id": "new", "entity_data": {"feature_id": "seats"}}),
        ("check", CHECK | {"feature_id": "nothing"}),
        ("check", CHECK | {"required_balance": 9_999_999_999_999, "feature_id": "images"}),
    ],
    ids=str,
)
async def test_what_is_more_than_plain_is_left_alone(
    cases: openings.UseCases, routes: MeterRoutes, verb: str, body: dict[str, Any]
) -> None:
    """It has a hold to make, an entity to make, or nothing that could be sent."""
    ended, rest = begun(routes, verb, **body)
    assert rest is not None
    theirs = await ordinary(routes, verb, **body | {"customer_id": "bob"})
    try:
        answer = await rest
    except CreditgateError as error:
        answer = answer_to(error, verb=f"balances.{verb}", body=b"", env="sandbox")
    assert (answer.status, anonymous(json.loads(answer.body))) == (theirs[0], anonymous(theirs[1]))
    assert not ended.done()


async def test_a_lost_reply_is_one_effect(
    cases: openings.UseCases, routes: MeterRoutes, proxy: FaultProxy
) -> None:
    """The attempt was sent before anybody waited, and is looked for like any other."""
    await known(routes, "track", **TRACK)
    proxy.lose_reply_to(b'"track"')
    ended = at_once(routes, "track", **TRACK)
    status, answer = await ended
    assert (proxy.faults, status, answer["balance"]["usage"]) == (1, 200, 0.4)
    assert await used(cases) == 4 * COST


async def test_something_falls_due_while_a_lost_reply_is_looked_for(
    cases: openings.UseCases, routes: MeterRoutes, proxy: FaultProxy
) -> None:
    """What it took is in the journal, and the balances are those after the customer was stepped forward."""
    await known(routes, "track", **TRACK)
    soon = cases.clock.now_ms() + SOON_MS
    await cases.customers.grant(Grant("ann", "basic_messages", NANOS, expires_at=soon))
    await passed(cases, soon - CALL_WINDOW_MS // 2)
    proxy.lose_reply_to(b'"track"')
    status, answer = await at_once(routes, "track", **TRACK)
    assert cases.clock.now_ms() > soon
    assert (proxy.faults, status, answer["balance"]["usage"]) == (1, 200, 0.4)
    assert [part["value"] for part in answer["deductions"]] == [0.1]


@pytest.mark.parametrize("key", ["", "once"])
async def test_one_that_arrives_late_has_no_effect(
    cases: openings.UseCases, routes: MeterRoutes, proxy: FaultProxy, key: str
) -> None:
    """The second attempt is its only effect, under the same op id, and with the same key."""
    await known(routes, "track", **TRACK)
    proxy.hold_back(b'"track"', 0.4)
    ended = at_once(routes, "track", key=key, **TRACK)
    assert (await ended)[0] == 200
    await asyncio.sleep(0.5)  # its own reply has come by then, too late to mean anything
    assert (proxy.faults, await used(cases)) == (1, 4 * COST)
    if key:
        assert (await at_once(routes, "track", key=key, **TRACK))[1]["replayed"]


@pytest.mark.parametrize(("verb", "body"), [("track", TRACK), ("check", CHECK)])
async def test_no_answer_in_time_is_as_for_any_call(
    cases: openings.UseCases, routes: MeterRoutes, proxy: FaultProxy, verb: str, body: dict[str, Any]
) -> None:
    """A track is kept until it can be decided, a check is not: within the deadline that began with the sending."""
    await known(routes, verb, **body)
    await proxy.__aexit__()
    began = asyncio.get_running_loop().time()
    ended = at_once(routes, verb, **body)
    status, answer = await ended
    assert (status, answer["balance"]) == (202, None)
    assert asyncio.get_running_loop().time() - began < 2  # 0.8, on a machine with nothing else to do


async def test_a_script_that_the_server_has_forgotten(
    cases: openings.UseCases, routes: MeterRoutes, redis: "Redis"
) -> None:
    """Nothing has run, so its source is sent, with the same op id."""
    for verb, body in (("check", CHECK), ("track", TRACK)):
        await known(routes, verb, **body)
        await redis.script_flush()
        ended = at_once(routes, verb, **body)
        assert (await ended)[0] == 200
    assert await used(cases) == 4 * COST


async def test_something_falls_due(cases: openings.UseCases, routes: MeterRoutes) -> None:
    """The customer is stepped forward, and the call goes on; the terms are others, and so is the answer."""
    soon = cases.clock.now_ms() + SOON_MS
    await cases.customers.grant(Grant("ann", "premium_messages", 7 * NANOS, expires_at=soon))
    _, before = await known(routes, "track", **TRACK)
    await passed(cases, soon)
    ended = at_once(routes, "track", **TRACK)
    _, answer = await ended
    assert before["balance"]["feature_id"] == "premium_messages"
    assert (answer["balance"]["feature_id"], answer["balance"]["usage"]) == ("usd_credits", 0.1)


async def test_long_terms_are_not_kept_with_each_body(cases: openings.UseCases, routes: MeterRoutes) -> None:
    """Bodies are many and short, and a customer's terms may have 16 KiB; the answer is the same."""
    _, before = await known(routes, "check", **CHECK)
    assert said_before(routes, "check", **CHECK)
    while len((await cases.customers.get("bob")).terms.rows) < 16:
        await cases.customers.grant(Grant("bob", "usd_credits", NANOS))
    body = CHECK | {"customer_id": "bob"}
    _, answer = await known(routes, "check", **body)
    assert not said_before(routes, "check", **body)
    assert (before["balance"]["remaining"], answer["balance"]["remaining"]) == (5, 20)


async def test_a_customer_who_is_gone(cases: openings.UseCases, routes: MeterRoutes) -> None:
    """What was answered before is nothing to go by."""
    for verb, body in (("check", CHECK), ("track", TRACK)):
        await known(routes, verb, **body)
    await cases.customers.delete("ann")
    for verb, body in (("check", CHECK), ("track", TRACK)):
        ended = at_once(routes, verb, **body)
        assert (await ended)[1]["code"] == "customer_not_found"


async def test_a_feature_that_costs_something_else(cases: openings.UseCases, routes: MeterRoutes) -> None:
    """With another catalog, what was worked out by the one before is not sent."""
    await known(routes, "track", **TRACK)
    file = (Path(demo.__file__).parent / demo.FILE).read_text()
    dearer = file.replace('premium_messages = "0.1"', 'premium_messages = "0.5"')
    await cases.catalogs.apply(read_catalog_file(dearer, demo.FILE), now_ms=cases.clock.now_ms())
    await known(routes, "track", **TRACK)
    assert await used(cases) == 3 * COST + 3 * 5 * COST


async def test_calls_of_one_customer_in_one_turn_go_together(
    cases: openings.UseCases, routes: MeterRoutes, redis: "Redis"
) -> None:
    """They are merged as others are, and each gets its own answer."""
    for verb, body in (("check", CHECK), ("track", TRACK)):
        await known(routes, verb, **body)
    sent: list[Callable[..., Any]] = [partial(at_once, routes, "track", **TRACK) for _ in range(9)]
    sent.append(partial(at_once, routes, "check", **CHECK))
    await asyncio.gather(*[send() for send in sent])  # the script is known
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    found = await asyncio.gather(*[send() for send in sent])
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1
    usages = [round(10 * answer["balance"]["usage"]) for _, answer in found]
    assert usages == [*range(13, 22), 21]
    assert await used(cases) == 21 * COST
    gc.collect()
    assert not [
        left for left in gc.get_objects() if isinstance(left, Merge)
    ]  # which the collector cannot see


@pytest.mark.parametrize(
    "body",
    [TRACK | {"value": 99, "overage_behavior": "reject"}, TRACK | {"customer_id": "nobody"}, TRACK],
    ids=["refused", "nobody", "a bug"],
)
async def test_a_call_that_fails_is_forgotten(
    routes: MeterRoutes, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
) -> None:
    """Who awaits it keeps the error, which keeps the frames that it went through; the call must not be in that circle,
    since the collector does not look into calls.
    """
    text = json.dumps(body).encode()
    if body is TRACK:
        monkeypatch.setattr(UseCall, "_decide", lambda: None)  # which takes no arguments: a TypeError
    with pytest.raises((CreditgateError, TypeError)):
        await calls.answer(routes.by_verb["balances.track"], Call(text, (), ""))
    gc.collect()
    left = (Asked, asyncio.Future)
    before = sum(isinstance(one, left) for one in gc.get_objects())
    for _ in range(20):
        with pytest.raises((CreditgateError, TypeError)):
            await calls.answer(routes.by_verb["balances.track"], Call(text, (), ""))
    gc.collect()
    assert sum(isinstance(one, left) for one in gc.get_objects()) < before + 20


async def test_nothing_goes_with_a_call_that_has_ended(cases: openings.UseCases, routes: MeterRoutes) -> None:
    """After the process has stood still, the wait for a call may be over before its turn is: it is not sent."""
    await known(routes, "track", **TRACK)
    hot = cases.meter._store.hot
    assert hot is not None
    ended = [at_once(routes, "track", **TRACK)]
    time.sleep(CALL_WINDOW_MS / 1000 + 0.05)
    hot._expire()
    ended += [at_once(routes, "track", **TRACK) for _ in range(2)]
    async with asyncio.timeout(5):  # else it would wait for ever
        assert [(await answer)[0] for answer in ended] == [200] * 3
    assert await used(cases) == 6 * COST


async def test_more_than_can_wait(
    cases: openings.UseCases, routes: MeterRoutes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that the queue does not take is ordinary, and answered as one that cannot be sent."""
    await known(routes, "track", **TRACK)
    cases.meter._store.hot._room = 0  # type: ignore[union-attr]
    monkeypatch.setattr(hot_connection, "CALLS_MAX", 0)
    _, rest = begun(routes, "track", **TRACK)
    assert rest is not None
    assert (await rest).status == 202
    assert cases.meter._store.hot is not None
    monkeypatch.undo()
    assert (await known(routes, "track", **TRACK))[0] == 200
    assert await used(cases) == 6 * COST


KEYED = [
    ("track", "", TRACK | {"idempotency_key": "once"}),
    ("track", "once", TRACK),
    ("check", "once", CHECK | {"required_balance": 1, "send_event": True}),
]


@pytest.mark.parametrize(("verb", "key", "body"), KEYED, ids=str)
async def test_a_key_means_once(
    cases: openings.UseCases, routes: MeterRoutes, verb: str, key: str, body: dict[str, Any]
) -> None:
    """One that comes again is answered as the first was, also when both are under way; another call is refused."""
    _, first = await at_once(routes, verb, key=key, **body)
    both = [at_once(routes, verb, key=key, **body) for _ in range(2)]
    assert [await one for one in both] == [(200, first | {"replayed": True})] * 2
    other = body | {"properties": {"model": "small"}}
    status, refused = await at_once(routes, verb, key=key, **other)
    assert (status, refused["code"]) == (422, "idempotency_key_reused")
    assert await used(cases) == COST


@pytest.mark.parametrize(("verb", "key", "body"), KEYED, ids=str)
async def test_other_keys_of_what_is_known(
    cases: openings.UseCases, routes: MeterRoutes, verb: str, key: str, body: dict[str, Any]
) -> None:
    """What a use was answered without a key, or with another, tells nothing about the key, which still means once."""
    calls = [
        {"key": f"{key} {number}", **body} if key else body | {"idempotency_key": f"other-{number}"}
        for number in range(4)
    ]
    answers = [await at_once(routes, verb, **call) for call in calls]
    assert [status for status, _ in answers] == [200] * 4
    assert [answer["balance"]["remaining"] for _, answer in answers] == [4.9, 4.8, 4.7, 4.6]
    assert (await at_once(routes, verb, **calls[-1]))[1] == answers[-1][1] | {"replayed": True}
    changed = calls[-1] | {"properties": {"model": "small"}}
    assert (await at_once(routes, verb, **changed))[1]["code"] == "idempotency_key_reused"
    assert await used(cases) == 4 * COST


async def test_a_key_of_a_known_use_and_a_lost_reply(
    cases: openings.UseCases, routes: MeterRoutes, proxy: FaultProxy
) -> None:
    """It is looked for, and remembered, as the use with that key."""
    await known(routes, "track", **TRACK)
    proxy.lose_reply_to(b'"track"')
    status, _ = await at_once(routes, "track", key="once", **TRACK)
    assert (proxy.faults, status) == (1, 200)
    assert (await at_once(routes, "track", key="once", **TRACK))[1]["replayed"]
    assert await used(cases) == 4 * COST


async def test_a_key_is_found_where_keys_were_kept_before(
    cases: openings.UseCases, routes: MeterRoutes
) -> None:
    """Hours later, keys are kept in another bucket, also of a use whose command was made before."""
    await known(routes, "track", **TRACK)
    await at_once(routes, "track", key="before", **TRACK)
    asker = routes._tracks.of(json.dumps(TRACK).encode()).asker
    assert asker is not None
    assert asker.means is not None
    use = asker.means.prepared
    use.bucket, use.buckets = use.bucket - 5, [f"{name} of old" for name in use.buckets]
    assert (await at_once(routes, "track", key="before", **TRACK))[1]["replayed"]
    assert use.bucket == bucket_at(cases.clock.now_ms())


@pytest.mark.parametrize(("verb", "key", "body"), KEYED, ids=str)
async def test_a_key_and_a_lost_reply(
    cases: openings.UseCases,
    routes: MeterRoutes,
    proxy: FaultProxy,
    verb: str,
    key: str,
    body: dict[str, Any],
) -> None:
    """It is looked for by its op id, as one without a key; asked for again, it is a replay."""
    await at_once(routes, "track", **TRACK)  # the connection is there
    proxy.lose_reply_to(f'"{verb}"'.encode())
    status, _ = await at_once(routes, verb, key=key, **body)
    assert (proxy.faults, status) == (1, 200)
    assert (await at_once(routes, verb, key=key, **body))[1]["replayed"]
    assert await used(cases) == 2 * COST


async def test_a_key_where_repeated_keys_are_refused(cases: openings.UseCases) -> None:
    """As Autumn answers: 409, whatever the key was used for."""
    keys = RepeatedKeys(refuses=True)
    api = ApiSettings(env="test")
    routes = MeterRoutes(cases.meter, cases.holds, cases.entities, cases.outage, keys, api)
    answers = [await at_once(routes, "track", key="once", **TRACK) for _ in range(2)]
    answers.append(await at_once(routes, "track", key="once", **TRACK | {"value": 2}))
    assert [status for status, _ in answers] == [200, 409, 409]
    assert {answer["code"] for _, answer in answers[1:]} == {"duplicate_idempotency_key"}
    assert await used(cases) == COST


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    not_after=st.integers(0, 2**53),
    op_id=st.text("0123456789abcdef", min_size=1, max_size=40),
    texts=st.lists(TEXTS | st.sampled_from(["%", "%d", '""', "%%b", "\r\n$1"]), min_size=5, max_size=5),
    number=st.integers(-(10**24), 10**24),
    digests=st.lists(st.text("0123456789abcdef", min_size=1, max_size=40), min_size=2, max_size=2),
)
def test_a_packed_command_says_what_the_command_says(
    not_after: int, op_id: str, texts: list[str], number: int, digests: list[str]
) -> None:
    """Whatever is in an id or in properties: a per cent sign, quotes, what looks like RESP."""
    customer_id, feature_id, event_name, properties, record = texts
    call = journal.Call("track", "", 7, "", "", feature_id, number, None, event_name, "", properties)
    arguments: list[str | bytes | int] = ["cap", properties, feature_id, number, number]
    use = PreparedUse(Script("track"), [record, "journal"], customer_id, call, arguments)
    use.remember(1, [f"{record} 1", f"{record} 2"])
    keyed = KeyedUse(use, *digests)
    check = Prepared(Script("check"), [record], arguments)
    assert {one.packed(not_after, op_id) for one in (use, keyed, check)} == {b""}
    use.pack()
    check.pack()
    for one, sent in ((use, call), (keyed, call.keyed(*digests))):
        command = one.command(not_after, op_id)
        assert one.packed(not_after, op_id) == pack_command(command)
        of_script = command[3 + command[2] :]
        encoded = journal.encode_call(sent.of(op_id))
        assert of_script == (not_after, customer_id, encoded, sent.key, sent.fingerprint, *arguments)
    assert keyed.command(not_after, op_id)[2:7] == (4, record, "journal", f"{record} 1", f"{record} 2")
    assert check.packed(not_after, op_id) == pack_command(check.command(not_after, op_id))


async def test_a_batch_of_one_customer_when_no_more_can_wait(
    cases: openings.UseCases, routes: MeterRoutes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a hundred items fails before it waits for anything: one within the other, and each is answered."""
    batches = CallBatchRoutes(routes, ApiSettings(env="test"))
    items = [TRACK | {"verb": "track", "idempotency_key": f"key {number}"} for number in range(100)]
    assert cases.meter._store.hot is not None
    cases.meter._store.hot._room = 0
    monkeypatch.setattr(hot_connection, "CALLS_MAX", 0)
    answer = await batches.batch(Call(json.dumps(items).encode(), (), ""))
    assert [item["status"] for item in json.loads(answer.body)] == [202] * 100
    monkeypatch.undo()
    assert await used(cases) == 0
