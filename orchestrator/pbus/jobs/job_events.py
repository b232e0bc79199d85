"""Events of jobs: updates and stream messages, as requesters read them."""

from typing import Any, Literal

import msgspec

EventType = Literal["update", "stream_start", "stream_data", "stream_end"]


class JobEvent(msgspec.Struct, frozen=True):
    """An update or a stream message of a job.

    Attributes:
        data: JSON values; for stream_end the response.
    """

    type: EventType
    data: dict[str, Any]


class JobGroupEvent(msgspec.Struct, frozen=True):
    """An update or a stream message of one worker of a group.

    Attributes:
        worker_name: The name that was asked for.
        data: JSON values; for stream_end the response.
        worker: The sender: for a group of replicas, one of them.
    """

    type: EventType
    worker_name: str
    data: dict[str, Any]
    worker: str
