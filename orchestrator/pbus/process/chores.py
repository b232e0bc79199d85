"""What a supervisor does regularly: an error in one of its chores ends neither it nor the others."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeAlias

Chore: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

_AGAIN_S = 1.0

logger = logging.getLogger(__name__)


async def keep_doing(name: str, chore: Chore) -> None:
    """Do a chore until cancelled, again a second after whatever it raised."""
    complaint = Complaint(f"the supervisor's {name}")
    while True:
        with complaint.instead():
            await chore()
        await asyncio.sleep(_AGAIN_S)


class Complaint:
    """Logs what goes wrong somewhere, and goes on; the same error is logged once.

    Args:
        what: Where.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._last = ""

    @contextlib.contextmanager
    def instead(self) -> Iterator[None]:
        """Log an error instead of raising it."""
        try:
            yield
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if text != self._last:
                logger.exception("an error in %s; going on", self._what)
            self._last = text
