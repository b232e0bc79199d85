"""The parameters of a job request: JobParams, or the same as keywords."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar, get_args

import msgspec

from pbus.routing_keys import key_problem

DEFAULT_TIMEOUT_S = 60.0

Priority = Literal["normal", "high"]
_PRIORITIES = get_args(Priority)

P = TypeVar("P", bound="JobParams")


class JobParams(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a job.

    Attributes:
        name: The name of the job; None for the worker's on_job_request hook.
        payload: JSON values for the handler.
        timeout: Seconds for the whole job, with the wait until the worker is ready; None (or
            infinity) for no limit.
        label: For people.
        cancellable: Whether request_cancel_job_group() may cancel it.
        retries: How often it is requested again after the loss of its worker.
        priority: "high" overtakes queued data (an activation, too), and jobs that wait for a slot.
        key: Of several replicas, all jobs and messages of one key go to one, in order; None for any
            replica.

    Raises:
        ValueError: There is no such priority, the timeout is not a number, or the key is none.
    """

    name: str | None = None
    payload: dict[str, Any] | None = None
    timeout: float | None = DEFAULT_TIMEOUT_S
    label: str | None = None
    cancellable: bool = True
    retries: int = 0
    priority: Priority = "normal"
    key: str | None = None

    def __post_init__(self) -> None:
        """Check priority, timeout and key."""
        if self.priority not in _PRIORITIES:
            raise ValueError(f"priority is one of {', '.join(_PRIORITIES)}, not {self.priority!r}")
        if self.timeout is not None and math.isnan(self.timeout):
            raise ValueError("timeout is a number of seconds, or None for none; not NaN")
        if self.timeout == math.inf:
            msgspec.structs.force_setattr(self, "timeout", None)
        problem = None if self.key is None else key_problem(self.key)
        if problem is not None:
            raise ValueError(problem)


class JobGroupParams(JobParams, frozen=True, kw_only=True):
    """The parameters of a group of jobs.

    Attributes:
        cancel_on_error: Whether the first failure ends the group and cancels the other parts.
            Otherwise the group ends with the last part, and each response has a status.
    """

    cancel_on_error: bool = True


class JobTerms(TypedDict, total=False):
    """The fields of JobParams as keywords, but for name and payload."""

    timeout: float | None
    label: str | None
    cancellable: bool
    retries: int
    priority: Priority
    key: str | None


class JobOptions(JobTerms, total=False):
    """The fields of JobParams as keywords."""

    name: str | None
    payload: dict[str, Any] | None


class JobGroupOptions(JobOptions, total=False):
    """The fields of JobGroupParams as keywords."""

    cancel_on_error: bool


def choose_params(kind: type[P], params: P | None, options: dict[str, Any]) -> P:
    """Choose between given params and keywords.

    Raises:
        TypeError: Both were given, or a keyword that the params do not have.
    """
    if params is None:
        return kind(**options)
    if options:
        raise TypeError(f"give params or {', '.join(options)}, not both")
    return params


def as_group(params: JobParams) -> JobGroupParams:
    """Convert the params of a single job to those of a group of one."""
    return JobGroupParams(**msgspec.structs.asdict(params))


def single_job(
    name: str | None,
    payload: Mapping[str, Any] | None,
    params: JobParams | None,
    options: Mapping[str, Any],
) -> JobGroupParams:
    """The parameters of a job at one worker, as those of a group of one.

    Args:
        name: Which of the worker's jobs, or None.
        payload: JSON values for the handler, or None.
        params: Instead of all others.
        options: More fields of JobParams.

    Raises:
        TypeError: Both params and others were given, or a field that JobParams does not have.
    """
    own = None if payload is None else dict(payload)
    if params is None and "cancel_on_error" not in options:
        return JobGroupParams(name=name, payload=own, **options)
    given = dict(options)
    if name is not None:
        given["name"] = name
    if own is not None:
        given["payload"] = own
    return as_group(choose_params(JobParams, params, given))


def check_names(workers: Sequence[Any]) -> Sequence[str]:
    """The workers, all of them names.

    Raises:
        TypeError: One is not.
    """
    for worker in workers:
        if not isinstance(worker, str):
            raise TypeError(f"a worker is asked by its name, not by {worker!r}")
    return workers
