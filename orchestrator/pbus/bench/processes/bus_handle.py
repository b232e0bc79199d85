"""Joining the bus in a benchmark: as a worker on a runner, as users do, or as a bare subscriber."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from pbus.bench.processes.roles import RoleConfig
from pbus.bus.base import WorkerBus
from pbus.bus.connect import make_bus
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusMessage
from pbus.runner import WorkerRunner
from pbus.seal import load_cipher
from pbus.workers.base_worker import BaseWorker

Handler = Callable[[BusMessage], Awaitable[None]]

READY_S = 20.0
_END_S = 10.0


class BusHandle(NamedTuple):
    """A process on the bus.

    Attributes:
        send: Sends as this process' worker or subscriber.
    """

    bus: WorkerBus
    send: Callable[[BusMessage], Awaitable[object]]


async def ignore(message: BusMessage) -> None:
    """Handle unexpected messages."""


@contextlib.asynccontextmanager
async def hosted(config: RoleConfig, handle: Handler = ignore) -> AsyncIterator[BusHandle]:
    """Join the bus under the configured name; messages for it are handled within the block."""
    if config.bus.key:
        load_cipher()  # which the first large payload would: once a process, and no throughput
    joined = _on_bus(config, handle) if config.is_bare else _on_runner(config, handle)
    async with joined as on_bus:
        yield on_bus


@contextlib.asynccontextmanager
async def running(config: RoleConfig, worker: BaseWorker) -> AsyncIterator[WorkerRunner]:
    """A worker on a runner, ready."""
    runner = WorkerRunner(bus=make_bus(config.bus), handle_sigint=False)
    await runner.add_workers(worker)
    task = asyncio.create_task(runner.run(), name="bench runner")
    try:
        await runner.registry.wait_ready(config.name, READY_S)
        yield runner
    finally:
        await runner.cancel("the measurement is over")
        async with asyncio.timeout(_END_S):
            await task


class _Subscriber(BusSubscriber):
    """Passes messages to a function, without a worker's abilities."""

    def __init__(self, name: str, handle: Handler) -> None:
        self.name = name
        self._handle = handle

    async def on_bus_message(self, message: BusMessage) -> None:
        await self._handle(message)


class _Worker(BaseWorker):
    """Passes messages to a function."""

    def __init__(self, name: str, handle: Handler) -> None:
        super().__init__(name)
        self._handle = handle

    async def on_bus_message(self, message: BusMessage) -> None:
        await self._handle(message)


@contextlib.asynccontextmanager
async def _on_bus(config: RoleConfig, handle: Handler) -> AsyncIterator[BusHandle]:
    bus = make_bus(config.bus)
    await bus.subscribe(_Subscriber(config.name, handle))
    async with bus:
        yield BusHandle(bus, bus.send)


@contextlib.asynccontextmanager
async def running_worker(
    config: RoleConfig, handle: Handler
) -> AsyncIterator[tuple[BaseWorker, WorkerBus]]:
    """A worker on a runner, ready, and its bus."""
    worker = _Worker(config.name, handle)
    async with running(config, worker) as runner:
        yield worker, runner.bus


@contextlib.asynccontextmanager
async def _on_runner(config: RoleConfig, handle: Handler) -> AsyncIterator[BusHandle]:
    async with running_worker(config, handle) as (worker, bus):
        yield BusHandle(bus, worker.send_bus_message)
