"""What goes wrong inside Redis leaves everything exactly as it was: bad arguments, keys of a wrong type, no memory."""

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from creditgate.balances.calls import NO_JOURNAL
from creditgate.balances.scripts import Script
from creditgate.balances.store import BalanceStore, Unknown, Use
from creditgate.core.changes import rows_change
from creditgate.core.decisions import Mode, Status
from creditgate.core.holds import HOLD_LIMITS
from creditgate.errors import Unavailable
from tests.lua.harness import DAY_MS, MONTH, NEVER_TOO_LATE, T0, UID, World, answer, row
from tests.lua.test_contracts import Recorder, header_of
from tests.lua.test_put import put

WRITERS = [
    *("track", "track_event", "hold", "settle", "progress", "change", "forward", "delete", "put"),
    *("open_batch", "close_batch"),
]
NAMES = [*WRITERS, "check", "read"]
KEYED = ("track", "track_event", "hold", "settle", "change", "delete", "put", "open_batch")


@dataclass(frozen=True)
class Sent:
    """One call of a script, as the store would send it."""

    script: Script
    keys: list[str]
    arguments: list[Any]

    async def run(self, world: World) -> list[Any]:
        return await self.script.call(world.redis, self.keys, self.arguments)

    def slot(self, name: str) -> int:
        """Where the argument of this name stands; only for those before the first list."""
        return header_of(self.script.name).arguments.index(name)

    def with_argument(self, slot: int, value: Any) -> "Sent":
        return replace(self, arguments=[*self.arguments[:slot], value, *self.arguments[slot + 1 :]])


async def capture(world: World, name: str) -> Sent:
    """A call that would succeed on a customer who is made here: for forward, one for whom something is due."""
    await world.create("ann", row("r", "messages", "5", resets=MONTH), row("c", "credits", "5"))
    await world.track("ann", "messages", "1")
    if name == "forward":
        await world.set_clock("ann", T0 + 31 * DAY_MS)
    if name in ("settle", "progress"):
        await world.hold("ann", "action1", "3")
    await put(world, b"{}", version=0)
    await world.store.open_batch(
        not_after=NEVER_TOO_LATE, call=world.call("batch"), batch_id="bat_1", document=b"[]", most=2
    )
    record = await world.record("ann")
    recorder = Recorder()
    store = BalanceStore(recorder, world.keys, world.clock)  # type: ignore[arg-type]
    call = world.call("call", key="aa", fingerprint="bb")
    common: dict[str, Any] = {"not_after": NEVER_TOO_LATE, "customer_id": "ann", "call": call}
    change = rows_change(record, customer=record.customer, opened=[row("new", "messages", "7")])
    calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "track": lambda: store.track(
            **common, mode=Mode.CAP, properties=(), pools=world.needs("action1", "2")
        ),
        "track_event": lambda: store.track_event(
            not_after=NEVER_TOO_LATE,
            customer_id="ann",
            mode=Mode.CAP,
            properties=(),
            uses=[Use(call, world.needs("messages", "2")), Use(call, world.needs("action1", "2"))],
        ),
        "hold": lambda: store.hold(
            **common,
            mode=Mode.REJECT,
            hold_id="lock",
            expires_at=T0 + 1,
            limits=HOLD_LIMITS,
            properties=(),
            pools=world.needs("action1", "2"),
        ),
        "settle": lambda: store.settle(
            not_after=NEVER_TOO_LATE,
            customer_id="ann",
            expected_sequence=record.sequence,
            finals=[world.final("lock", record.holds["lock"], "4", key="aa", fingerprint="bb")],
        ),
        "progress": lambda: store.progress(**common, hold_id="lock", used=5),
        "check": lambda: store.check(customer_id="ann", properties=(), pools=world.needs("action1", "2")),
        "read": lambda: store.read(customer_id="ann"),
        "change": lambda: store.change(
            **common,
            uid=UID,
            expected_shape=record.shape,
            clock=T0 + 1,
            change=change,
        ),
        "forward": lambda: store.forward(
            **common,
            uid=UID,
            expected_sequence=record.sequence,
            change=world.forward_change(record),
        ),
        "delete": lambda: store.delete(**common),
        "put": lambda: store.put(
            not_after=NEVER_TOO_LATE,
            call=call,
            document_type="catalog",
            document_id="-",
            expected_version=1,
            document=b"[]",
        ),
        "open_batch": lambda: store.open_batch(
            not_after=NEVER_TOO_LATE, call=call, batch_id="bat_2", document=b"[]", most=2
        ),
        "close_batch": lambda: store.close_batch(
            not_after=NEVER_TOO_LATE, call=call, batch_id="bat_1", document=b"{}"
        ),
    }
    with pytest.raises(Unknown):
        await calls[name]()
    return Sent(Script(name), recorder.keys, recorder.arguments)


