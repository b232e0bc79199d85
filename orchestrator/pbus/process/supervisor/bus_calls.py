"""Calls of the bus by the supervisor: each with a deadline, none raises."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from pbus.errors import BusError

T = TypeVar("T")

_CALL_S = 1.5  # a broker that takes longer for one call is away, and supervising goes on

logger = logging.getLogger(__name__)


class BusCalls:
    """Awaits calls; of equal failures in a row the first is logged as a warning."""

    def __init__(self) -> None:
        self._failing: set[str] = set()

    async def result(self, what: str, call: Awaitable[T], limit_s: float = _CALL_S) -> T | None:
        """Await a call.

        Args:
            what: The deed, for the log: "renew leases".
            call: The call.
            limit_s: Seconds until it is cancelled.

        Returns:
            Its result; None after an error.
        """
        try:
            async with asyncio.timeout(limit_s):
                result = await call
        except Exception as error:
            is_usual = isinstance(error, BusError | TimeoutError)
            level = logging.DEBUG if what in self._failing else logging.WARNING
            problem = str(error) or "the broker takes too long"
            logger.log(level, "cannot %s: %s", what, problem, exc_info=not is_usual)
            self._failing.add(what)
            return None
        self._failing.discard(what)
        return result

    async def succeeds(self, what: str, call: Awaitable[object]) -> bool:
        """Await a call whose result does not matter; returns whether it succeeded."""
        return await self.result(what, _true_after(call)) is True


async def _true_after(call: Awaitable[object]) -> bool:
    await call
    return True
