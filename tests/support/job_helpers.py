"""Workers on runners for tests of the worker model: hosts that are ready, and recording workers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pbus.bus import WorkerBus
from pbus.handlers import job
from pbus.messages import BusDataMessage, BusJobRequestMessage
from pbus.runner import WorkerRunner
from pbus.workers.base_worker import BaseWorker
from support.waiting import PATIENCE_S, until

MakeBus = Callable[..., WorkerBus]


@asynccontextmanager
async def hosted(make_bus: MakeBus, *groups: list[BaseWorker]) -> AsyncIterator[list[Any]]:
    """A runner for each list of workers, all ready and known to each other; over at the end."""
    buses = [make_bus() for _ in groups]
    runners = [WorkerRunner(bus=bus, session="test") for bus in buses]
    runs = []
    try:
        for bus in buses:
            await bus.start()
        for runner, workers in zip(runners, groups, strict=True):
            await runner.add_workers(*workers)
            runs.append(asyncio.create_task(runner.run(auto_end=False)))
        names = [worker.name for workers in groups for worker in workers]
        for runner in runners:
            for name in names:
                await runner.registry.wait_ready(name, PATIENCE_S)
        yield runners
    finally:
        for runner in runners:
            await runner.cancel("the test is over")
        if runs:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*runs)
        for bus in buses:
            await bus.stop()


class Note(BusDataMessage):
    """Something that is no job."""

    number: int = 0


class Asker(BaseWorker):
    """Remembers what its hooks are told, and the notes it gets."""

    def __init__(self, name="asker", **options):
        super().__init__(name, **options)
        self.told = []
        self.notes = []

    def told_of(self, hook):
        return [value for name, value in self.told if name == hook]

    async def on_bus_message(self, message):
        if isinstance(message, Note):
            self.notes.append(message.number)

    async def on_job_response(self, message):
        self.told.append(("response", message))

    async def on_job_update(self, message):
        self.told.append(("update", message))

    async def on_job_stream_end(self, message):
        self.told.append(("stream_end", message))

    async def on_job_completed(self, result):
        self.told.append(("completed", result))

    async def on_job_error(self, message):
        self.told.append(("error", message))


class Doer(BaseWorker):
    """Does what a job's name says; remembers which jobs began and how they ended.

    It has no on_bus_message, so its handlers run in the tasks that read its lanes.

    Attributes:
        gate: What "wait" jobs wait for.
    """

    def __init__(self, name="doer", **options):
        super().__init__(name, **options)
        self.begun = []
        self.ended = []
        self.gate = asyncio.Event()

    @job(name="echo")
    async def echo(self, request: BusJobRequestMessage) -> Any:
        return (request.payload or {}).get("value")

    @job(name="fail")
    async def fail(self, request: BusJobRequestMessage) -> None:
        raise LookupError("no such book")

    @job(name="wait")
    async def wait_for_gate(self, request: BusJobRequestMessage) -> dict[str, str]:
        self.begun.append(request.job_id)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        return {"by": self.name}

    @job(name="steps")
    async def steps(self, request: BusJobRequestMessage) -> dict[str, int]:
        count = request.payload["count"]
        for number in range(count):
            await self.send_job_update(request.job_id, {"number": number})
        return {"count": count}

    @job(name="stream")
    async def stream(self, request: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(request.job_id, {"title": "numbers"})
        for number in range(request.payload["count"]):
            await self.send_job_stream_data(request.job_id, {"number": number})
        if request.payload.get("urgent"):
            await self.send_job_response(request.job_id, {"urgent": True}, urgent=True)
        else:
            await self.send_job_stream_end(request.job_id, {"total": request.payload["count"]})

    async def has_begun(self, count=1):
        await until(lambda: len(self.begun) >= count)


class NotingDoer(Doer):
    """Remembers the notes it gets, too; its handlers run in tasks of their own."""

    def __init__(self, name="doer", **options):
        super().__init__(name, **options)
        self.notes = []

    async def on_bus_message(self, message):
        if isinstance(message, Note):
            self.notes.append(message.number)


async def ask(worker, target, name, **options):
    """The response of a job."""
    async with worker.job(target, name=name, **options) as j:
        pass
    return j.response


def leftovers(*workers):
    """All that jobs could leave behind in workers."""
    return [len(worker.job_groups) + len(worker.active_jobs) for worker in workers]


class HastyDoer(Doer):
    """Is cancelled by itself just when its job "hasty" is answered."""

    @job(name="hasty")
    async def hasty(self, request: BusJobRequestMessage) -> dict[str, str]:
        await asyncio.sleep(0)
        asyncio.current_task().cancel()
        return {"in": "time"}


def one_attempt(backend: str) -> dict[str, Any]:
    """Options of a bus that retries nothing, so that each message is handled once."""
    return {"queue_options": {"max_attempts": 1}} if backend in {"redis-streams", "pgmq"} else {}
