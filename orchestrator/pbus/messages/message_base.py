"""The base classes of messages, and their catalogue.

Each class has a *category* (data, system, job or local), for readers, and a *lane* (data or system),
for the bus. The two differ on purpose: messages that end, activate and answer stay behind data that was
sent before, cancels and errors overtake it.
"""

import enum
import time
from typing import ClassVar, Literal

import msgspec

from pbus.frames import Frame, FrameDirection, OpaqueFrame
from pbus.ids import new_id
from pbus.structs import Catalogue, RoutingKey, TraceParent, WireStruct
from pbus.trace_context import trace_id_of

Category = Literal["data", "system", "job", "local"]


class Lane(enum.StrEnum):
    """One of the two lanes of the bus; messages of the system lane overtake those of the data lane."""

    DATA = "d"
    SYSTEM = "s"


class JobStatus(enum.StrEnum):
    """The end of a job."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ERROR = "error"


class BusLocalMessage(WireStruct):
    """Mixin for a message class whose messages never leave their process."""

    catalogue: ClassVar[Catalogue] = Catalogue()


class BusMessage(WireStruct):
    """The base of all messages.

    Attributes:
        category: Its kind, for readers of traffic.
        lane: Its lane on the bus.
        is_local: Whether it never leaves its process.
        is_stored: Whether it is stored until it is handled, with at-least-once delivery.
        is_news: Whether it is of no use for subscribers that want no news of workers.
        is_opaque: Whether a part of it is of a class that this process need not have.
        source: The sender: the address of a worker, a runner or a client.
        target: The receiver's address, or None for everyone.
        id: Unique across processes, forks and restarts.
        time: Of its making, Unix seconds.
        key: Of those to a group of replicas, all messages of one key go to one replica, in order;
            None for any replica. At most 256 bytes.
        traceparent: In the form of W3C Trace Context, unchecked; given by the first send within a
            handler. None in a message that begins a trace.
    """

    catalogue: ClassVar[Catalogue] = Catalogue()
    category: ClassVar[Category] = "data"
    lane: ClassVar[Lane] = Lane.DATA
    is_local: ClassVar[bool] = False
    is_stored: ClassVar[bool] = False
    is_opaque: ClassVar[bool] = False
    is_news: ClassVar[bool] = False

    source: str
    target: str | None = None
    id: str = msgspec.field(default_factory=new_id)
    time: float = msgspec.field(default_factory=time.time)
    key: RoutingKey | None = None
    traceparent: TraceParent | None = None

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to, 32 hex digits; known once it is sent."""
        return trace_id_of(self)

    def __init_subclass__(cls) -> None:
        """Register the class, and mark it if it is local."""
        super().__init_subclass__()
        if issubclass(cls, BusLocalMessage):
            cls.is_local = True
            cls.category = "local"

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.id} ({self.source} -> {self.target or 'everyone'})"


class BusDataMessage(BusMessage):
    """A message of normal priority, first in first out; subclass it for your own data."""

    is_stored: ClassVar[bool] = True


class BusSystemMessage(BusMessage):
    """A message of high priority: overtakes queued data messages."""

    category: ClassVar[Category] = "system"
    lane: ClassVar[Lane] = Lane.SYSTEM


class BusFrameMessage(BusDataMessage):
    """Carries one frame.

    Attributes:
        frame: The frame.
        bridge: The name of the stream, when several share a target.
    """

    frame: Frame
    direction: FrameDirection = FrameDirection.DOWNSTREAM
    bridge: str | None = None

    @property
    def is_opaque(self) -> bool:  # type: ignore[override]
        """Whether the frame is of a class that this process need not have."""
        return type(self.frame) is OpaqueFrame


def message_types() -> list[str]:
    """The names of all message types that this process knows, sorted."""
    return BusMessage.catalogue.names()


def message_type(name: str) -> type[BusMessage] | None:
    """The message class of a name; None when it is unknown."""
    return BusMessage.catalogue.get(name)
