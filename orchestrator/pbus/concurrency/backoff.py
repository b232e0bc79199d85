"""Exponential backoff: of connections, restarts and redeliveries."""

import asyncio
import random

FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0
_MAX_STEPS = 64


def delay_after(failures: int, first_s: float, max_s: float, factor: float = 2.0) -> float:
    """Return the seconds to wait before the next attempt.

    Args:
        failures: Failed attempts in a row; after 0 there is no delay.
        first_s: Delay after one failure.
        max_s: Longest delay.
        factor: Growth of the delay with each further failure.
    """
    if failures <= 0:
        return 0.0
    return min(max_s, first_s * factor ** min(failures - 1, _MAX_STEPS))


class Backoff:
    """Growing delays with jitter, so that many processes do not reconnect at the same time.

    Args:
        first_s: First delay, at most.
        max_s: Longest delay.
    """

    def __init__(self, first_s: float = FIRST_BACKOFF_S, max_s: float = MAX_BACKOFF_S) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._failures = 0

    def reset(self) -> None:
        """Start again with the first delay, after a success."""
        self._failures = 0

    async def pause(self) -> None:
        """Wait before the next attempt."""
        self._failures += 1
        delay_s = delay_after(self._failures, self._first_s, self._max_s)
        await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreading, not secrecy
