"""Public usage of the worker model, type-checked and never run."""

from typing import Any, assert_type

from pbus import (
    PENDING,
    AsyncQueueBus,
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobContext,
    JobEvent,
    JobGroup,
    JobGroupContext,
    JobGroupEvent,
    JobGroupParams,
    JobGroupResponse,
    JobParams,
    JobResponse,
    JobStatus,
    WorkerActivationArgs,
    WorkerBus,
    WorkerErrorData,
    WorkerLostData,
    WorkerReadyData,
    WorkerRunner,
    connect,
    job,
    worker_ready,
)


class Order(BusDataMessage):
    """A message of the user's own."""

    book: str
    copies: int = 1


class Main(BaseWorker):
    """Hooks and handlers as a user writes them."""

    def __init__(self, name: str, *, shelf: str = "a") -> None:
        super().__init__(name, active=True, max_queued_jobs=10)
        self.shelf = shelf

    async def start(self) -> None:
        await self.watch_workers("greeter", "db")

    @worker_ready(name="greeter")
    async def on_greeter_ready(self, data: WorkerReadyData) -> None:
        await self.activate_worker("greeter", args=WorkerActivationArgs(metadata={"n": 1}))
        await self.activate_worker(data.worker_name, args={"n": 1}, deactivate_self=True)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await self.send_bus_message(Order(source=self.name, target="db", book="b", key="b"))

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Order):
            assert_type(message.copies, int)

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        await self.end(reason=data.reason)

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        await self.cancel(reason=data.error)

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        assert_type(result.responses, dict[str, JobResponse])

    async def on_job_error(self, message: BusJobResponseMessage) -> None:
        assert_type(message.status, JobStatus)

    @job(name="search", sequential=True)
    async def search(self, request: BusJobRequestMessage) -> dict[str, Any]:
        async with self.job("db", name="load", payload={"key": 1}, timeout=5.0) as j:
            async for event in j:
                assert_type(event, JobEvent)
        assert_type(j, JobContext)
        assert_type(j.response, JobResponse)
        assert_type(await self.job("db", "load", {"key": 1}, timeout=5, key="b"), JobResponse)
        assert_type(await self.job_group("a", "b", name="load"), dict[str, JobResponse])
        return j.response

    @job(name="spread")
    async def spread(self, request: BusJobRequestMessage) -> Any:
        params = JobGroupParams(name="index", cancel_on_error=False)
        async with self.job_group("a", "b", params=params) as group:
            async for event in group:
                assert_type(event, JobGroupEvent)
        assert_type(group, JobGroupContext)
        assert_type(group.responses["a"].status, JobStatus)
        await self.send_job_update(request.job_id, {"done": 1, "total": 2}, urgent=True)
        await self.send_job_response(request.job_id, {"ok": True}, status=JobStatus.FAILED)
        return PENDING

    async def fire_and_forget(self) -> None:
        job_id = await self.request_job("db", params=JobParams(name="load", retries=2))
        assert_type(job_id, str)
        assert_type(await self.request_cancel_job_group(job_id, reason="enough"), bool)
        await self.request_job_group("a", "b", name="index", cancel_on_error=True)
        assert_type(await self.create_job_group_and_request_job(["a"]), JobGroup)


class Greeter(BaseWorker):
    """A worker with nothing of its own."""


async def main() -> None:
    """The first program of the manual."""
    runner = WorkerRunner(bus=AsyncQueueBus())
    worker = Main("main")

    @worker.event_handler("on_activated")
    async def activated(worker: Main, args: dict[str, Any] | None) -> None:
        del worker, args

    await runner.add_workers(worker, Greeter("greeter", active=False))
    await runner.run(auto_end=True)
    bus: WorkerBus = connect("redis://localhost", channel="pbus:app")
    await WorkerRunner(bus=bus, name="one").run()
