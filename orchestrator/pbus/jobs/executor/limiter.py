"""Concurrency limits of one worker's jobs: free slots, sequential jobs, and a priority queue."""

import itertools
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Waiter(Protocol):
    """A job as the limiter sees it."""

    @property
    def serial_key(self) -> str | None:
        """Jobs with the same key run one at a time; None runs beside all others."""
        ...

    @property
    def is_urgent(self) -> bool:
        """Whether it goes before jobs that are not urgent."""
        ...


W = TypeVar("W", bound=Waiter)


class ConcurrencyLimiter(Generic[W]):
    """Grants slots: urgent jobs first, then in order of arrival among those that may run.

    Args:
        slots: The number of jobs that run at once; None for no limit.
    """

    def __init__(self, slots: int | None = None) -> None:
        self._slots = slots
        self._running = 0
        self._busy_keys: set[str] = set()
        self._arrival = itertools.count().__next__
        self._waiting: dict[tuple[bool, str | None], OrderedDict[W, int]] = {}

    def acquire(self, waiter: W) -> bool:
        """Take a slot or join the queue.

        Returns:
            Whether a slot was free.
        """
        if self._has_slot(waiter.serial_key):
            self._take(waiter)
            return True
        key = (not waiter.is_urgent, waiter.serial_key)
        self._waiting.setdefault(key, OrderedDict())[waiter] = self._arrival()
        return False

    def release(self, waiter: W) -> W | None:
        """Free a slot.

        Returns:
            The job that has the slot now; None when no job waits for it.
        """
        self._running -= 1
        if waiter.serial_key is not None:
            self._busy_keys.discard(waiter.serial_key)
        next_waiter = self._first()
        if next_waiter is not None:
            self.withdraw(next_waiter)
            self._take(next_waiter)
        return next_waiter

    def withdraw(self, waiter: W) -> bool:
        """Leave the queue.

        Returns:
            Whether the job was in the queue.
        """
        key = (not waiter.is_urgent, waiter.serial_key)
        queue = self._waiting.get(key)
        if queue is None or waiter not in queue:
            return False
        del queue[waiter]
        if not queue:
            del self._waiting[key]
        return True

    def clear(self) -> None:
        """Empty the queue."""
        self._waiting.clear()

    def _has_slot(self, key: str | None) -> bool:
        return key not in self._busy_keys and (self._slots is None or self._running < self._slots)

    def _take(self, waiter: W) -> None:
        self._running += 1
        if waiter.serial_key is not None:
            self._busy_keys.add(waiter.serial_key)

    def _first(self) -> W | None:
        """The next job that may run; looks at the head of each queue only."""
        heads = [
            (is_last, arrival, waiter)
            for (is_last, key), queue in self._waiting.items()
            if self._has_slot(key)
            for waiter, arrival in itertools.islice(queue.items(), 1)
        ]
        return min(heads, key=lambda head: head[:2])[2] if heads else None
