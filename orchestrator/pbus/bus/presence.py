"""Whether the messages of a channel have receivers, told from the registry."""

import time
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.bus.local.counters import EPHEMERAL_PREFIXES
from pbus.errors import BusError
from pbus.names import is_worker_name, with_groups

_FRESH_S: Final = 1.0  # so long what was seen holds
_AGAIN_S: Final = 0.25  # so soon an unknown name is looked up again


class Presence:
    """Knows which workers are there; looks again when a name is new or its knowledge is old.

    Args:
        bus: Started.
    """

    def __init__(self, bus: WorkerBus) -> None:
        self._bus = bus
        self._names: set[str] = set()
        self._looked_at = -_FRESH_S

    def knows(self, target: str | None) -> bool:
        """Whether a message to it has a receiver, as far as that is known without a look."""
        if target is None:
            return True
        is_fresh = time.monotonic() - self._looked_at < _FRESH_S
        return (target in self._names and is_fresh) or not _is_worker(target)

    async def reaches(self, target: str | None) -> bool:
        """Whether a message to it has a receiver; true where the registry does not answer."""
        if self.knows(target):
            return True
        if time.monotonic() - self._looked_at >= _AGAIN_S:
            try:
                await self._look()
            except BusError:
                return True
        return target in self._names

    async def _look(self) -> None:
        names = with_groups(lease.name for lease in await self._bus.leases.leases())
        if self._bus.queues is not None:
            names |= {box.name for box in await self._bus.queues.stats()}
        self._names = names
        self._looked_at = time.monotonic()


def _is_worker(target: str) -> bool:
    return is_worker_name(target) and not target.startswith(EPHEMERAL_PREFIXES)
