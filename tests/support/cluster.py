"""A Redis Cluster for tests: real Valkeys that share the slots, on the loopback address."""

import contextlib
import socket
from types import TracebackType
from typing import Self

import redis

from support.valkey import Valkey
from support.waiting import eventually

SLOTS = 16_384
_FORMED_S = 30.0


class ValkeyCluster:
    """So many primaries without replicas; node 0 has the first slots.

    Args:
        count: How many; a cluster of one is a cluster, too.
    """

    def __init__(self, count: int) -> None:
        self.nodes = [
            Valkey(
                *("--cluster-enabled", "yes", "--cluster-port", str(_free_port())),
                *("--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"),
                tcp=True,
            )
            for _ in range(count)
        ]

    def url(self, number: int = 0) -> str:
        """The URL of the cluster by one of its nodes."""
        return self.nodes[number].tcp_url.replace("redis://", "redis+cluster://")

    def owner(self, key: str) -> int:
        """The number of the node that has a key."""
        return self.slot(key) * len(self.nodes) // SLOTS

    def slot(self, key: str) -> int:
        """The slot of a key."""
        with self._client(0) as client:
            return int(client.execute_command("CLUSTER KEYSLOT", key))

    def migrate(self, key: str, source: int, target: int) -> None:
        """Move the slot of a key, with all its keys, from one node to another."""
        slot = self.slot(key)
        ids = [self._id(number) for number in range(len(self.nodes))]
        with self._client(source) as old, self._client(target) as new:
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
            while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
                port = self.nodes[target].port
                old.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
            new.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])
            old.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            self._form()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()

    def _form(self) -> None:
        count = len(self.nodes)
        bounds = [-(-SLOTS * number // count) for number in range(count + 1)]
        for number in range(count):
            with self._client(number) as client:
                low, high = bounds[number], bounds[number + 1] - 1
                client.execute_command("CLUSTER ADDSLOTSRANGE", low, high)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        with self._client(0) as client:
            for node in self.nodes[1:]:
                bus = node.command("CONFIG", "GET", "cluster-port").split(b"\r\n")[-2]
                client.execute_command("CLUSTER MEET", "127.0.0.1", node.port, int(bus))
        assert eventually(self._is_formed, _FORMED_S)

    def _is_formed(self) -> bool:
        for number in range(len(self.nodes)):
            with self._client(number) as client:
                info = client.execute_command("CLUSTER INFO")
            known = (info["cluster_state"], int(info["cluster_known_nodes"]))
            if known != ("ok", len(self.nodes)):
                return False
        return True

    def _id(self, number: int) -> str:
        with self._client(number) as client:
            return str(client.execute_command("CLUSTER MYID"))

    def _client(self, number: int) -> "contextlib.closing[redis.Redis]":
        node = self.nodes[number]
        return contextlib.closing(redis.Redis(port=node.port, decode_responses=True))


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
