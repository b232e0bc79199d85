"""The heartbeat: renews what a runner holds, and turns what the store says into changes."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from pbus.errors import BusUnavailableError
from pbus.leases import HEARTBEAT_S, LEASE_S, Lease, Renewal
from pbus.messages import WorkerRegistryEntry
from pbus.registry.own_leases import OwnLeases
from pbus.registry.table import LEASE_EXPIRED, Change, MembershipTable, entry_of

logger = logging.getLogger(__name__)

# Whoever disappears from the store without a word gets a heartbeat's time to put its lease back: the
# broker may have restarted empty.
MISSING_GRACE_S = 1.5 * HEARTBEAT_S


class Heartbeat:
    """Keeps a table true to the store, and is lenient when the store itself was away.

    Args:
        holdings: The leases to renew.
        table: What is known of all workers.
        tell: Called with what changed.
        announce: Called with entries that this process found expired; must be quick.
        refuse: Called with the name of a lease of ours that now belongs to another, and the other.
        clock: Seconds; only differences matter.

    Attributes:
        on_given_up: Called with those whose leases ran out, for what they leave behind; must be
            quick.
    """

    def __init__(
        self,
        holdings: OwnLeases,
        table: MembershipTable,
        *,
        tell: Callable[[Iterable[Change]], None],
        announce: Callable[[list[WorkerRegistryEntry]], None],
        refuse: Callable[[str, Lease | None], None],
        clock: Callable[[], float],
    ) -> None:
        self.on_given_up: Callable[[list[WorkerRegistryEntry]], None] = lambda _: None
        self._holdings = holdings
        self._table = table
        self._tell = tell
        self._announce = announce
        self._refuse = refuse
        self._clock = clock
        self._is_cut_off = False
        self._lenient_until = float("-inf")
        self._seen_version = -1

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                await self.beat()
            except Exception:
                logger.exception("a heartbeat of the registry failed; the next will follow")

    async def beat(self) -> None:
        """Renew everything once and give up those who were missing for too long."""
        await self.renew()
        if not self._is_cut_off:
            overdue = list(self._table.overdue(self._clock()))
            for entry in overdue:
                self._tell(self._table.hear(entry))
            self.on_given_up(overdue)

    async def renew(self, names: Iterable[str] | None = None) -> None:
        """Renew our leases, or those named; an unreachable store is noted, not raised."""
        asked_at = self._table.stamp()
        try:
            renewal = await self._holdings.renew(names)
        except BusUnavailableError as error:
            self._note_outage(error)
            return
        was_late = any(lease.name in self._holdings for lease in renewal.expired)
        was_emptied = renewal.version < self._seen_version
        if was_emptied:
            self._holdings.remember_again()
        if self._is_cut_off or was_late or was_emptied:
            self._note_recovery()  # we could not renew, or did not, or the store restarted empty
        self._seen_version = renewal.version
        self._digest(renewal, asked_at)

    def hear(self, entries: Iterable[WorkerRegistryEntry]) -> None:
        """Take in an announcement of another runner (or an echo of our own)."""
        for entry in entries:
            if entry.name in self._holdings:
                continue  # nobody knows better than we, except the store
            self._holdings.version = -1  # have the next reading confirm it
            if entry.gone == LEASE_EXPIRED and self._is_lenient:
                self._table.miss([entry], self._give_up_at())
            else:
                self._tell(self._table.hear(entry))

    @property
    def _is_lenient(self) -> bool:
        return self._is_cut_off or self._clock() < self._lenient_until

    def _give_up_at(self) -> float:
        return max(self._clock() + MISSING_GRACE_S, self._lenient_until)

    def _note_outage(self, error: BusUnavailableError) -> None:
        if not self._is_cut_off:
            logger.warning("the registry is cut off, known workers stay listed: %s", error)
        self._is_cut_off = True
        self._holdings.version = -1

    def _note_recovery(self) -> None:
        logger.info("the registry was interrupted; nobody counts as lost for %g s", LEASE_S)
        self._is_cut_off = False
        self._lenient_until = self._clock() + LEASE_S
        self._table.excuse(self._lenient_until)

    def _digest(self, renewal: Renewal, asked_at: int) -> None:
        self._holdings.version = renewal.version
        by_name = {lease.name: lease for lease in renewal.leases or ()}
        for name in renewal.refused:
            self._refuse(name, by_name.get(name))
        expired = [
            entry_of(lease, gone=LEASE_EXPIRED)
            for lease in renewal.expired
            if lease.name not in self._holdings  # ours was late, and is back with this renewal
        ]
        if self._is_lenient:
            self._table.miss(expired, self._give_up_at())
        elif expired:
            for entry in expired:
                self._tell(self._table.hear(entry))
            self._announce(expired)
            self.on_given_up(expired)
        if renewal.leases is not None:
            changes, is_stale = self._table.read(
                renewal.leases,
                asked_at=asked_at,
                give_up_at=self._give_up_at(),
                is_lenient=self._is_lenient,
            )
            self._tell(changes)
            if is_stale:
                self._holdings.version = -1
