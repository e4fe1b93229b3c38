"""Which node of a cluster holds which slot, as the cluster tells it; and the clients of its nodes.

The map is read anew each second (by the reconciler's tick) and after a failed call; between that, a node that no longer
holds a slot says who does (MOVED), and that slot is put right at once.
"""

import asyncio
import random
from functools import lru_cache
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import AskError, RedisError

from creditgate.balances.connection import NotWritten, ServerGuard, client_at, guarded_client, plain_client

SLOTS = 16_384
TAGS_REMEMBERED = 4_096  # those of the partitions, and of holds that are looked up


class Address(NamedTuple):
    """Where a node is, as the cluster names it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class NodeClients:
    """A client of each node, made when it is needed, alike but for the address."""

    def __init__(self, url: str, guard: ServerGuard | None = None) -> None:
        """The URL names any node; with a guard, no client sends anything to a server that is not reconciled."""
        self.seed = guarded_client(url, guard) if guard else plain_client(url)
        self.url = url
        self._guard = guard
        self._clients: dict[Address, Redis] = {}
        self._let_in = guard.reconciled if guard else frozenset()  # when the open connections were greeted
        self._closing: set[asyncio.Task[None]] = set()

    def at(self, address: Address) -> "Redis":
        """Return the client of a node.

        When other servers than before are reconciled, every connection is opened anew: a node may have been a replica
        meanwhile without closing those that it had.
        """
        if self._guard is not None and self._guard.reconciled is not self._let_in:
            self._let_in = self._guard.reconciled
            self._closing.update(asyncio.create_task(client.aclose()) for client in self._clients.values())
            self._clients = {}
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = client_at(self.url, *address, self._guard)
        return client

    async def aclose(self) -> None:
        """Close all of them."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        for client in (self.seed, *self._clients.values()):
            await client.aclose()


class Topology:
    """The map of slots. Empty until the first `refresh`."""

    def __init__(self, nodes: NodeClients) -> None:
        self.primaries: tuple[Address, ...] = ()
        self._nodes = nodes
        self._replicas: tuple[Address, ...] = ()
        self._slots: list[Address | None] = [None] * SLOTS

    @property
    def slots_without_node(self) -> int:
        return self._slots.count(None)

    def holder(self, slot: int) -> Address:
        """Return the node that holds a slot; raises NotWritten if none does."""
        address = self._slots[slot]
        if address is None:
            raise NotWritten(f"no node of the cluster holds slot {slot}")
        return address

    def move(self, slot: int, address: Address) -> None:
        """Note who holds a slot, as a MOVED says."""
        self._slots[slot] = address

    async def refresh(self) -> None:
        """Read the map from a node that is in touch with the others; raises RedisError or OSError if none answers.

        A node that is cut off still answers, from before it was: it is believed if there is no other.
        """
        known = [self._nodes.at(address) for address in (*self.primaries, *self._replicas)]
        random.shuffle(known)  # or one that is behind would be believed each time
        last_error: RedisError | OSError | None = None
        cut_off = None
        for client in (*known, self._nodes.seed):
            try:
                state, shards = await _asked(client)
            except (RedisError, OSError) as error:
                last_error = error
                continue
            if state == "ok":
                return self._take(client, shards)
            cut_off = client, shards
        if cut_off is None:
            assert last_error is not None
            raise last_error
        self._take(*cut_off)

    def _take(self, told_by: "Redis", shards: list[Any]) -> None:
        own_host = str(told_by.connection_pool.connection_kwargs.get("host", "127.0.0.1"))
        port_name = "tls-port" if self._nodes.url.startswith("rediss") else "port"
        slots: list[Address | None] = [None] * SLOTS
        primaries, replicas = [], []
        for shard in map(_fields, shards):
            for node in map(_fields, shard["nodes"]):
                address = address_of(_text(node["endpoint"]), node[port_name], own_host)
                if _text(node["role"]) != "master":
                    replicas.append(address)
                    continue
                primaries.append(address)
                bounds = shard["slots"]
                for first, last in zip(bounds[::2], bounds[1::2], strict=True):
                    slots[first : last + 1] = [address] * (last + 1 - first)
        self.primaries, self._replicas, self._slots = tuple(primaries), tuple(replicas), slots


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key: that of its hash tag, if it has one."""
    text = key if isinstance(key, str) else key.decode("utf-8", "surrogateescape")
    start = text.find("{")
    end = text.find("}", start + 1)
    return _slot_of_tag(text[start + 1 : end]) if 0 <= start < end - 1 else _slot_of_tag(text)


@lru_cache(TAGS_REMEMBERED)
def _slot_of_tag(tag: str) -> int:
    return key_slot(tag.encode("utf-8", "surrogateescape"))


def address_in(error: AskError, answered_by: Address) -> Address:
    """Return where a MOVED or ASK sends us."""
    return address_of(error.host, error.port, answered_by.host)


def address_of(endpoint: str, port: int, own_host: str) -> Address:
    """Return the address of a node; one that does not know its own name is where whoever told of it is."""
    return Address(own_host if endpoint in ("", "?") else endpoint, port)


async def _asked(client: "Redis") -> tuple[str, list[Any]]:
    """Return a node's opinion of the state of the cluster, and the map that it knows."""
    async with client.pipeline(transaction=False) as together:
        together.execute_command("CLUSTER INFO")
        together.execute_command("CLUSTER SHARDS")
        info, shards = await together.execute()
    return info["cluster_state"], shards


def _fields(raw: Any) -> dict[str, Any]:
    """Return a map of the reply, which RESP2 writes as a list of names and values."""
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    return {_text(name): value for name, value in pairs}


def _text(raw: bytes | str | None) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw or ""
