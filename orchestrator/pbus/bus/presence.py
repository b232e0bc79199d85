"""Whether the messages of a channel have receivers, told from the registry."""

import time
from collections.abc import Iterable
from typing import Final

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.local.counters import EPHEMERAL_PREFIXES
from pbus.bus.tap import TapMessage
from pbus.errors import BusError
from pbus.messages import BusWorkerRegistryMessage
from pbus.names import is_worker_name, with_groups
from pbus.structs import DECODE_ERRORS

_FRESH_S: Final = 1.0  # so long what was seen holds
_MOST_WORKERS: Final = 10_000  # as many as a registry has
_MOST_ENTRIES: Final = 1_000  # of an announcement
_AGAIN_S: Final = 0.25  # so soon an unknown name is looked up again


class _Entry(msgspec.Struct, frozen=True):
    name: str
    gone: str | None = None


class _Changes(msgspec.Struct, frozen=True):
    workers: tuple[_Entry, ...] = ()


_decode_changes = msgspec.json.Decoder(_Changes).decode


class Presence:
    """Knows which workers are there; looks again when a name is new or its knowledge is old.

    It hears the announcements that pass, so that the last message to a worker that leaves counts as
    delivered: by the time it is looked at, the worker may have left.

    Args:
        bus: Started.
        fresh_s: So long what was seen holds, seconds.
    """

    def __init__(self, bus: WorkerBus, *, fresh_s: float = _FRESH_S) -> None:
        self._bus = bus
        self._fresh_s = fresh_s
        self._workers: set[str] = set()
        self._queues: set[str] = set()
        self._names: set[str] = set()  # of both, and of groups
        self._looked_at = -fresh_s

    def note(self, item: TapMessage) -> None:
        """Take in a message that passed; only announcements of workers matter."""
        if item.header.type != BusWorkerRegistryMessage.__name__:
            return
        try:
            entries = _decode_changes(item.body).workers
        except DECODE_ERRORS:
            return
        for entry in entries[:_MOST_ENTRIES]:
            if entry.gone is not None:
                self._workers.discard(entry.name)
            elif len(self._workers) < _MOST_WORKERS:
                self._workers.add(entry.name)
        self._names = with_groups(self._workers) | self._queues

    def knows(self, target: str | None) -> bool:
        """Whether a message to it has a receiver, as far as that is known without a look."""
        if target is None:
            return True
        is_fresh = time.monotonic() - self._looked_at < self._fresh_s
        return (target in self._names and is_fresh) or not _is_worker(target)

    async def reaches(self, target: str | None) -> bool:
        """Whether a message to it has a receiver; true where the registry does not answer."""
        if self.knows(target):
            return True
        was_there = target in self._names
        if time.monotonic() - self._looked_at >= _AGAIN_S:
            try:
                await self.look()
            except BusError:
                return True
        return was_there or target in self._names

    async def look(self) -> None:
        """Read the registry.

        Raises:
            BusError: The broker does not answer.
        """
        workers = [lease.name for lease in await self._bus.leases.leases()]
        queues = None if self._bus.queues is None else await self._bus.queues.stats()
        self.take(workers, None if queues is None else [box.name for box in queues])

    def take(self, workers: Iterable[str], queues: Iterable[str] | None = None) -> None:
        """Take over what was read elsewhere.

        Args:
            workers: Those that are registered.
            queues: Those that have a queue; None where it was not looked.
        """
        self._workers = set(workers)
        self._queues = self._queues if queues is None else set(queues)
        self._names = with_groups(self._workers) | self._queues
        self._looked_at = time.monotonic()


def _is_worker(target: str) -> bool:
    return is_worker_name(target) and not target.startswith(EPHEMERAL_PREFIXES)
