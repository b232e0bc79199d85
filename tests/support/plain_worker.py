"""The least that a runner can host; a worker of the test's own making."""

import asyncio

from pbus.bus.subscriber import BusSubscriber
from pbus.messages import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    BusWorkerRegistryMessage,
)


class PlainWorker(BusSubscriber):
    """Keeps what it receives; ends when asked to."""

    def __init__(self, name, *, active=True, parent=None):
        self.name = name
        self.active = active
        self.activation_args = None
        self.parent = parent
        self.job_names = ()
        self.sent = 0
        self.received = []
        self.lives = 0
        self.is_running = asyncio.Event()
        self.has_stopped = asyncio.Event()
        self.heard = asyncio.Event()
        self._finished = asyncio.Event()

    @property
    def address(self):
        return self.name if self.parent is None else f"{self.name}@{self.registry.runner_name}"

    @property
    def inbox(self):
        return self

    async def attach(self, *, registry, bus, runner):
        self.registry, self.bus, self.runner = registry, bus, runner

    def restore_activation(self, *, active, args):
        self.active, self.activation_args = active, args

    async def run(self):
        self._finished.clear()
        self.has_stopped.clear()
        self.lives += 1
        try:
            await self.start()
            await self.registry.set_ready(self.name)
            self.is_running.set()
            await self._finished.wait()
        finally:
            self.is_running.clear()
            await self.stop()
            self.has_stopped.set()

    async def start(self):
        """For tests to override."""

    async def stop(self):
        """For tests to override."""

    async def handle(self, message):
        """For tests to override."""

    def request_stop(self, *, drain):
        self._finished.set()

    def accepts_bus_message(self, message):
        return not isinstance(message, BusWorkerRegistryMessage)

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusEndWorkerMessage | BusCancelWorkerMessage):
            self.request_stop(drain=isinstance(message, BusEndWorkerMessage))
            return
        if isinstance(message, BusActivateWorkerMessage):
            self.active, self.activation_args = True, message.args
            await self.registry.set_active(self.name, active=True, args=message.args)
        await self.handle(message)
        self.received.append(message)
        self.heard.set()

    async def send(self, message):
        self.sent += 1
        await self.bus.send(message)
