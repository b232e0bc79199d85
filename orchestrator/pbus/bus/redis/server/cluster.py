"""Redis Cluster: a channel is kept on one node, the one that has the slot of its keys.

Publishing reaches subscribers of every node, but only on one node does PUBLISH count who heard it,
and senders need the count. So all processes of a channel connect to the node of its keys, and move
with them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError, RedisError

logger = logging.getLogger(__name__)


class Node(NamedTuple):
    """The address of one server of a cluster."""

    host: str
    port: int


class ChannelNode:
    """Knows the node of one channel.

    Args:
        seed: Any node of the cluster.
        key: A key of the channel.
        connection: Makes a connection to a node, not yet connected.

    Attributes:
        version: Another one when the channel is on another node.
    """

    def __init__(
        self, seed: Node, key: str, connection: Callable[[Node], AbstractConnection]
    ) -> None:
        self.version = 0
        self._slot = key_slot(key.encode())
        self._connection = connection
        self._node: Node | None = None  # None: ask
        self._last: Node | None = None
        self._ask = deque([seed])  # the nodes to ask, in turn
        self._lock = asyncio.Lock()

    async def locate(self) -> Node:
        """The node, asking the cluster where need be.

        Raises:
            RedisError: The one asked does not answer, or refuses; the next call asks another.
        """
        async with self._lock:
            if self._node is None:
                try:
                    self._settle(await self._find())
                except BaseException:
                    self._ask.rotate(-1)
                    raise
            return self._node or self._ask[0]

    def invalidate(self) -> None:
        """The node does not answer: it may be another one by now."""
        self._node = None

    def moved(self, error: MovedError) -> None:
        """The node says who has the channel now."""
        self._settle(Node(error.host or self._ask[0].host, int(error.port)))

    def _settle(self, node: Node) -> None:
        if self._last is not None and self._last != node:
            self.version += 1
            logger.warning("the channel is now on node %s:%d of the cluster", *node)
        self._node = self._last = node

    async def _find(self) -> Node:
        """Ask the next node which one has the slot, and learn of others to ask."""
        asked = self._ask[0]
        connection = self._connection(asked)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("CLUSTER", "SLOTS")
            ranges: list[Any] = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        owner = None
        for first, last, *nodes in ranges:
            found = [Node(_text(node[0]) or asked.host, int(node[1])) for node in nodes]
            self._ask.extend(node for node in found if node not in self._ask)
            if first <= self._slot <= last:
                owner = found[0]  # the primary
        if owner is None:
            raise ClusterDownError(f"no node has slot {self._slot}, the channel's")
        return owner


class Locator(Protocol):
    """Knows where to connect."""

    async def locate(self) -> Node:
        """The server."""
        ...

    def invalidate(self) -> None:
        """It does not answer."""
        ...


def located(base: type[AbstractConnection], node: Locator) -> type[AbstractConnection]:
    """A connection class whose connections go wherever the channel is when they connect."""

    class ChannelConnection(base):  # type: ignore[misc,valid-type]
        async def connect(self) -> None:
            if not self.is_connected:
                self.host, self.port = await node.locate()
            try:
                await super().connect()
            except (RedisError, OSError, TimeoutError):
                node.invalidate()
                raise

    return ChannelConnection


def _text(host: Any) -> str:
    return host.decode() if isinstance(host, bytes) else str(host or "")
