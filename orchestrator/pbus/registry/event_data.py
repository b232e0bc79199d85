"""What the registry tells its watchers: values about one life of one worker."""

import msgspec


class WorkerReadyData(msgspec.Struct, frozen=True):
    """A worker is ready.

    Attributes:
        worker_name: Its own name; for a group's watch the replica's, such as "x.1".
        runner: The runner that hosts it.
        incarnation: Which life of the worker this is; a restart has another.
        active: Whether it takes data and jobs.
    """

    worker_name: str
    runner: str
    incarnation: str = ""
    active: bool = True


class WorkerErrorData(msgspec.Struct, frozen=True):
    """A worker failed.

    Attributes:
        error: One line: what was raised, or why the worker was refused.
    """

    worker_name: str
    error: str


class WorkerLostData(msgspec.Struct, frozen=True):
    """A worker that had been ready is gone: it died, left, or was not heard of for too long.

    Attributes:
        incarnation: Which life ended; a later one is not meant.
    """

    worker_name: str
    runner: str
    incarnation: str
    reason: str
