"""A real cluster for tests: Valkey processes on ports of 127.0.0.1, which hold a third of the slots each."""

import time
from typing import Any

import redis

from tests.balances.valkey_process import ValkeyProcess
from tests.ports import free_ports

SLOTS = 16_384
FORMED_SECONDS_MAX = 20.0
KEYS_AT_ONCE = 5  # that move together: few, so that calls find slots half moved
NODE_TIMEOUT_MS = 1_000  # after which the others say that a node is gone


class ClusterNode(ValkeyProcess):
    """One node, which keeps its port and its data over a restart."""

    def __init__(self) -> None:
        self.port, bus_port = free_ports(2)
        super().__init__(
            settings={
                "bind": "127.0.0.1",
                "port": str(self.port),
                "cluster-enabled": "yes",
                "cluster-port": str(bus_port),
                "cluster-node-timeout": str(NODE_TIMEOUT_MS),
                "cluster-require-full-coverage": "no",
                "cluster-allow-replica-migration": "no",
                "repl-diskless-sync-delay": "0",
            }
        )
        self.bus_port = bus_port

    def ask(self, *command: Any) -> Any:
        """Send one command to this node, whatever it holds."""
        with redis.Redis(unix_socket_path=self.socket, decode_responses=True, protocol=2) as client:
            return client.execute_command(*command)

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER", "MYID"))

    @property
    def is_primary(self) -> bool:
        return str(self.ask("ROLE")[0]) == "master"

    def holds(self, slot: int) -> bool:
        """Say whether this is the node that answers for a slot."""
        for line in str(self.ask("CLUSTER", "NODES")).splitlines():
            if "myself,master" in line:
                ranges = [part.split("-") for part in line.split()[8:] if not part.startswith("[")]
                return any(int(bounds[0]) <= slot <= int(bounds[-1]) for bounds in ranges)
        return False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


class ClusterProcess:
    """Three primaries, and a replica of the first if it is asked for."""

    def __init__(self) -> None:
        self.nodes = [ClusterNode() for _ in range(3)]

    def start(self) -> None:
        """Return when every node answers for its slots."""
        for number, node in enumerate(self.nodes):
            node.start()
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            self.meet(node)
        self.wait_until_ok()

    def meet(self, node: ClusterNode) -> None:
        """Let the first node, and so all, know another one."""
        self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)

    def wait_until_ok(self) -> None:
        """Return when every node knows all others, and says that all is well."""
        wait_for(lambda: all(self._is_ok(node) for node in self.nodes), "the nodes do not agree")

    def _is_ok(self, node: ClusterNode) -> bool:
        info = node.ask("CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(len(self.nodes)))

    def add_replica(self, of: ClusterNode) -> ClusterNode:
        """Start a replica and return it when it has all data."""
        replica = ClusterNode()
        self.nodes.append(replica)
        replica.start()
        self.meet(replica)
        self.wait_until_ok()
        replica.ask("CLUSTER", "REPLICATE", of.id)
        wait_until_in_sync(replica)
        return replica

    def move_slot(self, slot: int, to: ClusterNode) -> None:
        """Move a slot with its keys, key by key, as every Redis and Valkey can."""
        source = next(node for node in self.nodes if node.holds(slot))
        if source is to:
            return
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, KEYS_AT_ONCE):
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5_000, "KEYS", *keys)
        for node in (to, source, *self.nodes):
            if node.is_primary:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()


def wait_until_in_sync(replica: ClusterNode) -> None:
    """Return when a replica has everything of its primary, and follows it."""
    wait_for(lambda: "master_link_status:up" in _replication(replica), "the replica is not in sync")


def cut_off_from_its_primary(replica: ClusterNode, primary: ClusterNode) -> None:
    """Let a replica stay as it is, by giving it a password that its primary does not know."""
    replica.ask("CONFIG", "SET", "primaryuser", "nobody", "primaryauth", "wrong")
    primary.ask("CLIENT", "KILL", "TYPE", "replica")
    wait_for(lambda: "master_link_status:down" in _replication(replica), "the replica is still in sync")


def promote(replica: ClusterNode) -> None:
    """Make a replica the primary, whatever it has and whatever the others say; it may follow another later."""
    replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
    replica.ask("CONFIG", "SET", "primaryuser", "", "primaryauth", "")


def wait_for(condition: Any, what: str) -> None:
    """Return once the condition holds; fails with `what` if it does not come to that."""
    deadline = time.monotonic() + FORMED_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def _replication(node: ClusterNode) -> str:
    info = node.ask("INFO", "replication")
    return "\n".join(f"{name}:{value}" for name, value in info.items())
