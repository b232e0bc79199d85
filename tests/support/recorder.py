"""A worker that keeps what happens to it."""

import asyncio

from pbus.messages import BusMessage, BusWorkerReadyMessage, BusWorkerRegistryMessage
from pbus.workers.base_worker import BaseWorker


class Recorder(BaseWorker):
    """Keeps what it receives and says when it has stopped."""

    def __init__(self, name, *, active=True):
        super().__init__(name, active=active)
        self.received: list[BusMessage] = []
        self.start_count = 0
        self.heard = asyncio.Event()
        self.has_stopped = asyncio.Event()

    async def start(self):
        self.start_count += 1

    async def stop(self):
        self.has_stopped.set()

    async def handle(self, message):
        """For tests to override."""

    def accepts_bus_message(self, message):
        return not isinstance(message, BusWorkerRegistryMessage | BusWorkerReadyMessage)

    async def on_bus_message(self, message):
        await self.handle(message)
        self.received.append(message)
        self.heard.set()
