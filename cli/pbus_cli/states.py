"""Following the state changes that supervisors publish."""

import asyncio
from typing import Final

from pbus.bus.subscriber import BusSubscriber
from pbus.messages import STATES_ADDRESS, BusMessage, BusWorkerStateMessage

_CAPACITY: Final = 10_000  # changes that wait to be printed; then the bus waits, and counts


class StateFollower(BusSubscriber):
    """Listens where state changes are published."""

    is_durable = False

    def __init__(self) -> None:
        self.name = STATES_ADDRESS
        self._heard: asyncio.Queue[BusWorkerStateMessage] = asyncio.Queue(_CAPACITY)

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Nothing else."""
        return isinstance(message, BusWorkerStateMessage)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Keep it for whoever waits."""
        if isinstance(message, BusWorkerStateMessage):
            await self._heard.put(message)

    async def next_change(self) -> BusWorkerStateMessage:
        """The next change, waiting for one."""
        return await self._heard.get()
