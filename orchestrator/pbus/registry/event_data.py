"""Data of registry events, each about one incarnation of a worker."""

import msgspec


class WorkerReadyData(msgspec.Struct, frozen=True):
    """Data of a worker that is ready.

    Attributes:
        worker_name: The worker's name; for a watch of a group the replica's, such as "x.1".
        runner: The runner that hosts it.
        incarnation: Unique to this start of the worker.
        active: Whether it gets data and jobs.
    """

    worker_name: str
    runner: str
    incarnation: str = ""
    active: bool = True


class WorkerErrorData(msgspec.Struct, frozen=True):
    """Data of a worker that failed.

    Attributes:
        error: One line: the exception, or the reason for a rejection.
    """

    worker_name: str
    error: str


class WorkerLostData(msgspec.Struct, frozen=True):
    """Data of a worker that was ready and ended, left, or was silent for too long.

    Attributes:
        incarnation: The one that ended.
        reason: For people.
    """

    worker_name: str
    runner: str
    incarnation: str
    reason: str
