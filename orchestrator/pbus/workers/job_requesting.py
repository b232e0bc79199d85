"""The requester's side of jobs: asking one worker or several, and learning how it ended."""

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from pbus.bus.local.lane_hold import lending, offer_turn
from pbus.errors import WorkerNotAttachedError
from pbus.ids import new_id
from pbus.jobs import (
    JobContext,
    JobGroup,
    JobGroupContext,
    JobGroupOptions,
    JobGroupParams,
    JobGroupResponse,
    JobOptions,
    JobParams,
)
from pbus.jobs.params import as_group, choose_params
from pbus.jobs.requester.client import JobClient
from pbus.messages import (
    BusJobCreditRequestMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusMessage,
)
from pbus.workers.core import base_hook
from pbus.workers.sending import SendingMixin

EVENT_HOOKS = ("on_job_update", "on_job_stream_start", "on_job_stream_data")


class RequestHooks(SendingMixin):
    """What a worker is told about the jobs it asked for.

    Each job ends with exactly one of on_job_completed and on_job_error.
    """

    EVENTS = frozenset({
        "on_job_completed",
        "on_job_error",
        "on_job_response",
        "on_job_stream_data",
        "on_job_stream_end",
        "on_job_stream_start",
        "on_job_update",
    })

    @base_hook
    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        """A worker answered."""

    @base_hook
    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        """A worker told how far it is."""

    @base_hook
    async def on_job_stream_start(self, message: BusJobStreamStartMessage) -> None:
        """A worker began a streamed answer."""

    @base_hook
    async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
        """A piece of a streamed answer came."""

    @base_hook
    async def on_job_stream_end(self, message: BusJobStreamEndMessage) -> None:
        """A streamed answer ended."""

    @base_hook
    async def on_job_completed(self, result: JobGroupResponse) -> None:
        """A job or a group is over, with all its answers."""

    @base_hook
    async def on_job_error(self, message: BusJobResponseMessage) -> None:
        """A job or a group is over without success.

        The message is the answer that ended it. Where none came (time was up, the worker was lost,
        the job was cancelled) it stands for one: its response has the error and its type.
        """


class JobRequestingMixin(RequestHooks):
    """Lets a worker ask others to do jobs.

    Each method takes JobParams (for groups JobGroupParams), or the same as keywords: name, payload,
    timeout, label, cancellable, retries, priority; for groups cancel_on_error.
    """

    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusJobResponseMessage: "_take_response",
        BusJobUpdateMessage: "_take_update",
        BusJobStreamStartMessage: "_take_stream_start",
        BusJobStreamDataMessage: "_take_stream_data",
        BusJobStreamEndMessage: "_take_stream_end",
        BusJobCreditRequestMessage: "_take_credit_request",
    }

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._job_desk: JobClient | None = None

    @property
    def job_groups(self) -> dict[str, JobGroup]:
        """The jobs it asked for that are not over, by id."""
        return {} if self._job_desk is None else self._job_desk.groups

    def job(
        self, worker: str, *, params: JobParams | None = None, **options: Unpack[JobOptions]
    ) -> JobContext:
        """A job at one worker: ``async with worker.job("db", name="load") as j: ...``.

        Raises:
            WorkerNotAttachedError: No runner has this worker yet.
            TypeError: Both params and keywords were given.
        """
        chosen = as_group(choose_params(JobParams, params, {**options}))
        return JobContext(self._desk, _check_names([worker]), chosen)

    def job_group(
        self,
        *workers: str,
        params: JobGroupParams | None = None,
        **options: Unpack[JobGroupOptions],
    ) -> JobGroupContext:
        """A job at several workers at once, each name once.

        Raises:
            WorkerNotAttachedError: No runner has this worker yet.
            TypeError: A worker is not given by name, or both params and keywords were given.
        """
        chosen = choose_params(JobGroupParams, params, {**options})
        return JobGroupContext(self._desk, _check_names(workers), chosen)

    async def request_job(
        self, worker: str, *, params: JobParams | None = None, **options: Unpack[JobOptions]
    ) -> str:
        """Ask one worker, once it is ready, and do not wait for the answer: hooks tell of it.

        Returns:
            The job's id.

        Raises:
            JobTimeoutError: The worker was not ready within the timeout.
        """
        chosen = as_group(choose_params(JobParams, params, {**options}))
        return (await self._open(_check_names([worker]), chosen)).job_id

    async def request_job_group(
        self,
        *workers: str,
        params: JobGroupParams | None = None,
        **options: Unpack[JobGroupOptions],
    ) -> str:
        """Ask several workers, once all are ready, and do not wait: hooks tell of the answers.

        Returns:
            The id that all these jobs share.

        Raises:
            JobTimeoutError: The workers were not all ready within the timeout.
        """
        chosen = choose_params(JobGroupParams, params, {**options})
        return (await self._open(_check_names(workers), chosen)).job_id

    async def create_job_group_and_request_job(
        self, workers: Sequence[str], *, params: JobGroupParams | None = None
    ) -> JobGroup:
        """Like request_job_group(), for those who want to look at the group or wait for it."""
        return await self._open(_check_names(workers), params or JobGroupParams())

    async def cancel_job_group(self, job_id: str, *, reason: str | None = None) -> None:
        """Cancel a job or a group, whatever it says about being cancellable."""
        self._desk.cancel(job_id, reason)

    async def request_cancel_job_group(self, job_id: str, *, reason: str | None = None) -> bool:
        """Cancel a job or a group if it is open and cancellable; whether it was."""
        group = self.job_groups.get(job_id)
        if group is None or not group.cancellable:
            return False
        return self._desk.cancel(job_id, reason)

    async def request_job_update(self, job_id: str, worker: str) -> None:
        """Ask a worker how far a job is; the answer comes as an update.

        Raises:
            JobStateError: That worker has no such job of ours open.
        """
        await self._desk.request_update(job_id, worker)

    async def _open(self, names: Sequence[str], params: JobGroupParams) -> JobGroup:
        group = JobGroup(new_id(), names, params, waiting=lending)
        await self._desk.open(group)
        offer_turn()
        return group

    async def _take_response(self, message: BusJobResponseMessage) -> None:
        await self._desk.take_response(message)

    async def _take_update(self, message: BusJobUpdateMessage) -> None:
        await self._desk.take_event(message, "update", message.update, message.position)

    async def _take_stream_start(self, message: BusJobStreamStartMessage) -> None:
        await self._desk.take_event(message, "stream_start", message.data, message.position)

    async def _take_stream_data(self, message: BusJobStreamDataMessage) -> None:
        await self._desk.take_event(message, "stream_data", message.data, message.position)

    async def _take_stream_end(self, message: BusJobStreamEndMessage) -> None:
        await self._desk.take_stream_end(message, message.data, message.events)

    async def _take_credit_request(self, message: BusJobCreditRequestMessage) -> None:
        await self._desk.credits.answer(message)

    @property
    def _desk(self) -> JobClient:
        if self._job_desk is None:
            raise WorkerNotAttachedError(self.name)
        return self._job_desk


def _check_names(workers: Sequence[Any]) -> Sequence[str]:
    for worker in workers:
        if not isinstance(worker, str):
            raise TypeError(f"a worker is asked by its name, not by {worker!r}")
    return workers
