"""The stored messages that this process has in hand, and how many more each queue may send it."""

import asyncio
from collections import Counter

from pbus.bus.queues.store import StoredMessage


class InFlight:
    """Counts messages in flight to this process, by queue.

    Attributes:
        has_room: Set when there may be room for more.
    """

    def __init__(self) -> None:
        self.has_room = asyncio.Event()
        self._counts: Counter[str] = Counter()
        self._outside_prefetch: dict[str, set[str]] = {}  # receipt handles that take no room

    def any(self) -> bool:
        """Whether anything is in flight."""
        return any(self._counts.values())

    def add(self, message: StoredMessage) -> None:
        """Count a fetched message."""
        self._counts[message.queue] += 1

    def room(self, queue: str, prefetch: int) -> int:
        """Return how many more messages of a queue fit; 0 or less: it is full."""
        return prefetch - self._counts[queue] + len(self._outside_prefetch.get(queue, ()))

    def exclude_from_prefetch(self, message: StoredMessage, prefetch: int) -> None:
        """Count a message no longer, though it is in hand: others are fetched beside it."""
        queue = message.queue
        self._outside_prefetch.setdefault(queue, set()).add(message.receipt_handle)
        if self._counts[queue] >= prefetch:
            self.has_room.set()

    def release_slot(self, message: StoredMessage) -> None:
        """A message is no longer in hand."""
        self._counts[message.queue] -= 1
        if (outside := self._outside_prefetch.get(message.queue)) is not None:
            outside.discard(message.receipt_handle)
        self.has_room.set()
