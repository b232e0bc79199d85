"""Backpressure of one job: who sends its events (updates, pieces) waits for who reads them.

A request grants a window of bytes that may be on their way unread. Each event tells its position,
the bytes of all events up to it, and the requester tells now and then which position it has read.
"""

from typing import Any

import msgspec

WINDOW_BYTES = 512 * 1024  # a requester's, for all workers of a group together
HOOK_WINDOW_BYTES = 16 * 1024  # where a hook hears each event: it keeps others from being handled
_LEAST_WINDOW_BYTES = 8 * 1024
_LEAST_EVENT_BYTES = 256  # a small event costs more than its data

_encode = msgspec.json.Encoder().encode


def window_for(members: int, *, has_hooks: bool) -> int:
    """The window of one of so many workers of a group."""
    whole = HOOK_WINDOW_BYTES if has_hooks else WINDOW_BYTES
    return max(_LEAST_WINDOW_BYTES, whole // max(1, members))


def size_of(data: dict[str, Any] | None) -> int:
    """What an event counts, in bytes: about what its data takes on the wire."""
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
    """What a requester has read of the events of one life of a worker.

    Args:
        source: The worker's address.
        wire_id: The job's id there.
        window: What the request granted, bytes.

    Attributes:
        arrived: The position of the last event that came.
        read: The position that has been read.
    """

    __slots__ = ("_step", "_told", "arrived", "read", "source", "wire_id")

    def __init__(self, source: str, wire_id: str, window: int) -> None:
        self.source = source
        self.wire_id = wire_id
        self.arrived = 0
        self.read = 0
        self._told = 0
        self._step = window // 4

    def note(self, position: int) -> bool:
        """Note that an event was read; whether its sender is to be told now."""
        self.read = max(self.read, position)
        if self.read - self._told < self._step:
            return False
        self._told = self.read
        return True