@pytest.fixture
async def sane(world: World) -> AsyncIterator[World]:
    """The world, with its limits as they were after the test."""
    yield world
    await world.redis.config_set("maxmemory", 0)


WHOLE = ["nan", "-nan", "inf", "-inf", "1e3", "0x10", "1.5", " 1", "1 ", "abc", "", "-1", "9" * 30, "1\x00"]
OPTIONAL_WHOLE = [text for text in WHOLE if text]
AMOUNT = ["nan", "inf", "1.5", "1e3", "", "+1", " 1", "0x10", "--1", "-", "1-", "9" * 25, "1\n", "\u0661"]
GARBAGE = [
    *((name, argument, text) for name in WRITERS for argument in ("not_after",) for text in WHOLE),
    *(("change", "expected_shape", text) for text in WHOLE),
    *(("change", "clock", text) for text in OPTIONAL_WHOLE),
    *(("forward", "expected_sequence", text) for text in WHOLE),
    *(("hold", argument, text) for argument in ("lasts_ms", "lasts_ms_max", "holds_max") for text in WHOLE),
    *(("hold", "expires_at", text) for text in OPTIONAL_WHOLE),
    *(("hold", "mode", text) for text in ("", "CAP", "cap ", "all")),
    *(
        (name, "hold_id", text)
        for name in ("hold", "progress")
        for text in ("", "a b", 'a"', "a\\", "ä", "a\n", "\x00")
    ),
    *(("hold", "op_id", text) for text in ("", "a b", 'a"b')),
    *(("hold", "note", text) for text in ("", "[]", "{", "x{}", "null")),
    *(("progress", "used", text) for text in [*AMOUNT, "-1"]),
    *(("settle", "expected_sequence", text) for text in OPTIONAL_WHOLE),
    *(("settle", "finals_count", text) for text in [*WHOLE, "0", "2", "17", "1000000000"]),
    *(("put", "expected_version", text) for text in WHOLE),
    *(
        (name, argument, text)
        for name in ("change", "forward")
        for argument in ("due",)
        for text in OPTIONAL_WHOLE
    ),
    *(
        (name, argument, text)
        for name in ("change", "forward")
        for argument in ("orders_count", "steps_count")
        for text in [*WHOLE, "0", "7", "1000000000"]
    ),
    *(("track", "mode", text) for text in ("", "CAP", "cap ", "all", "overflowing")),
    *(("track_event", "mode", text) for text in ("", "CAP", "cap ", "all", "reject")),
    *(("track_event", "uses_count", text) for text in [*WHOLE, "0", "1", "3", "17", "1000000000"]),
    *(
        (name, argument, text)
        for name in KEYED
        for argument in ("key", "fingerprint")
        for text in ("x", "a b")
    ),
    *((name, "fingerprint", "") for name in KEYED),
    *(("open_batch", "most", text) for text in WHOLE),
    *((name, "batch_id", text) for name in ("open_batch", "close_batch") for text in ("", "a b", "a\nb")),
    *((name, "document", "") for name in ("open_batch", "close_batch")),
    *(("put", "document_id", text) for text in ("", "a b", "version", "a\nb")),
    *(("put", "document_type", text) for text in ("", "a b")),
    ("put", "document", ""),
]


@pytest.mark.parametrize(("name", "argument", "text"), GARBAGE)
async def test_garbage_is_invalid(world: World, name: str, argument: str, text: str) -> None:
    """An argument that is not what the header says is refused before anything is read: NaN compares false with all."""
    sent = await capture(world, name)
    before = await world.everything()
    reply = await sent.with_argument(sent.slot(argument), text).run(world)
    assert reply[0] == Status.INVALID
    assert reply[1] > T0
    assert await world.everything() == before
    assert (await sent.run(world))[0] == Status.OK


