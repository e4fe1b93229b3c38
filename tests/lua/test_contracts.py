"""The header of each script is a contract: here it is compared with the Python that calls it and the Lua below it."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from creditgate.balances.clock import RedisClock
from creditgate.balances.holds import Final
from creditgate.balances.keys import Keys
from creditgate.balances.linking import without_unused
from creditgate.balances.scripts import load_source, lua_folder, script_names
from creditgate.balances.store import BalanceStore, Need, Needs, Unknown, Use
from creditgate.core.catalog import Pool
from creditgate.core.changes import Change, Step
from creditgate.core.customers import Customer, Row, Terms
from creditgate.core.decisions import Mode, Status
from creditgate.core.holds import Limits, decode_hold
from creditgate.core.journal import Call, StreamId
from tests.lua.harness import DAY_MS, NEVER_TOO_LATE, T0, World, answer, nanos, row

METHODS = [name for name in script_names() if name != "merged"]
"""merged.lua has no method: the connection sends it, in place of scripts that have; see test_merged.py."""

SECTIONS = ("KEYS", "ARGV", "Returns", "Writes")
KEY_BUCKETS = 4

DERIVED = {
    "call": ["call", "key", "fingerprint"],
    "change": ["document", "terms", "due", "orders_count", "steps_count", "orders...", "steps..."],
    "pools": ["pools..."],
    "customer": ["document"],
    "terms": ["terms", "due", "orders_count", "holds_count", "orders..."],
    "holds": ["holds..."],
    "balances": ["balances..."],
    "limits": ["lasts_ms", "lasts_ms_max", "holds_max", "note"],
    "finals": ["key", "fingerprint", "finals_count", "finals..."],
    "uses": ["key", "fingerprint", "uses_count", "uses..."],
}
"""The arguments that stand for one parameter of the method; every other parameter is an argument of the same name."""


@dataclass(frozen=True)
class Header:
    """The comment at the top of a script."""

    purpose: str
    keys: dict[str, str]
    arguments: list[str]
    returns: str
    writes: str

    @property
    def statuses(self) -> set[str]:
        return set(re.findall(r"\b[A-Z][A-Z_]+\b", self.returns)) - {"TIME", "SQL"}

    @property
    def writes_nothing(self) -> bool:
        return self.writes.strip() == "nothing"


def header_of(name: str) -> Header:
    """Read the header of a script."""
    comment = re.match(r"(?:--.*\n)+", (lua_folder() / f"{name}.lua").read_text())
    assert comment, f"{name}.lua has no header"
    lines = [line[2:].removeprefix(" ") for line in comment[0].splitlines()]
    sections: dict[str, list[str]] = {"purpose": []}
    current = "purpose"
    for line in lines:
        if line in SECTIONS:
            current = line
            sections[current] = []
        else:
            sections[current].append(line)
    assert tuple(sections) == ("purpose", *SECTIONS), f"{name}.lua: sections {list(sections)}"
    named = re.compile(r"  (\w+(?:\.\.\.)?)\s+(.*)")
    return Header(
        purpose=" ".join(sections["purpose"]).strip(),
        keys={match[1]: match[2] for line in sections["KEYS"] if (match := named.fullmatch(line))},
        arguments=[match[1] for line in sections["ARGV"] if (match := named.fullmatch(line))],
        returns="\n".join(sections["Returns"]),
        writes="\n".join(sections["Writes"]),
    )


def method_of(name: str) -> Callable[..., Any]:
    """The method of the store with the script's name."""
    method: Callable[..., Any] = getattr(BalanceStore, name)
    return method


def parameters_of(name: str) -> list[str]:
    """The method's parameters; all have to be given by name."""
    parameters = list(inspect.signature(method_of(name)).parameters.values())[1:]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters), name
    return [parameter.name for parameter in parameters]


