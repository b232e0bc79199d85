"""The mail of a project's workers: whose is kept, and what becomes of that of the dead."""

import logging
from collections.abc import Sequence

from pbus.bus.queues.store import QueueStore
from pbus.leases import Lease
from pbus.process.project.recovery_log import RecoveryLog
from pbus.settings import DeliveryOptions

logger = logging.getLogger(__name__)


class QueueAdmin:
    """What a supervisor does for mail. Awaited calls may raise BusUnavailableError.

    Args:
        store: Where mail is kept; None where none is.
        ledger: What the supervisor before left, and what this one leaves.
        mailboxes: The names whose mail is kept.
        groups: Those of them that replicas share.
        options: How much a queue holds.
    """

    def __init__(
        self,
        store: QueueStore | None,
        ledger: RecoveryLog,
        mailboxes: Sequence[str],
        *,
        groups: frozenset[str],
        options: DeliveryOptions,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._mailboxes = list(mailboxes)
        self._groups = groups
        self._limits = {
            "max_backlog": options.max_backlog,
            "max_bytes": options.max_backlog_bytes,
        }

    def succeed(self, address: str) -> str:
        """A supervisor of this address begins; returns that of the one before, "" for none."""
        return self._ledger.succeed(address)

    async def open(self) -> list[str]:
        """Make ready for the workers; returns the lives that earlier supervisors left unburied."""
        dead = self._ledger.inherited()
        if self._store is not None:
            if self._ledger.is_purge_asked:
                await self._purge(self._store)
            await self._open_mailboxes(self._mailboxes)
            for name in set(self._ledger.mailboxes()) - set(self._mailboxes):
                count = await self._store.purge(name, remove=True)
                logger.info("%s is not in the file any more: %d messages fell", name, count)
            self._ledger.keep_mailboxes(self._mailboxes)
        return dead

    async def close(self) -> None:
        """The workers are down: note how much mail is kept, or drop it if somebody asked for that."""
        if self._store is None:
            self._ledger.note_purged()
        elif self._ledger.is_purge_asked:
            await self._purge(self._store)
        else:
            reports = await self._store.stats()
            own = [report.backlog for report in reports if report.name in self._mailboxes]
            self._ledger.note_kept(sum(own))
            logger.info("%d unhandled messages are kept", sum(own))

    async def _purge(self, store: QueueStore) -> None:
        for name in {*self._mailboxes, *self._ledger.mailboxes()}:
            await store.purge(name, remove=True)
        self._ledger.keep_mailboxes(())
        self._ledger.note_purged()
        logger.info("all mail was dropped")

    def begin(self, incarnation: str) -> None:
        """A life is about to begin."""
        self._ledger.begin(incarnation)

    async def end(self, incarnation: str) -> int:
        """A life is over: what it held goes back; returns how many messages."""
        count = 0
        if self._store is not None:
            count = await self._store.requeue_held_by([incarnation])
        self._ledger.end(incarnation)
        return count

    def describe(self, given_back: int, leases: Sequence[Lease], unhandled: int = 0) -> str:
        """What became of the messages and jobs of a life that is over; "" where it had none.

        Args:
            given_back: What it held of kept mail.
            leases: What it last told of itself, within a heartbeat of its end.
            unhandled: Messages that waited in it, as it said when it left.
        """
        if unhandled:
            return f"{_count(unhandled, 'message')} waited in it and are lost"
        if self._store is not None:
            return f"{_count(given_back, 'message')} in hand given back" if given_back else ""
        waited = sum(lease.queued for lease in leases)
        working = sum(lease.working for lease in leases)
        parts = [
            *([f"about {_count(waited, 'message')} waited in it and are lost"] if waited else []),
            *([f"about {_count(working, 'job')} in hand ended with it"] if working else []),
        ]
        return ", ".join(parts)

    async def look_after(self) -> None:
        """Open again what a broker has lost."""
        if self._store is not None:
            await self._open_mailboxes(await self._store.renew(self._mailboxes))

    async def _open_mailboxes(self, names: Sequence[str]) -> None:
        if self._store is None:
            return
        for name in names:
            is_shared = name in self._groups
            await self._store.open(name, durable=True, shared=is_shared, **self._limits)


def _count(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"
