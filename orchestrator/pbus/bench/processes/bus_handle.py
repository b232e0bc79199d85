"""How a player takes part: as users do, as a worker on a runner, or on the bare bus."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from pbus.bench.processes.roles import RoleConfig
from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusMessage
from pbus.runner import WorkerRunner
from pbus.workers.base import BaseWorker

Handler = Callable[[BusMessage], Awaitable[None]]

_READY_S = 20.0
_END_S = 10.0


class BusHandle(NamedTuple):
    """A player's place on the bus.

    Attributes:
        send: How this player sends.
    """

    bus: WorkerBus
    send: Callable[[BusMessage], Awaitable[None]]


async def ignore(message: BusMessage) -> None:
    """Handle what a player does not expect."""


@contextlib.asynccontextmanager
async def hosted(part: RoleConfig, handle: Handler = ignore) -> AsyncIterator[BusHandle]:
    """Take part; what is sent to the player's name from now on is handled."""
    async with _on_bus(part, handle) if part.is_bare else _on_runner(part, handle) as seat:
        yield seat


class _Subscriber(BusSubscriber):
    """Hands messages to a function, without a worker's abilities."""

    def __init__(self, name: str, handle: Handler) -> None:
        self.name = name
        self._handle = handle

    async def on_bus_message(self, message: BusMessage) -> None:
        await self._handle(message)


class _Worker(BaseWorker):
    """Hands messages to a function."""

    def __init__(self, name: str, handle: Handler) -> None:
        super().__init__(name)
        self._handle = handle

    async def on_bus_message(self, message: BusMessage) -> None:
        await self._handle(message)


@contextlib.asynccontextmanager
async def _on_bus(part: RoleConfig, handle: Handler) -> AsyncIterator[BusHandle]:
    bus = part.connect()
    await bus.subscribe(_Subscriber(part.name, handle))
    async with bus:
        yield BusHandle(bus, bus.send)


@contextlib.asynccontextmanager
async def _on_runner(part: RoleConfig, handle: Handler) -> AsyncIterator[BusHandle]:
    bus = part.connect()
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    worker = _Worker(part.name, handle)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run(), name="bench runner")
    try:
        await runner.registry.wait_ready(part.name, _READY_S)
        yield BusHandle(bus, worker.send_bus_message)
    finally:
        await runner.cancel("the measurement is over")
        async with asyncio.timeout(_END_S):
            await running
