"""Where a key of a cluster is, and where a node sends us: a wrong answer is a customer who is asked for elsewhere."""

import asyncio
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError

from creditgate.balances.hot_cluster import ASKING, _Asking
from creditgate.balances.topology import SLOTS, Address, NodeClients, Topology, address_in, slot_of
from creditgate.balances.wire import Awaited, Wire, error_of

ANSWERED_BY = Address("10.0.0.1", 6379)


@pytest.mark.parametrize(
    "key", ["a", "cg:{p00}:c:ann", "cg:{sys}:j", "{}x", "a{b}{c}", "a{b", "a{}{b}", "}{", "", "ä{ö}ü"]
)
def test_slots_are_those_of_the_server(key: str) -> None:
    """Also with braces that are no tag, as a prefix may have them."""
    assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("MOVED 3999 10.0.0.2:6381", MovedError, Address("10.0.0.2", 6381)),
        ("ASK 3999 node-2.example:6381", AskError, Address("node-2.example", 6381)),
        ("MOVED 3999 ::1:6381", MovedError, Address("::1", 6381)),
        ("MOVED 3999 :6381", MovedError, Address("10.0.0.1", 6381)),
        ("ASK 3999 ?:6381", AskError, Address("10.0.0.1", 6381)),
    ],
)
def test_where_a_node_sends_us(text: str, kind: type[AskError], address: Address) -> None:
    """A node that does not know its name in the world is where the one is that told of it."""
    error = error_of(text)
    assert type(error) is kind
    assert isinstance(error, AskError)
    assert address_in(error, ANSWERED_BY) == address


@pytest.mark.parametrize("is_resp2", [True, False])
async def test_the_map_is_read_in_both_protocols(is_resp2: bool) -> None:
    """Primaries without slots are there too: a slot may be on its way to one."""
    nodes = [
        {b"endpoint": b"", b"port": 1, b"role": b"master"},
        {b"endpoint": None, b"port": 2, b"role": b"replica"},
    ]
    shards = [
        {b"slots": [0, 5, 7, 7], b"nodes": nodes},
        {b"slots": [], b"nodes": [{b"endpoint": b"h", b"port": 3, b"role": b"master"}]},
    ]
    topology = Topology(NodeClients("redis://10.0.0.1:9"))
    topology._take(topology._nodes.seed, _flat(shards) if is_resp2 else shards)
    assert topology.primaries == (Address("10.0.0.1", 1), Address("h", 3))
    assert topology.holder(5) == topology.holder(7) == Address("10.0.0.1", 1)
    assert topology.slots_without_node == SLOTS - 7


async def test_asking_goes_with_its_call_or_not_at_all() -> None:
    """ASKING opens the door of a half-empty slot to the next command, which must not be that of somebody else."""
    written: list[bytes] = []
    wire = Wire(on_writable=lambda: None, on_lost=lambda _: None)
    wire.connection_made(_Transport(written))
    loop = asyncio.get_running_loop()
    left, stays = (Awaited(name, loop.time() + 1, None, loop.create_future()) for name in (b"left", b"stays"))
    left.reply.cancel()
    asking = [_Asking(ASKING, call.deadline, None, call) for call in (left, stays)]
    wire.write([asking[0], left, asking[1], stays])
    assert b"".join(written).count(b"ASKING") == 1
    assert b"left" not in b"".join(written)
    wire.data_received(b"+OK\r\n+reply\r\n")
    assert await stays.reply == b"reply"


class _Transport(asyncio.Transport):
    def __init__(self, written: list[bytes]) -> None:
        super().__init__()
        self.write = written.append  # type: ignore[assignment,method-assign]


def _flat(value: Any) -> Any:
    """Return maps as RESP2 has them."""
    if isinstance(value, dict):
        return [part for name, item in value.items() for part in (name, _flat(item))]
    return [_flat(item) for item in value] if isinstance(value, list) else value
