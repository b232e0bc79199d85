"""Who is there, as one process knows it: announcements and store readings folded together.

Pure bookkeeping. Announcements are quick and may be late, lost or wrong; the store is right as of
when it was read. So each piece of news carries a stamp, and a reading never undoes news that came
after it was asked for.
"""

import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, KeysView, Sequence
from typing import TypeVar

import msgspec

from pbus.leases import Lease, process_of
from pbus.messages import WorkerRegistryEntry
from pbus.names import group_of, replica_number
from pbus.registry.event_data import WorkerLostData, WorkerReadyData

K = TypeVar("K")
T = TypeVar("T")

LEASE_EXPIRED = "lease expired"
LEASE_MISSING = "its lease is missing"
NEVER_CONFIRMED = "announced, but not registered"
REPLACED = "replaced by a new incarnation"

_LATE_S = 10.0  # what was sent under a name may come so long after the news that it is given up
_MAX_GONE = 1_000  # incarnations remembered as gone: late news comes within seconds


class WorkerJoined(msgspec.Struct, frozen=True):
    """A worker became ready.

    Attributes:
        first: No other replica of its group was ready.
    """

    data: WorkerReadyData
    first: bool = True


Change = WorkerJoined | WorkerLostData


class Member(msgspec.Struct):
    """One worker of the table.

    Attributes:
        stamp: When an announcement last told of it.
        announced: Whether watchers were told that it is ready.
        confirmed: Whether the store ever had it.
        missing_until: Set when the store has it no longer, without a word of goodbye: when to
            give it up if it does not put its lease back.
    """

    entry: WorkerRegistryEntry
    data: WorkerReadyData
    stamp: int
    announced: bool = False
    confirmed: bool = False
    missing_until: float | None = None


def entry_of(lease: Lease, *, gone: str | None = None, unhandled: int = 0) -> WorkerRegistryEntry:
    """What an announcement says about the holder of a lease."""
    return WorkerRegistryEntry(
        name=lease.name,
        incarnation=lease.incarnation,
        runner=lease.runner,
        active=lease.active,
        ready=lease.state == "ready" and gone is None,
        started_at=lease.started_at,
        gone=gone,
        unhandled=unhandled,
    )


