"""Waits for a predicate, which is checked after every change."""

import asyncio
from collections.abc import Callable


class ChangeSignal:
    """Tells waiters of changes."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Have waiters check again."""
        self._changed.set()

    async def wait_for(self, predicate: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the predicate holds.

        Args:
            predicate: Checked now and after every `notify`.
            timeout_s: Seconds.

        Returns:
            True, or False after the timeout.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not predicate():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
