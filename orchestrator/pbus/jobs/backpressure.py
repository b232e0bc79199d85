"""Backpressure of one job: the sender of its events (updates, stream messages) waits for the reader.

A request grants a window of bytes that may be unread. Each event has a position, the bytes of all
events up to it, and the requester reports from time to time the position that it has read. Where a hook
hears each event, unread events wait in the lane before other messages: so the window begins small, and
the reported position runs ahead of what was read while hooks are quick.
"""

import functools
from typing import Any

import msgspec

WINDOW_BYTES = 512 * 1024  # a requester's, for all workers of a group together
HOOK_WINDOW_BYTES = 1024  # where a hook hears each event, before it is known how long that takes
HOOK_WINDOW_S = 0.02  # what hooks hear in this time may be on its way
_HOOK_GROWTH = 16  # times the window, at most
_LEAST_WINDOW_BYTES = 8 * 1024
_LEAST_EVENT_BYTES = 256  # a small event costs more than its data

_encode = msgspec.json.Encoder().encode


@functools.lru_cache
def window_for(members: int, *, has_hooks: bool) -> int:
    """The window of each worker of a group, in bytes.

    Args:
        members: The number of workers.
        has_hooks: Whether a hook hears each event.
    """
    whole = HOOK_WINDOW_BYTES * _HOOK_GROWTH if has_hooks else WINDOW_BYTES
    share = max(_LEAST_WINDOW_BYTES, whole // max(1, members))
    return share // _HOOK_GROWTH if has_hooks else share


def size_of(data: dict[str, Any] | None) -> int:
    """The size of an event in bytes: about that of its data on the wire."""
    size = 0
    for value in (data or {}).values():
        kind = type(value)
        if kind is str or kind is bytes:
            size += len(value)
        elif kind is not int and kind is not float:
            size += _size_of_rest(value)
    return max(_LEAST_EVENT_BYTES, size)


def _size_of_rest(value: Any) -> int:
    try:
        return len(_encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return 0  # the bus says what is wrong with it, or hands it over as it is


class Reading:
    """The events of one incarnation of a worker that a requester has read.

    An event is read when both readers are done with it: the hook, and `async for` if there is one.

    Args:
        source: The worker's address.
        wire_id: The job's id there.
        window: Of the request, in bytes.
        has_queue: Whether events are queued for `async for`.

    Attributes:
        arrived: The position of the last event that came.
    """

    __slots__ = (
        "_ahead", "_heard", "_most", "_pace", "_taken", "_told", "_window", "arrived", "source",
        "wire_id",
    )  # fmt: skip

    def __init__(self, source: str, wire_id: str, window: int, *, has_queue: bool) -> None:
        self.source = source
        self.wire_id = wire_id
        self.arrived = 0
        self._heard = 0  # by hooks
        self._taken: int | None = 0 if has_queue else None  # from the queue
        self._window = window
        self._most = window if window >= _LEAST_WINDOW_BYTES else window * _HOOK_GROWTH
        self._ahead = 0
        self._pace = 0.0  # seconds a byte that hooks take
        self._told = 0

    @property
    def read(self) -> int:
        """The position of the last event that was read."""
        return self._heard if self._taken is None else min(self._heard, self._taken)

    @property
    def granted(self) -> int:
        """The position to report: the one read, plus what hooks are quick enough for."""
        return self.read + self._ahead

    def take(self, position: int) -> bool:
        """Note that an event was taken from the queue.

        Args:
            position: The event's.

        Returns:
            Whether a report to the sender is due.
        """
        if self._taken is not None:
            self._taken = max(self._taken, position)
        return self._is_due()

    def hear(self, size: int, seconds: float) -> bool:
        """Note that the hook of an event has ended; hooks may end in any order.

        Args:
            size: The event's, in bytes.
            seconds: The duration of the hook.

        Returns:
            Whether a report to the sender is due.
        """
        self._heard += size
        pace = seconds / max(1, size)
        self._pace = (3 * self._pace + pace) / 4 if self._pace else pace
        room = min(self._most, HOOK_WINDOW_S / max(self._pace, 1e-9))
        self._ahead = max(0, int(room) - self._window)
        return self._is_due()

    def _is_due(self) -> bool:
        if self.granted - self._told < (self._window + self._ahead) // 4:
            return False
        self._told = self.granted
        return True