def expected_arguments(name: str) -> list[str]:
    """What the parameters become as arguments: one by one in order, but for those that are derived.

    A call is sent with its key only where the caller's key is looked up, which the script's KEYS tell. The customer's
    id and the name of a lease stand in a key; as an argument the id is needed only for what is written beside it.
    """
    header = header_of(name)
    arguments: list[str] = []
    for parameter in parameters_of(name):
        derived = DERIVED.get(parameter, [parameter])
        if parameter == "call" and "buckets..." not in header.keys:
            derived = ["call"]
        if parameter == "call" and name == "hold":
            derived = [*derived, "op_id"]
        if parameter == "name" or (parameter == "customer_id" and header.writes_nothing):
            derived = []
        arguments += derived
    return arguments


def variables_of(name: str, table: str) -> dict[int, str]:
    """The local variables that a script gives to the slots of KEYS or ARGV."""
    found: dict[int, str] = {}
    for names, values in re.findall(
        r"^local ([\w, ]+) = (.*)$", (lua_folder() / f"{name}.lua").read_text(), re.MULTILINE
    ):
        for variable, value in zip(names.split(", "), values.split(", "), strict=False):
            slot = re.fullmatch(rf"(?:tonumber\(|\w+\.\w+\()?{table}\[(\d+)\]\)?", value)
            if slot:
                found[int(slot[1])] = variable
    return found


@pytest.mark.parametrize("name", METHODS)
def test_header_names_the_arguments_of_the_method(name: str) -> None:
    """The script's arguments are the method's parameters in the same order; a swap would charge in the wrong unit."""
    assert header_of(name).arguments == expected_arguments(name)


@pytest.mark.parametrize("name", script_names())
def test_script_names_its_slots_as_the_header_does(name: str) -> None:
    """Inside the script each slot has the name it has in the header."""
    header = header_of(name)
    for slot, variable in variables_of(name, "ARGV").items():
        assert header.arguments[slot - 1] == variable
    for slot, variable in variables_of(name, "KEYS").items():
        assert list(header.keys)[slot - 1] == variable.lower()


@pytest.mark.parametrize("name", script_names())
def test_header_says_what_the_script_is_for(name: str) -> None:
    """Someone who opens the file at night learns in its first sentence what the script does."""
    header = header_of(name)
    assert header.purpose.endswith(".")
    assert header.writes.strip()


def test_statuses_are_the_same_in_lua_and_in_python() -> None:
    """A status that means one thing in Lua and another in Python answers a refusal as a success."""
    text = (lua_folder() / "lib" / "status.lua").read_text()
    in_lua = {name: int(number) for name, number in re.findall(r"^  (\w+) = (-?\d+),", text, re.MULTILINE)}
    assert in_lua == {status.name: status.value for status in Status}
    assert list(in_lua.values()) == sorted(in_lua.values()), "the list in the file is the order of precedence"


def test_scripts_carry_what_they_use_and_nothing_else() -> None:
    """What no call needs would be paid for by every call; what no script needs is dead."""
    used: set[str] = set()
    for name in script_names():
        source = without_unused(load_source(name, whole=True), "")
        defined = _functions(source)
        calls = re.sub("--[^\n]*", "", source)
        assert [f for f in defined if len(re.findall(rf"(?<![\w.]){re.escape(f)}\b", calls)) < 2] == []
        used |= defined
    libraries = (lua_folder() / "lib").glob("*.lua")
    assert set().union(*(_functions(library.read_text()) for library in libraries)) <= used


def _functions(source: str) -> set[str]:
    return set(re.findall(r"^(?:local )?function ([a-z_.]+)\(", source, re.MULTILINE))


