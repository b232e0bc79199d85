"""The same work with Pipecat's workers on its RedisBus, which sends each message to every process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from loguru import logger
from pipecat.bus import BusTTSSpeakMessage
from pipecat.bus.network.redis import RedisBus
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner
from redis.asyncio import Redis

from pbus.bench.meter import Meter
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import RoleConfig, Stopwatch

_READY_S = 20.0
_END_S = 3.0


class _Worker(BaseWorker):
    """Passes the texts that are for it to a function."""

    def __init__(self, name: str, handle: Callable[[], None]) -> None:
        super().__init__(name)
        self._on_text = handle

    async def on_bus_message(self, message: Any) -> None:
        if isinstance(message, BusTTSSpeakMessage) and message.target == self.name:
            self._on_text()
        else:
            await super().on_bus_message(message)


@contextlib.asynccontextmanager
async def _running(config: RoleConfig, handle: Callable[[], None]) -> AsyncIterator[Any]:
    """The bus of a worker that runs within the block."""
    logger.remove()  # it writes down what it does, which would be measured, too
    redis = Redis.from_url(config.bus.url or "")
    runner = WorkerRunner(
        bus=RedisBus(redis=redis, channel=config.bus.channel), handle_sigint=False
    )
    ready = asyncio.Event()

    async def set_ready(_: Any) -> None:
        ready.set()

    runner.add_event_handler("on_ready", set_ready)
    await runner.add_workers(_Worker(config.name, handle))
    running = asyncio.create_task(runner.run(), name="bench pipecat")
    try:
        async with asyncio.timeout(_READY_S):
            await ready.wait()
        yield runner.bus
    finally:
        await runner.cancel()
        await asyncio.wait([running], timeout=_END_S)
        await redis.aclose()


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: send messages, one after the other, as a worker of its own."""
    text, targets = "x" * config.size, config.targets
    async with _running(config, lambda: None) as bus:
        control.send_ready()
        await control.receive()
        watch = Stopwatch()
        for number in range(config.count):
            target = targets[number % len(targets)]
            await bus.send(BusTTSSpeakMessage(source=config.name, target=target, text=text))
        control.send(watch.sent(config.count))


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: count the messages for a worker."""
    meter = Meter(config.count)
    number = 0

    def count() -> None:
        nonlocal number
        meter.record(number)
        number += 1

    async with _running(config, count):
        control.send_ready()
        control.send(await meter.result(control))
