"""A job that a client asks for: updates, answers, and every way it may go wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.bus.subscriber import BusSubscriber
from pbus.client import Client
from pbus.errors import (
    JobCancelledError,
    JobFailedError,
    JobTimeoutError,
    JobWorkerLostError,
    WorkerNotFoundError,
)
from pbus.jobs.listing import BusJobCancelRequestMessage
from pbus.leases import Lease
from pbus.messages import (
    BusJobCancelMessage,
    BusJobCreditMessage,
    BusJobCreditRequestMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobUpdateMessage,
    BusMessage,
    JobStatus,
)

Act = Callable[["Worker", BusJobRequestMessage], Awaitable[None]]
LEASE = Lease(name="worker", incarnation="1", runner="r", host="h", pid=1, state="ready")


class Worker(BusSubscriber):
    """Answers jobs as a test wants; keeps the cancels."""

    def __init__(self, bus: AsyncQueueBus, act: Act) -> None:
        self.name = "worker"
        self.bus = bus
        self.act = act
        self.cancelled = asyncio.Event()
        self.asked = asyncio.Event()
        self.credits: asyncio.Queue[BusJobCreditMessage] = asyncio.Queue()

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage):
            self.asked.set()
            await self.act(self, message)
        elif isinstance(message, BusJobCancelMessage):
            self.cancelled.set()
        elif isinstance(message, BusJobCreditMessage):
            self.credits.put_nowait(message)

    async def say(self, kind: type[Any], request: BusJobRequestMessage, **fields: Any) -> None:
        """Send something about a job to who asked for it."""
        await self.bus.send(
            kind(source=self.name, target=request.source, job_id=request.job_id, **fields)
        )


async def ask(act: Act, *, timeout_s: float = 5.0) -> tuple[dict[str, Any], list[Any], Worker]:
    """Ask a worker that acts so; returns the response, the events and the worker."""
    events: list[Any] = []
    async with AsyncQueueBus() as bus:
        worker = Worker(bus, act)
        await bus.subscribe(worker)
        await bus.leases.claim(LEASE)
        async with Client(bus) as client:
            async with client.job("worker", "search", {"q": 1}, timeout=timeout_s) as asked:
                events.extend([(event.type, event.data) async for event in asked])
            response = asked.response
    return response, events, worker


def answering(status: JobStatus, response: dict[str, Any] | None = None) -> Act:
    """A worker that answers at once."""

    async def act(worker: Worker, request: BusJobRequestMessage) -> None:
        await worker.say(BusJobResponseMessage, request, status=status, response=response)

    return act


def test_response_and_updates() -> None:
    """Updates come in order, then the response."""

    async def act(worker: Worker, request: BusJobRequestMessage) -> None:
        assert ("search", {"q": 1}) == (request.job_name, request.payload)
        assert request.deadline is not None
        await worker.say(BusJobUpdateMessage, request, update={"n": 1})
        await worker.say(BusJobUpdateMessage, request, update={"n": 2})
        status = JobStatus.COMPLETED
        await worker.say(BusJobResponseMessage, request, status=status, response={"hits": []})

    response, updates, worker = asyncio.run(ask(act))

    assert {"hits": []} == response
    assert [("update", {"n": 1}), ("update", {"n": 2})] == updates
    assert not worker.cancelled.is_set()


def test_streams_are_shown() -> None:
    """The pieces of a streamed answer come by, its end is the response."""

    async def act(worker: Worker, request: BusJobRequestMessage) -> None:
        await worker.say(BusJobStreamDataMessage, request, data={"piece": 1})
        await worker.say(BusJobStreamEndMessage, request, data={"done": True})

    response, updates, _ = asyncio.run(ask(act))

    assert {"done": True} == response
    assert [("stream_data", {"piece": 1}), ("stream_end", {"done": True})] == updates


def test_reader_grants_what_was_shown() -> None:
    """A worker that waits for who reads learns how far that is, by itself and when it asks."""
    told: list[BusJobCreditMessage] = []

    async def act(worker: Worker, request: BusJobRequestMessage) -> None:
        piece, half = BusJobStreamDataMessage, request.window // 2
        await worker.say(piece, request, data={"piece": 1}, position=half)
        told.append(await worker.credits.get())
        await worker.say(piece, request, data={"piece": 2}, position=half + 1)
        await worker.say(BusJobCreditRequestMessage, request)
        while told[-1].position != half + 1:
            told.append(await worker.credits.get())
            await worker.say(BusJobCreditRequestMessage, request)
        await worker.say(BusJobStreamEndMessage, request, data={"half": half})

    response, updates, _ = asyncio.run(ask(act))

    assert [1, 2] == [data["piece"] for kind, data in updates if kind == "stream_data"]
    assert response["half"] == told[0].position > 0


@pytest.mark.parametrize("status", [JobStatus.ERROR, JobStatus.FAILED])
def test_failure_has_its_text(status: JobStatus) -> None:
    """What the worker says about it is the error."""
    with pytest.raises(JobFailedError, match="no such index"):
        asyncio.run(ask(answering(status, {"error": "no such index"})))


def test_cancelled_by_worker() -> None:
    """A job that the worker cancelled is no success."""
    with pytest.raises(JobCancelledError, match="tired"):
        asyncio.run(ask(answering(JobStatus.CANCELLED, {"reason": "tired"})))


def test_deadline_cancels_job() -> None:
    """When time is up the worker is told to stop."""
    workers = []

    async def act(worker: Worker, request: BusJobRequestMessage) -> None:
        workers.append(worker)

    with pytest.raises(JobTimeoutError):
        asyncio.run(ask(act, timeout_s=0.05))
    assert workers[0].cancelled.is_set()


def test_leaving_cancels_job() -> None:
    """So it is when the task that waits is cancelled."""

    async def main() -> bool:
        async def act(worker: Worker, request: BusJobRequestMessage) -> None:
            waiting.cancel()

        waiting = asyncio.create_task(ask(kept(act)))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return seen[0].cancelled.is_set()

    seen: list[Worker] = []

    def kept(act: Act) -> Act:
        async def keeping(worker: Worker, request: BusJobRequestMessage) -> None:
            seen.append(worker)
            await act(worker, request)

        return keeping

    assert asyncio.run(main())


@pytest.mark.parametrize("successor", [None, "2"])
def test_lost_worker_ends_job(successor: str | None) -> None:
    """A worker that died, or was restarted, will not answer: no need to wait for the deadline."""

    async def act(worker: Worker, request: BusJobRequestMessage) -> None:
        await worker.bus.leases.release(["1"])
        if successor is not None:
            await worker.bus.leases.claim(
                Lease(name="worker", incarnation=successor, runner="r", host="h", pid=2)
            )

    with pytest.raises(JobWorkerLostError):
        asyncio.run(ask(act, timeout_s=20))


def test_other_jobs_are_ignored() -> None:
    """Late answers of another job are not this one's."""

    async def act(worker: Worker, request: BusJobRequestMessage) -> None:
        stale = BusJobRequestMessage(source=request.source, job_id="old")
        status = JobStatus.COMPLETED
        await worker.say(BusJobResponseMessage, stale, status=status, response={"old": 1})
        await worker.say(BusJobResponseMessage, request, status=status, response={"new": 1})

    assert {"new": 1} == asyncio.run(ask(act))[0]


