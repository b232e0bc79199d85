"""Work that is done for several at once: what comes while one call runs goes into the next."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST = 1_000  # items of a call


class Batches(Generic[T]):
    """Gathers items for one call at a time.

    Args:
        work: Deals with items; what it raises, all that wait for them get.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[None]]) -> None:
        self._work = work
        self._turn = asyncio.Lock()
        self._open: tuple[list[T], asyncio.Task[None]] | None = None

    async def add(self, items: Iterable[T]) -> None:
        """Have items dealt with, and wait for it. A cancelled wait cancels nothing for others."""
        if self._open is None or len(self._open[0]) >= _MOST:
            gathered: list[T] = []
            task = asyncio.create_task(self._run(gathered), name="pbus batch")
            task.add_done_callback(_note_error)
            self._open = gathered, task
        gathered, task = self._open
        gathered += items
        await asyncio.shield(task)

    async def _run(self, items: list[T]) -> None:
        async with self._turn:
            if self._open is not None and self._open[0] is items:
                self._open = None
            await self._work(items)


def _note_error(task: asyncio.Task[None]) -> None:
    """Have an error known, in case that all waits for it were cancelled."""
    if not task.cancelled():
        task.exception()
