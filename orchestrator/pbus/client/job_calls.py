"""The jobs of a client: asking, listing, cancelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pbus.client.addresses import new_name
from pbus.client.client_core import ClientCore
from pbus.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from pbus.client.job_listing import OpenJobsResult
    from pbus.client.job_requester import JobRequester
    from pbus.client.traffic.routes import Route
    from pbus.jobs.handles import JobContext, JobGroupContext
    from pbus.jobs.params import JobGroupOptions, JobGroupParams, JobParams, JobTerms, Priority
    from pbus.registry import KeyOwners


class JobCalls(ClientCore):
    """Lets a client ask workers for jobs."""

    _requester: JobRequester | None = None

    def job(
        self,
        worker: str,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        params: JobParams | None = None,
        **options: Unpack[JobTerms],
    ) -> JobContext:
        """A job at one worker, as `BaseWorker.job()`.

        ``response = await client.job("db", "load", {"key": 1}, timeout=5)`` waits for the response;
        as a block it gives updates and pieces, too::

            async with client.job("db", "load", {"key": 1}) as asked:
                async for event in asked:
                    print(event.type, event.data)
            print(asked.response)

        Cancelling the task that waits cancels the job.

        Args:
            worker: The name of a worker, or of a group of replicas: one of them.
            name: Which of its jobs.
            payload: JSON values for the handler.
            params: Instead of the other arguments.
            options: timeout (seconds, 60; None for none), label, cancellable, retries, priority,
                key.

        Raises:
            ClientClosedError: The client is not open.
            TypeError: Both params and other arguments were given.

        When entered or awaited it raises WorkerNotFoundError, where no such worker is registered
        in time, and JobTimeoutError, JobCancelledError, JobFailedError or JobWorkerLostError.
        """
        from pbus.jobs.handles import JobContext
        from pbus.jobs.params import check_names, single_job

        chosen = single_job(name, payload, params, {**options})
        return JobContext(self._jobs, check_names([worker]), chosen)

    def job_group(
        self,
        *workers: str,
        params: JobGroupParams | None = None,
        **options: Unpack[JobGroupOptions],
    ) -> JobGroupContext:
        """A job at several workers at once, each name once, as `BaseWorker.job_group()`.

        Raises:
            ClientClosedError: The client is not open.
            TypeError: Both params and keywords were given.
        """
        from pbus.jobs.handles import JobGroupContext
        from pbus.jobs.params import JobGroupParams, check_names, choose_params

        chosen = choose_params(JobGroupParams, params, {**options})
        return JobGroupContext(self._jobs, check_names(workers), chosen)

    async def request_job(
        self,
        worker: str,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the job's, not of this call
        priority: Priority = "normal",
        key: str | None = None,
    ) -> str:
        """Ask a worker for a job and do not wait; the job goes on when the client is closed.

        Args:
            worker: As of job(); name and payload likewise.
            name: See there.
            payload: See there.
            key: See there.
            timeout: Seconds after which the worker gives the job up; None for never.
            priority: "high" overtakes queued data.

        Returns:
            The job's id; `open_jobs()` lists it while it is open.

        Raises:
            WorkerNotFoundError: No such worker was registered in time.
            BusFullError: The worker makes no room.
        """
        from pbus.jobs.params import JobParams

        job_id = new_id()
        data = None if payload is None else dict(payload)
        params = JobParams(name=name, payload=data, timeout=timeout, priority=priority, key=key)
        await (await self.route_job(worker, params, job_id=job_id)).send()
        return job_id

    async def open_jobs(self, within: float = 1.0) -> OpenJobsResult:
        """The open jobs of all workers, and of clients.

        Args:
            within: Seconds that runners get to answer.
        """
        from pbus.client.job_listing import OpenJobsQuery

        async with self._subscribed(OpenJobsQuery(self._open_bus, new_name())) as query:
            return await query.run(within)

    async def cancel_job(self, job_id: str, *, reason: str | None = None) -> None:
        """Have a job cancelled by its requester, who tells the workers.

        Raises:
            JobNotFoundError: There is no such open job.
            JobNotCancelledError: It is over, or not cancellable.
            RequesterSilentError: The requester did not answer.
        """
        from pbus.client.job_listing import OpenJobsQuery

        async with self._subscribed(OpenJobsQuery(self._open_bus, new_name())) as query:
            await query.cancel((await query.run()).find(job_id), reason)

    async def route_job(
        self, worker: str, params: JobParams, *, job_id: str | None = None
    ) -> Route:
        """The route of a job, to ask for it often. Errors as request_job()."""
        from pbus.client.traffic.routes import Router

        router = Router(self._open_bus, self.name, new_name, self._send_keyed)
        within_s = self._find_s if params.timeout is None else min(self._find_s, params.timeout)
        make_id = new_id if job_id is None else lambda: job_id
        return await router.for_job(worker, params, within_s=within_s, make_id=make_id)

    async def _key_owners(self) -> KeyOwners:
        return await self._jobs.key_owners()

    @property
    def _jobs(self) -> JobRequester:
        bus = self._open_bus
        if self._requester is None:
            from pbus.client.job_requester import JobRequester

            requester = JobRequester(bus, self.name, find_s=self._find_timeout)
            self._requester = self._owned(requester)
        return self._requester