@pytest.mark.parametrize("name", script_names())
def test_header_names_the_statuses_of_the_script(name: str) -> None:
    """Every status a script can answer is in its header, and none that it cannot: callers handle what stands there."""
    header = header_of(name)
    own = set(re.findall(r"STATUS\.([A-Z_]+)", (lua_folder() / f"{name}.lua").read_text()))
    text = (lua_folder() / f"{name}.lua").read_text()
    if "records.read(" in text:
        own |= {"ABSENT", "UPGRADE", "DUE"}
        if "records.read(RECORD, not_after" in text:
            own |= {"TOO_LATE"}
    if "rows.pools(" in text:
        own |= {"NO_ENTITY"}
    if "keys.find(" in text:
        own |= {"REPLAYED", "KEY_REUSED"}
    if "shapes.read(" in text:
        own |= {"ABSENT", "UPGRADE", "DUE"}
    if "tracking.decide(" in text or "checking.decide(" in text:
        own |= {"OK", "REFUSED"}
    if "tracking.decide(" in text:
        own |= {"OUT_OF_RANGE"}
    if "change.decide(" in text:
        own |= {"MOVED_ON", "OUT_OF_RANGE"}
    if "settling.decide(" in text:
        own |= {"OUT_OF_RANGE"}
    if name == "forward":
        own -= {"DUE"}  # which is what it is for
    if name == "restore":
        own -= {"ABSENT", "UPGRADE", "DUE"}  # it overwrites them
    assert header.statuses <= {status.name for status in Status}
    assert header.statuses == own