def test_urgent_answer_hides_nothing() -> None:
    """What an answer overtook is shown before the response."""

    async def act(worker: Worker, request: BusJobRequestMessage) -> None:
        status = JobStatus.COMPLETED
        await worker.say(BusJobStreamDataMessage, request, data={"piece": 1})
        await worker.say(
            BusJobResponseUrgentMessage, request, status=status, response={"end": 1}, events=2
        )
        await worker.say(BusJobStreamDataMessage, request, data={"piece": 2})

    response, events, _ = asyncio.run(ask(act))

    assert {"end": 1} == response
    assert [("stream_data", {"piece": 1}), ("stream_data", {"piece": 2})] == events


def test_cancelled_by_another() -> None:
    """`pbus cancel` asks the requester, which may be this client: it tells the worker."""
    heard: list[BusMessage] = []
    workers: list[Worker] = []

    class Canceller(BusSubscriber):
        name = "cli-2"

        async def on_bus_message(self, message: BusMessage) -> None:
            heard.append(message)

    async def act(worker: Worker, request: BusJobRequestMessage) -> None:
        workers.append(worker)
        await worker.bus.subscribe(Canceller())
        await worker.bus.send(
            BusJobCancelRequestMessage(
                source="cli-2", target=request.source, job_id=request.job_id, reason="enough"
            )
        )

    with pytest.raises(JobCancelledError, match="enough"):
        asyncio.run(ask(act))
    assert workers[0].cancelled.is_set()
    assert ["cancelled"] == [one.outcome for one in heard if hasattr(one, "outcome")]


def test_awaiting_gives_the_response() -> None:
    """Without a block a job is awaited."""

    async def main() -> dict[str, Any]:
        async with AsyncQueueBus() as bus:
            worker = Worker(bus, answering(JobStatus.COMPLETED, {"n": 1}))
            await bus.subscribe(worker)
            await bus.leases.claim(LEASE)
            async with Client(bus) as client:
                return await client.job("worker", "search", {"q": 1}, timeout=5)

    assert {"n": 1} == asyncio.run(main())


def test_unknown_worker_is_named() -> None:
    """It is not waited for until the job's deadline, and the error says which one was meant."""

    async def main() -> None:
        async with AsyncQueueBus() as bus:
            await bus.leases.claim(LEASE)
            async with Client(bus, find_timeout=0.05) as client:
                await client.job("worke", "search", timeout=60)

    with pytest.raises(WorkerNotFoundError, match="did you mean 'worker'") as caught:
        asyncio.run(main())
    assert ("worke", 0.05) == (caught.value.name, caught.value.waited_s)


def test_closing_cancels_jobs() -> None:
    """What is open when the client is closed ends, here and at the worker."""

    async def main() -> Worker:
        async def act(worker: Worker, request: BusJobRequestMessage) -> None:
            pass

        async with AsyncQueueBus() as bus:
            worker = Worker(bus, act)
            await bus.subscribe(worker)
            await bus.leases.claim(LEASE)
            async with Client(bus) as client:
                waiting = asyncio.ensure_future(client.job("worker", "search", timeout=60))
                await worker.asked.wait()
            with pytest.raises(JobCancelledError, match="the client was closed"):
                await waiting
        return worker

    assert asyncio.run(main()).cancelled.is_set()


def test_least_busy_replica_is_asked() -> None:
    """A client that has asked for nothing yet goes by what the registry says is waiting."""

    async def main() -> list[str]:
        seen: list[str] = []

        async def act(worker: Worker, request: BusJobRequestMessage) -> None:
            seen.append(worker.name)
            await worker.say(BusJobResponseMessage, request, status=JobStatus.COMPLETED)

        async with AsyncQueueBus() as bus:
            for name, queued in (("x.1", 5), ("x.2", 1)):
                worker = Worker(bus, act)
                worker.name = name
                await bus.subscribe(worker)
                await bus.leases.claim(
                    Lease(
                        name=name, incarnation=name, runner="r", host="h", pid=1, state="ready",
                        queued=queued,
                    )
                )  # fmt: skip
            async with Client(bus) as client:
                await client.job("x", "search", timeout=5)
        return seen

    assert ["x.2"] == asyncio.run(main())
