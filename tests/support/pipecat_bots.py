"""Workers of Pipecat for tests, and runners of them in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from loguru import logger
from pipecat.bus import BusFrameMessage, BusMessage, WorkerBus
from pipecat.pipeline.job_decorator import job
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner

import pbus
from pbus.compat.pipecat import PbusBus
from support.waiting import PATIENCE_S, until

logger.remove()  # it writes each message


class Bot(BaseWorker):
    """Records what it gets, and does some jobs."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.messages: list[BusMessage] = []
        self.activations: list[Any] = []
        self.cancelled: list[str] = []
        self.events: list[tuple[str, Any]] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        if message.target == self.name or isinstance(message, BusFrameMessage):
            self.messages.append(message)
        await super().on_bus_message(message)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        self.activations.append(args)

    async def on_deactivated(self) -> None:
        await super().on_deactivated()
        self.activations.append("off")

    async def on_job_cancelled(self, message: Any) -> None:
        self.cancelled.append(message.reason)

    def got(self, kind: type[BusMessage]) -> list[Any]:
        """The messages of a class, those of subclasses left out."""
        return [message for message in self.messages if type(message) is kind]

    @job(name="echo")
    async def echo(self, message: Any) -> None:
        await self.send_job_response(message.job_id, {"got": message.payload, "by": self.name})

    @job(name="stream")
    async def stream(self, message: Any) -> None:
        await self.send_job_update(message.job_id, {"percent": 50})
        await self.send_job_stream_start(message.job_id, {"kind": "text"})
        for number in range(3):
            await self.send_job_stream_data(message.job_id, {"n": number})
        await self.send_job_stream_end(message.job_id, {"sum": 3, **(message.payload or {})})

    @job(name="hang")
    async def hang(self, message: Any) -> None:
        await asyncio.Event().wait()


class Helper(pbus.BaseWorker):
    """A worker of pbus'."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.frames: list[pbus.BusFrameMessage] = []

    @pbus.job(name="echo")
    async def echo(self, request: pbus.BusJobRequestMessage) -> dict[str, Any]:
        return {"got": request.payload, "by": self.name}

    @pbus.job(name="stream")
    async def stream(self, request: pbus.BusJobRequestMessage) -> Any:
        await self.send_job_update(request.job_id, {"percent": 50})
        await self.send_job_stream_start(request.job_id, {"kind": "text"})
        for number in range(3):
            await self.send_job_stream_data(request.job_id, {"n": number})
        await self.send_job_stream_end(request.job_id, {"sum": 3, **(request.payload or {})})
        return pbus.PENDING

    @pbus.job(name="hang")
    async def hang(self, request: pbus.BusJobRequestMessage) -> None:
        await asyncio.Event().wait()

    @pbus.job(name="fail")
    async def fail(self, request: pbus.BusJobRequestMessage) -> None:
        message = "no luck"
        raise ValueError(message)

    async def on_bus_message(self, message: pbus.BusMessage) -> None:
        if isinstance(message, pbus.BusFrameMessage):
            self.frames.append(message)


def theirs(bus: WorkerBus, *workers: BaseWorker, name: str | None = None) -> WorkerRunner:
    """A runner of Pipecat's, with workers that are added when it is run."""
    runner = WorkerRunner(name=name, bus=bus, handle_sigint=False)
    runner.to_add = workers
    return runner


def ours(url: str, channel: str, *workers: pbus.BaseWorker, **options: Any) -> pbus.WorkerRunner:
    """A runner of pbus', likewise."""
    bus = pbus.connect(url, channel=channel, **options)
    runner = pbus.WorkerRunner(bus=bus, handle_sigint=False)
    runner.to_add = workers
    return runner


@contextlib.asynccontextmanager
async def running(*runners: Any) -> AsyncIterator[None]:
    """Run runners until the block is left, each knowing the workers of all when it begins."""
    tasks = []
    try:
        for runner in runners:
            await runner.add_workers(*runner.to_add)
            tasks.append(asyncio.create_task(runner.run(), name=f"run {runner.name}"))
        names = {worker.name for runner in runners for worker in runner.to_add}
        for runner in runners:
            registry = runner.registry
            await until(lambda r=registry: names <= {*r.local_workers, *r.remote_workers})
        yield
    finally:
        for runner in runners:
            await runner.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_S)
        for task in tasks:
            task.result()


def pbus_bus(url: str, channel: str, **options: Any) -> PbusBus:
    """The bus under test."""
    return PbusBus(url, channel=channel, **options)
