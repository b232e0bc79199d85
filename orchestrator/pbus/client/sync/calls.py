"""The calls of a synchronous client: opening, closing, and jobs."""

import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Self, TypeVar, Unpack

from pbus.client.job_listing import OpenJobsResult
from pbus.client.project_client import Client
from pbus.client.sync.loop_thread import LoopThread
from pbus.client.sync.parts import SyncJob
from pbus.errors import ClientClosedError
from pbus.jobs import JobContext, JobParams, JobResponse
from pbus.jobs.params import DEFAULT_TIMEOUT_S, JobTerms

T = TypeVar("T")

CALL_S: Final = 30.0
_CLOSE_S: Final = 15.0
_MARGIN_S: Final = 5.0  # for a call whose own deadline is what should end it


class SyncCalls:
    """Opens and closes the client of a SyncClient, and does its calls.

    Args:
        make: Makes the client, in the loop's thread.
        call_timeout: Seconds that a call may take which has no timeout of its own.
    """

    def __init__(self, make: Callable[[], Client], *, call_timeout: float = CALL_S) -> None:
        self._call_s = call_timeout
        self._thread = LoopThread()
        try:
            self._opened: Client | None = self._call("connect", lambda: make().__aenter__())
        except BaseException:
            self._thread.close()
            raise
        # Without a block it ends with the last reference to it, or with the interpreter.
        self._finalizer = weakref.finalize(self, _close, self._thread, self._opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel open jobs and leave the bus. Idempotent."""
        self._opened = None
        self._finalizer()

    @property
    def _client(self) -> Client:
        if self._opened is None:
            raise ClientClosedError("closed")
        return self._opened

    def _call(
        self, name: str, make: Callable[[], Awaitable[T]], timeout_s: float | None = None
    ) -> T:
        limit_s = self._call_s if timeout_s is None else timeout_s + _MARGIN_S
        return self._thread.call(name, make, limit_s)


def _close(thread: LoopThread, client: Client) -> None:
    if thread.is_current:  # the loop dropped the last reference: it cannot wait for itself
        threading.Thread(target=_close, args=(thread, client), daemon=True).start()
        return
    try:
        thread.call("close", client.close, _CLOSE_S)
    finally:
        thread.close()


class SyncJobCalls(SyncCalls):
    """Lets a synchronous client ask workers for jobs."""

    def job(
        self,
        worker: str,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        params: JobParams | None = None,
        **options: Unpack[JobTerms],
    ) -> JobResponse:
        """Ask a worker for a job and wait for the response. Arguments and errors as Client.job().

        A timeout of None is not possible here.
        """
        client, timeout_s = self._client, _job_s(params, options)
        return self._call(
            "job", lambda: client.job(worker, name, payload, params=params, **options), timeout_s
        )

    def open_job(
        self,
        worker: str,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        params: JobParams | None = None,
        **options: Unpack[JobTerms],
    ) -> SyncJob:
        """A job whose updates and pieces are read as they come.

        ::

            with client.open_job("db", "load") as asked:
                for event in asked:
                    print(event.type, event.data)
            print(asked.response)
        """
        client, timeout_s = self._client, _job_s(params, options)

        async def make() -> JobContext:
            return client.job(worker, name, payload, params=params, **options)

        return SyncJob(self._call, self._call("open_job", make), timeout_s)

    def request_job(
        self,
        worker: str,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        key: str | None = None,
    ) -> str:
        """Ask a worker for a job and do not wait; returns the job's id."""
        client = self._client
        return self._call(
            "request_job",
            lambda: client.request_job(worker, name, payload, timeout=timeout, key=key),
        )

    def open_jobs(self) -> OpenJobsResult:
        """The open jobs of all workers, and of clients."""
        return self._call("open_jobs", self._client.open_jobs)

    def cancel_job(self, job_id: str, *, reason: str | None = None) -> None:
        """Have a job cancelled by its requester."""
        client = self._client
        self._call("cancel_job", lambda: client.cancel_job(job_id, reason=reason))


def _job_s(params: JobParams | None, options: JobTerms) -> float:
    timeout = options.get("timeout", DEFAULT_TIMEOUT_S) if params is None else params.timeout
    if timeout is None:
        raise ValueError("a job of the synchronous client needs a timeout in seconds")
    return timeout
