"""Growing pauses between attempts to reach a broker."""

import asyncio
import random

FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0


class Backoff:
    """Growing pauses, a little random so that a hundred processes do not knock at once.

    Args:
        first_s: The first one, at most.
        max_s: The longest.
    """

    def __init__(self, first_s: float = FIRST_BACKOFF_S, max_s: float = MAX_BACKOFF_S) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next = first_s

    def reset(self) -> None:
        """Begin anew after a success."""
        self._next = self._first_s

    async def pause(self) -> None:
        """Wait before the next attempt."""
        delay = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - spreading, not secrecy
        self._next = min(self._max_s, self._next * 2)
        await asyncio.sleep(delay)
