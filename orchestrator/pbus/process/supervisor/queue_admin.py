"""Durable queues of a project's workers: opened, purged, requeued by their supervisor."""

import logging
from collections.abc import Iterable, Sequence

from pbus.bus.queues.retirement import retire
from pbus.bus.queues.store import QueueStore
from pbus.ids import new_token
from pbus.leases import Lease
from pbus.names import group_of
from pbus.process.project.recovery_log import RecoveryLog
from pbus.settings import DeliveryOptions

logger = logging.getLogger(__name__)

_RETIREMENT_S = 4.0  # for the messages of one replica to be moved; a call of a supervisor has 5 s


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
        self._leaving: set[str] = set()  # replicas whose messages are still being moved
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
            former = sorted(set(self._recovery_log.queues()) - set(self._names))
            if former and unreleased:  # what they held is moved, too
                await self._store.requeue_held_by(unreleased)
            for name in former:
                await self.remove(name)
            self._recovery_log.set_queues([*self._names, *self._leaving])
        return unreleased

    async def remove(self, name: str, limit_s: float = _RETIREMENT_S) -> None:
        """Remove the queue of a worker that is gone for good, and is none of the durable ones any more.

        The messages of a replica are moved to those that are left, by their keys; all others fall. While
        its queue is sent to faster than they are moved, renew() goes on with it.

        Args:
            name: The worker's, or a group's.
            limit_s: Seconds.
        """
        if self._store is None:
            return
        group = group_of(name)
        if group not in self._names:
            count = await self._store.purge(name, remove=True)
            logger.info("%s is not in the file any more: %d messages removed", name, count)
            return
        self._leaving.add(name)
        if await self._retire(self._store, name, limit_s):
            self._leaving.remove(name)

    async def _retire(self, store: QueueStore, name: str, limit_s: float) -> bool:
        """Move the messages of a replica; returns whether its queue is removed."""
        dead = sum(one.dead for one in await store.stats() if one.name == name)
        group = group_of(name)
        successors = [one for one in self._names if one != name and group_of(one) == group]
        consumer = f"retired-{new_token()}"
        self._recovery_log.note_started(consumer)
        result = await retire(store, name, successors, consumer=consumer, limit_s=limit_s)
        self._recovery_log.note_released(consumer)
        logger.info(
            "%s is gone: %d messages moved to %s, %d dropped, %d left",
            name, result.moved, ", ".join(successors) or group, result.dropped, result.left,
        )  # fmt: skip
        if dead and not result.left:
            logger.warning("%s is gone, and its %d dead letters with it", name, dead)
        return not result.left

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
        self._leaving.difference_update(added)
        if added and self._store is not None:
            self._names += added  # a broker that is away now: they are opened when it is back
            self._recovery_log.set_queues(self._names)
            await self._open_queues(added)

    async def keep_only(self, names: Iterable[str]) -> None:
        """Remove the queues of all workers but these; see remove()."""
        kept = set(names)
        gone = [one for one in self._names if one not in kept]
        self._names = [one for one in self._names if one in kept]
        self._leaving.update(one for one in gone if group_of(one) in kept)
        for name in gone:
            await self.remove(name)
        if self._store is not None:
            self._recovery_log.set_queues([*self._names, *self._leaving])

    async def drop(self, name: str) -> None:
        """Remove the queue of a replica that has left; see remove()."""
        await self.keep_only([one for one in self._names if one != name])

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
            for name in sorted(self._leaving):
                await self.remove(name, limit_s=0.0)
                self._recovery_log.set_queues([*self._names, *self._leaving])

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
