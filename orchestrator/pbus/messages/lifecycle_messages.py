"""Messages about the lifecycle of workers, runners and sessions."""

from typing import Any, ClassVar

import msgspec

from pbus.messages.message_base import BusDataMessage, BusLocalMessage, BusSystemMessage, Category


class BusActivateWorkerMessage(BusDataMessage):
    """Activates a worker."""

    category: ClassVar[Category] = "system"

    args: dict[str, Any] | None = None


class BusDeactivateWorkerMessage(BusDataMessage):
    """Deactivates a worker."""

    category: ClassVar[Category] = "system"


class BusEndMessage(BusDataMessage):
    """Ends a session: each of its runners finishes what is queued, then stops.

    Attributes:
        reason: For people.
        session: The session; None ends all sessions of the channel.
    """

    is_stored: ClassVar[bool] = False  # it is about one incarnation
    category: ClassVar[Category] = "system"

    reason: str | None = None
    session: str | None = None


class BusEndWorkerMessage(BusDataMessage):
    """Ends one worker, after data that was queued before.

    Attributes:
        reason: For people.
        timeout_s: Seconds for its accepted jobs; None for the runner's end_timeout.
        incarnation: Of the worker's process, so that a late message does not end the next one; None
            for any.
        leaves: Others take its place: it works on until senders have turned to them.
    """

    is_stored: ClassVar[bool] = False  # it is about one incarnation
    category: ClassVar[Category] = "system"

    reason: str | None = None
    timeout_s: float | None = None
    incarnation: str | None = None
    leaves: bool = False


class BusCancelMessage(BusSystemMessage):
    """Cancels a session at once.

    Attributes:
        reason: For people.
        session: The session; None cancels all sessions of the channel.
    """

    reason: str | None = None
    session: str | None = None


class BusCancelWorkerMessage(BusSystemMessage):
    """Cancels one worker at once."""

    reason: str | None = None


class BusWorkerReadyMessage(BusDataMessage):
    """Reports that a worker is ready.

    Attributes:
        runner: The name of its runner.
        parent: The name of its parent; None for a root.
        active: Whether it is active.
        started_at: Unix seconds.
    """

    is_stored: ClassVar[bool] = False  # it is about one incarnation
    is_news: ClassVar[bool] = True
    category: ClassVar[Category] = "system"

    runner: str
    parent: str | None = None
    active: bool = False
    started_at: float | None = None


class WorkerRegistryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One worker in a registry announcement.

    Attributes:
        incarnation: Of the worker.
        gone: The reason of its end; None while it is there.
        unhandled: The number of messages that were queued in it at its end, and are lost.
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
    """Announces changes of the registry: new, changed and ended workers."""

    is_news: ClassVar[bool] = True

    runner: str
    workers: tuple[WorkerRegistryEntry, ...]


class BusAddWorkerMessage(BusSystemMessage, BusLocalMessage):
    """Passes a child worker to the runner of this process.

    Attributes:
        worker: The BaseWorker.
    """

    worker: Any


class BusWorkerErrorMessage(BusSystemMessage):
    """Reports an error of a root worker."""

    error: str


class BusWorkerLocalErrorMessage(BusSystemMessage, BusLocalMessage):
    """Reports an error of a child to its parent."""

    error: str


class BusMessagesLostMessage(BusSystemMessage, BusLocalMessage):
    """Reports that messages of one sender were lost on the way to this process.

    Attributes:
        sender: The incarnation of the sending process.
        address: Of the messages; "*" is everyone.
        count: The number of messages.
    """

    sender: str
    address: str
    count: int
