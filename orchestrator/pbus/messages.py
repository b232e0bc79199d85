"""The catalogue of bus messages: frozen values, no behaviour.

Each class has a *category* (data, system, job or local: what a reader wants to know) and travels in
a *lane* (data or system: what the bus needs to know). The two differ on purpose: ending, activating
and answering keep their place behind the data sent before them, cancels and errors overtake it.
"""

import enum
import time
from typing import Any, ClassVar, Literal

import msgspec

from pbus.frames import Frame, FrameDirection
from pbus.ids import new_id
from pbus.structs import Catalogue, WireStruct

Category = Literal["data", "system", "job", "local"]
ControlAction = Literal["start", "stop", "restart"]
ControlOutcome = Literal["done", "unchanged", "failed", "superseded", "refused"]

# Where state changes are published: no worker's name, and the ~ says that nobody need listen.
STATES_ADDRESS = "~states"


class Lane(enum.StrEnum):
    """One of the two roads of the bus; the system lane overtakes the data lane."""

    DATA = "d"
    SYSTEM = "s"


class JobStatus(enum.StrEnum):
    """How a job ended."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ERROR = "error"


class BusLocalMessage(WireStruct):
    """Marks a message that never leaves its process; mix it into a message class."""

    catalogue: ClassVar[Catalogue] = Catalogue()


class BusMessage(WireStruct):
    """Base of all messages.

    Attributes:
        source: Who sent it: a worker's name.
        target: Who it is for: a worker's name, or None for everyone.
        id: Unique across processes, forks and restarts.
        time: When it was made, Unix seconds.
    """

    catalogue: ClassVar[Catalogue] = Catalogue()
    category: ClassVar[Category] = "data"
    lane: ClassVar[Lane] = Lane.DATA
    is_local: ClassVar[bool] = False
    is_stored: ClassVar[bool] = False  # with at-least-once delivery: kept until it is handled

    source: str
    target: str | None = None
    id: str = msgspec.field(default_factory=new_id)
    time: float = msgspec.field(default_factory=time.time)

    def __init_subclass__(cls) -> None:
        """Register the class and see whether it stays in the process."""
        super().__init_subclass__()
        if issubclass(cls, BusLocalMessage):
            cls.is_local = True
            cls.category = "local"

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.id} ({self.source} -> {self.target or 'everyone'})"


class BusDataMessage(BusMessage):
    """Normal priority, first in first out; subclass it for your own data."""

    is_stored: ClassVar[bool] = True


class BusSystemMessage(BusMessage):
    """High priority: overtakes every queued data message."""

    category: ClassVar[Category] = "system"
    lane: ClassVar[Lane] = Lane.SYSTEM


class BusFrameMessage(BusDataMessage):
    """Carries one frame.

    Attributes:
        bridge: Names the stream where several share a target.
    """

    frame: Frame
    direction: FrameDirection = FrameDirection.DOWNSTREAM
    bridge: str | None = None


# Lifecycle. Activate, Deactivate, End and Ready keep their place in the data lane.


class BusActivateWorkerMessage(BusDataMessage):
    """Asks a worker to become active."""

    category: ClassVar[Category] = "system"

    args: dict[str, Any] | None = None


class BusDeactivateWorkerMessage(BusDataMessage):
    """Asks a worker to become inactive."""

    category: ClassVar[Category] = "system"


class BusEndMessage(BusDataMessage):
    """Ends a session: every runner of it finishes what is queued, then stops.

    Attributes:
        session: Whose; None ends every session of the channel.
    """

    is_stored: ClassVar[bool] = False  # it would end, or announce, the next life
    category: ClassVar[Category] = "system"

    reason: str | None = None
    session: str | None = None


class BusEndWorkerMessage(BusDataMessage):
    """Ends one worker, behind the data queued before.

    Attributes:
        timeout_s: Seconds that its jobs in hand get from then on; None: what its runner gives.
        incarnation: Of the one process that is meant: a late message must not end the next life.
            None: whoever has the name.
    """

    is_stored: ClassVar[bool] = False  # it would end, or announce, the next life
    category: ClassVar[Category] = "system"

    reason: str | None = None
    timeout_s: float | None = None
    incarnation: str | None = None


class BusCancelMessage(BusSystemMessage):
    """Cancels a session at once.

    Attributes:
        session: Whose; None cancels every session of the channel.
    """

    reason: str | None = None
    session: str | None = None


class BusCancelWorkerMessage(BusSystemMessage):
    """Cancels one worker at once."""

    reason: str | None = None


class BusWorkerReadyMessage(BusDataMessage):
    """Tells observers that a worker is ready.

    Attributes:
        started_at: Unix seconds.
    """

    is_stored: ClassVar[bool] = False  # it would end, or announce, the next life
    category: ClassVar[Category] = "system"

    runner: str
    parent: str | None = None
    active: bool = False
    started_at: float | None = None


class WorkerRegistryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One worker in a registry announcement.

    Attributes:
        incarnation: Which life of the worker this is about.
        gone: Why the worker left, or None while it is there.
        unhandled: Messages that waited in it when it left, and are lost.
        started_at: Unix seconds.
    """

    name: str
    incarnation: str
    runner: str
    active: bool = True
    ready: bool = True
    parent: str | None = None
    started_at: float | None = None
    gone: str | None = None
    unhandled: int = 0