class Recorder:
    """A client that remembers what would be sent, and then loses the connection."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.arguments: list[Any] = []

    async def evalsha(self, sha: str, keys_count: int, *rest: Any) -> None:
        self.keys, self.arguments = list(rest[:keys_count]), list(rest[keys_count:])
        raise RedisConnectionError("lost")


RECEIPT = (
    b'{"feature_id":"messages","op_id":"op1","mode":"cap","expires_at":1234,"value_nanos":5,"used_nanos":0,'
    b'"legs":[["bal_1","messages",1000000000,-5,"-"]],"gates":[["lim_1","messages",-5,"3"]],"properties":{"a":1}}'
)
HOLD = decode_hold(RECEIPT)
ENCODED_CALL = b'["verb","op",7,"%b","%b","",null,null,"","","{}"]'


def samples(*, key: str) -> dict[str, Any]:
    """A value for each parameter that any method has."""
    one = Row(id="bal_1", feature_id="messages", created_at=1)
    call = Call("verb", "op", 7, key=key, fingerprint="f00d" if key else "")
    return {
        "not_after": 111,
        "customer_id": "ann/b",
        "call": call,
        "mode": Mode.REJECT,
        "properties": ("aa11", "bb22"),
        "pools": [Need(Pool("messages", 10**9), 5), Need(Pool("credits", 2), 1)],
        "uid": "uid1",
        "expected_shape": 222,
        "expected_sequence": 333,
        "clock": 444,
        "change": Change(
            due=555,
            customer=Customer("ann/b", 1),
            terms=Terms((one,)),
            orders={"messages": "0:bal_1:0:0:-", "credits": ""},
            steps=(Step("open", "bal_1", 6),),
        ),
        "document_type": "catalog",
        "document_id": "-",
        "expected_version": 666,
        "document": b"{}",
        "stood_at": StreamId(999, 1),
        "sequence": 777,
        "customer": Customer("ann/b", 1),
        "terms": Terms((one,)),
        "holds": {"a b": HOLD},
        "balances": {"bal_1": 6},
        "hold_id": "a b",
        "expires_at": 1234,
        "limits": Limits(11, 12, 13),
        "used": 14,
        "finals": [
            Final("a b", "op1", 15, call, ["d1", "d2"], [Need(Pool("messages", 10**9), 5)]),
            Final("c", "op2", 16, call, (), [Need(Pool("messages", 10**9), 0), Need(Pool("credits", 2), 0)]),
        ],
        "uses": [
            Use(call, Needs([Need(Pool("messages", 10**9), 5), Need(Pool("credits", 2), 1)])),
            Use(call, Needs([Need(Pool("seats", 10**9), 5)])),
        ],
        "instead_of": "them",
        "name": "flusher",
        "holder": "me",
        "ttl_ms": 888,
        "batch_id": "bat_1",
        "most": 1010,
    }


SENT: dict[str, list[Any]] = {
    "not_after": [111],
    "customer_id": ["ann/b"],
    "call": [ENCODED_CALL],
    "key": ["%s"],
    "fingerprint": ["%s"],
    "mode": ["reject"],
    "properties": ["aa11 bb22"],
    "pools...": ["messages", 10**9, 5, "credits", 2, 1],
    "uid": ["uid1"],
    "expected_shape": [222],
    "expected_sequence": [333],
    "clock": [444],
    "due": [555],
    "orders_count": [2],
    "steps_count": [1],
    "orders...": ["messages", "0:bal_1:0:0:-", "credits", ""],
    "steps...": ["open", "bal_1", 6],
    "document_type": ["catalog"],
    "document_id": ["-"],
    "expected_version": [666],
    "stood_at": ["999-1"],
    "sequence": [777],
    "holds_count": [1],
    "holds...": ["a%20b", RECEIPT],
    "balances...": ["bal_1", 6],
    "op_id": ["op"],
    "hold_id": ["a%20b"],
    "expires_at": [1234],
    "lasts_ms": [11],
    "lasts_ms_max": [12],
    "holds_max": [13],
    "note": ["{}"],
    "used": [14],
    "finals_count": [2],
    "finals...": [
        *("a%20b", "op1", 15, ENCODED_CALL, "d1 d2", 1, "messages", 10**9, 5),
        *("c", "op2", 16, ENCODED_CALL, "", 2, "messages", 10**9, 0, "credits", 2, 0),
    ],
    "uses_count": [2],
    "uses...": [
        *(ENCODED_CALL, 2, "messages", 10**9, 5, "credits", 2, 1),
        *(ENCODED_CALL, 1, "seats", 10**9, 5),
    ],
    "instead_of": ["them"],
    "holder": ["me"],
    "ttl_ms": [888],
    "batch_id": ["bat_1"],
    "most": [1010],
}
"""What has to arrive for each argument of a header, where it is not a document."""


def flattened(name: str, sent: list[Any], *, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Pairs each argument that was sent with its name in the header and the expected value."""
    position = 0
    for argument in header_of(name).arguments:
        expected: list[Any] = SENT.get(argument, [None])
        if name == "restore" and argument in ("due", "orders_count", "orders..."):
            # restore works these out of the terms and holds; the row of the samples is never due.
            of_terms: dict[str, list[Any]] = {
                "due": [1234],
                "orders_count": [1],
                "orders...": ["messages", "0:bal_1:0:0:-"],
            }
            expected = of_terms[argument]
        for value in expected:
            fitted = value
            if value is ENCODED_CALL:
                fitted = value % ((b"cafe", b"f00d") if key else (b"", b""))
            elif argument == "key":
                fitted = key
            elif argument == "fingerprint":
                fitted = "f00d" if key else ""
            yield argument, sent[position], fitted
            position += 1
    assert position == len(sent), f"{name}: {len(sent) - position} more arguments than the header names"


