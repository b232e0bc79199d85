"""The hooks that are called for a job, as the wait for its end includes them."""

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger(__name__)

HOOKS_S = 5.0  # for hooks to end, before the wait for their job ends without them


class CalledHooks:
    """Counts the hooks of one job that are to run, or run."""

    def __init__(self) -> None:
        self._count = 0
        self._ended = asyncio.Event()

    async def until_ended(self) -> None:
        """Wait, at most 5 s, until no hook runs. Returns at once within one of them."""
        if not self._count or self in _ENCLOSING.get():
            return
        try:
            async with asyncio.timeout(HOOKS_S):
                await self._ended.wait()
        except TimeoutError:
            logger.warning("a hook takes more than %g s; its job ends without it", HOOKS_S)

    @contextlib.contextmanager
    def calling(self, count: int = 1) -> Iterator[Callable[[], None]]:
        """Enclose the calls of hooks, which may go on after the block.

        Args:
            count: Their number.

        Yields:
            To be called as often, when a hook has ended; handlers of its event begin before that counts.
        """
        self._begin(count)
        token = _ENCLOSING.set((*_ENCLOSING.get(), self))
        try:
            yield self._end_soon
        finally:
            _ENCLOSING.reset(token)

    def include(self, calls: asyncio.Task[Any]) -> None:
        """Count a task that calls hooks as one of them."""
        self._begin(1)
        calls.add_done_callback(lambda _: self._end())

    def _begin(self, count: int) -> None:
        self._count += count
        self._ended.clear()

    def _end_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self._count -= 1
        if not self._count:
            self._ended.set()


# Those of the hooks that this code is part of.
_ENCLOSING: contextvars.ContextVar[tuple[CalledHooks, ...]] = contextvars.ContextVar(
    "pbus_called_hooks", default=()
)
