"""The task that reads a lane; its successor when a handler lets the lane go on without it."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from pbus.bus.lane_gate import LaneGate


class Completion(Protocol):
    """Told when one subscriber is done with the messages it stands for, handled or not."""

    def done(self) -> None:
        """Count one subscriber."""
        ...


class LaneReader:
    """One task's time as the reader of a lane; over when a successor has taken the lane over.

    Args:
        succeed: Starts the successor.
        gate: Of the lane.

    Attributes:
        receipt: Of the message in hand, where the lane may forget it at the release.
        on_release: Called if the lane reads on before the current message is handled; emptied with
            each message.
        is_released: The task only ends its message; the lane is read by another.
        task: The one that reads.
    """

    __slots__ = ("_succeed", "gate", "is_released", "on_release", "receipt", "task")

    def __init__(self, succeed: Callable[[], None], gate: LaneGate) -> None:
        self._succeed = succeed
        self.gate = gate
        self.task: asyncio.Task[Any] | None = None
        self.on_release: list[Callable[[], None]] = []
        self.receipt: Completion | None = None
        self.is_released = False

    def hand_over(self) -> None:
        """Have the next message read beside the handler in progress; once is enough."""
        if self.is_released:
            return
        self.is_released = True
        receipt, self.receipt = self.receipt, None
        if receipt is not None:
            receipt.done()  # its sender may send on: the handler perhaps waits for just that
        self._succeed()
        for callback in self.on_release:
            callback()


_current: ContextVar[LaneReader | None] = ContextVar("pbus_reader", default=None)


# Returns the reader of the message that is handled in this context; None outside of lanes.
current_reader = _current.get


def set_current_reader(reader: LaneReader) -> None:
    """Say who reads in this task."""
    reader.task = asyncio.current_task()
    _current.set(reader)
