"""Waking fetches that wait, when this process joins or leaves queues."""

import asyncio
import contextlib

from pbus.bus.queues.store import QueueStore
from pbus.errors import BusUnavailableError

_REFETCH_EVERY_S = 0.001  # for each queue: each costs so much, and hundreds may be joined at once


class Refetch:
    """Wakes waiting fetches when queues were joined or left; not for each of many at once."""

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        self._queues = 0
        self._is_requested = asyncio.Event()

    def request(self, queues: int) -> None:
        """Wake them soon, of so many queues."""
        self._queues = queues
        self._is_requested.set()

    async def run(self) -> None:
        """Wake fetches until cancelled."""
        while True:
            await self._is_requested.wait()
            self._is_requested.clear()
            with contextlib.suppress(BusUnavailableError):
                await self._store.wake_fetchers()
            await asyncio.sleep(self._queues * _REFETCH_EVERY_S)
