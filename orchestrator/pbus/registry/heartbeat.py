"""The heartbeat: renews the leases of a runner, and turns the answers of the store into changes."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

import msgspec

from pbus.concurrency.batches import Batches
from pbus.errors import BusUnavailableError
from pbus.leases import HEARTBEAT_S, LEASE_S, Lease, Renewal, Since
from pbus.messages import WorkerRegistryEntry
from pbus.registry.own_leases import OwnLeases
from pbus.registry.table import LEASE_EXPIRED, Change, MembershipTable, entry_of

logger = logging.getLogger(__name__)

# A worker whose lease disappears from the store has time for a heartbeat to put it back: the broker
# may have restarted empty.
MISSING_GRACE_S = 1.5 * HEARTBEAT_S
_JITTER = 0.1  # of the time between two beats
_MOST_UNCONFIRMED = 1_000  # beyond that all leases are read


class Heartbeat:
    """Keeps a table equal to the store, with a grace period after an outage of the store.

    Args:
        leases: The leases of this runner.
        table: All known workers.
        notify: Called with changes.
        announce: Called with entries that this process found expired; must not block.
        on_name_lost: Called with the name of an own lease that now belongs to another runner, and the
            lease of that.
        clock: Seconds; only differences matter.

    Attributes:
        on_lost: Called with workers whose leases ran out; must not block.
    """

    def __init__(
        self,
        leases: OwnLeases,
        table: MembershipTable,
        *,
        notify: Callable[[Iterable[Change]], None],
        announce: Callable[[list[WorkerRegistryEntry]], None],
        on_name_lost: Callable[[str, Lease | None], None],
        clock: Callable[[], float],
    ) -> None:
        self.on_lost: Callable[[list[WorkerRegistryEntry]], None] = lambda _: None
        self._leases = leases
        self._table = table
        self._notify = notify
        self._announce = announce
        self._on_name_lost = on_name_lost
        self._clock = clock
        self._is_cut_off = False
        self._grace_until = float("-inf")
        self._seen_version = -1
        self._changes: Batches[str] = Batches(self._renew)

    async def run(self) -> None:
        """Renew leases every HEARTBEAT_S until cancelled."""
        while True:
            # Processes that an outage brought into step get out of it again.
            await asyncio.sleep(HEARTBEAT_S * (1 - random.random() * _JITTER))  # noqa: S311
            try:
                await self.beat()
            except Exception:
                logger.exception("a heartbeat of the registry failed; the next will follow")

    async def beat(self) -> None:
        """Renew all leases once, and report workers that were missing for too long as lost."""
        await self.renew()
        if not self._is_cut_off:
            overdue = list(self._table.overdue(self._clock()))
            for entry in overdue:
                self._notify(self._table.apply_announcement(entry))
            self.on_lost(overdue)

    def drop_missing(self) -> None:
        """Remove the workers that a reading missed; but not where the store may have lost leases."""
        if not self._in_grace:
            for entry in self._table.overdue(float("inf")):
                self._notify(self._table.apply_announcement(entry))

    async def renew(self, names: Iterable[str] | None = None) -> None:
        """Renew own leases; an unreachable store is logged.

        Args:
            names: Of the leases, which are renewed with those of other calls; None for all.
        """
        if names is None:
            await self._renew(None)
        else:
            await self._changes.add(names)

    async def _renew(self, names: Iterable[str] | None) -> None:
        asked_at = self._table.stamp()
        try:
            renewal = await self._leases.renew(names)
        except BusUnavailableError as error:
            self._note_outage(error)
            return
        was_late = any(lease.name in self._leases for lease in renewal.expired)
        was_emptied = renewal.version < self._seen_version
        if was_emptied:
            self._leases.remember_again()
        if self._is_cut_off or was_late or was_emptied:
            self._note_recovery()  # the store was away, or this process was late, or the store restarted empty
        self._seen_version = renewal.version
        if names is None:
            self._leases.since = Since(renewal.version, renewal.epoch, is_brief=True)
        elif was_emptied:
            self._leases.since = None
        self._apply_renewal(renewal, asked_at)

    def on_announcement(self, entries: Iterable[WorkerRegistryEntry]) -> None:
        """Take in an announcement of another runner, or an echo of an own one."""
        for entry in entries:
            if entry.name in self._leases:
                continue  # this process knows better, except for the store
            self._confirm(entry.name)
            if entry.gone == LEASE_EXPIRED and self._in_grace:
                self._table.mark_missing([entry], self._lost_at())
            else:
                self._notify(self._table.apply_announcement(entry))

    def _confirm(self, *names: str) -> None:
        """Have leases read with the next renewal, whether they changed or not."""
        since = self._leases.since
        if since is not None:
            wanted = {*since.names, *names}
            self._leases.since = (
                msgspec.structs.replace(since, names=tuple(wanted))
                if len(wanted) <= _MOST_UNCONFIRMED
                else None
            )

    @property
    def _in_grace(self) -> bool:
        return self._is_cut_off or self._clock() < self._grace_until

    def _lost_at(self) -> float:
        return max(self._clock() + MISSING_GRACE_S, self._grace_until)

    def _note_outage(self, error: BusUnavailableError) -> None:
        if not self._is_cut_off:
            logger.warning("the registry is cut off, known workers stay listed: %s", error)
        self._is_cut_off = True
        self._leases.since = None

    def _note_recovery(self) -> None:
        logger.info("the registry was interrupted; no worker counts as lost for %g s", LEASE_S)
        self._is_cut_off = False
        self._grace_until = self._clock() + LEASE_S
        self._table.extend_grace(self._grace_until)

    def _apply_renewal(self, renewal: Renewal, asked_at: int) -> None:
        for name in renewal.refused:
            self._on_name_lost(name, renewal.holders.get(name))
        self._apply_expired(renewal)
        if renewal.leases is not None:
            changes, stale = self._table.apply_reading(
                renewal.leases,
                renewal.absent,
                asked_at=asked_at,
                lost_at=self._lost_at(),
                in_grace=self._in_grace,
                # Announcements tell it sooner where they are heard, and what they tell is less often wrong.
                is_noted=renewal.absent is not None and not self._table.is_live,
            )
            self._notify(changes)
            self._confirm(*stale)

    def _apply_expired(self, renewal: Renewal) -> None:
        expired = [
            entry_of(lease, gone=LEASE_EXPIRED)
            for lease in renewal.expired
            if lease.name not in self._leases  # an own one was late, and is back with this renewal
        ]
        if self._in_grace:
            self._table.mark_missing(expired, self._lost_at())
        elif expired:
            for entry in expired:
                self._notify(self._table.apply_announcement(entry))
            self._announce(expired)
            self.on_lost(expired)
