"""Events of jobs: updates and stream messages, as requesters read them."""

from typing import Any, Final, Literal

import msgspec

EventType = Literal["update", "stream_start", "stream_data", "stream_end"]


class _EventTypes:
    """The types of events, as constants."""

    __slots__ = ()

    UPDATE: Final = "update"
    STREAM_START: Final = "stream_start"
    STREAM_DATA: Final = "stream_data"
    STREAM_END: Final = "stream_end"


class JobEvent(_EventTypes, msgspec.Struct, frozen=True):
    """An update or a stream message of a job.

    Attributes:
        type: UPDATE, STREAM_START, STREAM_DATA or STREAM_END.
        data: JSON values; for stream_end the response.
    """

    type: EventType
    data: dict[str, Any]


class JobGroupEvent(_EventTypes, msgspec.Struct, frozen=True):
    """An update or a stream message of one worker of a group.

    Attributes:
        type: UPDATE, STREAM_START, STREAM_DATA or STREAM_END.
        worker_name: The name that was asked for.
        data: JSON values; for stream_end the response.
        worker: The sender: for a group of replicas, one of them.
    """

    type: EventType
    worker_name: str
    data: dict[str, Any]
    worker: str
