"""Durable queues of a project's workers: opened, purged, requeued by their supervisor."""

import logging
from collections.abc import Iterable, Sequence

from pbus.bus.queues.store import QueueStore
from pbus.leases import Lease
from pbus.process.project.recovery_log import RecoveryLog
from pbus.settings import DeliveryOptions

logger = logging.getLogger(__name__)


class QueueAdmin:
    """Manages the durable queues of a topology. Awaited calls may raise BusUnavailableError.

    Args:
        store: The queues; None where messages are not stored.
        recovery_log: Of the project.
        names: Names of the durable queues.
        groups: Those of them that replicas share.
        options: Limits of a queue.
    """

    def __init__(
        self,
        store: QueueStore | None,
        recovery_log: RecoveryLog,
        names: Sequence[str],
        *,
        groups: frozenset[str],
        options: DeliveryOptions,
    ) -> None:
        self._store = store
        self._recovery_log = recovery_log
        self._names = list(names)
        self._groups = groups
        self._limits = {
            "max_backlog": options.max_backlog,
            "max_bytes": options.max_backlog_bytes,
        }

    @property
    def is_durable(self) -> bool:
        """Whether messages are stored."""
        return self._store is not None

    def replace_supervisor(self, address: str) -> str:
        """Record this supervisor's address; returns that of the one before, or ""."""
        return self._recovery_log.replace_supervisor(address)

    async def open(self) -> list[str]:
        """Open the queues, and remove those of workers that the topology no longer has.

        Returns:
            Incarnations that earlier supervisors did not release.
        """
        unreleased = self._recovery_log.unreleased()
        if self._store is not None:
            if self._recovery_log.is_purge_requested:
                await self._purge(self._store)
            await self._open_queues(self._names)
            for name in set(self._recovery_log.queues()) - set(self._names):
                await self._remove(self._store, name)
            self._recovery_log.set_queues(self._names)
        return unreleased

    async def close(self) -> None:
        """Record how many messages stay stored, or purge the queues if that was requested."""
        if self._store is None:
            self._recovery_log.note_purged()
        elif self._recovery_log.is_purge_requested:
            await self._purge(self._store)
        else:
            stats = await self._store.stats()
            count = sum(queue.backlog for queue in stats if queue.name in self._names)
            self._recovery_log.set_stored_count(count)
            logger.info("%d unhandled messages stay stored", count)

    async def _purge(self, store: QueueStore) -> None:
        for name in {*self._names, *self._recovery_log.queues()}:
            await store.purge(name, remove=True)
        self._recovery_log.set_queues(())
        self._recovery_log.note_purged()
        logger.info("all queues were purged")

    async def add(self, names: Iterable[str], groups: frozenset[str]) -> None:
        """Open the queues of further workers.

        Args:
            names: Their names.
            groups: All names that replicas share.
        """
        added = [name for name in names if name not in self._names]
        self._groups = groups
        if added and self._store is not None:
            self._names += added  # a broker that is away now: they are opened when it is back
            self._recovery_log.set_queues(self._names)
            await self._open_queues(added)

    async def keep_only(self, names: Iterable[str]) -> None:
        """Remove the queues of all workers but these, with the messages in them."""
        kept = set(names)
        for name in [one for one in self._names if one not in kept]:
            self._names.remove(name)
            if self._store is not None:
                await self._remove(self._store, name)
        if self._store is not None:
            self._recovery_log.set_queues(self._names)

    @staticmethod
    async def _remove(store: QueueStore, name: str) -> None:
        count = await store.purge(name, remove=True)
        logger.info("%s is not in the file any more: %d messages removed", name, count)

    def note_started(self, incarnation: str) -> None:
        """Record an incarnation before its process starts."""
        self._recovery_log.note_started(incarnation)

    async def requeue_held_by(self, incarnation: str) -> int:
        """Requeue the messages that a dead incarnation held; returns their number."""
        count = 0
        if self._store is not None:
            count = await self._store.requeue_held_by([incarnation])
        self._recovery_log.note_released(incarnation)
        return count

    async def renew(self) -> None:
        """Renew the queues, and open those again that the broker has lost."""
        if self._store is not None:
            await self._open_queues(await self._store.renew(self._names))

    async def _open_queues(self, names: Sequence[str]) -> None:
        if self._store is None:
            return
        for name in names:
            is_shared = name in self._groups
            await self._store.open(name, durable=True, shared=is_shared, **self._limits)


def describe_loss(unhandled: int, requeued: int = 0, leases: Sequence[Lease] = ()) -> str:
    """Describe the fate of the messages and jobs of an ended process; "" where it had none.

    Args:
        unhandled: Messages that waited in it, by its own report.
        requeued: Stored messages that it held.
        leases: Its last leases: their counters are up to one heartbeat old.
    """
    if unhandled:
        return f"{_count(unhandled, 'message')} waited in it and are lost"
    waited = sum(lease.queued for lease in leases)
    working = sum(lease.working for lease in leases)
    parts = (
        f"{_count(requeued, 'message')} in flight requeued" if requeued else "",
        f"about {_count(waited, 'message')} waited in it and are lost" if waited else "",
        f"about {_count(working, 'running job')} ended with it" if working else "",
    )
    return ", ".join(filter(None, parts))


def _count(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"
