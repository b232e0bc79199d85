"""Errors of jobs."""

from collections.abc import Sequence

from pbus.errors.base_error import PbusError
from pbus.errors.worker_errors import WorkerError


class JobError(PbusError):
    """A job did not complete.

    Attributes:
        job_id: The job's id.
        worker: The worker that was asked.
        statuses: How each worker's part of the job ended, or "open", by the name asked for.
    """

    def __init__(self, job_id: str, worker: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"job {job_id} at {worker!r} {problem}", hint=hint)
        self.job_id = job_id
        self.worker = worker
        self.statuses: dict[str, str] = {}


JobGroupError = JobError
"""A group fails by the error of one of its parts, so that there is no class of its own."""


class JobTimeoutError(JobError, TimeoutError):
    """The job's deadline passed; waiting for the worker to be ready is part of it."""

    def __init__(self, job_id: str, worker: str, timeout_s: float, phase: str) -> None:
        super().__init__(job_id, worker, f"timed out after {round(timeout_s, 2):g} s ({phase})")
        self.timeout_s = timeout_s
        self.phase = phase


class JobCancelledError(JobError):
    """The job was cancelled, by its requester or by the worker."""

    def __init__(self, job_id: str, worker: str, reason: str | None) -> None:
        super().__init__(job_id, worker, f"was cancelled ({reason or 'no reason given'})")
        self.reason = reason


class JobFailedError(JobError):
    """The worker answered with status error or failed.

    Attributes:
        status: "error" or "failed".
        response: The worker's answer; for a handler that raised, with the keys error, type and
            traceback.
    """

    def __init__(self, job_id: str, worker: str, status: str, response: dict[str, object]) -> None:
        reason = response.get("error")
        kind = response.get("type") if "traceback" in response else None  # else it says enough
        text = f"{kind}: {reason}" if kind and kind != reason else reason
        super().__init__(job_id, worker, f"{status}: {text}" if text else f"ended {status}")
        self.status = status
        self.response = response


class JobWorkerLostError(JobError):
    """The worker ended or was lost while the job was open."""

    def __init__(self, job_id: str, worker: str, reason: str) -> None:
        super().__init__(job_id, worker, f"ended with its worker: {reason}")
        self.reason = reason


class JobStateError(JobError, RuntimeError):
    """An answer or update was given for a job that is not open here."""

    def __init__(self, job_id: str, worker: str) -> None:
        super().__init__(
            job_id, worker, "is not open here", hint="a job is answered once, by the worker asked"
        )


class JobNotFoundError(WorkerError):
    """No runner that answered knows an open job of that id."""

    def __init__(self, job_id: str, silent: Sequence[str] = ()) -> None:
        hint = "`pbus jobs` lists the open ones"
        if silent:
            hint = f"these runners did not answer: {', '.join(silent)}"
        super().__init__(f"there is no open job {job_id!r}", hint=hint)
        self.job_id = job_id
        self.silent = list(silent)


class JobNotDoneError(JobError, RuntimeError):
    """The response of a job was read before there was one."""

    def __init__(self, job_id: str, worker: str) -> None:
        super().__init__(
            job_id, worker, "is not answered yet", hint="leave its 'async with' block first"
        )


class JobNotCancelledError(WorkerError):
    """An open job was not cancelled by its requester.

    Attributes:
        outcome: "unknown": it is over; "not cancellable"; "silent": the requester did not answer.
    """

    def __init__(self, job_id: str, outcome: str, problem: str) -> None:
        super().__init__(f"job {job_id} {problem}")
        self.job_id = job_id
        self.outcome = outcome


class RequesterSilentError(JobNotCancelledError, TimeoutError):
    """The requester of a job did not answer, so it is not known whether the job was cancelled."""

    def __init__(self, job_id: str, requester: str, waited_s: float) -> None:
        super().__init__(job_id, "silent", "")
        text = f"{requester}, who asked for job {job_id}, did not answer within {waited_s:g} s"
        self.args = (text,)
        self.message = text
        self.requester = requester
        self.waited_s = waited_s
