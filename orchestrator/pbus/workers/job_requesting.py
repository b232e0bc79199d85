"""Job requests of a worker: at one worker or several, and hooks for answers and events."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

from pbus.bus.local.lane_hold import release_lane, release_lane_on_wait
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
from pbus.jobs.params import JobTerms, as_group, check_names, choose_params, single_job
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
END_HOOKS = ("on_job_response", "on_job_stream_end", "on_job_completed", "on_job_error")


class RequestHooks(SendingMixin):
    """Adds hooks for the jobs that a worker requests.

    Each job ends with exactly one call of on_job_completed or on_job_error.
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
        """Handle an answer of a worker."""

    @base_hook
    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        """Handle the progress of a job."""

    @base_hook
    async def on_job_stream_start(self, message: BusJobStreamStartMessage) -> None:
        """Handle the first message of a streamed answer."""

    @base_hook
    async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
        """Handle a message of a streamed answer."""

    @base_hook
    async def on_job_stream_end(self, message: BusJobStreamEndMessage) -> None:
        """Handle the end of a streamed answer."""

    @base_hook
    async def on_job_completed(self, result: JobGroupResponse) -> None:
        """Handle the end of a job or a group, with all its answers."""

    @base_hook
    async def on_job_error(self, message: BusJobResponseMessage) -> None:
        """Handle the failure of a job or a group.

        Args:
            message: The answer that ended it. Without an answer (after a timeout, a cancellation or
                the loss of the worker) a substitute, whose response has the keys error and type.
        """


class JobRequestingMixin(RequestHooks):
    """Adds requests for jobs at other workers.

    Each method takes JobParams (for groups JobGroupParams), or the same as keywords: name, payload,
    timeout, label, cancellable, retries, priority; for groups cancel_on_error.
    """

    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusJobResponseMessage: "_job_client.on_response",
        BusJobUpdateMessage: "_job_client.events.on_update",
        BusJobStreamStartMessage: "_job_client.events.on_stream_start",
        BusJobStreamDataMessage: "_job_client.events.on_stream_data",
        BusJobStreamEndMessage: "_job_client.on_stream_end",
        BusJobCreditRequestMessage: "_job_client.events.on_credit_request",
    }

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._has_end_hooks = any(map(self._has_hook, END_HOOKS))

    @property
    def job_groups(self) -> dict[str, JobGroup]:
        """The open jobs that it requested, by id."""
        client = self._made_job_client
        return {} if client is None else client.groups

    def job(
        self,
        worker: str,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        params: JobParams | None = None,
        **options: Unpack[JobTerms],
    ) -> JobContext:
        """Make a job at one worker: ``async with worker.job("db", "load") as j: ...``.

        Args:
            worker: The name of a worker or a group of replicas.
            name: Which of its jobs.
            payload: JSON values for the handler.
            params: How the job is requested, instead of the other arguments.
            **options: More fields of params.

        Raises:
            WorkerNotAttachedError: No runner has this worker yet.
            TypeError: Both params and keywords were given.
        """
        chosen = single_job(name, payload, params, {**options})
        return JobContext(self._job_client, check_names([worker]), chosen)

    def job_group(
        self,
        *workers: str,
        params: JobGroupParams | None = None,
        **options: Unpack[JobGroupOptions],
    ) -> JobGroupContext:
        """Make a job at several workers at once.

        Args:
            *workers: Names of workers or groups of replicas; each counts once.
            params: How the jobs are requested.
            **options: The fields of params.

        Raises:
            WorkerNotAttachedError: No runner has this worker yet.
            TypeError: A worker is not given by name, or both params and keywords were given.
        """
        chosen = choose_params(JobGroupParams, params, {**options})
        return JobGroupContext(self._job_client, check_names(workers), chosen)

    async def request_job(
        self, worker: str, *, params: JobParams | None = None, **options: Unpack[JobOptions]
    ) -> str:
        """Request a job at one worker, once it is ready. Hooks get the answer.

        Args:
            worker: The name of a worker or a group of replicas.
            params: How the job is requested.
            **options: The fields of params.

        Returns:
            The job's id.

        Raises:
            JobTimeoutError: The worker was not ready within the timeout.
        """
        chosen = as_group(choose_params(JobParams, params, {**options}))
        return (await self._open_group(check_names([worker]), chosen)).job_id

    async def request_job_group(
        self,
        *workers: str,
        params: JobGroupParams | None = None,
        **options: Unpack[JobGroupOptions],
    ) -> str:
        """Request a job at several workers, once all are ready. Hooks get the answers.

        Args:
            *workers: Names of workers or groups of replicas; each counts once.
            params: How the jobs are requested.
            **options: The fields of params.

        Returns:
            The id that all parts share.

        Raises:
            JobTimeoutError: The workers were not all ready within the timeout.
        """
        chosen = choose_params(JobGroupParams, params, {**options})
        return (await self._open_group(check_names(workers), chosen)).job_id

    async def create_job_group_and_request_job(
        self,
        workers: Sequence[str],
        *,
        params: JobGroupParams | None = None,
        **options: Unpack[JobGroupOptions],
    ) -> JobGroup:
        """Request a job at several workers; as request_job_group().

        Returns:
            The group, to look at or to wait for.
        """
        chosen = choose_params(JobGroupParams, params, {**options})
        return await self._open_group(check_names(workers), chosen)

    async def cancel_job_group(self, job_id: str, *, reason: str | None = None) -> None:
        """Cancel a job or a group, also one that is not cancellable by others.

        Its cancels are sent when this returns.

        Args:
            job_id: Of an open job; others are ignored.
            reason: For the workers.
        """
        await self._job_client.abandon(job_id, reason)

    async def request_cancel_job_group(self, job_id: str, *, reason: str | None = None) -> bool:
        """Cancel a job or a group if it is open and cancellable; as cancel_job_group().

        Args:
            job_id: The job's.
            reason: For the workers.

        Returns:
            Whether it was.
        """
        group = self.job_groups.get(job_id)
        if group is None or not group.cancellable:
            return False
        return await self._job_client.abandon(job_id, reason)

    async def request_job_update(self, job_id: str, worker: str) -> None:
        """Ask a worker for the progress of a job; the answer is an update.

        Args:
            job_id: Of an open job.
            worker: The worker's name, as it was asked for.

        Raises:
            JobStateError: The job is not open, or that worker is not part of it.
        """
        await self._job_client.request_update(job_id, worker)

    def _hears_ends(self) -> bool:
        """Whether answers or the end of a job have a hook, or handlers of its event."""
        return self._has_end_hooks or any(map(self._event_handlers.get, END_HOOKS))

    async def _open_group(self, names: Sequence[str], params: JobGroupParams) -> JobGroup:
        group = JobGroup(new_id(), names, params, waiting=release_lane)
        await self._job_client.open(group)
        release_lane_on_wait()
        return group

    @property
    def _job_client(self) -> JobClient:
        parts = self._job_parts
        if parts is None:
            raise WorkerNotAttachedError(self.name)
        return parts.made_client or parts.make_client()

    @property
    def _made_job_client(self) -> JobClient | None:
        return None if self._job_parts is None else self._job_parts.made_client
