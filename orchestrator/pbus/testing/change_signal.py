"""Waiting until a claim holds, told of every change that may have made it so."""

import asyncio
from collections.abc import Callable


class ChangeSignal:
    """Rung whenever something changed."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Have those who wait look again."""
        self._rung.set()

    async def until(self, claim: Callable[[], bool], limit_s: float) -> bool:
        """Wait until the claim holds; whether it does in time."""
        try:
            async with asyncio.timeout(limit_s):
                while not claim():
                    self._rung.clear()
                    await self._rung.wait()
        except TimeoutError:
            return False
        return True
