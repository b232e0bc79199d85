"""The task that reads a lane; its successor when a handler frees the lane before it ends."""

import abc
import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol

from pbus.bus.lane_gate import LaneGate
from pbus.messages import BusMessage, Lane
from pbus.stats.edge_table import NO_EDGE

Item = BusMessage | bytes  # bytes: decoded when it is handled


class LaneDelivery(abc.ABC):
    """Tells the sender or the store of an item of a lane what comes of it.

    Attributes:
        size: Of the item, in bytes, where it is decoded already.
        is_stored: Whether the item comes again unless it is settled.
    """

    __slots__ = ()

    is_stored: ClassVar[bool] = False
    size: int

    @abc.abstractmethod
    def done(self) -> None:
        """Note that the item is handled."""

    @abc.abstractmethod
    def hold_back(self) -> "LaneDelivery | None":
        """Note that the item waits for a handler to end; returns what is still to be told."""

    @abc.abstractmethod
    def lane_freed(self) -> "LaneDelivery | None":
        """Note that the lane goes on before the item is handled; returns what is still to be told."""

    @abc.abstractmethod
    def abandon(self) -> None:
        """Note that the item is not handled here."""

    @abc.abstractmethod
    def handle_in(
        self, handler: "ItemHandler", item: Item, reader: "LaneReader"
    ) -> Awaitable[None]:
        """Have the item handled, and tell what came of it."""


class ItemHandler(Protocol):
    """Handles the items of a mailbox."""

    async def handle_unstored(self, item: Item, reader: "LaneReader") -> None:
        """Handle an item once."""
        ...

    async def handle_stored(self, item: Item, delivery: Any, reader: "LaneReader") -> None:
        """Handle an item that comes again unless its delivery is settled."""
        ...


class LaneReader:
    """One task's time as the reader of a lane; over when a successor has taken the lane over.

    Args:
        succeed: Starts the successor.
        gate: Of the lane.

    Attributes:
        delivery: Of the item in hand, while something is to be told of it.
        opaque_lane: Which lane it is, where messages of unknown types are taken; None otherwise.
        message: The one that is handled.
        on_release: Called when the lane is handed over; set with each item, if at all.
        is_released: The task only ends its message; the lane is read by another.
        task: The one that reads.
        edge: Of the message before, where messages are counted.
        started: When the item in hand was taken, by `time.perf_counter`.
    """

    __slots__ = (
        "_succeed", "delivery", "edge", "gate", "is_released", "message", "on_release", "opaque_lane",
        "started", "task",
    )  # fmt: skip

    def __init__(self, succeed: Callable[[], None], gate: LaneGate) -> None:
        self._succeed = succeed
        self.opaque_lane: Lane | None = None
        self.gate = gate
        self.edge = NO_EDGE
        self.started = 0.0
        self.task: asyncio.Task[Any] | None = None
        self.on_release: Callable[[], None] | None = None
        self.delivery: LaneDelivery | None = None
        self.message: BusMessage | None = None
        self.is_released = False

    def hand_over(self) -> None:
        """Have the next item read beside the handler in progress. Idempotent."""
        if self.is_released:
            return
        self.is_released = True
        if self.delivery is not None:
            self.delivery = self.delivery.lane_freed()
        self._succeed()
        if self.on_release is not None:
            self.on_release()

    def done(self) -> None:
        """Note that the current item is handled."""
        delivery, self.delivery = self.delivery, None
        if delivery is not None:
            delivery.done()


_current: ContextVar[LaneReader | None] = ContextVar("pbus_reader", default=None)


# Returns the reader of the message that is handled in this context; None outside of lanes.
current_reader = _current.get


def set_current_reader(reader: LaneReader) -> None:
    """Note the reader of this task."""
    reader.task = asyncio.current_task()
    _current.set(reader)
