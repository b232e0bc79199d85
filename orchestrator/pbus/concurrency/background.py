"""What is done for as long as a process or a bus lives: an error ends neither it nor the others."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeAlias

Chore: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

_AGAIN_S = 1.0

logger = logging.getLogger(__name__)


async def keep_doing(what: str, chore: Chore, on_error: Callable[[], None] | None = None) -> None:
    """Do a chore until cancelled, again a second after whatever it raised.

    Args:
        what: Names it in the log.
        chore: Begins it.
        on_error: Called after each error.
    """
    complaint = Complaint(what, on_error)
    while True:
        with complaint.instead():
            await chore()
        await asyncio.sleep(_AGAIN_S)


class Complaint:
    """Logs what goes wrong somewhere, and goes on; the same error is logged once.

    Args:
        what: Where.
        on_error: Called each time.
    """

    def __init__(self, what: str, on_error: Callable[[], None] | None = None) -> None:
        self._what = what
        self._on_error = on_error
        self._last = ""

    @contextlib.contextmanager
    def instead(self) -> Iterator[None]:
        """Log an error instead of raising it."""
        try:
            yield
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if text != self._last:
                logger.exception("%s ended by an error: a bug in pbus; it goes on", self._what)
            self._last = text
            if self._on_error is not None:
                self._on_error()
