"""Messages between requesters and workers about jobs."""

from typing import Any, ClassVar

from pbus.messages.message_base import BusDataMessage, Category, JobStatus, Lane


class BusJobMessage(BusDataMessage):
    """The base of messages between requester and worker about one job."""

    category: ClassVar[Category] = "job"

    job_id: str


class BusJobRequestMessage(BusJobMessage):
    """Requests a job of a worker.

    Attributes:
        job_name: The name of the job; None for the hook on_job_request.
        payload: JSON values.
        deadline: Unix seconds after which no answer is expected: in handlers by the worker's clock, on
            the way by the requester's, where only its distance from `time` counts.
        window: Bytes of updates and stream messages that may be unread before the worker waits; 0 for
            no limit.
    """

    job_name: str | None = None
    payload: dict[str, Any] | None = None
    deadline: float | None = None
    window: int = 0


class BusJobRequestUrgentMessage(BusJobRequestMessage):
    """Requests a job of high priority: overtakes queued data, and jobs that wait for a slot."""

    lane: ClassVar[Lane] = Lane.SYSTEM


class BusJobResponseMessage(BusJobMessage):
    """The one answer to a job.

    Attributes:
        status: How the job ended.
        response: JSON values.
        events: The number of updates and stream messages that the worker sent before.
    """

    status: JobStatus
    response: dict[str, Any] | None = None
    events: int = 0


class BusJobResponseUrgentMessage(BusJobResponseMessage):
    """An answer that overtakes queued data."""

    lane: ClassVar[Lane] = Lane.SYSTEM


class BusJobUpdateMessage(BusJobMessage):
    """Progress of a job.

    Attributes:
        update: JSON values.
        position: Bytes of all updates and stream messages up to this one; 0 without a window.
    """

    update: dict[str, Any] | None = None
    position: int = 0


class BusJobUpdateUrgentMessage(BusJobUpdateMessage):
    """Progress that overtakes queued data."""

    lane: ClassVar[Lane] = Lane.SYSTEM


class BusJobUpdateRequestMessage(BusJobMessage):
    """Asks a worker for the progress of a job."""


class BusJobCancelMessage(BusJobMessage):
    """Cancels a job; overtakes queued data."""

    lane: ClassVar[Lane] = Lane.SYSTEM

    reason: str | None = None


class BusJobStreamStartMessage(BusJobMessage):
    """The first message of a streamed answer; position as in BusJobUpdateMessage."""

    data: dict[str, Any] | None = None
    position: int = 0


class BusJobStreamDataMessage(BusJobMessage):
    """A message of a streamed answer; position as in BusJobUpdateMessage."""

    data: dict[str, Any] | None = None
    position: int = 0


class BusJobStreamEndMessage(BusJobMessage):
    """The end of a streamed answer; its data is the job's response.

    Attributes:
        events: As in BusJobResponseMessage.
    """

    data: dict[str, Any] | None = None
    events: int = 0


class BusJobCreditMessage(BusJobMessage):
    """Tells a worker which events of a job were read; not passed to hooks.

    Attributes:
        position: Of the last event that was read; -1 when none will be read.
        is_idle: Whether no event is left to be read.
    """

    category: ClassVar[Category] = "system"
    lane: ClassVar[Lane] = Lane.SYSTEM
    is_stored: ClassVar[bool] = False  # it is about now

    position: int
    is_idle: bool = False


class BusJobCreditRequestMessage(BusJobMessage):
    """Asks a requester which events of a job were read; not passed to hooks."""

    category: ClassVar[Category] = "system"
    lane: ClassVar[Lane] = Lane.SYSTEM
    is_stored: ClassVar[bool] = False