@pytest.mark.parametrize("key", ["", "cafe"])
@pytest.mark.parametrize("name", METHODS)
async def test_store_sends_what_the_header_says(name: str, key: str) -> None:
    """Each value arrives in the slot that bears its name, and each key has the shape that the header shows."""
    recorder = Recorder()
    clock = RedisClock()
    clock.correct(T0)
    store = BalanceStore(recorder, Keys(8), clock)  # type: ignore[arg-type]
    given = samples(key=key)
    with pytest.raises(Unknown):
        await getattr(store, name)(**{parameter: given[parameter] for parameter in parameters_of(name)})
    for argument, sent, expected in flattened(name, recorder.arguments, key=key):
        if expected is not None:
            assert sent == expected, f"{name}: {argument}"
        else:
            assert isinstance(sent, bytes), f"{name}: {argument}"
            assert sent.startswith(b"{"), f"{name}: {argument}"
    patterns = [
        pattern
        for slot, text in header_of(name).keys.items()
        for pattern in ([text.split(",")[0]] * KEY_BUCKETS if slot == "buckets..." else [text])
        if slot != "buckets..." or key
    ]
    assert len(recorder.keys) == len(set(recorder.keys)) == len(patterns)
    for sent_key, pattern in zip(recorder.keys, patterns, strict=True):
        shape = re.escape(pattern).replace(r"\{p\}", r"\{p\d\d\}")
        shape = re.sub(r"<(bucket)>", r"\\d+", shape)
        shape = re.sub(r"<\w+>", r"[\\w%.~-]+", shape)
        assert re.fullmatch(shape, sent_key), f"{name}: {sent_key} is not {pattern}"
    tags = {re.search(r"\{\w+\}", sent_key)[0] for sent_key in recorder.keys}  # type: ignore[index]
    assert len(tags) == 1, "all keys of a call lie in one slot of a cluster"


# Precedence: one test holds the order, script by script, by making everything apply and taking the worst away.


async def test_smallest_status_is_answered(world: World) -> None:
    """Where several refusals apply, the one that callers must act on first is answered, the same by every script."""
    await world.create("ann", row("r", "messages", "5", expires_at=world_expiry(world)), clock=None)
    record_key = world.keys.record("ann")
    await world.track("ann", "messages", "1", key="aa", fingerprint="bb")
    big = "999999999999999.999999999"

    async def tracked(
        customer: str = "ann", *, units: str = big, late: bool = False, key: str = "aa", other: str = "cc"
    ) -> Status:
        reply = await world.track(
            customer,
            "messages",
            units,
            mode=Mode.OVERFLOW,
            key=key,
            fingerprint=other,
            not_after=0 if late else NEVER_TOO_LATE,
        )
        return reply.status

    await answer(world.redis.hset(record_key, mapping={"v": "2", "due": "1"}))
    assert await tracked("nobody", late=True) is Status.TOO_LATE
    assert await tracked("nobody") is Status.ABSENT
    assert await tracked() is Status.UPGRADE
    await answer(world.redis.hset(record_key, "v", "1"))
    assert await tracked() is Status.DUE
    await answer(world.redis.hset(record_key, "due", ""))
    assert await tracked() is Status.KEY_REUSED
    assert await tracked(other="bb") is Status.REPLAYED
    await answer(world.redis.hset(record_key, "b:r", str(-(10**24) + 1)))
    assert await tracked(key="") is Status.OUT_OF_RANGE
    await answer(world.redis.hset(record_key, "b:r", str(nanos("4"))))

    record = await world.record("ann")
    stale = Change(due=None, steps=(Step("open", "x", 10**24 - 1), Step("close", "gone")))
    await answer(world.redis.hset(record_key, mapping={"v": "2", "due": "1"}))
    call = world.call("change", key="aa", fingerprint="cc")
    same = world.call("change", key="aa", fingerprint="bb")
    assert (await world.change(record, stale, call=call, uid="other", not_after=0)).status is Status.TOO_LATE
    assert (await world.change(record, stale, call=call, uid="other")).status is Status.UPGRADE
    await answer(world.redis.hset(record_key, "v", "1"))
    assert (await world.change(record, stale, call=call, uid="other")).status is Status.DUE
    await answer(world.redis.hset(record_key, "due", ""))
    assert (await world.change(record, stale, call=call, uid="other")).status is Status.KEY_REUSED
    assert (await world.change(record, stale, call=same, uid="other")).status is Status.REPLAYED
    assert (await world.change(record, stale, uid="other")).status is Status.MOVED_ON
    await answer(world.redis.hset(record_key, "due", str(world_expiry(world))))


def world_expiry(world: World) -> int:
    """An instant that no test lives to see."""
    return (world.clock.now_ms() // DAY_MS + 3650) * DAY_MS
