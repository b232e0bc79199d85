"""Watches for the readiness and the loss of other workers: `@worker_ready`, watch_workers()."""

import functools
import logging
from typing import Any, ClassVar

from pbus.concurrency.user_code import contained
from pbus.handlers import Handlers
from pbus.registry import Watch, WorkerLostData, WorkerReadyData
from pbus.workers.core import base_hook
from pbus.workers.sending import SendingMixin

logger = logging.getLogger(__name__)


class WatchingMixin(SendingMixin):
    """Adds watches for other workers."""

    EVENTS = frozenset({"on_worker_ready", "on_worker_lost"})
    HANDLERS: ClassVar[Handlers] = Handlers({}, {})

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._watched: dict[str, tuple[Watch[Any], ...]] = {}

    @base_hook
    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        """Handle the readiness of a watched worker, after its @worker_ready handler."""

    @base_hook
    async def on_worker_lost(self, data: WorkerLostData) -> None:
        """Handle the loss of a watched worker: it ended, left, or was silent for too long."""

    async def watch_workers(self, *names: str) -> None:
        """Watch workers from now on. Those that are ready already are reported at once.

        Args:
            *names: Of workers or groups of replicas.

        Raises:
            WorkerNotAttachedError: No runner has this worker yet.
        """
        for name in names:
            if name in self._watched:
                continue
            on_ready = functools.partial(self._on_ready, name)
            self._watched[name] = (
                self.registry.watch_lost(name, self._on_lost),
                self.registry.watch(name, on_ready),
            )

    async def _watch_marked(self) -> None:
        """Watch the workers that have @worker_ready handlers."""
        await self.watch_workers(*self.HANDLERS.ready)

    def _unwatch_all(self) -> None:
        for watches in self._watched.values():
            for watch in watches:
                watch.cancel()
        self._watched.clear()

    async def _on_ready(self, name: str, data: WorkerReadyData) -> None:
        method = self.HANDLERS.ready.get(name)
        if method is not None:
            work = contained(getattr(self, method), f"{method} of {self.name!r}", data)
            try:
                await self._handlers_in_progress.track(method, None, work)
            except Exception:
                logger.exception("%s: %s raised for %s", self.name, method, data)
        await self._call_hook("on_worker_ready", data)

    async def _on_lost(self, data: WorkerLostData) -> None:
        await self._call_hook("on_worker_lost", data)
