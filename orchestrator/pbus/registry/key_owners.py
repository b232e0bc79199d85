"""The replica that a key belongs to, as one process sees it.

At most once, keys are spread over the replicas that are ready and active. At least once, over those that
have a queue, there now or not: what is sent to one that died waits in its queue for its restart. Inactive
ones, which drop data, are left out.

Each process decides by its own view. Views differ for a moment after a change: until the announcement has
come, and at least once at most `READ_EVERY_S` longer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from msgspec import structs

from pbus.bus.base import WorkerBus
from pbus.bus.queues.batch import BatchSending
from pbus.bus.queues.store import QueueStore
from pbus.codec import check_key
from pbus.errors import BusUnavailableError
from pbus.messages import BusMessage
from pbus.names import group_of
from pbus.registry.directory import Directory
from pbus.routing_keys import owner_of

logger = logging.getLogger(__name__)

READ_EVERY_S: Final = 2.0  # while keys are used
_RETRY_S: Final = 0.2
_MOST_KEYS: Final = 4_096  # of a group whose owners are remembered
_MOST_GROUPS: Final = 256
_MOST_TRIES: Final = 3  # a queue was removed meanwhile

Post = Callable[[str], Awaitable[bool]]


class KeyOwners:
    """Finds the replica that a key belongs to.

    Args:
        directory: Knows the workers.
        bus: Knows whether messages are stored, and the queues.
        spawn: Starts a task that ends with the registry.
    """

    def __init__(
        self,
        directory: Directory,
        bus: WorkerBus,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._directory = directory
        self._bus = bus
        self._spawn = spawn
        self._groups: dict[str, _Group] = {}

    async def owner(self, name: str, key: str) -> str | None:
        """The replica that a key belongs to.

        Waits only where the queues of a group are not known yet: callers go on in their order.

        Args:
            name: Of a group.
            key: Of a message.

        Returns:
            The name of a replica; None when the name stands for no replicas.

        Raises:
            BusUnavailableError: The queues were to be known, and the broker did not answer within
                the send timeout of the bus.
        """
        group = self._groups.get(name) or self._add(name)
        store = self._bus.queues
        if store is not None:
            await self._update_queues(group, store)
        if group.version != self._directory.version:
            group.spread(self._replicas(group), self._directory.version)
        return group.owner(key)

    async def send(self, name: str, key: str, post: Post, *, absent: str = "") -> str:
        """Send a message to the replica that its key belongs to.

        Args:
            name: The target: a group, or any other worker, which gets it whatever its key.
            key: Of the message.
            post: Sends it to a worker; False when the broker had no queue of it.
            absent: The worker that it was sent to before, where the broker had no queue.

        Returns:
            The worker that it was sent to.

        Raises:
            PbusError: As of owner(), or raised by `post`.
        """
        sent_to = absent
        if absent:
            await self._read_again(name)
        for _ in range(_MOST_TRIES):
            chosen = await self.owner(name, key) or name
            if chosen == sent_to:  # there is no other
                break
            if sent_to:
                self._bus.counters.note_sent_elsewhere(sent_to)
            sent_to = chosen
            if await post(chosen) or self._bus.queues is None:
                break
            await self._read_again(name)
        return sent_to

    async def add(self, sending: BatchSending, position: int, message: BusMessage) -> None:
        """Put a message with target and key into a batch, for the replica that the key belongs to.

        Raises:
            MessageEncodeError: The key is none.
            BusUnavailableError: As of owner().
        """
        name, key = message.target or "", message.key or ""
        check_key(key, type(message).__name__)
        chosen = await self.owner(name, key) or name

        async def post(worker: str) -> bool:
            return await self._bus.send(structs.replace(message, target=worker))

        async def send_again() -> None:
            await self.send(name, key, post, absent=chosen)

        await sending.add(position, structs.replace(message, target=chosen), send_again)

    async def _read_again(self, name: str) -> None:
        if self._bus.queues is not None:
            await self._read(self._groups.get(name) or self._add(name), self._bus.queues)

    def _add(self, name: str) -> "_Group":
        if len(self._groups) >= _MOST_GROUPS:
            self._groups.pop(next(iter(self._groups)))
        group = self._groups[name] = _Group(name)
        return group

    def _replicas(self, group: "_Group") -> list[str]:
        """The replicas over which keys are spread."""
        data = self._directory.get(group.name)
        if data is not None and data.worker_name == group.name:
            return []  # one worker of just that name
        if self._bus.queues is None:
            usable = self._directory.ready(group.name)
            return [each.worker_name for each in usable or ([] if data is None else [data])]
        active = [one for one in group.queues if not self._directory.is_inactive(one)]
        return active or group.queues

    async def _update_queues(self, group: "_Group", store: QueueStore) -> None:
        """Read the queues now where they are unknown; where they may have changed, soon."""
        if not group.is_read or group.waiting:
            group.waiting += 1
            try:
                async with group.lock:
                    if not group.is_read:
                        await self._read_patiently(group, store)
            finally:
                group.waiting -= 1
            return
        is_old = time.monotonic() - group.read_at >= READ_EVERY_S
        if (is_old or group.version != self._directory.version) and not group.is_reading:
            group.is_reading = True
            self._spawn(self._refresh(group, store), f"pbus queues of {group.name}")

    async def _read_patiently(self, group: "_Group", store: QueueStore) -> None:
        until = time.monotonic() + self._bus.send_timeout
        while True:
            try:
                await self._read(group, store)
            except BusUnavailableError:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _refresh(self, group: "_Group", store: QueueStore) -> None:
        try:
            await self._read(group, store)
        except BusUnavailableError as error:
            logger.debug("the queues of %s are as they were: %s", group.name, error)
            group.read_at = time.monotonic()
        finally:
            group.is_reading = False

    async def _read(self, group: "_Group", store: QueueStore) -> None:
        stats = await store.stats(names_only=True)
        queues = [one.name for one in stats if group_of(one.name) == group.name]
        group.is_read, group.read_at = True, time.monotonic()
        if queues != group.queues:
            group.queues = queues
            group.version = -1


class _Group:
    """The replicas of one group, and the owners of the keys that were used last.

    Attributes:
        version: Of the directory from which the replicas are; -1 when they are to be found again.
        queues: At least once: the replicas that have a queue.
        is_read: Whether the queues were read.
        read_at: When they were, by a monotonic clock.
        is_reading: Whether they are being read beside the senders.
        waiting: The number of senders that wait for the first reading.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = -1
        self.queues: list[str] = []
        self.is_read = False
        self.read_at = 0.0
        self.is_reading = False
        self.waiting = 0
        self.lock = asyncio.Lock()
        self._replicas: list[str] = []
        self._owners: dict[str, str] = {}

    def spread(self, replicas: list[str], version: int) -> None:
        """Spread keys over these replicas."""
        self.version = version
        if replicas != self._replicas:
            self._replicas = replicas
            self._owners.clear()

    def owner(self, key: str) -> str | None:
        """The replica that a key belongs to."""
        found = self._owners.get(key)
        if found is None:
            found = owner_of(key, self._replicas)
            if found is not None:
                if len(self._owners) >= _MOST_KEYS:
                    del self._owners[next(iter(self._owners))]
                self._owners[key] = found
        return found