class BusWorkerRegistryMessage(BusSystemMessage):
    """Announces changes of the registry: workers that came, changed or left."""

    runner: str
    workers: tuple[WorkerRegistryEntry, ...]


class BusAddWorkerMessage(BusSystemMessage, BusLocalMessage):
    """Hands a child worker to the runner of this process.

    Attributes:
        worker: The BaseWorker itself: this message never leaves the process.
    """

    worker: Any


class BusWorkerErrorMessage(BusSystemMessage):
    """A root worker reports an error to everyone (or to its target)."""

    error: str


class BusWorkerLocalErrorMessage(BusSystemMessage, BusLocalMessage):
    """A child worker reports an error to its parent."""

    error: str


class BusMessagesLostMessage(BusSystemMessage, BusLocalMessage):
    """The bus noticed that messages of one sender were lost on the way here.

    Attributes:
        sender: The sending process (its incarnation).
        address: What they were addressed to; "*" is everyone.
        count: How many.
    """

    sender: str
    address: str
    count: int


# Supervision. No worker hears any of these: they go to supervisors, and to those who ask them.


class BusControlRequestMessage(BusSystemMessage):
    """Asks a supervisor to start, stop or restart its workers.

    Sent again with the same `request_id`, it asks for the responses only.

    Attributes:
        request_id: Named by the responses.
        workers: Names of instances.
        timeout_s: Seconds for running jobs; None: the supervisor's default.
    """

    request_id: str
    action: ControlAction
    workers: tuple[str, ...]
    timeout_s: float | None = None


class BusControlResponseMessage(BusSystemMessage):
    """A supervisor's answer about one worker, when what was asked for is so, or cannot be.

    Attributes:
        outcome: "unchanged": it was so already; "failed": the worker did not become ready;
            "superseded": somebody asked for the opposite meanwhile; "refused": not now.
        state: The worker's state now.
        detail: Why, in a few words; may be empty.
    """

    request_id: str
    worker: str
    outcome: ControlOutcome
    state: str | None = None
    pid: int | None = None
    detail: str = ""


class BusWorkerStateMessage(BusSystemMessage):
    """A worker's process changed its state, says its supervisor to whoever listens.

    Attributes:
        project: The name of the supervisor's topology.
        state: As in `pbus ps`.
        previous: The state before; None at the very first.
        pid: Of the process that this is about; None before there is one.
        detail: Why, in a few words; may be empty.
    """

    project: str
    worker: str
    state: str
    previous: str | None = None
    pid: int | None = None
    detail: str = ""


# Jobs


class BusJobMessage(BusDataMessage):
    """Base of what requester and worker say about one job."""

    category: ClassVar[Category] = "job"

    job_id: str


class BusJobRequestMessage(BusJobMessage):
    """Asks a worker to do a job.

    Attributes:
        deadline: Unix seconds after which nobody waits for the answer: by the clock of the worker in
            its job handlers, by the requester's on the way, where only its distance from `time` counts.
        window: Bytes of updates and pieces that may be on their way unread; then the worker waits.
            0: it never does.
    """

    job_name: str | None = None
    payload: dict[str, Any] | None = None
    deadline: float | None = None
    window: int = 0


class BusJobRequestUrgentMessage(BusJobRequestMessage):
    """Asks for a job of high priority: overtakes queued data, and jobs that wait their turn."""

    lane: ClassVar[Lane] = Lane.SYSTEM


class BusJobResponseMessage(BusJobMessage):
    """The one answer to a job.

    Attributes:
        events: How many updates and stream messages the worker sent for this job before.
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
        position: Bytes of all updates and pieces up to this one; 0 where nothing is held back.
    """

    update: dict[str, Any] | None = None
    position: int = 0


class BusJobUpdateUrgentMessage(BusJobUpdateMessage):
    """Progress that overtakes queued data."""

    lane: ClassVar[Lane] = Lane.SYSTEM


class BusJobUpdateRequestMessage(BusJobMessage):
    """Asks a worker how far a job is."""


class BusJobCancelMessage(BusJobMessage):
    """Cancels a job; overtakes queued data."""

    lane: ClassVar[Lane] = Lane.SYSTEM

    reason: str | None = None


class BusJobStreamStartMessage(BusJobMessage):
    """The first message of a streamed answer; position as in BusJobUpdateMessage."""

    data: dict[str, Any] | None = None
    position: int = 0


class BusJobStreamDataMessage(BusJobMessage):
    """A piece of a streamed answer; position as in BusJobUpdateMessage."""

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
    """Tells a worker how far its requester has read a job's updates and pieces; no hook hears it.

    Attributes:
        position: Of the last one read; -1: nobody reads them.
        is_idle: Nothing that came is left to be read.
    """

    category: ClassVar[Category] = "system"
    lane: ClassVar[Lane] = Lane.SYSTEM
    is_stored: ClassVar[bool] = False  # it is about now

    position: int
    is_idle: bool = False


class BusJobCreditRequestMessage(BusJobMessage):
    """Asks a requester how far it has read a job's updates and pieces; no hook hears it."""

    category: ClassVar[Category] = "system"
    lane: ClassVar[Lane] = Lane.SYSTEM
    is_stored: ClassVar[bool] = False


def message_types() -> list[str]:
    """The names of all message types this process knows, sorted."""
    return BusMessage.catalogue.names()


def message_type(name: str) -> type[BusMessage] | None:
    """The message class of that name, or None."""
    return BusMessage.catalogue.get(name)