class MembershipTable:
    """The workers known, by name, and by group for replicas."""

    def __init__(self) -> None:
        self._known: dict[str, Member] = {}
        self.find = (
            self._known.get
        )  # an attribute in place of a method saves a call for each message
        self._groups: dict[str, dict[str, Member]] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()  # incarnation -> stamp
        self._processes: Counter[str] = Counter()  # of how many workers
        self._over: OrderedDict[str, None] = OrderedDict()  # processes whose last worker is gone
        self._left: OrderedDict[tuple[str, str], float] = OrderedDict()  # names, of processes: when
        self._next_stamp = itertools.count(1).__next__

    def stamp(self) -> int:
        """A moment, to be compared with others; taken before the store is asked."""
        return self._next_stamp()

    def ready_names(self) -> list[str]:
        """All ready workers, sorted."""
        return sorted(name for name, known in self._known.items() if known.entry.ready)

    def groups(self) -> KeysView[str]:
        """The names of all groups with replicas, ready or not: a view, it stays true."""
        return self._groups.keys()

    def replicas(self, group: str) -> list[Member]:
        """The ready replicas of a group, by number."""
        members = [known for known in self._groups.get(group, {}).values() if known.entry.ready]
        return sorted(members, key=lambda known: replica_number(known.entry.name))

    def is_over(self, process: str) -> bool:
        """Whether a process had workers, and its last one is gone."""
        return process in self._over

    def holder(self, name: str) -> str | None:
        """The process that has a worker of this name."""
        known = self._known.get(name)
        return None if known is None else process_of(known.entry.incarnation)

    def was_holder(self, name: str, process: str) -> bool:
        """Whether a process had a worker of this name until a moment ago."""
        left_at = self._left.get((name, process))
        return left_at is not None and time.monotonic() - left_at < _LATE_S

    def hear(self, entry: WorkerRegistryEntry, *, is_own: bool = False) -> list[Change]:
        """Take in an announcement, unless what is known already is newer.

        Args:
            entry: What was announced.
            is_own: It comes from this very process, so it is true whatever the clocks say.
        """
        known = self._known.get(entry.name)
        is_other = known is not None and known.entry.incarnation != entry.incarnation
        if entry.gone is not None:
            self._bury(entry.incarnation)
            return [] if known is None or is_other else self._remove(known, entry.gone)
        if not is_own and (
            entry.incarnation in self._gone
            or (known is not None and is_other and _is_older(entry, known.entry))
        ):
            return []
        changes = self._put(entry)
        self._known[entry.name].stamp = self._next_stamp()
        return changes

    def read(
        self,
        leases: Sequence[Lease],
        *,
        asked_at: int,
        give_up_at: float,
        is_lenient: bool = False,
    ) -> tuple[list[Change], bool]:
        """Take in all leases of the store.

        Args:
            leases: What the store holds.
            asked_at: The stamp taken before the store was asked.
            give_up_at: Until when those who are missing without a word may come back, seconds.
            is_lenient: Whether the store may have forgotten even what it never told us of.

        Returns:
            The changes, and whether newer news was left alone, so that another full reading is due.
        """
        changes: list[Change] = []
        is_stale = False
        for lease in leases:
            if self._has_news_since(asked_at, lease):
                is_stale = True
                continue
            self._gone.pop(lease.incarnation, None)
            changes += self._put(entry_of(lease))
            known = self._known[lease.name]
            known.confirmed, known.missing_until = True, None
        held = {lease.name for lease in leases}
        for known in [known for name, known in self._known.items() if name not in held]:
            if known.stamp > asked_at:
                is_stale = True
            elif not known.confirmed and not is_lenient:
                changes += self._remove(known, NEVER_CONFIRMED)
            elif known.missing_until is None:
                known.missing_until = give_up_at
        return changes, is_stale

    def miss(self, entries: Iterable[WorkerRegistryEntry], give_up_at: float) -> None:
        """Note workers whose lease ran out while nobody could renew; they may put it back."""
        for entry in entries:
            known = self._known.get(entry.name)
            if known is not None and known.entry.incarnation == entry.incarnation:
                known.missing_until = give_up_at

    def excuse(self, give_up_at: float) -> None:
        """Give all that are missing more time: nobody could reach the store."""
        for known in self._known.values():
            if known.missing_until is not None:
                known.missing_until = give_up_at

    def overdue(self, now: float) -> list[WorkerRegistryEntry]:
        """Those that were missing for too long, as entries that are gone."""
        return [
            msgspec.structs.replace(known.entry, ready=False, gone=LEASE_MISSING)
            for known in self._known.values()
            if known.missing_until is not None and known.missing_until <= now
        ]

    def _has_news_since(self, asked_at: int, lease: Lease) -> bool:
        if self._gone.get(lease.incarnation, 0) > asked_at:
            return True
        known = self._known.get(lease.name)
        return known is not None and known.stamp > asked_at

    def _put(self, entry: WorkerRegistryEntry) -> list[Change]:
        changes: list[Change] = []
        known = self._known.get(entry.name)
        if known is not None and known.entry.incarnation != entry.incarnation:
            changes += self._remove(known, REPLACED)
            self._bury(known.entry.incarnation)
            known = None
        data = WorkerReadyData(entry.name, entry.runner, entry.incarnation, entry.active)
        if known is None:
            known = self._add(Member(entry=entry, data=data, stamp=0))
        known.entry, known.data = entry, data
        if entry.ready and not known.announced:
            known.announced = True
            changes.append(WorkerJoined(data, first=self._is_first(known)))
        return changes

    def _add(self, known: Member) -> Member:
        name, process = known.entry.name, process_of(known.entry.incarnation)
        self._known[name] = known
        self._processes[process] += 1
        self._over.pop(process, None)
        group = group_of(name)
        if group is not None:
            self._groups.setdefault(group, {})[name] = known
        return known

    def _remove(self, known: Member, reason: str) -> list[Change]:
        name, process = known.entry.name, process_of(known.entry.incarnation)
        del self._known[name]
        _remember(self._left, (name, process), time.monotonic())
        self._processes[process] -= 1
        if not self._processes[process]:
            del self._processes[process]
            _remember(self._over, process, None)
        group = group_of(name)
        if group is not None:
            del self._groups[group][name]
            if not self._groups[group]:
                del self._groups[group]
        if not known.announced:
            return []
        return [WorkerLostData(name, known.entry.runner, known.entry.incarnation, reason)]

    def _is_first(self, known: Member) -> bool:
        group = group_of(known.entry.name)
        if group is None:
            return True
        return not any(
            other.entry.ready for other in self._groups[group].values() if other is not known
        )

    def _bury(self, incarnation: str) -> None:
        _remember(self._gone, incarnation, self._next_stamp())


def _remember(among: OrderedDict[K, T], key: K, value: T) -> None:
    """Put it last; the first falls where there are too many."""
    among[key] = value
    among.move_to_end(key)
    if len(among) > _MAX_GONE:
        among.popitem(last=False)


def _is_older(entry: WorkerRegistryEntry, known: WorkerRegistryEntry) -> bool:
    return (
        entry.started_at is not None
        and known.started_at is not None
        and entry.started_at < known.started_at
    )