@pytest.mark.parametrize("text", AMOUNT)
@pytest.mark.parametrize(
    ("name", "from_end"),
    [
        *(
            (name, from_end)
            for name in ("track", "track_event", "check", "hold", "settle")
            for from_end in (1, 2)
        ),
        ("change", 1),
        ("forward", 1),
    ],
)
async def test_garbage_amounts_are_invalid(world: World, name: str, from_end: int, text: str) -> None:
    """What is not an exact amount (a need, a cost, a step) never gets near a balance."""
    sent = await capture(world, name)
    before = await world.everything()
    reply = await sent.with_argument(len(sent.arguments) - from_end, text).run(world)
    assert reply[0] == Status.INVALID
    assert await world.everything() == before


@pytest.mark.parametrize("name", ["track", "track_event", "check", "hold", "settle"])
async def test_negative_cost_is_invalid(world: World, name: str) -> None:
    """A cost below zero would turn use into a grant."""
    sent = await capture(world, name)
    assert (await sent.with_argument(len(sent.arguments) - 2, "-1").run(world))[0] == Status.INVALID


@pytest.mark.parametrize("name", ["track", "track_event", "check", "hold", "settle"])
async def test_needs_of_both_signs_are_invalid(world: World, name: str) -> None:
    """A call either takes or gives back: pools that disagree would create credits."""
    sent = await capture(world, name)
    before = await world.everything()
    assert (await sent.with_argument(len(sent.arguments) - 1, "-400000000").run(world))[0] == Status.INVALID
    assert await world.everything() == before


@pytest.mark.parametrize("text", ["", "nan", "1.5", "+1", " 1", "9" * 25, "\u0661"])
async def test_garbage_final_is_invalid(world: World, text: str) -> None:
    """A hold is settled at an exact amount, or not at all."""
    sent = await capture(world, "settle")
    before = await world.everything()
    final = sent.slot("finals_count") + 3
    assert (await sent.with_argument(final, text).run(world))[0] == Status.INVALID
    assert await world.everything() == before


@pytest.mark.parametrize("more", ["0", "3", "5"])
async def test_use_beyond_a_hold_has_to_add_up(world: World, more: str) -> None:
    """What is taken beyond a hold is what was used minus what was held; anything else is a bug, and takes nothing."""
    sent = await capture(world, "settle")
    before = await world.everything()
    final = sent.slot("finals_count") + 3
    assert (await sent.with_argument(final, f"{more}000000000").run(world))[0] == Status.INVALID
    assert await world.everything() == before


async def test_a_hold_named_twice_is_invalid(world: World) -> None:
    """One hold is settled once in a call."""
    sent = await capture(world, "settle")
    before = await world.everything()
    at = sent.slot("finals_count")
    head, final = sent.arguments[:at], sent.arguments[at + 1 :]
    assert (await replace(sent, arguments=[*head, "2", *final, *final]).run(world))[0] == Status.INVALID
    assert await world.everything() == before


@pytest.mark.parametrize("action", ["", "opens", "OPEN", "grant"])
async def test_unknown_step_is_invalid(world: World, action: str) -> None:
    """A step this version does not know closes no row."""
    sent = await capture(world, "change")
    before = await world.everything()
    assert (await sent.with_argument(len(sent.arguments) - 3, action).run(world))[0] == Status.INVALID
    assert await world.everything() == before


@pytest.mark.parametrize("row_id", ["", "a b", "a:b", "a\nb"])
async def test_row_id_that_the_journal_cannot_hold_is_invalid(world: World, row_id: str) -> None:
    """A row whose id has a blank could not be read back from the journal: it would be set aside as poison."""
    sent = await capture(world, "change")
    before = await world.everything()
    assert (await sent.with_argument(len(sent.arguments) - 2, row_id).run(world))[0] == Status.INVALID
    assert await world.everything() == before


@pytest.mark.parametrize("name", ["track", "track_event", "check", "hold", "settle", "change", "forward"])
@pytest.mark.parametrize("more", [-2, -1, 1, 2])
async def test_number_of_arguments_is_checked(world: World, name: str, more: int) -> None:
    """A list that is cut off, or goes on, is refused as a whole instead of being read in part."""
    sent = await capture(world, name)
    before = await world.everything()
    arguments = sent.arguments[:more] if more < 0 else [*sent.arguments, *["1"] * more]
    assert (await replace(sent, arguments=arguments).run(world))[0] == Status.INVALID
    assert await world.everything() == before


