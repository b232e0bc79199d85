"""Who of a worker's jobs may run, and who waits for a turn."""

import itertools
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Waiter(Protocol):
    """What the line looks at.

    Attributes:
        turn_key: Of those that share one only one runs at a time; None shares with nobody.
        is_urgent: Goes before those that are not.
    """

    @property
    def turn_key(self) -> str | None:
        """See above."""
        ...

    @property
    def is_urgent(self) -> bool:
        """See above."""
        ...


W = TypeVar("W", bound=Waiter)


class ConcurrencyLimiter(Generic[W]):
    """Gives places in order: urgent ones first, then whoever came first and may run.

    Args:
        places: How many run at once; None for any number.
    """

    def __init__(self, places: int | None = None) -> None:
        self._places = places
        self._running = 0
        self._busy: set[str] = set()
        self._arrival = itertools.count().__next__
        self._waiting: dict[tuple[bool, str | None], OrderedDict[W, int]] = {}

    def enter(self, waiter: W) -> bool:
        """Take a place, or wait for it; whether there was one."""
        if self._has_place(waiter.turn_key):
            self._take(waiter)
            return True
        key = (not waiter.is_urgent, waiter.turn_key)
        self._waiting.setdefault(key, OrderedDict())[waiter] = self._arrival()
        return False

    def leave(self, waiter: W) -> W | None:
        """Give a place back; whoever has it now."""
        self._running -= 1
        if waiter.turn_key is not None:
            self._busy.discard(waiter.turn_key)
        heir = self._first()
        if heir is not None:
            self.withdraw(heir)
            self._take(heir)
        return heir

    def withdraw(self, waiter: W) -> bool:
        """Wait no longer; whether it did."""
        key = (not waiter.is_urgent, waiter.turn_key)
        queue = self._waiting.get(key)
        if queue is None or waiter not in queue:
            return False
        del queue[waiter]
        if not queue:
            del self._waiting[key]
        return True

    def clear(self) -> None:
        """Nobody waits any longer."""
        self._waiting.clear()

    def _has_place(self, key: str | None) -> bool:
        return key not in self._busy and (self._places is None or self._running < self._places)

    def _take(self, waiter: W) -> None:
        self._running += 1
        if waiter.turn_key is not None:
            self._busy.add(waiter.turn_key)

    def _first(self) -> W | None:
        """Who is next: looks at one of each kind, however many wait."""
        heads = [
            (is_last, arrival, waiter)
            for (is_last, key), queue in self._waiting.items()
            if self._has_place(key)
            for waiter, arrival in itertools.islice(queue.items(), 1)
        ]
        return min(heads, key=lambda head: head[:2])[2] if heads else None
