"""Following the state changes of workers, as supervisors publish them."""

import asyncio
from typing import Final, Self, TypeAlias

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import STATES_ADDRESS, BusMessage, BusWorkerStateMessage

Changes: TypeAlias = asyncio.Queue[BusWorkerStateMessage | None]

_CAPACITY: Final = 10_000  # changes that wait to be read; then the bus waits, and counts


class StateFollower(BusSubscriber):
    """Hears the state changes that supervisors publish, for any number of readers.

    Args:
        bus: Started.

    Attributes:
        readers: Where each change is put; a full one makes the bus wait.
    """

    is_durable = False

    def __init__(self, bus: WorkerBus) -> None:
        self.name = STATES_ADDRESS
        self._bus = bus
        self.readers: set[Changes] = set()

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Nothing but state changes."""
        return isinstance(message, BusWorkerStateMessage)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Give a change to all readers."""
        if isinstance(message, BusWorkerStateMessage):
            for reader in list(self.readers):
                await reader.put(message)

    async def add(self, reader: Changes) -> None:
        """Give changes to a reader from now on."""
        self.readers.add(reader)
        await self._bus.subscribe(self)

    async def close(self) -> None:
        """Hear no more. Idempotent."""
        await self._bus.unsubscribe(self)


class StateTail:
    """Follows state changes: ``async for change in tail``, or within ``async with``.

    Args:
        follower: Of the client; all its tails share one.
    """

    def __init__(self, follower: StateFollower) -> None:
        self._follower = follower
        self._changes: Changes = asyncio.Queue(_CAPACITY)
        self._is_closed = False

    async def __aenter__(self) -> Self:
        if not self._is_closed:
            await self._follower.add(self._changes)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BusWorkerStateMessage:
        if self._changes not in self._follower.readers:
            await self.__aenter__()
        change = None if self._is_closed else await self._changes.get()
        if change is None:
            raise StopAsyncIteration
        return change

    async def close(self) -> None:
        """Follow no longer. Idempotent."""
        self._is_closed = True
        self._follower.readers.discard(self._changes)
        while not self._changes.empty():  # or the follower would wait for room for ever
            self._changes.get_nowait()
        self._changes.put_nowait(None)  # for a task that waits