SLOTS = [
    ("track", 6),
    ("track_event", 6),
    ("hold", 7),
    ("settle", 6),
    ("progress", 2),
    ("change", 7),
    ("forward", 3),
    ("delete", 7),
    ("put", 6),
    ("check", 1),
    ("read", 1),
    ("open_batch", 6),
    ("close_batch", 2),
]


@pytest.mark.parametrize(("name", "slot"), [(name, slot) for name, count in SLOTS for slot in range(count)])
async def test_key_of_a_wrong_type(world: World, name: str, slot: int) -> None:
    """A script that meets a key it cannot use stops with an error before its first write: all stays as it was."""
    sent = await capture(world, name)
    key = sent.keys[slot]
    kept = await world.redis.dump(key)
    await world.redis.set(key, "of another type")
    before = await world.everything()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await sent.run(world)
    assert await world.everything() == before
    await world.redis.delete(key)
    if kept is not None:
        await answer(world.redis.restore(key, 0, kept))
    assert (await sent.run(world))[0] == Status.OK


@pytest.mark.parametrize("name", WRITERS)
async def test_a_journal_that_is_gone(world: World, name: str) -> None:
    """A server that lost its data begins no journal of its own: the call fails before anything is written."""
    sent = await capture(world, name)
    journal = next(key for key in sent.keys if key.endswith(":j"))
    kept = await world.redis.dump(journal)
    await world.redis.delete(journal)
    before = await world.everything()
    with pytest.raises(ResponseError, match=f"^{NO_JOURNAL}"):
        await sent.run(world)
    assert await world.everything() == before
    assert kept is not None
    await answer(world.redis.restore(journal, 0, kept))
    assert (await sent.run(world))[0] == Status.OK


@pytest.mark.parametrize("name", WRITERS)
async def test_full_memory(sane: World, name: str) -> None:
    """A server without memory refuses the whole call; no half of it is written."""
    sent = await capture(sane, name)
    before = await sane.everything()
    await sane.redis.config_set("maxmemory", 1)
    with pytest.raises(ResponseError, match="maxmemory"):
        await sent.run(sane)
    await sane.redis.config_set("maxmemory", 0)
    assert await sane.everything() == before
    assert (await sent.run(sane))[0] == Status.OK


@pytest.mark.parametrize("field", ["b:r", "seq"])
async def test_damaged_record(world: World, field: str) -> None:
    """A record that somebody damaged by hand is not written over: the call fails, and the damage can be repaired."""
    sent = await capture(world, "track" if field == "b:r" else "change")
    if field == "b:r":
        sent = replace(sent, arguments=[*sent.arguments[:7], "messages", 10**9, 10**9])
    key = world.keys.record("ann")
    kept = await answer(world.redis.hget(key, field))
    await answer(world.redis.hset(key, field, "damaged"))
    before = await world.everything()
    with pytest.raises(ResponseError):
        await sent.run(world)
    assert await world.everything() == before
    await answer(world.redis.hset(key, field, kept))
    assert (await sent.run(world))[0] == Status.OK


async def test_errors_reach_the_caller_as_unavailable(world: World) -> None:
    """A server that refuses is told apart from one that does not answer: the first has certainly done nothing."""
    await world.create("ann", row("r", "messages", "5"))
    journal = world.keys.journal(world.keys.partition_of("ann"))
    kept = await world.redis.dump(journal)
    await world.redis.delete(journal)
    await world.redis.set(journal, "x")
    with pytest.raises(Unavailable):
        await world.track("ann", "messages", "1")
    await world.redis.delete(journal)
    assert kept is not None
    await answer(world.redis.restore(journal, 0, kept))
    lost = BalanceStore(Lost(), world.keys, world.clock)  # type: ignore[arg-type]
    with pytest.raises(Unknown):
        await lost.check(customer_id="ann", properties=(), pools=world.needs("messages", "1"))


class Lost:
    """A client whose connection is gone."""

    async def evalsha(self, *_: Any) -> None:
        raise RedisConnectionError("lost")


async def test_forgotten_scripts_are_loaded_again(world: World) -> None:
    """After a restart, a failover or SCRIPT FLUSH every call works at once, with one effect."""
    for name in NAMES:
        await world.empty()
        sent = await capture(world, name)
        await world.redis.script_flush()
        assert (await sent.run(world))[0] == Status.OK
    await world.empty()
    await world.create("ann", row("r", "messages", "5"))
    for _ in range(3):
        await world.redis.script_flush()
        await world.track("ann", "messages", "1")
    assert await world.balances("ann") == {"r": "2"}
