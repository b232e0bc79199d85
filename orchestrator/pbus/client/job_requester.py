"""JobRequester: asks workers for jobs under an address that has no place in the registry."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.client.targets import FIND_S, not_found, wait_registered
from pbus.concurrency.background import TaskOwner
from pbus.concurrency.flag import Flag
from pbus.concurrency.waiting import first_of
from pbus.errors import BusUnavailableError, JobTimeoutError, PbusError, WorkerNotFoundError
from pbus.jobs.backpressure import Reading
from pbus.jobs.context import WorkerContext
from pbus.jobs.group import JobGroup
from pbus.jobs.handles import EventQueue
from pbus.jobs.job_events import JobGroupEvent
from pbus.jobs.listing import (
    BusJobCancelRequestMessage,
    BusJobsRequestMessage,
    BusJobsResponseMessage,
    OpenJobs,
)
from pbus.jobs.requester.client import JobClient
from pbus.jobs.requester.requested_jobs import cancel_for_another, requested_jobs
from pbus.messages import (
    BusJobCreditRequestMessage,
    BusJobMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusMessage,
    BusWorkerRegistryMessage,
)
from pbus.registry import KeyOwners, Replicas, WorkerRegistry

_Receivers: TypeAlias = tuple[tuple[type[BusMessage], Callable[[Any], Awaitable[None]]], ...]

_TAKEN: Final = (BusJobMessage, BusJobsRequestMessage, BusWorkerRegistryMessage)
_LOADS_S: Final = 1.0  # how long the loads of replicas, once read, are used
_MOST_LISTED: Final = 500  # jobs a message: far below any limit of its size
_CLOSE_S: Final = 5.0  # for the cancels of open jobs to be written


class JobRequester(BusSubscriber):
    """Asks for jobs as a worker does, without being one.

    Args:
        bus: Started.
        name: Its address.
        find_s: Seconds that a worker gets to be registered before a job fails; None: as long as
            the job may take.
    """

    def __init__(self, bus: WorkerBus, name: str, *, find_s: float | None = FIND_S) -> None:
        self.name = name
        self._bus = bus
        self._find_s = find_s
        self._tasks = TaskOwner()
        self._registry = WorkerRegistry(name, bus)
        self._replicas = Replicas(self._registry)
        self._client = JobClient(
            WorkerContext(
                name=name, address=name, bus=bus, registry=self._registry, send=bus.send,
                spawn=self._spawn, call_hook=_no_hook, waiting_handlers=set(), joined=Flag(is_set=True),
                stores_jobs=bus.delivery == "at-least-once",
            ),
            self._replicas,
        )  # fmt: skip
        self._loads_read_at = -_LOADS_S
        self._starting = asyncio.Lock()
        self._is_started = False
        self._receivers = self._new_receivers()

    async def _start(self) -> None:
        """Learn which workers are there, and follow them. Idempotent."""
        async with self._starting:
            if self._is_started:
                return
            await self._bus.subscribe(self)
            await self._registry.start()
            self._registry.watch_lost(None, self._client.lost_workers.on_worker_lost)
            self._is_started = True

    async def key_owners(self) -> KeyOwners:
        """The replicas that keys belong to, as the registry of this client sees them."""
        await self._start()
        return self._registry.owners

    async def close(self) -> None:
        """Cancel what is open, and leave the bus."""
        if not self._is_started:
            return
        with contextlib.suppress(TimeoutError):  # the workers notice by the jobs' deadlines
            async with asyncio.timeout(_CLOSE_S):
                await self._client.close("the client was closed")
        await self._registry.stop()
        await self._tasks.close(_CLOSE_S)
        await self._bus.unsubscribe(self)

    # What JobContext uses

    async def open(self, group: JobGroup, events: EventQueue[JobGroupEvent] | None) -> None:
        """Send the requests of a group, each once its worker is ready.

        Args:
            group: A new group.
            events: The queue for its updates and stream messages.

        Raises:
            WorkerNotFoundError: A name stood for no registered worker in time.
            JobError: The job was over before all had been asked.
            PbusError: The request cannot be sent.
        """
        await self._start()
        absent = [name for name in group.members if not self._registry.is_there(name)]
        await self._read_loads(group)
        if not absent:
            await self._client.open(group, events)
            return
        began = time.monotonic()
        finding, opening = await first_of(self._find(absent), self._client.open(group, events))
        try:
            (finding if opening.cancelled() else opening).result()
        except JobTimeoutError:
            if missing := [name for name in absent if not self._registry.is_there(name)]:
                raise await not_found(self._bus, missing[0], time.monotonic() - began) from None
            raise

    async def _find(self, names: list[str]) -> None:
        """End with an error where one of these is not registered in time; else wait on."""
        if self._find_s is not None:
            deadline = time.monotonic() + self._find_s
            for name in names:
                try:
                    await wait_registered(self._bus, name, max(0.0, deadline - time.monotonic()))
                except WorkerNotFoundError as error:
                    raise WorkerNotFoundError(name, self._find_s, error.hint) from None
        await asyncio.get_running_loop().create_future()

    async def _read_loads(self, group: JobGroup) -> None:
        """Learn what replicas have waiting, so that short-lived clients do not all ask the first."""
        now = time.monotonic()
        if now - self._loads_read_at < _LOADS_S or not any(
            self._registry.is_group(name) for name in group.members
        ):
            return
        self._loads_read_at = now
        try:
            leases = await self._bus.leases.leases()
        except BusUnavailableError:
            return
        self._replicas.loads = {lease.name: lease.queued + lease.working for lease in leases}

    async def abandon(self, job_id: str, reason: str | None) -> bool:
        """Cancel a job where it is still worked on; returns whether it was."""
        return await self._client.abandon(job_id, reason)

    def forget(self, group: JobGroup) -> None:
        """Take nothing more for a group."""
        self._client.forget(group)

    def send_credit(self, reading: Reading) -> None:
        """Tell a worker, in a task of its own, which of its events were read."""
        self._client.send_credit(reading)

    # Messages

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Only what is about jobs, and who is there."""
        return isinstance(message, _TAKEN)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Take in an answer, an event, a question or news of the registry."""
        for kind, take in self._receivers:
            if isinstance(message, kind):
                await take(message)
                return

    def _new_receivers(self) -> _Receivers:
        client = self._client
        return (
            (BusJobUpdateMessage, client.events.on_update),
            (BusJobStreamDataMessage, client.events.on_stream_data),
            (BusJobStreamStartMessage, client.events.on_stream_start),
            (BusJobStreamEndMessage, client.on_stream_end),
            (BusJobResponseMessage, client.on_response),
            (BusJobCreditRequestMessage, client.events.on_credit_request),
            (BusJobCancelRequestMessage, self._take_cancel_request),
            (BusJobsRequestMessage, self._list_jobs),
            (BusWorkerRegistryMessage, self._hear),
        )

    async def _hear(self, message: BusWorkerRegistryMessage) -> None:
        self._registry.on_announcement(message)

    async def _take_cancel_request(self, message: BusJobCancelRequestMessage) -> None:
        await self._answer(cancel_for_another(self._client, self.name, message))

    async def _list_jobs(self, message: BusJobsRequestMessage) -> None:
        asked = requested_jobs(self._client, self.name)
        answer = BusJobsResponseMessage(
            source=self.name,
            target=message.source,
            runner=self.name,
            jobs=OpenJobs(requested=asked[:_MOST_LISTED]),
        )
        await self._answer(answer)

    async def _answer(self, message: BusMessage) -> None:
        try:
            await self._bus.send(message)
        except PbusError:
            return  # the other asks again, or has left

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        return self._tasks.spawn(work, name or f"pbus client {self.name}")


async def _no_hook(
    hook: str, *values: Any, on_done: Callable[[], None] | None = None, **_: Any
) -> None:
    """A client has no hooks: its events are read, or counted as read."""
    del hook, values
    if on_done is not None:
        on_done()
