"""Flush probes that go through pipelines of several processes: their event is set where it is waited for.

Pipecat carries the event on the probe's frame, which no wire can: over its own network buses a worker that
drains before it hands over waits until it gives up, 5 s.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from pbus.compat.pipecat.conversion import WireMessage

DONE = "PbusFlushDoneMessage"
_MOST = 1_000  # probes that never came back are forgotten, the oldest first


class _FarEvent(asyncio.Event):
    """The event of a probe of another process."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def set(self) -> None:
        """Tell the process of those that wait."""
        if not self.is_set():
            super().set()
            self._tell()


class Flushes:
    """The flushes that this process began, and events in the place of those that others did.

    Args:
        tell: Called with the name of the worker that began a flush, and the flush's number, once it is done.
    """

    def __init__(self, tell: Callable[[str, int], None]) -> None:
        self._tell = tell
        self._own: dict[int, asyncio.Event] = {}

    def leaving(self, message: Any) -> None:
        """Remember the event of a probe that leaves."""
        frame: Any = getattr(message, "frame", None)
        event = getattr(frame, "event", None)
        if isinstance(event, asyncio.Event) and not isinstance(event, _FarEvent):
            self._own[frame.flush_id] = event
            if len(self._own) > _MOST:
                self._own.pop(next(iter(self._own)))

    def coming(self, message: Any) -> None:
        """Give a probe that comes in its event, or one that tells its process."""
        frame: Any = getattr(message, "frame", None)
        flush_id, origin = getattr(frame, "flush_id", None), getattr(frame, "origin", None)
        if flush_id is None or origin is None:
            return
        frame.event = self._own.get(flush_id) or _FarEvent(lambda: self._tell(origin, flush_id))

    def is_done(self, wire: WireMessage) -> bool:
        """Take in the news that a flush is done; returns whether a message is such."""
        if wire.type_name != DONE:
            return False
        event = self._own.pop(wire.values.get("flush_id", -1), None)
        if event is not None:
            event.set()
        return True
